// Q8_0: 2 words of int8 a block; scale f16, two blocks a u32.
#import shared/packed_signed

fn load_packed(row: u32, b: u32) -> Packed {
    let at = (row * params.matrix.blocks + b) * 2u;
    let d = half_of(scales[row * params.matrix.scale_stride + b / 2u], b);
    return Packed(weights[at], weights[at + 1u], vec2<f32>(d), vec2<f32>(0.0));
}
