// F32: 8 words a block.
fn load_block(row: u32, b: u32) -> Block {
    let at = (row * params.matrix.blocks + b) * 8u;
    return Block(
        bitcast<vec4<f32>>(weights[at]), bitcast<vec4<f32>>(weights[at + 1u]),
        bitcast<vec4<f32>>(weights[at + 2u]), bitcast<vec4<f32>>(weights[at + 3u]),
        bitcast<vec4<f32>>(weights[at + 4u]), bitcast<vec4<f32>>(weights[at + 5u]),
        bitcast<vec4<f32>>(weights[at + 6u]), bitcast<vec4<f32>>(weights[at + 7u]),
        vec2<f32>(1.0), vec2<f32>(0.0));
}
