//! `IQ4_XS`: `d[4]: f16, 8 x [4]: scale: i8, 8 x nibbles` that pick levels.

use super::super::formats::{Format, Lane, finite, halves, look_up, nibbles};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, b_to_i, f_mul, i_to_f, load4, zero};
use crate::quant::blocks::{IQ4, iq4_xs_scale, split_nibbles};

pub(super) const KERNELS: Kernels = kernels::<Iq4Xs>();

struct Iq4Xs;

impl Format for Iq4Xs {
    const BLOCKS: usize = 8;
    const BYTES: usize = 8 + 32 + 8 * 64;
    const HALVES: bool = false;
    const MIN: bool = false;
    const BITS: u32 = 8;
    type Scales = V;

    #[inline(always)]
    unsafe fn scales(unit: *const u8) -> V {
        unsafe { halves(unit) }
    }
    #[inline(always)]
    unsafe fn scale(unit: *const u8, d: V, group: usize) -> (V, V) {
        (
            f_mul(d, i_to_f(unsafe { b_to_i(load4(unit.add(8 + 4 * group))) })),
            zero(),
        )
    }
    #[inline(always)]
    unsafe fn quants(unit: *const u8, block: usize) -> [V; 8] {
        look_up(IQ4, unsafe { nibbles(unit.add(40 + 64 * block)) })
    }

    #[inline(always)]
    fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
        lane.put(0, &block[..2]);
        for group in 0..8 {
            let scale = iq4_xs_scale(block, group);
            lane.put(8 + 4 * group, &[scale.wrapping_sub(32)]);
            let q = split_nibbles(&block[8 + 16 * group..][..16]);
            lane.nibbles(40 + 64 * group, &q);
        }
        finite(block, 0)
    }
}
