// moe_route: a row's experts. logits = W norm(x) over X experts; the `used` largest are picked (of equal ones the
// first), and weighed by a softmax over the picked, or by the sigmoid of each.
//
// One workgroup of 64 per row: 8 lanes an expert, 8 experts at a time; then one invocation picks.
// Dispatch: [1, T]

#import shared/state
#import shared/block
#import shared/matrix
#import @weights
#import shared/norm_in
#import shared/low

struct Params {
    matrix: MatrixParams,  // rows: X
    norm: NormParams,
    rows_at: u32,
    routes_at: u32,
    used: u32,
    sigmoid: u32,          // 1: weights are sigmoids
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;        // x g, [T, blocks * 8]
@group(0) @binding(4) var<storage, read_write> state: array<u32>;

const MAX_EXPERTS: u32 = 256u;

var<workgroup> lane_sums: array<f32, 64>;
var<workgroup> logits: array<f32, MAX_EXPERTS>;

fn input_row(t: u32) -> u32 { return t; }

fn dot_half(q0: vec4<f32>, q1: vec4<f32>, q2: vec4<f32>, q3: vec4<f32>, d: f32, m: f32, at: u32) -> f32 {
    let x0 = input[at];
    let x1 = input[at + 1u];
    let x2 = input[at + 2u];
    let x3 = input[at + 3u];
    let products = (dot(q0, x0) + dot(q1, x1)) + (dot(q2, x2) + dot(q3, x3));
    return d * products + m * dot((x0 + x1) + (x2 + x3), vec4<f32>(1.0));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let lane = i % 8u;
    let x_at = t * params.matrix.blocks * 8u;
    for (var first = 0u; first < params.matrix.rows; first += 8u) {
        let row = min(first + i / 8u, params.matrix.rows - 1u);
        var sum = 0.0;
        for (var b = lane; b < params.matrix.blocks; b += 8u) {
            let w = load_block(row, b);
            let at = x_at + b * 8u;
            sum += dot_half(w.q0, w.q1, w.q2, w.q3, w.d.x, w.m.x, at);
            sum += dot_half(w.q4, w.q5, w.q6, w.q7, w.d.y, w.m.y, at + 4u);
        }
        lane_sums[i] = sum;
        workgroupBarrier();
        if i < 8u && first + i < params.matrix.rows {
            var logit = 0.0;
            for (var l = 0u; l < 8u; l++) { logit += lane_sums[i * 8u + l]; }
            logits[first + i] = logit;
        }
        workgroupBarrier();
    }
    if i != 0u { return; }

    var squares = 0.0;
    for (var p = 0u; p < norm_partials(); p++) { squares += norm_partial(t, p); }
    let scale = norm_scale(squares);
    let at = params.routes_at + t * params.used * 2u;
    var highest = 0.0;
    var total = 0.0;
    for (var s = 0u; s < params.used; s++) {
        var best = 0u;
        var high = LOW;
        for (var e = 0u; e < params.matrix.rows; e++) {
            if logits[e] > high {
                high = logits[e];
                best = e;
            }
        }
        logits[best] = LOW;
        let logit = high * scale;
        if s == 0u { highest = logit; }
        var weight = 1.0 / (1.0 + exp(-logit));
        if params.sigmoid == 0u { weight = exp(logit - highest); }
        total += weight;
        state[at + s * 2u] = best;
        state[at + s * 2u + 1u] = bitcast<u32>(weight);
    }
    if params.sigmoid == 1u { return; }
    for (var s = 0u; s < params.used; s++) {
        let weight = bitcast<f32>(state[at + s * 2u + 1u]) / total;
        state[at + s * 2u + 1u] = bitcast<u32>(weight);
    }
}
