// Keys, or values, of a step's rows into the cache (a q8_0 cache's rows, which cache_store then rounds).
//
// One workgroup of 64 per head and row. Dispatch: [KV, T]

#import shared/state
#import shared/pages
#import @kv

struct Params {
    rows_at: u32,
    pages_at: u32,
    pages_per_seq: u32,
    kv_heads: u32,
    head_dim: u32,      // D
    head_stride: u32,   // D rounded up to 4
    x_stride: u32,
    which: u32,         // 0: keys, 1: values
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;               // [T, x_stride]: heads side by side
@group(0) @binding(3) var<storage, read_write> cache: array<CacheWord>;   // see kv/write_*.wgsl: [page, 2, KV, PAGE, head_stride]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let source = t * params.x_stride + group.x * params.head_dim;
    let to = vector_at(t, params.which, group.x);
    for (var pair = i; pair < params.head_dim / 2u; pair += 64u) {
        store_pair(to + 2u * pair, vec2<f32>(x[source + 2u * pair], x[source + 2u * pair + 1u]));
    }
}
