//! Weights, cache and buffers of a plan, and what its operations share. Everything is made once; a step allocates nothing
//! but what it returns.

mod operations;

use super::attention::{self, Attention, Cache, PAGE};
use super::input::{Input, Needs};
use super::matmul::{self, Matrix};
use super::ops;
use super::pool::Pool;
use super::simd::RELAXED;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{
    Activation, Executor, ExecutorInfo, Experts, Gating, Heads, History, Inspect, Limits, Linear, LocalBoxFuture, Mask,
    Norm, Op, Output, Pending, Plan, Row, Sampler, Sampling, SequenceSampling, Step, Temperature, TensorId, Want,
    route,
};
use crate::quant::DType;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

/// Rows per step: long enough to read the weights seldom, short enough that a caller who cancels does not wait.
const MAX_ROWS: u32 = 64;
/// What else a 32-bit program keeps in memory: itself, the vocabulary, pieces on their way in, buffers.
const RESERVE: u64 = 160 << 20;

/// Choices that callers may make.
#[derive(Default)]
pub struct CpuOptions {
    /// Who shares the work; `None`: the calling thread alone.
    pub pool: Option<Pool>,
    /// Keep keys and values as f16 (default) or f32.
    pub cache_f16: Option<bool>,
    /// Rows per step.
    pub max_rows: Option<u32>,
}

/// A tensor of the plan.
enum Weight {
    /// A norm's weight or a bias.
    Vector(Vec<f32>),
    /// What activations are multiplied with.
    Matrix(Matrix),
    /// A table whose rows are looked up and nothing else: as it is stored.
    Table(Vec<u8>),
}

/// What one thread needs for itself.
#[derive(Default)]
struct Scratch {
    row: Vec<f32>,
    matmul: matmul::Scratch,
    attention: attention::Scratch,
}

/// Runs a plan on the processor with SIMD kernels, on one thread or several.
pub struct CpuExecutor {
    plan: Rc<Plan>,
    limits: Limits,
    cache_f16: bool,
    pool: Pool,
    weights: Vec<Weight>,
    caches: Vec<Cache>,
    /// Cache pages of each sequence.
    pages: Vec<Vec<u32>>,
    sampling: Vec<SequenceSampling>,
    sampler: Sampler,
    /// Rows that [`Step::Next`] runs.
    next: Vec<Row>,
    scratch: Vec<Mutex<Scratch>>,
    input: Input,
    x: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attention: Vec<f32>,
    /// What the next operation makes into `ffn` or adds to `x`.
    product: Vec<f32>,
    ffn: Vec<f32>,
    /// Experts of each row and their weights, `[T, used]`.
    routes: Vec<(u32, f32)>,
    /// Rows of one expert, as indices into `routes`.
    expert_rows: Vec<usize>,
    /// `[T, used, F]`
    expert_ffn: Vec<f32>,
    /// Gates of one expert's rows.
    expert_gates: Vec<f32>,
    logits: Vec<f32>,
    /// `[cos, sin]` of each rope, row and pair.
    angles: Vec<Vec<[f32; 2]>>,
    /// Runs of rows of one sequence, at most [`attention::ROWS`] each.
    runs: Vec<std::ops::Range<usize>>,
}

/// A pointer that threads may share: they write different parts.
#[derive(Copy, Clone)]
struct Shared(*mut f32);
// SAFETY: as said.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}
impl Shared {
    fn get(self) -> *mut f32 {
        self.0
    }
}

/// One matrix of a product: which of the stacked ones, and where its results go.
struct Product<'a> {
    matrix: &'a Matrix,
    index: usize,
    out: Shared,
    stride: usize,
}

