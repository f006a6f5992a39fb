//! Sequences, prefill, decoding, stop rules: from a prompt to a stream of [`Event`]s, over any executor.
//!
//! The engine assigns cache pages, cuts prompts into steps, runs any number of requests together, keeps steps in
//! flight, and decides when a sequence ends. It knows no device and no file format beyond a checkpoint to load from.

mod capture;
mod chat;
mod generate;
mod info;
mod load;
mod model;
mod opened;
mod options;
mod pages;
mod prefix;
mod recommended;
mod request;
mod scheduler;
mod text;

pub use capture::Captured;
pub use chat::{Chat, apply_chat_template, render_chat};
pub use generate::{Event, Generation, Host, Sequence, Timings, Update, Usage};
pub use info::{Costs, DeviceInfo, ModelInfo, Progress};
pub use load::{Device, Kernels, LoadHost, LoadOptions, LoadPhase};
pub use model::Model;
pub use opened::{DEFAULT_MAX_CONTEXT, Opened};
pub use options::{DecodeOptions, TemplateOptions};
pub use recommended::GenerationConfig;
pub use request::{Options, Request, Stop};
pub use scheduler::RequestId;

use crate::error::{Error, ErrorKind};
use model::Prompt;

/// The error for a prompt of `tokens` that leaves no room in `context`.
fn overflow(tokens: usize, context: u32, model: u32) -> Error {
    let advice = if context < model {
        format!(
            "shorten it, or load the model with a larger max_context (this model goes up to {model})"
        )
    } else {
        "shorten it: this is as far as the model goes".to_owned()
    };
    Error::new(
        ErrorKind::ContextOverflow,
        format!("the prompt has {tokens} tokens and the context {context} positions; {advice}"),
    )
}

/// `ln softmax(logits)[target]`
fn log_softmax(logits: &[f32], target: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - max).exp()).sum();
    f64::from(logits[target] - max) - total.ln()
}
