// Q4_K: nibbles as Q4_0; 8 blocks have the four u32 of k_scales beside them. weight = q d scale - dmin min.
#import shared/packed_unsigned
#import shared/k_scales

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[row * params.matrix.blocks + b];
    let dm = k_scale(scales[row * (params.matrix.scale_stride / 4u) + b / 8u], b % 8u);
    return Packed(low_nibbles(w), high_nibbles(w), vec2<f32>(dm.x), vec2<f32>(dm.y));
}
