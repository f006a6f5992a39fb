// Y = W X for many rows of X (prefill): tiles of 64 rows of W by 32 rows of X, 32 columns at a time.
//
// 128 invocations. Per step the first 64 dequantise one block of one row of W each, the others fetch X; both go to
// workgroup memory, so weights are dequantised once per tile. Each invocation then has 4 rows of W by 4 rows of X:
// 16 sums from 8 loads of vec4. Columns run along the vec4s; a stride of 9 (not 8) spreads rows over banks.
// Dispatch: [quads / 16, T / 32]. Norm and epilogue as in matvec.

#import state
#import block
#import matrix
#import @weights
#import @epilogue

const TILE_ROWS: u32 = 64u;    // of W
const TILE_TOKENS: u32 = 32u;  // of X
const STRIDE: u32 = 9u;

var<workgroup> w_tile: array<vec4<f32>, 576>;   // [4, 16, STRIDE]: row 4 q + j of the tile at [j, q]
var<workgroup> x_tile: array<vec4<f32>, 288>;   // [TILE_TOKENS, STRIDE]
var<workgroup> scales_of: array<f32, 32>;       // norm scale of each token
#ifdef PARTIALS
var<workgroup> tile_squares: array<f32, 512>;   // [TILE_TOKENS, 16]
#endif

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let tokens = token_count();
    let first_token = group.y * TILE_TOKENS;
    let first_quad = group.x * 16u;
    let tq = i % 16u;
    let tt = i / 16u;

    var acc0 = vec4<f32>(0.0);
    var acc1 = vec4<f32>(0.0);
    var acc2 = vec4<f32>(0.0);
    var acc3 = vec4<f32>(0.0);

    // The row of W that this invocation dequantises, or the rows of X that it fetches.
    let own_rows = quad_rows(first_quad + i % 16u);
    let own_j = (i / 16u) % 4u;
    let own_row = select(select(own_rows.x, own_rows.y, own_j == 1u), select(own_rows.z, own_rows.w, own_j == 3u), own_j >= 2u);
    let own_w = (own_j * 16u + i % 16u) * STRIDE;

    for (var b = 0u; b < params.blocks; b++) {
        if i < 64u {
            let w = load_block(own_row, b);
            w_tile[own_w] = w.q0 * w.d.x + w.m.x;
            w_tile[own_w + 1u] = w.q1 * w.d.x + w.m.x;
            w_tile[own_w + 2u] = w.q2 * w.d.x + w.m.x;
            w_tile[own_w + 3u] = w.q3 * w.d.x + w.m.x;
            w_tile[own_w + 4u] = w.q4 * w.d.y + w.m.y;
            w_tile[own_w + 5u] = w.q5 * w.d.y + w.m.y;
            w_tile[own_w + 6u] = w.q6 * w.d.y + w.m.y;
            w_tile[own_w + 7u] = w.q7 * w.d.y + w.m.y;
        } else {
            for (var n = i - 64u; n < TILE_TOKENS * 8u; n += 64u) {
                let t = first_token + n / 8u;
                var v = vec4<f32>(0.0);
                if t < tokens { v = input[(input_row(t) * params.blocks + b) * 8u + n % 8u]; }
                x_tile[(n / 8u) * STRIDE + n % 8u] = v;
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < 8u; k++) {
            let w0 = w_tile[tq * STRIDE + k];
            let w1 = w_tile[(16u + tq) * STRIDE + k];
            let w2 = w_tile[(32u + tq) * STRIDE + k];
            let w3 = w_tile[(48u + tq) * STRIDE + k];
            let x0 = x_tile[(tt * 4u) * STRIDE + k];
            let x1 = x_tile[(tt * 4u + 1u) * STRIDE + k];
            let x2 = x_tile[(tt * 4u + 2u) * STRIDE + k];
            let x3 = x_tile[(tt * 4u + 3u) * STRIDE + k];
            acc0 += vec4<f32>(dot(w0, x0), dot(w1, x0), dot(w2, x0), dot(w3, x0));
            acc1 += vec4<f32>(dot(w0, x1), dot(w1, x1), dot(w2, x1), dot(w3, x1));
            acc2 += vec4<f32>(dot(w0, x2), dot(w1, x2), dot(w2, x2), dot(w3, x2));
            acc3 += vec4<f32>(dot(w0, x3), dot(w1, x3), dot(w2, x3), dot(w3, x3));
        }
        workgroupBarrier();
    }

    if i < TILE_TOKENS {
        var squares = 0.0;
        if first_token + i < tokens {
            for (var p = 0u; p < norm_partials(); p++) { squares += norm_partial(first_token + i, p); }
        }
        scales_of[i] = norm_scale(squares);
    }
    workgroupBarrier();

    let quad = first_quad + tq;
    let rows = quad_rows(quad);
    let t = first_token + tt * 4u;
    finish_token(t, tokens, tt * 4u, quad, rows, acc0, tq);
    finish_token(t + 1u, tokens, tt * 4u + 1u, quad, rows, acc1, tq);
    finish_token(t + 2u, tokens, tt * 4u + 2u, quad, rows, acc2, tq);
    finish_token(t + 3u, tokens, tt * 4u + 3u, quad, rows, acc3, tq);
#ifdef PARTIALS
    workgroupBarrier();
    if i < TILE_TOKENS && first_token + i < tokens {
        var squares = 0.0;
        for (var q = 0u; q < 16u; q++) { squares += tile_squares[i * 16u + q]; }
        write_partial(first_token + i, group.x, squares);
    }
#endif
}

fn finish_token(t: u32, tokens: u32, in_tile: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>, tq: u32) {
    var own = 0.0;
    if t < tokens { own = finish(t, quad, rows, y * scales_of[in_tile]); }
#ifdef PARTIALS
    tile_squares[in_tile * 16u + tq] = own;
#endif
}
