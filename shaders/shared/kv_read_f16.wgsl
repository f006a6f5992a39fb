@group(0) @binding(3) var<storage, read> cache: array<vec2<u32>>;        // [page, 2, KV, PAGE, head_stride / 4]

fn load_cached(at: u32) -> vec4<f32> {
    let v = cache[at];
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}
