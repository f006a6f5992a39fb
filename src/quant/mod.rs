//! Block layouts of weights: bytes in, exact `f32` values out, and the reverse for the simple types.
//!
//! Everything here is plain scalar Rust and is the truth that shaders and SIMD kernels are checked against. The
//! layouts, names and numbers are ggml's (`ggml-common.h`, `ggml-quants.c`); this module knows no file format, no
//! device, and nothing of what a weight is for.

mod basic;
mod codebook;
mod k_quants;
mod levels;
pub mod planes;
mod quantize;
mod samples;
mod tables;
mod ternary;

pub use samples::sample_rows;

use crate::error::{Error, Result};

/// How the weights of one tensor are stored: plain floats, or blocks of small integers that share scales.
///
/// The names are ggml's exactly.
#[allow(non_camel_case_types)]
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// 32 x 4 bits, f16 scale.
    Q4_0,
    /// 32 x 4 bits, f16 scale and minimum.
    Q4_1,
    /// 32 x 5 bits, f16 scale.
    Q5_0,
    /// 32 x 5 bits, f16 scale and minimum.
    Q5_1,
    /// 32 x 8 bits, f16 scale.
    Q8_0,
    /// 256 x 2 bits in groups of 16, with 4-bit scales and minima.
    Q2_K,
    /// 256 x 3 bits in groups of 16, with 6-bit scales.
    Q3_K,
    /// 256 x 4 bits in groups of 32, with 6-bit scales and minima.
    Q4_K,
    /// 256 x 5 bits in groups of 32, with 6-bit scales and minima.
    Q5_K,
    /// 256 x 6 bits in groups of 16, with 8-bit scales.
    Q6_K,
    /// 1.56 bits per weight: groups of 8 from a codebook of 2048 ternary vectors.
    IQ1_S,
    /// 1.75 bits per weight: as `IQ1_S` with finer scales.
    IQ1_M,
    /// 2.06 bits per weight: groups of 8 from a codebook of 256, plus signs.
    IQ2_XXS,
    /// 2.31 bits per weight: a codebook of 512.
    IQ2_XS,
    /// 2.5 bits per weight: a codebook of 1024, with explicit signs.
    IQ2_S,
    /// 3.06 bits per weight: groups of 4 from a codebook of 256.
    IQ3_XXS,
    /// 3.44 bits per weight: a codebook of 512, with explicit signs.
    IQ3_S,
    /// 32 x 4 bits that index a table of 16 levels, f16 scale.
    IQ4_NL,
    /// 256 x the levels of `IQ4_NL`, in groups of 32 with 6-bit scales.
    IQ4_XS,
    /// 1.69 bits per weight: five ternary digits in a byte.
    TQ1_0,
    /// 2.06 bits per weight: ternary digits of 2 bits.
    TQ2_0,
    /// 32 x E2M1 with one power-of-two scale (OCP Microscaling 1.0).
    MXFP4,
    /// 64 x E2M1 in groups of 16, each with an unsigned E4M3 scale.
    NVFP4,
}

/// One row of the type table: what a [`DType`] is called, its ggml number, and the size of a block.
struct Layout {
    dtype: DType,
    name: &'static str,
    ggml_id: u32,
    block_len: usize,
    block_bytes: usize,
}

const fn layout(
    dtype: DType,
    name: &'static str,
    ggml_id: u32,
    block_len: usize,
    block_bytes: usize,
) -> Layout {
    Layout {
        dtype,
        name,
        ggml_id,
        block_len,
        block_bytes,
    }
}

