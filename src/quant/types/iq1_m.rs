//! `IQ1_M`: 1.75 bits per weight: as `IQ1_S` with finer scales.
//!
//! `qs: [u8; 32], high: [u8; 16], scales: [u16; 4]`; a nibble of `high` per group (3 bits of index, 1 of delta), 3 bits
//! of scale per 16 weights, and the f16 `d` in pieces: the top nibbles of the four `scales`.

use crate::quant::blocks::{Products, WeightType, each_block, each_product, u16_at};
use crate::quant::codebook::iq1_group;
use crate::quant::tables::IQ1_GRID;

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "IQ1_M",
    29,
    (256, 56),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    sample,
);

fn products(block: &[u8; 56], out: &mut impl Products) {
    let scales: [u16; 4] = std::array::from_fn(|i| u16_at(block, 48 + 2 * i));
    let d = scales
        .iter()
        .enumerate()
        .fold(0, |d, (i, scale)| d | (scale >> 12) << (4 * i));
    let d = half::f16::from_bits(d).to_f32();
    for group in 0..256 / 8 {
        let high = block[32 + group / 2] >> (4 * (group % 2));
        let index = usize::from(block[group]) | usize::from(high & 7) << 8;
        let scale = (scales[group / 8] >> (3 * (group / 2 % 4))) & 7;
        iq1_group(
            IQ1_GRID[index],
            d * f32::from(2 * scale + 1),
            high & 8 != 0,
            group,
            out,
        );
    }
}

/// The f16 lies in the top nibbles of four u16.
fn sample(block: &mut [u8], scale: f32) {
    let bits = half::f16::from_f32(scale / 8.0).to_bits();
    for i in 0..4 {
        let byte = &mut block[49 + 2 * i];
        *byte = *byte & 15 | ((bits >> (4 * i) & 15) as u8) << 4;
    }
}
