//! `tokenize`: text to token ids.

use crate::files::{from_json, read_text};
use crate::load::tokenizer;
use crate::output::{invalid, print};
use llamero::error::Result;
use llamero::tokenizer::EncodeOptions;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    #[arg(long)]
    text: Option<String>,
    #[arg(long)]
    file: Option<PathBuf>,
    /// A JSON array of strings.
    #[arg(long)]
    texts: Option<PathBuf>,
    /// Prepend BOS (and append EOS) as the model wants.
    #[arg(long)]
    add_special: bool,
    /// Take special-token text literally.
    #[arg(long)]
    plain: bool,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let tokenizer = tokenizer(&args.model).await?;
    let options = EncodeOptions {
        add_special: args.add_special,
        parse_special: !args.plain,
    };
    let encode = |text: &str| tokenizer.encode(text, options);
    let out = match (args.text, args.file, args.texts) {
        (Some(text), None, None) => json!({ "ids": encode(&text)? }),
        (None, Some(file), None) => json!({ "ids": encode(&read_text(&file)?)? }),
        (None, None, Some(file)) => {
            let texts: Vec<String> = from_json(&file)?;
            let ids: Result<Vec<_>> = texts.iter().map(|text| encode(text)).collect();
            json!({ "ids": ids? })
        }
        _ => return Err(invalid("give exactly one of --text, --file and --texts")),
    };
    print(&out)
}
