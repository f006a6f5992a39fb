//! `generate`: text from a prompt, token ids or a conversation.

use super::capture;
use crate::args::{ChatArgs, Device};
use crate::files::from_json;
use crate::load::load;
use crate::output::{invalid, print};
use llamero::engine::{Event, Extras, Host, Request};
use llamero::error::Result;
use llamero::plan::Trace;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    /// A JSON file with [{"role": …, "content": …}, …].
    #[arg(long)]
    messages: Option<PathBuf>,
    /// A JSON file with changes of inner values, as of logits. Caches are f32 then, unless --kv-cache-type says otherwise.
    #[arg(long)]
    edits: Option<PathBuf>,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    request: Request,
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

/// The request that the flags give, with the conversation from its files.
fn request(args: Args) -> Result<Request> {
    let chat = args.chat.read()?;
    Ok(Request {
        messages: args.messages.map(|m| from_json(&m)).transpose()?,
        tools: chat.tools,
        chat_template_kwargs: chat.kwargs,
        chat_template: chat.template,
        now: Some(chat.now),
        ..args.request
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
