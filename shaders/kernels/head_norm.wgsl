// Each head of a row divided by its root mean square, times a weight where there is one, in place.
//
// One workgroup of 64 per head and row. Dispatch: [heads, T]

#import shared/workgroup_sum

struct Params {
    head_dim: u32,      // D
    head_stride: u32,
    stride: u32,
    eps: f32,
    weighed: u32,       // 1: times a weight
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;         // [T, stride]
@group(0) @binding(2) var<storage, read> weight: array<f32>;          // [D]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = group.y * params.stride + group.x * params.head_stride;
    var squares = 0.0;
    for (var d = i; d < params.head_dim; d += WORKGROUP) { squares += x[at + d] * x[at + d]; }
    let scale = inverseSqrt(workgroup_sum(i, squares) / f32(params.head_dim) + params.eps);
    for (var d = i; d < params.head_dim; d += WORKGROUP) {
        var v = x[at + d] * scale;
        if params.weighed == 1u { v *= weight[d]; }
        x[at + d] = v;
    }
}
