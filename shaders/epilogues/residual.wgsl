// o_residual, down_residual: x += y. Also writes x g for the norm that follows (g its weight) and this workgroup's
// share of the sum of x^2, so that the norm costs no dispatch of its own.

#import shared/norm_none
#import shared/row_quads

struct Params {
    matrix: MatrixParams,
    rows_at: u32,
    x_stride: u32,         // values between rows of x
    partial_stride: u32,
    out_at: u32,           // index in x of this matrix's first row
    partial_at: u32,       // index of this matrix's first partial sum
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;         // [T, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(5) var<storage, read> next_norm: array<f32>;           // g, [E]
@group(0) @binding(6) var<storage, read_write> x: array<f32>;             // [T, x_stride]
@group(0) @binding(7) var<storage, read_write> scaled: array<f32>;        // x g, [T, x_stride]
@group(0) @binding(8) var<storage, read_write> partials_out: array<f32>;  // [T, partial_stride]

fn input_row(t: u32) -> u32 { return t; }
fn token_count() -> u32 { return row_count(); }

// The square of the new x.
fn add_one(t: u32, r: u32, y: f32) -> f32 {
    if r >= params.matrix.rows { return 0.0; }
    let column = params.out_at + r;
    let at = t * params.x_stride + column;
    let sum = x[at] + y + bias_of(r);
    x[at] = sum;
    scaled[at] = sum * next_norm[column];
    return sum * sum;
}

fn finish(t: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>) -> f32 {
    let r = quad * 4u;
    return (add_one(t, r, y.x) + add_one(t, r + 1u, y.y)) + (add_one(t, r + 2u, y.z) + add_one(t, r + 3u, y.w));
}

fn write_partial(t: u32, group: u32, squares: f32) {
    partials_out[t * params.partial_stride + params.partial_at + group] = squares;
}
