//! From a plan to a list of dispatches, as plain data: which kernel variant, which parameters, which buffers, how
//! many workgroups. Needs no device, so what a step costs can be counted (and is asserted) on any machine.

mod attention;
mod experts;
mod fine;
mod matrices;
mod record;
mod settings;
mod trial;

pub use attention::splits;
pub use fine::{LoweredEdit, Stage};
pub use matrices::MatrixPart;
pub use settings::{CacheType, RowBucket, Settings, Trial, Tuning};
pub use trial::TrialPlan;

use super::kernels::{self, Sampling, Variant, scores};
pub use super::state::StateLayout;
use super::state::{AdjustmentLayout, expert_tiles};
use crate::error::{Error, Result};
use crate::exec::PAGE_SIZE;
use crate::plan::{
    BufferId, Heads, Layout, Linear, MAX_EXPERTS, MAX_EXPERTS_USED, Op, Plan, Role, TensorId,
    ValueId,
};
use record::Recorder;
use std::collections::HashMap;

// What the shaders are made for.
const _: () = assert!(
    kernels::attention::PAGE == PAGE_SIZE,
    "positions of a cache page"
);
const _: () = assert!(kernels::route::MAX_EXPERTS == MAX_EXPERTS, "experts");

/// Rows of the largest bucket in which attention is split.
const MAX_SPLIT_ROWS: u64 = 8;

/// A buffer that a dispatch binds.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Buffer {
    /// Quants of a matrix part.
    Weights(usize),
    /// Scales and bias of a matrix part.
    Scales(usize),
    /// A norm weight as f32.
    Norm(TensorId),
    /// cos and sin tables of a rope.
    Rope(usize),
    /// Rows of the step, page tables.
    State,
    /// Sampling settings of each sequence.
    Sampling,
    /// Token counts, masks and biases of each sequence.
    Adjustments,
    /// Values of the plan.
    Value(BufferId),
    /// A residual stream times the next norm's weight.
    Scaled(BufferId),
    /// Partial sums of squares of a residual stream.
    Partials(BufferId),
    /// A key/value cache.
    Cache(usize),
    /// Keys and values of the step's rows, before a `q8_0` cache rounds them.
    CacheRows,
    /// What the workgroups of a split attention found.
    AttentionParts,
    /// What each expert of a row gives.
    ExpertOutput,
    /// Sampled ids.
    Ids,
    /// Products of several matrices, before each has its own value.
    Products,
    /// Rows that an edit changes.
    EditRows(usize),
    /// What it changes them by or to.
    EditValues(usize),
}

/// What the second dimension of the grid counts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Rows of the step, this many per workgroup.
    Tokens(u32),
    /// Rows of the step, this many workgroups for each.
    Times(u32),
    /// Heads of the step, this many per workgroup.
    Heads(u32),
    /// Tiles of rows that use the same expert: how many a row uses, and how many there are.
    ExpertTiles(u32, u32),
    /// This many.
    Exactly(u32),
    /// One.
    One,
}

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Which kernel.
    pub variant: Variant,
    /// Override constants.
    pub constants: Vec<(&'static str, u32)>,
    /// Bytes of `params`.
    pub params: Vec<u8>,
    /// Bindings 1, 2, 3 …
    pub buffers: Vec<Buffer>,
    /// Workgroups in x.
    pub groups: u32,
    /// There are that many for each split of attention.
    pub split: bool,
    /// Workgroups in y.
    pub rows: Rows,
    /// Index of the plan's operation.
    pub op: usize,
}

impl Dispatch {
    /// The grid for a step of `tokens` rows and `heads` heads, attention split into `splits`.
    pub fn grid(&self, tokens: u32, heads: u32, splits: u32) -> (u32, u32) {
        let groups = if self.split {
            self.groups * splits
        } else {
            self.groups
        };
        match self.rows {
            Rows::Tokens(n) => (groups, tokens.div_ceil(n)),
            Rows::Times(n) => (groups, tokens * n),
            Rows::Heads(n) => (groups, heads.div_ceil(n)),
            Rows::ExpertTiles(used, experts) => (groups, expert_tiles(tokens, used, experts)),
            Rows::Exactly(n) => (groups, n),
            Rows::One => (groups, 1),
        }
    }
}

