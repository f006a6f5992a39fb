// Q4_1: nibbles as Q4_0; weight = q d + m; (d, m) as two f16 in one u32 a block.
#import shared/packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[row * params.matrix.blocks + b];
    let dm = unpack2x16float(scales[row * params.matrix.scale_stride + b]);
    return Packed(low_nibbles(w), high_nibbles(w), vec2<f32>(dm.x), vec2<f32>(dm.y));
}
