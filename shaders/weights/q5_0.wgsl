// Q5_0: nibbles as Q4_0; a fifth bit each in one u32 a block; then scales f16, two blocks a u32. weight = (q - 16) d.
#import shared/packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[row * params.matrix.blocks + b];
    let at = row * params.matrix.scale_stride;
    let fifth = scales[at + b];
    let d = half_of(scales[at + params.matrix.blocks + b / 2u], b);
    return Packed(
        low_nibbles(w) | (low_bits(fifth) << vec4<u32>(4u)), high_nibbles(w) | (high_bits(fifth) << vec4<u32>(4u)),
        vec2<f32>(d), vec2<f32>(-16.0 * d));
}
