// Q4_K: nibbles as Q4_0; 8 blocks have four u32 beside them: (d, dmin) as two f16, low nibbles of 8 scales, of 8 minima,
// upper two bits of both. weight = q d scale - dmin min.
fn load_block(row: u32, b: u32) -> Block {
    let w = weights[row * params.blocks + b];
    let h = w >> vec4<u32>(4u);
    let at = row * params.scale_stride + b / 8u * 4u;
    let g = b % 8u;
    let d = unpack2x16float(scales[at]);
    let upper = scales[at + 3u] >> (2u * g);
    let scale = ((scales[at + 1u] >> (4u * g)) & 15u) | ((upper & 3u) << 4u);
    let low = ((scales[at + 2u] >> (4u * g)) & 15u) | (((upper >> 16u) & 3u) << 4u);
    return Block(
        nibbles_of(w.x), nibbles_of(w.y), nibbles_of(w.z), nibbles_of(w.w),
        nibbles_of(h.x), nibbles_of(h.y), nibbles_of(h.z), nibbles_of(h.w),
        vec2<f32>(d.x * f32(scale)), vec2<f32>(-d.y * f32(low)));
}
