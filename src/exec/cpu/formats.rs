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

use super::simd::*;
use crate::quant::DType;

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
}

/// Whether the products of a format's weights are summed as bytes.
pub const fn relaxed<F: Format>() -> bool {
    RELAXED && F::BITS < 8
}

#[inline(always)]
unsafe fn nibbles(at: *const u8) -> [V; 8] {
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
unsafe fn crumbs(at: *const u8) -> [V; 8] {
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
unsafe fn crumbs_above_nibbles(low: [V; 8], at: *const u8) -> [V; 8] {
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
unsafe fn bits_above<const BIT: u32>(low: [V; 8], at: *const u8) -> [V; 8] {
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
unsafe fn bytes(at: *const u8) -> [V; 8] {
    let mut out = [zero(); 8];
    for (j, out) in out.iter_mut().enumerate() {
        *out = unsafe { load(at.add(16 * j)) };
    }
    out
}

#[inline(always)]
fn look_up(levels: [i8; 16], index: [V; 8]) -> [V; 8] {
    let table = from_bytes(levels.map(|l| l as u8));
    index.map(|i| b_look_up(table, i))
}

/// The levels of `IQ4_NL` and `IQ4_XS`.
const IQ4: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];
/// E2M1 floats, doubled.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

#[inline(always)]
unsafe fn halves(at: *const u8) -> V {
    f16_to_f32(unsafe { load8(at) })
}

/// Types of 32 columns: `d`, perhaps `m`, and quants. `$zero` is the quant that stands for 0.
macro_rules! simple {
    ($(#[$doc:meta])* $name:ident, $bits:expr, $quant_bytes:expr, $quants:expr, zero $zero:expr) => {
        $(#[$doc])*
        pub struct $name;
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
                (d, if Self::MIN { f_mul(d, f_splat(-$zero as f32)) } else { zero() })
            }
            #[inline(always)]
            unsafe fn quants(unit: *const u8, _: usize) -> [V; 8] {
                #[allow(unused_unsafe)]
                unsafe { $quants(unit.add(8)) }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, $bits:expr, $quant_bytes:expr, $quants:expr, min) => {
        $(#[$doc])*
        pub struct $name;
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
        }
    };
}

#[inline(always)]
unsafe fn five_bits(at: *const u8) -> [V; 8] {
    unsafe { bits_above::<4>(nibbles(at.add(16)), at) }
}
#[inline(always)]
unsafe fn iq4_levels(at: *const u8) -> [V; 8] {
    look_up(IQ4, unsafe { nibbles(at) })
}

simple!(/** `d[4]: f16, nibbles` */ Q4_0, 4, 64, nibbles, zero 8);
simple!(/** `d[4]: f16, m[4]: f16, nibbles` */ Q4_1, 4, 64, nibbles, min);
simple!(/** `d[4]: f16, fifth bits, nibbles` */ Q5_0, 5, 80, five_bits, zero 16);
simple!(/** `d[4]: f16, m[4]: f16, fifth bits, nibbles` */ Q5_1, 5, 80, five_bits, min);
simple!(/** `d[4]: f16, bytes` */ Q8_0, 8, 128, bytes, zero 0);
simple!(/** `d[4]: f16, nibbles` that pick levels */ Iq4Nl, 8, 64, iq4_levels, zero 0);

/// `e[4]: E8M0, nibbles` that pick levels.
pub struct Mxfp4;
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
}

/// `d[4]: f16, dmin[4]: f16, 16 x [4]: scale in the low and minimum in the high nibble, crumbs`
pub struct Q2K;
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
}

/// `d[4]: f16, 16 x [4]: scale: i8, 8 x (crumbs, third bits)`
pub struct Q3K;
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
}

/// `d[4]: f16, dmin[4]: f16, 8 x (scale[4]: u8, min[4]: u8), 8 x nibbles`
pub struct Q4K;
/// As [`Q4K`] with the fifth bits before each block's nibbles.
pub struct Q5K;

#[inline(always)]
unsafe fn k_scales(unit: *const u8) -> (V, V) {
    unsafe { (halves(unit), f_mul(halves(unit.add(8)), f_splat(-1.0))) }
}
#[inline(always)]
unsafe fn k_scale(unit: *const u8, (d, d_min): (V, V), group: usize) -> (V, V) {
    unsafe {
        let at = unit.add(16 + 8 * group);
        (
            f_mul(d, i_to_f(u_to_i(load4(at)))),
            f_mul(d_min, i_to_f(u_to_i(load4(at.add(4))))),
        )
    }
}

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
}

impl Format for Q5K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 16 + 64 + 8 * 80;
    const HALVES: bool = false;
    const MIN: bool = true;
    const BITS: u32 = 5;
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
        unsafe { five_bits(unit.add(80 + 80 * block)) }
    }
}

