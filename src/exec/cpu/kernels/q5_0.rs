//! `Q5_0`: `d[4]: f16, fifth bits, nibbles`

use super::super::formats::{Format, Lane, finite, five_bits, halves, simple};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, f_mul, f_splat, zero};
use crate::quant::blocks::five_bits as five_bit_numbers;

pub(super) const KERNELS: Kernels = kernels::<Q5_0>();

simple!(Q5_0, 5, 80, five_bits, zero 16, |block, lane| {
    let q = five_bit_numbers(&block[6..], &block[2..6]);
    lane.put(0, &block[..2]);
    lane.bits(8, &q, 4);
    lane.nibbles(24, &q);
});
