//! Which rows the next step has.

use super::Scheduler;
use super::sequence::{Batch, Flight, Running, SequenceKey};
use crate::error::{Error, Result};
use crate::exec::{Draw, Executor, Head, Step};
use crate::plan::Row;

impl Scheduler {
    /// Submits one step. False if there is none to submit now.
    pub(super) fn submit(&mut self, executor: &mut dyn Executor) -> Result<bool> {
        while self.admit(executor) {}
        if !self.was_traced && self.submit_traced(executor)? {
            return Ok(true);
        }
        Ok(self.submit_shared(executor)? || self.submit_traced(executor)?)
    }

    /// Submits a step that requests share.
    fn submit_shared(&mut self, executor: &mut dyn Executor) -> Result<bool> {
        let chain: Vec<&Running> = self.running.iter().filter(|s| s.chains()).collect();
        let decoding = chain.iter().filter(|s| s.decodes());
        let decoders = decoding.clone().count();
        let same = decoders > 0
            && self.drawn.len() == decoders
            && decoding.clone().all(|s| self.drawn.contains(&s.key));
        // Rows of prompts that join the chain, and whether others have rows that need not.
        let joining: usize = chain.iter().map(|s| s.missing()).sum();
        let apart = |s: &&Running| !s.chains() && s.trace.is_none() && s.is_ready();
        let has_apart = self.running.iter().any(|s| apart(&s));
        if chain.iter().all(|s| s.ahead == 0) {
            if joining == 0 && same && !has_apart {
                return self.submit_next(executor);
            }
            return self.submit_rows(executor, true);
        }
        // The tokens of those that decode are still on their way.
        let can_go_on = same && decoding.clone().all(|s| s.has_room());
        let is_long = joining > self.limits.max_rows as usize - decoders;
        if (is_long || has_apart)
            && !(self.was_apart && can_go_on)
            && self.submit_rows(executor, false)?
        {
            return Ok(true);
        }
        if can_go_on && (is_long || joining == 0) {
            return self.submit_next(executor);
        }
        // A sequence joins, or has left, when they have come.
        Ok(false)
    }

    /// Submits a step that runs the tokens of the last one before they are read back.
    fn submit_next(&mut self, executor: &mut dyn Executor) -> Result<bool> {
        let pending = executor.submit(Step::Next)?;
        let mut batch = Batch::default();
        let mut heads = Vec::new();
        for key in &self.drawn {
            if let Some(sequence) = self.running.iter_mut().find(|s| s.key == *key) {
                let pos = sequence.tokens.len() as u32 + sequence.ahead - 1;
                sequence.ahead += 1;
                batch.row(
                    *key,
                    Row {
                        token: 0,
                        seq: sequence.slot,
                        pos,
                    },
                );
                heads.push((*key, pos));
            }
        }
        self.was_apart = false;
        self.was_traced = false;
        self.in_flight.push_back(Flight {
            pending,
            parts: batch.parts,
            heads,
            traced: false,
        });
        Ok(true)
    }

    /// Submits a step of rows. `known`: the tokens of the sequences that decode are, so that these have rows and others may
    /// join them; else only rows that do not draw for [`Step::Next`].
    fn submit_rows(&mut self, executor: &mut dyn Executor, known: bool) -> Result<bool> {
        let mut batch = Batch::default();
        for at in 0..self.running.len() {
            let sequence = &self.running[at];
            if sequence.trace.is_none()
                && sequence.decodes()
                && sequence.ahead == 0
                && (known || !sequence.chains())
            {
                let pos = sequence.tokens.len() - 1;
                self.place(&mut batch, at, pos, pos + 1);
            }
        }
        loop {
            self.place_given(&mut batch, known);
            // Now others may share what these compute.
            if batch.rows.len() >= self.limits.max_rows as usize || !self.admit(executor) {
                break;
            }
        }
        if batch.rows.is_empty() {
            return Ok(false);
        }
        let restricted = self.restrict(executor, &batch);
        if self.forget(&mut batch, restricted) && batch.rows.is_empty() {
            return Ok(true);
        }
        self.run(executor, batch, None)
    }

