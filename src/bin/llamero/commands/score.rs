//! `score`: the log-probability of each token given those before it.

use crate::args::Device;
use crate::load::load;
use crate::output::print;
use llamero::error::Result;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    #[arg(long, value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    #[command(flatten)]
    device: Device,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let mut engine = load(&args.model, &args.device).await?;
    print(&json!({ "logprobs": engine.score_ids(&args.ids).await? }))
}
