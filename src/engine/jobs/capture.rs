//! Values of a model over a text, read back and changed: see [`Trace`].

use super::super::{Model, RequestId};
use super::{Arrived, Event, Job, JobResult, Progress, SequenceSpec, other_result};
use crate::error::{Error, Result};
use crate::exec::Want;
use crate::model::{Arrangement, ModelPlan};
use crate::plan::{Edit, Hook, Op, Point, Tap, Trace};
use std::rc::Rc;

/// What a capture read.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// One per tap, in their order: `[ids, …]`, over all ids.
    pub taps: Vec<Tap>,
    /// Logits of every position, `[ids, V]`, where they were asked for.
    pub logits: Vec<f32>,
}

/// The order of queries' and keys' rows in a model's file.
#[derive(Copy, Clone, Debug)]
pub(in super::super) struct FileOrder {
    /// The first half of a head pairs with the second for rope; in a plan pairs lie side by side.
    halves: bool,
    head_dim: usize,
    rope_dim: usize,
}

impl FileOrder {
    /// Of an opened model.
    pub fn new(model: &ModelPlan, head_dim: u32, rope_dim: u32) -> Self {
        let halves = model.plan.ops.iter().any(|op| match op {
            Op::QkvRope { q, .. } => {
                let first = model.sources[q.weight.0].first();
                first.is_some_and(|source| {
                    matches!(source.arrangement, Arrangement::RotaryHalves { .. })
                })
            }
            _ => false,
        });
        Self {
            halves,
            head_dim: head_dim as usize,
            rope_dim: rope_dim as usize,
        }
    }

    /// Puts rows of queries and keys into the file's order, or back into the plan's.
    fn arrange(&self, point: Point, values: &mut [f32], width: usize, back: bool) {
        let by_head = matches!(
            point.hook,
            Hook::Query | Hook::Key | Hook::RotQuery | Hook::RotKey
        );
        if !by_head || !self.halves || !width.is_multiple_of(self.head_dim) {
            return;
        }
        let half = self.rope_dim / 2;
        for head in values.chunks_exact_mut(self.head_dim) {
            let old = head.to_vec();
            for i in 0..half {
                let (pairs, halves) = ([2 * i, 2 * i + 1], [i, i + half]);
                for (pair, own) in pairs.into_iter().zip(halves) {
                    if back {
                        head[pair] = old[own];
                    } else {
                        head[own] = old[pair];
                    }
                }
            }
        }
    }
}

struct Capture {
    trace: Rc<Trace>,
    order: FileOrder,
    len: u32,
    wants_logits: bool,
    /// Whether a tap needs the head.
    needs_head: bool,
    captured: Captured,
}

impl Job for Capture {
    fn want(&self, _: u32, _: u32) -> Want {
        if self.wants_logits || self.needs_head {
            Want::LOGITS
        } else {
            Want::NOTHING
        }
    }

    fn trace(&self) -> Option<Rc<Trace>> {
        Some(self.trace.clone())
    }

    fn arrived(&mut self, arrived: Arrived, _: &mut Vec<Event>) -> Result<Progress> {
        if self.wants_logits {
            for (_, head) in &arrived.heads {
                self.captured.logits.extend_from_slice(&head.logits);
            }
        }
        if self.captured.taps.is_empty() {
            self.captured.taps = arrived.taps;
        } else {
            for (all, more) in self.captured.taps.iter_mut().zip(arrived.taps) {
                join(all, more);
            }
        }
        Ok(if arrived.first + arrived.rows == self.len {
            Progress::Ended
        } else {
            Progress::GoesOn
        })
    }

    fn finish(mut self: Box<Self>) -> Result<JobResult> {
        for tap in &mut self.captured.taps {
            let width = tap.shape.last().copied().unwrap_or(1);
            self.order.arrange(tap.point, &mut tap.values, width, false);
        }
        Ok(JobResult::Captured(self.captured))
    }
}

impl Model {
    /// The model's points that a pattern names: `*` stands for any characters, as in `blocks.*.attn.hook_pattern`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for a pattern that names none.
    pub fn points(&self, pattern: &str) -> Result<Vec<Point>> {
        let found: Vec<Point> = Point::all(self.plan())?
            .into_iter()
            .filter(|point| matches(pattern, &point.to_string()))
            .collect();
        if found.is_empty() {
            // Names what there is, where the name itself is unknown.
            if !pattern.contains('*') {
                Point::parse(pattern)?;
            }
            return Err(Error::invalid_input(format!(
                "this model has no hook {pattern:?}"
            )));
        }
        Ok(found)
    }

