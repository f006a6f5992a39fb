// qk_norm: queries, and the keys at the rows' positions, in place: each head divided by its root mean square, times a weight,
// then rotated, where there is a weight and a rotation.
//
// One workgroup of 64 per row and head: query heads, then key heads.
// Dispatch: [H + KV, T]

#import shared/state
#import shared/pages
#import shared/rope
#import shared/workgroup_sum
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
    weighed: u32,       // 1: times a weight
    rope_pairs: u32,    // rotated pairs per head, 0: none
    rope_high: u32,     // start of the second table
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read_write> query: array<f32>;     // [T, H, head_stride]
@group(0) @binding(3) var<storage, read_write> cache: array<CacheWord>;   // see kv/write_*.wgsl: [page, 2, KV, PAGE, head_stride]
@group(0) @binding(4) var<storage, read> query_weight: array<f32>;    // [D]
@group(0) @binding(5) var<storage, read> key_weight: array<f32>;      // [D]
@group(0) @binding(6) var<storage, read> rope: array<vec2<f32>>;      // [positions, rope_pairs], see rope.wgsl

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let is_key = group.x >= params.heads;
    var at = (t * params.heads + group.x) * params.head_stride;
    if is_key { at = vector_at(t, 0u, group.x - params.heads); }
    let pairs = params.head_dim / 2u;

    var squares = 0.0;
    for (var p = i; p < pairs; p += WORKGROUP) {
        var v = vec2<f32>(0.0);
        if is_key { v = load_pair(at + 2u * p); } else { v = vec2<f32>(query[at + 2u * p], query[at + 2u * p + 1u]); }
        squares += dot(v, v);
    }
    let scale = inverseSqrt(workgroup_sum(i, squares) / f32(params.head_dim) + params.eps);
    let pos = row_pos(t);
    for (var p = i; p < pairs; p += WORKGROUP) {
        var v = vec2<f32>(0.0);
        if is_key { v = load_pair(at + 2u * p); } else { v = vec2<f32>(query[at + 2u * p], query[at + 2u * p + 1u]); }
        v *= scale;
        if params.weighed == 1u {
            if is_key {
                v *= vec2<f32>(key_weight[2u * p], key_weight[2u * p + 1u]);
            } else {
                v *= vec2<f32>(query_weight[2u * p], query_weight[2u * p + 1u]);
            }
        }
        v = rotate(v, pos, p);
        if is_key {
            store_pair(at + 2u * p, v);
        } else {
            query[at + 2u * p] = v.x;
            query[at + 2u * p + 1u] = v.y;
        }
    }
}
