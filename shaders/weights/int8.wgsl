// int8: 2 words of signed bytes a block, and an f32 scale per 16 weights. What codebook and ternary types become at load.
#import shared/packed_signed

fn load_packed(row: u32, b: u32) -> Packed {
    let word = (row * params.matrix.blocks + b) * 2u;
    let at = row * params.matrix.scale_stride + 2u * b;
    let d = vec2<f32>(bitcast<f32>(scales[at]), bitcast<f32>(scales[at + 1u]));
    return Packed(weights[word], weights[word + 1u], d, vec2<f32>(0.0));
}
