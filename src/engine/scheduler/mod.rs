//! What runs next: the jobs of any number of callers, batched into the same steps.
//!
//! A sequence that has a slot and pages is [`Running`]. There are three kinds.
//!
//! - Sequences that draw tokens freely decode together. As long as they are the same ones, their steps are [`Step::Next`] and
//!   run ahead of what is read back. A new one joins in a step of rows, for which the tokens of all of these must have come
//!   back.
//! - Given rows (prompts, texts that are scored or embedded) and the draws of constrained sequences need not wait for that:
//!   they share a step of rows with the others where the others' tokens are known, else they go in steps of their own between
//!   theirs. Each waiting sequence gets its share of such a step's rows, so that a long text does not hold short ones up.
//! - A traced job has steps of its own, which take turns with all others.
//!
//! A sequence is given the pages for all that it may become when it starts, so that it is never put off later. What does not
//! fit waits, in order; requests with many sequences take turns. Steps run in the order in which they are submitted: pages may
//! be shared, or given away, as soon as the step that writes them is submitted.
//!
//! What later work needs here: beams fork a [`Running`] sequence by holding its pages once more (the tree of prefixes does this
//! for whole pages now); export and import of a sequence's cache are jobs that read and write its pages; a priority is a key by
//! which `waiting` and the shares of a step are ordered.

mod admit;
mod sequence;
mod steps;

use self::sequence::{Flight, Running, SequenceKey};
use super::cache::{PagePool, PrefixTree};
use super::jobs::{Arrived, Event, Job, Progress, SequenceSpec, Update};
use crate::error::{Error, Result};
#[cfg(doc)]
use crate::exec::Step;
use crate::exec::{Executor, Limits, Output, Pending};
use std::collections::{BTreeMap, VecDeque};

/// Names a request to its engine.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Jobs, their sequences, and the steps under way.
pub(super) struct Scheduler {
    limits: Limits,
    pool: PagePool,
    prefixes: PrefixTree,
    free_slots: Vec<u32>,
    requests: BTreeMap<RequestId, Ongoing>,
    /// Requests with sequences that have no slot, in the order in which they get one.
    waiting: VecDeque<RequestId>,
    /// In the order in which they were admitted.
    running: Vec<Running>,
    in_flight: VecDeque<Flight>,
    /// The step that the caller awaits, without its output.
    awaited: Option<Awaited>,
    /// Whose tokens the last step that draws for [`Step::Next`] drew.
    drawn: Vec<SequenceKey>,
    /// The last step left `drawn` as it was.
    was_apart: bool,
    /// The last step was a traced one.
    was_traced: bool,
    /// When each traced request had its last step.
    clock: u64,
    updates: Vec<(RequestId, Update)>,
    next_key: u64,
}

/// A step whose output is due.
struct Awaited {
    parts: Vec<sequence::Part>,
    heads: Vec<(SequenceKey, u32)>,
    traced: bool,
}

/// A request that is not yet answered.
struct Ongoing {
    job: Box<dyn Job>,
    /// Sequences without a slot, and which each is.
    unbegun: VecDeque<(u32, SequenceSpec)>,
    /// Sequences that have not ended.
    left: usize,
    /// When it had its last traced step.
    last_traced: u64,
}

impl Scheduler {
    /// For an executor of these limits.
    pub fn new(limits: Limits) -> Self {
        let slots = limits.max_seqs.min(limits.max_heads).min(limits.max_rows);
        Self {
            limits,
            pool: PagePool::new(limits.page_size, limits.num_pages),
            prefixes: PrefixTree::default(),
            free_slots: (0..slots).rev().collect(),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            in_flight: VecDeque::new(),
            awaited: None,
            drawn: Vec::new(),
            was_apart: false,
            was_traced: false,
            clock: 0,
            updates: Vec::new(),
            next_key: 0,
        }
    }

    /// Queues a job with its sequences. One without any is done at once.
    pub fn enqueue(&mut self, job: Box<dyn Job>, sequences: Vec<SequenceSpec>) -> RequestId {
        let id = RequestId(self.next_key);
        self.next_key += 1;
        if sequences.is_empty() {
            self.updates.push((id, Update::Done(job.finish())));
            return id;
        }
        let ongoing = Ongoing {
            job,
            left: sequences.len(),
            unbegun: (0..).zip(sequences).collect(),
            last_traced: 0,
        };
        self.requests.insert(id, ongoing);
        self.waiting.push_back(id);
        id
    }

