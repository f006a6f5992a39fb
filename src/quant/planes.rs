//! Planes: the layout of a weight matrix on the GPU. Stored blocks are split once, at load, into a plane of quants in
//! 16-byte words and a plane of what belongs to each block (scales, offsets, high bits), so that hot loops load
//! `vec4<u32>`. The twins of `shaders/shared/weights_*.wgsl`.
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
    /// Which `weights_*.wgsl` reads it.
    pub format: &'static str,
    /// Bytes of quants per block.
    pub block_bytes: u64,
    /// u32 of scales per row.
    pub scale_stride: u64,
}

impl PlaneLayout {
    /// The layout of rows of `cols` values.
    pub fn new(dtype: DType, cols: u64) -> PlaneLayout {
        let blocks = cols.div_ceil(PLANE_BLOCK);
        let supers = blocks / 8;
        let (format, block_bytes, scale_stride) = match dtype {
            DType::F32 => ("f32", 128, 0),
            DType::F16 => ("f16", 64, 0),
            DType::BF16 => ("bf16", 64, 0),
            DType::Q8_0 => ("q8_0", 32, blocks.div_ceil(2)),
            DType::Q4_0 => ("q4_0", 16, blocks.div_ceil(2)),
            DType::Q4_1 => ("q4_1", 16, blocks),
            DType::Q5_0 => ("q5_0", 16, blocks + blocks.div_ceil(2)),
            DType::Q5_1 => ("q5_1", 16, 2 * blocks),
            DType::Q2_K => ("q2_k", 8, 5 * supers),
            DType::Q3_K => ("q3_k", 12, 3 * supers + supers.div_ceil(2)),
            DType::Q4_K => ("q4_k", 16, 4 * supers),
            DType::Q5_K => ("q5_k", 16, 12 * supers),
            DType::Q6_K => ("q6_k", 24, 4 * supers + supers.div_ceil(2)),
            DType::IQ4_NL => ("iq4_nl", 16, blocks.div_ceil(2)),
            DType::IQ4_XS => ("iq4_xs", 16, 2 * supers),
            DType::MXFP4 => ("mxfp4", 16, blocks.div_ceil(4)),
            DType::IQ1_S
            | DType::IQ1_M
            | DType::IQ2_XXS
            | DType::IQ2_XS
            | DType::IQ2_S
            | DType::IQ3_XXS
            | DType::IQ3_S
            | DType::TQ1_0
            | DType::TQ2_0
            | DType::NVFP4 => ("int8", 32, 2 * blocks),
        };
        PlaneLayout {
            dtype,
            cols,
            blocks,
            format,
            block_bytes,
            scale_stride,
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
        let blocks = row.chunks_exact(self.dtype.block_bytes());
        let (count, supers) = (self.blocks as usize, self.blocks as usize / 8);
        match self.dtype {
            DType::F32 | DType::F16 | DType::BF16 => quants[..row.len()].copy_from_slice(row),
            // Types of 32 weights whose nibbles lie as ours do.
            DType::Q8_0 => each(blocks, quants, |i, block, quants| {
                put(scales, 2 * i, &block[..2]);
                quants.copy_from_slice(&block[2..]);
            }),
            DType::Q4_0 | DType::IQ4_NL => each(blocks, quants, |i, block, quants| {
                put(scales, 2 * i, &block[..2]);
                quants.copy_from_slice(&block[2..]);
            }),
            DType::Q4_1 => each(blocks, quants, |i, block, quants| {
                put(scales, 4 * i, &block[..4]);
                quants.copy_from_slice(&block[4..]);
            }),
            DType::MXFP4 => each(blocks, quants, |i, block, quants| {
                put(scales, i, &block[..1]);
                quants.copy_from_slice(&block[1..]);
            }),
            // Fifth bits first, then all scales.
            DType::Q5_0 => each(blocks, quants, |i, block, quants| {
                put(scales, 4 * (count) + 2 * i, &block[..2]);
                put(
                    scales,
                    4 * i,
                    &spread_bits(&block[2..6], |at| (at / 8, at % 8)),
                );
                quants.copy_from_slice(&block[6..]);
            }),
            // Fifth bits and scales in turn.
            DType::Q5_1 => each(blocks, quants, |i, block, quants| {
                put(
                    scales,
                    8 * i,
                    &spread_bits(&block[4..8], |at| (at / 8, at % 8)),
                );
                put(scales, 8 * i + 4, &block[..4]);
                quants.copy_from_slice(&block[8..]);
            }),
            // [d dmin] and 16 bytes of scale and minimum.
            DType::Q2_K => each(blocks, quants, |i, block, quants| {
                put(scales, 20 * i, &block[80..84]);
                put(scales, 20 * i + 4, &block[..16]);
                for (group, out) in quants.chunks_exact_mut(8).enumerate() {
                    pack_crumbs(out, |at| crumb(&block[16..80], group, at));
                }
            }),
            // Low nibbles of the 16 scales, their upper two bits; after all of these, d two by two.
            DType::Q3_K => each(blocks, quants, |i, block, quants| {
                let (high, low) = (&block[..32], &block[32..96]);
                let mut nibbles = [0; 8];
                for (k, byte) in nibbles.iter_mut().enumerate() {
                    // Stored: nibble k / 8 of byte k % 8.
                    let nibble = |k: usize| block[96 + k % 8] >> (4 * (k / 8)) & 15;
                    *byte = nibble(2 * k) | nibble(2 * k + 1) << 4;
                }
                put(scales, 12 * i, &nibbles);
                let upper = (0..16).fold(0, |word, k| {
                    word | u32::from(block[104 + k % 4] >> (2 * (k / 4)) & 3) << (2 * k)
                });
                put(scales, 12 * i + 8, &upper.to_le_bytes());
                put(scales, 12 * supers + 2 * i, &block[108..110]);
                let (crumbs, bits) = quants.split_at_mut(64);
                for group in 0..8 {
                    pack_crumbs(&mut crumbs[8 * group..][..8], |at| crumb(low, group, at));
                    bits[4 * group..][..4].copy_from_slice(&spread_bits(high, |at| (at, group)));
                }
            }),
            DType::Q4_K => each(blocks, quants, |i, block, quants| {
                put(scales, 16 * i, &six_bit_scales(block));
                for (group, out) in quants.chunks_exact_mut(16).enumerate() {
                    pack_nibbles(out, |at| {
                        block[16 + 32 * (group / 2) + at] >> (4 * (group % 2)) & 15
                    });
                }
            }),
            DType::Q5_K => each(blocks, quants, |i, block, quants| {
                put(scales, 48 * i, &six_bit_scales(block));
                for (group, out) in quants.chunks_exact_mut(16).enumerate() {
                    put(
                        scales,
                        48 * i + 16 + 4 * group,
                        &spread_bits(&block[16..48], |at| (at, group)),
                    );
                    pack_nibbles(out, |at| {
                        block[48 + 32 * (group / 2) + at] >> (4 * (group % 2)) & 15
                    });
                }
            }),
            // 16 scales; after all of these, d two by two.
            DType::Q6_K => each(blocks, quants, |i, block, quants| {
                put(scales, 16 * i, &block[192..208]);
                put(scales, 16 * supers + 2 * i, &block[208..210]);
                let (nibbles, crumbs) = quants.split_at_mut(128);
                for group in 0..8 {
                    let (half, part) = (group / 4, group % 4);
                    let low = |at: usize| {
                        block[64 * half + 32 * (part % 2) + at] >> (4 * (part / 2)) & 15
                    };
                    pack_nibbles(&mut nibbles[16 * group..][..16], low);
                    pack_crumbs(&mut crumbs[8 * group..][..8], |at| {
                        crumb(&block[128..192], group, at)
                    });
                }
            }),
            // [d, upper two bits of 8 scales] [their low nibbles]
            DType::IQ4_XS => each(blocks, quants, |i, block, quants| {
                put(scales, 8 * i, &block[..8]);
                quants.copy_from_slice(&block[8..]);
            }),
            _ => {
                let mut groups = Int8Groups::new(self.cols as usize);
                self.dtype.int8_groups(row, &mut groups)?;
                for (byte, level) in quants.iter_mut().zip(&groups.levels) {
                    *byte = *level as u8;
                }
                for (bytes, scale) in scales.chunks_exact_mut(4).zip(&groups.scales) {
                    bytes.copy_from_slice(&scale.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

/// Calls `split(index, block, its quants)` for each stored block.
fn each(
    blocks: std::slice::ChunksExact<'_, u8>,
    quants: &mut [u8],
    mut split: impl FnMut(usize, &[u8], &mut [u8]),
) {
    let bytes = quants.len() / blocks.len().max(1);
    for (i, (block, quants)) in blocks.zip(quants.chunks_exact_mut(bytes)).enumerate() {
        split(i, block, quants);
    }
}

fn put(scales: &mut [u8], at: usize, bytes: &[u8]) {
    scales[at..at + bytes.len()].copy_from_slice(bytes);
}

/// 32 numbers of 4 bits in 16 bytes.
fn pack_nibbles(out: &mut [u8], nibble: impl Fn(usize) -> u8) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = nibble(i) | nibble(i + 16) << 4;
    }
}

/// 32 numbers of 2 bits in 8 bytes.
fn pack_crumbs(out: &mut [u8], crumb: impl Fn(usize) -> u8) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = (0..4).fold(0, |byte, field| {
            byte | crumb(16 * (i / 4) + 4 * field + i % 4) << (2 * field)
        });
    }
}

/// 32 single bits in 4 bytes; `find` gives the byte and bit of a weight.
fn spread_bits(bytes: &[u8], find: impl Fn(usize) -> (usize, usize)) -> [u8; 4] {
    std::array::from_fn(|lane| {
        (0..8).fold(0, |out, field| {
            let (byte, bit) = find(4 * field + lane);
            out | (bytes[byte] >> bit & 1) << field
        })
    })
}

/// The K types' order of 2-bit numbers: weight `at` of group `4 half + part` in byte `32 half + at`, shifted by part.
fn crumb(bytes: &[u8], group: usize, at: usize) -> u8 {
    bytes[32 * (group / 4) + at] >> (2 * (group % 4)) & 3
}

/// `Q4_K`'s and `Q5_K`'s 16 bytes of `d`, `dmin` and 6-bit scales and minima, as four u32: `d` and `dmin`; low nibbles of
/// the 8 scales; of the 8 minima; upper two bits of the scales, and above these of the minima.
fn six_bit_scales(block: &[u8]) -> [u8; 16] {
    let packed = &block[4..16];
    let six_bits = |group: usize, first: usize, shift: usize| -> u32 {
        u32::from(if group < 4 {
            packed[first + group] & 63
        } else {
            packed[4 + group] >> shift & 15 | packed[first + group - 4] >> 6 << 4
        })
    };
    let mut words = [0u32; 3];
    for group in 0..8 {
        let (scale, min) = (six_bits(group, 0, 0), six_bits(group, 4, 4));
        words[0] |= (scale & 15) << (4 * group);
        words[1] |= (min & 15) << (4 * group);
        words[2] |= scale >> 4 << (2 * group) | min >> 4 << (16 + 2 * group);
    }
    let mut out = [0; 16];
    out[..4].copy_from_slice(&block[..4]);
    for (bytes, word) in out[4..].chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out
}
