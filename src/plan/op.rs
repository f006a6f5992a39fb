//! The operations of a plan.

use super::{Experts, Gating, Heads, Linear, Mask, Norm, Temperature, TensorId, ValueId};

/// A value of `E` columns as an operation reads it: normalised, where a norm is given.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Input {
    /// `[T, E]`
    pub x: ValueId,
    /// Applied to `x` first; `None`: `x` is read as it is.
    pub norm: Option<Norm>,
}

/// Attention over a cache, but for its values: what [`Op::Attention`], [`Op::Scores`] and [`Op::Mix`] share.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Geometry.
    pub heads: Heads,
    /// Index into [`Plan::caches`](super::Plan::caches).
    pub cache: usize,
    /// Multiplies the scores (`1/sqrt(D)`).
    pub scale: f32,
    /// Visible positions.
    pub mask: Mask,
    /// Further scale by position.
    pub temperature: Option<Temperature>,
}

impl AttentionSpec {
    /// What the scores of a query at `pos` are multiplied by.
    pub fn scale_at(&self, pos: u32) -> f64 {
        f64::from(self.scale) * self.temperature.map_or(1.0, |t| t.at(pos))
    }
}

/// One operation. It names the values that it reads and those that it writes.
///
/// A model's plan has the coarse operations, [`Op::Embed`] to [`Op::Sample`]. The fine ones below them compute the same
/// in more steps; a [trace](super::Trace) puts them in the place of a coarse one whose inner values are asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out = table[token]`
    Embed {
        /// `[V, E]`
        table: TensorId,
        /// `[T, E]`
        out: ValueId,
    },
    /// `q, k, v = W input + b`; rope on `q` and `k`; `k`, `v` go into the cache at the row's position.
    QkvRope {
        /// `[T, E]`
        input: Input,
        /// `[H D, E]`
        q: Linear,
        /// `[KV D, E]`
        k: Linear,
        /// `[KV D, E]`
        v: Linear,
        /// Geometry.
        heads: Heads,
        /// Index into [`Plan::ropes`](super::Plan::ropes); `None`: no rotation.
        rope: Option<usize>,
        /// Index into [`Plan::caches`](super::Plan::caches).
        cache: usize,
        /// `[T, H, D]`
        query: ValueId,
    },
    /// Queries, and keys at the rows' positions: each head divided by its root mean square, times a weight (Qwen 3), then
    /// rotated. LLaMA 4 has neither a weight nor a rotation here.
    QkNorm {
        /// `[T, H, D]`
        query: ValueId,
        /// In the place of `query`.
        out: ValueId,
        /// Geometry.
        heads: Heads,
        /// Index into [`Plan::caches`](super::Plan::caches).
        cache: usize,
        /// Added to the mean square.
        eps: f32,
        /// `[D]`: of queries, of keys.
        weights: Option<[TensorId; 2]>,
        /// Index into [`Plan::ropes`](super::Plan::ropes); `None`: no rotation.
        rope: Option<usize>,
    },
    /// `out = softmax(scale q k^T) v` over the cache, per head.
    Attention {
        /// `[T, H, D]`
        query: ValueId,
        /// How.
        spec: AttentionSpec,
        /// `[T, H, D]`
        out: ValueId,
    },
    /// `out = x + W input + b`: the output projection of attention, or the down projection.
    Residual {
        /// `[T, H D]` or `[T, F]`
        input: ValueId,
        /// `[E, H D]` or `[E, F]`
        linear: Linear,
        /// `[T, E]`
        x: ValueId,
        /// In the place of `x`.
        out: ValueId,
    },
    /// `out = silu(Wg input) * (Wu input)`
    GateUpSilu {
        /// `[T, E]`
        input: Input,
        /// `[F, E]`
        gate: Linear,
        /// `[F, E]`
        up: Linear,
        /// `[T, F]`
        out: ValueId,
    },
    /// Each row's experts and their weights, from `W input`.
    MoeRoute {
        /// `[T, E]`
        input: Input,
        /// `[X, E]`
        router: TensorId,
        /// How many, of how many.
        experts: Experts,
        /// `[T, used, 2]`
        out: ValueId,
    },
    /// `out = silu(Wg input) * (Wu input)` for each expert of a row.
    MoeGateUpSilu {
        /// `[T, E]`
        input: Input,
        /// `[T, used, 2]`
        routes: ValueId,
        /// `[X F, E]`
        gate: TensorId,
        /// `[X F, E]`
        up: TensorId,
        /// As routed.
        experts: Experts,
        /// `[T, used, F]`
        out: ValueId,
    },
    /// `out = x + sum of W input` over the experts of a row.
    MoeDownResidual {
        /// `[T, used, F]`
        input: ValueId,
        /// `[T, used, 2]`
        routes: ValueId,
        /// `[X E, F]`
        down: TensorId,
        /// As routed.
        experts: Experts,
        /// `[T, E]`
        x: ValueId,
        /// In the place of `x`.
        out: ValueId,
    },
    /// `out = W input` for the rows asked for.
    LmHead {
        /// `[T, E]`
        input: Input,
        /// `[V, E]`
        weight: TensorId,
        /// `[logit rows, V]`
        out: ValueId,
    },
    /// `logits -> token id`, by the sequence's [`Sampling`](super::Sampling).
    Sample {
        /// `[logit rows, V]`
        logits: ValueId,
    },

    /// `out = sqrt(mean(x^2) + eps)` of each row.
    NormScale {
        /// `[T, E]`
        x: ValueId,
        /// Added to the mean square.
        eps: f32,
        /// `[T, 1]`
        out: ValueId,
    },
    /// `out = x / scale`
    Normalize {
        /// `[T, E]`
        x: ValueId,
        /// `[T, 1]`
        scale: ValueId,
        /// `[T, E]`
        out: ValueId,
    },
    /// `out = x * weight`, column by column.
    Weigh {
        /// `[T, E]`
        x: ValueId,
        /// `[E]`
        weight: TensorId,
        /// `[T, E]`
        out: ValueId,
    },
    /// `out[i] = W[i] x + b[i]`, for matrices that a coarse operation multiplies with the same input.
    Linears {
        /// `[T, in]`
        x: ValueId,
        /// `[out, in]` each, and where its product goes: `[T, out]`.
        linears: Vec<(Linear, ValueId)>,
    },
    /// Rotates each head.
    Rope {
        /// `[T, heads, D]`
        x: ValueId,
        /// Heads of `x`.
        heads: u32,
        /// `D`
        head_dim: u32,
        /// Index into [`Plan::ropes`](super::Plan::ropes); `None`: `out` is `x`.
        rope: Option<usize>,
        /// `[T, heads, D]`
        out: ValueId,
    },
    /// Each head divided by its root mean square, times a weight.
    HeadNorm {
        /// `[T, heads, D]`
        x: ValueId,
        /// `[D]`
        weight: Option<TensorId>,
        /// `D`
        head_dim: u32,
        /// Added to the mean square.
        eps: f32,
        /// In the place of `x`.
        out: ValueId,
    },
    /// Puts keys and values into the cache at the rows' positions.
    StoreKv {
        /// `[T, KV, D]`
        key: ValueId,
        /// `[T, KV, D]`
        value: ValueId,
        /// Geometry.
        heads: Heads,
        /// Index into [`Plan::caches`](super::Plan::caches).
        cache: usize,
    },
    /// `out = scale q k^T` over the cache; minus infinity where a row does not see a position.
    Scores {
        /// `[T, H, D]`
        query: ValueId,
        /// How.
        spec: AttentionSpec,
        /// `[T, H, S]`
        out: ValueId,
    },
    /// `out = softmax(scores)` over `S`.
    Softmax {
        /// `[T, H, S]`
        scores: ValueId,
        /// `H`
        heads: u32,
        /// `[T, H, S]`
        out: ValueId,
    },
    /// `out = pattern v` over the cache.
    Mix {
        /// `[T, H, S]`
        pattern: ValueId,
        /// How.
        spec: AttentionSpec,
        /// `[T, H, D]`
        out: ValueId,
    },
    /// `out = silu(gate) * up`
    SiluMul {
        /// `[T, F]`
        gate: ValueId,
        /// `[T, F]`
        up: ValueId,
        /// `[T, F]`
        out: ValueId,
    },
    /// `out = 0`
    Zero {
        /// `[T, E]`
        out: ValueId,
    },
    /// `out = x + y`
    Add {
        /// `[T, E]`
        x: ValueId,
        /// `[T, E]`
        y: ValueId,
        /// In the place of `x`.
        out: ValueId,
    },
    /// The weights that all experts would have: softmax or sigmoid of the router's logits.
    ExpertWeights {
        /// `[T, X]`
        logits: ValueId,
        /// Which.
        gating: Gating,
        /// `[T, X]`
        out: ValueId,
    },
    /// The experts of largest weight; after a softmax their weights are made to sum to 1.
    PickExperts {
        /// `[T, X]`
        weights: ValueId,
        /// How many, of how many.
        experts: Experts,
        /// `[T, used, 2]`
        out: ValueId,
    },
}

