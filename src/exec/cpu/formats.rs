//! How weight matrices lie in memory: stored blocks, re-ordered once at load so that a vector of 16 bytes holds the same
//! columns of four rows.
//!
//! Four adjacent rows make a *band*, and within a band a *unit* is what one block of the stored type holds of each row:
//! 32 weights, or 256. A unit is its scales, four of each, and then its quants. Quants are read in blocks of 32 columns,
//! as eight vectors of four columns each; the byte of row `r`, column `4 j + c` is byte [`slot`]`(r, c)` of vector `j`:
//!
//! | bits | bytes a block | where vector `j` lies |
//! | --- | --- | --- |
//! | 8 | 128 | bytes from `16 j` |
//! | 4 | 64 | bytes from `16 (j % 4)`, low nibbles for `j < 4`, then high ones |
//! | 2 | 32 | bytes from `16 (j / 4)`, bits from `2 (j % 4)` |
//! | 1 | 16 | bit `j` |
//!
//! A weight is `scale * q + min`, with `scale` and `min` of a row and 16 or 32 columns.

use super::simd::{
    RELAXED, V, and, b_look_up, b_splat, f_mul, f_splat, f16_to_f32, from_bytes, h_shl, h_shr,
    i_to_f, load, load4, load8, or, to_bytes, to_f32, u_to_i, zero,
};
use crate::quant::blocks::k_scale_and_min;

/// Rows of a band.
pub const ROWS: usize = 4;
/// Columns of a block.
pub const BLOCK: usize = 32;

/// The byte of a vector that holds row `r`, column `c` (both below 4). Relaxed SIMD sums four adjacent products, and
/// multiplies bytes; plain SIMD sums two, and multiplies i16, into which either half of a vector is widened.
const fn slot(relaxed: bool, r: usize, c: usize) -> usize {
    if relaxed {
        4 * r + c
    } else {
        8 * (c / 2) + 2 * r + c % 2
    }
}

/// One weight type as the kernels read it.
pub trait Format {
    /// Blocks of 32 columns in a unit.
    const BLOCKS: usize;
    /// Bytes of a unit: four rows.
    const BYTES: usize;
    /// A scale per 16 columns; else per 32.
    const HALVES: bool;
    /// Weights are `scale * q + min`; else `scale * q`.
    const MIN: bool;
    /// Bits of `q` where it is not negative; 8: signed.
    const BITS: u32;
    /// Scales that all blocks of a unit share.
    type Scales: Copy;

    /// Reads the shared scales of the unit at `unit`.
    ///
    /// # Safety
    /// `unit` starts [`Format::BYTES`] readable bytes.
    unsafe fn scales(unit: *const u8) -> Self::Scales;

    /// Scale and minimum, four rows each, of group `group` (16 or 32 columns) of the unit.
    ///
    /// # Safety
    /// As [`Format::scales`]; `group` is in the unit.
    unsafe fn scale(unit: *const u8, scales: Self::Scales, group: usize) -> (V, V);

    /// The quants of block `block` of the unit.
    ///
    /// # Safety
    /// As [`Format::scales`]; `block` is in the unit.
    unsafe fn quants(unit: *const u8, block: usize) -> [V; 8];

    /// Writes one stored block into its row of a unit. `false`: a scale is infinite or not a number.
    fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool;
}

/// Whether the products of a format's weights are summed as bytes.
pub const fn relaxed<F: Format>() -> bool {
    RELAXED && F::BITS < 8
}

#[inline(always)]
pub unsafe fn nibbles(at: *const u8) -> [V; 8] {
    let mask = b_splat(15);
    let mut out = [zero(); 8];
    for j in 0..4 {
        let v = unsafe { load(at.add(16 * j)) };
        out[j] = and(v, mask);
        out[j + 4] = and(h_shr(v, 4), mask);
    }
    out
}

#[inline(always)]
pub unsafe fn crumbs(at: *const u8) -> [V; 8] {
    let mask = b_splat(3);
    let mut out = [zero(); 8];
    for p in 0..2 {
        let v = unsafe { load(at.add(16 * p)) };
        out[4 * p] = and(v, mask);
        out[4 * p + 1] = and(h_shr(v, 2), mask);
        out[4 * p + 2] = and(h_shr(v, 4), mask);
        out[4 * p + 3] = and(h_shr(v, 6), mask);
    }
    out
}

