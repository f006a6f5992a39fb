// Q4_0: 1 word a block: low nibbles are weights 0..16, high nibbles 16..32; weight = (q - 8) d; scale f16, two
// blocks a u32.
#import shared/packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[row * params.matrix.blocks + b];
    let d = half_of(scales[row * params.matrix.scale_stride + b / 2u], b);
    return Packed(low_nibbles(w), high_nibbles(w), vec2<f32>(d), vec2<f32>(-8.0 * d));
}
