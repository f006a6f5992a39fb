// Q3_K: for 8 blocks six words: 2 bits a weight in four, a third bit in two. Beside them three u32: low nibbles of 16
// scales, their upper two bits; and, after all of these, d as f16 two by two. weight = (q - 4) d (scale - 32).
#import shared/packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let g = b % 8u;
    let word = (row * params.matrix.blocks + b) / 8u * 6u;
    let w = weights[word + g / 2u];
    let c = select(w.xy, w.zw, (g & 1u) != 0u);
    let thirds = weights[word + 4u + g / 4u];
    let third = select(select(thirds.x, thirds.y, (g & 1u) != 0u), select(thirds.z, thirds.w, (g & 1u) != 0u), (g & 2u) != 0u);
    let at = row * params.matrix.scale_stride;
    let s = b / 8u;
    let nibbles = scales[at + 3u * s + g / 4u] >> (8u * (g % 4u));
    let upper = scales[at + 3u * s + 2u] >> (4u * g);
    let scale = vec2<u32>(nibbles & 15u, (nibbles >> 4u) & 15u) | (vec2<u32>(upper & 3u, (upper >> 2u) & 3u) << vec2<u32>(4u));
    let d = half_of(scales[at + params.matrix.blocks / 8u * 3u + s / 2u], s) * (vec2<f32>(scale) - 32.0);
    return Packed(
        crumbs(c.x) | (low_bits(third) << vec4<u32>(2u)), crumbs(c.y) | (high_bits(third) << vec4<u32>(2u)), d, -4.0 * d);
}
