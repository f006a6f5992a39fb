//! From a plan to a list of dispatches, as plain data: which kernel variant, which parameters, which buffers, how
//! many workgroups. Needs no device, so what a step costs can be counted (and is asserted) on any machine.

use super::kernels::{
    Kernel, Variant, attention, attention_combine, attention_split, attention_tile, cache_store, embed, grouped_down,
    grouped_gate_up, matvec_gate_up, matvec_moe_down, matvec_moe_gate_up, matvec_qkv, matvec_residual, matvec_silu_mul,
    matvec_store, moe_combine, moe_group, qk_norm, route, sample, variant,
};
use super::state::{AdjustmentLayout, StateLayout, expert_tiles};
use crate::error::{Error, Result};
use crate::plan::{
    Experts, Gating, Heads, Limits, Linear, MAX_EXPERTS, MAX_EXPERTS_USED, Mask, Norm, Op, Plan, Temperature, TensorId,
};
use crate::quant::planes::PlaneLayout;
use std::collections::HashMap;
use std::ops::Range;

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

/// Rows of one or more tensors of the same type, stacked in one pair of buffers. Matrices larger than a binding may
/// be are cut into several parts.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixPart {
    /// Which rows of which tensors, in order.
    pub segments: Vec<(TensorId, Range<u64>)>,
    /// Bias rows that go with the segments.
    pub biases: Vec<(TensorId, Range<u64>)>,
    /// Layout of a row.
    pub layout: PlaneLayout,
    /// Stacked rows.
    pub rows: u64,
}

impl MatrixPart {
    /// Bytes of the quants buffer.
    pub fn weights_bytes(&self) -> u64 {
        self.rows * self.layout.quant_row_bytes()
    }

    /// u32 index of the bias in the scales buffer; 0: no bias.
    pub fn bias_at(&self) -> u64 {
        // One word apart from the scales, so that 0 can mean none even where there are no scales.
        if self.biases.is_empty() { 0 } else { self.rows * self.layout.scale_stride + 1 }
    }

    /// Bytes of the scales buffer.
    pub fn scales_bytes(&self) -> u64 {
        let words = self.rows * self.layout.scale_stride;
        let words = if self.biases.is_empty() { words } else { words + 1 + self.rows };
        (words * 4).max(16)
    }
}

/// How cached keys and values are stored.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value, two in a u32: needs no `shader-f16`.
    #[default]
    F16,
    /// Blocks of 32 signed bytes with an f16 scale: 8.5 bits a value.
    Q8_0,
}

impl CacheType {
    /// As options and shader files name it.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<CacheType> {
        [CacheType::F32, CacheType::F16, CacheType::Q8_0].into_iter().find(|t| t.name() == name)
    }

    /// u32 that a vector of `head_dim` values takes.
    pub fn words(self, head_dim: u32) -> u32 {
        match self {
            CacheType::F32 => head_dim.next_multiple_of(4),
            CacheType::F16 => head_dim.next_multiple_of(4) / 2,
            CacheType::Q8_0 => head_dim.div_ceil(32) * 8 + head_dim.div_ceil(32).div_ceil(2),
        }
    }
}

/// Which kernels to use where there is a choice. All give the same values but for rounding.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Reduce by subgroup shuffles.
    pub subgroups: bool,
    /// Integer dot products: activations are rounded to 8 bits, block by block, as llama.cpp does.
    pub int8: bool,
    /// f16 tiles in matmul.
    pub f16: bool,
    /// matvec kernels for 2, 4 and 8 rows at a time, and matmul with two sizes of tile.
    pub columns: bool,
    /// Divide long sequences among workgroups in attention.
    pub splits: bool,
}

impl Tuning {
    /// Every fast variant off: the kernels that run anywhere, and that others are checked against.
    pub const PLAIN: Tuning = Tuning { subgroups: false, int8: false, f16: false, columns: false, splits: false };

    /// The shapes of matrix products, for ever more rows.
    pub fn shapes(self) -> &'static [Shape] {
        if self.columns {
            &[Shape::Few(1), Shape::Few(2), Shape::Few(4), Shape::Few(8), Shape::Many(4), Shape::Many(8)]
        } else {
            &[Shape::Few(1), Shape::Many(4)]
        }
    }

    /// The shape for this many rows of x.
    pub fn shape(self, rows: u32) -> Shape {
        let shapes = self.shapes();
        shapes.iter().copied().find(|s| rows <= s.rows()).unwrap_or(shapes[shapes.len() - 1])
    }
}

/// What lowering may assume about the device, and what was decided for this executor.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Kernels.
    pub tuning: Tuning,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Largest buffer that can be bound.
    pub max_binding: u64,
    /// Capacities.
    pub limits: Limits,
    /// Names of variants that the self-test found wrong: their plain twins are used.
    pub wrong: Vec<String>,
    /// Only what one trial of the self-test needs.
    pub trial: Option<Trial>,
}

/// Makes an executor for the self-test: the kernels of one shape, with the override constants that a model's have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// Instead of all.
    pub shape: Option<Shape>,
    /// Lanes of a variant by name, where they are not what the matrix's size would ask for.
    pub lanes: Vec<(String, u32)>,
    /// Attention split whatever the length.
    pub split: bool,
    /// A norm weight, where no operation has one.
    pub norm: Option<TensorId>,
}

impl Settings {
    /// With nothing known to be wrong.
    pub fn new(tuning: Tuning, cache: CacheType, max_binding: u64, limits: Limits) -> Settings {
        Settings { tuning, cache, max_binding, limits, wrong: Vec::new(), trial: None }
    }

    fn is_wrong(&self, variant: &Variant) -> bool {
        !self.wrong.is_empty() && self.wrong.contains(&variant.name())
    }

    /// The shapes of matrix products, for ever more rows.
    pub fn shapes(&self) -> Vec<Shape> {
        match self.trial.as_ref().and_then(|trial| trial.shape) {
            Some(shape) => vec![shape],
            None => self.tuning.shapes().to_vec(),
        }
    }

