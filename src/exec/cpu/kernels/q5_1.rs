//! `Q5_1`: `d[4]: f16, m[4]: f16, fifth bits, nibbles`

use super::super::formats::{Format, Lane, finite, five_bits, halves, simple};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::V;
use crate::quant::blocks::five_bits as five_bit_numbers;

pub(super) const KERNELS: Kernels = kernels::<Q5_1>();

simple!(Q5_1, 5, 80, five_bits, min, |block, lane| {
    let q = five_bit_numbers(&block[8..], &block[4..8]);
    lane.put(0, &block[..2]);
    lane.put(8, &block[2..4]);
    lane.bits(16, &q, 4);
    lane.nibbles(32, &q);
});
