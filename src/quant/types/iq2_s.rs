//! `IQ2_S`: 2.5 bits per weight: a codebook of 1024, with explicit signs.
//!
//! `d: f16, qs: [u8; 32], signs: [u8; 32], high: [u8; 8], scales: [u8; 8]`; 10 bits of index, a scale for 16 weights.

use crate::quant::blocks::{
    Products, WeightType, each_block, each_product, f16_at, nibble, put_f16,
};
use crate::quant::codebook::iq2_group;
use crate::quant::tables::IQ2S_GRID;

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "IQ2_S",
    22,
    (256, 82),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    |block, scale| put_f16(block, 0, scale / 60.0),
);

fn products(block: &[u8; 82], out: &mut impl Products) {
    let d = f16_at(block, 0);
    let (qs, signs, high, scales) = (
        &block[2..34],
        &block[34..66],
        &block[66..74],
        &block[74..82],
    );
    for group in 0..256 / 8 {
        let upper = (high[group / 4] >> (2 * (group % 4))) & 3;
        let index = usize::from(qs[group]) | usize::from(upper) << 8;
        let scale = d * (0.5 + f32::from(nibble(scales, group / 2))) * 0.25;
        iq2_group(IQ2S_GRID[index], scale, signs[group], group, out);
    }
}
