//! The loop: prompt, prefill, decode, events.
//!
//! Steps run ahead: while the ids of one step are on their way back, the next ones are already submitted. The
//! sampler's noise depends on position alone, so the text is what it would be one step at a time; what ran past a
//! stop is discarded.

use super::request::{Options, Request};
use super::text::TextStream;
use super::{Engine, Prompt, overflow};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{History, Output, Pending, Row, Step, Want};
use crate::tokenizer::Tokenizer;
use futures_core::future::LocalBoxFuture;
use serde::Serialize;
use std::collections::VecDeque;
use web_time::Instant;

/// What happens while generating.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
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

/// The surroundings of a generation: where events go, who cancels, who else needs the thread.
pub trait Host {
    /// Takes an event.
    fn event(&mut self, event: Event) -> Result<()>;
    /// Whether the caller wants to stop.
    fn cancelled(&self) -> bool;
    /// Lets the surroundings run (the browser's event loop); called between steps.
    fn pause(&mut self) -> LocalBoxFuture<'_, ()>;
}

/// One generated sequence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sequence {
    /// Generated ids, the end-of-text token included.
    pub ids: Vec<u32>,
    /// Their text, special tokens and stop text left out.
    pub text: String,
    /// `stop` (the model or a stop text ended it) or `length`.
    pub finish_reason: &'static str,
}

/// Token counts, as OpenAI names them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Generated, over all sequences.
    pub completion_tokens: u32,
    /// Both.
    pub total_tokens: u32,
    /// Prompt tokens that the cache still held from the request before.
    pub cached_tokens: u32,
}

/// Where the time went, in milliseconds and tokens per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Until the first token.
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
pub struct Generation {
    /// One per requested sequence.
    pub sequences: Vec<Sequence>,
    /// Token counts.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
}

/// A sequence being generated.
struct Active<'a> {
    index: u32,
    text: TextStream<'a>,
    ids: Vec<u32>,
    pages: Vec<u32>,
    done: Option<&'static str>,
}

impl Engine {
    /// Runs a request to its end. `random_seed` seeds requests that name no seed.
    pub async fn generate(&mut self, request: &Request, random_seed: u64, host: &mut dyn Host) -> Result<Generation> {
        let prompt = match (&request.prompt, &request.ids, &request.messages) {
            (Some(text), None, None) => Prompt::Text { text, add_special: request.add_special.unwrap_or(true) },
            (None, Some(ids), None) => Prompt::Ids(ids),
            (None, None, Some(messages)) => Prompt::Messages { messages, tools: request.tools.as_ref() },
            _ => return Err(Error::invalid_input("give exactly one of prompt, ids and messages")),
        };
        let mut ids = self.encode(&prompt)?;
        let tokenizer = self.tokenizer.clone();
        if ids.is_empty() {
            // A model needs something to go on from.
            ids.extend(tokenizer.as_ref().and_then(|t| t.bos().or(t.eos())));
        }
        if ids.is_empty() {
            return Err(Error::invalid_input("the prompt is empty and the model has no beginning-of-text token"));
        }
        if ids.len() >= self.context as usize {
            return Err(overflow(ids.len(), self.context, self.config.max_position_embeddings));
        }
        self.check_ids(&ids)?;
        let options = request.options(ids.len() as u32, self.context, self.plan.vocab_size, random_seed)?;

        let start = Instant::now();
        let mut run = Run { usage: Usage { prompt_tokens: ids.len() as u32, ..Usage::default() }, ..Run::default() };
        let mut first = 0;
        while first < options.sampling.len() {
            let count = self.fitting(&ids, &options, first);
            let group = self
                .generate_group(tokenizer.as_ref(), &ids, &options, first..first + count, start, &mut run, host)
                .await;
            run.sequences.extend(group?);
            first += count;
        }
        let decode_ms = run.decode_ms;
        let later_tokens = run.usage.completion_tokens.saturating_sub(options.sampling.len() as u32);
        let computed = run.usage.prompt_tokens - run.usage.cached_tokens;
        run.usage.total_tokens = run.usage.prompt_tokens + run.usage.completion_tokens;
        Ok(Generation {
            sequences: run.sequences,
            usage: run.usage,
            timings: Timings {
                prefill_ms: run.prefill_ms,
                decode_ms,
                prefill_tokens_per_second: per_second(computed, run.prefill_ms),
                decode_tokens_per_second: per_second(later_tokens, decode_ms),
            },
        })
    }

    /// How many of the remaining sequences the cache and the step limits take at once: at least one.
    fn fitting(&self, ids: &[u32], options: &Options, first: usize) -> usize {
        let limits = self.executor.limits();
        let prompt = ids.len() as u32;
        let whole = self.pool.pages_for(prompt + options.max_new_tokens);
        let own = whole - (prompt - 1) / limits.page_size;
        let more = limits.num_pages.saturating_sub(whole) / own.max(1);
        // Each computes the end of the prompt that fills no whole page, all in one step.
        let tail = (prompt - 1) % limits.page_size + 1;
        let most = limits.max_seqs.min(limits.max_heads).min(limits.max_rows / tail);
        (options.sampling.len() - first).min((1 + more) as usize).min(most as usize).max(1)
    }

