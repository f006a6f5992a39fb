//! Who gets a slot and pages.

use super::super::cache::common;
use super::super::jobs::SequenceSpec;
use super::sequence::{Constrained, Running};
use super::{RequestId, Scheduler};
use crate::error::Result;
use crate::exec::Executor;
use crate::plan::History;

/// Whether a sequence can start.
enum Admission {
    /// It has a slot and pages.
    Begun,
    /// Others are about to compute what it begins with.
    Waits,
    /// There are no pages for it now.
    Full,
}

impl Scheduler {
    /// Gives sequences slots and pages, in the order in which they wait. False if none can have them.
    ///
    /// Requests take turns: one with many sequences does not keep others out. What does not fit keeps those behind it
    /// waiting, so that it is not put off forever.
    pub(super) fn admit(&mut self, executor: &mut dyn Executor) -> bool {
        for _ in 0..self.waiting.len() {
            if self.free_slots.is_empty() {
                return false;
            }
            let Some(id) = self.waiting.front().copied() else {
                return false;
            };
            let unbegun = self.requests.get_mut(&id).map(|o| &mut o.unbegun);
            let Some((index, spec)) = unbegun.and_then(|unbegun| unbegun.pop_front()) else {
                self.waiting.pop_front();
                continue;
            };
            let put_back = |scheduler: &mut Self, spec| {
                if let Some(ongoing) = scheduler.requests.get_mut(&id) {
                    ongoing.unbegun.push_front((index, spec));
                }
            };
            match self.begin(executor, id, index, spec) {
                (Admission::Begun, _) => {
                    // A turn for the next.
                    self.waiting.rotate_left(1);
                    return true;
                }
                (Admission::Waits, Some(spec)) => {
                    put_back(self, spec);
                    self.waiting.rotate_left(1);
                }
                (_, Some(spec)) => {
                    put_back(self, spec);
                    return false;
                }
                (_, None) => return false,
            }
        }
        false
    }

    /// Starts a sequence, or gives it back.
    fn begin(
        &mut self,
        executor: &mut dyn Executor,
        id: RequestId,
        index: u32,
        spec: SequenceSpec,
    ) -> (Admission, Option<SequenceSpec>) {
        let trace = self.requests.get(&id).and_then(|o| o.job.trace());
        let page = self.limits.page_size as usize;
        // A traced sequence takes nothing from the cache: all of it is to be seen and changed.
        let reusable = match trace {
            None => &spec.tokens[..spec.reusable as usize],
            Some(_) => &[],
        };
        let shared = self.prefixes.shared(reusable, page as u32) as usize;
        // Others are about to compute more of it.
        let mut filling = self
            .running
            .iter()
            .filter(|s| s.missing() > 0 && s.trace.is_none());
        if filling.any(|s| common(reusable, &s.tokens[..s.given]) / page * page > shared) {
            return (Admission::Waits, Some(spec));
        }
        let (mut pages, held) = self.prefixes.take(reusable, &mut self.pool);
        let positions = spec.tokens.len() as u32 + spec.max_new_tokens;
        if self.grow(&mut pages, positions).is_err() {
            self.prefixes
                .insert(&reusable[..held as usize], &pages, &mut self.pool);
            self.release(&pages);
            return (Admission::Full, Some(spec));
        }
        let Some(slot) = self.free_slots.pop() else {
            self.release(&pages);
            return (Admission::Full, Some(spec));
        };
        let history = History {
            prompt: &spec.tokens,
            generated: &[],
        };
        let set = executor
            .set_pages(slot, &pages)
            .and_then(|()| executor.set_sampling(slot, &spec.sampling, history));
        let constrained = match (spec.constraint, &spec.sampling.mask) {
            (Some(constraint), Some(mask)) => Some(Constrained {
                constraint,
                allowed: mask.clone(),
            }),
            _ => None,
        };
        self.running.push(Running {
            key: self.next_key,
            request: id,
            index,
            slot,
            pages,
            given: spec.tokens.len(),
            tokens: spec.tokens.to_vec(),
            computed: held as usize,
            ahead: 0,
            max_new_tokens: spec.max_new_tokens,
            constrained,
            trace,
        });
        self.next_key += 1;
        let mut events = Vec::new();
        if let Some(ongoing) = self.requests.get_mut(&id) {
            ongoing.job.prefilled(index, held, &mut events);
        }
        self.tell(id, events);
        if let Err(error) = set {
            self.end(id, error);
        }
        (Admission::Begun, None)
    }

    /// Extends pages to hold `positions`. Takes and evicts nothing if it cannot take all.
    fn grow(&mut self, pages: &mut Vec<u32>, positions: u32) -> Result<()> {
        let missing = self.pool.missing(pages, positions);
        if missing <= self.pool.available() + self.prefixes.idle(&self.pool) {
            while missing > self.pool.available() && self.prefixes.evict(&mut self.pool) {}
        }
        self.pool.grow(pages, positions)
    }
}
