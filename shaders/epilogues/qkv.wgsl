// qkv_rope: rows of the matrix are those of q, then k, then v (or, from `row_base` on, a part of them where their
// types differ). q and k are rotated; q goes to `query`, k and v into the cache at the row's position.

#import shared/norm_in
#import shared/pages
#import shared/rope
#import @kv
#import shared/row_quads

struct Params {
    matrix: MatrixParams,  // rows of this matrix
    norm: NormParams,
    rows_at: u32,
    row_base: u32,         // first row, counted in q, k, v
    q_rows: u32,           // H D
    kv_rows: u32,          // KV D
    head_dim: u32,         // D
    head_stride: u32,      // D rounded up to 4
    q_stride: u32,         // H head_stride
    kv_heads: u32,
    rope_pairs: u32,       // rotated pairs per head
    rope_high: u32,        // start of the second table
    pages_at: u32,
    pages_per_seq: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> input: array<vec4<f32>>;        // x g, [T, blocks * 8]
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(6) var<storage, read> rope: array<vec2<f32>>;        // see rope.wgsl: [positions, rope_pairs]
@group(0) @binding(7) var<storage, read_write> query: array<f32>;        // [T, H, head_stride]
@group(0) @binding(8) var<storage, read_write> cache: array<CacheWord>;  // see kv/write_*.wgsl: [page, 2, KV, PAGE, head_stride]

fn input_row(t: u32) -> u32 { return t; }
fn token_count() -> u32 { return row_count(); }

fn finish_pair(t: u32, r: u32, y: vec2<f32>) {
    if r >= params.matrix.rows { return; }
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
    store_pair(vector_at(t, select(0u, 1u, is_value), kv_row / params.head_dim) + d, stored);
}

fn finish(t: u32, quad: u32, rows: vec4<u32>, y: vec4<f32>) -> f32 {
    finish_pair(t, quad * 4u, y.xy);
    finish_pair(t, quad * 4u + 2u, y.zw);
    return 0.0;
}
