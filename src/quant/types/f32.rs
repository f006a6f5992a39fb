//! `F32`: IEEE 754 single precision, little-endian.

use crate::quant::blocks::{Planes, WeightType, each_block, no_sample};

pub(super) const TYPE: WeightType = WeightType {
    name: "F32",
    ggml_id: 0,
    block_len: 1,
    block_bytes: 4,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: Some(|values, out| {
        for value in values {
            out.extend(value.to_le_bytes());
        }
    }),
    sample: no_sample,
    planes: Planes {
        format: "f32",
        block_bytes: 128,
        scale_words: |_| 0,
        split: |row, quants, _| quants[..row.len()].copy_from_slice(row),
    },
};

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that blocks of all sizes have"
)]
fn dequantize(bytes: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*bytes);
}
