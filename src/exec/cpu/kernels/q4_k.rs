//! `Q4_K`: `d[4]: f16, dmin[4]: f16, 8 x (scale[4]: u8, min[4]: u8), 8 x nibbles`

use super::super::formats::{Format, Lane, finite, k_scale, k_scales, nibbles, pack_k_scales};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::V;
use crate::quant::blocks::k_nibble;

pub(super) const KERNELS: Kernels = kernels::<Q4K>();

struct Q4K;

impl Format for Q4K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 16 + 64 + 8 * 64;
    const HALVES: bool = false;
    const MIN: bool = true;
    const BITS: u32 = 4;
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
        unsafe { nibbles(unit.add(80 + 64 * block)) }
    }

    #[inline(always)]
    fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
        pack_k_scales(block, lane);
        for group in 0..8 {
            let q = std::array::from_fn(|i| k_nibble(&block[16..], group, i));
            lane.nibbles(80 + 64 * group, &q);
        }
        finite(block, 0) && finite(block, 2)
    }
}
