// Q4_1: nibbles as Q4_0; weight = q d + m; (d, m) as two f16 in one u32 a block.
fn load_block(row: u32, b: u32) -> Block {
    let w = weights[row * params.blocks + b];
    let h = w >> vec4<u32>(4u);
    let dm = unpack2x16float(scales[row * params.scale_stride + b]);
    return Block(
        nibbles_of(w.x), nibbles_of(w.y), nibbles_of(w.z), nibbles_of(w.w),
        nibbles_of(h.x), nibbles_of(h.y), nibbles_of(h.z), nibbles_of(h.w),
        vec2<f32>(dm.x), vec2<f32>(dm.y));
}
