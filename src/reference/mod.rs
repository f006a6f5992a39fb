//! The plan in plain scalar Rust with f64 accumulation: the truth that the other executors are tested against.
//!
//! [`ops`] holds one function per operation, the twin of the shader of that name; this file holds the buffers and
//! calls them in order.

pub mod ops;

use crate::error::{Error, Result};
use crate::plan::{
    Activation, Executor, ExecutorInfo, Gating, History, Inspect, Limits, Linear, Norm, Op, Output, Pending, Plan, Row,
    Sampler, Sampling, SequenceSampling, Step, TensorId, Want, route,
};
use futures_core::future::LocalBoxFuture;
use ops::{Cache, Matrix};

/// Runs a plan on the processor, one thread, no SIMD.
pub struct ReferenceExecutor {
    plan: Plan,
    limits: Limits,
    /// Stored bytes of each tensor, in its own type.
    tensors: Vec<Vec<u8>>,
    /// One per [`Plan::caches`].
    caches: Vec<Cache>,
    /// Cache pages of each sequence.
    pages: Vec<Vec<u32>>,
    sampling: Vec<SequenceSampling>,
    sampler: Sampler,
    /// Rows that [`Step::Next`] runs.
    next: Vec<Row>,
    x: Vec<f32>,
    q: Vec<f32>,
    attention: Vec<f32>,
    ffn: Vec<f32>,
    /// Experts of each row and their weights, `[T, used]`.
    routes: Vec<(u32, f32)>,
    /// `[T, used, F]`
    expert_ffn: Vec<f32>,
    logits: Vec<f32>,
}

impl ReferenceExecutor {
    /// Allocates weights and cache. `limits` are taken as given.
    pub fn new(plan: Plan, limits: Limits) -> Result<ReferenceExecutor> {
        let mut tensors = Vec::with_capacity(plan.tensors.len());
        for spec in &plan.tensors {
            let len = usize::try_from(spec.bytes()).ok().filter(|n| *n <= isize::MAX as usize);
            let mut bytes = Vec::new();
            len.and_then(|len| bytes.try_reserve_exact(len).ok().map(|()| bytes.resize(len, 0))).ok_or_else(|| {
                Error::new(
                    crate::error::ErrorKind::ModelTooLarge,
                    format!("the weights ({} MB) do not fit this program's memory", plan.weight_bytes() >> 20),
                )
            })?;
            tensors.push(bytes);
        }
        let caches = plan.caches.iter().map(|spec| Cache::new(*spec, limits.page_size, limits.num_pages)).collect();
        Ok(ReferenceExecutor {
            tensors,
            caches,
            pages: vec![Vec::new(); limits.max_seqs as usize],
            sampling: vec![SequenceSampling::greedy(); limits.max_seqs as usize],
            sampler: Sampler::default(),
            next: Vec::new(),
            x: Vec::new(),
            q: Vec::new(),
            attention: Vec::new(),
            ffn: Vec::new(),
            routes: Vec::new(),
            expert_ffn: Vec::new(),
            logits: Vec::new(),
            plan,
            limits,
        })
    }