/// In the order of the enum, so that a type is its own index. Numbers: `enum ggml_type` in `ggml.h`; sizes: the
/// `block_*` structs of `ggml-common.h`.
const LAYOUTS: [Layout; 26] = [
    layout(DType::F32, "F32", 0, 1, 4),
    layout(DType::F16, "F16", 1, 1, 2),
    layout(DType::BF16, "BF16", 30, 1, 2),
    layout(DType::Q4_0, "Q4_0", 2, 32, 18),
    layout(DType::Q4_1, "Q4_1", 3, 32, 20),
    layout(DType::Q5_0, "Q5_0", 6, 32, 22),
    layout(DType::Q5_1, "Q5_1", 7, 32, 24),
    layout(DType::Q8_0, "Q8_0", 8, 32, 34),
    layout(DType::Q2_K, "Q2_K", 10, 256, 84),
    layout(DType::Q3_K, "Q3_K", 11, 256, 110),
    layout(DType::Q4_K, "Q4_K", 12, 256, 144),
    layout(DType::Q5_K, "Q5_K", 13, 256, 176),
    layout(DType::Q6_K, "Q6_K", 14, 256, 210),
    layout(DType::IQ1_S, "IQ1_S", 19, 256, 50),
    layout(DType::IQ1_M, "IQ1_M", 29, 256, 56),
    layout(DType::IQ2_XXS, "IQ2_XXS", 16, 256, 66),
    layout(DType::IQ2_XS, "IQ2_XS", 17, 256, 74),
    layout(DType::IQ2_S, "IQ2_S", 22, 256, 82),
    layout(DType::IQ3_XXS, "IQ3_XXS", 18, 256, 98),
    layout(DType::IQ3_S, "IQ3_S", 21, 256, 110),
    layout(DType::IQ4_NL, "IQ4_NL", 20, 32, 18),
    layout(DType::IQ4_XS, "IQ4_XS", 23, 256, 136),
    layout(DType::TQ1_0, "TQ1_0", 34, 256, 54),
    layout(DType::TQ2_0, "TQ2_0", 35, 256, 66),
    layout(DType::MXFP4, "MXFP4", 39, 32, 17),
    layout(DType::NVFP4, "NVFP4", 40, 64, 36),
];

impl DType {
    /// Every type, in the order of the enum.
    pub const ALL: &'static [DType] = &{
        let mut all = [DType::F32; LAYOUTS.len()];
        let mut i = 0;
        while i < LAYOUTS.len() {
            all[i] = LAYOUTS[i].dtype;
            i += 1;
        }
        all
    };

    fn layout(self) -> &'static Layout {
        &LAYOUTS[self as usize]
    }

    /// The type with this number in a GGUF file (`enum ggml_type`); `None` for unknown, removed and integer types.
    pub fn from_ggml(id: u32) -> Option<DType> {
        LAYOUTS
            .iter()
            .find(|layout| layout.ggml_id == id)
            .map(|layout| layout.dtype)
    }

    /// The number of this type in a GGUF file.
    pub fn ggml_id(self) -> u32 {
        self.layout().ggml_id
    }

    /// ggml's name, such as `"Q4_K"`.
    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// The type of a name as [`DType::name`] gives it; upper and lower case are the same.
    pub fn from_name(name: &str) -> Option<DType> {
        LAYOUTS
            .iter()
            .find(|layout| layout.name.eq_ignore_ascii_case(name))
            .map(|layout| layout.dtype)
    }

    /// Weights per block; 1 for plain floats.
    pub fn block_len(self) -> usize {
        self.layout().block_len
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.layout().block_bytes
    }

    /// Bytes of a row of `cols` weights; `None` when `cols` is not a multiple of [`DType::block_len`], or on overflow.
    pub fn row_bytes(self, cols: u64) -> Option<u64> {
        let layout = self.layout();
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
        match self {
            DType::F32 => for_each_block(bytes, out, basic::f32),
            DType::F16 => for_each_block(bytes, out, basic::f16),
            DType::BF16 => for_each_block(bytes, out, basic::bf16),
            DType::Q4_0 => for_each_block(bytes, out, basic::q4_0),
            DType::Q4_1 => for_each_block(bytes, out, basic::q4_1),
            DType::Q5_0 => for_each_block(bytes, out, basic::q5_0),
            DType::Q5_1 => for_each_block(bytes, out, basic::q5_1),
            DType::Q8_0 => for_each_block(bytes, out, basic::q8_0),
            DType::Q2_K => for_each_block(bytes, out, k_quants::q2_k),
            DType::Q3_K => for_each_block(bytes, out, k_quants::q3_k),
            DType::Q4_K => for_each_block(bytes, out, k_quants::q4_k),
            DType::Q5_K => for_each_block(bytes, out, k_quants::q5_k),
            DType::Q6_K => for_each_block(bytes, out, k_quants::q6_k),
            DType::IQ1_S => for_each_block::<_, 256>(bytes, out, codebook::iq1_s),
            DType::IQ1_M => for_each_block::<_, 256>(bytes, out, codebook::iq1_m),
            DType::IQ2_XXS => for_each_block::<_, 256>(bytes, out, codebook::iq2_xxs),
            DType::IQ2_XS => for_each_block::<_, 256>(bytes, out, codebook::iq2_xs),
            DType::IQ2_S => for_each_block::<_, 256>(bytes, out, codebook::iq2_s),
            DType::IQ3_XXS => for_each_block::<_, 256>(bytes, out, codebook::iq3_xxs),
            DType::IQ3_S => for_each_block::<_, 256>(bytes, out, codebook::iq3_s),
            DType::IQ4_NL => for_each_block(bytes, out, levels::iq4_nl),
            DType::IQ4_XS => for_each_block(bytes, out, levels::iq4_xs),
            DType::TQ1_0 => for_each_block::<_, 256>(bytes, out, ternary::tq1_0),
            DType::TQ2_0 => for_each_block::<_, 256>(bytes, out, ternary::tq2_0),
            DType::MXFP4 => for_each_block(bytes, out, levels::mxfp4),
            DType::NVFP4 => for_each_block::<_, 64>(bytes, out, levels::nvfp4),
        }
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
        out.at = 0;
        match self {
            DType::IQ1_S => for_each_product::<50>(bytes, out, 256, codebook::iq1_s),
            DType::IQ1_M => for_each_product::<56>(bytes, out, 256, codebook::iq1_m),
            DType::IQ2_XXS => for_each_product::<66>(bytes, out, 256, codebook::iq2_xxs),
            DType::IQ2_XS => for_each_product::<74>(bytes, out, 256, codebook::iq2_xs),
            DType::IQ2_S => for_each_product::<82>(bytes, out, 256, codebook::iq2_s),
            DType::IQ3_XXS => for_each_product::<98>(bytes, out, 256, codebook::iq3_xxs),
            DType::IQ3_S => for_each_product::<110>(bytes, out, 256, codebook::iq3_s),
            DType::TQ1_0 => for_each_product::<54>(bytes, out, 256, ternary::tq1_0),
            DType::TQ2_0 => for_each_product::<66>(bytes, out, 256, ternary::tq2_0),
            DType::NVFP4 => for_each_product::<36>(bytes, out, 64, levels::nvfp4),
            other => {
                return Err(Error::internal(format!(
                    "{other} has no form of small integers"
                )));
            }
        }
        Ok(())
    }

    /// Appends the blocks of `values` to `out`, rounded as ggml's reference quantisers round.
    ///
    /// For `F32`, `F16`, `BF16`, `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1` and `Q8_0`. The others need a search over scales (and
    /// often an importance matrix), which is the work of a conversion tool.
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
        let start = out.len();
        quantize::quantize(self, values, out)?;
        debug_assert_eq!((out.len() - start) as u64, bytes);
        Ok(())
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Takes weights as products of a scale and a small integer. Sixteen adjacent weights share a scale.
trait Products {
    /// Weight `i` of the block is `scale * level`.
    fn put(&mut self, i: usize, scale: f32, level: i8);
}

