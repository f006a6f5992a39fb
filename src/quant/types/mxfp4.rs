//! `MXFP4`: 32 x E2M1 with one power-of-two scale (OCP Microscaling 1.0). `e: E8M0, qs: [u8; 16]`; weight =
//! `2^(e - 127) * level`.

use crate::quant::blocks::{E2M1, Planes, WeightType, each_block, each_split, level_block, put};

pub(super) const TYPE: WeightType = WeightType {
    name: "MXFP4",
    ggml_id: 39,
    block_len: 32,
    block_bytes: 17,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: None,
    sample: |block, scale| block[0] = (127.0 + (scale / 6.0).log2()).round() as u8,
    planes: Planes {
        format: "mxfp4",
        block_bytes: 16,
        scale_words: |blocks| blocks.div_ceil(4),
        split,
    },
};

fn dequantize(block: &[u8; 17], out: &mut [f32; 32]) {
    level_block(&block[1..], &E2M1, half_of_e8m0(block[0]), out);
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    each_split(row, quants, |i, block: &[u8; 17], quants| {
        put(scales, i, &block[..1]);
        quants.copy_from_slice(&block[1..]);
    });
}

/// `2^(e - 128)`, which for 0 and 1 is a subnormal. As in ggml, 255 is no NaN.
fn half_of_e8m0(e: u8) -> f32 {
    f32::from_bits(match e {
        0 | 1 => 0x0020_0000 << e,
        _ => u32::from(e - 1) << 23,
    })
}
