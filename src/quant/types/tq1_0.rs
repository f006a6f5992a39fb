//! `TQ1_0`: 1.69 bits per weight: five ternary digits in a byte; a weight is `-d`, 0 or `d`.
//!
//! `qs: [u8; 48], high: [u8; 4], d: f16`. A byte holds five digits of base 3, as the fraction `digits / 243` in 8 bits:
//! the first digit is the integer part of three times it. Digit `n` of the first 32 bytes makes weights `32 * n ..`, of
//! the next 16 weights `160 + 16 * n ..`; the last four bytes hold four digits, for weights `240 + 4 * n ..`.

use crate::quant::blocks::{Products, WeightType, each_block, each_product, f16_at, put_f16};

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "TQ1_0",
    34,
    (256, 54),
    |bytes, out| each_block::<_, 256>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 256, products),
    |block, scale| put_f16(block, 52, scale),
);

fn products(block: &[u8; 54], out: &mut impl Products) {
    let d = f16_at(block, 52);
    let mut at = 0;
    for (bytes, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        let mut power = 1_u8;
        for _ in 0..digits {
            for byte in bytes {
                let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                out.put(at, d, digit as i8 - 1);
                at += 1;
            }
            power = power.wrapping_mul(3);
        }
    }
}