    /// The shape for this many rows of x.
    pub fn shape(&self, rows: u32) -> Shape {
        self.trial.as_ref().and_then(|trial| trial.shape).unwrap_or_else(|| self.tuning.shape(rows))
    }
}

/// Kernels for few rows of x per pass over the weights, or for tiles of rows.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// matvec, this many rows of x at a time: 1, 2, 4 or 8.
    Few(u32),
    /// matmul, this many rows of x per invocation, 8 times as many in a tile: 4 or 8.
    Many(u32),
}

impl Shape {
    /// Rows of x that one workgroup covers.
    pub fn rows(self) -> u32 {
        match self {
            Shape::Few(cols) => cols,
            Shape::Many(each) => 8 * each,
        }
    }

    fn choice(self) -> &'static str {
        match self {
            Shape::Few(1) => "1",
            Shape::Few(2) => "2",
            Shape::Few(4) | Shape::Many(4) => "4",
            Shape::Few(_) | Shape::Many(_) => "8",
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

/// Rows of W that one tile of matmul covers.
const TILE_QUADS: u32 = 16;
/// Workgroup size of matvec.
const MATVEC_WORKGROUP: u32 = 64;
/// Below this many workgroups a large GPU is not filled; more lanes per row then help.
const ENOUGH_WORKGROUPS: u32 = 1024;
/// What the workgroup memory of attention's kernels is laid out for, in vec4s of a head and heads.
const MAX_QUADS: u32 = 128;
const PART_QUADS: u32 = 512;
const TILE_QUERIES: u32 = 16;
const TILE_QUERY_QUADS: u32 = 256;
const TILE_KEY_QUADS: u32 = 544;
/// Attention is split where more positions than these are seen; twin of shaders/shared/splits.wgsl.
const SPLIT_FROM: u32 = 256;
const MAX_SPLITS: u32 = 16;
const SPLIT_PAGES: u32 = 4;

/// How many splits a row at `pos` has at most.
pub fn splits(pos: u32, page_size: u32) -> u32 {
    (pos / page_size + 1).div_ceil(SPLIT_PAGES).min(MAX_SPLITS)
}
/// Rope positions per table.
const ROPE_LOW: u32 = 256;

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

    /// Neighbours of the same type can share a matrix.
    fn runs(&self, linears: &[Linear]) -> Vec<Vec<Linear>> {
        let mut runs: Vec<Vec<Linear>> = Vec::new();
        for linear in linears {
            let dtype = self.plan.tensor(linear.weight).dtype;
            match runs.last_mut() {
                Some(run) if self.plan.tensor(run[0].weight).dtype == dtype => run.push(*linear),
                _ => runs.push(vec![*linear]),
            }
        }
        runs
    }

    fn layout(&self, weight: TensorId) -> PlaneLayout {
        let spec = self.plan.tensor(weight);
        PlaneLayout::new(spec.dtype, spec.cols)
    }

    /// Rows that fit one binding: a multiple of 4, so that no quad is cut.
    fn rows_per_part(&self, layout: &PlaneLayout) -> Result<u64> {
        let row = layout.quant_row_bytes().max(layout.scale_row_bytes() + 4);
        let rows = self.settings.max_binding.saturating_sub(64) / row / 4 * 4;
        if rows == 0 {
            return Err(Error::unsupported(format!("a row of {row} bytes is larger than this device can bind")));
        }
        Ok(rows)
    }

    /// Registers the stacked rows of `linears`, once.
    fn matrix(&mut self, linears: &[Linear]) -> Result<()> {
        let key: Vec<TensorId> = linears.iter().map(|l| l.weight).collect();
        if self.matrices.contains_key(&key) {
            return Ok(());
        }
        let layout = self.layout(key[0]);
        let most = self.rows_per_part(&layout)?;
        let with_bias = linears.iter().any(|l| l.bias.is_some());
        let mut indices = Vec::new();
        let mut part = MatrixPart { segments: Vec::new(), biases: Vec::new(), layout, rows: 0 };
        for linear in linears {
            let rows = self.plan.tensor(linear.weight).rows;
            let mut at = 0;
            while at < rows {
                if part.rows == most {
                    indices.push(self.parts.len());
                    let next = MatrixPart { segments: Vec::new(), biases: Vec::new(), layout, rows: 0 };
                    self.parts.push(std::mem::replace(&mut part, next));
                }
                let take = (rows - at).min(most - part.rows);
                part.segments.push((linear.weight, at..at + take));
                if with_bias {
                    // A segment without a bias has rows of zeros there: the id of the weight marks it.
                    part.biases.push((linear.bias.unwrap_or(linear.weight), at..at + take));
                }
                part.rows += take;
                at += take;
            }
        }
        indices.push(self.parts.len());
        self.parts.push(part);
        self.matrices.insert(key, indices);
        Ok(())
    }

    /// gate and up stacked (gate's rows of a part, then up's) if they share a type, else each for itself.
    fn gate_up(&mut self, gate: Linear, up: Linear) -> Result<()> {
        if self.runs(&[gate, up]).len() == 2 {
            self.matrix(&[gate])?;
            return self.matrix(&[up]);
        }
        let key = vec![gate.weight, up.weight];
        let layout = self.layout(gate.weight);
        let most = self.rows_per_part(&layout)? / 8 * 4;
        if most == 0 {
            return Err(Error::unsupported("two rows are larger than this device can bind"));
        }
        let rows = self.plan.tensor(gate.weight).rows;
        let with_bias = gate.bias.is_some() || up.bias.is_some();
        let mut indices = Vec::new();
        for at in (0..rows).step_by(most as usize) {
            let range = at..(at + most).min(rows);
            let biases = if with_bias {
                vec![(gate.bias.unwrap_or(gate.weight), range.clone()), (up.bias.unwrap_or(up.weight), range.clone())]
            } else {
                Vec::new()
            };
            let rows = 2 * (range.end - range.start);
            indices.push(self.parts.len());
            let segments = vec![(gate.weight, range.clone()), (up.weight, range)];
            self.parts.push(MatrixPart { segments, biases, layout, rows });
        }
        self.matrices.insert(key, indices);
        Ok(())
    }

    /// Registers stacked experts: of each expert the rows of every tensor, and whole experts in each part.
    fn expert_matrix(&mut self, tensors: &[TensorId], count: u32) -> Result<()> {
        let spec = self.plan.tensor(tensors[0]);
        if let Some(other) = tensors.iter().map(|id| self.plan.tensor(*id)).find(|other| other.dtype != spec.dtype) {
            return Err(Error::unsupported(format!(
                "{} is {} and {} is {}; experts' gate and up must share a type to run on the GPU",
                spec.name, spec.dtype, other.name, other.dtype
            )));
        }
        let layout = self.layout(tensors[0]);
        let rows: Vec<u64> = tensors.iter().map(|id| self.plan.tensor(*id).rows / u64::from(count)).collect();
        let expert_rows: u64 = rows.iter().sum();
        let fit = self.rows_per_part(&layout)? / expert_rows;
        if fit == 0 {
            return Err(Error::unsupported(format!("an expert of {} is larger than this device can bind", spec.name)));
        }
        let mut indices = Vec::new();
        let experts: Vec<u64> = (0..u64::from(count)).collect();
        for experts in experts.chunks(fit as usize) {
            let segment = |x: u64, i: usize| (tensors[i], x * rows[i]..(x + 1) * rows[i]);
            let segments = experts.iter().flat_map(|x| (0..tensors.len()).map(move |i| segment(*x, i))).collect();
            indices.push(self.parts.len());
            let rows = expert_rows * experts.len() as u64;
            self.parts.push(MatrixPart { segments, biases: Vec::new(), layout, rows });
        }
        self.matrices.insert(tensors.to_vec(), indices);
        Ok(())
    }

    fn parts_of(&self, linears: &[Linear]) -> Vec<usize> {
        let key: Vec<TensorId> = linears.iter().map(|l| l.weight).collect();
        self.matrices.get(&key).cloned().unwrap_or_default()
    }

    /// f32 values between rows of the partial sums.
    pub fn partial_stride(&self) -> u32 {
        self.plan.hidden_size.div_ceil(4) + 8
    }

    /// `(D rounded up to 4)`
    pub fn head_stride(heads: &Heads) -> u32 {
        heads.head_dim.next_multiple_of(4)
    }

    /// Positions seen by one row from which on steps are recorded with split attention; `None`: never.
    pub fn split_from(&self) -> Option<u32> {
        if let Some(trial) = &self.settings.trial {
            return trial.split.then_some(0);
        }
        let wrong = self.settings.wrong.iter().any(|name| {
            let family = name.split('.').next().unwrap_or_default();
            family == "attention_split" || family == "attention_combine"
        });
        let longest = self.settings.limits.max_context();
        (self.settings.tuning.splits && !wrong && longest > SPLIT_FROM).then_some(SPLIT_FROM)
    }

    /// Where new keys and values go at first.
    fn new_keys(&self, cache: usize) -> Slot {
        if self.settings.cache == CacheType::Q8_0 { Slot::CacheRows } else { Slot::Cache(cache) }
    }

    /// f32 values of a row in [`Slot::AttentionParts`].
    pub fn attention_parts_stride(heads: &Heads) -> u32 {
        heads.heads * MAX_SPLITS * (Lowered::head_stride(heads) + 4)
    }

    /// u32 index of the second rope table.
    pub fn rope_high(pairs: u32) -> u32 {
        ROPE_LOW * pairs
    }

    /// cos and sin of every rope position up to `context`, as two tables whose angles add up.
    pub fn rope_table(&self, rope: usize, context: u32) -> Vec<[f32; 2]> {
        let rope = &self.plan.ropes[rope];
        let mut table = Vec::new();
        for low in 0..ROPE_LOW {
            for freq in &rope.inv_freq {
                let (sin, cos) = (f64::from(low) * freq).sin_cos();
                let m = f64::from(rope.magnitude);
                table.push([(cos * m) as f32, (sin * m) as f32]);
            }
        }
        for high in 0..context.div_ceil(ROPE_LOW) {
            for freq in &rope.inv_freq {
                let (sin, cos) = (f64::from(high * ROPE_LOW) * freq).sin_cos();
                table.push([cos as f32, sin as f32]);
            }
        }
        table
    }

    /// The dispatches of one kind of step.
    pub fn record(&self, shape: Shape, region: Region, split: bool) -> Result<Recording> {
        let rows_at = match region {
            Region::Host => self.state.host_at,
            Region::Sampled => self.state.sampled_at,
        };
        let mut r = Recorder { lowered: self, shape, split, rows_at, partials: 1, op: 0, out: Recording::default() };
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

struct Recorder<'a> {
    lowered: &'a Lowered,
    shape: Shape,
    split: bool,
    rows_at: u32,
    /// Partial sums per row that the last producer of the residual stream wrote.
    partials: u32,
    op: usize,
    out: Recording,
}

/// How many lanes share a row, and the workgroups that `quads` then make: as few as still read 16 neighbouring blocks at
/// once, and more where the matrix has too few rows to fill a large GPU.
fn matvec_grid(quads: u32, blocks: u32) -> (u32, u32) {
    let groups = |lanes: u32| (quads * lanes).div_ceil(MATVEC_WORKGROUP);
    let mut lanes = 4;
    while lanes < 16 && lanes * 2 <= blocks {
        lanes *= 2;
    }
    while lanes < 64 && lanes * 2 <= blocks && groups(lanes) < ENOUGH_WORKGROUPS {
        lanes *= 2;
    }
    (lanes, groups(lanes))
}

impl Recorder<'_> {
    fn push<K: Kernel>(
        &self,
        choices: &[&str],
        params: K::Params,
        bindings: &K,
        groups: u32,
        rows: Rows,
    ) -> Result<Dispatch> {
        self.push_to(K::FAMILY, choices, Vec::new(), params, bindings, groups, rows)
    }

    #[expect(clippy::too_many_arguments, reason = "each is one fact about the dispatch")]
    fn push_to<K: Kernel>(
        &self,
        family: &str,
        choices: &[&str],
        constants: Vec<(&'static str, u32)>,
        params: K::Params,
        bindings: &K,
        groups: u32,
        rows: Rows,
    ) -> Result<Dispatch> {
        let variant =
            variant(family, choices).ok_or_else(|| Error::internal(format!("no kernel {family} {choices:?}")))?;
        Ok(Dispatch {
            variant,
            constants,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: bindings.slots(),
            groups,
            split: false,
            rows,
            op: self.op,
        })
    }

    fn format(&self, part: usize) -> &'static str {
        self.lowered.parts[part].layout.format
    }

    /// A matrix product: kernel `matvec_X` for few rows, `matmul_X` for many. The two share an epilogue, and with it
    /// parameters and bindings (build.rs checks it), so callers describe it once, with matvec's types.
    #[expect(clippy::too_many_arguments, reason = "each is one fact about the product")]
    fn product<K: Kernel>(
        &self,
        shape: Shape,
        part: usize,
        quads: u32,
        more_choices: &[&str],
        by_head: bool,
        params: K::Params,
        bindings: &K,
    ) -> Result<Dispatch> {
        let matrix = &self.lowered.parts[part];
        let epilogue = K::FAMILY.strip_prefix("matvec_").unwrap_or(K::FAMILY);
        let format = self.format(part);
        let settings = &self.lowered.settings;
        let tuning = settings.tuning;
        let grouped = epilogue.starts_with("grouped_");
        let cols = (!grouped && !epilogue.starts_with("moe_")).then(|| shape.choice());
        let few = matches!(shape, Shape::Few(_));
        let kernel = if few { "matvec_" } else { "matmul_" };
        let family = if grouped { epilogue.to_owned() } else { format!("{kernel}{epilogue}") };
        // The first that is wished for, that the weight type has, and that is right on this device.
        let reduces = if few { vec![Some("subgroups"), Some("plain")] } else { vec![None] };
        let candidates = ["int8", "f16", "f32"].into_iter().flat_map(|dot| reduces.iter().map(move |r| (dot, *r)));
        let wished = candidates.filter(|(dot, reduce)| match (*dot, *reduce) {
            ("int8", _) if !tuning.int8 => false,
            ("f16", _) if !tuning.f16 => false,
            (_, Some("subgroups")) => tuning.subgroups,
            _ => true,
        });
        let choices = wished.map(|(dot, reduce)| -> Vec<&str> {
            [format].into_iter().chain(reduce).chain([dot]).chain(cols).chain(more_choices.iter().copied()).collect()
        });
        let possible: Vec<(Vec<&str>, Variant)> =
            choices.filter_map(|choices| variant(&family, &choices).map(|v| (choices, v))).collect();
        let right = possible.iter().find(|(_, variant)| !settings.is_wrong(variant)).or(possible.last());
        let (choices, chosen) =
            right.ok_or_else(|| Error::internal(format!("no kernel {family} for {format} {more_choices:?}")))?;
        let (constants, groups) = if few {
            let (lanes, _) = matvec_grid(quads, matrix.layout.blocks as u32);
            let tried = settings.trial.as_ref().and_then(|trial| {
                let name = chosen.name();
                trial.lanes.iter().find(|(variant, _)| *variant == name).map(|(_, lanes)| *lanes)
            });
            let lanes = tried.unwrap_or(lanes);
            (vec![("LANES", lanes)], (quads * lanes).div_ceil(MATVEC_WORKGROUP))
        } else {
            (Vec::new(), quads.div_ceil(TILE_QUADS))
        };
        let tile = shape.rows();
        let rows = if by_head { Rows::Heads(tile) } else { Rows::Tokens(tile) };
        self.push_to(&family, choices, constants, params, bindings, groups, rows)
    }

    fn kv(&self) -> &'static str {
        self.lowered.settings.cache.name()
    }

