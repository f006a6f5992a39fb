//! 4-bit types whose number picks one of 16 uneven levels: ggml's `IQ4` types, and the E2M1 floats of `MXFP4` and
//! `NVFP4`.

use super::{Products, f16_at, u16_at};

/// The levels of `IQ4_NL` and `IQ4_XS` (`kvalues_iq4nl`), denser near zero where weights are.
const IQ4: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// All E2M1 floats (OCP Microscaling 1.0), doubled so that they are integers; scales are halved to match.
const E2M1: [f32; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
];

/// `d: f16, qs: [u8; 16]`; weight = `d * level`.
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    split_nibbles(&block[2..], &IQ4, f16_at(block, 0), out);
}

/// `d: f16, scales_high: u16, scales_low: [u8; 4], qs: [u8; 128]`; groups of 32 with weight = `d * (scale - 32) * level`.
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high = u16_at(block, 2);
    let low = &block[4..8];
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let low = (low[group / 2] >> (4 * (group % 2))) & 15;
        let high = ((high >> (2 * group)) & 3) as u8;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        split_nibbles(&block[8 + 16 * group..][..16], &IQ4, scale, out);
    }
}

/// `e: E8M0, qs: [u8; 16]`; weight = `2^(e - 127) * level`.
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    split_nibbles(&block[1..], &E2M1, half_of_e8m0(block[0]), out);
}

/// `d: [UE4M3; 4], qs: [u8; 32]`; groups of 16 with weight = `d * level`.
pub(super) fn nvfp4(block: &[u8; 36], out: &mut impl Products) {
    for group in 0..4 {
        let scale = half_of_ue4m3(block[group]);
        for i in 0..16 {
            let nibble = block[4 + 8 * group + i % 8] >> (4 * (i / 8)) & 15;
            out.put(16 * group + i, scale, E2M1[usize::from(nibble)] as i8);
        }
    }
}

/// Low nibbles give the first half of `out`, high nibbles the second.
fn split_nibbles(bytes: &[u8], levels: &[f32; 16], scale: f32, out: &mut [f32]) {
    let (low, high) = out.split_at_mut(bytes.len());
    for (i, byte) in bytes.iter().enumerate() {
        low[i] = scale * levels[usize::from(byte & 15)];
        high[i] = scale * levels[usize::from(byte >> 4)];
    }
}

/// `2^(e - 128)`, which for 0 and 1 is a subnormal. As in ggml, 255 is no NaN.
fn half_of_e8m0(e: u8) -> f32 {
    f32::from_bits(match e {
        0 | 1 => 0x0020_0000 << e,
        _ => u32::from(e - 1) << 23,
    })
}

/// Half of an unsigned float with 4 bits of exponent (bias 7) and 3 of mantissa. As in ggml, 0x7f (NaN) counts as 0, and
/// the top bit is ignored.
fn half_of_ue4m3(bits: u8) -> f32 {
    let exponent = i32::from((bits >> 3) & 15);
    let mantissa = f32::from(bits & 7);
    if bits == 0x7f {
        0.0
    } else if exponent == 0 {
        mantissa * 2f32.powi(-10)
    } else {
        (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 8)
    }
}
