// Q5_1: nibbles as Q4_0; a block has two u32 beside them: a fifth bit each, and (d, m) as two f16. weight = q d + m.
#import shared/packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[row * params.matrix.blocks + b];
    let at = row * params.matrix.scale_stride + 2u * b;
    let fifth = scales[at];
    let dm = unpack2x16float(scales[at + 1u]);
    return Packed(
        low_nibbles(w) | (low_bits(fifth) << vec4<u32>(4u)), high_nibbles(w) | (high_bits(fifth) << vec4<u32>(4u)),
        vec2<f32>(dm.x), vec2<f32>(dm.y));
}
