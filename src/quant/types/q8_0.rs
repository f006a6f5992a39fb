//! `Q8_0`: 32 x 8 bits, f16 scale. `d: f16, qs: [i8; 32]`; weight = `d * q`.

use crate::quant::blocks::{
    Planes, WeightType, each_32, each_block, each_split, f16_at, inverse, no_sample, push_f16, put,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q8_0",
    ggml_id: 8,
    block_len: 32,
    block_bytes: 34,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: Some(|values, out| each_32(values, |block| quantize(block, out))),
    sample: no_sample,
    planes: Planes {
        format: "q8_0",
        block_bytes: 32,
        scale_words: |blocks| blocks.div_ceil(2),
        split,
    },
};

fn dequantize(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (value, byte) in out.iter_mut().zip(&block[2..]) {
        *value = d * f32::from(*byte as i8);
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    each_split(row, quants, |i, block: &[u8; 34], quants| {
        put(scales, 2 * i, &block[..2]);
        quants.copy_from_slice(&block[2..]);
    });
}

/// Symmetric around zero; halves round away from zero, as C's `roundf`.
fn quantize(block: &[f32; 32], out: &mut Vec<u8>) {
    let largest = block
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let d = largest / 127.0;
    let inverse = inverse(d);
    push_f16(d, out);
    out.extend(
        block
            .iter()
            .map(|value| (value * inverse).round() as i8 as u8),
    );
}
