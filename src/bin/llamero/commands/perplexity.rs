//! `perplexity`: exp of the mean negative log-likelihood of a text's tokens.

use crate::args::Device;
use crate::files::read_text;
use crate::load::load;
use crate::output::print;
use llamero::error::Result;
use llamero::tokenizer::EncodeOptions;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    #[arg(long)]
    file: PathBuf,
    /// Tokens per context (default: the context length).
    #[arg(long)]
    context: Option<u32>,
    #[command(flatten)]
    device: Device,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let text = read_text(&args.file)?;
    let mut engine = load(&args.model, &args.device).await?;
    let options = EncodeOptions {
        add_special: false,
        parse_special: false,
    };
    let ids = engine.tokenizer()?.encode(&text, options)?;
    let context = args.context.unwrap_or(u32::MAX);
    let (perplexity, tokens) = engine.perplexity(&ids, context).await?;
    print(&json!({ "perplexity": perplexity, "tokens": tokens }))
}