    fn inv_hidden(&self) -> f32 {
        1.0 / self.lowered.plan.hidden_size as f32
    }

    fn lower(&mut self, op: &Op) -> Result<()> {
        let lowered = self.lowered;
        match op {
            Op::Embed { table } => self.embed(*table),
            Op::QkvRope { norm, q, k, v, heads, rope, cache } => {
                let mut row_base = 0;
                for run in lowered.runs(&[*q, *k, *v]) {
                    for part in lowered.parts_of(&run) {
                        self.qkv(part, row_base, *norm, heads, *rope, *cache)?;
                        row_base += lowered.parts[part].rows as u32;
                    }
                }
                Ok(())
            }
            Op::QkNorm { heads, cache, eps } => self.qk_norm(heads, *cache, *eps),
            Op::Attention { heads, cache, scale, mask, temperature } => {
                self.attention(heads, *cache, *scale, *mask, *temperature)
            }
            Op::MoeRoute { norm, router, experts } => self.route(*norm, *router, *experts),
            Op::MoeGateUpSilu { norm, gate, up, experts } => self.moe_gate_up(*norm, *gate, *up, *experts),
            Op::MoeDownResidual { down, experts } => self.moe_down(*down, *experts),
            Op::OResidual { o } => self.residual(*o, Slot::Attention),
            Op::DownResidual { down } => self.residual(*down, Slot::FeedForward),
            Op::GateUpSilu { norm, gate, up } => self.gate_up(*norm, *gate, *up),
            Op::LmHead { norm, weight } => {
                let shapes = lowered.settings.shapes().into_iter().filter(|s| s.rows() <= self.shape.rows());
                self.out.heads = shapes.map(|s| Ok((s, self.head(s, *norm, *weight)?))).collect::<Result<_>>()?;
                Ok(())
            }
            Op::Sample => {
                let adjustments = AdjustmentLayout::new(lowered.plan.vocab_size);
                let params = sample::Params {
                    vocab: lowered.plan.vocab_size,
                    logits_stride: lowered.plan.vocab_size,
                    rows_at: self.rows_at,
                    next_at: lowered.state.sampled_at,
                    mask_at: adjustments.mask_at,
                    biases_at: adjustments.biases_at,
                    adjustments_stride: adjustments.stride,
                };
                let bindings = sample::Bindings {
                    logits: Slot::Logits,
                    sampling: Slot::Sampling,
                    state: Slot::State,
                    ids: Slot::Ids,
                    adjustments: Slot::Adjustments,
                };
                let dispatch = self.push(&[], params, &bindings, 1, Rows::Heads(1))?;
                self.out.sample = vec![dispatch];
                Ok(())
            }
        }
    }

