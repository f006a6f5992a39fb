// Q6_K: for 8 blocks twelve words: nibbles as Q4_0 in eight, upper two bits in four. Beside them four u32 with an int8
// scale per 16 weights; and, after all of these, d as f16 two by two. weight = (q - 32) d scale.
fn load_block(row: u32, b: u32) -> Block {
    let g = b % 8u;
    let word = (row * params.blocks + b) / 8u * 12u;
    let w = weights[word + g];
    let h = w >> vec4<u32>(4u);
    let both = weights[word + 8u + g / 2u];
    let c = select(both.xy, both.zw, (g & 1u) != 0u);
    let at = row * params.scale_stride;
    let s = b / 8u;
    let bytes = bitcast<i32>(scales[at + 4u * s + g / 2u] >> (16u * (g & 1u)));
    let scale = vec2<f32>((vec2<i32>(bytes) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u));
    let pair = unpack2x16float(scales[at + params.blocks / 2u + s / 2u]);
    let d = select(pair.x, pair.y, (s & 1u) != 0u) * scale;
    return Block(
        nibbles_of(w.x) + 16.0 * crumbs_of(c.x),
        nibbles_of(w.y) + 16.0 * crumbs_of(c.x >> 2u),
        nibbles_of(w.z) + 16.0 * crumbs_of(c.x >> 4u),
        nibbles_of(w.w) + 16.0 * crumbs_of(c.x >> 6u),
        nibbles_of(h.x) + 16.0 * crumbs_of(c.y),
        nibbles_of(h.y) + 16.0 * crumbs_of(c.y >> 2u),
        nibbles_of(h.z) + 16.0 * crumbs_of(c.y >> 4u),
        nibbles_of(h.w) + 16.0 * crumbs_of(c.y >> 6u),
        d, -32.0 * d);
}
