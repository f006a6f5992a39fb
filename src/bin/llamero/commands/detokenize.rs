//! `detokenize`: token ids to text.

use crate::load::tokenizer;
use crate::output::print;
use llamero::error::Result;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    /// Comma-separated.
    #[arg(long, value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    #[arg(long)]
    skip_special: bool,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let tokenizer = tokenizer(&args.model).await?;
    let text = tokenizer.decode(&args.ids, args.skip_special)?;
    print(&json!({ "text": text }))
}
