//! Generation: tokens after a prompt, as events and as a result.

use super::super::chat::Chat;
use super::super::model::Prompt;
use super::super::request::{Options, Request};
use super::super::text::TextStream;
use super::super::{Model, RequestId, overflow};
use super::{ABORTED, Arrived, Event, Job, JobResult, Progress, SequenceSpec};
use crate::engine::constraint::TokenConstraint;
use crate::error::{Error, Result};
use crate::exec::{Draw, HeadOutput, Want, WantLogprobs};
use crate::plan::{TokenLogprob, TokenMask, Trace};
use crate::tokenizer::Tokenizer;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use web_time::Instant;

/// Callbacks that a request needs from its caller.
pub trait Host {
    /// Takes an event.
    ///
    /// # Errors
    ///
    /// The caller's own, with which the request ends.
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

/// A generated token's log-probabilities.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct TokenLogprobs {
    /// Token id.
    pub id: u32,
    /// Its log-probability, before penalties, temperature and the like.
    pub logprob: f32,
    /// The most likely tokens there.
    pub top: Vec<TokenLogprob>,
}

/// One generated sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "GeneratedSequence"))]
pub struct Sequence {
    /// Generated ids, the end-of-text token included.
    pub ids: Vec<u32>,
    /// Their text, special tokens and stop text left out.
    pub text: String,
    /// `stop`: the model, a stop text or a constraint ended it; `length`: the token limit or the context did; `aborted`:
    /// the caller did, maybe before its first token.
    #[cfg_attr(test, ts(type = "'stop' | 'length' | 'aborted'"))]
    pub finish_reason: &'static str,
    /// One per token, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, ts(as = "Option<Vec<TokenLogprobs>>", optional))]
    pub logprobs: Vec<TokenLogprobs>,
}

/// Token counts, as `OpenAI` names them.
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

/// What a generation may have beside its [`Request`].
#[derive(Default)]
pub struct Extras {
    /// One for each sequence, or none.
    pub constraints: Vec<Box<dyn TokenConstraint>>,
    /// Values of the model that are changed at every position they name; its taps are not used. Rows of queries and keys have
    /// the order of the model's file.
    pub edits: Option<Trace>,
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extras")
            .field("constraints", &self.constraints.len())
            .field("edits", &self.edits)
            .finish()
    }
}

/// A sequence that has begun.
struct Writing {
    text: TextStream,
    ids: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
}

struct Generate {
    prompt_tokens: u32,
    options: Options,
    stop: Rc<[String]>,
    tokenizer: Option<Tokenizer>,
    trace: Option<Rc<Trace>>,
    writing: BTreeMap<u32, Writing>,
    /// What has ended, by index.
    sequences: Vec<Option<Sequence>>,
    /// Positions of the prompt that the cache held, of the first sequence.
    cached: Option<u32>,
    start: Instant,
    first_token: Option<Instant>,
}

impl Generate {
    fn writing(&mut self, index: u32) -> &mut Writing {
        let (tokenizer, stop) = (&self.tokenizer, &self.stop);
        self.writing.entry(index).or_insert_with(|| Writing {
            text: TextStream::new(tokenizer.as_ref().map(|t| t.stream(true)), stop.clone()),
            ids: Vec::new(),
            logprobs: Vec::new(),
        })
    }

