//! `Q4_K`: 256 x 4 bits in groups of 32, with 6-bit scales and minima.
//!
//! `d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128]`; weight = `d * scale * q - dmin * min`.

use crate::quant::blocks::{
    Planes, WeightType, each_block, each_split, k_block, k_nibble, k_scale_words, pack_nibbles,
    put, put_f16,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q4_K",
    ggml_id: 12,
    block_len: 256,
    block_bytes: 144,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: None,
    sample: |block, scale| {
        put_f16(block, 0, scale / 400.0);
        put_f16(block, 2, scale / 40.0);
    },
    planes: Planes {
        format: "q4_k",
        block_bytes: 16,
        scale_words: |blocks| 4 * (blocks / 8),
        split,
    },
};

fn dequantize(block: &[u8; 144], out: &mut [f32; 256]) {
    k_block(block, out, |group, i| k_nibble(&block[16..], group, i));
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    each_split(row, quants, |i, block: &[u8; 144], quants| {
        put(scales, 16 * i, &k_scale_words(block));
        for (group, out) in quants.chunks_exact_mut(16).enumerate() {
            pack_nibbles(out, |at| k_nibble(&block[16..], group, at));
        }
    });
}
