// Fine operations that compute each value by itself.
//
// Dispatch: [width / 64, T]

#import shared/silu

struct Params {
    mode: u32,
    width: u32,         // values per row
    x_stride: u32,
    x_at: u32,          // first column of x
    y_stride: u32,
    out_stride: u32,
    out_at: u32,        // first column of the output
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [T, x_stride]
@group(0) @binding(2) var<storage, read> y: array<f32>;               // [T, y_stride] or [width], by mode
@group(0) @binding(3) var<storage, read_write> output: array<f32>;    // [T, out_stride]

// What `params.mode` may be.
const ZERO: u32 = 0u;
const COPY: u32 = 1u;        // x
const DIVIDE: u32 = 2u;      // x / y, y [T, y_stride]: one a row
const WEIGH: u32 = 3u;       // x * y, y [width]
const ADD_TO: u32 = 4u;      // output + y, y [T, y_stride]
const SILU_MUL: u32 = 5u;    // silu(x) * y, y [T, y_stride]
const SIGMOID: u32 = 6u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let column = group.x * 64u + i;
    if column >= params.width { return; }
    let to = t * params.out_stride + params.out_at + column;
    if params.mode == ZERO {
        output[to] = 0.0;
        return;
    }
    if params.mode == ADD_TO {
        output[to] += y[t * params.y_stride + column];
        return;
    }
    let v = x[t * params.x_stride + params.x_at + column];
    switch params.mode {
        case DIVIDE: { output[to] = v / y[t * params.y_stride]; }
        case WEIGH: { output[to] = v * y[column]; }
        case SILU_MUL: { output[to] = silu(v) * y[t * params.y_stride + column]; }
        case SIGMOID: { output[to] = 1.0 / (1.0 + exp(-v)); }
        default: { output[to] = v; }
    }
}
