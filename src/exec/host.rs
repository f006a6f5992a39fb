//! What the executors on the processor share: the table of values, cache pages, sampling, and the loop over a plan's
//! operations with taps and edits.

use super::{Draw, Head, HeadCounts, HeadOutput, Limits, Output, Pending, Step};
use crate::error::{Error, Result};
use crate::plan::{
    AttentionSpec, Edit, EditKind, History, Hook, Input, Layout, Logprobs, Op, Plan, Point, Role,
    Row, Sampler, Sampling, SequenceSampling, Tap, TensorId, TokenMask, Trace, Traced, ValueId,
    fine, pick_experts,
};
use std::rc::Rc;

/// The values of a plan, each in its buffer: `[rows, width]`.
#[derive(Clone, Debug, Default)]
pub struct Table {
    layout: Layout,
    buffers: Vec<Vec<f32>>,
}

impl Table {
    /// Empty buffers.
    pub fn new(layout: Layout) -> Self {
        Self {
            buffers: vec![Vec::new(); layout.buffers.len()],
            layout,
        }
    }

    /// A value.
    pub fn get(&self, value: ValueId) -> &[f32] {
        &self.buffers[self.layout.of(value).0]
    }

    /// Takes a value out, to be written and [put](Table::put) back: what it holds is what lay there before.
    pub fn take(&mut self, value: ValueId) -> Vec<f32> {
        std::mem::take(&mut self.buffers[self.layout.of(value).0])
    }

    /// Sets a value.
    pub fn put(&mut self, value: ValueId, values: Vec<f32>) {
        self.buffers[self.layout.of(value).0] = values;
    }
}

/// State that outlives a step.
pub struct Host {
    /// The model's plan.
    pub plan: Rc<Plan>,
    /// Capacities.
    pub limits: Limits,
    /// Cache pages of each sequence.
    pub pages: Vec<Vec<u32>>,
    sampling: Vec<SequenceSampling>,
    sampler: Sampler,
    /// Rows that [`Step::Next`] runs, and what is wanted of each.
    next: Vec<(Row, Head)>,
    table: Table,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    /// For a plan.
    ///
    /// # Errors
    ///
    /// Those of [`Layout::new`].
    pub fn new(plan: Rc<Plan>, limits: Limits) -> Result<Self> {
        Ok(Self {
            pages: vec![Vec::new(); limits.max_seqs as usize],
            sampling: vec![SequenceSampling::greedy(); limits.max_seqs as usize],
            sampler: Sampler::default(),
            next: Vec::new(),
            table: Table::new(Layout::new(&plan)?),
            limits,
            plan,
        })
    }

    /// [`Executor::set_pages`](super::Executor::set_pages)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a sequence beyond the limits.
    pub fn set_pages(&mut self, seq: u32, pages: &[u32]) -> Result<()> {
        let own = self
            .pages
            .get_mut(seq as usize)
            .ok_or_else(|| Error::internal("a sequence beyond the limits"))?;
        own.clear();
        own.extend_from_slice(pages);
        Ok(())
    }

    /// [`Executor::set_sampling`](super::Executor::set_sampling)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a history with tokens beyond the vocabulary.
    pub fn set_sampling(
        &mut self,
        seq: u32,
        sampling: &Sampling,
        history: History<'_>,
    ) -> Result<()> {
        self.sampling[seq as usize] =
            SequenceSampling::new(sampling, self.plan.vocab_size, history)?;
        Ok(())
    }

    /// [`Executor::set_mask`](super::Executor::set_mask)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a sequence without a mask, and for a mask of another
    /// vocabulary.
    pub fn set_mask(&mut self, seq: u32, mask: &TokenMask) -> Result<()> {
        if mask.words().len() != self.plan.vocab_size.div_ceil(32) as usize {
            return Err(Error::internal("a token mask for another vocabulary"));
        }
        let sampling = self.sampling.get_mut(seq as usize);
        if sampling.is_some_and(|sampling| sampling.set_mask(mask)) {
            return Ok(());
        }
        Err(Error::internal("a mask for a sequence that has none"))
    }

