//! `Q5_K`: as `Q4_K` with the fifth bits before each block's nibbles.

use super::super::formats::{Format, Lane, finite, five_bits, k_scale, k_scales, pack_k_scales};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::V;
use crate::quant::blocks::k_nibble;

pub(super) const KERNELS: Kernels = kernels::<Q5K>();

struct Q5K;

impl Format for Q5K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 16 + 64 + 8 * 80;
    const HALVES: bool = false;
    const MIN: bool = true;
    const BITS: u32 = 5;
    type Scales = (V, V);

    #[inline(always)]
    unsafe fn scales(unit: *const u8) -> (V, V) {
        unsafe { k_scales(unit) }
    }
    #[inline(always)]
    unsafe fn scale(unit: *const u8, scales: (V, V), group: usize) -> (V, V) {
        unsafe { k_scale(unit, scales, group) }
    }
    #[inline(always)]
    unsafe fn quants(unit: *const u8, block: usize) -> [V; 8] {
        unsafe { five_bits(unit.add(80 + 80 * block)) }
    }

    #[inline(always)]
    fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
        pack_k_scales(block, lane);
        let (high, qs) = (&block[16..48], &block[48..]);
        for group in 0..8 {
            let q = std::array::from_fn(|i| k_nibble(qs, group, i) | (high[i] >> group & 1) << 4);
            lane.bits(80 + 80 * group, &q, 4);
            lane.nibbles(96 + 80 * group, &q);
        }
        finite(block, 0) && finite(block, 2)
    }
}
