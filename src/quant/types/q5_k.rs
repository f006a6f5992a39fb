//! `Q5_K`: 256 x 5 bits in groups of 32, with 6-bit scales and minima.
//!
//! `d: f16, dmin: f16, scales: [u8; 12], high: [u8; 32], qs: [u8; 128]`; as `Q4_K` with bit `group` of `high` as the fifth.

use crate::quant::blocks::{
    Planes, WeightType, each_block, each_split, k_block, k_nibble, k_scale_words, pack_nibbles,
    put, put_f16, spread_bits,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q5_K",
    ggml_id: 13,
    block_len: 256,
    block_bytes: 176,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: None,
    sample: |block, scale| {
        put_f16(block, 0, scale / 800.0);
        put_f16(block, 2, scale / 40.0);
    },
    planes: Planes {
        format: "q5_k",
        block_bytes: 16,
        scale_words: |blocks| 12 * (blocks / 8),
        split,
    },
};

fn dequantize(block: &[u8; 176], out: &mut [f32; 256]) {
    let (high, qs) = (&block[16..48], &block[48..]);
    k_block(block, out, |group, i| {
        k_nibble(qs, group, i) | ((high[i] >> group) & 1) << 4
    });
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    each_split(row, quants, |i, block: &[u8; 176], quants| {
        put(scales, 48 * i, &k_scale_words(block));
        for (group, out) in quants.chunks_exact_mut(16).enumerate() {
            let fifth = spread_bits(&block[16..48], |at| (at, group));
            put(scales, 48 * i + 16 + 4 * group, &fifth);
            pack_nibbles(out, |at| k_nibble(&block[48..], group, at));
        }
    });
}