/// Where a step's rows lie in the state buffer.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// Rows written by the host.
    Host,
    /// Rows written by the sampler.
    Sampled,
}

/// The dispatches of one kind of step.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Everything up to the head.
    pub body: Vec<Dispatch>,
    /// The head, for each bucket that it may have.
    pub heads: Vec<(RowBucket, Vec<Dispatch>)>,
    /// The sampler.
    pub sample: Vec<Dispatch>,
}

/// A lowered plan: matrices, buffer sizes, and how to record steps.
pub struct Lowered {
    /// The plan.
    pub plan: Plan,
    /// Decisions.
    pub settings: Settings,
    /// State buffer layout.
    pub state: StateLayout,
    /// All matrix parts.
    pub parts: Vec<MatrixPart>,
    /// Tensors that are norm weights.
    pub norms: Vec<TensorId>,
    /// Where values lie.
    pub layout: Layout,
    /// For each value, f32 between its rows.
    strides: Vec<u32>,
    /// Cached positions that scores have, of a traced step.
    seen: u32,
    /// For each operation, its matrices (each a list of parts).
    matrices: HashMap<Vec<TensorId>, Vec<usize>>,
}

impl std::fmt::Debug for Lowered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lowered")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What stands for minus infinity on the device, where infinities need not be kept.
pub const LOWEST: f32 = scores::LOWEST;
/// A value up to this one counts as minus infinity.
pub const LOW: f32 = scores::LOW;

/// f32 values between rows of an activation of `n` values: whole blocks of 32.
pub fn padded(n: u32) -> u32 {
    n.next_multiple_of(32)
}

impl Lowered {
    /// Decides how the plan's weights are stacked and split.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::error::ErrorKind::Unsupported) for more experts than the kernels take, and the errors of
    /// [`Layout::new`].
    pub fn new(plan: Plan, settings: Settings) -> Result<Self> {
        let used = plan
            .ops
            .iter()
            .filter_map(Op::experts)
            .map(|experts| experts.used)
            .max()
            .unwrap_or(0);
        if let Some(experts) = plan.ops.iter().filter_map(Op::experts).find(|experts| {
            experts.count > MAX_EXPERTS
                || experts.used > MAX_EXPERTS_USED
                || experts.used > experts.count
        }) {
            return Err(Error::unsupported(format!(
                "{} of {} experts; at most {MAX_EXPERTS_USED} of {MAX_EXPERTS} can be run",
                experts.used, experts.count
            )));
        }
        let count = plan
            .ops
            .iter()
            .filter_map(Op::experts)
            .map(|experts| experts.count)
            .max()
            .unwrap_or(0);
        let state = StateLayout::new(&settings.limits, used, count);
        let layout = Layout::new(&plan)?;
        let strides = strides(&plan);
        let mut lowered = Self {
            parts: Vec::new(),
            norms: Vec::new(),
            matrices: HashMap::new(),
            layout,
            strides,
            seen: 0,
            state,
            settings,
            plan,
        };
        lowered
            .norms
            .extend(lowered.settings.trial.as_ref().and_then(|trial| trial.norm));
        let ops = lowered.plan.ops.clone();
        for op in &ops {
            if let Some(norm) = op.norm()
                && !lowered.norms.contains(&norm.weight)
            {
                lowered.norms.push(norm.weight);
            }
            if let Op::QkNorm {
                weights: Some(weights),
                ..
            } = op
            {
                lowered.norms.extend(weights);
            }
            lowered.matrices_of(op)?;
        }
        Ok(lowered)
    }