    #[expect(clippy::too_many_arguments, reason = "each is one fact about the group")]
    async fn generate_group(
        &mut self,
        tokenizer: Option<&Tokenizer>,
        ids: &[u32],
        options: &Options,
        range: std::ops::Range<usize>,
        start: Instant,
        run: &mut Run,
        host: &mut dyn Host,
    ) -> Result<Vec<Sequence>> {
        let limits = self.executor.limits();
        let prompt = ids.len() as u32;
        let count = range.len() as u32;

        // What the cache already holds. The last prompt token is always computed: its logits are needed.
        let held = self.kept.tokens.iter().zip(ids).take_while(|(a, b)| a == b).count().min(ids.len() - 1) as u32;
        run.usage.cached_tokens = if range.start == 0 { held } else { run.usage.cached_tokens };
        self.pool.shrink(&mut self.kept.pages, held);
        self.kept.tokens.truncate(held as usize);
        let mut pages = vec![std::mem::take(&mut self.kept.pages)];
        let result = async {
            self.pool.grow(&mut pages[0], prompt + options.max_new_tokens)?;
            // The other sequences share the whole pages of the prompt and compute the rest of it themselves.
            for _ in 1..count {
                let mut own = self.pool.share(&pages[0], prompt - 1);
                let grown = self.pool.grow(&mut own, prompt + options.max_new_tokens);
                pages.push(own);
                grown?;
            }
            for (seq, (pages, sampling)) in pages.iter().zip(&options.sampling[range.clone()]).enumerate() {
                self.executor.set_pages(seq as u32, pages)?;
                self.executor.set_sampling(seq as u32, sampling, History { prompt: ids, generated: &[] })?;
            }

            // Prefill, all but the tail that every sequence computes.
            let shared = if count == 1 { prompt - 1 } else { (prompt - 1) / limits.page_size * limits.page_size };
            let mut rows: Vec<Row> = (held..shared).map(|pos| Row { token: ids[pos as usize], seq: 0, pos }).collect();
            let mut heads = Vec::new();
            for seq in 0..count {
                let from = if seq == 0 { held.max(shared) } else { shared };
                rows.extend((from..prompt).map(|pos| Row { token: ids[pos as usize], seq, pos }));
                heads.push(rows.len() as u32 - 1);
            }
            self.prefill(&rows, &heads, held, prompt, host).await
        }
        .await;
        let firsts = match result {
            Ok(firsts) => firsts,
            Err(error) => {
                for pages in &mut pages {
                    self.pool.shrink(pages, 0);
                }
                return Err(error);
            }
        };
        let prefill_ms = ms_since(start);
        if range.start == 0 {
            run.prefill_ms = prefill_ms;
        }

        let mut active: Vec<Active<'_>> = pages
            .into_iter()
            .zip(range)
            .map(|(pages, index)| Active {
                index: index as u32,
                text: TextStream::new(tokenizer.map(|t| t.stream(true)), &options.stop),
                ids: Vec::new(),
                pages,
                done: None,
            })
            .collect();
        let decode_start = Instant::now();
        let result = self.decode(&mut active, tokenizer, firsts, prompt, options, host).await;
        run.decode_ms += ms_since(decode_start);

        // Keep the first sequence for a request that goes on from it, also when the caller stopped; the last sampled
        // token may not have been run.
        let usable = !matches!(&result, Err(error) if error.kind() != ErrorKind::Aborted);
        let mut finished = Vec::new();
        for (i, mut sequence) in active.into_iter().enumerate() {
            if i == 0 && usable {
                self.kept.tokens = ids.to_vec();
                self.kept.tokens.extend_from_slice(&sequence.ids[..sequence.ids.len().saturating_sub(1)]);
                self.kept.pages = std::mem::take(&mut sequence.pages);
                self.pool.shrink(&mut self.kept.pages, self.kept.tokens.len() as u32);
            }
            self.pool.shrink(&mut sequence.pages, 0);
            run.usage.completion_tokens += sequence.ids.len() as u32;
            finished.push(Sequence {
                ids: sequence.ids,
                text: sequence.text.into_text(),
                finish_reason: sequence.done.unwrap_or("length"),
            });
        }
        result.map(|()| finished)
    }