    /// [`Inspect::poke`](super::Inspect::poke)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a role that the plan does not have.
    pub fn poke(&mut self, role: Role, values: &[f32]) -> Result<()> {
        let value = self
            .plan
            .first(role)
            .ok_or_else(|| Error::internal(format!("a plan without {role:?}")))?;
        self.table.put(value, values.to_vec());
        Ok(())
    }

    /// [`Inspect::peek`](super::Inspect::peek)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a role that the plan does not have.
    pub fn peek(&self, role: Role) -> Result<Vec<f32>> {
        let value = self
            .plan
            .last(role)
            .ok_or_else(|| Error::internal(format!("a plan without {role:?}")))?;
        Ok(self.table.get(value).to_vec())
    }

    /// The cache page of a row's position.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a position that has none.
    pub fn page(&self, row: Row, page_size: usize) -> Result<u32> {
        let pages = self.pages.get(row.seq as usize);
        let page = pages.and_then(|pages| pages.get(row.pos as usize / page_size));
        page.copied()
            .ok_or_else(|| Error::internal(format!("position {} has no cache page", row.pos)))
    }

    /// Draws a token for each head that wants one, into `out`.
    fn sample(&mut self, logits: &[f32], rows: &[Row], heads: &[Head], out: &mut [HeadOutput]) {
        let vocab = self.plan.vocab_size as usize;
        if heads.iter().any(|head| head.want.draw == Draw::Next) {
            self.next.clear();
        }
        for ((logits, head), out) in logits.chunks_exact(vocab).zip(heads).zip(out) {
            if head.want.draw == Draw::No {
                continue;
            }
            let row = rows[head.row as usize];
            let token = self
                .sampler
                .draw(logits, &mut self.sampling[row.seq as usize], row.pos);
            out.id = Some(token);
            if head.want.draw == Draw::Next {
                let next = Row {
                    token,
                    seq: row.seq,
                    pos: row.pos + 1,
                };
                let row = self.next.len() as u32;
                self.next.push((next, Head { row, ..*head }));
            }
        }
    }
}

/// What heads want of their logits `[logit heads, V]`, but for drawn tokens; `out` has those already.
fn read_logits(logits: &[f32], vocab: usize, heads: &[Head], out: &mut [HeadOutput]) {
    for ((logits, head), out) in logits.chunks_exact(vocab.max(1)).zip(heads).zip(out) {
        if head.want.logits {
            out.logits = logits.to_vec();
        }
        if let Some(want) = head.want.logprobs {
            out.logprobs = Some(Logprobs::new(logits, want.top, want.of.or(out.id)));
        }
    }
}

/// An executor on the processor: it runs one operation after the other.
pub trait HostExecutor {
    /// The shared state.
    fn host(&mut self) -> &mut Host;

    /// Prepares for operations over these rows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for rows that the executor has no room for.
    fn begin(&mut self, rows: &[Row]) -> Result<()>;

    /// Runs an operation that needs a matrix or a cache.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for an operation that the executor does not have, and for a
    /// position without a cache page.
    fn run(&mut self, op: &Op, table: &mut Table, rows: &[Row], heads: &[u32]) -> Result<()>;

    /// A vector of weights as f32.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a tensor that is no vector.
    fn vector(&self, id: TensorId) -> Result<Vec<f32>>;

    /// Reads a cached key (`which` 0) or value (1) of `D` values.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a position without a cache page.
    fn cached(
        &self,
        cache: usize,
        which: usize,
        kv_head: usize,
        row: Row,
        out: &mut [f32],
    ) -> Result<()>;
}

