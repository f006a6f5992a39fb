// gate_up_silu: the matrix holds gate's F rows, then up's. A quad is two rows of each, so that one invocation has
// both: f = silu(gate) up.

#import shared/norm_in
#import shared/gate_up_quads

struct Params {
    matrix: MatrixParams,  // rows: F
    norm: NormParams,
    rows_at: u32,
    out_stride: u32,
    out_at: u32,           // index in f of this matrix's first row
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;    // x g, [T, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;   // f, [T, out_stride]

fn input_row(t: u32) -> u32 { return t; }
fn token_count() -> u32 { return row_count(); }

fn finish(t: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>) -> f32 {
    let at = t * params.out_stride + params.out_at + quad * 2u;
    if quad * 2u < params.matrix.rows {
        output[at] = silu(y.x + bias_of(rows.x)) * (y.z + bias_of(rows.z));
    }
    if quad * 2u + 1u < params.matrix.rows {
        output[at + 1u] = silu(y.y + bias_of(rows.y)) * (y.w + bias_of(rows.w));
    }
    return 0.0;
}
