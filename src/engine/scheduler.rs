//! What runs next: the requests of any number of callers, batched into the same steps.
//!
//! A sequence that has a slot and pages is a [`Lane`]. Lanes whose prompts are complete decode together; as long as
//! they are the same ones, their steps are [`Step::Next`] and run ahead of what is read back. A new lane joins in a
//! step of rows, for which the tokens of all others must have come back. Before that, a prompt that fills more than a
//! step is computed in chunks: together with the others' rows where their tokens are known, else in steps of its own
//! between theirs, so that nobody waits for more than a chunk.
//!
//! A sequence is given the pages for all that it may become when it starts, so that it is never put off later; what
//! does not fit waits, in order. Steps run in the order in which they are submitted: pages may be shared, or given
//! away, as soon as the step that writes them is submitted.

use super::generate::{Event, Generation, Sequence, Timings, Update, Usage};
use super::pages::PagePool;
use super::prefix::{PrefixTree, common};
use super::request::Options;
use super::text::TextStream;
use crate::error::{Error, Result};
use crate::exec::{Executor, Limits, Output, Pending, Step, Want};
use crate::plan::{History, Row};
use crate::tokenizer::Tokenizer;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use web_time::Instant;

/// The finish reason of a sequence whose request its caller gave up.
pub const ABORTED: &str = "aborted";

/// Names a request to its engine.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Requests, their sequences, and the steps under way.
pub struct Scheduler {
    limits: Limits,
    tokenizer: Option<Tokenizer>,
    pool: PagePool,
    prefixes: PrefixTree,
    free_slots: Vec<u32>,
    requests: BTreeMap<RequestId, Ongoing>,
    /// Sequences without a slot: request, and which of its sequences. First come, first served.
    waiting: VecDeque<(RequestId, u32)>,
    /// In the order in which they were admitted.
    lanes: Vec<Lane>,
    in_flight: VecDeque<Flight>,
    /// Whose tokens the step draws that the caller awaits.
    awaited: Option<Vec<LaneKey>>,
    /// Whose tokens the last step that draws drew: those that [`Step::Next`] goes on with.
    drawn: Vec<LaneKey>,
    /// The last step was a chunk of a prompt, alone.
    was_chunk: bool,
    updates: Vec<(RequestId, Update)>,
    next_key: u64,
}

/// Unlike a slot, never used twice.
type LaneKey = u64;

/// A request that is not yet answered.
struct Ongoing {
    prompt: Rc<[u32]>,
    options: Options,
    stop: Rc<[String]>,
    /// What has ended, by index.
    sequences: Vec<Option<Sequence>>,
    cached_tokens: u32,
    /// Positions of the prompt that are in the cache where it was given up before they all were.
    computed: u32,
    start: Instant,
    first_token: Option<Instant>,
}

/// A sequence with a slot.
struct Lane {
    key: LaneKey,
    request: RequestId,
    index: u32,
    slot: u32,
    /// Enough for the prompt and all that may follow.
    pages: Vec<u32>,
    /// The prompt, and what was drawn and read back.
    tokens: Vec<u32>,
    prompt: usize,
    /// Positions of the prompt that are in the cache, or will be when the steps under way are done.
    computed: usize,
    /// Tokens under way.
    ahead: u32,
    max_new_tokens: u32,
    text: TextStream,
}

impl Lane {
    /// The prompt is complete, at least in the steps under way.
    fn decodes(&self) -> bool {
        self.computed == self.prompt
    }

    fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Tokens whose keys and values are in the cache: all but the last drawn one, which has not been run.
    fn cached(&self) -> &[u32] {
        &self.tokens[..if self.decodes() {
            self.tokens.len() - 1
        } else {
            self.computed
        }]
    }
}

struct Flight {
    pending: Pending,
    heads: Vec<LaneKey>,
}

/// A step in the making.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    heads: Vec<u32>,
    keys: Vec<LaneKey>,
}

impl Batch {
    fn head(&mut self, key: LaneKey) {
        self.heads.push(self.rows.len() as u32 - 1);
        self.keys.push(key);
    }
}

