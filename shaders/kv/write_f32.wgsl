// The cache holds f32.
#import shared/f32_pairs

// Index of a row's key (0) or value (1). cache: [page, 2, KV, PAGE, head_stride]
fn vector_at(t: u32, which: u32, kv_head: u32) -> u32 {
    return cache_row(row_seq(t), row_pos(t), which, kv_head) * params.head_stride;
}
