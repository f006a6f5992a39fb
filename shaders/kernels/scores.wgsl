// Scores of each head of a row with the cached keys, scaled; LOWEST where a position is not seen.
//
// An invocation per position. Dispatch: [H * seen / 64, T]

#import shared/state
#import shared/pages
#import @kv
#import shared/visible
#import shared/temperature
#import shared/low

struct Params {
    rows_at: u32,
    pages_at: u32,
    pages_per_seq: u32,
    kv_heads: u32,
    group: u32,          // query heads per key/value head
    head_quads: u32,     // D rounded up to 4, over 4
    heads: u32,          // H
    seen: u32,           // positions per head
    out_stride: u32,
    scale: f32,
    window: u32,
    chunk: u32,
    temperature: f32,
    temperature_floor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;     // [T, H, head_quads]
@group(0) @binding(4) var<storage, read_write> output: array<f32>;    // [T, out_stride]: [H, seen]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let tiles = (params.seen + 63u) / 64u;
    let head = group.x / tiles;
    let s = group.x % tiles * 64u + i;
    if s >= params.seen { return; }
    let pos = row_pos(t);
    var score = LOWEST;
    if s >= first_visible(pos) && s <= pos {
        let key = cache_row(row_seq(t), s, 0u, head / params.group);
        let at = (t * params.heads + head) * params.head_quads;
        var sum = 0.0;
        for (var q = 0u; q < params.head_quads; q++) { sum += dot(query[at + q], load_cached(key, q)); }
        score = sum * scale_at(pos);
    }
    output[t * params.out_stride + head * params.seen + s] = score;
}