impl Op {
    /// The operation's name, in snake case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embed { .. } => "embed",
            Self::QkvRope { .. } => "qkv_rope",
            Self::QkNorm { .. } => "qk_norm",
            Self::Attention { .. } => "attention",
            Self::Residual { .. } => "residual",
            Self::GateUpSilu { .. } => "gate_up_silu",
            Self::MoeRoute { .. } => "moe_route",
            Self::MoeGateUpSilu { .. } => "moe_gate_up_silu",
            Self::MoeDownResidual { .. } => "moe_down_residual",
            Self::LmHead { .. } => "lm_head",
            Self::Sample { .. } => "sample",
            Self::NormScale { .. } => "norm_scale",
            Self::Normalize { .. } => "normalize",
            Self::Weigh { .. } => "weigh",
            Self::Linears { .. } => "linears",
            Self::Rope { .. } => "rope",
            Self::HeadNorm { .. } => "head_norm",
            Self::StoreKv { .. } => "store_kv",
            Self::Scores { .. } => "scores",
            Self::Softmax { .. } => "softmax",
            Self::Mix { .. } => "mix",
            Self::SiluMul { .. } => "silu_mul",
            Self::Zero { .. } => "zero",
            Self::Add { .. } => "add",
            Self::ExpertWeights { .. } => "expert_weights",
            Self::PickExperts { .. } => "pick_experts",
        }
    }

    /// The values that this operation reads.
    pub fn reads(&self) -> Vec<ValueId> {
        match self {
            Self::Embed { .. } | Self::Zero { .. } => Vec::new(),
            Self::QkvRope { input, .. }
            | Self::GateUpSilu { input, .. }
            | Self::MoeRoute { input, .. }
            | Self::LmHead { input, .. } => vec![input.x],
            Self::QkNorm { query, .. }
            | Self::Attention { query, .. }
            | Self::Scores { query, .. } => {
                vec![*query]
            }
            Self::Residual { input, x, .. } => vec![*input, *x],
            Self::MoeGateUpSilu { input, routes, .. } => vec![input.x, *routes],
            Self::MoeDownResidual {
                input, routes, x, ..
            } => vec![*input, *routes, *x],
            Self::Sample { logits } | Self::ExpertWeights { logits, .. } => vec![*logits],
            Self::NormScale { x, .. }
            | Self::Weigh { x, .. }
            | Self::Linears { x, .. }
            | Self::Rope { x, .. }
            | Self::HeadNorm { x, .. } => vec![*x],
            Self::Normalize { x, scale, .. } => vec![*x, *scale],
            Self::StoreKv { key, value, .. } => vec![*key, *value],
            Self::Softmax { scores, .. } => vec![*scores],
            Self::Mix { pattern, .. } => vec![*pattern],
            Self::SiluMul { gate, up, .. } => vec![*gate, *up],
            Self::Add { x, y, .. } => vec![*x, *y],
            Self::PickExperts { weights, .. } => vec![*weights],
        }
    }

    /// The values that this operation writes. What goes into a cache is none.
    pub fn writes(&self) -> impl Iterator<Item = ValueId> + '_ {
        let (one, several): (Option<ValueId>, &[(Linear, ValueId)]) = match self {
            Self::Sample { .. } | Self::StoreKv { .. } => (None, &[]),
            Self::Linears { linears, .. } => (None, linears),
            Self::QkvRope { query, .. } => (Some(*query), &[]),
            Self::Embed { out, .. }
            | Self::QkNorm { out, .. }
            | Self::Attention { out, .. }
            | Self::Residual { out, .. }
            | Self::GateUpSilu { out, .. }
            | Self::MoeRoute { out, .. }
            | Self::MoeGateUpSilu { out, .. }
            | Self::MoeDownResidual { out, .. }
            | Self::LmHead { out, .. }
            | Self::NormScale { out, .. }
            | Self::Normalize { out, .. }
            | Self::Weigh { out, .. }
            | Self::Rope { out, .. }
            | Self::HeadNorm { out, .. }
            | Self::Scores { out, .. }
            | Self::Softmax { out, .. }
            | Self::Mix { out, .. }
            | Self::SiluMul { out, .. }
            | Self::Zero { out }
            | Self::Add { out, .. }
            | Self::ExpertWeights { out, .. }
            | Self::PickExperts { out, .. } => (Some(*out), &[]),
        };
        one.into_iter().chain(several.iter().map(|(_, out)| *out))
    }

    /// The value that this operation overwrites, and what it is then.
    pub fn in_place(&self) -> Option<(ValueId, ValueId)> {
        match self {
            Self::QkNorm { query: x, out, .. }
            | Self::Residual { x, out, .. }
            | Self::MoeDownResidual { x, out, .. }
            | Self::HeadNorm { x, out, .. }
            | Self::Add { x, out, .. } => Some((*x, *out)),
            _ => None,
        }
    }

    /// The mixture that this operation runs, if it does.
    pub fn experts(&self) -> Option<Experts> {
        match self {
            Self::MoeRoute { experts, .. }
            | Self::MoeGateUpSilu { experts, .. }
            | Self::MoeDownResidual { experts, .. } => Some(*experts),
            _ => None,
        }
    }

    /// The value that this operation reads through a norm, if it has one.
    pub fn input(&self) -> Option<Input> {
        match self {
            Self::QkvRope { input, .. }
            | Self::GateUpSilu { input, .. }
            | Self::MoeRoute { input, .. }
            | Self::MoeGateUpSilu { input, .. }
            | Self::LmHead { input, .. } => Some(*input),
            _ => None,
        }
    }

    /// The norm that this operation applies to its input, if it has one.
    pub fn norm(&self) -> Option<Norm> {
        self.input()?.norm
    }
}
