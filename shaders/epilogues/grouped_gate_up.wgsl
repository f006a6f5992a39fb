// moe_gate_up_silu for many rows: as gate_up, for tiles of pairs that share an expert. An expert's rows are gate's F, then
// up's.

#import shared/norm_in
#import shared/grouped
#import shared/gate_up_quads

struct Params {
    matrix: MatrixParams,  // rows: F
    norm: NormParams,
    rows_at: u32,
    out_stride: u32,
    routes_at: u32,
    groups_at: u32,
    max_pairs: u32,
    used: u32,
    first_expert: u32,
    experts: u32,
    weigh: u32,            // 1: the expert's input is weighed
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;    // x g, [T, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;   // f, [T, used, out_stride]

fn input_row(t: u32) -> u32 { return pair_at(t) / params.used; }
fn expert_rows() -> u32 { return 2u * params.matrix.rows; }

fn finish(t: u32, quad: u32, rows: vec4<u32>, v: vec4<f32>) -> f32 {
    let pair = pair_at(t);
    let y = v * pair_weight(pair);
    let at = pair * params.out_stride + quad * 2u;
    if quad * 2u < params.matrix.rows { output[at] = silu(y.x) * y.z; }
    if quad * 2u + 1u < params.matrix.rows { output[at + 1u] = silu(y.y) * y.w; }
    return 0.0;
}
