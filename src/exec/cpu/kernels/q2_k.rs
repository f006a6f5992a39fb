//! `Q2_K`: `d[4]: f16, dmin[4]: f16, 16 x [4]: scale in the low and minimum in the high nibble, crumbs`

use super::super::formats::{Format, Lane, crumbs, finite, halves};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, and, f_mul, f_splat, i_shr, i_splat, i_to_f, load4, u_to_i};
use crate::quant::blocks::k_crumb;

pub(super) const KERNELS: Kernels = kernels::<Q2K>();

struct Q2K;

impl Format for Q2K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 16 + 64 + 8 * 32;
    const HALVES: bool = true;
    const MIN: bool = true;
    const BITS: u32 = 2;
    type Scales = (V, V);

    #[inline(always)]
    unsafe fn scales(unit: *const u8) -> (V, V) {
        unsafe { (halves(unit), f_mul(halves(unit.add(8)), f_splat(-1.0))) }
    }
    #[inline(always)]
    unsafe fn scale(unit: *const u8, (d, d_min): (V, V), group: usize) -> (V, V) {
        let both = unsafe { u_to_i(load4(unit.add(16 + 4 * group))) };
        (
            f_mul(d, i_to_f(and(both, i_splat(15)))),
            f_mul(d_min, i_to_f(i_shr::<4>(both))),
        )
    }
    #[inline(always)]
    unsafe fn quants(unit: *const u8, block: usize) -> [V; 8] {
        unsafe { crumbs(unit.add(80 + 32 * block)) }
    }

    #[inline(always)]
    fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
        lane.put(0, &block[80..82]);
        lane.put(8, &block[82..84]);
        for (group, both) in block[..16].iter().enumerate() {
            lane.put(16 + 4 * group, &[*both]);
        }
        for group in 0..8 {
            let q = std::array::from_fn(|i| k_crumb(&block[16..80], group, i));
            lane.crumbs(80 + 32 * group, &q, 0);
        }
        finite(block, 80) && finite(block, 82)
    }
}
