// Q2_K: 2 bits a weight, two blocks a word; 8 blocks have five u32 beside them: (d, dmin) as two f16, then a byte per 16
// weights, scale in its low and minimum in its high nibble. weight = q d scale - dmin min.
#import shared/packed_unsigned

fn load_packed(row: u32, b: u32) -> Packed {
    let w = weights[(row * params.matrix.blocks + b) / 2u];
    let c = select(w.xy, w.zw, (b & 1u) != 0u);
    let at = row * params.matrix.scale_stride + b / 8u * 5u;
    let d = unpack2x16float(scales[at]);
    let pair = scales[at + 1u + b % 8u / 2u] >> (16u * (b & 1u));
    let scale = vec2<f32>(vec2<u32>(pair, pair >> 8u) & vec2<u32>(15u));
    let low = vec2<f32>(vec2<u32>(pair >> 4u, pair >> 12u) & vec2<u32>(15u));
    return Packed(crumbs(c.x), crumbs(c.y), d.x * scale, -d.y * low);
}
