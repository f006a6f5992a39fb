// F16: 4 words a block, two halves a u32. Needs no shader-f16: unpack2x16float is core WGSL.
fn halves_of(a: u32, b: u32) -> vec4<f32> { return vec4<f32>(unpack2x16float(a), unpack2x16float(b)); }

fn load_block(row: u32, b: u32) -> Block {
    let at = (row * params.matrix.blocks + b) * 4u;
    let w0 = weights[at];
    let w1 = weights[at + 1u];
    let w2 = weights[at + 2u];
    let w3 = weights[at + 3u];
    return Block(
        halves_of(w0.x, w0.y), halves_of(w0.z, w0.w), halves_of(w1.x, w1.y), halves_of(w1.z, w1.w),
        halves_of(w2.x, w2.y), halves_of(w2.z, w2.w), halves_of(w3.x, w3.y), halves_of(w3.z, w3.w),
        vec2<f32>(1.0), vec2<f32>(0.0));
}
