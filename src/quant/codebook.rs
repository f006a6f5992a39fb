//! What the codebook types (IQ1, IQ2, IQ3) share: groups of 8 weights from entries of a codebook, with signs beside it. The
//! codebooks are in [`tables`](super::tables).
//!
//! Weight = `scale * level * sign` (IQ2, IQ3) or `scale * (level + delta)` (IQ1, whose levels are -1, 0 and 1, and whose
//! delta is an eighth up or down: eight times all that are integers).

use super::int8::Products;
use super::tables::IQ2_LEVELS;

/// Eight weights of an entry with 2 bits each.
pub(super) fn iq2_group(entry: u16, scale: f32, signs: u8, group: usize, out: &mut impl Products) {
    for i in 0..8 {
        let level = IQ2_LEVELS[usize::from(entry >> (2 * i)) & 3];
        out.put(8 * group + i, scale, signed(level, signs, i));
    }
}

/// Eight weights of two entries with 4 bits for each of their four.
pub(super) fn iq3_group(
    entries: [u16; 2],
    levels: [i8; 8],
    scale: f32,
    signs: u8,
    group: usize,
    out: &mut impl Products,
) {
    for i in 0..8 {
        let level = levels[usize::from(entries[i / 4] >> (4 * (i % 4))) & 7];
        out.put(8 * group + i, scale, signed(level, signs, i));
    }
}

/// Eight weights of an entry with 2 bits each: 0, 1, 2 for the levels -1, 0, 1.
pub(super) fn iq1_group(
    entry: u16,
    scale: f32,
    lower: bool,
    group: usize,
    out: &mut impl Products,
) {
    let delta = if lower { -1 } else { 1 };
    for i in 0..8 {
        let level = ((entry >> (2 * i)) & 3) as i8 - 1;
        out.put(8 * group + i, scale * 0.125, 8 * level + delta);
    }
}

/// `level`, negated when bit `i` of `signs` is set.
fn signed(level: i8, signs: u8, i: usize) -> i8 {
    if (signs >> i) & 1 == 1 { -level } else { level }
}

/// Seven stored signs and an eighth that makes the number of minus signs even (ggml's `ksigns_iq2xs`).
pub(super) fn seven_signs(bits: u32) -> u8 {
    let signs = (bits & 127) as u8;
    signs | ((signs.count_ones() & 1) as u8) << 7
}