/// `d[4]: f16, 16 x [4]: scale: i8, 8 x (nibbles, upper crumbs)`
pub struct Q6K;
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
}

/// `d[4]: f16, 8 x [4]: scale: i8, 8 x nibbles` that pick levels.
pub struct Iq4Xs;
impl Format for Iq4Xs {
    const BLOCKS: usize = 8;
    const BYTES: usize = 8 + 32 + 8 * 64;
    const HALVES: bool = false;
    const MIN: bool = false;
    const BITS: u32 = 8;
    type Scales = V;

    #[inline(always)]
    unsafe fn scales(unit: *const u8) -> V {
        unsafe { halves(unit) }
    }
    #[inline(always)]
    unsafe fn scale(unit: *const u8, d: V, group: usize) -> (V, V) {
        (
            f_mul(d, i_to_f(unsafe { b_to_i(load4(unit.add(8 + 4 * group))) })),
            zero(),
        )
    }
    #[inline(always)]
    unsafe fn quants(unit: *const u8, block: usize) -> [V; 8] {
        look_up(IQ4, unsafe { nibbles(unit.add(40 + 64 * block)) })
    }
}

/// `2 x scale[4]: f32, bytes`: small integers with a scale per 16, as `quant` gives the codebook and ternary types and
/// `NVFP4`. Those matrices stay as they are stored; a band of them takes this form just before it is used.
pub struct Int8;
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
}

// ---------------------------------------------------------------- packing

/// Where the bytes of row `r` of a unit go.
struct Lane<'a> {
    unit: &'a mut [u8],
    r: usize,
    relaxed: bool,
}

impl Lane<'_> {
    /// One of four adjacent numbers of `bytes.len()` bytes.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let at = at + self.r * bytes.len();
        self.unit[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn nibbles(&mut self, at: usize, q: &[u8; 32]) {
        for i in 0..16 {
            self.unit[at + 16 * (i / 4) + slot(self.relaxed, self.r, i % 4)] =
                (q[i] & 15) | q[i + 16] << 4;
        }
    }

    /// Bits `from` and `from + 1` of each.
    fn crumbs(&mut self, at: usize, q: &[u8; 32], from: u32) {
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
    fn bits(&mut self, at: usize, q: &[u8; 32], bit: u32) {
        for c in 0..4 {
            let byte = (0..8).fold(0, |byte, j| byte | (q[4 * j + c] >> bit & 1) << j);
            self.unit[at + slot(self.relaxed, self.r, c)] = byte;
        }
    }

    fn bytes(&mut self, at: usize, q: &[u8]) {
        for (i, q) in q.iter().enumerate() {
            self.unit[at + 16 * (i / 4) + slot(self.relaxed, self.r, i % 4)] = *q;
        }
    }
}

/// Nibbles in ggml's order for 32 weights: low ones first.
fn split_nibbles(qs: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 })
}

/// With the fifth bits.
fn with_fifth(qs: &[u8], high: &[u8]) -> [u8; 32] {
    let low = split_nibbles(qs);
    std::array::from_fn(|i| low[i] | (high[i / 8] >> (i % 8) & 1) << 4)
}

/// The `scale` and `min` (6 bits each) of group `group` of `Q4_K` and `Q5_K`.
fn six_bits(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[4 + group] & 63)
    } else {
        let low = packed[4 + group];
        (
            low & 15 | packed[group - 4] >> 6 << 4,
            low >> 4 | packed[group] >> 6 << 4,
        )
    }
}

/// Whether the f16 at `block[at..]` is a number.
fn finite(block: &[u8], at: usize) -> bool {
    block[at + 1] & 0x7c != 0x7c
}

