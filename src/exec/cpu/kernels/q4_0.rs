//! `Q4_0`: `d[4]: f16, nibbles`

use super::super::formats::{Format, Lane, finite, halves, nibbles, simple};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, f_mul, f_splat, zero};
use crate::quant::blocks::split_nibbles;

pub(super) const KERNELS: Kernels = kernels::<Q4_0>();

simple!(Q4_0, 4, 64, nibbles, zero 8, |block, lane| {
    lane.put(0, &block[..2]);
    lane.nibbles(8, &split_nibbles(&block[2..]));
});
