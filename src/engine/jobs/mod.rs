//! What a model does for its callers. Every kind of work is a [`Job`] of one scheduler: a file here holds its options, its
//! results and the [`Job`] itself.
//!
//! A job has sequences of given tokens. For each given row it says what it wants back, and it takes what comes. The
//! scheduler decides which rows share a step.

pub(super) mod capture;
pub(super) mod embed;
pub(super) mod generate;
pub(super) mod logits;
pub(super) mod score;

use super::constraint::TokenConstraint;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{HeadOutput, Want};
use crate::plan::{Sampling, Tap, TokenLogprob, Trace};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// The finish reason of a sequence whose request its caller gave up.
pub const ABORTED: &str = "aborted";

/// A sequence that a job wants run.
pub(super) struct SequenceSpec {
    /// Given tokens, at least one.
    pub tokens: Rc<[u32]>,
    /// Given positions of which nothing is wanted, counted from the first: their keys and values may come from the cache.
    pub reusable: u32,
    /// Tokens that are drawn at most; 0: none.
    pub max_new_tokens: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Which tokens may be drawn.
    pub constraint: Option<Box<dyn TokenConstraint>>,
}

impl SequenceSpec {
    /// A sequence that draws no token.
    pub fn given(tokens: Rc<[u32]>, reusable: u32) -> Self {
        Self {
            tokens,
            reusable,
            max_new_tokens: 0,
            sampling: Sampling::GREEDY,
            constraint: None,
        }
    }
}

/// What came back of rows of one sequence that one step ran.
pub(super) struct Arrived {
    /// Which sequence.
    pub index: u32,
    /// Position of the first row.
    pub first: u32,
    /// How many rows.
    pub rows: u32,
    /// Positions of which something was wanted, and what they gave.
    pub heads: Vec<(u32, HeadOutput)>,
    /// Tapped values, where the job has a trace.
    pub taps: Vec<Tap>,
    /// The sequence's constraint lets nothing follow the drawn token.
    pub finished: bool,
}

/// Whether a sequence goes on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It does.
    GoesOn,
    /// It has all that it wants.
    Ended,
}

/// Work under way.
pub(super) trait Job {
    /// What is wanted of the row at `pos` of sequence `index`. [`Draw::Id`](crate::exec::Draw::Id) draws a token; the scheduler
    /// decides who runs it.
    fn want(&self, index: u32, pos: u32) -> Want;

    /// What is read and changed in every step of this job. Such a job shares its steps with no other.
    fn trace(&self) -> Option<Rc<Trace>> {
        None
    }

    /// Called when a sequence starts, with the positions that the cache held, and after each step that ran given rows but the
    /// last: `done` positions of the given ones are computed.
    fn prefilled(&mut self, _index: u32, _done: u32, _events: &mut Vec<Event>) {}

    /// Takes what a step gave.
    fn arrived(&mut self, arrived: Arrived, events: &mut Vec<Event>) -> Result<Progress>;

    /// The result, once every sequence has ended.
    fn finish(self: Box<Self>) -> Result<JobResult>;

    /// The result where the caller gives the job up. `computed`: running sequences, and the given positions of each that are
    /// in the cache.
    fn abort(self: Box<Self>, _computed: &[(u32, u32)]) -> Result<JobResult> {
        Err(Error::new(ErrorKind::Aborted, "the request was cancelled"))
    }
}

/// What happens while a job runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Event {
    /// Prompt tokens processed so far.
    Prefill {
        /// Processed, kept ones included.
        done: u32,
        /// Of these.
        total: u32,
    },
    /// One token.
    Token {
        /// Which sequence.
        index: u32,
        /// Token id.
        id: u32,
        /// New text; empty while a character or a stop text is incomplete.
        text: String,
        /// Its log-probability, where that was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional))]
        logprob: Option<f32>,
        /// The most likely tokens there, where these were asked for.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[cfg_attr(test, ts(as = "Option<Vec<TokenLogprob>>", optional))]
        top_logprobs: Vec<TokenLogprob>,
    },
    /// Logits of some positions.
    #[serde(skip)]
    #[cfg_attr(test, ts(skip))]
    Logits {
        /// The first position.
        first: u32,
        /// `[positions, V]`
        values: Vec<f32>,
    },
}

/// What came of a job.
#[derive(Debug)]
pub enum JobResult {
    /// Of [`Model::enqueue`](super::Model::enqueue).
    Generation(generate::Generation),
    /// Of [`Model::enqueue_score`](super::Model::enqueue_score): one per continuation.
    Scores(Vec<score::Score>),
    /// Of [`Model::enqueue_logits`](super::Model::enqueue_logits): positions whose logits were told by [`Event::Logits`].
    Logits(u32),
    /// Of [`Model::enqueue_embed`](super::Model::enqueue_embed): `[E]` for each text.
    Embeddings(Vec<Vec<f32>>),
    /// Of [`Model::enqueue_capture`](super::Model::enqueue_capture).
    Captured(capture::Captured),
}

impl JobResult {
    /// The generation that this is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`] for another job's result.
    pub fn generation(self) -> Result<generate::Generation> {
        match self {
            Self::Generation(generation) => Ok(generation),
            _ => Err(other_result()),
        }
    }
}

/// The error for a result of another kind than the job's.
pub(super) fn other_result() -> Error {
    Error::internal("a job gave another job's result")
}

/// What an engine tells of a request.
#[derive(Debug)]
pub enum Update {
    /// It goes on.
    Event(Event),
    /// It is over; nothing follows.
    Done(Result<JobResult>),
}

/// A text, or token ids.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum TextOrIds {
    /// A text, which the model's tokenizer encodes.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
}

impl From<&str> for TextOrIds {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u32>> for TextOrIds {
    fn from(ids: Vec<u32>) -> Self {
        Self::Ids(ids)
    }
}
