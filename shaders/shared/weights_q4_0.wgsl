// Q4_0: 1 word a block: low nibbles are weights 0..16, high nibbles 16..32; weight = (q - 8) d; scale f16, two
// blocks a u32.
fn load_block(row: u32, b: u32) -> Block {
    let w = weights[row * params.blocks + b];
    let h = w >> vec4<u32>(4u);
    let pair = unpack2x16float(scales[row * params.scale_stride + b / 2u]);
    let d = select(pair.x, pair.y, (b & 1u) != 0u);
    return Block(
        nibbles_of(w.x), nibbles_of(w.y), nibbles_of(w.z), nibbles_of(w.w),
        nibbles_of(h.x), nibbles_of(h.y), nibbles_of(h.z), nibbles_of(h.w),
        vec2<f32>(d), vec2<f32>(-8.0 * d));
}
