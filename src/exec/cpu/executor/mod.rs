//! Weights, cache and buffers of a plan, and what its operations share. Weights, caches and buffers are made once; a step allocates
//! what it returns and short lists.

mod operations;

use super::attention::{self, Attention, Cache, PAGE};
use super::input::{Input, Needs};
use super::matmul::{self, Matrix};
use super::ops;
use super::pool::Pool;
use super::simd::RELAXED;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::host::{self, Host, HostExecutor, Table};
use crate::exec::{Executor, ExecutorInfo, Inspect, Limits, LocalBoxFuture, Pending, Step};
use crate::plan::{
    self, AttentionSpec, Experts, Gating, Heads, History, Input as PlanInput, Linear, Op, Plan,
    Role, Row, Sampling, TensorId, TokenMask, route,
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

impl std::fmt::Debug for CpuOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuOptions")
            .field("threads", &self.pool.as_ref().map_or(1, Pool::threads))
            .field("cache_f16", &self.cache_f16)
            .field("max_rows", &self.max_rows)
            .finish()
    }
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
    host: Host,
    cache_f16: bool,
    pool: Pool,
    weights: Vec<Weight>,
    caches: Vec<Cache>,
    scratch: Vec<Mutex<Scratch>>,
    work: Work,
}

impl std::fmt::Debug for CpuExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuExecutor").finish_non_exhaustive()
    }
}

/// Room that operations share: nothing in it outlives one.
#[derive(Default)]
struct Work {
    /// What matrices are multiplied with.
    input: Input,
    /// What is made into an activation, or added to the residual stream.
    product: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Rows of one expert, as indices into the routes.
    expert_rows: Vec<usize>,
    /// Gates of one expert's rows.
    gates: Vec<f32>,
    /// `[cos, sin]` of each rope, row and pair of the step.
    angles: Vec<Vec<[f32; 2]>>,
    /// Runs of rows of one sequence, at most [`attention::ROWS`] each, of the step.
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
    fn new(matrix: &'a Matrix, index: usize, rows: usize, out: &mut Vec<f32>) -> Self {
        out.resize(rows * matrix.rows, 0.0);
        Product {
            matrix,
            index,
            out: Shared(out.as_mut_ptr()),
            stride: matrix.rows,
        }
    }
}

/// How a tensor is used: decides how it is kept.
#[derive(Copy, Clone, PartialEq)]
enum Use {
    Vector,
    Table,
    Matrix { stack: u64 },
}

fn uses(plan: &Plan) -> Vec<Use> {
    let mut uses = vec![Use::Vector; plan.tensors.len()];
    let mut matrix = |id: TensorId, stack: u32| {
        uses[id.0] = Use::Matrix {
            stack: u64::from(stack),
        }
    };
    for op in &plan.ops {
        match op {
            Op::QkvRope { q, k, v, .. } => [q, k, v].iter().for_each(|l| matrix(l.weight, 1)),
            Op::Residual { linear, .. } => matrix(linear.weight, 1),
            Op::GateUpSilu { gate, up, .. } => [gate, up].iter().for_each(|l| matrix(l.weight, 1)),
            Op::Linears { linears, .. } => linears.iter().for_each(|(l, _)| matrix(l.weight, 1)),
            Op::MoeRoute { router, .. } => matrix(*router, 1),
            Op::MoeGateUpSilu {
                gate, up, experts, ..
            } => [gate, up].iter().for_each(|id| matrix(**id, experts.count)),
            Op::MoeDownResidual { down, experts, .. } => matrix(*down, experts.count),
            Op::LmHead { weight, .. } => matrix(*weight, 1),
            _ => {}
        }
    }
    for op in &plan.ops {
        if let Op::Embed { table, .. } = op
            && uses[table.0] == Use::Vector
        {
            uses[table.0] = Use::Table;
        }
    }
    uses
}

impl CpuExecutor {
    /// Bytes of weights and cache for contexts of `context` positions. `None` on overflow.
    pub fn size(plan: &Plan, context: u32, cache_f16: bool) -> Option<(u64, u64)> {
        let limits = Limits::for_context(context, 1, 1);
        let mut weights = 0_u64;
        for (spec, used) in plan.tensors.iter().zip(uses(plan)) {
            weights = weights.checked_add(match used {
                Use::Vector => spec.rows.checked_mul(spec.cols)?.checked_mul(4)?,
                Use::Table => spec.bytes(),
                Use::Matrix { stack } => {
                    Matrix::size(spec.dtype, stack, spec.rows / stack.max(1), spec.cols)?
                }
            })?;
        }
        let cache = plan
            .caches
            .iter()
            .map(|spec| Cache::size(*spec, limits.num_pages, cache_f16))
            .sum();
        Some((weights, cache))
    }