impl Scheduler {
    /// For an executor of these limits.
    pub fn new(limits: Limits, tokenizer: Option<Tokenizer>) -> Scheduler {
        let slots = limits.max_seqs.min(limits.max_heads).min(limits.max_rows);
        Scheduler {
            limits,
            tokenizer,
            pool: PagePool::new(limits.page_size, limits.num_pages),
            prefixes: PrefixTree::default(),
            free_slots: (0..slots).rev().collect(),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            lanes: Vec::new(),
            in_flight: VecDeque::new(),
            awaited: None,
            drawn: Vec::new(),
            was_chunk: false,
            updates: Vec::new(),
            next_key: 0,
        }
    }

    /// Queues a request for the tokens of a prompt, of which there is at least one.
    pub fn enqueue(&mut self, prompt: Vec<u32>, options: Options) -> RequestId {
        let id = RequestId(self.next_key);
        self.next_key += 1;
        let sequences = options.sampling.len();
        self.waiting
            .extend((0..sequences as u32).map(|index| (id, index)));
        let ongoing = Ongoing {
            prompt: prompt.into(),
            stop: options.stop.as_slice().into(),
            options,
            sequences: vec![None; sequences],
            cached_tokens: 0,
            computed: 0,
            start: Instant::now(),
            first_token: None,
        };
        self.requests.insert(id, ongoing);
        id
    }

    /// Ends a request that its caller gave up: it is answered with what it has, [`ABORTED`] being the finish reason of
    /// sequences that had not ended. It frees what it holds; the others go on.
    pub fn cancel(&mut self, id: RequestId) {
        let Some(ongoing) = self.requests.get_mut(&id) else {
            return;
        };
        self.waiting.retain(|(request, _)| *request != id);
        while let Some(at) = self.lanes.iter().position(|lane| lane.request == id) {
            let mut lane = self.lanes.remove(at);
            let ids = lane.generated().to_vec();
            ongoing.computed = ongoing.computed.max(lane.computed as u32);
            let mut text = std::mem::take(&mut lane.text);
            // What was held back is given out: nothing follows that could make it a stop text.
            let _ = text.finish();
            let sequence = Sequence {
                ids,
                text: text.into_text(),
                finish_reason: ABORTED,
            };
            ongoing.sequences[lane.index as usize] = Some(sequence);
            Self::vacate(
                lane,
                &mut self.prefixes,
                &mut self.pool,
                &mut self.free_slots,
            );
        }
        let unbegun = Sequence {
            ids: Vec::new(),
            text: String::new(),
            finish_reason: ABORTED,
        };
        for sequence in ongoing
            .sequences
            .iter_mut()
            .filter(|sequence| sequence.is_none())
        {
            *sequence = Some(unbegun.clone());
        }
        self.answer(id);
    }

    /// Ends a request with an error. It frees what it holds; the others go on.
    pub fn end(&mut self, id: RequestId, error: Error) {
        if self.requests.remove(&id).is_none() {
            return;
        }
        self.waiting.retain(|(request, _)| *request != id);
        while let Some(at) = self.lanes.iter().position(|lane| lane.request == id) {
            let lane = self.lanes.remove(at);
            Self::vacate(
                lane,
                &mut self.prefixes,
                &mut self.pool,
                &mut self.free_slots,
            );
        }
        self.updates.push((id, Update::Done(Err(error))));
    }

    /// Whether any request is unanswered.
    pub fn is_busy(&self) -> bool {
        !self.requests.is_empty()
    }

    /// What happened since the last call, in order; of one request, or of all.
    pub fn take_updates(&mut self, of: Option<RequestId>) -> Vec<(RequestId, Update)> {
        let wanted = |id: &RequestId| of.is_none_or(|of| of == *id);
        let (taken, left) = std::mem::take(&mut self.updates)
            .into_iter()
            .partition(|(id, _)| wanted(id));
        self.updates = left;
        taken
    }

    /// Pages for other uses of the cache while no request runs; what is kept for later gives way.
    pub fn lend(&mut self, positions: u32) -> Result<Vec<u32>> {
        let mut pages = Vec::new();
        self.grow(&mut pages, positions)?;
        Ok(pages)
    }

    /// Takes pages back.
    pub fn give_back(&mut self, pages: &[u32]) {
        pages.iter().for_each(|page| self.pool.release(*page));
    }

