// y = W x for few rows of x (decoding, several sequences, short prompts): weights are read once per COLS rows of x.
//
// A workgroup of 64 invocations holds 64 / LANES quads; a quad is four rows of y, computed by LANES invocations that
// take every LANES-th block of 32 weights. The norm is applied after the product (W norm(x) = r W (x g)): the input
// is x g, and r comes from the partial sums of squares that its producer wrote. One barrier: lane c of each quad adds
// up what the lanes found for row c of x. The epilogue stores y.
// Dispatch: [quads * LANES / 64, T / COLS]

#import shared/state
#import shared/block
#import shared/matrix
#import @weights
#import @reduce
#import @cols
#import @epilogue
#ifdef INT8
#import shared/quantize
#endif

override LANES: u32 = 16u;   // power of two, 4 to 64
const WORKGROUP: u32 = 64u;

var<workgroup> lane_rows: array<vec4<f32>, WORKGROUP * COLS>;     // [COLS, WORKGROUP]
var<workgroup> lane_squares: array<f32, WORKGROUP * COLS>;
#ifdef PARTIALS
var<workgroup> quad_squares: array<f32, WORKGROUP / 4u * COLS>;   // [COLS, quads]
#endif

#ifdef INT8
// Four rows of W by one row of x, as far as this lane goes.
fn product(rows: vec4<u32>, x_at: u32, lane: u32) -> vec4<f32> {
    var acc = vec4<f32>(0.0);
    for (var b = lane; b < params.matrix.blocks; b += LANES) {
        let at = x_at + b * 8u;
        let x = quantized(input[at], input[at + 1u], input[at + 2u], input[at + 3u],
            input[at + 4u], input[at + 5u], input[at + 6u], input[at + 7u]);
        acc.x += dot_packed(load_packed(rows.x, b), x);
        acc.y += dot_packed(load_packed(rows.y, b), x);
        acc.z += dot_packed(load_packed(rows.z, b), x);
        acc.w += dot_packed(load_packed(rows.w, b), x);
    }
    return acc;
}
#else
// x[block] and its sums over each half.
struct Input {
    x0: vec4<f32>, x1: vec4<f32>, x2: vec4<f32>, x3: vec4<f32>,
    x4: vec4<f32>, x5: vec4<f32>, x6: vec4<f32>, x7: vec4<f32>,
#ifdef OFFSETS
    sums: vec2<f32>,
#endif
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
#ifdef OFFSETS
    let one = vec4<f32>(1.0);
    return Input(x0, x1, x2, x3, x4, x5, x6, x7,
        vec2<f32>(dot((x0 + x1) + (x2 + x3), one), dot((x4 + x5) + (x6 + x7), one)));
#else
    return Input(x0, x1, x2, x3, x4, x5, x6, x7);
#endif
}

fn dot_block(w: Block, x: Input) -> f32 {
    let a = (dot(w.q0, x.x0) + dot(w.q1, x.x1)) + (dot(w.q2, x.x2) + dot(w.q3, x.x3));
    let b = (dot(w.q4, x.x4) + dot(w.q5, x.x5)) + (dot(w.q6, x.x6) + dot(w.q7, x.x7));
#ifdef OFFSETS
    return dot(w.d, vec2<f32>(a, b)) + dot(w.m, x.sums);
#else
    return dot(w.d, vec2<f32>(a, b));
#endif
}

