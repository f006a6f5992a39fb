//! Runs models: from a prompt to text, scores, logits, embeddings and inner values, over any executor.
//!
//! [`Model`] is a loaded model. Its methods come in two forms. `enqueue…` checks a request and queues it; [`Model::step`] runs all
//! that is queued on by one step, and [`Model::updates`] tells what happened. The forms without `enqueue` run one request to its
//! end, and what is queued beside it. [`Model::cancel`] ends any request, wherever it is.
//!
//! `jobs` holds each kind of work; `scheduler` assigns cache pages, decides which rows share a step, and keeps steps in flight. The
//! engine knows no file format beyond a checkpoint to load from.

mod cache;
mod chat;
mod constraint;
mod info;
mod jobs;
mod load;
mod model;
mod opened;
mod options;
mod recommended;
mod request;
mod scheduler;
mod text;

pub use chat::{Chat, apply_chat_template, render_chat};
pub use constraint::TokenConstraint;
pub use info::{Costs, DeviceInfo, ModelInfo, Progress};
pub use jobs::capture::Captured;
pub use jobs::embed::{EmbedRequest, Pooling};
pub use jobs::generate::{Extras, Generation, Host, Sequence, Timings, TokenLogprobs, Usage};
pub use jobs::score::{Score, ScoreRequest};
pub use jobs::{Event, JobResult, TextOrIds, Update};
pub use load::{Device, Kernels, LoadHost, LoadOptions, LoadPhase};
pub use model::Model;
pub use opened::{DEFAULT_MAX_CONTEXT, Opened};
pub use options::{DecodeOptions, TemplateOptions};
pub use recommended::GenerationConfig;
pub use request::{Options, Request};
pub use scheduler::RequestId;

use crate::error::{Error, ErrorKind};

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
