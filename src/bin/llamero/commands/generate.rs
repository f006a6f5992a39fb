//! `generate`: text from a prompt, token ids or a conversation.

use super::capture;
use crate::args::{ChatArgs, Device, Sampling};
use crate::files::from_json;
use crate::load::load;
use crate::output::{invalid, print};
use llamero::engine::{Event, Extras, Host, Request, Stop};
use llamero::error::Result;
use llamero::plan::Trace;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    #[arg(long)]
    prompt: Option<String>,
    #[arg(long, value_delimiter = ',')]
    ids: Option<Vec<u32>>,
    /// A JSON file with [{"role": …, "content": …}, …].
    #[arg(long)]
    messages: Option<PathBuf>,
    /// A JSON file with changes of inner values, as of logits. Caches are f32 then, unless --kv-cache-type says otherwise.
    #[arg(long)]
    edits: Option<PathBuf>,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    device: Device,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let edits = args.edits.as_deref().map(capture::edits).transpose()?;
    let device = if edits.is_some() {
        args.device.clone().exact()
    } else {
        args.device.clone()
    };
    let model = args.model.clone();
    let request = request(args)?;
    let mut engine = load(&model, &device).await?;
    let mut terminal = Terminal {
        many: request.num_return_sequences.unwrap_or(1) > 1,
    };
    let seed =
        getrandom::u64().map_err(|e| invalid(&format!("no random numbers ({e}): give --seed")))?;
    let extras = Extras {
        edits: edits.map(|edits| Trace {
            taps: Vec::new(),
            edits,
        }),
        ..Extras::default()
    };
    let id = engine.enqueue_with(&request, seed, extras)?;
    let result = engine.finish(id, &mut terminal).await?.generation()?;
    eprintln!();
    print(&serde_json::to_value(&result).map_err(|e| invalid(&e.to_string()))?)
}

/// The options as the engine takes them.
fn request(args: Args) -> Result<Request> {
    let messages = args.messages.map(|m| from_json(&m)).transpose()?;
    let (chat, sampling) = (args.chat.read()?, args.sampling);
    Ok(Request {
        prompt: args.prompt,
        ids: args.ids,
        messages,
        tools: chat.tools,
        chat_template_kwargs: chat.kwargs,
        chat_template: chat.template,
        now: Some(chat.now),
        max_new_tokens: sampling.max_new_tokens,
        max_length: sampling.max_length,
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        seed: sampling.seed,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        logit_bias: biases(&sampling.logit_bias)?,
        suppress_tokens: sampling.suppress_tokens,
        allowed_tokens: sampling.allowed_tokens,
        stop: (!sampling.stop.is_empty()).then_some(Stop::Many(sampling.stop)),
        ignore_eos: Some(sampling.ignore_eos),
        num_return_sequences: sampling.n,
        logprobs: sampling.logprobs.then_some(true),
        top_logprobs: sampling.top_logprobs,
        ..Request::default()
    })
}

/// Streams text to stderr.
struct Terminal {
    many: bool,
}

impl Host for Terminal {
    fn event(&mut self, event: Event) -> Result<()> {
        if let Event::Token { index, text, .. } = event {
            // Several sequences interleave: show the first.
            if !self.many || index == 0 {
                eprint!("{text}");
                std::io::stderr().flush()?;
            }
        }
        Ok(())
    }
}

/// Biases as `--logit-bias` gives them, ID=VALUE each.
fn biases(texts: &[String]) -> Result<Option<BTreeMap<String, f32>>> {
    let mut biases = BTreeMap::new();
    for text in texts {
        let pair = text
            .split_once('=')
            .and_then(|(id, value)| Some((id.trim(), value.trim().parse().ok()?)));
        let (id, value) =
            pair.ok_or_else(|| invalid(&format!("--logit-bias is {text:?}; it must be ID=VALUE")))?;
        if biases.insert(id.to_owned(), value).is_some() {
            return Err(invalid(&format!("--logit-bias names token {id} twice")));
        }
    }
    Ok((!biases.is_empty()).then_some(biases))
}
