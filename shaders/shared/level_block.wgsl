// A block whose 32 numbers, nibbles as in Q4_0, pick levels. `levels_of` gives four of them; weight = level d.
fn level_block(w: vec4<u32>, d: f32) -> Block {
    let h = w >> vec4<u32>(4u);
    return Block(
        levels_of(w.x), levels_of(w.y), levels_of(w.z), levels_of(w.w),
        levels_of(h.x), levels_of(h.y), levels_of(h.z), levels_of(h.w),
        vec2<f32>(d), vec2<f32>(0.0));
}
