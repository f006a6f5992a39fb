// A block of x as signed bytes, for integer dot products: byte = round(x / scale), scale = max |x| / 127. Done where x is
// loaded: a block serves four rows of W or more, and costs no dispatch of its own.

struct Quantized { lo: vec4<u32>, hi: vec4<u32>, scale: f32, sums: vec2<f32> }   // sums over each half, scaled

fn bytes_from(v: vec4<f32>) -> u32 { return pack4xI8(vec4<i32>(round(v))); }

fn quantized(x0: vec4<f32>, x1: vec4<f32>, x2: vec4<f32>, x3: vec4<f32>,
    x4: vec4<f32>, x5: vec4<f32>, x6: vec4<f32>, x7: vec4<f32>) -> Quantized {
    let a = max(max(max(abs(x0), abs(x1)), max(abs(x2), abs(x3))), max(max(abs(x4), abs(x5)), max(abs(x6), abs(x7))));
    let scale = max(max(a.x, a.y), max(a.z, a.w)) * (1.0 / 127.0);
    var inverse = 0.0;
    if scale > 1.0e-30 { inverse = 1.0 / scale; }
    let lo = vec4<u32>(bytes_from(x0 * inverse), bytes_from(x1 * inverse), bytes_from(x2 * inverse), bytes_from(x3 * inverse));
    let hi = vec4<u32>(bytes_from(x4 * inverse), bytes_from(x5 * inverse), bytes_from(x6 * inverse), bytes_from(x7 * inverse));
    return Quantized(lo, hi, scale, scale * vec2<f32>(f32(dot_bytes(lo, ONES)), f32(dot_bytes(hi, ONES))));
}

const ONES: vec4<u32> = vec4<u32>(0x01010101u);

fn dot_bytes(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return (dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y)) + (dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w));
}

fn dot_packed(w: Packed, x: Quantized) -> f32 {
    let sums = vec2<f32>(f32(dot_bytes(w.lo, x.lo)), f32(dot_bytes(w.hi, x.hi)));
    return x.scale * dot(w.d, sums) + dot(w.m, x.sums);
}
