//! The operations of a model as plain data.
//!
//! `model/` writes a [`Plan`] from a config; an executor (`exec/`) runs it. A plan can be
//! printed, counted and checked on a machine without a GPU. Nothing here knows a file, a device or a
//! particular model.
//!
//! Shapes in this crate use these letters: `T` rows (tokens) in a step, `S` cached positions, `H` attention
//! heads, `KV` key/value heads, `D` head dimension, `E` hidden size, `F` feed-forward size, `V` vocabulary.

mod adjustments;
mod builder;
pub mod fine;
mod layout;
mod logprobs;
mod op;
mod routing;
mod sampling;
mod trace;
mod value;

pub use adjustments::{History, Penalties, SequenceSampling, TokenCounts, TokenMask};
pub use layout::{BufferId, BufferSpec, Layout};
pub use logprobs::{Logprobs, TokenLogprob};
pub use op::{AttentionSpec, Input, Op};
pub use routing::{pick_experts, route, routes};
pub use sampling::{MAX_BIASES, Sampler, Sampling, exponential, ordered_key};
pub use trace::{Edit, EditKind, Hook, Point, Tap, Trace, Traced};
pub use value::{Role, Value, ValueId};

use crate::quant::DType;
use std::fmt::Write as _;

/// One token of a step: which token, of which sequence, at which position.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token id, below the vocabulary size.
    pub token: u32,
    /// Sequence slot, below the executor's `Limits::max_seqs`.
    pub seq: u32,
    /// Position in the sequence, from 0.
    pub pos: u32,
}

/// Index of a tensor in [`Plan::tensors`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// One weight that the plan reads. A vector (norm weight, bias) has `rows == 1`.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name in the checkpoint, for messages and for the loader.
    pub name: String,
    /// Stored type.
    pub dtype: DType,
    /// Output rows of a matrix.
    pub rows: u64,
    /// Values per row.
    pub cols: u64,
}

impl TensorSpec {
    /// Stored bytes of one row.
    pub fn row_bytes(&self) -> u64 {
        self.dtype.row_bytes(self.cols).unwrap_or(0)
    }

    /// Stored bytes of the whole tensor.
    pub fn bytes(&self) -> u64 {
        self.rows * self.row_bytes()
    }
}

/// RMSNorm: `x / sqrt(mean(x^2) + eps) * weight` (Zhang & Sennrich 2019).
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Norm {
    /// `[E]`
    pub weight: TensorId,
    /// Added to the mean square.
    pub eps: f32,
}

/// `y = W x (+ bias)`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[out, in]`
    pub weight: TensorId,
    /// `[out]`
    pub bias: Option<TensorId>,
}

/// Rotary position embedding (Su et al. 2021) over adjacent pairs `(2j, 2j+1)` of each head.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Angle per position of pair `j`, all scaling applied. Pairs beyond the list are not rotated.
    pub inv_freq: Vec<f64>,
    /// Multiplies cos and sin (YaRN's attention factor; 1 elsewhere).
    pub magnitude: f32,
}

/// Attention geometry of one operation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    /// `H`
    pub heads: u32,
    /// `KV`; divides `H`.
    pub kv_heads: u32,
    /// `D`
    pub head_dim: u32,
}

/// Which cached positions a query at position `p` sees (all are causal: none beyond `p`).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// `0 ..= p`
    Causal,
    /// The last `n` positions including `p` (sliding window).
    Window(u32),
    /// Positions of the same block of `n` as `p` (chunked attention).
    Chunk(u32),
}

impl Mask {
    /// First position visible from `pos`.
    pub fn first(self, pos: u32) -> u32 {
        match self {
            Self::Causal => 0,
            Self::Window(n) => (pos + 1).saturating_sub(n),
            Self::Chunk(n) => pos - pos % n,
        }
    }
}

/// Makes attention sharper far from the start (LLaMA 4's layers without rope): scores of a query at position `p` are
/// multiplied by `1 + scale * ln(1 + floor((p + 1) / floor_scale))`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Temperature {
    /// Positions per step.
    pub floor_scale: f32,
    /// Growth.
    pub scale: f32,
}

impl Temperature {
    /// The factor at a position.
    pub fn at(self, pos: u32) -> f64 {
        let steps = (f64::from(pos + 1) / f64::from(self.floor_scale)).floor();
        1.0 + f64::from(self.scale) * steps.ln_1p()
    }
}