    fn embed(&mut self, table: TensorId) -> Result<()> {
        let lowered = self.lowered;
        let next_norm = Slot::Norm(lowered.next_norm(self.op)?);
        let mut first_row = 0;
        for part in lowered.parts_of(&[Linear { weight: table, bias: None }]) {
            let matrix = &lowered.parts[part];
            let params = embed::Params {
                rows: matrix.rows as u32,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: 0,
                rows_at: self.rows_at,
                first_row,
                x_stride: padded(lowered.plan.hidden_size),
                hidden: lowered.plan.hidden_size,
                partial_stride: lowered.partial_stride(),
            };
            let bindings = embed::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                state: Slot::State,
                next_norm,
                x: Slot::Residual,
                scaled: Slot::Scaled,
                partials_out: Slot::Partials,
            };
            let format = self.format(part);
            self.out.body.push(self.push(&[format], params, &bindings, 1, Rows::Tokens(1))?);
            first_row += matrix.rows as u32;
        }
        self.partials = 1;
        Ok(())
    }

    fn qkv(
        &mut self,
        part: usize,
        row_base: u32,
        norm: Norm,
        heads: &Heads,
        rope: Option<usize>,
        cache: usize,
    ) -> Result<()> {
        let lowered = self.lowered;
        let matrix = &lowered.parts[part];
        let pairs = rope.map_or(0, |r| lowered.plan.ropes[r].inv_freq.len() as u32);
        let head_stride = Lowered::head_stride(heads);
        let params = matvec_qkv::Params {
            rows: matrix.rows as u32,
            blocks: matrix.layout.blocks as u32,
            scale_stride: matrix.layout.scale_stride as u32,
            bias_at: matrix.bias_at() as u32,
            rows_at: self.rows_at,
            partials: self.partials,
            partial_stride: lowered.partial_stride(),
            inv_hidden: self.inv_hidden(),
            eps: norm.eps,
            row_base,
            q_rows: heads.heads * heads.head_dim,
            kv_rows: heads.kv_heads * heads.head_dim,
            head_dim: heads.head_dim,
            head_stride,
            q_stride: heads.heads * head_stride,
            kv_heads: heads.kv_heads,
            rope_pairs: pairs,
            rope_high: Lowered::rope_high(pairs),
            pages_at: lowered.state.pages_at,
            pages_per_seq: lowered.settings.limits.max_pages_per_seq,
        };
        let bindings = matvec_qkv::Bindings {
            weights: Slot::Weights(part),
            scales: Slot::Scales(part),
            input: Slot::Scaled,
            state: Slot::State,
            partials: Slot::Partials,
            rope: Slot::Rope(rope.unwrap_or(0)),
            query: Slot::Query,
            cache: lowered.new_keys(cache),
        };
        let quads = (matrix.rows as u32).div_ceil(4);
        let dispatch = self.product(self.shape, part, quads, &[self.kv()], false, params, &bindings)?;
        self.out.body.push(dispatch);
        Ok(())
    }

    fn qk_norm(&mut self, heads: &Heads, cache: usize, eps: f32) -> Result<()> {
        let lowered = self.lowered;
        let params = qk_norm::Params {
            rows_at: self.rows_at,
            pages_at: self.lowered.state.pages_at,
            pages_per_seq: self.lowered.settings.limits.max_pages_per_seq,
            kv_heads: heads.kv_heads,
            heads: heads.heads,
            head_dim: heads.head_dim,
            head_stride: Lowered::head_stride(heads),
            eps,
        };
        let bindings = qk_norm::Bindings { state: Slot::State, query: Slot::Query, cache: lowered.new_keys(cache) };
        let groups = heads.heads + heads.kv_heads;
        let dispatch = self.push(&[self.kv()], params, &bindings, groups, Rows::Tokens(1))?;
        self.out.body.push(dispatch);
        Ok(())
    }

    fn route(&mut self, norm: Norm, router: TensorId, experts: Experts) -> Result<()> {
        let lowered = self.lowered;
        let parts = lowered.parts_of(&[Linear { weight: router, bias: None }]);
        let &[part] = parts.as_slice() else {
            return Err(Error::unsupported("a router larger than this device can bind"));
        };
        let matrix = &lowered.parts[part];
        let params = route::Params {
            rows: matrix.rows as u32,
            blocks: matrix.layout.blocks as u32,
            scale_stride: matrix.layout.scale_stride as u32,
            bias_at: 0,
            rows_at: self.rows_at,
            partials: self.partials,
            partial_stride: lowered.partial_stride(),
            inv_hidden: self.inv_hidden(),
            eps: norm.eps,
            routes_at: lowered.state.routes_at,
            used: experts.used,
            sigmoid: u32::from(experts.gating == Gating::Sigmoid),
        };
        let bindings = route::Bindings {
            weights: Slot::Weights(part),
            scales: Slot::Scales(part),
            input: Slot::Scaled,
            state: Slot::State,
            partials: Slot::Partials,
        };
        let dispatch = self.push(&[self.format(part)], params, &bindings, 1, Rows::Tokens(1))?;
        self.out.body.push(dispatch);
        if self.grouped() {
            let params = moe_group::Params {
                rows_at: self.rows_at,
                routes_at: lowered.state.routes_at,
                groups_at: lowered.state.groups_at,
                used: experts.used,
                experts: experts.count,
                max_pairs: lowered.settings.limits.max_rows * experts.used,
            };
            let dispatch = self.push(&[], params, &moe_group::Bindings { state: Slot::State }, 1, Rows::One)?;
            self.out.body.push(dispatch);
        }
        Ok(())
    }

    /// Rows are grouped by expert where there are many: an expert's weights are then read once for a tile of them.
    fn grouped(&self) -> bool {
        matches!(self.shape, Shape::Many(_))
    }

    /// For each part: its index, its first expert, how many it holds.
    fn expert_parts(&self, tensors: &[TensorId], experts: Experts) -> Vec<(usize, u32, u32)> {
        let lowered = self.lowered;
        let rows: u64 = tensors.iter().map(|id| lowered.plan.tensor(*id).rows / u64::from(experts.count)).sum();
        let mut first = 0;
        let parts = lowered.matrices.get(tensors).cloned().unwrap_or_default();
        parts
            .into_iter()
            .map(|part| {
                let held = (lowered.parts[part].rows / rows) as u32;
                first += held;
                (part, first - held, held)
            })
            .collect()
    }

    fn moe_gate_up(&mut self, norm: Norm, gate: TensorId, up: TensorId, experts: Experts) -> Result<()> {
        let lowered = self.lowered;
        let rows = (lowered.plan.tensor(gate).rows / u64::from(experts.count)) as u32;
        for (part, first_expert, held) in self.expert_parts(&[gate, up], experts) {
            let layout = &lowered.parts[part].layout;
            if self.grouped() {
                let params = grouped_gate_up::Params {
                    rows,
                    blocks: layout.blocks as u32,
                    scale_stride: layout.scale_stride as u32,
                    bias_at: 0,
                    rows_at: self.rows_at,
                    partials: self.partials,
                    partial_stride: lowered.partial_stride(),
                    inv_hidden: self.inv_hidden(),
                    eps: norm.eps,
                    out_stride: padded(rows),
                    routes_at: lowered.state.routes_at,
                    groups_at: lowered.state.groups_at,
                    max_pairs: lowered.settings.limits.max_rows * experts.used,
                    used: experts.used,
                    first_expert,
                    experts: held,
                    weigh: u32::from(experts.gating == Gating::Sigmoid),
                };
                let bindings = grouped_gate_up::Bindings {
                    weights: Slot::Weights(part),
                    scales: Slot::Scales(part),
                    input: Slot::Scaled,
                    state: Slot::State,
                    partials: Slot::Partials,
                    output: Slot::ExpertFeedForward,
                };
                let mut dispatch =
                    self.product(Shape::Many(4), part, rows.div_ceil(2), &[], false, params, &bindings)?;
                dispatch.rows = Rows::ExpertTiles(experts.used, experts.count);
                self.out.body.push(dispatch);
                continue;
            }
            let params = matvec_moe_gate_up::Params {
                rows,
                blocks: layout.blocks as u32,
                scale_stride: layout.scale_stride as u32,
                bias_at: 0,
                rows_at: self.rows_at,
                partials: self.partials,
                partial_stride: lowered.partial_stride(),
                inv_hidden: self.inv_hidden(),
                eps: norm.eps,
                out_stride: padded(rows),
                routes_at: lowered.state.routes_at,
                used: experts.used,
                first_expert,
                experts: held,
                weigh: u32::from(experts.gating == Gating::Sigmoid),
            };
            let bindings = matvec_moe_gate_up::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input: Slot::Scaled,
                state: Slot::State,
                partials: Slot::Partials,
                output: Slot::ExpertFeedForward,
            };
            let mut dispatch = self.product(Shape::Few(1), part, rows.div_ceil(2), &[], false, params, &bindings)?;
            dispatch.rows = Rows::Times(experts.used);
            self.out.body.push(dispatch);
        }
        Ok(())
    }

    fn moe_down(&mut self, down: TensorId, experts: Experts) -> Result<()> {
        let lowered = self.lowered;
        let next_norm = Slot::Norm(lowered.next_norm(self.op)?);
        let rows = (lowered.plan.tensor(down).rows / u64::from(experts.count)) as u32;
        for (part, first_expert, held) in self.expert_parts(&[down], experts) {
            let layout = &lowered.parts[part].layout;
            if self.grouped() {
                let params = grouped_down::Params {
                    rows,
                    blocks: layout.blocks as u32,
                    scale_stride: layout.scale_stride as u32,
                    bias_at: 0,
                    rows_at: self.rows_at,
                    out_stride: padded(lowered.plan.hidden_size),
                    routes_at: lowered.state.routes_at,
                    groups_at: lowered.state.groups_at,
                    max_pairs: lowered.settings.limits.max_rows * experts.used,
                    first_expert,
                    experts: held,
                    weigh: u32::from(experts.gating == Gating::Softmax),
                };
                let bindings = grouped_down::Bindings {
                    weights: Slot::Weights(part),
                    scales: Slot::Scales(part),
                    input: Slot::ExpertFeedForward,
                    state: Slot::State,
                    output: Slot::ExpertOutput,
                };
                let mut dispatch =
                    self.product(Shape::Many(4), part, rows.div_ceil(4), &[], false, params, &bindings)?;
                dispatch.rows = Rows::ExpertTiles(experts.used, experts.count);
                self.out.body.push(dispatch);
                continue;
            }
            let params = matvec_moe_down::Params {
                rows,
                blocks: layout.blocks as u32,
                scale_stride: layout.scale_stride as u32,
                bias_at: 0,
                rows_at: self.rows_at,
                x_stride: padded(lowered.plan.hidden_size),
                partial_stride: lowered.partial_stride(),
                routes_at: lowered.state.routes_at,
                used: experts.used,
                first_expert,
                experts: held,
                weigh: u32::from(experts.gating == Gating::Softmax),
            };
            let bindings = matvec_moe_down::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input: Slot::ExpertFeedForward,
                state: Slot::State,
                next_norm,
                x: Slot::Residual,
                scaled: Slot::Scaled,
                partials_out: Slot::Partials,
            };
            let dispatch = self.product(Shape::Few(1), part, rows.div_ceil(4), &[], false, params, &bindings)?;
            // Every part goes over all of x, so the last one's sums are those of the whole.
            self.partials = dispatch.groups;
            self.out.body.push(dispatch);
        }
        if self.grouped() {
            let params = moe_combine::Params {
                hidden: lowered.plan.hidden_size,
                x_stride: padded(lowered.plan.hidden_size),
                partial_stride: lowered.partial_stride(),
                used: experts.used,
            };
            let bindings = moe_combine::Bindings {
                given: Slot::ExpertOutput,
                next_norm,
                x: Slot::Residual,
                scaled: Slot::Scaled,
                partials_out: Slot::Partials,
            };
            let dispatch = self.push(&[], params, &bindings, 1, Rows::Tokens(1))?;
            self.out.body.push(dispatch);
            self.partials = 1;
        }
        Ok(())
    }

    fn attention(
        &mut self,
        heads: &Heads,
        cache: usize,
        scale: f32,
        mask: Mask,
        temperature: Option<Temperature>,
    ) -> Result<()> {
        let lowered = self.lowered;
        let group = heads.heads / heads.kv_heads;
        let quads = Lowered::head_stride(heads) / 4;
        if quads > MAX_QUADS {
            return Err(Error::unsupported(format!("heads of {} values; at most {}", heads.head_dim, MAX_QUADS * 4)));
        }
        if lowered.settings.cache == CacheType::Q8_0 {
            self.cache_store(heads, cache)?;
        }
        let (window, chunk) = match mask {
            Mask::Causal => (0, 0),
            Mask::Window(n) => (n, 0),
            Mask::Chunk(n) => (0, n),
        };
        // Queries of a tile: a multiple of 4 that fits. Where heads are too long for four, row by row.
        let queries = (TILE_QUERY_QUADS / quads / 4 * 4).min(TILE_QUERIES);
        let tile = variant("attention_tile", &[self.kv()]);
        let right = tile.is_some_and(|tile| !lowered.settings.is_wrong(&tile));
        let tiled = matches!(self.shape, Shape::Many(_)) && queries > 0 && right;
        let most = if tiled {
            queries
        } else if quads * 8 <= PART_QUADS {
            8
        } else {
            4
        };
        let parts = group.div_ceil(most);
        let part_heads = group.div_ceil(parts);
        let groups = heads.kv_heads * parts;
        let params = attention::Params {
            rows_at: self.rows_at,
            pages_at: lowered.state.pages_at,
            pages_per_seq: lowered.settings.limits.max_pages_per_seq,
            kv_heads: heads.kv_heads,
            group,
            part_heads,
            parts,
            head_dim: heads.head_dim,
            head_quads: quads,
            heads: heads.heads,
            out_stride: padded(heads.heads * heads.head_dim),
            scale,
            window,
            chunk,
            temperature: temperature.map_or(0.0, |t| t.scale),
            temperature_floor: temperature.map_or(1.0, |t| t.floor_scale),
        };
        let (state, query, cache, output) = (Slot::State, Slot::Query, Slot::Cache(cache), Slot::Attention);
        if tiled {
            let tile_tokens = queries / part_heads;
            let mut keys = lowered.settings.limits.page_size;
            while keys * (quads + 1) > TILE_KEY_QUADS {
                keys /= 2;
            }
            let attention::Params { rows_at, pages_at, pages_per_seq, kv_heads, head_dim, out_stride, .. } = params;
            let attention::Params { head_quads, heads, temperature, temperature_floor, .. } = params;
            let params = attention_tile::Params {
                rows_at,
                pages_at,
                pages_per_seq,
                kv_heads,
                group,
                part_heads,
                parts,
                head_dim,
                head_quads,
                heads,
                out_stride,
                scale,
                window,
                chunk,
                temperature,
                temperature_floor,
                tile_tokens,
                keys,
            };
            let bindings = attention_tile::Bindings { state, query, cache, output };
            let dispatch = self.push(&[self.kv()], params, &bindings, groups, Rows::Tokens(tile_tokens))?;
            self.out.body.push(dispatch);
            return Ok(());
        }
        let fours = if part_heads > 4 { "2" } else { "1" };
        let bindings = attention::Bindings { state, query, cache, output };
        if !self.split {
            let dispatch = self.push(&[self.kv(), fours], params, &bindings, groups, Rows::Tokens(1))?;
            self.out.body.push(dispatch);
            return Ok(());
        }
        let bindings = attention_split::Bindings { state, query, cache, output: Slot::AttentionParts };
        let params: attention_split::Params = bytemuck::cast(params);
        let mut dispatch = self.push(&[self.kv(), fours], params, &bindings, groups, Rows::Tokens(1))?;
        dispatch.split = true;
        self.out.body.push(dispatch);
        let params = attention_combine::Params {
            rows_at: self.rows_at,
            heads: heads.heads,
            head_dim: heads.head_dim,
            head_quads: quads,
            out_stride: padded(heads.heads * heads.head_dim),
            window,
            chunk,
        };
        let bindings = attention_combine::Bindings { state, partial: Slot::AttentionParts, output };
        let dispatch = self.push(&[], params, &bindings, heads.heads, Rows::Tokens(1))?;
        self.out.body.push(dispatch);
        Ok(())
    }

    fn cache_store(&mut self, heads: &Heads, cache: usize) -> Result<()> {
        let params = cache_store::Params {
            rows_at: self.rows_at,
            pages_at: self.lowered.state.pages_at,
            pages_per_seq: self.lowered.settings.limits.max_pages_per_seq,
            kv_heads: heads.kv_heads,
            head_dim: heads.head_dim,
            head_stride: Lowered::head_stride(heads),
        };
        let bindings = cache_store::Bindings { state: Slot::State, rows: Slot::CacheRows, cache: Slot::Cache(cache) };
        let dispatch = self.push(&[], params, &bindings, 2 * heads.kv_heads, Rows::Tokens(1))?;
        self.out.body.push(dispatch);
        Ok(())
    }

    fn residual(&mut self, linear: Linear, input: Slot) -> Result<()> {
        let lowered = self.lowered;
        let next_norm = Slot::Norm(lowered.next_norm(self.op)?);
        let (mut out_at, mut partial_at) = (0, 0);
        for part in lowered.parts_of(&[linear]) {
            let matrix = &lowered.parts[part];
            let params = matvec_residual::Params {
                rows: matrix.rows as u32,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: matrix.bias_at() as u32,
                rows_at: self.rows_at,
                x_stride: padded(lowered.plan.hidden_size),
                partial_stride: lowered.partial_stride(),
                out_at,
                partial_at,
            };
            let bindings = matvec_residual::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input,
                state: Slot::State,
                next_norm,
                x: Slot::Residual,
                scaled: Slot::Scaled,
                partials_out: Slot::Partials,
            };
            let quads = (matrix.rows as u32).div_ceil(4);
            let dispatch = self.product(self.shape, part, quads, &[], false, params, &bindings)?;
            out_at += matrix.rows as u32;
            partial_at += dispatch.groups;
            self.out.body.push(dispatch);
        }
        if partial_at > lowered.partial_stride() {
            return Err(Error::internal(format!("{partial_at} partial sums")));
        }
        self.partials = partial_at;
        Ok(())
    }

    fn gate_up(&mut self, norm: Norm, gate: Linear, up: Linear) -> Result<()> {
        let lowered = self.lowered;
        let out_stride = padded(lowered.plan.tensor(gate.weight).rows as u32);
        if lowered.runs(&[gate, up]).len() == 2 {
            let gates = self.store(self.shape, norm, gate.weight, Slot::FeedForward, out_stride, false)?;
            self.out.body.extend(gates);
            return self.silu_mul(norm, up, out_stride);
        }
        let mut out_at = 0;
        for part in lowered.parts_of(&[gate, up]) {
            let matrix = &lowered.parts[part];
            let rows = matrix.rows as u32 / 2;
            let params = matvec_gate_up::Params {
                rows,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: matrix.bias_at() as u32,
                rows_at: self.rows_at,
                partials: self.partials,
                partial_stride: lowered.partial_stride(),
                inv_hidden: self.inv_hidden(),
                eps: norm.eps,
                out_stride,
                out_at,
            };
            let bindings = matvec_gate_up::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input: Slot::Scaled,
                state: Slot::State,
                partials: Slot::Partials,
                output: Slot::FeedForward,
            };
            let dispatch = self.product(self.shape, part, rows.div_ceil(2), &[], false, params, &bindings)?;
            out_at += rows;
            self.out.body.push(dispatch);
        }
        Ok(())
    }

    /// `y = W norm(x)` into `output`.
    fn store(
        &self,
        shape: Shape,
        norm: Norm,
        weight: TensorId,
        output: Slot,
        out_stride: u32,
        by_head: bool,
    ) -> Result<Vec<Dispatch>> {
        let lowered = self.lowered;
        let mut dispatches = Vec::new();
        let mut out_at = 0;
        for part in lowered.parts_of(&[Linear { weight, bias: None }]) {
            let matrix = &lowered.parts[part];
            let params = matvec_store::Params {
                rows: matrix.rows as u32,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: matrix.bias_at() as u32,
                rows_at: self.rows_at,
                partials: self.partials,
                partial_stride: lowered.partial_stride(),
                inv_hidden: self.inv_hidden(),
                eps: norm.eps,
                out_stride,
                out_at,
                by_head: u32::from(by_head),
            };
            let bindings = matvec_store::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input: Slot::Scaled,
                state: Slot::State,
                partials: Slot::Partials,
                output,
            };
            let quads = (matrix.rows as u32).div_ceil(4);
            dispatches.push(self.product(shape, part, quads, &[], by_head, params, &bindings)?);
            out_at += matrix.rows as u32;
        }
        Ok(dispatches)
    }

    fn head(&self, shape: Shape, norm: Norm, weight: TensorId) -> Result<Vec<Dispatch>> {
        self.store(shape, norm, weight, Slot::Logits, self.lowered.plan.vocab_size, true)
    }

    fn silu_mul(&mut self, norm: Norm, up: Linear, out_stride: u32) -> Result<()> {
        let lowered = self.lowered;
        let mut out_at = 0;
        for part in lowered.parts_of(&[up]) {
            let matrix = &lowered.parts[part];
            let params = matvec_silu_mul::Params {
                rows: matrix.rows as u32,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: matrix.bias_at() as u32,
                rows_at: self.rows_at,
                partials: self.partials,
                partial_stride: lowered.partial_stride(),
                inv_hidden: self.inv_hidden(),
                eps: norm.eps,
                out_stride,
                out_at,
            };
            let bindings = matvec_silu_mul::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input: Slot::Scaled,
                state: Slot::State,
                partials: Slot::Partials,
                output: Slot::FeedForward,
            };
            let quads = (matrix.rows as u32).div_ceil(4);
            let dispatch = self.product(self.shape, part, quads, &[], false, params, &bindings)?;
            out_at += matrix.rows as u32;
            self.out.body.push(dispatch);
        }
        Ok(())
    }
}
