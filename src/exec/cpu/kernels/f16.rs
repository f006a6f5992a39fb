//! `F16`: four rows of each column together.

use super::super::matmul::{Floats, Kernels, float_kernels};
use super::super::simd::{V, f16_to_f32, load8};

pub(super) const KERNELS: Kernels = float_kernels::<F16>();

struct F16;

impl Floats for F16 {
    const BYTES: usize = 8;
    #[inline(always)]
    unsafe fn four(at: *const u8) -> V {
        f16_to_f32(unsafe { load8(at) })
    }

    #[inline(always)]
    fn finite(x: &[u8]) -> bool {
        x[1] & 0x7c != 0x7c
    }
}
