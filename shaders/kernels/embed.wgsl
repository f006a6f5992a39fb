// x = table[token]; also x g for the norm that follows, and the sum of x^2.
//
// One workgroup per row; each invocation takes every 64th block. A table that is split over several buffers has one
// dispatch for each; a token outside this part's rows is another dispatch's business.
// Dispatch: [1, T]

#import shared/state
#import shared/block
#import shared/matrix
#import @weights
#import shared/workgroup_sum

struct Params {
    matrix: MatrixParams,  // of this part
    rows_at: u32,
    first_row: u32,        // of this part
    x_stride: u32,         // blocks * 32
    hidden: u32,           // E
    partial_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> state: array<u32>;
@group(0) @binding(4) var<storage, read> next_norm: array<f32>;            // g, [E]
@group(0) @binding(5) var<storage, read_write> x: array<f32>;              // [T, x_stride]
@group(0) @binding(6) var<storage, read_write> scaled: array<f32>;         // x g, [T, x_stride]
@group(0) @binding(7) var<storage, read_write> partials_out: array<f32>;   // [T, partial_stride], one used

fn put(t: u32, at: u32, v: vec4<f32>) -> f32 {
    for (var j = 0u; j < 4u; j++) {
        if at + j < params.hidden {
            x[t * params.x_stride + at + j] = v[j];
            scaled[t * params.x_stride + at + j] = v[j] * next_norm[at + j];
        }
    }
    return dot(v, v);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let row = row_token(t) - params.first_row;   // wraps for a token before this part
    if row >= params.matrix.rows { return; }
    var squares = 0.0;
    for (var b = i; b < params.matrix.blocks; b += WORKGROUP) {
        let w = load_block(row, b);
        let at = b * BLOCK;
        squares += put(t, at, w.q0 * w.d.x + w.m.x);
        squares += put(t, at + 4u, w.q1 * w.d.x + w.m.x);
        squares += put(t, at + 8u, w.q2 * w.d.x + w.m.x);
        squares += put(t, at + 12u, w.q3 * w.d.x + w.m.x);
        squares += put(t, at + 16u, w.q4 * w.d.y + w.m.y);
        squares += put(t, at + 20u, w.q5 * w.d.y + w.m.y);
        squares += put(t, at + 24u, w.q6 * w.d.y + w.m.y);
        squares += put(t, at + 28u, w.q7 * w.d.y + w.m.y);
    }
    let sum = workgroup_sum(i, squares);
    if i == 0u { partials_out[t * params.partial_stride] = sum; }
}
