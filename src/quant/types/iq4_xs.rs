//! `IQ4_XS`: 256 x the levels of `IQ4_NL`, in groups of 32 with 6-bit scales.
//!
//! `d: f16, scales_high: u16, scales_low: [u8; 4], qs: [u8; 128]`; weight = `d * (scale - 32) * level`.

use crate::quant::blocks::{
    IQ4, Planes, WeightType, each_block, each_split, f16_at, iq4_xs_scale, level_block, put,
    put_f16,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "IQ4_XS",
    ggml_id: 23,
    block_len: 256,
    block_bytes: 136,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: None,
    sample: |block, scale| put_f16(block, 0, scale / 1500.0),
    planes: Planes {
        format: "iq4_xs",
        block_bytes: 16,
        scale_words: |blocks| 2 * (blocks / 8),
        split,
    },
};

fn dequantize(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let scale = d * (f32::from(iq4_xs_scale(block, group)) - 32.0);
        level_block(&block[8 + 16 * group..][..16], &IQ4, scale, out);
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    // [d, upper two bits of 8 scales] [their low nibbles]
    each_split(row, quants, |i, block: &[u8; 136], quants| {
        put(scales, 8 * i, &block[..8]);
        quants.copy_from_slice(&block[8..]);
    });
}
