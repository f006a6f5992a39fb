//! `Q5_0`: 32 x 5 bits, f16 scale. `d: f16, qh: u32, qs: [u8; 16]`; weight = `d * (q - 16)`.

use crate::quant::blocks::{
    Planes, WeightType, centred, each_32, each_block, each_split, f16_at, five_bits, no_sample,
    put, spread_bits,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q5_0",
    ggml_id: 6,
    block_len: 32,
    block_bytes: 22,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: Some(|values, out| each_32(values, |block| centred(block, 5, out))),
    sample: no_sample,
    planes: Planes {
        format: "q5_0",
        block_bytes: 16,
        scale_words: |blocks| blocks + blocks.div_ceil(2),
        split,
    },
};

fn dequantize(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (value, q) in out.iter_mut().zip(five_bits(&block[6..], &block[2..6])) {
        *value = d * (f32::from(q) - 16.0);
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    // Fifth bits first, then all scales.
    let count = row.len() / 22;
    each_split(row, quants, |i, block: &[u8; 22], quants| {
        put(scales, 4 * count + 2 * i, &block[..2]);
        put(
            scales,
            4 * i,
            &spread_bits(&block[2..6], |at| (at / 8, at % 8)),
        );
        quants.copy_from_slice(&block[6..]);
    });
}
