// The cached values of a row, mixed by its attention weights.
//
// One workgroup of 64 per head and row; an invocation takes every 64th vec4. Dispatch: [H, T]

#import shared/state
#import shared/pages
#import @kv
#import shared/visible

struct Params {
    rows_at: u32,
    pages_at: u32,
    pages_per_seq: u32,
    kv_heads: u32,
    group: u32,
    head_dim: u32,
    head_quads: u32,
    seen: u32,
    pattern_stride: u32,
    out_stride: u32,
    window: u32,
    chunk: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> pattern: array<f32>;         // [T, pattern_stride]: [H, seen]
@group(0) @binding(4) var<storage, read_write> output: array<f32>;    // [T, out_stride]: [H, D]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let head = group.x;
    let pos = row_pos(t);
    let weights = t * params.pattern_stride + head * params.seen;
    for (var quad = i; quad < params.head_quads; quad += 64u) {
        var sum = vec4<f32>(0.0);
        for (var s = first_visible(pos); s <= pos; s++) {
            sum += pattern[weights + s] * load_cached(cache_row(row_seq(t), s, 1u, head / params.group), quad);
        }
        for (var j = 0u; j < 4u; j++) {
            let d = quad * 4u + j;
            if d < params.head_dim { output[t * params.out_stride + head * params.head_dim + d] = sum[j]; }
        }
    }
}
