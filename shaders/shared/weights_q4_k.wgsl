// Q4_K: nibbles as Q4_0; 8 blocks have four u32 beside them: (d, dmin) as two f16, low nibbles of 8 scales, of 8 minima,
// upper two bits of both. weight = q d scale - dmin min.
#import packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[row * params.blocks + b];
    let s = scales[row * (params.scale_stride / 4u) + b / 8u];
    let g = b % 8u;
    let d = unpack2x16float(s.x);
    let upper = s.w >> (2u * g);
    let scale = ((s.y >> (4u * g)) & 15u) | ((upper & 3u) << 4u);
    let low = ((s.z >> (4u * g)) & 15u) | (((upper >> 16u) & 3u) << 4u);
    return Packed(low_nibbles(w), high_nibbles(w), vec2<f32>(d.x * f32(scale)), vec2<f32>(-d.y * f32(low)));
}