    /// Submits steps, as many as may run ahead, and returns the oldest under way: its output goes to
    /// [`Scheduler::arrived`] before the next call. `None`: nothing is to be done.
    pub fn advance(&mut self, executor: &mut dyn Executor) -> Option<Pending> {
        if self.awaited.take().is_some() {
            self.fail(&Error::internal(
                "a step was begun, and its result not waited for",
            ));
        }
        while self.in_flight.len() < self.limits.run_ahead.max(1) as usize {
            match self.submit(executor) {
                Ok(true) => {}
                Ok(false) if self.in_flight.is_empty() && !self.requests.is_empty() => {
                    self.fail(&Error::internal(
                        "requests wait for cache pages that nobody frees",
                    ));
                }
                Ok(false) => break,
                Err(error) => self.fail(&error),
            }
        }
        let Flight { pending, heads } = self.in_flight.pop_front()?;
        self.awaited = Some(heads);
        Some(pending)
    }

    /// Takes what the awaited step gave.
    pub fn arrived(&mut self, output: Result<Output>) {
        let Some(heads) = self.awaited.take() else {
            return;
        };
        let ids = match output {
            Ok(Output::Ids(ids)) if ids.len() == heads.len() => ids,
            Ok(Output::Nothing) if heads.is_empty() => return,
            Ok(_) => {
                return self.fail(&Error::internal(
                    "a step gave something else than was asked for",
                ));
            }
            Err(error) => return self.fail(&error),
        };
        for (key, id) in heads.into_iter().zip(ids) {
            // A lane that has ended meanwhile is no more.
            if let Some(at) = self.lanes.iter().position(|lane| lane.key == key) {
                self.accept(at, id);
            }
        }
    }

    /// Submits one step. False if there is none to submit now.
    fn submit(&mut self, executor: &mut dyn Executor) -> Result<bool> {
        while self.admit(executor) {}
        let decoding: Vec<LaneKey> = self
            .lanes
            .iter()
            .filter(|lane| lane.decodes())
            .map(|lane| lane.key)
            .collect();
        let same = !decoding.is_empty()
            && self.drawn.len() == decoding.len()
            && decoding.iter().all(|key| self.drawn.contains(key));
        let missing: usize = self
            .lanes
            .iter()
            .map(|lane| lane.prompt - lane.computed)
            .sum();
        if self.lanes.iter().all(|lane| lane.ahead == 0) {
            if missing == 0 && same {
                return self
                    .run(executor, Step::Next, self.drawn.clone())
                    .map(|()| true);
            }
            return self.submit_rows(executor, true);
        }
        // The tokens of those that decode are still on their way.
        let room = |lane: &Lane| (lane.generated().len() as u32 + lane.ahead) < lane.max_new_tokens;
        let can_go_on = same && self.lanes.iter().filter(|lane| lane.decodes()).all(room);
        let is_long = missing > self.limits.max_rows as usize - decoding.len();
        if is_long && !(self.was_chunk && can_go_on) {
            return self.submit_rows(executor, false);
        }
        if can_go_on && (is_long || missing == 0) {
            return self
                .run(executor, Step::Next, self.drawn.clone())
                .map(|()| true);
        }
        // Someone joins, or has left, when they have come.
        Ok(false)
    }

    /// Submits a step of rows: those of the lanes that decode and, as far as there is room, of prompts. Or, while
    /// tokens are on their way (`known` is false), a chunk of prompts alone, without their last rows.
    fn submit_rows(&mut self, executor: &mut dyn Executor, known: bool) -> Result<bool> {
        let mut batch = Batch::default();
        if known {
            for lane in self.lanes.iter().filter(|lane| lane.decodes()) {
                let pos = lane.tokens.len() - 1;
                batch.rows.push(Row {
                    token: lane.tokens[pos],
                    seq: lane.slot,
                    pos: pos as u32,
                });
                batch.head(lane.key);
            }
        }
        loop {
            self.place_prompts(&mut batch, known);
            // Now others may share what these compute.
            if batch.rows.len() >= self.limits.max_rows as usize || !self.admit(executor) {
                break;
            }
        }
        if batch.rows.is_empty() {
            return Ok(false);
        }
        let Batch { rows, heads, keys } = batch;
        let want = if heads.is_empty() {
            Want::Nothing
        } else {
            Want::Ids
        };
        self.run(
            executor,
            Step::Rows {
                rows: &rows,
                heads: &heads,
                want,
            },
            keys,
        )
        .map(|()| true)
    }

