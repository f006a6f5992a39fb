//! `Q6_K`: 256 x 6 bits in groups of 16, with 8-bit scales.
//!
//! `low: [u8; 128], high: [u8; 64], scales: [i8; 16], d: f16`; weight = `d * scale * (q - 32)`.

use crate::quant::blocks::{
    Planes, WeightType, each_block, each_split, f16_at, pack_crumbs, pack_nibbles, put, put_f16,
    q6_k_number,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q6_K",
    ggml_id: 14,
    block_len: 256,
    block_bytes: 210,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: None,
    sample: |block, scale| put_f16(block, 208, scale / 2000.0),
    planes: Planes {
        format: "q6_k",
        block_bytes: 24,
        scale_words: |blocks| 4 * (blocks / 8) + (blocks / 8).div_ceil(2),
        split,
    },
};

fn dequantize(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = f16_at(block, 208);
    for (i, value) in out.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + i / 16] as i8);
        *value = scale * (f32::from(q6_k_number(block, i / 32, i % 32)) - 32.0);
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    // 16 scales; after all of these, d two by two.
    let supers = row.len() / 210;
    each_split(row, quants, |i, block: &[u8; 210], quants| {
        put(scales, 16 * i, &block[192..208]);
        put(scales, 16 * supers + 2 * i, &block[208..210]);
        let (nibbles, crumbs) = quants.split_at_mut(128);
        for group in 0..8 {
            let number = |at: usize| q6_k_number(block, group, at);
            pack_nibbles(&mut nibbles[16 * group..][..16], number);
            pack_crumbs(&mut crumbs[8 * group..][..8], |at| number(at) >> 4);
        }
    });
}
