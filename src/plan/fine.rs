//! Fine operations on rows: their definition, shared by the executors that run on the processor.

use super::{Gating, Rope, Row};

/// `sqrt(mean(x^2) + eps)` of each row of `width` values.
pub fn norm_scale(x: &[f32], width: usize, eps: f32) -> Vec<f32> {
    let scale = |row: &[f32]| {
        let squares: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        (squares / width as f64 + f64::from(eps)).sqrt() as f32
    };
    x.chunks_exact(width).map(scale).collect()
}

/// `x / scale`, a scale for each row.
pub fn normalize(x: &[f32], scale: &[f32]) -> Vec<f32> {
    let width = x.len() / scale.len().max(1);
    x.iter()
        .enumerate()
        .map(|(i, v)| v / scale[i / width])
        .collect()
}

/// `x * weight`, column by column.
pub fn weigh(x: &[f32], weight: &[f32]) -> Vec<f32> {
    x.iter()
        .enumerate()
        .map(|(i, v)| v * weight[i % weight.len()])
        .collect()
}

/// The RMSNorm of one row, with the norm's weight.
pub fn norm(x: &[f32], eps: f32, weight: &[f32]) -> Vec<f32> {
    weigh(&normalize(x, &norm_scale(x, x.len(), eps)), weight)
}

/// `silu(gate) * up`
pub fn silu_mul(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let one =
        |(g, u): (&f32, &f32)| (f64::from(*g) / (1.0 + f64::from(-g).exp()) * f64::from(*u)) as f32;
    gate.iter().zip(up).map(one).collect()
}

/// Softmax of each row of `width` values.
pub fn softmax(x: &[f32], width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width.max(1)) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f64> = row.iter().map(|v| f64::from(v - most).exp()).collect();
        let total: f64 = shares.iter().sum();
        out.extend(shares.iter().map(|share| (share / total) as f32));
    }
    out
}

/// The weights that all of `count` experts would have.
pub fn expert_weights(logits: &[f32], count: usize, gating: Gating) -> Vec<f32> {
    match gating {
        Gating::Softmax => softmax(logits, count),
        Gating::Sigmoid => logits
            .iter()
            .map(|v| (1.0 / (1.0 + f64::from(-v).exp())) as f32)
            .collect(),
    }
}

/// Rotates adjacent pairs of each head of `[T, heads, D]` by the row's position.
pub fn rope(values: &mut [f32], rows: &[Row], heads: u32, head_dim: u32, rope: &Rope) {
    let (heads, d) = (heads as usize, head_dim as usize);
    for (t, row) in rows.iter().enumerate() {
        for h in 0..heads {
            let head = &mut values[(t * heads + h) * d..][..d];
            for (j, freq) in rope.inv_freq.iter().enumerate() {
                let (sin, cos) = (f64::from(row.pos) * freq).sin_cos();
                let (sin, cos) = (
                    sin * f64::from(rope.magnitude),
                    cos * f64::from(rope.magnitude),
                );
                let (a, b) = (f64::from(head[2 * j]), f64::from(head[2 * j + 1]));
                head[2 * j] = (a * cos - b * sin) as f32;
                head[2 * j + 1] = (a * sin + b * cos) as f32;
            }
        }
    }
}

/// Each vector of `head_dim` divided by its root mean square, times the weight.
pub fn head_norm(values: &mut [f32], head_dim: u32, eps: f32, weight: Option<&[f32]>) {
    for head in values.chunks_exact_mut(head_dim as usize) {
        let squares: f64 = head.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let scale = 1.0 / (squares / head.len() as f64 + f64::from(eps)).sqrt();
        for (i, v) in head.iter_mut().enumerate() {
            *v = (f64::from(*v) * scale * weight.map_or(1.0, |weight| f64::from(weight[i]))) as f32;
        }
    }
}
