//! `Q4_1`: `d[4]: f16, m[4]: f16, nibbles`

use super::super::formats::{Format, Lane, finite, halves, nibbles, simple};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::V;
use crate::quant::blocks::split_nibbles;

pub(super) const KERNELS: Kernels = kernels::<Q4_1>();

simple!(Q4_1, 4, 64, nibbles, min, |block, lane| {
    lane.put(0, &block[..2]);
    lane.put(8, &block[2..4]);
    lane.nibbles(16, &split_nibbles(&block[4..]));
});