/// Adds 2-bit numbers above the low four bits.
#[inline(always)]
pub unsafe fn crumbs_above_nibbles(low: [V; 8], at: *const u8) -> [V; 8] {
    let mask = b_splat(0x30);
    let mut out = low;
    for p in 0..2 {
        let v = unsafe { load(at.add(16 * p)) };
        out[4 * p] = or(low[4 * p], and(h_shl(v, 4), mask));
        out[4 * p + 1] = or(low[4 * p + 1], and(h_shl(v, 2), mask));
        out[4 * p + 2] = or(low[4 * p + 2], and(v, mask));
        out[4 * p + 3] = or(low[4 * p + 3], and(h_shr(v, 2), mask));
    }
    out
}

/// Adds single bits as bit `BIT`.
#[inline(always)]
pub unsafe fn bits_above<const BIT: u32>(low: [V; 8], at: *const u8) -> [V; 8] {
    let mask = b_splat(1 << BIT);
    let v = unsafe { load(at) };
    let mut out = low;
    for (j, out) in out.iter_mut().enumerate() {
        let j = j as u32;
        let moved = if j < BIT {
            h_shl(v, BIT - j)
        } else {
            h_shr(v, j - BIT)
        };
        *out = or(*out, and(moved, mask));
    }
    out
}

#[inline(always)]
pub unsafe fn bytes(at: *const u8) -> [V; 8] {
    let mut out = [zero(); 8];
    for (j, out) in out.iter_mut().enumerate() {
        *out = unsafe { load(at.add(16 * j)) };
    }
    out
}

#[inline(always)]
pub fn look_up(levels: [i8; 16], index: [V; 8]) -> [V; 8] {
    let table = from_bytes(levels.map(|l| l as u8));
    index.map(|i| b_look_up(table, i))
}

#[inline(always)]
pub unsafe fn halves(at: *const u8) -> V {
    f16_to_f32(unsafe { load8(at) })
}

#[inline(always)]
pub unsafe fn five_bits(at: *const u8) -> [V; 8] {
    unsafe { bits_above::<4>(nibbles(at.add(16)), at) }
}
/// Types of 32 columns: `d`, perhaps `m`, and quants. `$zero` is the quant that stands for 0.
macro_rules! simple {
    ($name:ident, $bits:expr, $quant_bytes:expr, $quants:expr, zero $zero:expr, $pack:expr) => {
        pub(super) struct $name;
        impl Format for $name {
            const BLOCKS: usize = 1;
            const BYTES: usize = 8 + $quant_bytes;
            const HALVES: bool = false;
            const MIN: bool = $zero != 0;
            const BITS: u32 = $bits;
            type Scales = ();

            #[inline(always)]
            unsafe fn scales(_: *const u8) {}
            #[inline(always)]
            unsafe fn scale(unit: *const u8, (): (), _: usize) -> (V, V) {
                let d = unsafe { halves(unit) };
                (
                    d,
                    if Self::MIN {
                        f_mul(d, f_splat(-$zero as f32))
                    } else {
                        zero()
                    },
                )
            }
            #[inline(always)]
            unsafe fn quants(unit: *const u8, _: usize) -> [V; 8] {
                #[allow(unused_unsafe, reason = "not every reader is unsafe")]
                unsafe {
                    $quants(unit.add(8))
                }
            }
            #[inline(always)]
            fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
                let pack: fn(&[u8], &mut Lane<'_>) = $pack;
                pack(block, lane);
                finite(block, 0)
            }
        }
    };
    ($name:ident, $bits:expr, $quant_bytes:expr, $quants:expr, min, $pack:expr) => {
        pub(super) struct $name;
        impl Format for $name {
            const BLOCKS: usize = 1;
            const BYTES: usize = 16 + $quant_bytes;
            const HALVES: bool = false;
            const MIN: bool = true;
            const BITS: u32 = $bits;
            type Scales = ();

            #[inline(always)]
            unsafe fn scales(_: *const u8) {}
            #[inline(always)]
            unsafe fn scale(unit: *const u8, (): (), _: usize) -> (V, V) {
                unsafe { (halves(unit), halves(unit.add(8))) }
            }
            #[inline(always)]
            unsafe fn quants(unit: *const u8, _: usize) -> [V; 8] {
                unsafe { $quants(unit.add(16)) }
            }
            #[inline(always)]
            fn pack(block: &[u8], lane: &mut Lane<'_>) -> bool {
                let pack: fn(&[u8], &mut Lane<'_>) = $pack;
                pack(block, lane);
                finite(block, 0) && finite(block, 2)
            }
        }
    };
}
pub(super) use simple;

/// The shared scales of `Q4_K` and `Q5_K`.
#[inline(always)]
pub unsafe fn k_scales(unit: *const u8) -> (V, V) {
    unsafe { (halves(unit), f_mul(halves(unit.add(8)), f_splat(-1.0))) }
}
/// The scale and negated minimum of a group of `Q4_K` and `Q5_K`.
#[inline(always)]
pub unsafe fn k_scale(unit: *const u8, (d, d_min): (V, V), group: usize) -> (V, V) {
    unsafe {
        let at = unit.add(16 + 8 * group);
        (
            f_mul(d, i_to_f(u_to_i(load4(at)))),
            f_mul(d_min, i_to_f(u_to_i(load4(at.add(4))))),
        )
    }
}

/// Where the bytes of row `r` of a unit go.
pub struct Lane<'a> {
    /// The unit.
    pub unit: &'a mut [u8],
    /// Which of its rows.
    pub r: usize,
    /// How the bytes of a vector lie, see `slot`.
    pub relaxed: bool,
}

