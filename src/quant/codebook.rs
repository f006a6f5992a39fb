//! ggml's IQ1, IQ2 and IQ3 types: super-blocks of 256 weights; each group of 8 (or 4) is an index into a codebook, with
//! signs beside it. The codebooks are in [`tables`](super::tables).
//!
//! Weight = `scale * level * sign` (IQ2, IQ3) or `scale * (level + delta)` (IQ1, whose levels are -1, 0 and 1, and whose
//! delta is an eighth up or down: eight times all that are integers).

use super::tables::{
    IQ1_GRID, IQ2_LEVELS, IQ2S_GRID, IQ2XS_GRID, IQ2XXS_GRID, IQ3S_GRID, IQ3XXS_GRID,
};
use super::{Products, f16_at, u16_at, u32_at};

/// Weights per super-block.
const LEN: usize = 256;

/// `d: f16, 8 x (indices: [u8; 4], signs_and_scale: u32)`; 32 weights per pair, `scale = d * (0.5 + top 4 bits) / 4`.
pub(super) fn iq2_xxs(block: &[u8; 66], out: &mut impl Products) {
    let d = f16_at(block, 0);
    for pair in 0..LEN / 32 {
        let indices = &block[2 + 8 * pair..][..4];
        let packed = u32_at(block, 2 + 8 * pair + 4);
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.25;
        for (j, index) in indices.iter().enumerate() {
            let entry = IQ2XXS_GRID[usize::from(*index)];
            iq2_group(
                entry,
                scale,
                seven_signs(packed >> (7 * j)),
                4 * pair + j,
                out,
            );
        }
    }
}

/// `d: f16, qs: [u16; 32], scales: [u8; 8]`; 9 bits of index and 7 of signs, a 4-bit scale for 16 weights.
pub(super) fn iq2_xs(block: &[u8; 74], out: &mut impl Products) {
    let d = f16_at(block, 0);
    for group in 0..LEN / 8 {
        let packed = u16_at(block, 2 + 2 * group);
        let scale = d * (0.5 + nibble(&block[66..], group / 2)) * 0.25;
        iq2_group(
            IQ2XS_GRID[usize::from(packed & 511)],
            scale,
            seven_signs(u32::from(packed >> 9)),
            group,
            out,
        );
    }
}

/// `d: f16, qs: [u8; 32], signs: [u8; 32], high: [u8; 8], scales: [u8; 8]`; 10 bits of index, a scale for 16 weights.
pub(super) fn iq2_s(block: &[u8; 82], out: &mut impl Products) {
    let d = f16_at(block, 0);
    let (qs, signs, high, scales) = (
        &block[2..34],
        &block[34..66],
        &block[66..74],
        &block[74..82],
    );
    for group in 0..LEN / 8 {
        let upper = (high[group / 4] >> (2 * (group % 4))) & 3;
        let index = usize::from(qs[group]) | usize::from(upper) << 8;
        let scale = d * (0.5 + nibble(scales, group / 2)) * 0.25;
        iq2_group(IQ2S_GRID[index], scale, signs[group], group, out);
    }
}

/// `d: f16, qs: [u8; 64], signs_and_scale: [u32; 8]`; two indices (of 4 weights each) share 7 bits of signs.
pub(super) fn iq3_xxs(block: &[u8; 98], out: &mut impl Products) {
    /// Level `i` is `4 + 8 * i`, but for the last.
    const LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
    let d = f16_at(block, 0);
    let qs = &block[2..66];
    for group in 0..LEN / 8 {
        let packed = u32_at(block, 66 + 4 * (group / 4));
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.5;
        let signs = seven_signs(packed >> (7 * (group % 4)));
        let pair = [2 * group, 2 * group + 1].map(|i| IQ3XXS_GRID[usize::from(qs[i])]);
        iq3_group(pair, &LEVELS, scale, signs, group, out);
    }
}

/// `d: f16, qs: [u8; 64], high: [u8; 8], signs: [u8; 32], scales: [u8; 4]`; 9 bits of index, a scale for 32 weights.
pub(super) fn iq3_s(block: &[u8; 110], out: &mut impl Products) {
    const LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
    let d = f16_at(block, 0);
    let (qs, high, signs, scales) = (
        &block[2..66],
        &block[66..74],
        &block[74..106],
        &block[106..110],
    );
    for (group, signs) in signs.iter().enumerate() {
        let scale = d * (1.0 + 2.0 * nibble(scales, group / 4));
        let pair = [2 * group, 2 * group + 1].map(|i| {
            let ninth = (high[i / 8] >> (i % 8)) & 1;
            IQ3S_GRID[usize::from(qs[i]) | usize::from(ninth) << 8]
        });
        iq3_group(pair, &LEVELS, scale, *signs, group, out);
    }
}

/// `d: f16, qs: [u8; 32], high: [u16; 8]`; a u16 serves 32 weights: four times 3 bits of index, 3 of scale, 1 of delta.
pub(super) fn iq1_s(block: &[u8; 50], out: &mut impl Products) {
    let d = f16_at(block, 0);
    for group in 0..LEN / 8 {
        let high = u16_at(block, 34 + 2 * (group / 4));
        let index =
            usize::from(block[2 + group]) | usize::from((high >> (3 * (group % 4))) & 7) << 8;
        let scale = d * f32::from(2 * ((high >> 12) & 7) + 1);
        iq1_group(IQ1_GRID[index], scale, high & 0x8000 != 0, group, out);
    }
}

/// `qs: [u8; 32], high: [u8; 16], scales: [u16; 4]`; a nibble of `high` per group (3 bits of index, 1 of delta), 3 bits
/// of scale per 16 weights, and the f16 `d` in pieces: the top nibbles of the four `scales`.
pub(super) fn iq1_m(block: &[u8; 56], out: &mut impl Products) {
    let scales: [u16; 4] = std::array::from_fn(|i| u16_at(block, 48 + 2 * i));
    let d = scales
        .iter()
        .enumerate()
        .fold(0, |d, (i, scale)| d | (scale >> 12) << (4 * i));
    let d = half::f16::from_bits(d).to_f32();
    for group in 0..LEN / 8 {
        let high = block[32 + group / 2] >> (4 * (group % 2));
        let index = usize::from(block[group]) | usize::from(high & 7) << 8;
        let scale = (scales[group / 8] >> (3 * (group / 2 % 4))) & 7;
        iq1_group(
            IQ1_GRID[index],
            d * f32::from(2 * scale + 1),
            high & 8 != 0,
            group,
            out,
        );
    }
}

/// Eight weights of an entry with 2 bits each.
fn iq2_group(entry: u16, scale: f32, signs: u8, group: usize, out: &mut impl Products) {
    for i in 0..8 {
        let level = IQ2_LEVELS[usize::from(entry >> (2 * i)) & 3];
        out.put(8 * group + i, scale, signed(level, signs, i));
    }
}

/// Eight weights of two entries with 4 bits for each of their four.
fn iq3_group(
    entries: [u16; 2],
    levels: &[i8; 8],
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
fn iq1_group(entry: u16, scale: f32, lower: bool, group: usize, out: &mut impl Products) {
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
fn seven_signs(bits: u32) -> u8 {
    let signs = (bits & 127) as u8;
    signs | ((signs.count_ones() & 1) as u8) << 7
}

/// 4-bit number `i`; the low nibble of a byte comes first.
fn nibble(bytes: &[u8], i: usize) -> f32 {
    f32::from((bytes[i / 2] >> (4 * (i % 2))) & 15)
}
