// Keys and values of a step's rows into a q8_0 cache: blocks of 32 signed bytes with an f16 scale, max |v| / 127.
//
// One workgroup of 64 per row and vector; an invocation makes whole words of the stored vector.
// Dispatch: [2 KV, T]

#import shared/state
#import shared/pages

struct Params {
    rows_at: u32,
    pages_at: u32,
    pages_per_seq: u32,
    kv_heads: u32,
    head_dim: u32,      // D
    head_stride: u32,   // D rounded up to 4
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<f32>;           // [T, 2, KV, head_stride]
@group(0) @binding(3) var<storage, read_write> cache: array<u32>;    // [page, k or v, KV, PAGE, words], as kv_read_q8_0

fn value(at: u32, d: u32) -> f32 {
    if d >= params.head_dim { return 0.0; }
    return rows[at + d];
}

fn scale_of(at: u32, block: u32) -> f32 {
    var most = 0.0;
    for (var d = block * 32u; d < block * 32u + 32u; d++) { most = max(most, abs(value(at, d))); }
    return most / 127.0;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let which = group.x / params.kv_heads;
    let kv_head = group.x % params.kv_heads;
    let source = ((t * 2u + which) * params.kv_heads + kv_head) * params.head_stride;
    let blocks = (params.head_dim + 31u) / 32u;
    let words = blocks * 8u + (blocks + 1u) / 2u;
    let to = cache_row(row_seq(t), row_pos(t), which, kv_head) * words;
    for (var w = i; w < words; w += 64u) {
        if w < blocks * 8u {
            let scale = scale_of(source, w / 8u);
            var inverse = 0.0;
            if scale > 1.0e-30 { inverse = 1.0 / scale; }
            let d = w * 4u;
            let v = vec4<f32>(value(source, d), value(source, d + 1u), value(source, d + 2u), value(source, d + 3u));
            cache[to + w] = pack4xI8(vec4<i32>(round(v * inverse)));
        } else {
            let block = (w - blocks * 8u) * 2u;
            cache[to + w] = pack2x16float(vec2<f32>(scale_of(source, block), scale_of(source, block + 1u)));
        }
    }
}
