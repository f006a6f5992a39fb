// qk_norm: queries, and the keys at the rows' positions, each head divided by its root mean square, in place.
//
// One workgroup of 64 per row and head: query heads, then key heads.
// Dispatch: [H + KV, T]

#import state
#import pages
#import @kv

struct Params {
    rows_at: u32,
    pages_at: u32,
    pages_per_seq: u32,
    kv_heads: u32,
    heads: u32,         // H
    head_dim: u32,      // D
    head_stride: u32,   // D rounded up to 4
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read_write> query: array<f32>;     // [T, H, head_stride]

var<workgroup> squares_of: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let is_key = group.x >= params.heads;
    var at = (t * params.heads + group.x) * params.head_stride;
    if is_key { at = vector_at(t, 0u, group.x - params.heads); }
    let pairs = params.head_dim / 2u;

    var squares = 0.0;
    for (var p = i; p < pairs; p += 64u) {
        var v = vec2<f32>(0.0);
        if is_key { v = load_pair(at + 2u * p); } else { v = vec2<f32>(query[at + 2u * p], query[at + 2u * p + 1u]); }
        squares += dot(v, v);
    }
    squares_of[i] = squares;
    workgroupBarrier();
    var sum = 0.0;
    for (var l = 0u; l < 64u; l++) { sum += squares_of[l]; }
    let scale = inverseSqrt(sum / f32(params.head_dim) + params.eps);
    for (var p = i; p < pairs; p += 64u) {
        if is_key {
            store_pair(at + 2u * p, load_pair(at + 2u * p) * scale);
        } else {
            query[at + 2u * p] *= scale;
            query[at + 2u * p + 1u] *= scale;
        }
    }
}
