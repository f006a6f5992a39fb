// What the norm that reads x needs beside it, where x was changed by itself: x g and the sum of x^2.
//
// One workgroup of 64 per row. Dispatch: [1, T]

#import shared/workgroup_sum

struct Params {
    hidden: u32,            // E
    x_stride: u32,
    partial_stride: u32,
    partials: u32,          // partial sums that the norm adds up: one is used
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;                   // [T, x_stride]
@group(0) @binding(2) var<storage, read> next_norm: array<f32>;           // g, [E]
@group(0) @binding(3) var<storage, read_write> scaled: array<f32>;        // x g, [T, x_stride]
@group(0) @binding(4) var<storage, read_write> partials_out: array<f32>;  // [T, partial_stride]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    var squares = 0.0;
    for (var column = i; column < params.hidden; column += WORKGROUP) {
        let v = x[t * params.x_stride + column];
        scaled[t * params.x_stride + column] = v * next_norm[column];
        squares += v * v;
    }
    let sum = workgroup_sum(i, squares);
    if i == 0u {
        partials_out[t * params.partial_stride] = sum;
        for (var p = 1u; p < params.partials; p++) { partials_out[t * params.partial_stride + p] = 0.0; }
    }
}
