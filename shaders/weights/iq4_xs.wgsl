// IQ4_XS: nibbles as Q4_0, which pick uneven levels; 8 blocks have two u32 beside them: d as f16 and the upper two bits of
// 8 scales, then their low nibbles. weight = level d (scale - 32).
#import shared/levels_iq4
#import shared/level_block

fn load_block(row: u32, b: u32) -> Block {
    let at = row * params.matrix.scale_stride + b / 8u * 2u;
    let g = b % 8u;
    let first = scales[at];
    let scale = ((scales[at + 1u] >> (4u * g)) & 15u) | (((first >> (16u + 2u * g)) & 3u) << 4u);
    return level_block(weights[row * params.matrix.blocks + b], unpack2x16float(first).x * (f32(scale) - 32.0));
}
