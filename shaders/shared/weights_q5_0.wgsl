// Q5_0: nibbles as Q4_0; a fifth bit each in one u32 a block; then scales f16, two blocks a u32. weight = (q - 16) d.
fn load_block(row: u32, b: u32) -> Block {
    let w = weights[row * params.blocks + b];
    let h = w >> vec4<u32>(4u);
    let at = row * params.scale_stride;
    let high = scales[at + b];
    let pair = unpack2x16float(scales[at + params.blocks + b / 2u]);
    let d = select(pair.x, pair.y, (b & 1u) != 0u);
    return Block(
        nibbles_of(w.x) + 16.0 * bits_of(high), nibbles_of(w.y) + 16.0 * bits_of(high >> 1u), nibbles_of(w.z) + 16.0 * bits_of(high >> 2u), nibbles_of(w.w) + 16.0 * bits_of(high >> 3u),
        nibbles_of(h.x) + 16.0 * bits_of(high >> 4u), nibbles_of(h.y) + 16.0 * bits_of(high >> 5u), nibbles_of(h.z) + 16.0 * bits_of(high >> 6u), nibbles_of(h.w) + 16.0 * bits_of(high >> 7u),
        vec2<f32>(d), vec2<f32>(-16.0 * d));
}
