//! Plain floats and ggml's first family: blocks of 32 weights with one f16 scale `d` and sometimes an f16 minimum `m`.
//!
//! In the 4 and 5-bit types byte `i` of `qs` holds weight `i` in its low and weight `i + 16` in its high nibble; the
//! fifth bits are collected in a little-endian u32, bit `i` for weight `i`.

use super::{f16_at, u32_at};

/// Weights per block of this family.
const LEN: usize = 32;
/// Weights `i` and `i + HALF` share a byte.
const HALF: usize = LEN / 2;

/// One little-endian `f32`.
pub(super) fn f32(bytes: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*bytes);
}

/// One little-endian half float.
pub(super) fn f16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f16_at(bytes, 0);
}

/// The upper half of an `f32`.
pub(super) fn bf16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
}

/// `d: f16, qs: [u8; 16]`; weight = `d * (q - 8)`.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; LEN]) {
    let d = f16_at(block, 0);
    for (i, byte) in block[2..].iter().enumerate() {
        out[i] = d * (f32::from(byte & 15) - 8.0);
        out[i + HALF] = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// `d: f16, m: f16, qs: [u8; 16]`; weight = `d * q + m`.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; LEN]) {
    let d = f16_at(block, 0);
    let m = f16_at(block, 2);
    for (i, byte) in block[4..].iter().enumerate() {
        out[i] = d * f32::from(byte & 15) + m;
        out[i + HALF] = d * f32::from(byte >> 4) + m;
    }
}

/// `d: f16, qh: u32, qs: [u8; 16]`; weight = `d * (q - 16)`.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; LEN]) {
    let d = f16_at(block, 0);
    let high = u32_at(block, 2);
    for (i, byte) in block[6..].iter().enumerate() {
        out[i] = d * (five_bits(byte & 15, high, i) - 16.0);
        out[i + HALF] = d * (five_bits(byte >> 4, high, i + HALF) - 16.0);
    }
}

/// `d: f16, m: f16, qh: u32, qs: [u8; 16]`; weight = `d * q + m`.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; LEN]) {
    let d = f16_at(block, 0);
    let m = f16_at(block, 2);
    let high = u32_at(block, 4);
    for (i, byte) in block[8..].iter().enumerate() {
        out[i] = d * five_bits(byte & 15, high, i) + m;
        out[i + HALF] = d * five_bits(byte >> 4, high, i + HALF) + m;
    }
}

/// `d: f16, qs: [i8; 32]`; weight = `d * q`.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; LEN]) {
    let d = f16_at(block, 0);
    for (value, byte) in out.iter_mut().zip(&block[2..]) {
        *value = d * f32::from(*byte as i8);
    }
}

/// The 5-bit number whose low four bits are `low` and whose fifth is bit `i` of `high`.
fn five_bits(low: u8, high: u32, i: usize) -> f32 {
    f32::from(low | ((((high >> i) & 1) as u8) << 4))
}
