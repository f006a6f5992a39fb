//! `TQ2_0`: 2.06 bits per weight: ternary digits of 2 bits; a weight is `-d`, 0 or `d`.
//!
//! `qs: [u8; 64], d: f16`; weight `128 * half + 32 * part + lane` has bits `2 * part` of byte `32 * half + lane`.

use crate::quant::blocks::{Products, WeightType, each_block, each_product, f16_at, put_f16};

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "TQ2_0",
    35,
    (256, 66),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    |block, scale| put_f16(block, 64, scale),
);

fn products(block: &[u8; 66], out: &mut impl Products) {
    let d = f16_at(block, 64);
    for i in 0..256 {
        let digit = (block[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3;
        out.put(i, d, digit as i8 - 1);
    }
}