/// [`Executor::submit`](super::Executor::submit)
///
/// # Errors
///
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for [`Step::Next`] after a step that drew no token to go on from, and the errors of
/// [`HostExecutor::run`] and [`Traced::of`].
pub fn submit(executor: &mut impl HostExecutor, step: Step<'_>) -> Result<Pending> {
    let output = match step {
        Step::Rows { rows, heads, trace } => forward(executor, rows, heads, trace)?,
        Step::Next => {
            let next = std::mem::take(&mut executor.host().next);
            if next.is_empty() {
                return Err(Error::internal("no sampled tokens to go on from"));
            }
            let (rows, heads): (Vec<Row>, Vec<Head>) = next.into_iter().unzip();
            forward(executor, &rows, &heads, None)?
        }
    };
    Ok(Box::pin(std::future::ready(Ok(output))))
}

fn forward(
    executor: &mut impl HostExecutor,
    rows: &[Row],
    heads: &[Head],
    trace: Option<&Trace>,
) -> Result<Output> {
    executor.begin(rows)?;
    let plan = executor.host().plan.clone();
    let Some(trace) = trace else {
        let mut table = std::mem::take(&mut executor.host().table);
        let output = operations(executor, &plan, &mut table, rows, heads, |_, _| Ok(()));
        executor.host().table = table;
        let heads = output?;
        return Ok(Output {
            heads,
            taps: Vec::new(),
        });
    };
    let traced = Traced::of(&plan, trace)?;
    let mut table = Table::new(traced.layout.clone());
    let mut taps: Vec<Option<Tap>> = vec![None; trace.taps.len()];
    let logit_heads = HeadCounts::of(heads)?.logits as usize;
    let output = operations(
        executor,
        &traced.plan,
        &mut table,
        rows,
        heads,
        |value, table| {
            let points: Vec<Point> = traced
                .at
                .iter()
                .filter(|(_, at)| **at == value)
                .map(|(point, _)| *point)
                .collect();
            for edit in trace
                .edits
                .iter()
                .filter(|edit| points.contains(&edit.point))
            {
                let mut values = table.take(value);
                apply(edit, &mut values, rows, traced.heads(edit.point.layer));
                table.put(value, values);
            }
            for (tap, point) in taps
                .iter_mut()
                .zip(&trace.taps)
                .filter(|(_, point)| points.contains(point))
            {
                let role = traced.plan.value_spec(value).role;
                let count = if role == Role::Logits {
                    logit_heads
                } else {
                    rows.len()
                };
                *tap = Some(read(&traced, *point, table.get(value), count));
            }
            Ok(())
        },
    )?;
    let missing = || Error::internal("a tapped value was not computed");
    let taps = taps
        .into_iter()
        .map(|tap| tap.ok_or_else(missing))
        .collect::<Result<_>>()?;
    Ok(Output {
        heads: output,
        taps,
    })
}

/// Runs the operations; `written` is told of each value.
fn operations(
    executor: &mut impl HostExecutor,
    plan: &Plan,
    table: &mut Table,
    rows: &[Row],
    heads: &[Head],
    mut written: impl FnMut(ValueId, &mut Table) -> Result<()>,
) -> Result<Vec<HeadOutput>> {
    let counts = HeadCounts::of(heads)?;
    let logit_rows: Vec<u32> = heads[..counts.logits as usize]
        .iter()
        .map(|head| head.row)
        .collect();
    let mut outputs = vec![HeadOutput::default(); heads.len()];
    for op in &plan.ops {
        match op {
            Op::LmHead { input, .. } => {
                let width = plan.hidden_size as usize;
                read_hidden(executor, *input, width, table, heads, &mut outputs)?;
                if counts.logits == 0 {
                    break;
                }
                executor.run(op, table, rows, &logit_rows)?;
            }
            Op::Sample { logits } => {
                if counts.drawn > 0 {
                    let logits = table.get(*logits);
                    executor.host().sample(logits, rows, heads, &mut outputs);
                }
                continue;
            }
            op => {
                if !run_fine(executor, plan, op, table, rows)? {
                    executor.run(op, table, rows, &logit_rows)?;
                }
            }
        }
        for value in op.writes() {
            written(value, table)?;
        }
    }
    if let Some(logits) = plan.last(Role::Logits).filter(|_| counts.logits > 0) {
        let vocab = plan.vocab_size as usize;
        read_logits(table.get(logits), vocab, heads, &mut outputs);
    }
    Ok(outputs)
}

