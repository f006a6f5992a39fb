//! `F32`: four rows of each column together.

use super::super::matmul::{Floats, Kernels, float_kernels};
use super::super::simd::{V, load};

pub(super) const KERNELS: Kernels = float_kernels::<F32>();

struct F32;

impl Floats for F32 {
    const BYTES: usize = 16;
    #[inline(always)]
    unsafe fn four(at: *const u8) -> V {
        unsafe { load(at) }
    }

    #[inline(always)]
    fn finite(_: &[u8]) -> bool {
        true
    }
}