    /// Allocates everything for contexts of `context` positions. Weights come after.
    ///
    /// # Errors
    /// `ModelTooLarge` where there is no memory for it; in a browser before anything is fetched.
    pub fn new(plan: Plan, context: u32, options: CpuOptions) -> Result<Self> {
        let cache_f16 = options.cache_f16.unwrap_or(true);
        let limits = Limits::for_context(context, options.max_rows.unwrap_or(MAX_ROWS), 1);
        if limits.page_size as usize != PAGE {
            return Err(Error::internal(format!(
                "pages of {} positions",
                limits.page_size
            )));
        }
        let (weights, cache) = Self::size(&plan, context, cache_f16).unwrap_or((u64::MAX, 0));
        check_memory(weights, cache)?;
        let weights = plan.tensors.iter().zip(uses(&plan)).map(|(spec, used)| {
            Ok(match used {
                Use::Vector => Weight::Vector(vec![0.0; (spec.rows * spec.cols) as usize]),
                Use::Table => Weight::Table(vec![0; spec.bytes() as usize]),
                Use::Matrix { stack } => {
                    if !spec.rows.is_multiple_of(stack) {
                        return Err(Error::internal(format!(
                            "{}: {} rows of {stack} experts",
                            spec.name, spec.rows
                        )));
                    }
                    Weight::Matrix(Matrix::new(
                        spec.dtype,
                        stack,
                        spec.rows / stack,
                        spec.cols,
                    )?)
                }
            })
        });
        let weights = weights.collect::<Result<Vec<_>>>()?;
        let caches = plan
            .caches
            .iter()
            .map(|spec| Cache::new(*spec, limits.num_pages, cache_f16));
        Ok(Self {
            weights,
            caches: caches.collect::<Result<Vec<_>>>()?,
            scratch: Vec::new(),
            work: Work {
                angles: vec![Vec::new(); plan.ropes.len()],
                ..Work::default()
            },
            host: Host::new(Rc::new(plan), limits)?,
            cache_f16,
            pool: options.pool.unwrap_or_default(),
        })
    }

    fn matrix(&self, id: TensorId) -> Result<&Matrix> {
        match &self.weights[id.0] {
            Weight::Matrix(matrix) => Ok(matrix),
            _ => Err(Error::internal(format!(
                "{} is no matrix",
                self.host.plan.tensor(id).name
            ))),
        }
    }

    fn weights(&self, id: TensorId) -> Result<&[f32]> {
        vector_of(&self.weights, id)
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
        let grain = if self.scratch.len() == 1 {
            count.max(1)
        } else {
            grain.max(1)
        };
        let scratch = &self.scratch;
        let whole = self
            .pool
            .run(count.div_ceil(grain), scratch.len(), &|task, thread| {
                let mut scratch = scratch[thread]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                work(task * grain..((task + 1) * grain).min(count), &mut scratch);
            });
        if whole {
            Ok(())
        } else {
            Err(Error::internal(
                "a thread of the engine has died; load the model again",
            ))
        }
    }

    /// Multiplies the input with matrices, their rows shared among the threads.
    fn multiply(&self, input: &Input, products: &[Product<'_>]) -> Result<()> {
        let total: usize = products.iter().map(|p| p.matrix.bands()).sum();
        self.fork(
            total,
            total.div_ceil(4 * self.scratch.len()),
            &|range, scratch| {
                let mut first = 0;
                for product in products {
                    let bands = product.matrix.bands();
                    let (from, to) = (range.start.max(first), range.end.min(first + bands));
                    if from < to {
                        let range = from - first..to - first;
                        let out = product.out.get();
                        // SAFETY: `out` has room, and each band is in one range.
                        unsafe {
                            product.matrix.multiply(
                                product.index,
                                range,
                                input,
                                out,
                                product.stride,
                                &mut scratch.matmul,
                            );
                        }
                    }
                    first += bands;
                }
            },
        )
    }

    /// Rows of a value, normalised where the operation says so, as the input of matrices.
    fn read(
        &self,
        work: &mut Input,
        input: PlanInput,
        x: &[f32],
        needs: Needs,
        rows: &(dyn Fn(usize) -> usize + Sync),
        count: usize,
    ) -> Result<()> {
        let hidden = self.host.plan.hidden_size as usize;
        let norm = input
            .norm
            .map(|norm| Ok::<_, Error>((self.weights(norm.weight)?, norm.eps)))
            .transpose()?;
        self.set_input(work, count, hidden, needs, &|t, row| {
            let x = &x[rows(t) * hidden..][..hidden];
            match norm {
                Some((weight, eps)) => ops::rms_norm(x, weight, eps, row),
                None => {
                    row.clear();
                    row.extend_from_slice(x);
                }
            }
        })
    }

    fn add_bias(&self, linear: &Linear, y: &mut [f32]) -> Result<()> {
        if let Some(bias) = linear.bias {
            let bias = self.weights(bias)?;
            y.chunks_exact_mut(bias.len())
                .for_each(|y| ops::add(y, bias));
        }
        Ok(())
    }
}

impl HostExecutor for CpuExecutor {
    fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    fn begin(&mut self, rows: &[Row]) -> Result<()> {
        if !self.caches.is_empty() {
            for row in rows {
                self.host.page(*row, PAGE)?;
            }
        }
        self.scratch
            .resize_with(self.pool.threads(), Mutex::default);
        let Work { angles, runs, .. } = &mut self.work;
        for (rope, angles) in self.host.plan.ropes.iter().zip(angles) {
            angles.clear();
            rows.iter()
                .for_each(|row| ops::rope_angles(rope, row.pos, angles));
        }
        runs.clear();
        for (t, row) in rows.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if rows[run.start].seq == row.seq && run.len() < attention::ROWS => {
                    run.end = t + 1;
                }
                _ => runs.push(t..t + 1),
            }
        }
        Ok(())
    }

    fn run(&mut self, op: &Op, table: &mut Table, rows: &[Row], heads: &[u32]) -> Result<()> {
        let mut work = std::mem::take(&mut self.work);
        let result = self.operation(op, table, rows, heads, &mut work);
        self.work = work;
        result
    }

    fn vector(&self, id: TensorId) -> Result<Vec<f32>> {
        self.weights(id).map(<[f32]>::to_vec)
    }

    fn cached(
        &self,
        cache: usize,
        which: usize,
        kv_head: usize,
        row: Row,
        out: &mut [f32],
    ) -> Result<()> {
        let page = self.host.page(row, PAGE)?;
        self.caches[cache].get(page, which, kv_head, row.pos as usize % PAGE, out);
        Ok(())
    }
}

