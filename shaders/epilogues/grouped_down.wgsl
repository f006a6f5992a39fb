// moe_down_residual for many rows: what each expert of a row gives, weighed; `moe_combine` adds them up.

#import shared/norm_none
#import shared/grouped
#import shared/row_quads

struct Params {
    matrix: MatrixParams,  // rows: E
    rows_at: u32,
    out_stride: u32,
    routes_at: u32,
    groups_at: u32,
    max_pairs: u32,
    first_expert: u32,
    experts: u32,
    weigh: u32,            // 1: the expert's output is weighed
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;    // [T, used, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;   // [T, used, out_stride]

fn input_row(t: u32) -> u32 { return pair_at(t); }
fn expert_rows() -> u32 { return params.matrix.rows; }

fn finish(t: u32, quad: u32, rows: vec4<u32>, v: vec4<f32>) -> f32 {
    let pair = pair_at(t);
    let y = v * pair_weight(pair);
    let r = quad * 4u;
    let at = pair * params.out_stride + r;
    if r < params.matrix.rows { output[at] = y.x; }
    if r + 1u < params.matrix.rows { output[at + 1u] = y.y; }
    if r + 2u < params.matrix.rows { output[at + 2u] = y.z; }
    if r + 3u < params.matrix.rows { output[at + 3u] = y.w; }
    return 0.0;
}
