// y as it is: lm_head (rows of x are those of the step's heads), and gate where it does not share up's type.

#import shared/norm_in
#import shared/row_quads

struct Params {
    matrix: MatrixParams,
    norm: NormParams,
    rows_at: u32,
    out_stride: u32,
    out_at: u32,           // index in y of this matrix's first row
    by_head: u32,          // 1: row t of the output is head t
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;    // x g, [T, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;   // [T or heads, out_stride]

fn input_row(t: u32) -> u32 { return select(t, head_row(t), params.by_head == 1u); }
fn token_count() -> u32 { return select(row_count(), head_count(), params.by_head == 1u); }

fn store(t: u32, r: u32, y: f32) {
    if r < params.matrix.rows { output[t * params.out_stride + params.out_at + r] = y + bias_of(r); }
}

fn finish(t: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>) -> f32 {
    store(t, quad * 4u, y.x);
    store(t, quad * 4u + 1u, y.y);
    store(t, quad * 4u + 2u, y.z);
    store(t, quad * 4u + 3u, y.w);
    return 0.0;
}