    fn matrix(&self, id: TensorId) -> Matrix<'_> {
        let spec = self.plan.tensor(id);
        Matrix { dtype: spec.dtype, rows: spec.rows as usize, cols: spec.cols as usize, bytes: &self.tensors[id.0] }
    }

    fn vector(&self, id: TensorId) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        self.matrix(id).row(0, &mut out)?;
        Ok(out)
    }

    fn linear(&self, linear: Linear, input: &[f32]) -> Result<Vec<f32>> {
        let bias = linear.bias.map(|id| self.vector(id)).transpose()?;
        ops::linear(&self.matrix(linear.weight), bias.as_deref(), input)
    }

    fn norm(&self, norm: Norm, x: &[f32]) -> Result<Vec<f32>> {
        Ok(ops::rms_norm(x, &self.vector(norm.weight)?, norm.eps))
    }

    /// All operations over the given rows.
    fn forward(&mut self, rows: &[Row], heads: &[u32], want: Want) -> Result<Output> {
        let hidden = self.plan.hidden_size as usize;
        let ops = std::mem::take(&mut self.plan.ops);
        let mut run = || -> Result<Output> {
            let mut output = Output::Nothing;
            for op in &ops {
                match op {
                    Op::Embed { table } => self.x = ops::embed(&self.matrix(*table), rows)?,
                    Op::QkvRope { norm, q, k, v, heads, rope, cache } => {
                        let input = self.norm(*norm, &self.x)?;
                        let mut q = self.linear(*q, &input)?;
                        let mut k = self.linear(*k, &input)?;
                        let v = self.linear(*v, &input)?;
                        if let Some(rope) = rope {
                            let rope = &self.plan.ropes[*rope];
                            ops::rope(&mut q, rows, heads.heads, heads.head_dim, rope);
                            ops::rope(&mut k, rows, heads.kv_heads, heads.head_dim, rope);
                        }
                        ops::store(&mut self.caches[*cache], rows, &self.pages, &k, &v)?;
                        self.q = q;
                    }
                    Op::QkNorm { heads, cache, eps } => {
                        ops::head_norm(&mut self.q, heads.head_dim, *eps);
                        ops::key_norm(&mut self.caches[*cache], rows, &self.pages, *eps)?;
                    }
                    Op::Attention { heads, cache, scale, mask, temperature } => {
                        let cache = &self.caches[*cache];
                        let scales = |pos| f64::from(*scale) * temperature.map_or(1.0, |t| t.at(pos));
                        self.attention = ops::attention(&self.q, cache, rows, &self.pages, *heads, scales, *mask)?;
                    }
                    Op::OResidual { o: linear } => {
                        let y = self.linear(*linear, &self.attention)?;
                        ops::add(&mut self.x, &y);
                    }
                    Op::GateUpSilu { norm, gate, up } => {
                        let input = self.norm(*norm, &self.x)?;
                        let gate = self.linear(*gate, &input)?;
                        let up = self.linear(*up, &input)?;
                        self.ffn = ops::silu_mul(&gate, &up);
                    }
                    Op::DownResidual { down: linear } => {
                        let y = self.linear(*linear, &self.ffn)?;
                        ops::add(&mut self.x, &y);
                    }
                    Op::MoeRoute { norm, router, experts } => {
                        let logits = ops::linear(&self.matrix(*router), None, &self.norm(*norm, &self.x)?)?;
                        route(&logits, *experts, &mut self.routes);
                    }
                    Op::MoeGateUpSilu { norm, gate, up, experts } => {
                        let input = self.norm(*norm, &self.x)?;
                        let used = experts.used as usize;
                        self.expert_ffn.clear();
                        for (i, (expert, weight)) in self.routes.iter().enumerate() {
                            let x = &input[i / used * hidden..][..hidden];
                            let weight = if experts.gating == Gating::Sigmoid { *weight } else { 1.0 };
                            let [gate, up] = [gate, up].map(|id| {
                                let mut y = ops::linear(&self.matrix(*id).expert(*expert, experts.count), None, x)?;
                                y.iter_mut().for_each(|y| *y *= weight);
                                Ok::<_, Error>(y)
                            });
                            self.expert_ffn.extend(ops::silu_mul(&gate?, &up?));
                        }
                    }
                    Op::MoeDownResidual { down, experts } => {
                        let down = self.matrix(*down);
                        let mut sums = vec![0.0; self.x.len()];
                        for (i, (expert, weight)) in self.routes.iter().enumerate() {
                            let f = &self.expert_ffn[i * down.cols..][..down.cols];
                            let y = ops::linear(&down.expert(*expert, experts.count), None, f)?;
                            let weight = if experts.gating == Gating::Softmax { *weight } else { 1.0 };
                            let row = &mut sums[i / experts.used as usize * hidden..][..hidden];
                            row.iter_mut().zip(y).for_each(|(sum, y)| *sum += weight * y);
                        }
                        ops::add(&mut self.x, &sums);
                    }
                    Op::LmHead { norm, weight } => {
                        if want == Want::Nothing {
                            break;
                        }
                        let picked: Vec<f32> = heads
                            .iter()
                            .flat_map(|h| self.x[*h as usize * hidden..][..hidden].iter().copied())
                            .collect();
                        let input = self.norm(*norm, &picked)?;
                        self.logits = ops::linear(&self.matrix(*weight), None, &input)?;
                        output = Output::Logits(Vec::new());
                    }
                    Op::Sample => {
                        if want != Want::Ids {
                            continue;
                        }
                        let vocab = self.plan.vocab_size as usize;
                        let mut ids = Vec::with_capacity(heads.len());
                        let mut next = Vec::with_capacity(heads.len());
                        for (logits, head) in self.logits.chunks_exact(vocab).zip(heads) {
                            let row = rows[*head as usize];
                            let token = self.sampler.draw(logits, &mut self.sampling[row.seq as usize], row.pos);
                            ids.push(token);
                            next.push(Row { token, seq: row.seq, pos: row.pos + 1 });
                        }
                        self.next = next;
                        output = Output::Ids(ids);
                    }
                }
            }
            Ok(output)
        };
        let result = run();
        self.plan.ops = ops;
        match result? {
            Output::Logits(_) => Ok(Output::Logits(self.logits.clone())),
            other => Ok(other),
        }
    }
}

