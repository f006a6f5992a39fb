//! What goes in and comes out of a generation, and the simplest way to run one.

use super::scheduler::RequestId;
use super::{Chat, Model, Prompt, Request, overflow};
use crate::error::{Error, Result};
use crate::exec::{Output, Pending};
use serde::Serialize;

/// What happens while generating.
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
    },
}

/// Callbacks that a generation needs from its caller.
pub trait Host {
    /// Takes an event.
    fn event(&mut self, event: Event) -> Result<()>;
    /// Whether the caller wants to stop. Asked after each step.
    fn cancelled(&self) -> bool {
        false
    }
}

/// A host that ignores events.
impl Host for () {
    fn event(&mut self, _event: Event) -> Result<()> {
        Ok(())
    }
}

/// One generated sequence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "GeneratedSequence"))]
pub struct Sequence {
    /// Generated ids, the end-of-text token included.
    pub ids: Vec<u32>,
    /// Their text, special tokens and stop text left out.
    pub text: String,
    /// `stop`: the model or a stop text ended it; `length`: the token limit or the context did; `aborted`: the caller
    /// did, maybe before its first token.
    #[cfg_attr(test, ts(type = "'stop' | 'length' | 'aborted'"))]
    pub finish_reason: &'static str,
}

/// Token counts, as OpenAI names them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Generated, over all sequences.
    pub completion_tokens: u32,
    /// Both.
    pub total_tokens: u32,
    /// Prompt tokens whose keys and values the cache still held.
    pub cached_tokens: u32,
}

/// Where the time went, in milliseconds and tokens per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Timings {
    /// Until the first token; where the request was cancelled before it, until then.
    pub prefill_ms: f64,
    /// From the first token to the last.
    pub decode_ms: f64,
    /// Prompt tokens computed per second.
    pub prefill_tokens_per_second: f64,
    /// Tokens after the first per second.
    pub decode_tokens_per_second: f64,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "GenerationResult"))]
pub struct Generation {
    /// One per requested sequence.
    pub sequences: Vec<Sequence>,
    /// Token counts.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
}

/// What an engine tells of a request.
#[derive(Debug)]
pub enum Update {
    /// It goes on.
    Event(Event),
    /// It is over; nothing follows.
    Done(Result<Generation>),
}

impl Model {
    /// The text that follows a prompt, the most likely token each time: at most 256 tokens.
    ///
    /// # Errors
    ///
    /// Those of [`Model::enqueue`], and the device's.
    pub async fn complete(&mut self, prompt: &str) -> Result<String> {
        let request = Request {
            prompt: Some(prompt.to_owned()),
            ..Request::default()
        };
        let generation = self.generate(&request, 0, &mut ()).await?;
        let mut sequences = generation.sequences.into_iter();
        Ok(sequences.next().map_or_else(String::new, |s| s.text))
    }

    /// Runs a request to its end, and with it those that were enqueued. `random_seed` seeds requests that name no seed.
    /// Where the host cancels it, the result is what it has by then; see [`Model::cancel`].
    pub async fn generate(
        &mut self,
        request: &Request,
        random_seed: u64,
        host: &mut dyn Host,
    ) -> Result<Generation> {
        let id = self.enqueue(request, random_seed)?;
        let mut cancelled = false;
        loop {
            let goes_on = cancelled || self.step().await;
            for (_, update) in self.scheduler.take_updates(Some(id)) {
                match update {
                    Update::Done(result) => return result,
                    Update::Event(event) => {
                        if let Err(error) = host.event(event) {
                            self.cancel(id);
                            self.scheduler.take_updates(Some(id));
                            return Err(error);
                        }
                    }
                }
            }
            if !goes_on {
                return Err(Error::internal("a request was not answered"));
            }
            if host.cancelled() {
                self.cancel(id);
                // Its answer is there already: no step is made for it.
                cancelled = true;
            }
        }
    }

    /// Checks a request and queues it: [`Model::step`] runs it together with all others. `random_seed` seeds requests
    /// that name no seed.
    ///
    /// # Errors
    ///
    /// What is wrong with the request: it is not queued then.
    pub fn enqueue(&mut self, request: &Request, random_seed: u64) -> Result<RequestId> {
        let prompt = match (&request.prompt, &request.ids, &request.messages) {
            (Some(text), None, None) => Prompt::Text {
                text,
                add_special: request.add_special.unwrap_or(true),
            },
            (None, Some(ids), None) => Prompt::Ids(ids),
            (None, None, Some(messages)) => Prompt::Chat(Chat {
                messages,
                tools: request.tools.as_ref(),
                kwargs: request.chat_template_kwargs.as_ref(),
                template: request.chat_template.as_deref(),
                add_generation_prompt: true,
                now: request.now,
            }),
            _ => {
                return Err(Error::invalid_input(
                    "give exactly one of prompt, ids and messages",
                ));
            }
        };
        let mut ids = self.encode(&prompt)?;
        if ids.is_empty() {
            // A model needs something to go on from.
            ids.extend(self.tokenizer.as_ref().and_then(|t| t.bos().or(t.eos())));
        }
        if ids.is_empty() {
            return Err(Error::invalid_input(
                "the prompt is empty and the model has no beginning-of-text token",
            ));
        }
        if ids.len() >= self.context as usize {
            return Err(overflow(
                ids.len(),
                self.context,
                self.config.max_position_embeddings,
            ));
        }
        self.check_ids(&ids)?;
        let options = request.options(
            ids.len() as u32,
            self.context,
            self.plan.vocab_size,
            random_seed,
        )?;
        Ok(self.scheduler.enqueue(ids, options))
    }

    /// Ends a request: it is done with what it has, and the finish reason of sequences that had not ended is `aborted`.
    /// That may be no token at all. What it computed stays in the cache; the others go on.
    pub fn cancel(&mut self, id: RequestId) {
        self.scheduler.cancel(id);
    }

    /// What happened since the last call, in order.
    pub fn updates(&mut self) -> Vec<(RequestId, Update)> {
        self.scheduler.take_updates(None)
    }

    /// Runs all requests on by one step. False if nothing is left to run; there may be updates all the same.
    pub async fn step(&mut self) -> bool {
        let Some(pending) = self.advance() else {
            return false;
        };
        let output = pending.await;
        self.arrived(output);
        true
    }

    /// The first half of [`Model::step`], for callers that cannot lend the engine while they wait: submits what can be
    /// submitted. What the step gives is due at [`Model::arrived`] before the next call.
    pub fn advance(&mut self) -> Option<Pending> {
        self.scheduler.advance(self.executor.as_mut())
    }

    /// The second half of [`Model::step`].
    pub fn arrived(&mut self, output: Result<Output>) {
        self.scheduler.arrived(output);
    }
}
