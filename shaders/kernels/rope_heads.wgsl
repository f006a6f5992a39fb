// rope by itself: each head of a row rotated by the row's position.
//
// One workgroup of 64 per head and row. Dispatch: [heads, T]

#import shared/state
#import shared/rope

struct Params {
    rows_at: u32,
    head_dim: u32,          // D
    x_stride: u32,          // heads side by side, D values each
    out_stride: u32,
    out_head_stride: u32,
    rope_pairs: u32,        // rotated pairs per head
    rope_high: u32,         // start of the second table
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;               // [T, x_stride]
@group(0) @binding(3) var<storage, read> rope: array<vec2<f32>>;      // [positions, rope_pairs], see rope.wgsl
@group(0) @binding(4) var<storage, read_write> output: array<f32>;    // [T, out_stride]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let pos = row_pos(t);
    let source = t * params.x_stride + group.x * params.head_dim;
    let to = t * params.out_stride + group.x * params.out_head_stride;
    for (var pair = i; pair < params.head_dim / 2u; pair += 64u) {
        let v = rotate(vec2<f32>(x[source + 2u * pair], x[source + 2u * pair + 1u]), pos, pair);
        output[to + 2u * pair] = v.x;
        output[to + 2u * pair + 1u] = v.y;
    }
}
