// A block as bytes: what integer dot products take, and what most weight types are read by. Weight `4 k + lane` of a half is
// byte `lane` of its word k; weight = byte * d + m, scale and offset per half.

struct Packed { lo: vec4<u32>, hi: vec4<u32>, d: vec2<f32>, m: vec2<f32> }

const FIELDS: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);

// The 32 bits of a plane of single bits, as bytes of 0 or 1: of the first half, of the second.
fn low_bits(w: u32) -> vec4<u32> { return (vec4<u32>(w) >> FIELDS) & vec4<u32>(0x01010101u); }
fn high_bits(w: u32) -> vec4<u32> { return (vec4<u32>(w >> 4u) >> FIELDS) & vec4<u32>(0x01010101u); }

// 16 numbers of two bits, as bytes.
fn crumbs(w: u32) -> vec4<u32> { return (vec4<u32>(w) >> (FIELDS * 2u)) & vec4<u32>(0x03030303u); }

fn low_nibbles(w: vec4<u32>) -> vec4<u32> { return w & vec4<u32>(0x0f0f0f0fu); }
fn high_nibbles(w: vec4<u32>) -> vec4<u32> { return (w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu); }
