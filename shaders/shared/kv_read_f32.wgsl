@group(0) @binding(3) var<storage, read> cache: array<vec4<f32>>;        // [page, 2, KV, PAGE, head_stride / 4]

fn load_cached(at: u32) -> vec4<f32> { return cache[at]; }