/// Writes one stored block into its row of a unit. `false`: a scale is infinite or not a number.
///
/// `block` is one block of `dtype`, `unit` the unit of that type's [`Format`].
pub fn pack(dtype: DType, block: &[u8], unit: &mut [u8], r: usize) -> bool {
    let relaxed = RELAXED
        && !matches!(
            dtype,
            DType::Q8_0 | DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4
        );
    let mut lane = Lane { unit, r, relaxed };
    match dtype {
        DType::Q4_0 | DType::IQ4_NL => {
            lane.put(0, &block[..2]);
            lane.nibbles(8, &split_nibbles(&block[2..]));
            finite(block, 0)
        }
        DType::Q4_1 => {
            lane.put(0, &block[..2]);
            lane.put(8, &block[2..4]);
            lane.nibbles(16, &split_nibbles(&block[4..]));
            finite(block, 0) && finite(block, 2)
        }
        DType::Q5_0 => {
            let q = with_fifth(&block[6..], &block[2..6]);
            lane.put(0, &block[..2]);
            lane.bits(8, &q, 4);
            lane.nibbles(24, &q);
            finite(block, 0)
        }
        DType::Q5_1 => {
            let q = with_fifth(&block[8..], &block[4..8]);
            lane.put(0, &block[..2]);
            lane.put(8, &block[2..4]);
            lane.bits(16, &q, 4);
            lane.nibbles(32, &q);
            finite(block, 0) && finite(block, 2)
        }
        DType::Q8_0 => {
            lane.put(0, &block[..2]);
            lane.bytes(8, &block[2..34]);
            finite(block, 0)
        }
        DType::MXFP4 => {
            lane.put(0, &block[..1]);
            lane.nibbles(4, &split_nibbles(&block[1..]));
            true
        }
        DType::Q2_K => {
            lane.put(0, &block[80..82]);
            lane.put(8, &block[82..84]);
            for (group, both) in block[..16].iter().enumerate() {
                lane.put(16 + 4 * group, &[*both]);
            }
            for group in 0..8 {
                lane.crumbs(
                    80 + 32 * group,
                    &std::array::from_fn(|i| k_crumb(&block[16..80], group, i)),
                    0,
                );
            }
            finite(block, 80) && finite(block, 82)
        }
        DType::Q3_K => {
            let (high, low, packed) = (&block[..32], &block[32..96], &block[96..108]);
            lane.put(0, &block[108..110]);
            for k in 0..16 {
                let scale = packed[k % 8] >> (4 * (k / 8)) & 15
                    | (packed[8 + k % 4] >> (2 * (k / 4)) & 3) << 4;
                lane.put(8 + 4 * k, &[scale.wrapping_sub(32)]);
            }
            for group in 0..8 {
                let q =
                    std::array::from_fn(|i| k_crumb(low, group, i) | (high[i] >> group & 1) << 2);
                lane.crumbs(72 + 48 * group, &q, 0);
                lane.bits(72 + 48 * group + 32, &q, 2);
            }
            finite(block, 108)
        }
        DType::Q4_K | DType::Q5_K => {
            let five = dtype == DType::Q5_K;
            let (qs, stride) = if five {
                (&block[48..], 80)
            } else {
                (&block[16..], 64)
            };
            lane.put(0, &block[..2]);
            lane.put(8, &block[2..4]);
            for group in 0..8 {
                let (scale, min) = six_bits(&block[4..16], group);
                lane.put(16 + 8 * group, &[scale]);
                lane.put(20 + 8 * group, &[min]);
                let fifth = |i: usize| {
                    if five {
                        (block[16 + i] >> group & 1) << 4
                    } else {
                        0
                    }
                };
                let q = std::array::from_fn(|i| {
                    qs[32 * (group / 2) + i] >> (4 * (group % 2)) & 15 | fifth(i)
                });
                let at = 80 + stride * group;
                if five {
                    lane.bits(at, &q, 4);
                }
                lane.nibbles(at + stride - 64, &q);
            }
            finite(block, 0) && finite(block, 2)
        }
        DType::Q6_K => {
            lane.put(0, &block[208..210]);
            for (group, scale) in block[192..208].iter().enumerate() {
                lane.put(8 + 4 * group, &[*scale]);
            }
            for group in 0..8 {
                let (half, part) = (group / 4, group % 4);
                let q = std::array::from_fn(|i| {
                    let low = block[64 * half + 32 * (part % 2) + i] >> (4 * (part / 2)) & 15;
                    low | k_crumb(&block[128..192], group, i) << 4
                });
                lane.nibbles(72 + 96 * group, &q);
                lane.crumbs(72 + 96 * group + 64, &q, 4);
            }
            finite(block, 208)
        }
        DType::IQ4_XS => {
            lane.put(0, &block[..2]);
            let upper = u16::from_le_bytes([block[2], block[3]]);
            for group in 0..8 {
                let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
                let scale = low | ((upper >> (2 * group) & 3) as u8) << 4;
                lane.put(8 + 4 * group, &[scale.wrapping_sub(32)]);
                lane.nibbles(
                    40 + 64 * group,
                    &split_nibbles(&block[8 + 16 * group..][..16]),
                );
            }
            finite(block, 0)
        }
        _ => false,
    }
}

/// Writes 32 small integers and their two scales into row `r` of a unit of [`Int8`].
pub fn pack_int8(levels: &[i8], scales: &[f32], unit: &mut [u8], r: usize) {
    let mut lane = Lane {
        unit,
        r,
        relaxed: false,
    };
    for (half, scale) in scales.iter().enumerate() {
        lane.put(16 * half, &scale.to_le_bytes());
    }
    lane.bytes(32, bytemuck::cast_slice(levels));
}

/// Weight `i` of group `group` where four groups of 32 share bytes.
fn k_crumb(bytes: &[u8], group: usize, i: usize) -> u8 {
    bytes[32 * (group / 4) + i] >> (2 * (group % 4)) & 3
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
