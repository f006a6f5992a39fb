//! Block layouts of weights: bytes in, exact `f32` values out, and the reverse for the simple types.
//!
//! Everything here is plain scalar Rust and is the truth that shaders and SIMD kernels are checked against. The
//! layouts, names and numbers are ggml's (`ggml-common.h`, `ggml-quants.c`); this module knows no file format, no
//! device, and nothing of what a weight is for.

pub(crate) mod blocks;
mod codebook;
mod int8;
pub mod planes;
mod samples;
mod tables;
mod types;

pub(crate) use int8::Int8Groups;
pub use samples::{Random, sample_rows};
pub(crate) use types::with_weight_types;

use blocks::WeightType;

use crate::error::{Error, Result};

macro_rules! dtypes {
    ($($(#[$doc:meta])* $dtype:ident $module:ident $kernels:ident;)*) => {
        /// How the weights of one tensor are stored: plain floats, or blocks of small integers that share scales.
        ///
        /// The names are ggml's exactly.
        #[allow(non_camel_case_types, reason = "ggml's names")]
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $($(#[$doc])* $dtype,)*
        }

        impl DType {
            /// Every type, in the order of the enum.
            pub const ALL: &'static [DType] = &[$(DType::$dtype),*];
        }
    };
}

with_weight_types!(dtypes);

impl DType {
    /// What the file of the type says.
    pub(crate) fn weight_type(self) -> &'static WeightType {
        &types::ALL[self as usize]
    }

    /// The type with this number in a GGUF file (`enum ggml_type`); `None` for unknown, removed and integer types.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.weight_type().ggml_id == id)
    }

    /// The number of this type in a GGUF file.
    pub fn ggml_id(self) -> u32 {
        self.weight_type().ggml_id
    }

    /// ggml's name, such as `"Q4_K"`.
    pub fn name(self) -> &'static str {
        self.weight_type().name
    }

    /// The type of a name as [`DType::name`] gives it; upper and lower case are the same.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.weight_type().name.eq_ignore_ascii_case(name))
    }

    /// Weights per block; 1 for plain floats.
    pub fn block_len(self) -> usize {
        self.weight_type().block_len
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.weight_type().block_bytes
    }

    /// Bytes of a row of `cols` weights; `None` when `cols` is not a multiple of [`DType::block_len`], or on overflow.
    pub fn row_bytes(self, cols: u64) -> Option<u64> {
        let layout = self.weight_type();
        if !cols.is_multiple_of(layout.block_len as u64) {
            return None;
        }
        (cols / layout.block_len as u64).checked_mul(layout.block_bytes as u64)
    }

    /// The exact `f32` values of whole blocks, bit for bit those of ggml's reference code.
    ///
    /// `bytes` holds `out.len() / block_len` blocks. Any bytes are allowed: a scale may well be infinite or NaN.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) when the two lengths disagree.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        if self.row_bytes(out.len() as u64) != Some(bytes.len() as u64) {
            return Err(Error::internal(format!(
                "dequantize {}: {} bytes are not {} weights (blocks of {} bytes hold {})",
                self.name(),
                bytes.len(),
                out.len(),
                self.block_bytes(),
                self.block_len()
            )));
        }
        (self.weight_type().dequantize)(bytes, out);
        Ok(())
    }

    /// The exact values of whole blocks of a codebook or ternary type or `NVFP4`, as products of small integers and
    /// scales.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for another type, or when the lengths disagree.
    pub(crate) fn int8_groups(self, bytes: &[u8], out: &mut Int8Groups) -> Result<()> {
        if self.row_bytes(out.levels.len() as u64) != Some(bytes.len() as u64) {
            return Err(Error::internal(format!(
                "{} bytes of {self} are not {} weights",
                bytes.len(),
                out.levels.len()
            )));
        }
        let Some(int8) = self.weight_type().int8 else {
            return Err(Error::internal(format!(
                "{self} has no form of small integers"
            )));
        };
        out.at = 0;
        int8(bytes, out);
        Ok(())
    }

    /// The types of blocks that values can be rounded to in one pass, which [`DType::quantize`] does beside plain floats.
    pub fn quantizable() -> impl Iterator<Item = Self> {
        Self::ALL
            .iter()
            .copied()
            .filter(|dtype| dtype.block_len() > 1 && dtype.weight_type().quantize.is_some())
    }

    /// Appends the blocks of `values` to `out`, rounded as ggml's reference quantisers round.
    ///
    /// For `F32`, `F16`, `BF16` and the types of [`DType::quantizable`]. The others need a search over scales (and often an
    /// importance matrix), which is the work of a conversion tool.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::error::ErrorKind::Unsupported) for another type;
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) when `values` is not a whole number of blocks.
    pub fn quantize(self, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
        let Some(bytes) = self.row_bytes(values.len() as u64) else {
            return Err(Error::internal(format!(
                "quantize {}: {} values are not a multiple of {}",
                self.name(),
                values.len(),
                self.block_len()
            )));
        };
        let Some(quantize) = self.weight_type().quantize else {
            let others: Vec<&str> = Self::quantizable().map(Self::name).collect();
            return Err(Error::unsupported(format!(
                "writing {self} weights is not supported; use {}",
                others.join(", ")
            )));
        };
        let start = out.len();
        quantize(values, out);
        debug_assert_eq!(
            (out.len() - start) as u64,
            bytes,
            "bytes that {self} blocks have"
        );
        Ok(())
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