    /// Adds rows of prompts to a step.
    fn place_prompts(&mut self, batch: &mut Batch, with_last: bool) {
        for lane in &mut self.lanes {
            let room = self.limits.max_rows as usize - batch.rows.len();
            let end = if with_last {
                lane.prompt
            } else {
                lane.prompt - 1
            };
            let end = end.min(lane.computed + room);
            if lane.decodes() || end <= lane.computed {
                continue;
            }
            let row = |pos: usize| Row {
                token: lane.tokens[pos],
                seq: lane.slot,
                pos: pos as u32,
            };
            batch.rows.extend((lane.computed..end).map(row));
            lane.computed = end;
            let whole = end / self.limits.page_size as usize * self.limits.page_size as usize;
            self.prefixes
                .insert(&lane.tokens[..whole], &lane.pages, &mut self.pool);
            if lane.decodes() {
                batch.head(lane.key);
            } else if lane.index == 0 {
                let event = Event::Prefill {
                    done: end as u32,
                    total: lane.prompt as u32,
                };
                self.updates.push((lane.request, Update::Event(event)));
            }
        }
    }

    fn run(
        &mut self,
        executor: &mut dyn Executor,
        step: Step<'_>,
        heads: Vec<LaneKey>,
    ) -> Result<()> {
        let pending = executor.submit(step)?;
        for lane in self
            .lanes
            .iter_mut()
            .filter(|lane| heads.contains(&lane.key))
        {
            lane.ahead += 1;
        }
        self.was_chunk = heads.is_empty();
        if !heads.is_empty() {
            self.drawn.clone_from(&heads);
        }
        self.in_flight.push_back(Flight { pending, heads });
        Ok(())
    }

    /// Gives the sequence that has waited longest a slot and pages. False if it has to wait, or none does.
    fn admit(&mut self, executor: &mut dyn Executor) -> bool {
        let (Some((id, index)), Some(slot)) = (
            self.waiting.front().copied(),
            self.free_slots.last().copied(),
        ) else {
            return false;
        };
        let Some(request) = self.requests.get(&id) else {
            self.waiting.pop_front();
            return true;
        };
        let (prompt, stop) = (request.prompt.clone(), request.stop.clone());
        let (sampling, max_new_tokens) = (
            request.options.sampling[index as usize].clone(),
            request.options.max_new_tokens,
        );
        // The last token of the prompt is always computed: its logits are needed.
        let reusable = &prompt[..prompt.len() - 1];
        let page = self.limits.page_size as usize;
        let shared = self.prefixes.shared(reusable, page as u32) as usize;
        // Others are about to compute more of it.
        let mut filling = self.lanes.iter().filter(|lane| !lane.decodes());
        if filling.any(|lane| common(reusable, &lane.tokens[..lane.prompt]) / page * page > shared)
        {
            return false;
        }
        let (mut pages, held) = self.prefixes.take(reusable, &mut self.pool);
        if self
            .grow(&mut pages, prompt.len() as u32 + max_new_tokens)
            .is_err()
        {
            self.prefixes
                .insert(&reusable[..held as usize], &pages, &mut self.pool);
            self.give_back(&pages);
            return false;
        }
        self.waiting.pop_front();
        self.free_slots.pop();
        let lane = Lane {
            key: self.next_key,
            request: id,
            index,
            slot,
            pages,
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            computed: held as usize,
            ahead: 0,
            max_new_tokens,
            text: TextStream::new(self.tokenizer.as_ref().map(|t| t.stream(true)), stop),
        };
        self.next_key += 1;
        if index == 0 {
            if let Some(request) = self.requests.get_mut(&id) {
                request.cached_tokens = held;
            }
            let event = Event::Prefill {
                done: held,
                total: lane.prompt as u32,
            };
            self.updates.push((id, Update::Event(event)));
        }
        let history = History {
            prompt: &lane.tokens,
            generated: &[],
        };
        let set = executor
            .set_pages(slot, &lane.pages)
            .and_then(|()| executor.set_sampling(slot, &sampling, history));
        self.lanes.push(lane);
        if let Err(error) = set {
            self.end(id, error);
        }
        true
    }

    /// Extends pages to hold `positions`. Takes and evicts nothing if it cannot take all.
    fn grow(&mut self, pages: &mut Vec<u32>, positions: u32) -> Result<()> {
        let missing = self.pool.missing(pages, positions);
        if missing <= self.pool.available() + self.prefixes.idle(&self.pool) {
            while missing > self.pool.available() && self.prefixes.evict(&mut self.pool) {}
        }
        self.pool.grow(pages, positions)
    }

