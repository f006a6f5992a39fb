//! `IQ4_NL`: `d[4]: f16, nibbles` that pick levels

use super::super::formats::{Format, Lane, finite, halves, look_up, nibbles, simple};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, f_mul, f_splat, zero};
use crate::quant::blocks::{IQ4, split_nibbles};

pub(super) const KERNELS: Kernels = kernels::<Iq4Nl>();

simple!(Iq4Nl, 8, 64, levels, zero 0, |block, lane| {
    lane.put(0, &block[..2]);
    lane.nibbles(8, &split_nibbles(&block[2..]));
});

#[inline(always)]
unsafe fn levels(at: *const u8) -> [V; 8] {
    look_up(IQ4, unsafe { nibbles(at) })
}
