//! The reference quantisers of the simple types (`quantize_row_*_ref` in ggml-quants.c): one pass, no search.

use super::DType;
use crate::error::{Error, Result};

/// Weights per block of the types with 4, 5 and 8 bits.
const LEN: usize = 32;
/// Weights `i` and `i + HALF` share a byte of the 4 and 5-bit types.
const HALF: usize = LEN / 2;

/// Appends the blocks of `values`, a whole number of them.
pub(super) fn quantize(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
    match dtype {
        DType::F32 => values
            .iter()
            .for_each(|value| out.extend(value.to_le_bytes())),
        DType::F16 => values
            .iter()
            .for_each(|value| out.extend(half::f16::from_f32(*value).to_le_bytes())),
        DType::BF16 => values
            .iter()
            .for_each(|value| out.extend(half::bf16::from_f32(*value).to_le_bytes())),
        DType::Q4_0 => for_each_block(values, |block| centred(block, 4, out)),
        DType::Q4_1 => for_each_block(values, |block| with_minimum(block, 4, out)),
        DType::Q5_0 => for_each_block(values, |block| centred(block, 5, out)),
        DType::Q5_1 => for_each_block(values, |block| with_minimum(block, 5, out)),
        DType::Q8_0 => for_each_block(values, |block| q8_0(block, out)),
        _ => {
            return Err(Error::unsupported(format!(
                "writing {} weights is not supported; use Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0",
                dtype.name()
            )));
        }
    }
    Ok(())
}

fn for_each_block(values: &[f32], block: impl FnMut(&[f32; LEN])) {
    values.as_chunks::<LEN>().0.iter().for_each(block);
}

/// `Q4_0` and `Q5_0`: the value of largest magnitude becomes the most negative level, so `d` carries its sign.
fn centred(block: &[f32; LEN], bits: u32, out: &mut Vec<u8>) {
    let mut extreme = 0.0f32;
    for &value in block {
        if value.abs() > extreme.abs() {
            extreme = value;
        }
    }
    let zero = (1 << (bits - 1)) as f32;
    let d = extreme / -zero;
    let inverse = inverse(d);
    push_f16(d, out);
    push_levels(bits, out, |i| block[i] * inverse + (zero + 0.5));
}

/// `Q4_1` and `Q5_1`: levels evenly spaced from the smallest value to the largest.
fn with_minimum(block: &[f32; LEN], bits: u32, out: &mut Vec<u8>) {
    let min = block.iter().copied().fold(f32::MAX, f32::min);
    let max = block.iter().copied().fold(f32::MIN, f32::max);
    let d = (max - min) / ((1 << bits) - 1) as f32;
    let inverse = inverse(d);
    push_f16(d, out);
    push_f16(min, out);
    push_levels(bits, out, |i| (block[i] - min) * inverse + 0.5);
}

/// Symmetric around zero; halves round away from zero, as C's `roundf`.
fn q8_0(block: &[f32; LEN], out: &mut Vec<u8>) {
    let largest = block
        .iter()
        .fold(0.0f32, |largest, value| largest.max(value.abs()));
    let d = largest / 127.0;
    let inverse = inverse(d);
    push_f16(d, out);
    out.extend(
        block
            .iter()
            .map(|value| (value * inverse).round() as i8 as u8),
    );
}

/// `1 / d`, or 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn push_f16(value: f32, out: &mut Vec<u8>) {
    out.extend(half::f16::from_f32(value).to_le_bytes());
}

/// Truncates `level(i)` to `bits` bits; writes the fifth bits first where there are any, then pairs of nibbles.
fn push_levels(bits: u32, out: &mut Vec<u8>, level: impl Fn(usize) -> f32) {
    let highest = ((1u32 << bits) - 1) as u8;
    // `as` saturates, so that a NaN or an infinity in the input still gives some level.
    let levels: [u8; LEN] = std::array::from_fn(|i| (level(i) as u8).min(highest));
    if bits == 5 {
        let high = levels
            .iter()
            .enumerate()
            .fold(0u32, |high, (i, level)| high | u32::from(level >> 4) << i);
        out.extend(high.to_le_bytes());
    }
    out.extend((0..HALF).map(|i| (levels[i] & 15) | (levels[i + HALF] & 15) << 4));
}
