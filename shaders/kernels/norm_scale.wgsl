// norm_scale: sqrt(mean(x^2) + eps) of each row.
//
// One workgroup of 64 per row. Dispatch: [1, T]

#import shared/workgroup_sum

struct Params {
    hidden: u32,        // E
    x_stride: u32,
    out_stride: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [T, x_stride]
@group(0) @binding(2) var<storage, read_write> output: array<f32>;    // [T, out_stride], one used

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    var squares = 0.0;
    for (var column = i; column < params.hidden; column += WORKGROUP) {
        let v = x[t * params.x_stride + column];
        squares += v * v;
    }
    let sum = workgroup_sum(i, squares);
    if i == 0u {
        output[t * params.out_stride] = sqrt(sum / f32(params.hidden) + params.eps);
    }
}