    /// Adds a token to a lane, and ends it if that was its last.
    fn accept(&mut self, at: usize, id: u32) {
        let lane = &mut self.lanes[at];
        let (request, index) = (lane.request, lane.index);
        let Some(ongoing) = self.requests.get_mut(&request) else {
            return;
        };
        lane.ahead -= 1;
        lane.tokens.push(id);
        let first = ongoing.first_token.is_none() && index == 0;
        if first {
            ongoing.first_token = Some(Instant::now());
            let total = lane.prompt as u32;
            self.updates.push((
                request,
                Update::Event(Event::Prefill { done: total, total }),
            ));
        }
        let is_end = !ongoing.options.ignore_eos
            && self
                .tokenizer
                .as_ref()
                .is_some_and(|t| t.end_ids().contains(&id));
        let is_full = lane.generated().len() as u32 >= lane.max_new_tokens;
        let (text, finish_reason) = match lane.text.push(id) {
            Ok((text, true)) => (Ok(text), Some("stop")),
            Ok((text, false)) if is_end => {
                (lane.text.finish().map(|end| text + &end), Some("stop"))
            }
            Ok((text, false)) if is_full => {
                (lane.text.finish().map(|end| text + &end), Some("length"))
            }
            Ok((text, false)) => (Ok(text), None),
            Err(error) => (Err(error), None),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.end(request, error),
        };
        self.updates
            .push((request, Update::Event(Event::Token { index, id, text })));
        if let Some(finish_reason) = finish_reason {
            let mut lane = self.lanes.remove(at);
            let ids = lane.generated().to_vec();
            let text = std::mem::take(&mut lane.text).into_text();
            ongoing.sequences[index as usize] = Some(Sequence {
                ids,
                text,
                finish_reason,
            });
            Self::vacate(
                lane,
                &mut self.prefixes,
                &mut self.pool,
                &mut self.free_slots,
            );
            self.answer(request);
        }
    }

    /// Frees what a lane holds, and remembers what it computed.
    fn vacate(
        lane: Lane,
        prefixes: &mut PrefixTree,
        pool: &mut PagePool,
        free_slots: &mut Vec<u32>,
    ) {
        prefixes.insert(lane.cached(), &lane.pages, pool);
        lane.pages.iter().for_each(|page| pool.release(*page));
        free_slots.push(lane.slot);
    }

    /// Answers a request all of whose sequences have ended.
    fn answer(&mut self, id: RequestId) {
        if !self
            .requests
            .get(&id)
            .is_some_and(|request| request.sequences.iter().all(Option::is_some))
        {
            return;
        }
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        let sequences: Vec<Sequence> = request.sequences.into_iter().flatten().collect();
        let prompt_tokens = request.prompt.len() as u32;
        let now = Instant::now();
        // One that was given up may have no token.
        let (first_token, computed) = match request.first_token {
            Some(first_token) => (first_token, prompt_tokens),
            None => (now, request.computed),
        };
        let prefill_ms = (first_token - request.start).as_secs_f64() * 1e3;
        let decode_ms = (now - first_token).as_secs_f64() * 1e3;
        let begun = sequences
            .iter()
            .filter(|sequence| !sequence.ids.is_empty())
            .count() as u32;
        let completion_tokens = sequences
            .iter()
            .map(|sequence| sequence.ids.len() as u32)
            .sum::<u32>();
        let usage = Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            cached_tokens: request.cached_tokens,
        };
        let timings = Timings {
            prefill_ms,
            decode_ms,
            prefill_tokens_per_second: per_second(
                computed.saturating_sub(request.cached_tokens),
                prefill_ms,
            ),
            decode_tokens_per_second: per_second(completion_tokens - begun, decode_ms),
        };
        self.updates.push((
            id,
            Update::Done(Ok(Generation {
                sequences,
                usage,
                timings,
            })),
        ));
    }

    /// Ends everything after a step went wrong: what the cache holds is not known any more.
    fn fail(&mut self, error: &Error) {
        self.in_flight.clear();
        self.drawn.clear();
        for id in self.requests.keys().copied().collect::<Vec<_>>() {
            self.end(id, Error::new(error.kind(), error.to_string()));
        }
        self.prefixes.clear(&mut self.pool);
    }
}

fn per_second(tokens: u32, ms: f64) -> f64 {
    if ms > 0.0 {
        f64::from(tokens) / ms * 1e3
    } else {
        0.0
    }
}
