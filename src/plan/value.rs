//! What operations read and write: values with a role, a layer and a shape.

/// Index of a value in [`Plan::values`](super::Plan::values).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// What a value is. The letters of the shapes are those of the [module](super).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The residual stream, `[T, E]`.
    Residual,
    /// Queries as attention reads them, `[T, H, D]`.
    Query,
    /// The heads' outputs, `[T, H, D]`.
    Attention,
    /// The feed-forward activation `silu(gate) * up`, `[T, F]`.
    FeedForward,
    /// Each row's experts and their weights, `[T, used, 2]`: index and weight.
    Routes,
    /// The feed-forward activation of each expert of a row, `[T, used, F]`.
    ExpertFeedForward,
    /// Logits of the rows asked for, `[logit rows, V]`.
    Logits,
    /// `sqrt(mean(x^2) + eps)`, `[T, 1]`.
    NormScale,
    /// `x / scale`, `[T, E]`.
    Normalized,
    /// `x / scale * weight`, `[T, E]`.
    NormOutput,
    /// Queries before rope, `[T, H, D]`.
    RawQuery,
    /// Keys before rope, `[T, KV, D]`.
    RawKey,
    /// Keys as attention reads them, `[T, KV, D]`.
    Key,
    /// `[T, KV, D]`
    Value,
    /// Scaled scores, `[T, H, S]`; positions that a row does not see are minus infinity.
    Scores,
    /// Attention weights, `[T, H, S]`.
    Pattern,
    /// `[T, F]`, before its activation function.
    Gate,
    /// `[T, F]`
    Up,
    /// `[T, X]`
    RouterLogits,
    /// Weights of all experts, `[T, X]`.
    ExpertWeights,
}

/// A value of a plan: written by one operation, or set from outside.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What it is.
    pub role: Role,
    /// The layer in which it is written.
    pub layer: Option<u32>,
    /// f32 values per row; 0 where the width grows with the sequence ([`Role::Scores`], [`Role::Pattern`]).
    pub width: u32,
}
