// Q8_0: 2 words of int8 a block; scale f16, two blocks a u32.
fn load_block(row: u32, b: u32) -> Block {
    let at = (row * params.blocks + b) * 2u;
    let w0 = weights[at];
    let w1 = weights[at + 1u];
    let pair = unpack2x16float(scales[row * params.scale_stride + b / 2u]);
    let d = select(pair.x, pair.y, (b & 1u) != 0u);
    return Block(
        signed_bytes_of(w0.x), signed_bytes_of(w0.y), signed_bytes_of(w0.z), signed_bytes_of(w0.w),
        signed_bytes_of(w1.x), signed_bytes_of(w1.y), signed_bytes_of(w1.z), signed_bytes_of(w1.w),
        vec2<f32>(d), vec2<f32>(0.0));
}