    /// Submits a step of the traced request whose last step is longest ago.
    fn submit_traced(&mut self, executor: &mut dyn Executor) -> Result<bool> {
        let ready = self
            .running
            .iter()
            .filter(|s| s.trace.is_some() && s.is_ready());
        let requests = ready.map(|s| s.request);
        let last = |id: &super::RequestId| self.requests.get(id).map_or(0, |o| o.last_traced);
        let Some(id) = requests.min_by_key(last) else {
            return Ok(false);
        };
        self.clock += 1;
        if let Some(ongoing) = self.requests.get_mut(&id) {
            ongoing.last_traced = self.clock;
        }
        let Some(trace) = self.requests.get(&id).and_then(|o| o.job.trace()) else {
            return Ok(false);
        };
        let mut batch = Batch::default();
        for at in 0..self.running.len() {
            let sequence = &self.running[at];
            if sequence.request != id || !sequence.is_ready() {
                continue;
            }
            let (first, end) = if sequence.missing() > 0 {
                (sequence.computed, sequence.given)
            } else {
                (sequence.tokens.len() - 1, sequence.tokens.len())
            };
            let end = self.place(&mut batch, at, first, end);
            self.computed_to(at, end.max(first));
            if trace.taps.is_empty() {
                continue;
            }
            // Taps are of one sequence.
            break;
        }
        let restricted = self.restrict(executor, &batch);
        if self.forget(&mut batch, restricted) || batch.rows.is_empty() {
            return Ok(true);
        }
        match self.run(executor, batch, Some(&trace)) {
            // A trace that the device has no room for is its own request's fault.
            Err(error) => {
                self.end(id, error);
                Ok(true)
            }
            submitted => submitted,
        }
    }

    /// Adds rows of given tokens to a step: to each sequence its share of the room, and what is left to the first.
    fn place_given(&mut self, batch: &mut Batch, known: bool) {
        // The row that draws for the chain has to wait until the chain's tokens are known.
        let end = |s: &Running| s.given - usize::from(s.chains() && !known);
        let waits = |s: &Running| s.trace.is_none() && s.missing() > 0 && s.computed < end(s);
        let count = self.running.iter().filter(|s| waits(s)).count();
        if count == 0 {
            return;
        }
        let room = self.limits.max_rows as usize - batch.rows.len();
        let share = (room / count).max(1);
        let mut left = room.saturating_sub(
            self.running
                .iter()
                .filter(|s| waits(s))
                .map(|s| (end(s) - s.computed).min(share))
                .sum::<usize>(),
        );
        for at in 0..self.running.len() {
            let sequence = &self.running[at];
            if !waits(sequence) {
                continue;
            }
            let (first, wanted) = (sequence.computed, end(sequence) - sequence.computed);
            let rows = wanted.min(share + left);
            left -= rows.saturating_sub(share);
            let last = self.place(batch, at, first, first + rows);
            self.computed_to(at, last);
        }
    }

    /// Adds rows `first..end` of a sequence to a step, as many as there is room for; gives where it stopped.
    fn place(&self, batch: &mut Batch, at: usize, first: usize, end: usize) -> usize {
        let sequence = &self.running[at];
        let Some(ongoing) = self.requests.get(&sequence.request) else {
            return first;
        };
        for pos in first..end {
            if batch.rows.len() >= self.limits.max_rows as usize {
                return pos;
            }
            let mut want = ongoing.job.want(sequence.index, pos as u32);
            if want.draw != Draw::No && sequence.chains() {
                want.draw = Draw::Next;
            }
            if want != crate::exec::Want::NOTHING {
                if batch.heads.len() >= self.limits.max_heads as usize {
                    return pos;
                }
                let row = batch.rows.len() as u32;
                batch
                    .heads
                    .push((Head { row, want }, sequence.key, pos as u32));
            }
            let row = Row {
                token: sequence.tokens[pos],
                seq: sequence.slot,
                pos: pos as u32,
            };
            batch.row(sequence.key, row);
        }
        end
    }

