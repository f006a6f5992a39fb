//! `Q5_1`: 32 x 5 bits, f16 scale and minimum. `d: f16, m: f16, qh: u32, qs: [u8; 16]`; weight = `d * q + m`.

use crate::quant::blocks::{
    Planes, WeightType, each_32, each_block, each_split, f16_at, five_bits, no_sample, put,
    spread_bits, with_minimum,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q5_1",
    ggml_id: 7,
    block_len: 32,
    block_bytes: 24,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: Some(|values, out| each_32(values, |block| with_minimum(block, 5, out))),
    sample: no_sample,
    planes: Planes {
        format: "q5_1",
        block_bytes: 16,
        scale_words: |blocks| 2 * blocks,
        split,
    },
};

fn dequantize(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    for (value, q) in out.iter_mut().zip(five_bits(&block[8..], &block[4..8])) {
        *value = d * f32::from(q) + m;
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    // Fifth bits and scales in turn.
    each_split(row, quants, |i, block: &[u8; 24], quants| {
        put(
            scales,
            8 * i,
            &spread_bits(&block[4..8], |at| (at / 8, at % 8)),
        );
        put(scales, 8 * i + 4, &block[..4]);
        quants.copy_from_slice(&block[8..]);
    });
}
