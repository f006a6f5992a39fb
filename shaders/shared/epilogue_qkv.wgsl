// qkv_rope: rows of the matrix are those of q, then k, then v (or, from `row_base` on, a part of them where their
// types differ). q and k are rotated; q goes to `query`, k and v into the cache at the row's position.

#import norm_in
#import pages
#import @kv

struct Params {
    rows: u32,            // rows of this matrix
    blocks: u32,          // blocks of 32 per row
    scale_stride: u32,
    bias_at: u32,
    rows_at: u32,
    partials: u32,
    partial_stride: u32,
    inv_hidden: f32,
    eps: f32,
    row_base: u32,        // first row, counted in q, k, v
    q_rows: u32,          // H D
    kv_rows: u32,         // KV D
    head_dim: u32,        // D
    head_stride: u32,     // D rounded up to 4
    q_stride: u32,        // H head_stride
    kv_heads: u32,
    rope_pairs: u32,      // rotated pairs per head
    rope_high: u32,       // start of the second table
    pages_at: u32,
    pages_per_seq: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;        // x g, [T, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
// (cos, sin) of pos % 256, [256, rope_pairs]; from rope_high on, of 256 (pos / 256).
@group(0) @binding(6) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> query: array<f32>;        // [T, H, head_stride]

const ROPE_LOW: u32 = 256u;

fn input_row(t: u32) -> u32 { return t; }
fn token_count() -> u32 { return row_count(); }

fn quad_rows(quad: u32) -> vec4<u32> {
    return min(vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.rows - 1u));
}

// Angle addition keeps the precision that cos of a large angle would lose.
fn rotate(v: vec2<f32>, pos: u32, pair: u32) -> vec2<f32> {
    if pair >= params.rope_pairs { return v; }
    let low = rope[(pos % ROPE_LOW) * params.rope_pairs + pair];
    let high = rope[params.rope_high + (pos / ROPE_LOW) * params.rope_pairs + pair];
    let c = high.x * low.x - high.y * low.y;
    let s = high.y * low.x + high.x * low.y;
    return vec2<f32>(v.x * c - v.y * s, v.x * s + v.y * c);
}

fn finish_pair(t: u32, r: u32, y: vec2<f32>) {
    if r >= params.rows { return; }
    let v = y + vec2<f32>(bias_of(r), bias_of(r + 1u));
    let row = r + params.row_base;
    let pos = row_pos(t);
    if row < params.q_rows {
        let d = row % params.head_dim;
        let at = t * params.q_stride + (row / params.head_dim) * params.head_stride + d;
        let rotated = rotate(v, pos, d / 2u);
        query[at] = rotated.x;
        query[at + 1u] = rotated.y;
        return;
    }
    let is_value = row >= params.q_rows + params.kv_rows;
    let kv_row = row - params.q_rows - select(0u, params.kv_rows, is_value);
    let d = kv_row % params.head_dim;
    var stored = v;
    if !is_value { stored = rotate(v, pos, d / 2u); }
    store_cached(t, pos, select(0u, 1u, is_value), kv_row / params.head_dim, d, stored);
}

fn finish(t: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>) -> f32 {
    finish_pair(t, quad * 4u, y.xy);
    finish_pair(t, quad * 4u + 2u, y.zw);
    return 0.0;
}