fn product(rows: vec4<u32>, x_at: u32, lane: u32) -> vec4<f32> {
    var acc = vec4<f32>(0.0);
    for (var b = lane; b < params.matrix.blocks; b += LANES) {
        let x = load_input(x_at + b * 8u);
        acc.x += dot_block(load_block(rows.x, b), x);
        acc.y += dot_block(load_block(rows.y, b), x);
        acc.z += dot_block(load_block(rows.z, b), x);
        acc.w += dot_block(load_block(rows.w, b), x);
    }
    return acc;
}
#endif

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) i: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_size) subgroup_size: u32,
#endif
) {
    let lane = i % LANES;
    let quad = group.x * (WORKGROUP / LANES) + i / LANES;
    let rows = quad_rows(quad);
#ifdef SUBGROUPS
    let width = folded(LANES, subgroup_size);
#else
    let width = folded(LANES, 1u);
#endif

#ifdef EXPERTS
    let first = group.y;
    let tokens = first + 1u;
    var a0 = vec4<f32>(0.0);
    for (var s = 0u; s < slots(); s++) {
        let expert = slot_expert(first, s);
        if expert < params.experts {
            let own = rows + vec4<u32>(expert * expert_rows());
            a0 += slot_weight(first, s) * product(own, slot_input(first, s) * params.matrix.blocks * 8u, lane);
        }
    }
#else
    let first = group.y * COLS;
    let tokens = token_count();
    // Beyond the last row, that row again; its sums are thrown away.
#for c cols
    let x_at$c = input_row(min(first + $cu, tokens - 1u)) * params.matrix.blocks * 8u;
#end
#ifdef COLUMNS
#for c cols
    var a$c = vec4<f32>(0.0);
#end
    for (var b = lane; b < params.matrix.blocks; b += LANES) {
        let at = b * 8u;
#ifdef INT8
        let w0 = load_packed(rows.x, b);
        let w1 = load_packed(rows.y, b);
        let w2 = load_packed(rows.z, b);
        let w3 = load_packed(rows.w, b);
#for c cols
        let x$c = quantized(input[x_at$c + at], input[x_at$c + at + 1u], input[x_at$c + at + 2u], input[x_at$c + at + 3u],
            input[x_at$c + at + 4u], input[x_at$c + at + 5u], input[x_at$c + at + 6u], input[x_at$c + at + 7u]);
        a$c += vec4<f32>(dot_packed(w0, x$c), dot_packed(w1, x$c), dot_packed(w2, x$c), dot_packed(w3, x$c));
#end
#else
        let w0 = load_block(rows.x, b);
        let w1 = load_block(rows.y, b);
        let w2 = load_block(rows.z, b);
        let w3 = load_block(rows.w, b);
#for k 8
        {
            let v0 = w0.q$k * w0.d[$k / 4] + w0.m[$k / 4];
            let v1 = w1.q$k * w1.d[$k / 4] + w1.m[$k / 4];
            let v2 = w2.q$k * w2.d[$k / 4] + w2.m[$k / 4];
            let v3 = w3.q$k * w3.d[$k / 4] + w3.m[$k / 4];
#for c cols
            let x$c = input[x_at$c + at + $ku];
            a$c += vec4<f32>(dot(v0, x$c), dot(v1, x$c), dot(v2, x$c), dot(v3, x$c));
#end
        }
#end
#endif
    }
#else
    let a0 = product(rows, x_at0, lane);
#endif
#endif

#for c cols
    var squares$c = 0.0;
#end
    for (var p = lane; p < norm_partials(); p += LANES) {
#for c cols
        squares$c += norm_partial(min(first + $cu, tokens - 1u), p);
#end
    }
#for c cols
    lane_rows[$cu * WORKGROUP + i] = fold(a$c, width);
    lane_squares[$cu * WORKGROUP + i] = fold_one(squares$c, width);
#end
    workgroupBarrier();

    for (var c = lane; c < COLS; c += LANES) {
        var own = 0.0;
        if first + c < tokens {
            let at = c * WORKGROUP + i - lane;
            var sum = vec4<f32>(0.0);
            var squares = 0.0;
            for (var l = 0u; l < LANES; l += width) {
                sum += lane_rows[at + l];
                squares += lane_squares[at + l];
            }
            own = finish(first + c, quad, rows, sum * norm_scale(squares));
        }
#ifdef PARTIALS
        quad_squares[c * (WORKGROUP / LANES) + i / LANES] = own;
#endif
    }
#ifdef PARTIALS
    workgroupBarrier();
    if i < COLS && first + i < tokens {
        var squares_of_group = 0.0;
        for (var q = 0u; q < WORKGROUP / LANES; q++) { squares_of_group += quad_squares[i * (WORKGROUP / LANES) + q]; }
        write_partial(first + i, group.x, squares_of_group);
    }
#endif
}