impl Lane<'_> {
    /// One of four adjacent numbers of `bytes.len()` bytes.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        let at = at + self.r * bytes.len();
        self.unit[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn nibbles(&mut self, at: usize, q: &[u8; 32]) {
        for i in 0..16 {
            self.unit[at + 16 * (i / 4) + slot(self.relaxed, self.r, i % 4)] =
                (q[i] & 15) | q[i + 16] << 4;
        }
    }

    /// Bits `from` and `from + 1` of each.
    pub fn crumbs(&mut self, at: usize, q: &[u8; 32], from: u32) {
        for plane in 0..2 {
            for c in 0..4 {
                let byte = (0..4).fold(0, |byte, f| {
                    byte | (q[16 * plane + 4 * f + c] >> from & 3) << (2 * f)
                });
                self.unit[at + 16 * plane + slot(self.relaxed, self.r, c)] = byte;
            }
        }
    }

    /// Bit `bit` of each.
    pub fn bits(&mut self, at: usize, q: &[u8; 32], bit: u32) {
        for c in 0..4 {
            let byte = (0..8).fold(0, |byte, j| byte | (q[4 * j + c] >> bit & 1) << j);
            self.unit[at + slot(self.relaxed, self.r, c)] = byte;
        }
    }

    pub fn bytes(&mut self, at: usize, q: &[u8]) {
        for (i, q) in q.iter().enumerate() {
            self.unit[at + 16 * (i / 4) + slot(self.relaxed, self.r, i % 4)] = *q;
        }
    }
}

/// Packs the scales that [`k_scales`] and [`k_scale`] read.
pub fn pack_k_scales(block: &[u8], lane: &mut Lane<'_>) {
    lane.put(0, &block[..2]);
    lane.put(8, &block[2..4]);
    for group in 0..8 {
        let (scale, min) = k_scale_and_min(&block[4..16], group);
        lane.put(16 + 8 * group, &[scale]);
        lane.put(20 + 8 * group, &[min]);
    }
}

/// Whether the f16 at `block[at..]` is a number.
pub fn finite(block: &[u8], at: usize) -> bool {
    block[at + 1] & 0x7c != 0x7c
}

/// Writes a stored row into row `r` of a band. `false`: a scale is infinite or not a number.
pub fn pack_row<F: Format>(stored: &[u8], block_bytes: usize, band: &mut [u8], r: usize) -> bool {
    let units = band.chunks_exact_mut(F::BYTES);
    stored
        .chunks_exact(block_bytes)
        .zip(units)
        .all(|(block, unit)| {
            let relaxed = relaxed::<F>();
            F::pack(block, &mut Lane { unit, r, relaxed })
        })
}

/// Dequantises row `r` of a unit into `out` (32 values a block).
///
/// # Safety
/// `unit` starts `F::BYTES` readable bytes.
pub unsafe fn unit_row<F: Format>(unit: *const u8, r: usize, out: &mut [f32]) {
    let shared = unsafe { F::scales(unit) };
    for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
        let vectors = unsafe { F::quants(unit, block) }.map(to_bytes);
        for (i, out) in out.iter_mut().enumerate() {
            let group = if F::HALVES { 2 * block + i / 16 } else { block };
            let (scale, min) = unsafe { F::scale(unit, shared, group) };
            let q = f32::from(vectors[i / 4][slot(relaxed::<F>(), r, i % 4)] as i8);
            *out = to_f32(scale)[r] * q + to_f32(min)[r];
        }
    }
}
