//! ggml's K types: super-blocks of 256 weights whose groups of 16 or 32 have small integer scales (and minima), which
//! in turn share one f16 each.
//!
//! Bits are laid out for SIMD: where several weights share a byte, they are 32 apart, so weight
//! `128 * half + 32 * part + lane` is found in byte `lane` (and its half), shifted by its part.

use super::f16_at;

/// Weights per super-block.
const LEN: usize = 256;

/// Calls `weight(half, part, lane, index)` for all 256 weights; see the module's text.
fn for_each_weight(mut weight: impl FnMut(usize, usize, usize, usize)) {
    for index in 0..LEN {
        weight(index / 128, index / 32 % 4, index % 32, index);
    }
}

/// `scales: [u8; 16], qs: [u8; 64], d: f16, dmin: f16`; weight = `d * scale * q - dmin * min`, groups of 16, scale in
/// the low and minimum in the high nibble.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; LEN]) {
    let (scales, qs) = (&block[..16], &block[16..80]);
    let d = f16_at(block, 80);
    let d_min = f16_at(block, 82);
    for_each_weight(|half, part, lane, i| {
        let scale = d * f32::from(scales[i / 16] & 15);
        let min = d_min * f32::from(scales[i / 16] >> 4);
        let q = (qs[32 * half + lane] >> (2 * part)) & 3;
        out[i] = scale * f32::from(q) - min;
    });
}

/// `high: [u8; 32], qs: [u8; 64], scales: [u8; 12], d: f16`; weight = `d * (scale - 32) * (q - 4)`, groups of 16.
///
/// The third bit of a weight is bit `4 * half + part` of `high[lane]`. A scale's low four bits are a nibble of the
/// first eight bytes, its upper two lie in the last four.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; LEN]) {
    let (high, qs, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16_at(block, 108);
    let scales: [f32; 16] = std::array::from_fn(|k| {
        let low = (packed[k % 8] >> (4 * (k / 8))) & 15;
        let upper = (packed[8 + k % 4] >> (2 * (k / 4))) & 3;
        d * (f32::from(low | upper << 4) - 32.0)
    });
    for_each_weight(|half, part, lane, i| {
        let low = (qs[32 * half + lane] >> (2 * part)) & 3;
        let third = (high[lane] >> (4 * half + part)) & 1;
        out[i] = scales[i / 16] * (f32::from(low | third << 2) - 4.0);
    });
}

/// `d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128]`; weight = `d * scale * q - dmin * min`, groups of 32.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; LEN]) {
    let (scales, mins) = scales_and_mins(block);
    let qs = &block[16..];
    for (i, value) in out.iter_mut().enumerate() {
        let group = i / 32;
        let q = (qs[32 * (group / 2) + i % 32] >> (4 * (group % 2))) & 15;
        *value = scales[group] * f32::from(q) - mins[group];
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], high: [u8; 32], qs: [u8; 128]`; as [`q4_k`] with bit `group` of `high` as the
/// fifth.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; LEN]) {
    let (scales, mins) = scales_and_mins(block);
    let (high, qs) = (&block[16..48], &block[48..]);
    for (i, value) in out.iter_mut().enumerate() {
        let (group, lane) = (i / 32, i % 32);
        let low = (qs[32 * (group / 2) + lane] >> (4 * (group % 2))) & 15;
        let fifth = (high[lane] >> group) & 1;
        *value = scales[group] * f32::from(low | fifth << 4) - mins[group];
    }
}

/// `low: [u8; 128], high: [u8; 64], scales: [i8; 16], d: f16`; weight = `d * scale * (q - 32)`, groups of 16.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; LEN]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = f16_at(block, 208);
    for_each_weight(|half, part, lane, i| {
        let low = (low[64 * half + 32 * (part % 2) + lane] >> (4 * (part / 2))) & 15;
        let upper = (high[32 * half + lane] >> (2 * part)) & 3;
        let scale = d * f32::from(scales[i / 16] as i8);
        out[i] = scale * (f32::from(low | upper << 4) - 32.0);
    });
}

/// The eight scales `d * scale` and minima `dmin * min` of `Q4_K` and `Q5_K`: `d` and `dmin` in the first four bytes,
/// then twelve bytes of 6-bit numbers. The first four of each are the low bits of bytes 0..4 and 4..8; the others have
/// their low nibbles in bytes 8..12 and their upper bits on top of the first ones.
fn scales_and_mins(block: &[u8]) -> ([f32; 8], [f32; 8]) {
    let d = f16_at(block, 0);
    let d_min = f16_at(block, 2);
    let packed = &block[4..16];
    let six_bits = |group: usize, first: usize, shift: u32| {
        if group < 4 {
            packed[first + group] & 63
        } else {
            let lane = group - 4;
            (packed[8 + lane] >> shift) & 15 | (packed[first + lane] >> 6) << 4
        }
    };
    let scales = std::array::from_fn(|group| d * f32::from(six_bits(group, 0, 0)));
    let mins = std::array::from_fn(|group| d_min * f32::from(six_bits(group, 4, 4)));
    (scales, mins)
}