    /// Adds a drawn token.
    fn token(
        &mut self,
        index: u32,
        head: HeadOutput,
        finished: bool,
        events: &mut Vec<Event>,
    ) -> Result<Progress> {
        let id = head
            .id
            .ok_or_else(|| Error::internal("a step drew no token"))?;
        if self.first_token.is_none() && index == 0 {
            self.first_token = Some(Instant::now());
            let total = self.prompt_tokens;
            events.push(Event::Prefill { done: total, total });
        }
        let is_end = !self.options.ignore_eos
            && self
                .tokenizer
                .as_ref()
                .is_some_and(|t| t.end_ids().contains(&id));
        let max_new_tokens = self.options.max_new_tokens;
        let writing = self.writing(index);
        writing.ids.push(id);
        let is_full = writing.ids.len() as u32 >= max_new_tokens;
        let (mut text, is_stopped) = writing.text.push(id)?;
        let finish_reason = if is_stopped {
            Some("stop")
        } else if is_end || finished {
            text += &writing.text.finish()?;
            Some("stop")
        } else if is_full {
            text += &writing.text.finish()?;
            Some("length")
        } else {
            None
        };
        let (mut logprob, mut top_logprobs) = (None, Vec::new());
        if let Some(found) = head.logprobs {
            logprob = found.token.map(|token| token.logprob);
            top_logprobs = found.top;
            writing.logprobs.push(TokenLogprobs {
                id,
                logprob: logprob.unwrap_or(f32::NEG_INFINITY),
                top: top_logprobs.clone(),
            });
        }
        events.push(Event::Token {
            index,
            id,
            text,
            logprob,
            top_logprobs,
        });
        let Some(finish_reason) = finish_reason else {
            return Ok(Progress::GoesOn);
        };
        self.end(index, finish_reason);
        Ok(Progress::Ended)
    }

    fn end(&mut self, index: u32, finish_reason: &'static str) {
        let sequence = match self.writing.remove(&index) {
            None => Sequence {
                finish_reason,
                ..Sequence::default()
            },
            Some(mut writing) => {
                if finish_reason == ABORTED {
                    // What was held back is given out: nothing follows that could make it a stop text.
                    let _ = writing.text.finish();
                }
                Sequence {
                    ids: writing.ids,
                    text: writing.text.into_text(),
                    finish_reason,
                    logprobs: writing.logprobs,
                }
            }
        };
        self.sequences[index as usize] = Some(sequence);
    }

    /// `computed`: positions of the prompt that are in the cache where no token was drawn.
    fn result(self, computed: u32) -> Generation {
        let sequences: Vec<Sequence> = self.sequences.into_iter().flatten().collect();
        let cached_tokens = self.cached.unwrap_or(0);
        let now = Instant::now();
        // One that was given up may have no token.
        let (first_token, computed) = match self.first_token {
            Some(first_token) => (first_token, self.prompt_tokens),
            None => (now, computed),
        };
        let prefill_ms = (first_token - self.start).as_secs_f64() * 1e3;
        let decode_ms = (now - first_token).as_secs_f64() * 1e3;
        let begun = sequences.iter().filter(|s| !s.ids.is_empty()).count() as u32;
        let completion_tokens = sequences.iter().map(|s| s.ids.len() as u32).sum::<u32>();
        Generation {
            usage: Usage {
                prompt_tokens: self.prompt_tokens,
                completion_tokens,
                total_tokens: self.prompt_tokens + completion_tokens,
                cached_tokens,
            },
            timings: Timings {
                prefill_ms,
                decode_ms,
                prefill_tokens_per_second: per_second(
                    computed.saturating_sub(cached_tokens),
                    prefill_ms,
                ),
                decode_tokens_per_second: per_second(completion_tokens - begun, decode_ms),
            },
            sequences,
        }
    }
}

impl Job for Generate {
    fn want(&self, _: u32, pos: u32) -> Want {
        if pos + 1 < self.prompt_tokens {
            return Want::NOTHING;
        }
        Want {
            draw: Draw::Id,
            logprobs: self
                .options
                .logprobs
                .map(|top| WantLogprobs { top, of: None }),
            ..Want::NOTHING
        }
    }

    fn trace(&self) -> Option<Rc<Trace>> {
        self.trace.clone()
    }

    fn prefilled(&mut self, index: u32, done: u32, events: &mut Vec<Event>) {
        if index == 0 {
            self.cached.get_or_insert(done);
            let total = self.prompt_tokens;
            events.push(Event::Prefill { done, total });
        }
    }

    fn arrived(&mut self, arrived: Arrived, events: &mut Vec<Event>) -> Result<Progress> {
        let mut progress = Progress::GoesOn;
        for (_, head) in arrived.heads {
            progress = self.token(arrived.index, head, arrived.finished, events)?;
        }
        Ok(progress)
    }

    fn finish(self: Box<Self>) -> Result<JobResult> {
        Ok(JobResult::Generation(self.result(0)))
    }

