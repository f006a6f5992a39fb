// Q5_K: as Q4_K, and after its four u32 one a block with a fifth bit each.
#import shared/packed_unsigned
#import shared/k_scales

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[row * params.matrix.blocks + b];
    let at = row * (params.matrix.scale_stride / 4u) + b / 8u * 3u;
    let g = b % 8u;
    let dm = k_scale(scales[at], g);
    let fifth = scale_word(at * 4u + 4u + g);
    return Packed(
        low_nibbles(w) | (low_bits(fifth) << vec4<u32>(4u)), high_nibbles(w) | (high_bits(fifth) << vec4<u32>(4u)),
        vec2<f32>(dm.x), vec2<f32>(dm.y));
}
