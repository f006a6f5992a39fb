// Q5_1: nibbles as Q4_0; a block has two u32 beside them: a fifth bit each, and (d, m) as two f16. weight = q d + m.
fn load_block(row: u32, b: u32) -> Block {
    let w = weights[row * params.blocks + b];
    let h = w >> vec4<u32>(4u);
    let at = row * params.scale_stride + 2u * b;
    let high = scales[at];
    let dm = unpack2x16float(scales[at + 1u]);
    return Block(
        nibbles_of(w.x) + 16.0 * bits_of(high), nibbles_of(w.y) + 16.0 * bits_of(high >> 1u), nibbles_of(w.z) + 16.0 * bits_of(high >> 2u), nibbles_of(w.w) + 16.0 * bits_of(high >> 3u),
        nibbles_of(h.x) + 16.0 * bits_of(high >> 4u), nibbles_of(h.y) + 16.0 * bits_of(high >> 5u), nibbles_of(h.z) + 16.0 * bits_of(high >> 6u), nibbles_of(h.w) + 16.0 * bits_of(high >> 7u),
        vec2<f32>(dm.x), vec2<f32>(dm.y));
}
