//! `logits`: the logits of every position, into a file of float32 `[tokens, vocab]`.

use super::capture;
use crate::args::Device;
use crate::load::load;
use crate::npy::NpyWriter;
use crate::output::print;
use llamero::error::Result;
use llamero::plan::Trace;
use serde_json::json;
use std::path::PathBuf;

/// Tokens that the result lists of the last position.
const TOP: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    #[arg(long, value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    #[arg(long)]
    out: PathBuf,
    /// A JSON file with changes of inner values: [{"hook", "op": "add" | "replace", "positions", "file", "tensor"}].
    #[arg(long)]
    edits: Option<PathBuf>,
    #[command(flatten)]
    device: Device,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let edits = args.edits.map(|path| capture::edits(&path)).transpose()?;
    let device = if edits.is_some() {
        args.device.exact()
    } else {
        args.device
    };
    let mut engine = load(&args.model, &device).await?;
    let vocab = engine.plan().vocab_size as usize;
    let mut file = NpyWriter::create(&args.out, &[args.ids.len(), vocab])?;
    let mut top = Vec::new();
    let mut write = |values: &[f32]| {
        let last = values.chunks_exact(vocab).last();
        top = last.map(top_tokens).unwrap_or_default();
        file.write(values)
    };
    match edits {
        Some(edits) => {
            let trace = Trace {
                taps: Vec::new(),
                edits,
            };
            write(&engine.trace(&args.ids, &trace, true).await?.logits)?;
        }
        None => engine.logits(&args.ids, |_, values| write(values)).await?,
    }
    print(&json!({ "tokens": args.ids.len(), "vocab": vocab, "out": args.out, "top_of_last": top }))
}

/// The tokens with the largest logits, and these logits, in descending order.
fn top_tokens(logits: &[f32]) -> Vec<(usize, f32)> {
    let mut order: Vec<(usize, f32)> = logits.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(TOP);
    order
}
