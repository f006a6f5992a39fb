//! `IQ2_XS`: 2.31 bits per weight: a codebook of 512.
//!
//! `d: f16, qs: [u16; 32], scales: [u8; 8]`; 9 bits of index and 7 of signs, a 4-bit scale for 16 weights.

use crate::quant::blocks::{
    Products, WeightType, each_block, each_product, f16_at, nibble, put_f16, u16_at,
};
use crate::quant::codebook::{iq2_group, seven_signs};
use crate::quant::tables::IQ2XS_GRID;

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "IQ2_XS",
    17,
    (256, 74),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    |block, scale| put_f16(block, 0, scale / 60.0),
);

fn products(block: &[u8; 74], out: &mut impl Products) {
    let d = f16_at(block, 0);
    for group in 0..256 / 8 {
        let packed = u16_at(block, 2 + 2 * group);
        let scale = d * (0.5 + f32::from(nibble(&block[66..], group / 2))) * 0.25;
        iq2_group(
            IQ2XS_GRID[usize::from(packed & 511)],
            scale,
            seven_signs(u32::from(packed >> 9)),
            group,
            out,
        );
    }
}
