// IQ4_NL: nibbles as Q4_0, numbers of uneven levels; scale f16, two blocks a u32. weight = level d.
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
    let pair = unpack2x16float(scales[row * params.scale_stride + b / 2u]);
    let d = select(pair.x, pair.y, (b & 1u) != 0u);
    return Block(
        levels_of(w.x), levels_of(w.y), levels_of(w.z), levels_of(w.w),
        levels_of(h.x), levels_of(h.y), levels_of(h.z), levels_of(h.w),
        vec2<f32>(d), vec2<f32>(0.0));
}
