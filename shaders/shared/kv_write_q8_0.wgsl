// A block of 32 is complete only when its rows are: `cache_store` rounds it afterwards.
@group(0) @binding(8) var<storage, read_write> cache: array<f32>;        // [T, 2, KV, head_stride]

fn store_cached(t: u32, pos: u32, which: u32, kv_head: u32, d: u32, v: vec2<f32>) {
    let at = ((t * 2u + which) * params.kv_heads + kv_head) * params.head_stride + d;
    cache[at] = v.x;
    cache[at + 1u] = v.y;
}
