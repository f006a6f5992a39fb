//! `template`: a conversation as a chat template renders it.

use crate::args::ChatArgs;
use crate::files::{from_json, read_text};
use crate::load::tokenizer;
use crate::output::print;
use llamero::engine::{Chat, apply_chat_template, render_chat};
use llamero::error::{Error, ErrorKind, Result};
use llamero::tokenizer::ChatTemplate;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    /// A JSON file with [{"role": …, "content": …}, …].
    #[arg(long)]
    messages: PathBuf,
    #[command(flatten)]
    chat: ChatArgs,
    /// A Jinja file instead of the model's template.
    #[arg(long, conflicts_with = "chat_template")]
    template: Option<PathBuf>,
    #[arg(long)]
    bos: Option<String>,
    #[arg(long)]
    eos: Option<String>,
    #[arg(long)]
    add_generation_prompt: bool,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let messages: Value = from_json(&args.messages)?;
    let options = args.chat.read()?;
    let chat = Chat {
        messages: &messages,
        tools: options.tools.as_ref(),
        kwargs: options.kwargs.as_ref(),
        template: options.template.as_deref(),
        add_generation_prompt: args.add_generation_prompt,
        now: Some(options.now),
    };
    let text = match args.template {
        Some(file) => {
            let (bos, eos) = (args.bos.unwrap_or_default(), args.eos.unwrap_or_default());
            let template = ChatTemplate::new(&read_text(&file)?, &bos, &eos)?;
            render_chat(&template, &chat)?
        }
        None => {
            let tokenizer = tokenizer(&args.model).await?;
            if tokenizer.chat_template().is_none() && chat.template.is_none() {
                return Err(Error::new(
                    ErrorKind::Template,
                    "the model has no chat template; give --template",
                ));
            }
            apply_chat_template(&tokenizer, &chat)?
        }
    };
    print(&json!({ "text": text }))
}
