//! `IQ1_S`: 1.56 bits per weight: groups of 8 from a codebook of 2048 ternary vectors.
//!
//! `d: f16, qs: [u8; 32], high: [u16; 8]`; a u16 serves 32 weights: four times 3 bits of index, 3 of scale, 1 of delta.

use crate::quant::blocks::{
    Products, WeightType, each_block, each_product, f16_at, put_f16, u16_at,
};
use crate::quant::codebook::iq1_group;
use crate::quant::tables::IQ1_GRID;

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "IQ1_S",
    19,
    (256, 50),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    |block, scale| put_f16(block, 0, scale / 8.0),
);

fn products(block: &[u8; 50], out: &mut impl Products) {
    let d = f16_at(block, 0);
    for group in 0..256 / 8 {
        let high = u16_at(block, 34 + 2 * (group / 4));
        let index =
            usize::from(block[2 + group]) | usize::from((high >> (3 * (group % 4))) & 7) << 8;
        let scale = d * f32::from(2 * ((high >> 12) & 7) + 1);
        iq1_group(IQ1_GRID[index], scale, high & 0x8000 != 0, group, out);
    }
}
