@group(0) @binding(8) var<storage, read_write> cache: array<u32>;        // [page, 2, KV, PAGE, head_stride / 2]

fn store_cached(t: u32, pos: u32, which: u32, kv_head: u32, d: u32, v: vec2<f32>) {
    cache[(cache_row(row_seq(t), pos, which, kv_head) * params.head_stride + d) / 2u] = pack2x16float(v);
}
