// The cache holds two f16 in a u32.
alias CacheWord = u32;     // cache: [page, 2, KV, PAGE, head_stride / 2]

// Index of a row's key (0) or value (1), in values.
fn vector_at(t: u32, which: u32, kv_head: u32) -> u32 {
    return cache_row(row_seq(t), row_pos(t), which, kv_head) * params.head_stride;
}

fn load_pair(at: u32) -> vec2<f32> { return unpack2x16float(cache[at / 2u]); }

fn store_pair(at: u32, v: vec2<f32>) { cache[at / 2u] = pack2x16float(v); }
