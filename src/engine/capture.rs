//! Values of a model over a text, read back and changed: see [`Trace`].

use super::{Model, log_softmax, overflow};
use crate::error::{Error, Result};
use crate::exec::{Output, Step, Want};
use crate::model::Arrangement;
use crate::plan::{Edit, Hook, Op, Point, Row, Tap, Trace};

/// What [`Model::trace`] read.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// One per tap, in their order: `[ids, …]`, over all ids.
    pub taps: Vec<Tap>,
    /// Logits of every position, `[ids, V]`, where they were asked for.
    pub logits: Vec<f32>,
}

impl Model {
    /// The model's points that a pattern names: `*` stands for any characters, as in `blocks.*.attn.hook_pattern`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for a pattern that names none.
    pub fn points(&self, pattern: &str) -> Result<Vec<Point>> {
        let found: Vec<Point> = Point::all(&self.plan)?
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

    /// Runs a text from an empty sequence with taps and edits. For this the engine must have no requests to run.
    ///
    /// `logits`: whether to give logits too. Rows of queries and keys have the order of the model's file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for ids, points and edits that do not fit the model;
    /// [`ErrorKind::ContextOverflow`](crate::error::ErrorKind::ContextOverflow) for a text longer than the context.
    pub async fn trace(&mut self, ids: &[u32], trace: &Trace, logits: bool) -> Result<Captured> {
        self.check_ids(ids)?;
        if ids.is_empty() {
            return Err(Error::invalid_input("no tokens to run"));
        }
        if ids.len() > self.context as usize {
            return Err(overflow(
                ids.len(),
                self.context,
                self.config.max_position_embeddings,
            ));
        }
        let unreachable = |positions: &[u32]| {
            positions
                .iter()
                .copied()
                .find(|pos| *pos as usize >= ids.len())
        };
        if let Some((edit, pos)) = trace
            .edits
            .iter()
            .find_map(|e| Some((e, unreachable(e.positions.as_deref().unwrap_or_default())?)))
        {
            let count = ids.len();
            return Err(Error::invalid_input(format!(
                "the edit of {} names position {pos} of {count}",
                edit.point
            )));
        }
        trace
            .edits
            .iter()
            .try_for_each(|edit| check_positions(edit, ids.len()))?;
        if self.scheduler.is_busy() {
            return Err(Error::invalid_input(
                "this model is generating: await or cancel its requests before",
            ));
        }
        let trace = self.in_plan_order(trace);
        let pages = self.scheduler.lend(ids.len() as u32)?;
        let result = self.trace_with(ids, &pages, &trace, logits).await;
        self.scheduler.give_back(&pages);
        let mut captured = result?;
        for tap in &mut captured.taps {
            self.in_file_order(tap.point, &mut tap.values, &tap.shape, false);
        }
        Ok(captured)
    }

    async fn trace_with(
        &mut self,
        ids: &[u32],
        pages: &[u32],
        trace: &Trace,
        logits: bool,
    ) -> Result<Captured> {
        self.executor.set_pages(0, pages)?;
        let limits = self.executor.limits();
        let step = limits.max_rows.min(limits.max_heads) as usize;
        let at_end = |point: &Point| {
            matches!(
                point.hook,
                Hook::FinalScale | Hook::FinalNormalized | Hook::FinalOutput | Hook::Logits
            )
        };
        let heads_wanted = logits || trace.taps.iter().any(at_end);
        let mut captured = Captured::default();
        for (chunk, tokens) in ids.chunks(step).enumerate() {
            let row = |(i, token): (usize, &u32)| Row {
                token: *token,
                seq: 0,
                pos: (chunk * step + i) as u32,
            };
            let rows: Vec<Row> = tokens.iter().enumerate().map(row).collect();
            let heads: Vec<u32> = if heads_wanted {
                (0..rows.len() as u32).collect()
            } else {
                Vec::new()
            };
            let want = if heads_wanted {
                Want::Logits
            } else {
                Want::Nothing
            };
            let pending = self.executor.submit(Step::Traced {
                rows: &rows,
                heads: &heads,
                want,
                trace,
            })?;
            let Output::Traced { output, taps } = pending.await? else {
                return Err(Error::internal("asked for a trace, got something else"));
            };
            if let (true, Output::Logits(values)) = (logits, *output) {
                captured.logits.extend(values);
            }
            if captured.taps.is_empty() {
                captured.taps = taps;
            } else {
                for (all, more) in captured.taps.iter_mut().zip(taps) {
                    join(all, more);
                }
            }
        }
        Ok(captured)
    }

    /// Log-probability of each token given those before it; the first has none.
    ///
    /// # Errors
    ///
    /// Those of [`Model::logits`].
    pub async fn score(&mut self, ids: &[u32]) -> Result<Vec<Option<f64>>> {
        let vocab = self.plan.vocab_size as usize;
        let mut scores = vec![None; ids.len()];
        let targets = ids.to_vec();
        self.logits(ids, |first, values| {
            for (i, logits) in values.chunks_exact(vocab).enumerate() {
                if let Some(target) = targets.get(first + i + 1) {
                    scores[first + i + 1] = Some(log_softmax(logits, *target as usize));
                }
            }
            Ok(())
        })
        .await?;
        Ok(scores)
    }

    /// Edits as the caller has them, in the order of the plan's rows.
    fn in_plan_order(&self, trace: &Trace) -> Trace {
        let edit = |edit: &Edit| {
            let mut edit = edit.clone();
            let shape = [edit.values.len() / edit.width.max(1), edit.width];
            self.in_file_order(edit.point, &mut edit.values, &shape, true);
            edit
        };
        Trace {
            taps: trace.taps.clone(),
            edits: trace.edits.iter().map(edit).collect(),
        }
    }

    /// Puts rows of queries and keys into the file's order, or back into the plan's: in files of Hugging Face the first half of
    /// a head pairs with the second for rope, in a plan pairs lie side by side.
    fn in_file_order(&self, point: Point, values: &mut [f32], shape: &[usize], back: bool) {
        if !matches!(
            point.hook,
            Hook::Query | Hook::Key | Hook::RotQuery | Hook::RotKey
        ) || !self.halves
        {
            return;
        }
        let d = self.config.head_dim as usize;
        if shape.last().is_none_or(|width| width % d != 0) {
            return;
        }
        let half = self.config.rope_dim as usize / 2;
        for head in values.chunks_exact_mut(d) {
            let old = head.to_vec();
            for i in 0..half {
                let (pairs, halves) = ([2 * i, 2 * i + 1], [i, i + half]);
                for (pair, own) in pairs.into_iter().zip(halves) {
                    if back {
                        head[pair] = old[own]
                    } else {
                        head[own] = old[pair]
                    }
                }
            }
        }
    }
}

/// That an edit changes what it says, and all of it.
fn check_positions(edit: &Edit, ids: usize) -> Result<()> {
    let rows = edit.values.len().checked_div(edit.width).unwrap_or(0);
    let Some(positions) = &edit.positions else {
        if rows == 1 || rows == ids {
            return Ok(());
        }
        return Err(Error::invalid_input(format!(
            "the edit of {} has {rows} rows for {ids} tokens: give one row, one for each token, or positions",
            edit.point
        )));
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

/// Whether queries and keys of a model lie in halves in its file.
pub(super) fn rope_halves(model: &crate::model::ModelPlan) -> bool {
    model.plan.ops.iter().any(|op| match op {
        Op::QkvRope { q, .. } => {
            let first = model.sources[q.weight.0].first();
            first.is_some_and(|source| {
                matches!(source.arrangement, Arrangement::RotaryHalves { .. })
            })
        }
        _ => false,
    })
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
