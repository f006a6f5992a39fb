// Before `cache_store` has rounded them.
@group(0) @binding(3) var<storage, read_write> cache: array<f32>;        // [T, 2, KV, head_stride]

fn vector_at(t: u32, which: u32, kv_head: u32) -> u32 {
    return ((t * 2u + which) * params.kv_heads + kv_head) * params.head_stride;
}

fn load_pair(at: u32) -> vec2<f32> { return vec2<f32>(cache[at], cache[at + 1u]); }

fn store_pair(at: u32, v: vec2<f32>) {
    cache[at] = v.x;
    cache[at + 1u] = v.y;
}
