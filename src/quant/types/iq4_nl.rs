//! `IQ4_NL`: 32 x 4 bits that pick one of 16 levels, f16 scale. `d: f16, qs: [u8; 16]`; weight = `d * level`.

use crate::quant::blocks::{
    IQ4, Planes, WeightType, each_block, each_split, f16_at, level_block, put, put_f16,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "IQ4_NL",
    ggml_id: 20,
    block_len: 32,
    block_bytes: 18,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: None,
    sample: |block, scale| put_f16(block, 0, scale / 80.0),
    planes: Planes {
        format: "iq4_nl",
        block_bytes: 16,
        scale_words: |blocks| blocks.div_ceil(2),
        split,
    },
};

fn dequantize(block: &[u8; 18], out: &mut [f32; 32]) {
    level_block(&block[2..], &IQ4, f16_at(block, 0), out);
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    each_split(row, quants, |i, block: &[u8; 18], quants| {
        put(scales, 2 * i, &block[..2]);
        quants.copy_from_slice(&block[2..]);
    });
}
