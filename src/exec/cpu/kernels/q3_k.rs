//! `Q3_K`: `d[4]: f16, 16 x [4]: scale: i8, 8 x (crumbs, third bits)`

use super::super::formats::{Format, Lane, bits_above, crumbs, finite, halves};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, b_to_i, f_mul, f_splat, i_to_f, load4};
use crate::quant::blocks::{k_crumb, q3_k_scale};

pub(super) const KERNELS: Kernels = kernels::<Q3K>();

struct Q3K;

impl Format for Q3K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 8 + 64 + 8 * 48;
    const HALVES: bool = true;
    const MIN: bool = true;
    const BITS: u32 = 3;
    type Scales = V;

    #[inline(always)]
    unsafe fn scales(unit: *const u8) -> V {
        unsafe { halves(unit) }
    }
    #[inline(always)]
    unsafe fn scale(unit: *const u8, d: V, group: usize) -> (V, V) {
        let scale = f_mul(d, i_to_f(unsafe { b_to_i(load4(unit.add(8 + 4 * group))) }));
        (scale, f_mul(scale, f_splat(-4.0)))
    }
    #[inline(always)]
    unsafe fn quants(unit: *const u8, block: usize) -> [V; 8] {
        unsafe {
            let at = unit.add(72 + 48 * block);
            bits_above::<2>(crumbs(at), at.add(32))
        }
    }

    #[inline(always)]
    fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
        let (high, low, packed) = (&block[..32], &block[32..96], &block[96..108]);
        lane.put(0, &block[108..110]);
        for k in 0..16 {
            lane.put(8 + 4 * k, &[q3_k_scale(packed, k).wrapping_sub(32)]);
        }
        for group in 0..8 {
            let q = std::array::from_fn(|i| k_crumb(low, group, i) | (high[i] >> group & 1) << 2);
            lane.crumbs(72 + 48 * group, &q, 0);
            lane.bits(72 + 48 * group + 32, &q, 2);
        }
        finite(block, 108)
    }
}
