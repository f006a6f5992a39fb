// Cache layout: [page, k or v, KV, PAGE, D], one page table entry per PAGE positions of a sequence.
#import shared/page

// Index of the vector of (sequence, position), in units of D values; `which`: 0 key, 1 value.
fn cache_row(seq: u32, pos: u32, which: u32, kv_head: u32) -> u32 {
    let page = state[params.pages_at + seq * params.pages_per_seq + pos / PAGE];
    return ((page * 2u + which) * params.kv_heads + kv_head) * PAGE + pos % PAGE;
}
