// A block: 32 consecutive weights of a row, as quants and one scale and offset per half:
// weight[i] = q[i] * d + m. Every weight type is read in this form.

const BLOCK: u32 = 32u;

struct Block {
    q0: vec4<f32>, q1: vec4<f32>, q2: vec4<f32>, q3: vec4<f32>,   // first half, scale d.x, offset m.x
    q4: vec4<f32>, q5: vec4<f32>, q6: vec4<f32>, q7: vec4<f32>,   // second half, scale d.y, offset m.y
    d: vec2<f32>,
    m: vec2<f32>,
}

// The four bytes of a word.
fn bytes_of(w: u32) -> vec4<f32> {
    return vec4<f32>((vec4<u32>(w) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu));
}

fn signed_bytes_of(w: u32) -> vec4<f32> {
    return vec4<f32>((vec4<i32>(bitcast<i32>(w)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}
