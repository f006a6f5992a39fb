//! `F16`: IEEE 754 half precision, little-endian.

use crate::quant::blocks::{Planes, WeightType, each_block, f16_at, no_sample};

pub(super) const TYPE: WeightType = WeightType {
    name: "F16",
    ggml_id: 1,
    block_len: 1,
    block_bytes: 2,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: Some(|values, out| {
        for value in values {
            out.extend(half::f16::from_f32(*value).to_le_bytes());
        }
    }),
    sample: no_sample,
    planes: Planes {
        format: "f16",
        block_bytes: 64,
        scale_words: |_| 0,
        split: |row, quants, _| quants[..row.len()].copy_from_slice(row),
    },
};

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that blocks of all sizes have"
)]
fn dequantize(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f16_at(bytes, 0);
}