impl<'a> Product<'a> {
    /// Makes `out` `[rows, matrix.rows]`.
    fn new(matrix: &'a Matrix, index: usize, rows: usize, out: &mut Vec<f32>) -> Product<'a> {
        out.resize(rows * matrix.rows, 0.0);
        Product { matrix, index, out: Shared(out.as_mut_ptr()), stride: matrix.rows }
    }
}

/// How a tensor is used: decides how it is kept.
#[derive(Copy, Clone, PartialEq)]
enum Role {
    Vector,
    Table,
    Matrix { stack: u64 },
}

fn roles(plan: &Plan) -> Vec<Role> {
    let mut roles = vec![Role::Vector; plan.tensors.len()];
    let mut matrix = |id: TensorId, stack: u32| roles[id.0] = Role::Matrix { stack: u64::from(stack) };
    for op in &plan.ops {
        match op {
            Op::QkvRope { q, k, v, .. } => [q, k, v].iter().for_each(|l| matrix(l.weight, 1)),
            Op::OResidual { o } => matrix(o.weight, 1),
            Op::GateUpSilu { gate, up, .. } => [gate, up].iter().for_each(|l| matrix(l.weight, 1)),
            Op::DownResidual { down } => matrix(down.weight, 1),
            Op::MoeRoute { router, .. } => matrix(*router, 1),
            Op::MoeGateUpSilu { gate, up, experts, .. } => [gate, up].iter().for_each(|id| matrix(**id, experts.count)),
            Op::MoeDownResidual { down, experts } => matrix(*down, experts.count),
            Op::LmHead { weight, .. } => matrix(*weight, 1),
            Op::Embed { .. } | Op::QkNorm { .. } | Op::Attention { .. } | Op::Sample => {}
        }
    }
    for op in &plan.ops {
        if let Op::Embed { table } = op
            && roles[table.0] == Role::Vector
        {
            roles[table.0] = Role::Table;
        }
    }
    roles
}

impl CpuExecutor {
    /// Bytes of weights and cache for contexts of `context` positions. `None` on overflow.
    pub fn size(plan: &Plan, context: u32, cache_f16: bool) -> Option<(u64, u64)> {
        let limits = Limits::for_context(context, 1, 1);
        let mut weights = 0u64;
        for (spec, role) in plan.tensors.iter().zip(roles(plan)) {
            weights = weights.checked_add(match role {
                Role::Vector => spec.rows.checked_mul(spec.cols)?.checked_mul(4)?,
                Role::Table => spec.bytes(),
                Role::Matrix { stack } => Matrix::size(spec.dtype, stack, spec.rows / stack.max(1), spec.cols)?,
            })?;
        }
        let cache = plan.caches.iter().map(|spec| Cache::size(*spec, limits.num_pages, cache_f16)).sum();
        Some((weights, cache))
    }

