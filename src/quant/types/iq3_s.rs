//! `IQ3_S`: 3.44 bits per weight: a codebook of 512, with explicit signs.
//!
//! `d: f16, qs: [u8; 64], high: [u8; 8], signs: [u8; 32], scales: [u8; 4]`; 9 bits of index, a scale for 32 weights.

use crate::quant::blocks::{
    Products, WeightType, each_block, each_product, f16_at, nibble, put_f16,
};
use crate::quant::codebook::iq3_group;
use crate::quant::tables::IQ3S_GRID;

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "IQ3_S",
    21,
    (256, 110),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    |block, scale| put_f16(block, 0, scale / 150.0),
);

fn products(block: &[u8; 110], out: &mut impl Products) {
    const LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
    let d = f16_at(block, 0);
    let (qs, high, signs, scales) = (
        &block[2..66],
        &block[66..74],
        &block[74..106],
        &block[106..110],
    );
    for (group, signs) in signs.iter().enumerate() {
        let scale = d * (1.0 + 2.0 * f32::from(nibble(scales, group / 4)));
        let pair = [2 * group, 2 * group + 1].map(|i| {
            let ninth = (high[i / 8] >> (i % 8)) & 1;
            IQ3S_GRID[usize::from(qs[i]) | usize::from(ninth) << 8]
        });
        iq3_group(pair, LEVELS, scale, *signs, group, out);
    }
}
