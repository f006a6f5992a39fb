// Y = W X for many rows of X (prompts): tiles of 64 rows of W by 8 EACH rows of X, 32 columns at a time.
//
// 128 invocations. Per step each dequantises half a block of one row of W and fetches its share of X; both go to
// workgroup memory, so weights are dequantised once per tile. Each invocation then has 4 rows of W by EACH rows of X:
// per vec4 of columns 4 + EACH loads for 16 EACH products. The tiles are laid out [column, row]: neighbours read
// neighbouring words, and of X all lanes of a quad row the same word.
//
// F16: the tiles are f16, so x is normalised as it is fetched (a residual stream may exceed f16); sums of 4 products in
// f16, all further sums in f32. INT8: the tiles are bytes, see quantize.wgsl.
// EXPERTS: rows of X are pairs of (row, slot), see grouped.wgsl.
// Dispatch: [quads / 16, T / (8 EACH)]. Norm and epilogue as in matvec.

#import shared/state
#import shared/block
#import shared/matrix
#import @weights
#import @each
#import @epilogue
#ifdef INT8
#import shared/quantize
#endif

const TILE_QUADS: u32 = 16u;           // of rows of W
const TILE_ROWS: u32 = 4u * TILE_QUADS;
const TILE_TOKENS: u32 = 8u * EACH;    // of X
const WORKGROUP: u32 = 128u;

#ifdef INT8
var<workgroup> w_tile: array<vec4<u32>, 128>;           // [2, TILE_ROWS]: a half of a row's block
var<workgroup> w_scale: array<vec4<f32>, 64>;           // d, m
var<workgroup> x_tile: array<vec4<u32>, 2u * TILE_TOKENS>;
var<workgroup> x_scale: array<vec4<f32>, TILE_TOKENS>;  // scale, sums of the halves
#else
#ifdef F16
alias Quad = vec4<f16>;
#else
alias Quad = vec4<f32>;
#endif
var<workgroup> w_tile: array<Quad, 512>;                // [8, TILE_ROWS]: row 4 q + j of the tile at 16 j + q
var<workgroup> x_tile: array<Quad, 8u * TILE_TOKENS>;   // [8, TILE_TOKENS]
#endif
#ifdef F16
var<workgroup> norms: array<f32, TILE_TOKENS>;
#endif