impl Executor for ReferenceExecutor {
    fn info(&self) -> ExecutorInfo {
        ExecutorInfo {
            kind: "reference".into(),
            name: "scalar reference, one thread".into(),
            software: true,
            weight_bytes: self.plan.weight_bytes(),
            cache_bytes: self.caches.iter().map(Cache::bytes).sum(),
            cache_type: "f32".into(),
            ..ExecutorInfo::default()
        }
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn load_rows(&mut self, tensor: TensorId, first_row: u64, bytes: &[u8]) -> Result<()> {
        let at = first_row * self.plan.tensor(tensor).row_bytes();
        let target = usize::try_from(at)
            .ok()
            .and_then(|at| self.tensors[tensor.0].get_mut(at..at.checked_add(bytes.len())?))
            .ok_or_else(|| Error::internal("rows beyond the tensor"))?;
        target.copy_from_slice(bytes);
        Ok(())
    }

    fn flush_loads(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn set_pages(&mut self, seq: u32, pages: &[u32]) -> Result<()> {
        self.pages[seq as usize] = pages.to_vec();
        Ok(())
    }

    fn set_sampling(&mut self, seq: u32, sampling: &Sampling, history: History<'_>) -> Result<()> {
        self.sampling[seq as usize] = SequenceSampling::new(sampling, self.plan.vocab_size, history)?;
        Ok(())
    }

    fn submit(&mut self, step: Step<'_>) -> Result<Pending> {
        let output = match step {
            Step::Rows { rows, heads, want } => self.forward(rows, heads, want)?,
            Step::Next => {
                let rows = std::mem::take(&mut self.next);
                if rows.is_empty() {
                    return Err(Error::internal("no sampled tokens to go on from"));
                }
                let heads: Vec<u32> = (0..rows.len() as u32).collect();
                self.forward(&rows, &heads, Want::Ids)?
            }
        };
        Ok(Box::pin(std::future::ready(Ok(output))))
    }
}

impl Inspect for ReferenceExecutor {
    fn poke(&mut self, activation: Activation, values: &[f32], _norm: Option<TensorId>) -> Result<()> {
        *self.activation(activation) = values.to_vec();
        Ok(())
    }

    fn peek(&mut self, activation: Activation, _rows: usize) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let values = self.activation(activation).clone();
        Box::pin(std::future::ready(Ok(values)))
    }

    fn peek_cache(&mut self, cache: usize, page: u32, which: u32) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let values = self.caches[cache].page(page, which);
        Box::pin(std::future::ready(Ok(values)))
    }
}

impl ReferenceExecutor {
    fn activation(&mut self, activation: Activation) -> &mut Vec<f32> {
        match activation {
            Activation::Residual => &mut self.x,
            Activation::Query => &mut self.q,
            Activation::Attention => &mut self.attention,
            Activation::FeedForward => &mut self.ffn,
            Activation::Logits => &mut self.logits,
        }
    }
}