/// The head's input, normalised, for heads that want it.
fn read_hidden(
    executor: &impl HostExecutor,
    input: Input,
    width: usize,
    table: &Table,
    heads: &[Head],
    outputs: &mut [HeadOutput],
) -> Result<()> {
    for (head, output) in heads.iter().zip(outputs) {
        if head.want.hidden {
            let values = table.get(input.x);
            let x = &values[head.row as usize * width..][..width];
            output.hidden = match input.norm {
                Some(norm) => fine::norm(x, norm.eps, &executor.vector(norm.weight)?),
                None => x.to_vec(),
            };
        }
    }
    Ok(())
}

/// Runs a fine operation that needs no matrix and writes no cache; false for others.
fn run_fine(
    executor: &impl HostExecutor,
    plan: &Plan,
    op: &Op,
    table: &mut Table,
    step: &[Row],
) -> Result<bool> {
    let rows = step.len();
    let hidden = plan.hidden_size as usize;
    let (out, values) = match op {
        Op::NormScale { x, eps, out } => (out, fine::norm_scale(table.get(*x), hidden, *eps)),
        Op::Normalize { x, scale, out } => (out, fine::normalize(table.get(*x), table.get(*scale))),
        Op::Weigh { x, weight, out } => {
            (out, fine::weigh(table.get(*x), &executor.vector(*weight)?))
        }
        Op::SiluMul { gate, up, out } => (out, fine::silu_mul(table.get(*gate), table.get(*up))),
        Op::Zero { out } => (out, vec![0.0; rows * hidden]),
        Op::Add { x, y, out } => {
            let mut values = table.take(*x);
            values
                .iter_mut()
                .zip(table.get(*y))
                .for_each(|(x, y)| *x += y);
            (out, values)
        }
        Op::Softmax { scores, heads, out } => {
            let scores = table.get(*scores);
            (
                out,
                fine::softmax(scores, scores.len() / (rows * *heads as usize).max(1)),
            )
        }
        Op::ExpertWeights {
            logits,
            gating,
            out,
        } => {
            let logits = table.get(*logits);
            (
                out,
                fine::expert_weights(logits, logits.len() / rows.max(1), *gating),
            )
        }
        Op::PickExperts {
            weights,
            experts,
            out,
        } => {
            let mut routes = Vec::new();
            pick_experts(table.get(*weights), *experts, &mut routes);
            (out, routes)
        }
        Op::Rope {
            x,
            heads,
            head_dim,
            rope,
            out,
        } => {
            let mut values = table.get(*x).to_vec();
            if let Some(rope) = rope {
                fine::rope(&mut values, step, *heads, *head_dim, &plan.ropes[*rope]);
            }
            (out, values)
        }
        Op::HeadNorm {
            x,
            weight,
            head_dim,
            eps,
            out,
        } => {
            let weight = weight.map(|id| executor.vector(id)).transpose()?;
            let mut values = table.take(*x);
            fine::head_norm(&mut values, *head_dim, *eps, weight.as_deref());
            (out, values)
        }
        Op::Scores { query, spec, out } => (out, scores(executor, table.get(*query), spec, step)?),
        Op::Mix { pattern, spec, out } => (out, mix(executor, table.get(*pattern), spec, step)?),
        _ => return Ok(false),
    };
    table.put(*out, values);
    Ok(true)
}

