//! `Q3_K`: 256 x 3 bits in groups of 16, with 6-bit scales.
//!
//! `high: [u8; 32], qs: [u8; 64], scales: [u8; 12], d: f16`; weight = `d * (scale - 32) * (q - 4)`. The third bit of weight
//! `32 * group + i` is bit `group` of `high[i]`.

use crate::quant::blocks::{
    Planes, WeightType, each_block, each_split, f16_at, k_crumb, pack_crumbs, put, put_f16,
    q3_k_scale, spread_bits,
};

pub(super) const TYPE: WeightType = WeightType {
    name: "Q3_K",
    ggml_id: 11,
    block_len: 256,
    block_bytes: 110,
    dequantize: |bytes, out| each_block(bytes, out, dequantize),
    int8: None,
    quantize: None,
    sample: |block, scale| put_f16(block, 108, scale / 60.0),
    planes: Planes {
        format: "q3_k",
        block_bytes: 12,
        scale_words: |blocks| 3 * (blocks / 8) + (blocks / 8).div_ceil(2),
        split,
    },
};

fn dequantize(block: &[u8; 110], out: &mut [f32; 256]) {
    let (high, low, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16_at(block, 108);
    for (i, value) in out.iter_mut().enumerate() {
        let (group, lane) = (i / 32, i % 32);
        let scale = d * (f32::from(q3_k_scale(packed, i / 16)) - 32.0);
        let q = k_crumb(low, group, lane) | ((high[lane] >> group) & 1) << 2;
        *value = scale * (f32::from(q) - 4.0);
    }
}

fn split(row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    // Low nibbles of the 16 scales, their upper two bits; after all of these, d two by two.
    let supers = row.len() / 110;
    each_split(row, quants, |i, block: &[u8; 110], quants| {
        let (high, low, packed) = (&block[..32], &block[32..96], &block[96..108]);
        let mut upper = 0_u32;
        for k in 0..16 {
            let scale = q3_k_scale(packed, k);
            scales[12 * i + k / 2] |= (scale & 15) << (4 * (k % 2));
            upper |= u32::from(scale >> 4) << (2 * k);
        }
        put(scales, 12 * i + 8, &upper.to_le_bytes());
        put(scales, 12 * supers + 2 * i, &block[108..110]);
        let (crumbs, bits) = quants.split_at_mut(64);
        for group in 0..8 {
            pack_crumbs(&mut crumbs[8 * group..][..8], |at| k_crumb(low, group, at));
            put(bits, 4 * group, &spread_bits(high, |at| (at, group)));
        }
    });
}
