// Q6_K: for 8 blocks twelve words: nibbles as Q4_0 in eight, upper two bits in four. Beside them four u32 with an int8
// scale per 16 weights; and, after all of these, d as f16 two by two. weight = (q - 32) d scale.
#import shared/packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let g = b % 8u;
    let word = (row * params.matrix.blocks + b) / 8u * 12u;
    let w = weights[word + g];
    let both = weights[word + 8u + g / 2u];
    let c = select(both.xy, both.zw, (g & 1u) != 0u);
    let at = row * params.matrix.scale_stride;
    let s = b / 8u;
    let bytes = bitcast<i32>(scales[at + 4u * s + g / 2u] >> (16u * (g & 1u)));
    let scale = vec2<f32>((vec2<i32>(bytes) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u));
    let d = half_of(scales[at + params.matrix.blocks / 2u + s / 2u], s) * scale;
    return Packed(
        low_nibbles(w) | (crumbs(c.x) << vec4<u32>(4u)), high_nibbles(w) | (crumbs(c.y) << vec4<u32>(4u)), d, -32.0 * d);
}