    /// Ends a request that its caller gave up, with what [`Job::abort`] makes of it. It frees what it holds; the others go on.
    pub fn cancel(&mut self, id: RequestId) {
        let Some(ongoing) = self.requests.remove(&id) else {
            return;
        };
        let sequences = self.running.iter().filter(|s| s.request == id);
        let computed: Vec<(u32, u32)> = sequences.map(|s| (s.index, s.computed as u32)).collect();
        self.vacate_all(id);
        let result = ongoing.job.abort(&computed);
        self.updates.push((id, Update::Done(result)));
    }

    /// Ends a request with an error. It frees what it holds; the others go on.
    fn end(&mut self, id: RequestId, error: Error) {
        if self.requests.remove(&id).is_some() {
            self.vacate_all(id);
            self.updates.push((id, Update::Done(Err(error))));
        }
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
        let Flight {
            pending,
            parts,
            heads,
            traced,
        } = self.in_flight.pop_front()?;
        self.awaited = Some(Awaited {
            parts,
            heads,
            traced,
        });
        Some(pending)
    }

    /// Takes what the awaited step gave.
    pub fn arrived(&mut self, output: Result<Output>) {
        let Some(Awaited {
            parts,
            heads,
            traced,
        }) = self.awaited.take()
        else {
            return;
        };
        let output = match output {
            Ok(output) if output.heads.len() == heads.len() => output,
            Ok(_) => {
                return self.fail(&Error::internal(
                    "a step gave something else than was asked for",
                ));
            }
            Err(error) => return self.fail(&error),
        };
        let mut by_sequence: BTreeMap<SequenceKey, Vec<_>> = BTreeMap::new();
        for ((key, pos), head) in heads.into_iter().zip(output.heads) {
            by_sequence.entry(key).or_default().push((pos, head));
        }
        let mut taps = Some(output.taps).filter(|_| traced);
        for part in parts {
            let mut heads = by_sequence.remove(&part.key).unwrap_or_default();
            heads.sort_by_key(|(pos, _)| *pos);
            // A sequence that has ended meanwhile is no more.
            let Some(at) = self.running.iter().position(|s| s.key == part.key) else {
                continue;
            };
            let (request, index) = (self.running[at].request, self.running[at].index);
            let arrived = Arrived {
                index,
                first: part.first,
                rows: part.rows,
                heads,
                taps: taps.take().unwrap_or_default(),
                finished: false,
            };
            if let Err(error) = self.accept(at, arrived) {
                self.end(request, error);
            }
        }
    }

    /// Takes what came back of a sequence, and ends it if that was its last.
    fn accept(&mut self, at: usize, mut arrived: Arrived) -> Result<()> {
        let sequence = &mut self.running[at];
        let request = sequence.request;
        for id in arrived.heads.iter().filter_map(|(_, head)| head.id) {
            sequence.ahead -= 1;
            sequence.tokens.push(id);
            if let Some(constrained) = &mut sequence.constrained {
                constrained.constraint.accept(id)?;
                arrived.finished = constrained.constraint.is_finished();
            }
        }
        let Some(ongoing) = self.requests.get_mut(&request) else {
            return Ok(());
        };
        let mut events = Vec::new();
        let progress = ongoing.job.arrived(arrived, &mut events);
        self.tell(request, events);
        if progress? == Progress::Ended {
            let sequence = self.running.remove(at);
            self.vacate(sequence);
            self.sequence_ended(request);
        }
        Ok(())
    }

    /// Counts a sequence that ended, and answers the request if that was its last.
    fn sequence_ended(&mut self, id: RequestId) {
        let Some(ongoing) = self.requests.get_mut(&id) else {
            return;
        };
        ongoing.left -= 1;
        if ongoing.left == 0
            && let Some(ongoing) = self.requests.remove(&id)
        {
            self.updates.push((id, Update::Done(ongoing.job.finish())));
        }
    }

    fn tell(&mut self, id: RequestId, events: Vec<Event>) {
        let updates = events.into_iter().map(|event| (id, Update::Event(event)));
        self.updates.extend(updates);
    }

    /// Frees what a sequence holds, and remembers what it computed.
    fn vacate(&mut self, sequence: Running) {
        self.prefixes
            .insert(sequence.cached(), &sequence.pages, &mut self.pool);
        self.release(&sequence.pages);
        self.free_slots.push(sequence.slot);
    }

    /// Frees what a request holds.
    fn vacate_all(&mut self, id: RequestId) {
        self.waiting.retain(|waiting| *waiting != id);
        while let Some(at) = self.running.iter().position(|s| s.request == id) {
            let sequence = self.running.remove(at);
            self.vacate(sequence);
        }
    }

    fn release(&mut self, pages: &[u32]) {
        pages.iter().for_each(|page| self.pool.release(*page));
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
