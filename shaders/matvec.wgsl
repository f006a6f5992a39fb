// y = W x for few rows of x (decoding): weights are read once per row of x, so this is for T = 1 or so.
//
// A workgroup of 64 invocations holds 64 / LANES quads; a quad is four rows of y, computed by LANES invocations that
// take every LANES-th block of 32 weights. The norm is applied after the product (W norm(x) = r W (x g)): the input
// is x g, and r comes from the partial sums of squares that its producer wrote. One barrier: the first lane of each
// quad adds up what the lanes found. What becomes of y is the epilogue's business.
// Dispatch: [quads * LANES / 64, T]

#import state
#import block
#import matrix
#import @weights
#import @reduce
#import @epilogue

override LANES: u32 = 16u;   // power of two, at most 64
const WORKGROUP: u32 = 64u;

#ifdef PARTIALS
var<workgroup> quad_squares: array<f32, 64>;
#endif

// x[block] and its sums over each half.
struct Input {
    x0: vec4<f32>, x1: vec4<f32>, x2: vec4<f32>, x3: vec4<f32>,
    x4: vec4<f32>, x5: vec4<f32>, x6: vec4<f32>, x7: vec4<f32>,
    sums: vec2<f32>,
}

fn load_input(at: u32) -> Input {
    let x0 = input[at];
    let x1 = input[at + 1u];
    let x2 = input[at + 2u];
    let x3 = input[at + 3u];
    let x4 = input[at + 4u];
    let x5 = input[at + 5u];
    let x6 = input[at + 6u];
    let x7 = input[at + 7u];
    let one = vec4<f32>(1.0);
    return Input(x0, x1, x2, x3, x4, x5, x6, x7,
        vec2<f32>(dot((x0 + x1) + (x2 + x3), one), dot((x4 + x5) + (x6 + x7), one)));
}

fn dot_block(w: Block, x: Input) -> f32 {
    let a = (dot(w.q0, x.x0) + dot(w.q1, x.x1)) + (dot(w.q2, x.x2) + dot(w.q3, x.x3));
    let b = (dot(w.q4, x.x4) + dot(w.q5, x.x5)) + (dot(w.q6, x.x6) + dot(w.q7, x.x7));
    return dot(w.d, vec2<f32>(a, b)) + dot(w.m, x.sums);
}

// Four rows of W by one row of x, as far as this lane goes.
fn product(rows: vec4<u32>, x_at: u32, lane: u32) -> vec4<f32> {
    var acc = vec4<f32>(0.0);
    for (var b = lane; b < params.blocks; b += LANES) {
        let x = load_input(x_at + b * 8u);
        acc.x += dot_block(load_block(rows.x, b), x);
        acc.y += dot_block(load_block(rows.y, b), x);
        acc.z += dot_block(load_block(rows.z, b), x);
        acc.w += dot_block(load_block(rows.w, b), x);
    }
    return acc;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) i: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#endif
) {
    let t = group.y;
    let lane = i % LANES;
    let quad = group.x * (WORKGROUP / LANES) + i / LANES;
    let rows = quad_rows(quad);

#ifdef EXPERTS
    var acc = vec4<f32>(0.0);
    for (var s = 0u; s < slots(); s++) {
        let expert = slot_expert(t, s);
        if expert < params.experts {
            let own = rows + vec4<u32>(expert * expert_rows());
            acc += slot_weight(t, s) * product(own, slot_input(t, s) * params.blocks * 8u, lane);
        }
    }
#else
    let acc = product(rows, input_row(t) * params.blocks * 8u, lane);
#endif
    var squares = 0.0;
    for (var p = lane; p < norm_partials(); p += LANES) {
        squares += norm_partial(t, p);
    }

#ifdef SUBGROUPS
    let sum = reduce(acc, squares, i, LANES, subgroup_size, subgroup_lane);
#else
    let sum = reduce(acc, squares, i, LANES);
#endif
    var own = 0.0;
    if lane == 0u {
        own = finish(t, quad, rows, sum.rows * norm_scale(sum.squares));
    }
#ifdef PARTIALS
    if lane == 0u { quad_squares[i / LANES] = own; }
    workgroupBarrier();
    if i == 0u {
        var squares_of_group = 0.0;
        for (var q = 0u; q < WORKGROUP / LANES; q++) { squares_of_group += quad_squares[q]; }
        write_partial(t, group.x, squares_of_group);
    }
#endif
}