/// `[T, H, S]`
fn scores(
    executor: &impl HostExecutor,
    query: &[f32],
    spec: &AttentionSpec,
    rows: &[Row],
) -> Result<Vec<f32>> {
    let (heads, d) = (spec.heads.heads as usize, spec.heads.head_dim as usize);
    let group = heads / spec.heads.kv_heads as usize;
    let seen = seen(rows);
    let mut out = vec![f32::NEG_INFINITY; rows.len() * heads * seen];
    let mut key = vec![0.0; d];
    for (t, row) in rows.iter().enumerate() {
        let scale = spec.scale_at(row.pos);
        for h in 0..heads {
            let query = &query[(t * heads + h) * d..][..d];
            for pos in spec.mask.first(row.pos)..=row.pos {
                executor.cached(spec.cache, 0, h / group, Row { pos, ..*row }, &mut key)?;
                let dot: f64 = query
                    .iter()
                    .zip(&key)
                    .map(|(q, k)| f64::from(*q) * f64::from(*k))
                    .sum();
                out[(t * heads + h) * seen + pos as usize] = (dot * scale) as f32;
            }
        }
    }
    Ok(out)
}

/// `[T, H, D]`
fn mix(
    executor: &impl HostExecutor,
    pattern: &[f32],
    spec: &AttentionSpec,
    rows: &[Row],
) -> Result<Vec<f32>> {
    let (heads, d) = (spec.heads.heads as usize, spec.heads.head_dim as usize);
    let group = heads / spec.heads.kv_heads as usize;
    let seen = seen(rows);
    let mut out = Vec::with_capacity(rows.len() * heads * d);
    let mut value = vec![0.0; d];
    for (t, row) in rows.iter().enumerate() {
        for h in 0..heads {
            let weights = &pattern[(t * heads + h) * seen..][..seen];
            let mut sum = vec![0.0_f64; d];
            for pos in spec.mask.first(row.pos)..=row.pos {
                executor.cached(spec.cache, 1, h / group, Row { pos, ..*row }, &mut value)?;
                let weight = f64::from(weights[pos as usize]);
                sum.iter_mut()
                    .zip(&value)
                    .for_each(|(sum, v)| *sum += weight * f64::from(*v));
            }
            out.extend(sum.iter().map(|sum| *sum as f32));
        }
    }
    Ok(out)
}

/// `S` of a step: cached positions from the first to the last row's.
fn seen(rows: &[Row]) -> usize {
    rows.iter()
        .map(|row| row.pos as usize + 1)
        .max()
        .unwrap_or(0)
}

/// Makes an edit of a value `[rows, width]`.
fn apply(edit: &Edit, values: &mut [f32], rows: &[Row], heads: usize) {
    let width = values.len() / rows.len().max(1);
    for (row, values) in rows.iter().zip(values.chunks_exact_mut(width.max(1))) {
        let Some(new) = edit.row(*row) else { continue };
        // Of routes, the weights; of attention, as many cached positions as the edit has.
        let (step, first) = if edit.point.hook == Hook::PickedWeights {
            (2, 1)
        } else {
            (1, 0)
        };
        let parts = if matches!(edit.point.hook, Hook::Scores | Hook::Pattern) {
            heads.max(1)
        } else {
            1
        };
        for (values, new) in values
            .chunks_exact_mut(width / parts)
            .zip(new.chunks_exact(new.len() / parts))
        {
            for (value, new) in values[first..].iter_mut().step_by(step).zip(new) {
                *value = if edit.kind == EditKind::Add {
                    *value + new
                } else {
                    *new
                };
            }
        }
    }
}

/// A tap of a value.
fn read(traced: &Traced, point: Point, values: &[f32], rows: usize) -> Tap {
    let column = match point.hook {
        Hook::ExpertIndices => Some(0),
        Hook::PickedWeights => Some(1),
        _ => None,
    };
    let values: Vec<f32> = match column {
        Some(column) => values[column..].iter().step_by(2).copied().collect(),
        None => values.to_vec(),
    };
    let mut shape = vec![rows];
    shape.extend(traced.dims(point, values.len() / rows.max(1)));
    Tap {
        point,
        shape,
        values,
    }
}
