// Q5_K: as Q4_K, and after its four u32 one a block with a fifth bit each.
#import packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[row * params.blocks + b];
    let at = row * (params.scale_stride / 4u) + b / 8u * 3u;
    let s = scales[at];
    let g = b % 8u;
    let d = unpack2x16float(s.x);
    let upper = s.w >> (2u * g);
    let scale = ((s.y >> (4u * g)) & 15u) | ((upper & 3u) << 4u);
    let low = ((s.z >> (4u * g)) & 15u) | (((upper >> 16u) & 3u) << 4u);
    let fifth = scale_word(at * 4u + 4u + g);
    return Packed(
        low_nibbles(w) | (low_bits(fifth) << vec4<u32>(4u)), high_nibbles(w) | (high_bits(fifth) << vec4<u32>(4u)),
        vec2<f32>(d.x * f32(scale)), vec2<f32>(-d.y * f32(low)));
}