    /// Stacks and splits the matrices of an operation.
    fn matrices_of(&mut self, op: &Op) -> Result<()> {
        let plain = |weight: TensorId| Linear { weight, bias: None };
        match op {
            Op::QkvRope { q, k, v, .. } => self
                .runs(&[*q, *k, *v])
                .iter()
                .try_for_each(|run| self.matrix(run)),
            Op::Residual { linear, .. } => self.matrix(&[*linear]),
            Op::GateUpSilu { gate, up, .. } => self.gate_up(*gate, *up),
            Op::MoeGateUpSilu {
                gate, up, experts, ..
            } => self.expert_matrix(&[*gate, *up], experts.count),
            Op::MoeDownResidual { down, experts, .. } => {
                self.expert_matrix(&[*down], experts.count)
            }
            Op::Embed { table: weight, .. }
            | Op::MoeRoute { router: weight, .. }
            | Op::LmHead { weight, .. } => self.matrix(&[plain(*weight)]),
            _ => Ok(()),
        }
    }

    /// f32 values between rows of the partial sums.
    pub fn partial_stride(&self) -> u32 {
        self.plan.hidden_size.div_ceil(4) + 8
    }

    /// `(D rounded up to 4)`
    pub fn head_stride(heads: &Heads) -> u32 {
        heads.head_dim.next_multiple_of(4)
    }

    /// The dispatches of one kind of step.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::error::ErrorKind::Unsupported) for heads longer than the kernels take, and
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a plan that the kernels cannot run.
    pub fn record(&self, bucket: RowBucket, region: Region, split: bool) -> Result<Recording> {
        let rows_at = match region {
            Region::Host => self.state.host_at,
            Region::Sampled => self.state.sampled_at,
        };
        let mut r = Recorder::new(self, bucket, split, rows_at);
        for (index, op) in self.plan.ops.iter().enumerate() {
            r.op = index;
            r.lower(op)?;
        }
        Ok(r.out)
    }

    /// The norm through which a residual stream is read: its producer multiplies by the weight.
    fn next_norm(&self, x: ValueId) -> Result<TensorId> {
        let inputs = self.plan.ops.iter().filter_map(Op::input);
        let next = inputs
            .filter(|input| input.x == x)
            .find_map(|input| input.norm);
        // What no norm reads, such as a sum to which more is added, may be scaled by any.
        next.map(|n| n.weight)
            .or(self.norms.first().copied())
            .ok_or_else(|| Error::internal("a plan without a norm"))
    }

    /// The buffer of a value. A row's experts lie beside the step's rows.
    pub fn buffer(&self, value: ValueId) -> Buffer {
        match self.plan.value_spec(value).role {
            Role::Routes => Buffer::State,
            _ => Buffer::Value(self.layout.of(value)),
        }
    }

    /// f32 between rows of a value.
    pub fn stride(&self, value: ValueId) -> u32 {
        self.strides[value.0]
    }

    /// The buffers of values and their bytes, for steps of `rows` rows of which `heads` have logits.
    pub fn value_buffers(&self, rows: u32, heads: u32) -> Vec<(Buffer, u64)> {
        let (rows, heads) = (u64::from(rows), u64::from(heads));
        let mut list = Vec::new();
        for (i, buffer) in self.layout.buffers.iter().enumerate() {
            let id = BufferId(i);
            let own =
                (0..self.plan.values.len()).filter(|value| self.layout.of(ValueId(*value)) == id);
            let stride = own
                .map(|value| u64::from(self.strides[value]))
                .max()
                .unwrap_or(0);
            match buffer.role {
                Role::Routes => {}
                Role::Logits => list.push((Buffer::Value(id), heads * stride * 4)),
                Role::Residual => {
                    list.push((Buffer::Value(id), rows * stride * 4));
                    list.push((Buffer::Scaled(id), rows * stride * 4));
                    list.push((
                        Buffer::Partials(id),
                        rows * u64::from(self.partial_stride()) * 4,
                    ));
                }
                _ => list.push((Buffer::Value(id), rows * stride * 4)),
            }
        }
        let products = u64::from(self.products_width());
        if products > 0 {
            list.push((Buffer::Products, rows * products * 4));
        }
        list
    }

