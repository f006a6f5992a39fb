//! `Q6_K`: `d[4]: f16, 16 x [4]: scale: i8, 8 x (nibbles, upper crumbs)`

use super::super::formats::{Format, Lane, crumbs_above_nibbles, finite, halves, nibbles};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, b_to_i, f_mul, f_splat, i_to_f, load4};
use crate::quant::blocks::q6_k_number;

pub(super) const KERNELS: Kernels = kernels::<Q6K>();

struct Q6K;

impl Format for Q6K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 8 + 64 + 8 * 96;
    const HALVES: bool = true;
    const MIN: bool = true;
    const BITS: u32 = 6;
    type Scales = V;

    #[inline(always)]
    unsafe fn scales(unit: *const u8) -> V {
        unsafe { halves(unit) }
    }
    #[inline(always)]
    unsafe fn scale(unit: *const u8, d: V, group: usize) -> (V, V) {
        let scale = f_mul(d, i_to_f(unsafe { b_to_i(load4(unit.add(8 + 4 * group))) }));
        (scale, f_mul(scale, f_splat(-32.0)))
    }
    #[inline(always)]
    unsafe fn quants(unit: *const u8, block: usize) -> [V; 8] {
        unsafe {
            let at = unit.add(72 + 96 * block);
            crumbs_above_nibbles(nibbles(at), at.add(64))
        }
    }

    #[inline(always)]
    fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
        lane.put(0, &block[208..210]);
        for (group, scale) in block[192..208].iter().enumerate() {
            lane.put(8 + 4 * group, &[*scale]);
        }
        for group in 0..8 {
            let q = std::array::from_fn(|i| q6_k_number(block, group, i));
            lane.nibbles(72 + 96 * group, &q);
            lane.crumbs(72 + 96 * group + 64, &q, 4);
        }
        finite(block, 208)
    }
}
