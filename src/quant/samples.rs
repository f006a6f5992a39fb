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
    for block in 0..rows * cols / dtype.block_len() as u64 {
        let at = bytes.len();
        bytes.extend((0..dtype.block_bytes()).map(|_| next() as u8));
        let own = scale * (0.5 + (block % 7) as f32 / 7.0);
        (dtype.weight_type().sample)(&mut bytes[at..], own);
    }
    Ok(bytes)
}
