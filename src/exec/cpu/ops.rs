//! What lies between the matrices, a row at a time.

use super::simd::{exp, f_add, f_div, f_min, f_mul, f_splat, f_sum, load, madd, store};
use crate::plan::Rope;

/// Calls `op` with the offset of every four values below `n` that are whole; the others are left.
#[inline(always)]
fn fours(n: usize, mut op: impl FnMut(usize)) -> std::ops::Range<usize> {
    let whole = n / 4 * 4;
    (0..whole).step_by(4).for_each(&mut op);
    whole..n
}

/// `x / sqrt(mean(x^2) + eps)`: what each value is multiplied with.
fn norm_scale(x: &[f32], eps: f32) -> f32 {
    let mut sums = [f_splat(0.0); 2];
    let rest = fours(x.len(), |i| {
        // SAFETY: four values from `i` on.
        let v = unsafe { load(x.as_ptr().add(i).cast()) };
        sums[i / 4 % 2] = madd(v, v, sums[i / 4 % 2]);
    });
    let squares = f_sum(f_add(sums[0], sums[1])) + x[rest].iter().map(|v| v * v).sum::<f32>();
    1.0 / (squares / x.len() as f32 + eps).sqrt()
}

/// `x / sqrt(mean(x^2) + eps) * weight`
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut Vec<f32>) {
    let scale = norm_scale(x, eps);
    out.clear();
    out.extend(x.iter().zip(weight).map(|(x, w)| x * scale * w));
}

/// Divided by the root mean square.
pub fn head_norm(x: &mut [f32], eps: f32) {
    let scale = norm_scale(x, eps);
    x.iter_mut().for_each(|x| *x *= scale);
}

/// `[cos, sin]` of each pair at a position.
pub fn rope_angles(rope: &Rope, pos: u32, out: &mut Vec<[f32; 2]>) {
    let magnitude = f64::from(rope.magnitude);
    out.extend(rope.inv_freq.iter().map(|freq| {
        let (sin, cos) = (f64::from(pos) * freq).sin_cos();
        [(cos * magnitude) as f32, (sin * magnitude) as f32]
    }));
}

/// Rotates adjacent pairs of each head.
pub fn rotate(x: &mut [f32], head_dim: usize, angles: &[[f32; 2]]) {
    for head in x.chunks_exact_mut(head_dim) {
        for (pair, [cos, sin]) in head.chunks_exact_mut(2).zip(angles) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cos - b * sin;
            pair[1] = a * sin + b * cos;
        }
    }
}

/// `x += y`
pub fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `x += weight * y`
pub fn add_scaled(x: &mut [f32], y: &[f32], weight: f32) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += weight * y);
}

/// `gate = silu(gate) * up`
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let rest = fours(gate.len(), |i| {
        // SAFETY: four values from `i` on, in both.
        unsafe {
            let at = gate.as_mut_ptr().add(i).cast::<u8>();
            let g = load(at);
            let e = exp(f_min(f_mul(g, f_splat(-1.0)), f_splat(87.0)));
            let silu = f_div(g, f_add(e, f_splat(1.0)));
            store(at, f_mul(silu, load(up.as_ptr().add(i).cast())));
        }
    });
    for i in rest {
        gate[i] = gate[i] / (1.0 + (-gate[i]).exp()) * up[i];
    }
}