    /// Notes that given rows are computed, or will be, up to `end`.
    fn computed_to(&mut self, at: usize, end: usize) {
        let sequence = &mut self.running[at];
        let end = end.min(sequence.given);
        if end <= sequence.computed {
            return;
        }
        sequence.computed = end;
        if sequence.trace.is_none() {
            let whole = end / self.limits.page_size as usize * self.limits.page_size as usize;
            self.prefixes
                .insert(&sequence.tokens[..whole], &sequence.pages, &mut self.pool);
        }
        let (request, index, is_whole) = (sequence.request, sequence.index, end == sequence.given);
        let mut events = Vec::new();
        if let Some(ongoing) = self.requests.get_mut(&request)
            && !is_whole
        {
            ongoing.job.prefilled(index, end as u32, &mut events);
        }
        self.tell(request, events);
    }

    /// Sets the masks of constrained sequences that a step draws for; gives those whose constraint failed.
    fn restrict(
        &mut self,
        executor: &mut dyn Executor,
        batch: &Batch,
    ) -> Vec<(super::RequestId, Error)> {
        let mut failed = Vec::new();
        for (head, key, _) in &batch.heads {
            let sequence = self.running.iter_mut().find(|s| s.key == *key);
            let Some(sequence) = sequence.filter(|_| head.want.draw != Draw::No) else {
                continue;
            };
            let Some(constrained) = &mut sequence.constrained else {
                continue;
            };
            let mut mask = constrained.allowed.as_ref().clone();
            let restricted = constrained.constraint.restrict(&mut mask).and_then(|()| {
                if mask.count() == 0 {
                    return Err(Error::invalid_input(
                        "the constraint leaves no token to draw",
                    ));
                }
                executor.set_mask(sequence.slot, &mask)
            });
            if let Err(error) = restricted {
                failed.push((sequence.request, error));
            }
        }
        failed
    }

    /// Ends requests, and takes their rows out of a step. Whether there were any.
    fn forget(&mut self, batch: &mut Batch, failed: Vec<(super::RequestId, Error)>) -> bool {
        if failed.is_empty() {
            return false;
        }
        for (id, error) in failed {
            self.end(id, error);
        }
        let old = std::mem::take(batch);
        let is_there = |key: &SequenceKey| self.running.iter().any(|s| s.key == *key);
        let mut rows = old.rows.into_iter();
        let (mut at, mut moved) = (0_u32, Vec::new());
        for part in &old.parts {
            for row in rows.by_ref().take(part.rows as usize) {
                if is_there(&part.key) {
                    moved.push((at, batch.rows.len() as u32));
                    batch.row(part.key, row);
                }
                at += 1;
            }
        }
        for (head, key, pos) in old.heads {
            if let Some((_, row)) = moved.iter().find(|(old, _)| *old == head.row) {
                let want = head.want;
                batch.heads.push((Head { row: *row, want }, key, pos));
            }
        }
        true
    }

    fn run(
        &mut self,
        executor: &mut dyn Executor,
        mut batch: Batch,
        trace: Option<&crate::plan::Trace>,
    ) -> Result<bool> {
        batch.heads.sort_by_key(|(head, ..)| head.want.rank());
        let heads: Vec<Head> = batch.heads.iter().map(|(head, ..)| *head).collect();
        let pending = executor.submit(Step::Rows {
            rows: &batch.rows,
            heads: &heads,
            trace,
        })?;
        let mut drawn = Vec::new();
        for (head, key, _) in &batch.heads {
            if head.want.draw == Draw::Next {
                drawn.push(*key);
            }
            if head.want.draw != Draw::No
                && let Some(sequence) = self.running.iter_mut().find(|s| s.key == *key)
            {
                sequence.ahead += 1;
            }
        }
        self.was_traced = trace.is_some();
        if trace.is_none() {
            self.was_apart = drawn.is_empty();
        }
        if !drawn.is_empty() {
            self.drawn = drawn;
        }
        self.in_flight.push_back(Flight {
            pending,
            parts: batch.parts,
            heads: batch
                .heads
                .iter()
                .map(|(_, key, pos)| (*key, *pos))
                .collect(),
            traced: trace.is_some(),
        });
        Ok(true)
    }
}
