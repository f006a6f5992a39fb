//! `Q4_0`: 32 x 4 bits, f16 scale. `d: f16, qs: [u8; 16]`; weight = `d * (q - 8)`.

use crate::quant::blocks::{
    Planes, WeightType, centred, each_32, each_block, each_split, f16_at, no_sample, put,
    split_nibbles,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q4_0",
    ggml_id: 2,
    block_len: 32,
    block_bytes: 18,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: Some(|values, out| each_32(values, |block| centred(block, 4, out))),
    sample: no_sample,
    planes: Planes {
        format: "q4_0",
        block_bytes: 16,
        scale_words: |blocks| blocks.div_ceil(2),
        split,
    },
};

fn dequantize(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (value, q) in out.iter_mut().zip(split_nibbles(&block[2..])) {
        *value = d * (f32::from(q) - 8.0);
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    each_split(row, quants, |i, block: &[u8; 18], quants| {
        put(scales, 2 * i, &block[..2]);
        quants.copy_from_slice(&block[2..]);
    });
}