fn norm_of(t: u32, tokens: u32) -> f32 {
    var squares = 0.0;
    if t < tokens {
        for (var p = 0u; p < norm_partials(); p++) { squares += norm_partial(t, p); }
    }
    return norm_scale(squares);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
#ifdef EXPERTS
    // A tile is of one expert, TILE_TOKENS pairs of it at most; a tile of another part's expert is not this one's work.
    let tile = expert_tile(group.y);
    if tile.x >= params.experts { return; }
    let first_token = tile.y;
    let tokens = tile.z;
    let expert_row = tile.x * expert_rows();
#else
    let tokens = token_count();
    let first_token = group.y * TILE_TOKENS;
    let expert_row = 0u;
#endif
    let first_quad = group.x * TILE_QUADS;
    let tq = i % 16u;
    let tt = i / 16u;

    // The row of W of which this invocation dequantises a half.
    let own_rows = quad_rows(first_quad + i % 16u);
    let own_j = (i / 16u) % 4u;
    let own_row = expert_row + select(select(own_rows.x, own_rows.y, own_j == 1u), select(own_rows.z, own_rows.w, own_j == 3u), own_j >= 2u);
    let own_w = i % TILE_ROWS;
    let second = i >= TILE_ROWS;

#for n each
    var acc$n = vec4<f32>(0.0);
#end

#ifdef F16
    if i < TILE_TOKENS { norms[i] = norm_of(first_token + i, tokens); }
    workgroupBarrier();
#endif
    for (var b = 0u; b < params.matrix.blocks; b++) {
#ifdef INT8
        if second {
            for (var n = own_w; n < TILE_TOKENS; n += TILE_ROWS) {
                let at = (input_row(min(first_token + n, tokens - 1u)) * params.matrix.blocks + b) * 8u;
                let x = quantized(input[at], input[at + 1u], input[at + 2u], input[at + 3u],
                    input[at + 4u], input[at + 5u], input[at + 6u], input[at + 7u]);
                x_tile[n] = x.lo;
                x_tile[TILE_TOKENS + n] = x.hi;
                x_scale[n] = vec4<f32>(x.scale, x.sums, 0.0);
            }
        } else {
            let w = load_packed(own_row, b);
            w_tile[own_w] = w.lo;
            w_tile[TILE_ROWS + own_w] = w.hi;
            w_scale[own_w] = vec4<f32>(w.d, w.m);
        }
        workgroupBarrier();
        {
#for j 4
            let lo$j = w_tile[$ju * 16u + tq];
            let hi$j = w_tile[TILE_ROWS + $ju * 16u + tq];
            let s$j = w_scale[$ju * 16u + tq];
#end
#for n each
            {
                let n = tt * EACH + $nu;
                let lo = x_tile[n];
                let hi = x_tile[TILE_TOKENS + n];
                let s = x_scale[n];
                let first = vec4<f32>(vec4<i32>(dot_bytes(lo0, lo), dot_bytes(lo1, lo), dot_bytes(lo2, lo), dot_bytes(lo3, lo)));
                let last = vec4<f32>(vec4<i32>(dot_bytes(hi0, hi), dot_bytes(hi1, hi), dot_bytes(hi2, hi), dot_bytes(hi3, hi)));
                acc$n += s.x * (vec4<f32>(s0.x, s1.x, s2.x, s3.x) * first + vec4<f32>(s0.y, s1.y, s2.y, s3.y) * last)
                    + (vec4<f32>(s0.z, s1.z, s2.z, s3.z) * s.y + vec4<f32>(s0.w, s1.w, s2.w, s3.w) * s.z);
            }
#end
        }
#else
        let w = load_block(own_row, b);
        let d = select(w.d.x, w.d.y, second);
        let m = select(w.m.x, w.m.y, second);
        let own_at = select(0u, 4u, second) * TILE_ROWS + own_w;
        w_tile[own_at] = Quad(select(w.q0, w.q4, second) * d + m);
        w_tile[own_at + TILE_ROWS] = Quad(select(w.q1, w.q5, second) * d + m);
        w_tile[own_at + 2u * TILE_ROWS] = Quad(select(w.q2, w.q6, second) * d + m);
        w_tile[own_at + 3u * TILE_ROWS] = Quad(select(w.q3, w.q7, second) * d + m);
        for (var n = i; n < TILE_TOKENS * 8u; n += WORKGROUP) {
            let in_tile = n / 8u;
            let t = min(first_token + in_tile, tokens - 1u);
            let v = input[(input_row(t) * params.matrix.blocks + b) * 8u + n % 8u];
#ifdef F16
            x_tile[(n % 8u) * TILE_TOKENS + in_tile] = Quad(v * norms[in_tile]);
#else
            x_tile[(n % 8u) * TILE_TOKENS + in_tile] = v;
#endif
        }
        workgroupBarrier();
        for (var k = 0u; k < 8u; k++) {
#for j 4
            let w$j = w_tile[k * TILE_ROWS + $ju * 16u + tq];
#end
#for n each
            let x$n = x_tile[k * TILE_TOKENS + tt * EACH + $nu];
            acc$n += vec4<f32>(f32(dot(w0, x$n)), f32(dot(w1, x$n)), f32(dot(w2, x$n)), f32(dot(w3, x$n)));
#end
        }
#endif
        workgroupBarrier();
    }

    // The tiles are done with, and serve to hand around norms and squares.
#ifdef F16
#for n each
    let norm$n = 1.0;
#end
#else
#ifdef INT8
    if i < TILE_TOKENS { x_scale[i].x = norm_of(first_token + i, tokens); }
    workgroupBarrier();
#for n each
    let norm$n = x_scale[tt * EACH + $nu].x;
#end
#else
    if i < TILE_TOKENS { x_tile[i].x = norm_of(first_token + i, tokens); }
    workgroupBarrier();
#for n each
    let norm$n = x_tile[tt * EACH + $nu].x;
#end
    workgroupBarrier();
#endif
#endif

    let quad = first_quad + tq;
    let rows = quad_rows(quad);
#for n each
    {
        let n = tt * EACH + $nu;
        var own = 0.0;
        if first_token + n < tokens { own = finish(first_token + n, quad, rows, acc$n * norm$n); }
#ifdef PARTIALS
        put_squares(n, tq, own);
#endif
    }
#end
#ifdef PARTIALS
    workgroupBarrier();
    if i < TILE_TOKENS && first_token + i < tokens {
        var squares = 0.0;
        for (var q = 0u; q < 16u; q++) { squares += get_squares(i, q); }
        write_partial(first_token + i, group.x, squares);
    }
#endif
}

#ifdef PARTIALS
#ifdef INT8
var<workgroup> tile_squares: array<f32, TILE_TOKENS * 16u>;
fn put_squares(n: u32, q: u32, squares: f32) { tile_squares[n * 16u + q] = squares; }
fn get_squares(n: u32, q: u32) -> f32 { return tile_squares[n * 16u + q]; }
#else
#ifdef F16
var<workgroup> tile_squares: array<f32, TILE_TOKENS * 16u>;
fn put_squares(n: u32, q: u32, squares: f32) { tile_squares[n * 16u + q] = squares; }
fn get_squares(n: u32, q: u32) -> f32 { return tile_squares[n * 16u + q]; }
#else
// Both tiles together have a word for each.
fn put_squares(n: u32, q: u32, squares: f32) {
    if n < 32u { w_tile[n * 16u + q] = vec4<f32>(squares); } else { x_tile[(n - 32u) * 16u + q] = vec4<f32>(squares); }
}
fn get_squares(n: u32, q: u32) -> f32 {
    if n < 32u { return w_tile[n * 16u + q].x; }
    return x_tile[(n - 32u) * 16u + q].x;
}
#endif
#endif
#endif