/// The vector with this id.
fn vector_of(weights: &[Weight], id: TensorId) -> Result<&[f32]> {
    match &weights[id.0] {
        Weight::Vector(vector) => Ok(vector),
        _ => Err(Error::internal(format!("tensor {} is no vector", id.0))),
    }
}

/// An error with the numbers where a 32-bit program has no room.
fn check_memory(weights: u64, cache: u64) -> Result<()> {
    let most = if usize::BITS == 32 {
        (1_u64 << 32) - RESERVE
    } else {
        u64::MAX
    };
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
                if weights < most {
                    ", or a smaller max_context"
                } else {
                    ""
                }
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
            name: if threads == 1 {
                "one thread".into()
            } else {
                format!("{threads} threads")
            },
            features,
            weight_bytes: self.weights.iter().map(weight).sum::<usize>() as u64,
            cache_bytes: self.caches.iter().map(Cache::bytes).sum::<usize>() as u64,
            cache_type: if self.cache_f16 { "f16" } else { "f32" }.into(),
            ..ExecutorInfo::default()
        }
    }

    fn limits(&self) -> Limits {
        self.host.limits
    }

    fn load_rows(&mut self, tensor: TensorId, first_row: u64, bytes: &[u8]) -> Result<()> {
        let spec = self.host.plan.tensor(tensor);
        let row_bytes = spec.row_bytes() as usize;
        if row_bytes == 0 || !bytes.len().is_multiple_of(row_bytes) {
            return Err(Error::internal(format!(
                "{} bytes are not whole rows of {row_bytes}",
                bytes.len()
            )));
        }
        let rows = (bytes.len() / row_bytes) as u64;
        if first_row
            .checked_add(rows)
            .is_none_or(|end| end > spec.rows)
        {
            return Err(Error::internal("rows beyond the tensor"));
        }
        match &mut self.weights[tensor.0] {
            Weight::Vector(vector) => {
                let cols = spec.cols as usize;
                let at = first_row as usize * cols;
                spec.dtype
                    .dequantize(bytes, &mut vector[at..at + rows as usize * cols])
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
        self.host.set_pages(seq, pages)
    }

    fn set_sampling(&mut self, seq: u32, sampling: &Sampling, history: History<'_>) -> Result<()> {
        self.host.set_sampling(seq, sampling, history)
    }

    fn set_mask(&mut self, seq: u32, mask: &TokenMask) -> Result<()> {
        self.host.set_mask(seq, mask)
    }

    fn submit(&mut self, step: Step<'_>) -> Result<Pending> {
        host::submit(self, step)
    }
}

impl Inspect for CpuExecutor {
    fn poke(&mut self, role: Role, values: &[f32], _norm: Option<TensorId>) -> Result<()> {
        self.host.poke(role, values)
    }

    fn peek(&mut self, role: Role, _rows: usize) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        Box::pin(std::future::ready(self.host.peek(role)))
    }

    fn peek_cache(
        &mut self,
        cache: usize,
        page: u32,
        which: u32,
    ) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let spec = self.host.plan.caches[cache];
        let d = spec.head_dim as usize;
        let mut out = vec![0.0; spec.kv_heads as usize * PAGE * d];
        for (i, out) in out.chunks_exact_mut(d).enumerate() {
            self.caches[cache].get(page, which as usize, i / PAGE, i % PAGE, out);
        }
        Box::pin(std::future::ready(Ok(out)))
    }
}

/// Whether activations are rounded, to 16 bits, for matrices of this type.
pub fn rounds_activations(dtype: DType) -> bool {
    !matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}
