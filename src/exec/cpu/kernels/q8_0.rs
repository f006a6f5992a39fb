//! `Q8_0`: `d[4]: f16, bytes`

use super::super::formats::{Format, Lane, bytes, finite, halves, simple};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, f_mul, f_splat, zero};

pub(super) const KERNELS: Kernels = kernels::<Q8_0>();

simple!(Q8_0, 8, 128, bytes, zero 0, |block, lane| {
    lane.put(0, &block[..2]);
    lane.bytes(8, &block[2..34]);
});
