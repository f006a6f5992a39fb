@group(0) @binding(3) var<storage, read> cache: array<vec4<f32>>;        // [page, 2, KV, PAGE, head_quads]

// Four values of a cached vector.
fn load_cached(vector: u32, quad: u32) -> vec4<f32> { return cache[vector * params.head_quads + quad]; }
