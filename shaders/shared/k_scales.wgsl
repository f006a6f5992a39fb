// Q4_K and Q5_K keep four u32 for 8 blocks: (d, dmin) as two f16, low nibbles of 8 scales, of 8 minima, upper two bits
// of both. Gives d scale and -dmin min of block `g` of the 8.
fn k_scale(s: vec4<u32>, g: u32) -> vec2<f32> {
    let d = unpack2x16float(s.x);
    let upper = s.w >> (2u * g);
    let scale = ((s.y >> (4u * g)) & 15u) | ((upper & 3u) << 4u);
    let low = ((s.z >> (4u * g)) & 15u) | (((upper >> 16u) & 3u) << 4u);
    return vec2<f32>(d.x * f32(scale), -d.y * f32(low));
}
