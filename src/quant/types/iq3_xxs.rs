//! `IQ3_XXS`: 3.06 bits per weight: groups of 4 from a codebook of 256.
//!
//! `d: f16, qs: [u8; 64], signs_and_scale: [u32; 8]`; two indices (of 4 weights each) share 7 bits of signs.

use crate::quant::blocks::{
    Products, WeightType, each_block, each_product, f16_at, put_f16, u32_at,
};
use crate::quant::codebook::{iq3_group, seven_signs};
use crate::quant::tables::IQ3XXS_GRID;

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "IQ3_XXS",
    18,
    (256, 98),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    |block, scale| put_f16(block, 0, scale / 150.0),
);

fn products(block: &[u8; 98], out: &mut impl Products) {
    /// Level `i` is `4 + 8 * i`, but for the last.
    const LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
    let d = f16_at(block, 0);
    let qs = &block[2..66];
    for group in 0..256 / 8 {
        let packed = u32_at(block, 66 + 4 * (group / 4));
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.5;
        let signs = seven_signs(packed >> (7 * (group % 4)));
        let pair = [2 * group, 2 * group + 1].map(|i| IQ3XXS_GRID[usize::from(qs[i])]);
        iq3_group(pair, LEVELS, scale, signs, group, out);
    }
}