    /// Queues a run of ids, from an empty sequence, with taps and edits; [`JobResult::Captured`] comes of it. `logits`: whether
    /// to give logits too. Rows of queries and keys have the order of the model's file. Its steps are its own, and take
    /// turns with those of other requests.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for ids, points and edits that do not fit the model;
    /// [`ErrorKind::ContextOverflow`](crate::error::ErrorKind::ContextOverflow) for a text longer than the context.
    pub fn enqueue_capture(
        &mut self,
        ids: &[u32],
        trace: &Trace,
        logits: bool,
    ) -> Result<RequestId> {
        if ids.is_empty() {
            return Err(Error::invalid_input("no tokens to run"));
        }
        self.check_ids(ids)?;
        for edit in &trace.edits {
            check_positions(edit, ids.len())?;
        }
        let needs_head = trace.taps.iter().any(|point| {
            matches!(
                point.hook,
                Hook::FinalScale | Hook::FinalNormalized | Hook::FinalOutput | Hook::Logits
            )
        });
        let job = Box::new(Capture {
            trace: Rc::new(self.in_plan_order(trace)?),
            order: self.file_order,
            len: ids.len() as u32,
            wants_logits: logits,
            needs_head,
            captured: Captured::default(),
        });
        let spec = SequenceSpec::given(ids.into(), 0);
        Ok(self.scheduler.enqueue(job, vec![spec]))
    }

    /// Runs [`Model::enqueue_capture`] to its end; what is queued runs beside it.
    ///
    /// # Errors
    ///
    /// Those of [`Model::enqueue_capture`], and the device's.
    pub async fn trace(&mut self, ids: &[u32], trace: &Trace, logits: bool) -> Result<Captured> {
        let id = self.enqueue_capture(ids, trace, logits)?;
        match self.finish(id, &mut ()).await? {
            JobResult::Captured(captured) => Ok(captured),
            _ => Err(other_result()),
        }
    }

    /// A trace as the caller has it, checked, with its edits in the order of the plan's rows.
    pub(in super::super) fn in_plan_order(&self, trace: &Trace) -> Result<Trace> {
        crate::plan::Traced::of(self.plan(), trace)?;
        let edit = |edit: &Edit| {
            let mut edit = edit.clone();
            let width = edit.width;
            self.file_order
                .arrange(edit.point, &mut edit.values, width, true);
            edit
        };
        Ok(Trace {
            taps: trace.taps.clone(),
            edits: trace.edits.iter().map(edit).collect(),
        })
    }
}

/// Checks that an edit of a text of `ids` tokens changes what it says, and all of it.
fn check_positions(edit: &Edit, ids: usize) -> Result<()> {
    let point = edit.point;
    let rows = edit.values.len().checked_div(edit.width).unwrap_or(0);
    let Some(positions) = &edit.positions else {
        if rows == 1 || rows == ids {
            return Ok(());
        }
        return Err(Error::invalid_input(format!(
            "the edit of {point} has {rows} rows for {ids} tokens: give one row, one for each token, or positions"
        )));
    };
    if let Some(pos) = positions.iter().find(|pos| **pos as usize >= ids) {
        return Err(Error::invalid_input(format!(
            "the edit of {point} names position {pos} of {ids}"
        )));
    }
    check_distinct(edit)
}

/// Checks that an edit's positions are some, each once.
pub(in super::super) fn check_distinct(edit: &Edit) -> Result<()> {
    let Some(positions) = &edit.positions else {
        return Ok(());
    };
    let mut sorted = positions.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.is_empty() || sorted.len() < positions.len() {
        let point = edit.point;
        return Err(Error::invalid_input(format!(
            "the positions of the edit of {point} are none, or one stands twice"
        )));
    }
    Ok(())
}
/// Adds the rows of a later step. Scores and patterns of earlier rows do not see what came later.
fn join(all: &mut Tap, more: Tap) {
    if let ([rows, heads, seen], Hook::Scores | Hook::Pattern) = (&all.shape[..], all.point.hook) {
        let (rows, heads, seen, now) = (*rows, *heads, *seen, more.shape[2]);
        let unseen = if all.point.hook == Hook::Scores {
            f32::NEG_INFINITY
        } else {
            0.0
        };
        let mut wider = Vec::with_capacity(rows * heads * now);
        for line in all.values.chunks_exact(seen) {
            wider.extend_from_slice(line);
            wider.extend(std::iter::repeat_n(unseen, now - seen));
        }
        all.values = wider;
        all.shape[2] = now;
    }
    all.values.extend(more.values);
    all.shape[0] += more.shape[0];
}

/// A name and a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(begin) else {
        return false;
    };
    if !rest.contains('*') {
        return name.len() >= rest.len() && name.ends_with(rest);
    }
    loop {
        if matches(rest, name) {
            return true;
        }
        let Some((_, shorter)) =
            name.split_at_checked(name.chars().next().map_or(1, char::len_utf8))
        else {
            return false;
        };
        name = shorter;
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, name, want) in [
            (
                "blocks.*.hook_resid_post",
                "blocks.12.hook_resid_post",
                true,
            ),
            ("*", "hook_embed", true),
            ("*hook_q", "blocks.0.attn.hook_q", true),
            ("blocks.0.*.hook_*", "blocks.0.attn.hook_q", true),
            ("blocks.1.*", "blocks.12.hook_resid_post", false),
            ("a*a", "a", false),
            ("*a*b*", "xaybz", true),
            ("*a*b*", "xbyaz", false),
            ("hook_embed", "hook_embed", true),
            ("hook", "hook_embed", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }
}