    fn abort(mut self: Box<Self>, computed: &[(u32, u32)]) -> Result<JobResult> {
        for index in 0..self.sequences.len() as u32 {
            if self.sequences[index as usize].is_none() {
                self.end(index, ABORTED);
            }
        }
        let computed = computed.iter().map(|(_, computed)| *computed).max();
        Ok(JobResult::Generation(self.result(computed.unwrap_or(0))))
    }
}

fn per_second(tokens: u32, ms: f64) -> f64 {
    if ms > 0.0 {
        f64::from(tokens) / ms * 1e3
    } else {
        0.0
    }
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
    ///
    /// # Errors
    ///
    /// Those of [`Model::enqueue`], the host's and the device's.
    pub async fn generate(
        &mut self,
        request: &Request,
        random_seed: u64,
        host: &mut dyn Host,
    ) -> Result<Generation> {
        let id = self.enqueue(request, random_seed)?;
        self.finish(id, host).await?.generation()
    }

    /// Checks a request and queues it: [`Model::step`] runs it together with all others. `random_seed` seeds requests
    /// that name no seed.
    ///
    /// # Errors
    ///
    /// What is wrong with the request: it is not queued then.
    pub fn enqueue(&mut self, request: &Request, random_seed: u64) -> Result<RequestId> {
        self.enqueue_with(request, random_seed, Extras::default())
    }

    /// As [`Model::enqueue`], with constraints and edits.
    ///
    /// # Errors
    ///
    /// Those of [`Model::enqueue`], and [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for constraints that
    /// are not one for each sequence and for edits that do not fit the model.
    pub fn enqueue_with(
        &mut self,
        request: &Request,
        random_seed: u64,
        extras: Extras,
    ) -> Result<RequestId> {
        let ids = self.prompt_ids(request)?;
        let vocab = self.plan().vocab_size;
        let options = request.options(ids.len() as u32, self.context(), vocab, random_seed)?;
        let count = options.sampling.len();
        if !extras.constraints.is_empty() && extras.constraints.len() != count {
            return Err(Error::invalid_input(format!(
                "there are {} constraints for {count} sequences: give one for each",
                extras.constraints.len()
            )));
        }
        let trace = match extras.edits {
            None => None,
            Some(trace) => {
                for edit in &trace.edits {
                    super::capture::check_distinct(edit)?;
                }
                let edits = Trace {
                    taps: Vec::new(),
                    edits: trace.edits,
                };
                Some(Rc::new(self.in_plan_order(&edits)?))
            }
        };
        let prompt: Rc<[u32]> = ids.into();
        let mut constraints = extras.constraints.into_iter();
        let specs = options
            .sampling
            .iter()
            .map(|sampling| {
                let constraint = constraints.next();
                let mut sampling = sampling.clone();
                if constraint.is_some() {
                    // The scheduler sets the mask before each draw.
                    let all = || Rc::new(TokenMask::new(vocab, true));
                    sampling.mask.get_or_insert_with(all);
                }
                SequenceSpec {
                    tokens: prompt.clone(),
                    // The last token of the prompt is always computed: its logits are needed.
                    reusable: prompt.len() as u32 - 1,
                    max_new_tokens: options.max_new_tokens,
                    sampling,
                    constraint,
                }
            })
            .collect();
        let job = Box::new(Generate {
            prompt_tokens: prompt.len() as u32,
            stop: options.stop.as_slice().into(),
            tokenizer: self.tokenizer.clone(),
            trace,
            writing: BTreeMap::new(),
            sequences: vec![None; count],
            cached: None,
            start: Instant::now(),
            first_token: None,
            options,
        });
        Ok(self.scheduler.enqueue(job, specs))
    }

    /// The prompt's tokens, at least one.
    fn prompt_ids(&self, request: &Request) -> Result<Vec<u32>> {
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
        if ids.len() >= self.context() as usize {
            return Err(overflow(
                ids.len(),
                self.context(),
                self.config().max_position_embeddings,
            ));
        }
        self.check_ids(&ids)?;
        Ok(ids)
    }
}
