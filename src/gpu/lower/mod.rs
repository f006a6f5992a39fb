//! From a plan to a list of dispatches, as plain data: which kernel variant, which parameters, which buffers, how
//! many workgroups. Needs no device, so what a step costs can be counted (and is asserted) on any machine.

mod attention;
mod experts;
mod matrices;
mod record;
mod settings;

pub use attention::splits;
pub use matrices::MatrixPart;
pub use settings::{CacheType, Settings, Shape, Trial, Tuning};

use super::kernels::Variant;
use super::state::{StateLayout, expert_tiles};
use crate::error::{Error, Result};
use crate::plan::{Heads, Linear, MAX_EXPERTS, MAX_EXPERTS_USED, Op, Plan, TensorId};
use record::Recorder;
use std::collections::HashMap;

/// A buffer that a dispatch binds.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
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
    /// The residual stream.
    Residual,
    /// The residual stream times the next norm's weight.
    Scaled,
    /// Partial sums of squares of the residual stream.
    Partials,
    /// Rotated queries.
    Query,
    /// A key/value cache.
    Cache(usize),
    /// Keys and values of the step's rows, before a q8_0 cache rounds them.
    CacheRows,
    /// Attention output.
    Attention,
    /// What the workgroups of a split attention found.
    AttentionParts,
    /// Feed-forward activation.
    FeedForward,
    /// Feed-forward activation of each expert of a row.
    ExpertFeedForward,
    /// What each expert of a row gives.
    ExpertOutput,
    /// Logits of the heads.
    Logits,
    /// Sampled ids.
    Ids,
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
    pub slots: Vec<Slot>,
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
        let groups = if self.split { self.groups * splits } else { self.groups };
        match self.rows {
            Rows::Tokens(n) => (groups, tokens.div_ceil(n)),
            Rows::Times(n) => (groups, tokens * n),
            Rows::Heads(n) => (groups, heads.div_ceil(n)),
            Rows::ExpertTiles(used, experts) => (groups, expert_tiles(tokens, used, experts)),
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
    /// The head, for each shape that it may have.
    pub heads: Vec<(Shape, Vec<Dispatch>)>,
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
    /// For each operation, its matrices (each a list of parts).
    matrices: HashMap<Vec<TensorId>, Vec<usize>>,
}

/// f32 values between rows of an activation of `n` values: whole blocks of 32.
pub fn padded(n: u32) -> u32 {
    n.next_multiple_of(32)
}

impl Lowered {
    /// Decides how the plan's weights are stacked and split.
    pub fn new(plan: Plan, settings: Settings) -> Result<Lowered> {
        let used = plan.ops.iter().filter_map(Op::experts).map(|experts| experts.used).max().unwrap_or(0);
        if let Some(experts) = plan.ops.iter().filter_map(Op::experts).find(|experts| {
            experts.count > MAX_EXPERTS || experts.used > MAX_EXPERTS_USED || experts.used > experts.count
        }) {
            return Err(Error::unsupported(format!(
                "{} of {} experts; at most {MAX_EXPERTS_USED} of {MAX_EXPERTS} can be run",
                experts.used, experts.count
            )));
        }
        let count = plan.ops.iter().filter_map(Op::experts).map(|experts| experts.count).max().unwrap_or(0);
        let state = StateLayout::new(&settings.limits, used, count);
        let mut lowered =
            Lowered { parts: Vec::new(), norms: Vec::new(), matrices: HashMap::new(), state, settings, plan };
        lowered.norms.extend(lowered.settings.trial.as_ref().and_then(|trial| trial.norm));
        let ops = lowered.plan.ops.clone();
        for op in &ops {
            if let Some(norm) = op.norm()
                && !lowered.norms.contains(&norm.weight)
            {
                lowered.norms.push(norm.weight);
            }
            match op {
                Op::Embed { table } => lowered.matrix(&[Linear { weight: *table, bias: None }])?,
                Op::QkvRope { q, k, v, .. } => {
                    for run in lowered.runs(&[*q, *k, *v]) {
                        lowered.matrix(&run)?;
                    }
                }
                Op::OResidual { o } => lowered.matrix(&[*o])?,
                Op::GateUpSilu { gate, up, .. } => lowered.gate_up(*gate, *up)?,
                Op::DownResidual { down } => lowered.matrix(&[*down])?,
                Op::MoeRoute { router, .. } => lowered.matrix(&[Linear { weight: *router, bias: None }])?,
                Op::MoeGateUpSilu { gate, up, experts, .. } => lowered.expert_matrix(&[*gate, *up], experts.count)?,
                Op::MoeDownResidual { down, experts } => lowered.expert_matrix(&[*down], experts.count)?,
                Op::LmHead { weight, .. } => lowered.matrix(&[Linear { weight: *weight, bias: None }])?,
                Op::QkNorm { .. } | Op::Attention { .. } | Op::Sample => {}
            }
        }
        Ok(lowered)
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
    pub fn record(&self, shape: Shape, region: Region, split: bool) -> Result<Recording> {
        let rows_at = match region {
            Region::Host => self.state.host_at,
            Region::Sampled => self.state.sampled_at,
        };
        let mut r = Recorder::new(self, shape, split, rows_at);
        for (index, op) in self.plan.ops.iter().enumerate() {
            r.op = index;
            r.lower(op)?;
        }
        Ok(r.out)
    }

    /// The norm that follows operation `op` on the residual stream: its producer multiplies by the weight.
    fn next_norm(&self, op: usize) -> Result<TensorId> {
        let next = self.plan.ops[op + 1..].iter().find_map(Op::norm);
        // A plan that ends in the middle (tests run single operations) has none: any norm weight will do.
        next.map(|n| n.weight).or(self.norms.first().copied()).ok_or_else(|| Error::internal("a plan without a norm"))
    }
}
