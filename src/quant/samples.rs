//! Rows of random weights, for tests and for the self-test of kernels.

use super::DType;
use crate::error::{ErrorKind, Result};

/// Rows of random weights of about `scale`, in any type; `next` gives random numbers. Where nothing quantises to a type,
/// its blocks are random bytes, but for the numbers that scale them.
///
/// # Errors
/// What [`DType::quantize`] gives for values that are no whole blocks.
pub fn sample_rows(
    dtype: DType,
    rows: u64,
    cols: u64,
    scale: f32,
    next: &mut dyn FnMut() -> u64,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..rows {
        // Uniform in -scale .. scale.
        let values: Vec<f32> = (0..cols)
            .map(|_| ((next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale)
            .collect();
        match dtype.quantize(&values, &mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Unsupported => break,
            Err(error) => return Err(error),
        }
    }
    if !bytes.is_empty() {
        return Ok(bytes);
    }
    // Where a block has its f16 scales, and by how much the numbers that they multiply are larger than 1.
    let f16s: &[(usize, f32)] = match dtype {
        DType::Q2_K => &[(80, 20.0), (82, 10.0)],
        DType::Q3_K => &[(108, 60.0)],
        DType::Q4_K => &[(0, 400.0), (2, 40.0)],
        DType::Q5_K => &[(0, 800.0), (2, 40.0)],
        DType::Q6_K => &[(208, 2000.0)],
        DType::IQ4_NL => &[(0, 80.0)],
        DType::IQ4_XS => &[(0, 1500.0)],
        DType::IQ1_S => &[(0, 8.0)],
        DType::IQ2_XXS | DType::IQ2_XS | DType::IQ2_S => &[(0, 60.0)],
        DType::IQ3_XXS | DType::IQ3_S => &[(0, 150.0)],
        DType::TQ1_0 => &[(52, 1.0)],
        DType::TQ2_0 => &[(64, 1.0)],
        _ => &[],
    };
    for block in 0..rows * cols / dtype.block_len() as u64 {
        let at = bytes.len();
        bytes.extend((0..dtype.block_bytes()).map(|_| next() as u8));
        let own = scale * (0.5 + (block % 7) as f32 / 7.0);
        for (offset, larger) in f16s {
            let d = half::f16::from_f32(own / larger).to_le_bytes();
            bytes[at + offset..at + offset + 2].copy_from_slice(&d);
        }
        match dtype {
            // A power of two, biased by 127.
            DType::MXFP4 => bytes[at] = (127.0 + (own / 6.0).log2()).round() as u8,
            // Unsigned floats with 4 bits of exponent, biased by 7.
            DType::NVFP4 => (0..4).for_each(|i| bytes[at + i] = 8 * 3 + (next() % 8) as u8),
            // The f16 lies in the top nibbles of four u16.
            DType::IQ1_M => {
                let bits = half::f16::from_f32(own / 8.0).to_bits();
                for i in 0..4 {
                    let byte = &mut bytes[at + 49 + 2 * i];
                    *byte = *byte & 15 | ((bits >> (4 * i) & 15) as u8) << 4;
                }
            }
            _ => {}
        }
    }
    Ok(bytes)
}
