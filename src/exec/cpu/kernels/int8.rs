//! `2 x scale[4]: f32, bytes`: small integers with a scale per 16, as `quant` gives the codebook and ternary types and
//! `NVFP4`. A matrix of these stays as it is stored, since this form is several times larger; a band takes it just before
//! it is used.

use super::super::formats::{BLOCK, Format, Lane, ROWS, bytes, relaxed};
use super::super::matmul::{Kernels, kernels};
use super::super::simd::{V, load, zero};
use crate::quant::{DType, Int8Groups};

pub(super) const KERNELS: Kernels = kernels::<Int8>().expanded();

struct Int8;

impl Format for Int8 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 32 + 128;
    const HALVES: bool = true;
    const MIN: bool = false;
    const BITS: u32 = 8;
    type Scales = ();

    #[inline(always)]
    unsafe fn scales(_: *const u8) {}
    #[inline(always)]
    unsafe fn scale(unit: *const u8, (): (), group: usize) -> (V, V) {
        (unsafe { load(unit.add(16 * group)) }, zero())
    }
    #[inline(always)]
    unsafe fn quants(unit: *const u8, _: usize) -> [V; 8] {
        unsafe { bytes(unit.add(32)) }
    }

    fn pack(_: &[u8], _: &mut Lane<'_>) -> bool {
        false
    }
}

/// Bytes of the expanded form of a band of four rows.
pub fn expanded_bytes(cols: usize) -> usize {
    cols / BLOCK * Int8::BYTES
}

/// Expands a stored band of a type that has this form. `groups` has room for a row.
pub fn expand(dtype: DType, stored: &[u8], groups: &mut Int8Groups, band: &mut [u8]) {
    for (r, row) in stored.chunks_exact(stored.len() / ROWS).enumerate() {
        // The row is whole blocks of a type that has this form: there is no other error.
        let done = dtype.int8_groups(row, groups);
        debug_assert!(done.is_ok(), "{done:?}");
        let blocks = groups
            .levels
            .chunks_exact(BLOCK)
            .zip(groups.scales.chunks_exact(2));
        for ((levels, scales), unit) in blocks.zip(band.chunks_exact_mut(Int8::BYTES)) {
            let relaxed = relaxed::<Int8>();
            let mut lane = Lane { unit, r, relaxed };
            for (half, scale) in scales.iter().enumerate() {
                lane.put(16 * half, &scale.to_le_bytes());
            }
            lane.bytes(32, bytemuck::cast_slice(levels));
        }
    }
}
