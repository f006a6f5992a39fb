// a = softmax(scale q k) v over the cached positions that a row sees, with an online softmax (Milakov & Gimelshein
// 2018; Dao et al. 2022): pages are visited once, keys and values are read once for all query heads of a group.
//
// One workgroup of 128 per (row, key/value head, part of its group of query heads). Heads go four by four through the
// lanes of a vec4. Per page of 32 positions: scores, 4 invocations a position; running maxima and weights; values,
// each invocation one vec4 of the vector over a slice of the positions, summed over slices at the end. True length only.
// SPLIT: a row's pages are divided further among workgroups, whose results `attention_combine` adds up.
// Dispatch: [kv_heads * parts (* splits), T]

#import shared/state
#import shared/pages
#import @kv
#import shared/visible
#import shared/temperature
#import shared/attention
#import shared/low
#import @fours
#ifdef SPLIT
#import shared/splits
#endif

@group(0) @binding(0) var<uniform> params: AttentionParams;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;       // [T, H, head_quads]
#ifdef SPLIT
// [T, H, MAX_SPLITS, head_quads + 1]: weighted values, then (maximum, sum of weights).
@group(0) @binding(4) var<storage, read_write> output: array<vec4<f32>>;
#else
@group(0) @binding(4) var<storage, read_write> output: array<f32>;      // [T, out_stride], of these H D
#endif

const WORKGROUP: u32 = 128u;
const MAX_QUADS: u32 = WORKGROUP;     // of a head
const PART_QUADS: u32 = 512u;         // of the heads of a workgroup

var<workgroup> q_part: array<vec4<f32>, PART_QUADS>;        // [part_heads rounded up to 4, head_quads]
var<workgroup> scores: array<vec4<f32>, 128u * FOURS>;      // [FOURS, 4, PAGE]: of four heads

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let own = group.x % (params.kv_heads * params.parts);
    let kv_head = own / params.parts;
    let first_head = (own % params.parts) * params.part_heads;
    let heads = min(params.part_heads, params.group - first_head);
    let head_at = kv_head * params.group + first_head;
    let quads = params.head_quads;
    let pos = row_pos(t);
    let seq = row_seq(t);
    let scale = scale_at(pos);

    let first = first_visible(pos);
    var start = first / PAGE * PAGE;
    var end = pos + 1u;
#ifdef SPLIT
    let split = group.x / (params.kv_heads * params.parts);
    start += split * pages_per_split(pos) * PAGE;
    if start > pos { return; }
    end = min(end, start + pages_per_split(pos) * PAGE);
#endif

    for (var n = i; n < FOURS * 4u * quads; n += WORKGROUP) {
        var q = vec4<f32>(0.0);
        if n < heads * quads { q = query[(t * params.heads + head_at) * quads + n]; }
        q_part[n] = q;
    }
    workgroupBarrier();

    // Scores: position and its lane. Values: vec4 of the vector and slice of the positions.
    let own_s = i / 4u;
    let own_lane = i % 4u;
    let d = i % quads;
    let slice = i / quads;
    let slices = WORKGROUP / quads;
#for f fours
    var high$f = vec4<f32>(LOW);
    var sum$f = vec4<f32>(0.0);
#for h 4
    var acc$f_$h = vec4<f32>(0.0);
#end
#end

    for (var tile = start; tile < end; tile += PAGE) {
        let key_at = cache_row(seq, tile, 0u, kv_head);
        let value_at = cache_row(seq, tile, 1u, kv_head);
        let count = min(PAGE, end - tile);
        let skip = max(first, tile) - tile;

        let seen = own_s >= skip && own_s < count;
#for f fours
        var score$f = vec4<f32>(0.0);
#end
        if seen {
            for (var n = own_lane; n < quads; n += 4u) {
                let k = load_cached(key_at + own_s, n);
#for f fours
                score$f += vec4<f32>(dot(q_part[4u * $fu * quads + n], k), dot(q_part[(4u * $fu + 1u) * quads + n], k),
                    dot(q_part[(4u * $fu + 2u) * quads + n], k), dot(q_part[(4u * $fu + 3u) * quads + n], k));
#end
            }
        }
#for f fours
        scores[($fu * 4u + own_lane) * PAGE + own_s] = score$f;
#end
        workgroupBarrier();
        // The lanes of a position, added up in place of the first.
        if i < PAGE * FOURS {
            let s = i % PAGE;
            let at = i / PAGE * 4u * PAGE + s;
            let score = (scores[at] + scores[at + PAGE]) + (scores[at + 2u * PAGE] + scores[at + 3u * PAGE]);
            scores[at] = select(vec4<f32>(LOW), score * scale, s >= skip && s < count);
        }
        workgroupBarrier();
#for f fours
        {
            var high = high$f;
            for (var s = skip; s < count; s++) { high = max(high, scores[$fu * 4u * PAGE + s]); }
            let correction = exp(high$f - high);
            high$f = high;
            sum$f *= correction;
            acc$f_0 *= correction.x;
            acc$f_1 *= correction.y;
            acc$f_2 *= correction.z;
            acc$f_3 *= correction.w;
        }
#end
        for (var s = skip + slice; s < count && slice < slices; s += slices) {
            let v = load_cached(value_at + s, d);
#for f fours
            {
                let weight = exp(scores[$fu * 4u * PAGE + s] - high$f);
                sum$f += weight;
                acc$f_0 += weight.x * v;
                acc$f_1 += weight.y * v;
                acc$f_2 += weight.z * v;
                acc$f_3 += weight.w * v;
            }
#end
        }
        workgroupBarrier();
    }

    // Sums over the slices, four heads at a time.
#for f fours
    q_part[i] = acc$f_0;
    q_part[WORKGROUP + i] = acc$f_1;
    q_part[2u * WORKGROUP + i] = acc$f_2;
    q_part[3u * WORKGROUP + i] = acc$f_3;
    scores[i] = sum$f;
    workgroupBarrier();
    for (var n = i; n < 4u * quads; n += WORKGROUP) {
        let h = n / quads;
        let at = n % quads;
        var value = vec4<f32>(0.0);
        var sum = vec4<f32>(0.0);
        for (var g = 0u; g < slices; g++) {
            value += q_part[h * WORKGROUP + g * quads + at];
            sum += scores[g * quads];
        }
        if 4u * $fu + h < heads {
            write(t, head_at + 4u * $fu + h, group.x / (params.kv_heads * params.parts), at, value, high$f[h], sum[h]);
        }
    }
    workgroupBarrier();
#end
}

fn write(t: u32, head: u32, split: u32, quad: u32, value: vec4<f32>, high: f32, sum: f32) {
#ifdef SPLIT
    let at = ((t * params.heads + head) * MAX_SPLITS + split) * (params.head_quads + 1u);
    output[at + quad] = value;
    if quad == 0u { output[at + params.head_quads] = vec4<f32>(high, sum, 0.0, 0.0); }
#else
    let a = value / sum;
    let d = quad * 4u;
    let at = t * params.out_stride + head * params.head_dim + d;
    output[at] = a.x;
    if d + 1u < params.head_dim { output[at + 1u] = a.y; }
    if d + 2u < params.head_dim { output[at + 2u] = a.z; }
    if d + 3u < params.head_dim { output[at + 3u] = a.w; }
#endif
}
