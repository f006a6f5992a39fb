// moe_down_residual: x += the sum over the row's experts of weight y. As residual otherwise.

#import shared/norm_none
#import shared/experts
#import shared/row_quads

struct Params {
    matrix: MatrixParams,  // rows: E
    rows_at: u32,
    x_stride: u32,
    partial_stride: u32,
    routes_at: u32,
    used: u32,
    first_expert: u32,
    experts: u32,
    weigh: u32,            // 1: the expert's output is weighed
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;         // [T, used, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(5) var<storage, read> next_norm: array<f32>;           // g, [E]
@group(0) @binding(6) var<storage, read_write> x: array<f32>;             // [T, x_stride]
@group(0) @binding(7) var<storage, read_write> scaled: array<f32>;        // x g, [T, x_stride]
@group(0) @binding(8) var<storage, read_write> partials_out: array<f32>;  // [T, partial_stride]

fn input_row(t: u32) -> u32 { return t; }

fn slots() -> u32 { return params.used; }
fn slot_expert(t: u32, s: u32) -> u32 { return expert_of(t, s); }
fn slot_input(t: u32, s: u32) -> u32 { return t * params.used + s; }
fn slot_weight(t: u32, s: u32) -> f32 { return select(1.0, expert_weight(t, s), params.weigh == 1u); }
fn expert_rows() -> u32 { return params.matrix.rows; }

// The square of the new x.
fn add_one(t: u32, column: u32, y: f32) -> f32 {
    if column >= params.matrix.rows { return 0.0; }
    let at = t * params.x_stride + column;
    let sum = x[at] + y;
    x[at] = sum;
    scaled[at] = sum * next_norm[column];
    return sum * sum;
}

fn finish(t: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>) -> f32 {
    let r = quad * 4u;
    return (add_one(t, r, y.x) + add_one(t, r + 1u, y.y)) + (add_one(t, r + 2u, y.z) + add_one(t, r + 3u, y.w));
}

fn write_partial(t: u32, group: u32, squares: f32) {
    partials_out[t * params.partial_stride + group] = squares;
}
