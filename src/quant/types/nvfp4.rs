//! `NVFP4`: 64 x E2M1 in groups of 16, each with an unsigned E4M3 scale.
//!
//! `d: [UE4M3; 4], qs: [u8; 32]`; groups of 16 with weight = `d * level`.

use crate::quant::blocks::{E2M1, Products, WeightType, each_block, each_product};

pub(super) const TYPE: WeightType = WeightType::with_int8(
    "NVFP4",
    40,
    (64, 36),
    |bytes, out| each_block::<_, 64>(bytes, out, products),
    |bytes, out| each_product(bytes, out, 64, products),
    sample,
);

fn products(block: &[u8; 36], out: &mut impl Products) {
    for group in 0..4 {
        let scale = half_of_ue4m3(block[group]);
        for i in 0..16 {
            let q = block[4 + 8 * group + i % 8] >> (4 * (i / 8)) & 15;
            out.put(16 * group + i, scale, E2M1[usize::from(q)]);
        }
    }
}

/// Scales near 1.
fn sample(block: &mut [u8], _: f32) {
    for byte in &mut block[..4] {
        *byte = 8 * 3 + *byte % 8;
    }
}

/// Half of an unsigned float with 4 bits of exponent (bias 7) and 3 of mantissa. As in ggml, 0x7f (NaN) counts as 0, and
/// the top bit is ignored.
fn half_of_ue4m3(bits: u8) -> f32 {
    let exponent = i32::from((bits >> 3) & 15);
    let mantissa = f32::from(bits & 7);
    if bits == 0x7f {
        0.0
    } else if exponent == 0 {
        mantissa * 2_f32.powi(-10)
    } else {
        (1.0 + mantissa / 8.0) * 2_f32.powi(exponent - 8)
    }
}
