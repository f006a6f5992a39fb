//! Rows of random weights, for tests and for the self-test of kernels.

use super::DType;
use crate::error::{ErrorKind, Result};

/// Random numbers that are the same on every machine (`SplitMix64`, Steele et al. 2014), from a seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in -1 .. 1.
    pub fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// As many of [`Random::value`].
    pub fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    /// About normal, of mean 0 and variance 1: the sum of twelve uniform numbers less 6. Exact arithmetic.
    pub fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.bits() >> 40).sum();
        (sum as f64 / f64::from(1 << 24) - 6.0) as f32
    }
}

/// Rows of random weights of about `scale`, in any type. Where nothing quantises to a type, its blocks are
/// random bytes, but for the numbers that scale them.
///
/// # Errors
/// What [`DType::quantize`] gives for values that are no whole blocks.
pub fn sample_rows(
    dtype: DType,
    rows: u64,
    cols: u64,
    scale: f32,
    random: &mut Random,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..rows {
        // Uniform in -scale .. scale.
        let values: Vec<f32> = (0..cols).map(|_| random.value() * scale).collect();
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
        bytes.extend((0..dtype.block_bytes()).map(|_| random.bits() as u8));
        let own = scale * (0.5 + (block % 7) as f32 / 7.0);
        (dtype.weight_type().sample)(&mut bytes[at..], own);
    }
    Ok(bytes)
}