    /// Every buffer of a step but the weights', and its bytes.
    pub fn buffers(&self) -> Vec<(Buffer, u64)> {
        let Self { plan, settings, .. } = self;
        let limits = settings.limits;
        let (rows, heads) = (u64::from(limits.max_rows), u64::from(limits.max_heads));
        let mut list = self.value_buffers(limits.max_rows, limits.max_heads);
        // Room of single operations.
        let (mut cache_rows, mut attention_parts, mut expert_output) = (0, 0, 0);
        for op in &plan.ops {
            match op {
                Op::QkvRope { heads, .. } if settings.cache == CacheType::Q8_0 => {
                    cache_rows = cache_rows.max(2 * heads.kv_heads * Self::head_stride(heads));
                }
                Op::Attention { spec, .. } if self.split_from().is_some() => {
                    attention_parts =
                        attention_parts.max(Self::attention_parts_stride(&spec.heads));
                }
                Op::MoeDownResidual { experts, .. } => {
                    expert_output = expert_output.max(padded(plan.hidden_size) * experts.used);
                }
                _ => {}
            }
        }
        list.push((Buffer::CacheRows, rows * u64::from(cache_rows) * 4));
        // Only steps of few rows are split.
        list.push((
            Buffer::AttentionParts,
            rows.min(MAX_SPLIT_ROWS) * u64::from(attention_parts) * 4,
        ));
        list.push((Buffer::ExpertOutput, rows * u64::from(expert_output) * 4));
        list.push((Buffer::Ids, heads * 4));
        list.push((Buffer::State, u64::from(self.state.words) * 4));
        list.push((
            Buffer::Sampling,
            u64::from(limits.max_seqs) * size_of::<Sampling>() as u64,
        ));
        let adjustments = AdjustmentLayout::new(plan.vocab_size);
        list.push((
            Buffer::Adjustments,
            u64::from(limits.max_seqs) * u64::from(adjustments.stride) * 4,
        ));
        for (i, cache) in plan.caches.iter().enumerate() {
            let positions = u64::from(limits.num_pages) * u64::from(limits.page_size);
            let words = u64::from(settings.cache.words(cache.head_dim));
            list.push((
                Buffer::Cache(i),
                positions * 2 * u64::from(cache.kv_heads) * words * 4,
            ));
        }
        list
    }
}

/// For each value, f32 between its rows: whole blocks of 32, and heads padded one by one where attention reads them.
fn strides(plan: &Plan) -> Vec<u32> {
    let mut strides: Vec<u32> = plan
        .values
        .iter()
        .map(|value| {
            if value.role == Role::Logits {
                value.width
            } else {
                padded(value.width)
            }
        })
        .collect();
    for op in &plan.ops {
        let (heads, queries) = match op {
            Op::QkvRope { heads, query, .. } => (heads, vec![*query]),
            Op::QkNorm {
                heads, query, out, ..
            } => (heads, vec![*query, *out]),
            Op::Attention { spec, query, .. } | Op::Scores { spec, query, .. } => {
                (&spec.heads, vec![*query])
            }
            Op::MoeGateUpSilu {
                gate, experts, out, ..
            } => {
                let inner = plan.tensor(*gate).rows as u32 / experts.count;
                strides[out.0] = padded(inner) * experts.used;
                continue;
            }
            _ => continue,
        };
        for query in queries {
            strides[query.0] = heads.heads * Lowered::head_stride(heads);
        }
    }
    for op in &plan.ops {
        if let Op::HeadNorm { x, out, .. } = op {
            strides[x.0] = strides[out.0];
        }
    }
    strides
}