    /// Allocates everything for contexts of `context` positions. Weights come after.
    ///
    /// # Errors
    /// `ModelTooLarge` where there is no memory for it; in a browser before anything is fetched.
    pub fn new(plan: Plan, context: u32, options: CpuOptions) -> Result<CpuExecutor> {
        let cache_f16 = options.cache_f16.unwrap_or(true);
        let limits = Limits::for_context(context, options.max_rows.unwrap_or(MAX_ROWS), 1);
        if limits.page_size as usize != PAGE {
            return Err(Error::internal(format!("pages of {} positions", limits.page_size)));
        }
        let (weights, cache) = CpuExecutor::size(&plan, context, cache_f16).unwrap_or((u64::MAX, 0));
        check_memory(weights, cache)?;
        let weights = plan.tensors.iter().zip(roles(&plan)).map(|(spec, role)| {
            Ok(match role {
                Role::Vector => Weight::Vector(vec![0.0; (spec.rows * spec.cols) as usize]),
                Role::Table => Weight::Table(vec![0; spec.bytes() as usize]),
                Role::Matrix { stack } => {
                    if !spec.rows.is_multiple_of(stack) {
                        return Err(Error::internal(format!("{}: {} rows of {stack} experts", spec.name, spec.rows)));
                    }
                    Weight::Matrix(Matrix::new(spec.dtype, stack, spec.rows / stack, spec.cols)?)
                }
            })
        });
        let weights = weights.collect::<Result<Vec<_>>>()?;
        let caches = plan.caches.iter().map(|spec| Cache::new(*spec, limits.num_pages, cache_f16));
        Ok(CpuExecutor {
            weights,
            caches: caches.collect::<Result<Vec<_>>>()?,
            pages: vec![Vec::new(); limits.max_seqs as usize],
            sampling: vec![SequenceSampling::greedy(); limits.max_seqs as usize],
            sampler: Sampler::default(),
            next: Vec::new(),
            scratch: Vec::new(),
            input: Input::default(),
            x: Vec::new(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
            attention: Vec::new(),
            product: Vec::new(),
            ffn: Vec::new(),
            routes: Vec::new(),
            expert_rows: Vec::new(),
            expert_ffn: Vec::new(),
            expert_gates: Vec::new(),
            logits: Vec::new(),
            angles: vec![Vec::new(); plan.ropes.len()],
            runs: Vec::new(),
            plan: Rc::new(plan),
            limits,
            cache_f16,
            pool: options.pool.unwrap_or_default(),
        })
    }

    fn matrix(&self, id: TensorId) -> Result<&Matrix> {
        match &self.weights[id.0] {
            Weight::Matrix(matrix) => Ok(matrix),
            _ => Err(Error::internal(format!("{} is no matrix", self.plan.tensor(id).name))),
        }
    }

    fn vector(&self, id: TensorId) -> Result<&[f32]> {
        match &self.weights[id.0] {
            Weight::Vector(vector) => Ok(vector),
            _ => Err(Error::internal(format!("{} is no vector", self.plan.tensor(id).name))),
        }
    }

    /// Fills the input with `rows` rows that `get` writes, each row by one thread.
    fn set_input(
        &self,
        input: &mut Input,
        rows: usize,
        cols: usize,
        needs: Needs,
        get: &(dyn Fn(usize, &mut Vec<f32>) + Sync),
    ) -> Result<()> {
        input.begin(rows, cols, needs);
        let input = &*input;
        self.fork(rows, 8, &|range, scratch| {
            for t in range {
                get(t, &mut scratch.row);
                // SAFETY: each row is set once.
                unsafe { input.set(t, &scratch.row, needs) };
            }
        })
    }

    /// Runs `work` on ranges of about `grain` of `count` things.
    fn fork(
        &self,
        count: usize,
        grain: usize,
        work: &(dyn Fn(std::ops::Range<usize>, &mut Scratch) + Sync),
    ) -> Result<()> {
        let grain = if self.scratch.len() == 1 { count.max(1) } else { grain.max(1) };
        let scratch = &self.scratch;
        let whole = self.pool.run(count.div_ceil(grain), scratch.len(), &|task, thread| {
            let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
            work(task * grain..((task + 1) * grain).min(count), &mut scratch);
        });
        if whole { Ok(()) } else { Err(Error::internal("a thread of the engine has died; load the model again")) }
    }

    /// Multiplies the input with matrices, their rows shared among the threads.
    fn multiply(&self, input: &Input, products: &[Product<'_>]) -> Result<()> {
        let total: usize = products.iter().map(|p| p.matrix.bands()).sum();
        self.fork(total, total.div_ceil(4 * self.scratch.len()), &|range, scratch| {
            let mut first = 0;
            for product in products {
                let bands = product.matrix.bands();
                let (from, to) = (range.start.max(first), range.end.min(first + bands));
                if from < to {
                    let range = from - first..to - first;
                    let out = product.out.get();
                    // SAFETY: `out` has room, and each band is in one range.
                    unsafe {
                        product.matrix.multiply(product.index, range, input, out, product.stride, &mut scratch.matmul);
                    }
                }
                first += bands;
            }
        })
    }

    /// Rows of the residual stream, normalised, as the input of matrices.
    fn norm_input(
        &self,
        input: &mut Input,
        norm: &Norm,
        needs: Needs,
        rows: &(dyn Fn(usize) -> usize + Sync),
        count: usize,
    ) -> Result<()> {
        let (weight, hidden) = (self.vector(norm.weight)?, self.plan.hidden_size as usize);
        let x = &self.x;
        self.set_input(input, count, hidden, needs, &|t, row| {
            ops::rms_norm(&x[rows(t) * hidden..][..hidden], weight, norm.eps, row);
        })
    }

    fn add_bias(&self, linear: &Linear, y: &mut [f32]) -> Result<()> {
        if let Some(bias) = linear.bias {
            let bias = self.vector(bias)?;
            y.chunks_exact_mut(bias.len()).for_each(|y| ops::add(y, bias));
        }
        Ok(())
    }

    /// What all operations of a step share.
    fn begin(&mut self, rows: &[Row]) -> Result<()> {
        for row in rows {
            let pages = self.pages.get(row.seq as usize).map_or(0, Vec::len);
            if row.pos as usize / PAGE >= pages && !self.caches.is_empty() {
                return Err(Error::internal(format!("position {} has no cache page", row.pos)));
            }
        }
        let threads = self.pool.threads();
        self.scratch.resize_with(threads, Mutex::default);
        for (rope, angles) in self.plan.ropes.iter().zip(&mut self.angles) {
            angles.clear();
            rows.iter().for_each(|row| ops::rope_angles(rope, row.pos, angles));
        }
        self.runs.clear();
        for (t, row) in rows.iter().enumerate() {
            match self.runs.last_mut() {
                Some(run) if rows[run.start].seq == row.seq && run.len() < attention::ROWS => run.end = t + 1,
                _ => self.runs.push(t..t + 1),
            }
        }
        Ok(())
    }

    fn forward(&mut self, rows: &[Row], heads: &[u32], want: Want) -> Result<Output> {
        self.begin(rows)?;
        let plan = self.plan.clone();
        let mut output = Output::Nothing;
        for op in &plan.ops {
            match op {
                Op::Embed { table } => self.embed(*table, rows)?,
                Op::QkvRope { norm, q, k, v, heads, rope, cache } => {
                    self.qkv_rope(norm, [q, k, v], *heads, *rope, *cache, rows)?;
                }
                Op::QkNorm { heads, cache, eps } => self.qk_norm(*heads, *cache, *eps, rows),
                Op::Attention { heads, cache, scale, mask, temperature } => {
                    self.attention(*heads, *cache, *scale, *mask, *temperature, rows)?;
                }
                Op::OResidual { o } => self.residual(o, rows.len(), true)?,
                Op::GateUpSilu { norm, gate, up } => self.gate_up_silu(norm, gate, up, rows.len())?,
                Op::DownResidual { down } => self.residual(down, rows.len(), false)?,
                Op::MoeRoute { norm, router, experts } => self.moe_route(norm, *router, *experts, rows.len())?,
                Op::MoeGateUpSilu { norm, gate, up, experts } => {
                    self.moe_gate_up_silu(norm, *gate, *up, *experts, rows.len())?;
                }
                Op::MoeDownResidual { down, experts } => self.moe_down_residual(*down, *experts)?,
                Op::LmHead { norm, weight } => {
                    if want == Want::Nothing {
                        break;
                    }
                    self.lm_head(norm, *weight, heads)?;
                    if want == Want::Logits {
                        output = Output::Logits(self.logits.clone());
                    }
                }
                Op::Sample => {
                    if want == Want::Ids {
                        output = Output::Ids(self.sample(rows, heads));
                    }
                }
            }
        }
        Ok(output)
    }
}

/// An error with the numbers where a 32-bit program has no room.
fn check_memory(weights: u64, cache: u64) -> Result<()> {
    let most = if usize::BITS == 32 { (1u64 << 32) - RESERVE } else { u64::MAX };
    match weights.checked_add(cache) {
        Some(need) if need <= most => Ok(()),
        _ => Err(Error::new(
            ErrorKind::ModelTooLarge,
            format!(
                "the model needs {} MB for weights and {} MB for the cache of its context; without a GPU there is room for \
                 {} MB: use a smaller model{}",
                weights >> 20,
                cache >> 20,
                most >> 20,
                if weights < most { ", or a smaller max_context" } else { "" }
            ),
        )),
    }
}

impl Executor for CpuExecutor {
    fn info(&self) -> ExecutorInfo {
        let threads = self.pool.threads();
        let simd = cfg!(all(target_arch = "wasm32", target_feature = "simd128"));
        let mut features = Vec::new();
        if simd {
            features.push("simd128".to_owned());
        }
        if RELAXED {
            features.push("relaxed-simd".to_owned());
        }
        if cfg!(all(target_arch = "wasm32", target_feature = "atomics")) {
            features.push("threads".to_owned());
        }
        let weight = |w: &Weight| match w {
            Weight::Vector(v) => v.len() * 4,
            Weight::Matrix(m) => m.bytes(),
            Weight::Table(t) => t.len(),
        };
        ExecutorInfo {
            kind: "cpu".into(),
            name: if threads == 1 { "one thread".into() } else { format!("{threads} threads") },
            features,
            weight_bytes: self.weights.iter().map(weight).sum::<usize>() as u64,
            cache_bytes: self.caches.iter().map(Cache::bytes).sum::<usize>() as u64,
            cache_type: if self.cache_f16 { "f16" } else { "f32" }.into(),
            ..ExecutorInfo::default()
        }
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn load_rows(&mut self, tensor: TensorId, first_row: u64, bytes: &[u8]) -> Result<()> {
        let spec = self.plan.tensor(tensor);
        let row_bytes = spec.row_bytes() as usize;
        if row_bytes == 0 || !bytes.len().is_multiple_of(row_bytes) {
            return Err(Error::internal(format!("{} bytes are not whole rows of {row_bytes}", bytes.len())));
        }
        let rows = (bytes.len() / row_bytes) as u64;
        if first_row.checked_add(rows).is_none_or(|end| end > spec.rows) {
            return Err(Error::internal("rows beyond the tensor"));
        }
        match &mut self.weights[tensor.0] {
            Weight::Vector(vector) => {
                let cols = spec.cols as usize;
                let at = first_row as usize * cols;
                spec.dtype.dequantize(bytes, &mut vector[at..at + rows as usize * cols])
            }
            Weight::Table(table) => {
                let at = first_row as usize * row_bytes;
                table[at..at + bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
            Weight::Matrix(matrix) => {
                for (i, row) in bytes.chunks_exact(row_bytes).enumerate() {
                    matrix.set_row(first_row as usize + i, row)?;
                }
                Ok(())
            }
        }
    }

    fn flush_loads(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn set_pages(&mut self, seq: u32, pages: &[u32]) -> Result<()> {
        let own = &mut self.pages[seq as usize];
        own.clear();
        own.extend_from_slice(pages);
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

impl Inspect for CpuExecutor {
    fn poke(&mut self, activation: Activation, values: &[f32], _norm: Option<TensorId>) -> Result<()> {
        *self.activation(activation) = values.to_vec();
        Ok(())
    }

    fn peek(&mut self, activation: Activation, _rows: usize) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let values = self.activation(activation).clone();
        Box::pin(std::future::ready(Ok(values)))
    }

    fn peek_cache(&mut self, cache: usize, page: u32, which: u32) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let spec = self.plan.caches[cache];
        let d = spec.head_dim as usize;
        let mut out = vec![0.0; spec.kv_heads as usize * PAGE * d];
        for (i, out) in out.chunks_exact_mut(d).enumerate() {
            self.caches[cache].get(page, which as usize, i / PAGE, i % PAGE, out);
        }
        Box::pin(std::future::ready(Ok(out)))
    }
}

impl CpuExecutor {
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

/// Whether activations are rounded, to 16 bits, for matrices of this type.
pub fn rounds_activations(dtype: DType) -> bool {
    !matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}
