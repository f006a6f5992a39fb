//! `inspect`: what a model's files hold.

use crate::output::{print, warn};
use llamero::engine::Opened;
use llamero::error::Result;
use llamero::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let opened = Opened::open_path(&args.model, None).await?;
    let mut types: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for tensor in opened.checkpoint.tensors() {
        let entry = types.entry(tensor.dtype.name()).or_default();
        entry.0 += 1;
        entry.1 += tensor.bytes;
    }
    let types: Map<String, Value> = types
        .into_iter()
        .map(|(name, (count, bytes))| (name.to_owned(), json!({ "count": count, "bytes": bytes })))
        .collect();
    warn(&opened.warnings);
    let plan = &opened.model.plan;
    print(&json!({
        "architecture": opened.config.architecture,
        "config": opened.config,
        "tensors": types,
        "bytes": opened.checkpoint.total_bytes(),
        "weight_bytes": plan.weight_bytes(),
        "bytes_per_token": plan.bytes_per_token(),
        "cache_bytes_per_token_f16": plan.cache_bytes_per_position(2),
        "parameters": plan.tensors.iter().map(|t| t.rows * t.cols).sum::<u64>(),
        "vocabulary": opened.tokenizer.as_ref().map(Tokenizer::vocab_size),
        "chat_template": opened.tokenizer.as_ref().is_some_and(|t| t.chat_template().is_some()),
        "operations": plan.ops.len(),
        "warnings": opened.warnings.to_vec(),
    }))
}
