// Q5_K: as Q4_K, and after its four u32 one a block with a fifth bit each.
fn load_block(row: u32, b: u32) -> Block {
    let w = weights[row * params.blocks + b];
    let h = w >> vec4<u32>(4u);
    let at = row * params.scale_stride + b / 8u * 12u;
    let g = b % 8u;
    let d = unpack2x16float(scales[at]);
    let upper = scales[at + 3u] >> (2u * g);
    let scale = ((scales[at + 1u] >> (4u * g)) & 15u) | ((upper & 3u) << 4u);
    let low = ((scales[at + 2u] >> (4u * g)) & 15u) | (((upper >> 16u) & 3u) << 4u);
    let high = scales[at + 4u + g];
    return Block(
        nibbles_of(w.x) + 16.0 * bits_of(high), nibbles_of(w.y) + 16.0 * bits_of(high >> 1u), nibbles_of(w.z) + 16.0 * bits_of(high >> 2u), nibbles_of(w.w) + 16.0 * bits_of(high >> 3u),
        nibbles_of(h.x) + 16.0 * bits_of(high >> 4u), nibbles_of(h.y) + 16.0 * bits_of(high >> 5u), nibbles_of(h.z) + 16.0 * bits_of(high >> 6u), nibbles_of(h.w) + 16.0 * bits_of(high >> 7u),
        vec2<f32>(d.x * f32(scale)), vec2<f32>(-d.y * f32(low)));
}
