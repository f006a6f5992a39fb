//! Planes: the layout of a weight matrix on the GPU. Stored blocks are split once, at load, into a plane of quants in
//! 16-byte words and a plane of what belongs to each block (scales, offsets, high bits), so that hot loops load
//! `vec4<u32>`. The twins of `shaders/weights/*.wgsl`.
//!
//! Every type is read in blocks of 32 weights, whatever its own. Within a block, weights `16 half + 4 field + lane` are
//! kept so that a shader gets four of them, `lane` 0 to 3, from the bytes of one u32 by one shift:
//!
//! | bits | where weight `16 half + 4 field + lane` lies |
//! | --- | --- |
//! | 4 (16 bytes) | byte `4 field + lane`, nibble `half` |
//! | 2 (8 bytes) | byte `4 half + lane`, bits from `2 field` |
//! | 1 (4 bytes) | byte `lane`, bit `4 half + field` |
//!
//! Types without such a kernel, the codebook and ternary ones and `NVFP4`, are re-expressed exactly as `int8`: a signed
//! byte per weight and an f32 scale per 16 (10 bits a weight).

use super::{DType, Int8Groups};
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
    /// Blocks of 32 per row. Rows whose length is no multiple of 32 (F32, F16, BF16) are padded with zeros.
    pub blocks: u64,
    /// Which `shaders/weights/*.wgsl` reads it.
    pub format: &'static str,
    /// Bytes of quants per block.
    pub block_bytes: u64,
    /// u32 of scales per row.
    pub scale_stride: u64,
}

impl PlaneLayout {
    /// The layout of rows of `cols` values.
    pub fn new(dtype: DType, cols: u64) -> Self {
        let blocks = cols.div_ceil(PLANE_BLOCK);
        let planes = &dtype.weight_type().planes;
        Self {
            dtype,
            cols,
            blocks,
            format: planes.format,
            block_bytes: planes.block_bytes,
            scale_stride: (planes.scale_words)(blocks),
        }
    }

    /// Bytes of one row of quants: whole 16-byte words.
    pub fn quant_row_bytes(&self) -> u64 {
        self.blocks * self.block_bytes
    }

    /// Bytes of one row of scales.
    pub fn scale_row_bytes(&self) -> u64 {
        self.scale_stride * 4
    }

    /// Splits stored rows into the two planes (appended to `quants` and `scales`).
    ///
    /// # Errors
    /// `Internal` if `stored` is not whole rows.
    pub fn split(&self, stored: &[u8], quants: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
        let row_bytes = self.dtype.row_bytes(self.cols).unwrap_or(0) as usize;
        if row_bytes == 0 || !stored.len().is_multiple_of(row_bytes) {
            return Err(Error::internal(format!(
                "{} bytes are not whole rows of {row_bytes}",
                stored.len()
            )));
        }
        let (quant_row, scale_row) = (
            self.quant_row_bytes() as usize,
            self.scale_row_bytes() as usize,
        );
        for row in stored.chunks_exact(row_bytes) {
            let (quants_at, scales_at) = (quants.len(), scales.len());
            quants.resize(quants_at + quant_row, 0);
            scales.resize(scales_at + scale_row, 0);
            self.split_row(row, &mut quants[quants_at..], &mut scales[scales_at..])?;
        }
        Ok(())
    }

    fn split_row(&self, row: &[u8], quants: &mut [u8], scales: &mut [u8]) -> Result<()> {
        let weight_type = self.dtype.weight_type();
        if weight_type.int8.is_none() {
            (weight_type.planes.split)(row, quants, scales);
            return Ok(());
        }
        let mut groups = Int8Groups::new(self.cols as usize);
        self.dtype.int8_groups(row, &mut groups)?;
        for (byte, level) in quants.iter_mut().zip(&groups.levels) {
            *byte = *level as u8;
        }
        for (bytes, scale) in scales.chunks_exact_mut(4).zip(&groups.scales) {
            bytes.copy_from_slice(&scale.to_le_bytes());
        }
        Ok(())
    }
}
