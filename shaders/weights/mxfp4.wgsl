// MXFP4: nibbles as Q4_0, numbers in E2M1 (OCP Microscaling 1.0); a scale 2^(e - 127) as one byte e, four blocks a u32.
// Levels are doubled to be integers, so d is halved. (Scales below 2^-126 are no normal f32 and count as 0.)
#import shared/level_block

fn levels_of(w: u32) -> vec4<f32> {
    let n = vec4<u32>(w) >> vec4<u32>(0u, 8u, 16u, 24u);
    let level = vec4<f32>((vec4<u32>(0xc8643210u) >> (4u * (n & vec4<u32>(7u)))) & vec4<u32>(15u));
    return select(level, -level, (n & vec4<u32>(8u)) != vec4<u32>(0u));
}

fn load_block(row: u32, b: u32) -> Block {
    let e = (scales[row * params.matrix.scale_stride + b / 4u] >> (8u * (b % 4u))) & 255u;
    return level_block(weights[row * params.matrix.blocks + b], bitcast<f32>((max(e, 1u) - 1u) << 23u));
}
