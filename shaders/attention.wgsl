// a = softmax(scale q k) v over the cached positions that a row sees, with an online softmax (Milakov & Gimelshein
// 2018; Dao et al. 2022): pages are visited once, keys and values are read once for all query heads of a group.
//
// One workgroup of 64 per (row, key/value head, part of its group of query heads); a part has at most 16 heads and
// 1024 values, which is what workgroup memory is laid out for. Per page of 32 positions: scores of (head, position)
// pairs, running maximum and sum per head, weighted values added to the accumulators. True length only.
// Dispatch: [kv_heads * parts, T]

#import state
#import pages
#import @kv

struct Params {
    rows_at: u32,
    pages_at: u32,
    pages_per_seq: u32,
    kv_heads: u32,
    group: u32,          // query heads per key/value head
    part_heads: u32,     // query heads per workgroup
    parts: u32,          // workgroups per group
    head_dim: u32,       // D
    head_quads: u32,     // D rounded up to 4, over 4
    heads: u32,          // H
    out_stride: u32,
    scale: f32,
    window: u32,         // positions seen, 0: all
    chunk: u32,          // chunk length, 0: none
    temperature: f32,    // growth of the scale with position, 0: none
    temperature_floor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;       // [T, H, head_quads]
@group(0) @binding(4) var<storage, read_write> output: array<f32>;      // [T, out_stride], of these H D

const MAX_HEADS: u32 = 16u;
const LOW: f32 = -3.0e38;

var<workgroup> q_part: array<vec4<f32>, 256>;      // [part_heads, head_quads]
var<workgroup> acc: array<vec4<f32>, 256>;         // [part_heads, head_quads]
var<workgroup> scores: array<f32, 512>;            // [part_heads, PAGE]
var<workgroup> maxima: array<f32, 16>;
var<workgroup> sums: array<f32, 16>;
var<workgroup> corrections: array<f32, 16>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let kv_head = group.x / params.parts;
    let first_head = (group.x % params.parts) * params.part_heads;
    let heads = min(params.part_heads, params.group - first_head);
    let head_at = kv_head * params.group + first_head;
    let quads = params.head_quads;
    let pos = row_pos(t);
    let seq = row_seq(t);

    var first = 0u;
    if params.window != 0u && pos + 1u > params.window { first = pos + 1u - params.window; }
    if params.chunk != 0u { first = pos - pos % params.chunk; }

    var scale = params.scale;
    if params.temperature != 0.0 {
        scale *= 1.0 + params.temperature * log(1.0 + floor(f32(pos + 1u) / params.temperature_floor));
    }
    for (var n = i; n < heads * quads; n += 64u) {
        q_part[n] = query[(t * params.heads + head_at) * quads + n];
        acc[n] = vec4<f32>(0.0);
    }
    if i < MAX_HEADS {
        maxima[i] = LOW;
        sums[i] = 0.0;
    }
    workgroupBarrier();

    for (var tile = first / PAGE * PAGE; tile <= pos; tile += PAGE) {
        let key_at = cache_row(seq, tile, 0u, kv_head) * quads;
        let value_at = cache_row(seq, tile, 1u, kv_head) * quads;
        let count = min(PAGE, pos + 1u - tile);

        for (var n = i; n < heads * PAGE; n += 64u) {
            let h = n / PAGE;
            let s = n % PAGE;
            var score = LOW;
            if s < count && tile + s >= first {
                score = 0.0;
                for (var d = 0u; d < quads; d++) {
                    score += dot(q_part[h * quads + d], load_cached(key_at + s * quads + d));
                }
                score *= scale;
            }
            scores[n] = score;
        }
        workgroupBarrier();

        if i < heads {
            var high = maxima[i];
            for (var s = 0u; s < count; s++) { high = max(high, scores[i * PAGE + s]); }
            let correction = exp(maxima[i] - high);
            var sum = sums[i] * correction;
            for (var s = 0u; s < count; s++) {
                var weight = 0.0;
                if scores[i * PAGE + s] > LOW { weight = exp(scores[i * PAGE + s] - high); }
                scores[i * PAGE + s] = weight;
                sum += weight;
            }
            maxima[i] = high;
            sums[i] = sum;
            corrections[i] = correction;
        }
        workgroupBarrier();

        for (var n = i; n < heads * quads; n += 64u) {
            let h = n / quads;
            let d = n % quads;
            var sum = acc[n] * corrections[h];
            for (var s = 0u; s < count; s++) {
                sum += scores[h * PAGE + s] * load_cached(value_at + s * quads + d);
            }
            acc[n] = sum;
        }
        workgroupBarrier();
    }

    for (var n = i; n < heads * quads; n += 64u) {
        let h = n / quads;
        let d = (n % quads) * 4u;
        let value = acc[n] / sums[h];
        let at = t * params.out_stride + (head_at + h) * params.head_dim + d;
        output[at] = value.x;
        if d + 1u < params.head_dim { output[at + 1u] = value.y; }
        if d + 2u < params.head_dim { output[at + 2u] = value.z; }
        if d + 3u < params.head_dim { output[at + 3u] = value.w; }
    }
}