impl<const LEN: usize> Products for [f32; LEN] {
    fn put(&mut self, i: usize, scale: f32, level: i8) {
        self[i] = scale * f32::from(level);
    }
}

/// Weights as products of a small integer and one scale per 16.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Int8Groups {
    /// One per weight.
    pub levels: Vec<i8>,
    /// One per 16 weights.
    pub scales: Vec<f32>,
    /// First weight of the block being written.
    at: usize,
}

impl Int8Groups {
    /// Room for `len` weights.
    pub fn new(len: usize) -> Int8Groups {
        Int8Groups {
            levels: vec![0; len],
            scales: vec![0.0; len.div_ceil(16)],
            at: 0,
        }
    }
}

impl Products for Int8Groups {
    fn put(&mut self, i: usize, scale: f32, level: i8) {
        self.levels[self.at + i] = level;
        self.scales[(self.at + i) / 16] = scale;
    }
}

/// Runs `block` over blocks of `BYTES` bytes and `len` weights.
fn for_each_product<const BYTES: usize>(
    bytes: &[u8],
    out: &mut Int8Groups,
    len: usize,
    block: impl Fn(&[u8; BYTES], &mut Int8Groups),
) {
    for bytes in bytes.as_chunks().0 {
        block(bytes, out);
        out.at += len;
    }
}

/// Runs `block` over blocks of `BYTES` bytes and `LEN` weights.
fn for_each_block<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (rows, _) = out.as_chunks_mut::<LEN>();
    for (bytes, out) in blocks.iter().zip(rows) {
        block(bytes, out);
    }
}

/// The little-endian f16 at `bytes[at..at + 2]`, widened.
fn f16_at(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The little-endian u16 at `bytes[at..at + 2]`.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian u32 at `bytes[at..at + 4]`.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
