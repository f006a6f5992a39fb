// IQ4_XS: nibbles as Q4_0, numbers of uneven levels; 8 blocks have two u32 beside them: d as f16 and the upper two bits of
// 8 scales, then their low nibbles. weight = level d (scale - 32).
// The 16 levels of IQ4 (kvalues_iq4nl), four to a u32, picked by the low nibble of each byte of a word.
fn levels_of(w: u32) -> vec4<f32> {
    let n = vec4<u32>(w) >> vec4<u32>(0u, 8u, 16u, 24u);
    let upper = (n & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(0xbfad9881u), vec4<u32>(0xf6eaddcfu), upper);
    let high = select(vec4<u32>(0x26190d01u), vec4<u32>(0x71594535u), upper);
    let four = select(low, high, (n & vec4<u32>(8u)) != vec4<u32>(0u));
    return vec4<f32>(bitcast<vec4<i32>>(four << (vec4<u32>(24u) - 8u * (n & vec4<u32>(3u)))) >> vec4<u32>(24u));
}

fn load_block(row: u32, b: u32) -> Block {
    let w = weights[row * params.blocks + b];
    let h = w >> vec4<u32>(4u);
    let at = row * params.scale_stride + b / 8u * 2u;
    let g = b % 8u;
    let first = scales[at];
    let scale = ((scales[at + 1u] >> (4u * g)) & 15u) | (((first >> (16u + 2u * g)) & 3u) << 4u);
    let d = unpack2x16float(first).x * (f32(scale) - 32.0);
    return Block(
        levels_of(w.x), levels_of(w.y), levels_of(w.z), levels_of(w.w),
        levels_of(h.x), levels_of(h.y), levels_of(h.z), levels_of(h.w),
        vec2<f32>(d), vec2<f32>(0.0));
}
