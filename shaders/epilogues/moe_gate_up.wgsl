// moe_gate_up_silu: as gate_up, for each expert of a row. Grid row p is slot p % used of row p / used. An expert's rows
// are gate's F, then up's.

#import shared/norm_in
#import shared/experts
#import shared/gate_up_quads

struct Params {
    matrix: MatrixParams,  // rows: F
    norm: NormParams,
    rows_at: u32,
    out_stride: u32,
    routes_at: u32,
    used: u32,
    first_expert: u32,
    experts: u32,
    weigh: u32,            // 1: the expert's input is weighed
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;    // x g, [T, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;   // f, [T, used, out_stride]

fn input_row(p: u32) -> u32 { return p / params.used; }

fn slots() -> u32 { return 1u; }
fn slot_expert(p: u32, s: u32) -> u32 { return expert_of(p / params.used, p % params.used); }
fn slot_input(p: u32, s: u32) -> u32 { return input_row(p); }
fn slot_weight(p: u32, s: u32) -> f32 {
    return select(1.0, expert_weight(p / params.used, p % params.used), params.weigh == 1u);
}
fn expert_rows() -> u32 { return 2u * params.matrix.rows; }

fn finish(p: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>) -> f32 {
    if slot_expert(p, 0u) >= params.experts { return 0.0; }
    let at = p * params.out_stride + quad * 2u;
    if quad * 2u < params.matrix.rows { output[at] = silu(y.x) * y.z; }
    if quad * 2u + 1u < params.matrix.rows { output[at + 1u] = silu(y.y) * y.w; }
    return 0.0;
}
