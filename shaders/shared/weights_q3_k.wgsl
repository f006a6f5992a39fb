// Q3_K: for 8 blocks six words: 2 bits a weight in four, a third bit in two. Beside them three u32: low nibbles of 16
// scales, their upper two bits; and, after all of these, d as f16 two by two. weight = (q - 4) d (scale - 32).
fn load_block(row: u32, b: u32) -> Block {
    let g = b % 8u;
    let word = (row * params.blocks + b) / 8u * 6u;
    let w = weights[word + g / 2u];
    let c = select(w.xy, w.zw, (g & 1u) != 0u);
    let high = weights[word + 4u + g / 4u][g % 4u];
    let at = row * params.scale_stride;
    let s = b / 8u;
    let nibbles = scales[at + 3u * s + g / 4u] >> (8u * (g % 4u));
    let upper = scales[at + 3u * s + 2u] >> (4u * g);
    let scale = vec2<u32>(nibbles & 15u, (nibbles >> 4u) & 15u) | (vec2<u32>(upper & 3u, (upper >> 2u) & 3u) << vec2<u32>(4u));
    let pair = unpack2x16float(scales[at + params.blocks / 8u * 3u + s / 2u]);
    let d = select(pair.x, pair.y, (s & 1u) != 0u) * (vec2<f32>(scale) - 32.0);
    return Block(
        crumbs_of(c.x) + 4.0 * bits_of(high),
        crumbs_of(c.x >> 2u) + 4.0 * bits_of(high >> 1u),
        crumbs_of(c.x >> 4u) + 4.0 * bits_of(high >> 2u),
        crumbs_of(c.x >> 6u) + 4.0 * bits_of(high >> 3u),
        crumbs_of(c.y) + 4.0 * bits_of(high >> 4u),
        crumbs_of(c.y >> 2u) + 4.0 * bits_of(high >> 5u),
        crumbs_of(c.y >> 4u) + 4.0 * bits_of(high >> 6u),
        crumbs_of(c.y >> 6u) + 4.0 * bits_of(high >> 7u),
        d, -4.0 * d);
}
