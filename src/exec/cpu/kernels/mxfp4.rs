//! `MXFP4`: `e[4]: E8M0, nibbles` that pick levels.

use super::super::formats::{Format, Lane, look_up, nibbles};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, i_add, i_max, i_shl, i_splat, load4, u_to_i, zero};
use crate::quant::blocks::{E2M1, split_nibbles};

pub(super) const KERNELS: Kernels = kernels::<Mxfp4>();

struct Mxfp4;

impl Format for Mxfp4 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 4 + 64;
    const HALVES: bool = false;
    const MIN: bool = false;
    const BITS: u32 = 8;
    type Scales = ();

    #[inline(always)]
    unsafe fn scales(_: *const u8) {}
    #[inline(always)]
    unsafe fn scale(unit: *const u8, (): (), _: usize) -> (V, V) {
        // 2^(e - 128), of which the two that are no normal floats count as 0.
        let e = unsafe { u_to_i(load4(unit)) };
        (i_shl::<23>(i_max(i_add(e, i_splat(-1)), zero())), zero())
    }
    #[inline(always)]
    unsafe fn quants(unit: *const u8, _: usize) -> [V; 8] {
        look_up(E2M1, unsafe { nibbles(unit.add(4)) })
    }

    #[inline(always)]
    fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
        lane.put(0, &block[..1]);
        lane.nibbles(4, &split_nibbles(&block[1..]));
        true
    }
}
