//! `Q2_K`: 256 x 2 bits in groups of 16, with 4-bit scales and minima.
//!
//! `scales: [u8; 16], qs: [u8; 64], d: f16, dmin: f16`; weight = `d * scale * q - dmin * min`, scale in the low and
//! minimum in the high nibble.

use crate::quant::blocks::{
    Planes, WeightType, each_block, each_split, f16_at, k_crumb, pack_crumbs, put, put_f16,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q2_K",
    ggml_id: 10,
    block_len: 256,
    block_bytes: 84,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: None,
    sample: |block, scale| {
        put_f16(block, 80, scale / 20.0);
        put_f16(block, 82, scale / 10.0);
    },
    planes: Planes {
        format: "q2_k",
        block_bytes: 8,
        scale_words: |blocks| 5 * (blocks / 8),
        split,
    },
};

fn dequantize(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, d_min) = (f16_at(block, 80), f16_at(block, 82));
    for (i, value) in out.iter_mut().enumerate() {
        let both = block[i / 16];
        let q = k_crumb(&block[16..80], i / 32, i % 32);
        *value = d * f32::from(both & 15) * f32::from(q) - d_min * f32::from(both >> 4);
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    // [d dmin] and 16 bytes of scale and minimum.
    each_split(row, quants, |i, block: &[u8; 84], quants| {
        put(scales, 20 * i, &block[80..84]);
        put(scales, 20 * i + 4, &block[..16]);
        for (group, out) in quants.chunks_exact_mut(8).enumerate() {
            pack_crumbs(out, |at| k_crumb(&block[16..80], group, at));
        }
    });
}
