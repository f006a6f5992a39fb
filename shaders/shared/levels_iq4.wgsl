// The 16 levels of IQ4_NL and IQ4_XS (kvalues_iq4nl), four to a u32, picked by the low nibble of each byte of a word.
fn levels_of(w: u32) -> vec4<f32> {
    let n = vec4<u32>(w) >> vec4<u32>(0u, 8u, 16u, 24u);
    let upper = (n & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(0xbfad9881u), vec4<u32>(0xf6eaddcfu), upper);
    let high = select(vec4<u32>(0x26190d01u), vec4<u32>(0x71594535u), upper);
    let four = select(low, high, (n & vec4<u32>(8u)) != vec4<u32>(0u));
    return vec4<f32>(bitcast<vec4<i32>>(four << (vec4<u32>(24u) - 8u * (n & vec4<u32>(3u)))) >> vec4<u32>(24u));
}
