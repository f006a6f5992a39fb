//! Ternary types: super-blocks of 256 weights, each `-d`, 0 or `d`.

use super::{Products, f16_at};

/// Weights per super-block.
const LEN: usize = 256;

/// `qs: [u8; 48], high: [u8; 4], d: f16`. A byte holds five digits of base 3, as the fraction `digits / 243` in 8 bits:
/// the first digit is the integer part of three times it. Digit `n` of the first 32 bytes makes weights `32 * n ..`, of
/// the next 16 weights `160 + 16 * n ..`; the last four bytes hold four digits, for weights `240 + 4 * n ..`.
pub(super) fn tq1_0(block: &[u8; 54], out: &mut impl Products) {
    let d = f16_at(block, 52);
    let mut at = 0;
    for (bytes, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        let mut power = 1u8;
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

/// `qs: [u8; 64], d: f16`; weight `128 * half + 32 * part + lane` has bits `2 * part` of byte `32 * half + lane`.
pub(super) fn tq2_0(block: &[u8; 66], out: &mut impl Products) {
    let d = f16_at(block, 64);
    for i in 0..LEN {
        let digit = (block[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3;
        out.put(i, d, digit as i8 - 1);
    }
}
