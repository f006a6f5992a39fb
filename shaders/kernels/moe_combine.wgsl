// x += the sum of what a row's experts gave; also x g for the norm that follows, and the sum of x^2.
//
// One workgroup of 64 per row. Dispatch: [1, T]

#import shared/workgroup_sum

struct Params {
    hidden: u32,            // E
    x_stride: u32,
    partial_stride: u32,
    used: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> given: array<f32>;               // [T, used, x_stride]
@group(0) @binding(2) var<storage, read> next_norm: array<f32>;           // g, [E]
@group(0) @binding(3) var<storage, read_write> x: array<f32>;             // [T, x_stride]
@group(0) @binding(4) var<storage, read_write> scaled: array<f32>;        // x g, [T, x_stride]
@group(0) @binding(5) var<storage, read_write> partials_out: array<f32>;  // [T, partial_stride], one used

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    var squares = 0.0;
    for (var column = i; column < params.hidden; column += WORKGROUP) {
        let at = t * params.x_stride + column;
        var sum = x[at];
        for (var s = 0u; s < params.used; s++) { sum += given[(t * params.used + s) * params.x_stride + column]; }
        x[at] = sum;
        scaled[at] = sum * next_norm[column];
        squares += sum * sum;
    }
    let sum = workgroup_sum(i, squares);
    if i == 0u {
        partials_out[t * params.partial_stride] = sum;
    }
}
