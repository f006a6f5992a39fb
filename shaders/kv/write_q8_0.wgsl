// A block of 32 can be rounded only when its values are complete: the step's rows are kept as f32, and `cache_store`
// rounds them into the cache.
#import shared/f32_pairs

// Index of a row's key (0) or value (1). cache: [T, 2, KV, head_stride]
fn vector_at(t: u32, which: u32, kv_head: u32) -> u32 {
    return ((t * 2u + which) * params.kv_heads + kv_head) * params.head_stride;
}
