//! `Q4_1`: 32 x 4 bits, f16 scale and minimum. `d: f16, m: f16, qs: [u8; 16]`; weight = `d * q + m`.

use crate::quant::blocks::{
    Planes, WeightType, each_32, each_block, each_split, f16_at, no_sample, put, split_nibbles,
    with_minimum,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q4_1",
    ggml_id: 3,
    block_len: 32,
    block_bytes: 20,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: Some(|values, out| each_32(values, |block| with_minimum(block, 4, out))),
    sample: no_sample,
    planes: Planes {
        format: "q4_1",
        block_bytes: 16,
        scale_words: |blocks| blocks,
        split,
    },
};

fn dequantize(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    for (value, q) in out.iter_mut().zip(split_nibbles(&block[4..])) {
        *value = d * f32::from(q) + m;
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    each_split(row, quants, |i, block: &[u8; 20], quants| {
        put(scales, 4 * i, &block[..4]);
        quants.copy_from_slice(&block[4..]);
    });
}