/// How a router's logits become the weights of the experts that it picks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all, the largest picked, their weights made to sum to 1; they weigh what the experts give
    /// (Mixtral).
    Softmax,
    /// The largest picked, the sigmoid of each; they weigh what the experts get (LLaMA 4).
    Sigmoid,
}

/// A mixture of experts. Their matrices are stacked: expert `x` has rows `x R .. (x + 1) R`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Experts {
    /// `X`, at most [`MAX_EXPERTS`].
    pub count: u32,
    /// Experts per row, at most [`MAX_EXPERTS_USED`].
    pub used: u32,
    /// How they are weighed.
    pub gating: Gating,
}

/// Experts that executors have room for.
pub const MAX_EXPERTS: u32 = 256;
/// Experts per row that executors have room for.
pub const MAX_EXPERTS_USED: u32 = 16;

/// Geometry of one key/value cache.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CacheSpec {
    /// `KV`
    pub kv_heads: u32,
    /// `D`
    pub head_dim: u32,
}

/// A model as a flat list of operations over named tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// All weights, each once (tied weights share an entry).
    pub tensors: Vec<TensorSpec>,
    /// Rope tables that [`Op::QkvRope`] refers to.
    pub ropes: Vec<Rope>,
    /// Key/value caches that operations refer to.
    pub caches: Vec<CacheSpec>,
    /// What operations read and write.
    pub values: Vec<Value>,
    /// Executed in order.
    pub ops: Vec<Op>,
    /// `E`
    pub hidden_size: u32,
    /// `V`
    pub vocab_size: u32,
    /// Positions that a sequence may use.
    pub context_length: u32,
    /// The layer that is being written.
    layer: Option<u32>,
}

impl Plan {
    /// The tensor behind an id.
    pub fn tensor(&self, id: TensorId) -> &TensorSpec {
        &self.tensors[id.0]
    }

    /// The value behind an id.
    pub fn value_spec(&self, id: ValueId) -> Value {
        self.values[id.0]
    }

    /// The first value of a role.
    pub fn first(&self, role: Role) -> Option<ValueId> {
        self.values
            .iter()
            .position(|value| value.role == role)
            .map(ValueId)
    }

    /// The last value of a role.
    pub fn last(&self, role: Role) -> Option<ValueId> {
        self.values
            .iter()
            .rposition(|value| value.role == role)
            .map(ValueId)
    }

    /// Weight bytes, each tensor once.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors.iter().map(TensorSpec::bytes).sum()
    }

    /// Bytes of one cached position over all caches, for `value_bytes` per cached value.
    pub fn cache_bytes_per_position(&self, value_bytes: u64) -> u64 {
        self.caches
            .iter()
            .map(|c| 2 * u64::from(c.kv_heads) * u64::from(c.head_dim) * value_bytes)
            .sum()
    }

    /// Weight bytes that one decoded token must read: every tensor but the embedding table, of which it reads
    /// one row (a tied table is read whole by the head), and of experts those that are used.
    pub fn bytes_per_token(&self) -> u64 {
        let head = self.ops.iter().find_map(|op| match op {
            Op::LmHead { weight, .. } => Some(*weight),
            _ => None,
        });
        let table = self.ops.iter().find_map(|op| match op {
            Op::Embed { table, .. } => Some(*table),
            _ => None,
        });
        let mut bytes = self.weight_bytes();
        if let Some(table) = table {
            let spec = self.tensor(table);
            if head != Some(table) {
                bytes -= spec.bytes();
            }
            bytes += spec.row_bytes();
        }
        for op in &self.ops {
            let (tensors, experts) = match op {
                Op::MoeGateUpSilu {
                    gate, up, experts, ..
                } => (vec![*gate, *up], experts),
                Op::MoeDownResidual { down, experts, .. } => (vec![*down], experts),
                _ => continue,
            };
            let whole: u64 = tensors.iter().map(|id| self.tensor(*id).bytes()).sum();
            bytes -= whole / u64::from(experts.count) * u64::from(experts.count - experts.used);
        }
        bytes
    }

    /// The plan as text, one operation a line.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for op in &self.ops {
            let _ = writeln!(out, "{op:?}");
        }
        out
    }
}