    /// Runs the prompt's rows in steps and returns the first token of each sequence.
    async fn prefill(
        &mut self,
        rows: &[Row],
        heads: &[u32],
        held: u32,
        total: u32,
        host: &mut dyn Host,
    ) -> Result<Vec<u32>> {
        let limits = self.executor.limits();
        let max = limits.max_rows as usize;
        // Sequences finish their prompts in different steps; only the last steps have heads. The sampled ids of an
        // earlier step must not be lost, so rows are cut such that all heads fall into the last one.
        let first_head = heads[0] as usize;
        let mut at = 0;
        host.event(Event::Prefill { done: held, total })?;
        let mut pending: VecDeque<Pending> = VecDeque::new();
        while rows.len() - at > max {
            let n = max.min(first_head.saturating_sub(at));
            if n == 0 {
                return Err(Error::internal(format!("{} heads do not fit a step of {max} rows", heads.len())));
            }
            let step = Step::Rows { rows: &rows[at..at + n], heads: &[], want: Want::Nothing };
            pending.push_back(self.executor.submit(step)?);
            at += n;
            if pending.len() >= limits.run_ahead as usize
                && let Some(oldest) = pending.pop_front()
            {
                oldest.await?;
            }
            host.event(Event::Prefill { done: (held + at as u32).min(total), total })?;
            host.pause().await;
            check(host)?;
        }
        let last: Vec<u32> = heads.iter().map(|h| h - at as u32).collect();
        let step = Step::Rows { rows: &rows[at..], heads: &last, want: Want::Ids };
        let ids = expect_ids(self.executor.submit(step)?.await?)?;
        host.event(Event::Prefill { done: total, total })?;
        Ok(ids)
    }

    async fn decode(
        &mut self,
        active: &mut [Active<'_>],
        tokenizer: Option<&Tokenizer>,
        firsts: Vec<u32>,
        prompt: u32,
        options: &Options,
        host: &mut dyn Host,
    ) -> Result<()> {
        let run_ahead = self.executor.limits().run_ahead.max(1) as usize;
        // Which of `active` each head of the running steps belongs to.
        let mut lanes: Vec<usize> = (0..active.len()).collect();
        let mut ids = firsts;
        // Steps in flight continue from what was sampled last; `depth` counts tokens sampled or under way.
        let mut in_flight: VecDeque<Pending> = VecDeque::new();
        let mut depth = 1;
        loop {
            for (lane, id) in lanes.iter().zip(&ids) {
                let sequence = &mut active[*lane];
                if sequence.done.is_none() {
                    accept(sequence, *id, options, tokenizer, host)?;
                }
            }
            if active.iter().all(|s| s.done.is_some()) {
                // Wait for what ran past the stop: its pages are about to be given away.
                for pending in in_flight {
                    pending.await?;
                }
                return Ok(());
            }
            host.pause().await;
            check(host)?;
            let ended = lanes.iter().any(|lane| active[*lane].done.is_some());
            while !ended && in_flight.len() < run_ahead && depth < options.max_new_tokens {
                in_flight.push_back(self.executor.submit(Step::Next)?);
                depth += 1;
            }
            if in_flight.is_empty() {
                // Some sequences have ended: go on with the others.
                lanes.retain(|lane| active[*lane].done.is_none());
                let mut rows = Vec::with_capacity(lanes.len());
                for lane in &lanes {
                    let generated = &active[*lane].ids;
                    let token = *generated.last().ok_or_else(|| Error::internal("a sequence without a first token"))?;
                    rows.push(Row { token, seq: *lane as u32, pos: prompt + generated.len() as u32 - 1 });
                    depth = generated.len() as u32;
                }
                let heads: Vec<u32> = (0..rows.len() as u32).collect();
                in_flight.push_back(self.executor.submit(Step::Rows {
                    rows: &rows,
                    heads: &heads,
                    want: Want::Ids,
                })?);
                depth += 1;
            }
            let Some(oldest) = in_flight.pop_front() else {
                return Err(Error::internal("nothing in flight"));
            };
            ids = expect_ids(oldest.await?)?;
        }
    }
}

/// Adds a token to a sequence and decides whether that ends it.
fn accept(
    sequence: &mut Active<'_>,
    id: u32,
    options: &Options,
    tokenizer: Option<&Tokenizer>,
    host: &mut dyn Host,
) -> Result<()> {
    sequence.ids.push(id);
    let (mut text, stopped) = sequence.text.push(id)?;
    if stopped || (!options.ignore_eos && tokenizer.is_some_and(|t| t.end_ids().contains(&id))) {
        sequence.done = Some("stop");
    } else if sequence.ids.len() as u32 >= options.max_new_tokens {
        sequence.done = Some("length");
    }
    if sequence.done.is_some() && !stopped {
        text.push_str(&sequence.text.finish()?);
    }
    host.event(Event::Token { index: sequence.index, id, text })
}

#[derive(Default)]
struct Run {
    sequences: Vec<Sequence>,
    usage: Usage,
    prefill_ms: f64,
    decode_ms: f64,
}

fn check(host: &dyn Host) -> Result<()> {
    if host.cancelled() {
        return Err(Error::new(ErrorKind::Aborted, "generation was stopped"));
    }
    Ok(())
}

fn expect_ids(output: Output) -> Result<Vec<u32>> {
    match output {
        Output::Ids(ids) => Ok(ids),
        other => Err(Error::internal(format!("asked for token ids, got {other:?}"))),
    }
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn per_second(tokens: u32, ms: f64) -> f64 {
    if ms > 0.0 { f64::from(tokens) / ms * 1e3 } else { 0.0 }
}
