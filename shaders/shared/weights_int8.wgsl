// int8: 2 words of signed bytes a block, and an f32 scale per 16 weights. What codebook and ternary types become at load.
fn load_block(row: u32, b: u32) -> Block {
    let word = (row * params.blocks + b) * 2u;
    let w0 = weights[word];
    let w1 = weights[word + 1u];
    let at = row * params.scale_stride + 2u * b;
    return Block(
        signed_bytes_of(w0.x), signed_bytes_of(w0.y), signed_bytes_of(w0.z), signed_bytes_of(w0.w),
        signed_bytes_of(w1.x), signed_bytes_of(w1.y), signed_bytes_of(w1.z), signed_bytes_of(w1.w),
        vec2<f32>(bitcast<f32>(scales[at]), bitcast<f32>(scales[at + 1u])), vec2<f32>(0.0));
}
