//! Planes: the layout of a weight matrix on the GPU. Stored blocks are split once, at load, into a plane of quants in
//! 16-byte words and a plane of what belongs to each block (scales, offsets, high bits), so that hot loops load
//! `vec4<u32>`. The twins of `shaders/shared/weights_*.wgsl`.
//!
//! A row of quants is `blocks * quant_words` words of 16 bytes, where `blocks = ceil(cols / 32)`; a row of scales is
//! `scale_stride` u32. Rows whose length is no multiple of 32 (only F32, F16, BF16 have them) are padded with zeros.

use super::DType;
use crate::error::{Error, Result};

/// Weights per block of the planes.
pub const PLANE_BLOCK: u64 = 32;

/// How one type is laid out in planes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PlaneLayout {
    /// Stored type.
    pub dtype: DType,
    /// Values per row.
    pub cols: u64,
    /// Blocks of 32 per row.
    pub blocks: u64,
    /// 16-byte words of quants per block.
    pub quant_words: u64,
    /// u32 of scales per row.
    pub scale_stride: u64,
}

impl PlaneLayout {
    /// The layout of rows of `cols` values; `None` for a type that has no kernel that reads it packed.
    pub fn new(dtype: DType, cols: u64) -> Option<PlaneLayout> {
        let blocks = cols.div_ceil(PLANE_BLOCK);
        let (quant_words, scale_stride) = match dtype {
            DType::F32 => (8, 0),
            DType::F16 | DType::BF16 => (4, 0),
            DType::Q8_0 => (2, blocks.div_ceil(2)),
            DType::Q4_0 => (1, blocks.div_ceil(2)),
            DType::Q4_1 => (1, blocks),
            _ => return None,
        };
        Some(PlaneLayout { dtype, cols, blocks, quant_words, scale_stride })
    }

    /// Bytes of one row of quants.
    pub fn quant_row_bytes(&self) -> u64 {
        self.blocks * self.quant_words * 16
    }

    /// Bytes of one row of scales.
    pub fn scale_row_bytes(&self) -> u64 {
        self.scale_stride * 4
    }

    /// Splits stored rows into the two planes (appended to `quants` and `scales`).
    pub fn split(&self, stored: &[u8], quants: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
        let row_bytes = self.dtype.row_bytes(self.cols).unwrap_or(0) as usize;
        if row_bytes == 0 || stored.len() % row_bytes != 0 {
            return Err(Error::internal(format!("{} bytes are not whole rows of {row_bytes}", stored.len())));
        }
        quants.reserve(stored.len() / row_bytes * self.quant_row_bytes() as usize);
        for row in stored.chunks_exact(row_bytes) {
            let (quants_at, scales_at) = (quants.len(), scales.len());
            match self.dtype {
                DType::F32 | DType::F16 | DType::BF16 => quants.extend_from_slice(row),
                // [f16 d, 32 x i8]
                DType::Q8_0 => split_blocks(row, 34, 2, quants, scales),
                // [f16 d, 16 bytes of nibbles]
                DType::Q4_0 => split_blocks(row, 18, 2, quants, scales),
                // [f16 d, f16 m, 16 bytes of nibbles]
                DType::Q4_1 => split_blocks(row, 20, 4, quants, scales),
                other => return Err(Error::internal(format!("{} has no planes", other.name()))),
            }
            quants.resize(quants_at + self.quant_row_bytes() as usize, 0);
            scales.resize(scales_at + self.scale_row_bytes() as usize, 0);
        }
        Ok(())
    }
}

/// Blocks of `head` bytes of scales, then quants.
fn split_blocks(row: &[u8], block: usize, head: usize, quants: &mut Vec<u8>, scales: &mut Vec<u8>) {
    for block in row.chunks_exact(block) {
        scales.extend_from_slice(&block[..head]);
        quants.extend_from_slice(&block[head..]);
    }
}
