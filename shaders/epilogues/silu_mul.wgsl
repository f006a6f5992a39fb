// up where it does not share gate's type: the output holds gate's values; f = silu(gate) y.

#import shared/norm_in
#import shared/row_quads
#import shared/silu

struct Params {
    matrix: MatrixParams,
    norm: NormParams,
    rows_at: u32,
    out_stride: u32,
    out_at: u32,           // index in f of this matrix's first row
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;    // x g, [T, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;   // gate in, f out, [T, out_stride]

fn input_row(t: u32) -> u32 { return t; }
fn token_count() -> u32 { return row_count(); }

fn multiply(t: u32, r: u32, y: f32) {
    if r >= params.matrix.rows { return; }
    let at = t * params.out_stride + params.out_at + r;
    let gate = output[at];
    output[at] = silu(gate) * (y + bias_of(r));
}

fn finish(t: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>) -> f32 {
    multiply(t, quad * 4u, y.x);
    multiply(t, quad * 4u + 1u, y.y);
    multiply(t, quad * 4u + 2u, y.z);
    multiply(t, quad * 4u + 3u, y.w);
    return 0.0;
}
