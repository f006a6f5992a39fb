//! `BF16`: four rows of each column together.

use super::super::matmul::{Floats, Kernels, float_kernels};
use super::super::simd::{V, i_shl, load8, w_to_i};

pub(super) const KERNELS: Kernels = float_kernels::<BF16>();

struct BF16;

impl Floats for BF16 {
    const BYTES: usize = 8;
    #[inline(always)]
    unsafe fn four(at: *const u8) -> V {
        i_shl::<16>(w_to_i(unsafe { load8(at) }))
    }

    #[inline(always)]
    fn finite(_: &[u8]) -> bool {
        true
    }
}
