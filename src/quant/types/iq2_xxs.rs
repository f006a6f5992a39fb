//! `IQ2_XXS`: 2.06 bits per weight: groups of 8 from a codebook of 256, plus signs.
//!
//! `d: f16, 8 x (indices: [u8; 4], signs_and_scale: u32)`; 32 weights per pair, `scale = d * (0.5 + top 4 bits) / 4`.

use crate::quant::blocks::{
    Products, WeightType, each_block, each_product, f16_at, put_f16, u32_at,
};
use crate::quant::codebook::{iq2_group, seven_signs};
use crate::quant::tables::IQ2XXS_GRID;

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "IQ2_XXS",
    16,
    (256, 66),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    |block, scale| put_f16(block, 0, scale / 60.0),
);

fn products(block: &[u8; 66], out: &mut impl Products) {
    let d = f16_at(block, 0);
    for pair in 0..256 / 32 {
        let indices = &block[2 + 8 * pair..][..4];
        let packed = u32_at(block, 2 + 8 * pair + 4);
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.25;
        for (j, index) in indices.iter().enumerate() {
            let entry = IQ2XXS_GRID[usize::from(*index)];
            iq2_group(
                entry,
                scale,
                seven_signs(packed >> (7 * j)),
                4 * pair + j,
                out,
            );
        }
    }
}
