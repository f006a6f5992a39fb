// Attention for many rows (prompts): tiles of queries by tiles of keys, all in workgroup memory (Dao et al. 2022).
//
// One workgroup of 64 per (tile of rows, key/value head, part of its group). A tile has up to 16 queries: `tile_tokens`
// rows of the step, `part_heads` heads of each; `keys` keys, a part of a page. Rows of different sequences may share a
// tile: each run of one sequence is gone through by itself. Key tiles that no row of the run sees are not visited.
// Dispatch: [kv_heads * parts, T / tile_tokens]

#import shared/state
#import shared/pages
#import @kv
#import shared/visible
#import shared/temperature
#import shared/attention
#import shared/low

@group(0) @binding(0) var<uniform> params: AttentionParams;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;       // [T, H, head_quads]
@group(0) @binding(4) var<storage, read_write> output: array<f32>;      // [T, out_stride], of these H D

const WORKGROUP: u32 = 64u;
const MAX_QUERIES: u32 = 16u;
const QUERY_QUADS: u32 = 256u;   // vec4s of the tile of queries
const KEY_QUADS: u32 = 544u;     // vec4s of the tile of keys or values

var<workgroup> q_tile: array<vec4<f32>, QUERY_QUADS>;    // [queries, head_quads]
var<workgroup> kv_tile: array<vec4<f32>, KEY_QUADS>;     // [keys, head_quads + 1]: the odd stride spreads keys over banks
var<workgroup> scores: array<f32, 512>;            // [queries, keys]
var<workgroup> maxima: array<f32, 16>;
var<workgroup> sums: array<f32, 16>;
var<workgroup> corrections: array<f32, 16>;

// Keys (0) or values (1) of the positions from `tile` on.
fn fetch(vector: u32, count: u32, i: u32) {
    let quads = params.head_quads;
    for (var n = i; n < params.keys * quads; n += WORKGROUP) {
        let s = n / quads;
        var v = vec4<f32>(0.0);
        if s < count { v = load_cached(vector + s, n % quads); }
        kv_tile[s * (quads + 1u) + n % quads] = v;
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let first_token = group.y * params.tile_tokens;
    let last_token = min(first_token + params.tile_tokens, row_count());
    let kv_head = group.x / params.parts;
    let first_head = (group.x % params.parts) * params.part_heads;
    let heads = min(params.part_heads, params.group - first_head);
    let head_at = kv_head * params.group + first_head;
    let queries = (last_token - first_token) * heads;
    let quads = params.head_quads;
    let keys = params.keys;

    // Query r is head r % heads of token r / heads; up to a multiple of 4 there are some of zeros.
    let padded = (queries + 3u) / 4u * 4u;
    for (var n = i; n < padded * quads; n += WORKGROUP) {
        let r = n / quads;
        var q = vec4<f32>(0.0);
        if r < queries {
            let t = first_token + r / heads;
            q = query[(t * params.heads + head_at + r % heads) * quads + n % quads] * scale_at(row_pos(t));
        }
        q_tile[n] = q;
    }
    if i < MAX_QUERIES {
        maxima[i] = LOW;
        sums[i] = 0.0;
        corrections[i] = 1.0;
    }
    workgroupBarrier();

    // Values: four queries and one vec4 of the vector.
    let own_r = i / quads * 4u;
    let d = i % quads;
    let has_values = own_r < padded;
#for h 4
    var acc$h = vec4<f32>(0.0);
#end

    var run = first_token;
    while run < last_token {
        let seq = row_seq(run);
        var run_end = run;
        var first = 0xffffffffu;
        var last = 0u;
        while run_end < last_token && row_seq(run_end) == seq {
            first = min(first, first_visible(row_pos(run_end)));
            last = max(last, row_pos(run_end));
            run_end++;
        }
        for (var tile = first / keys * keys; tile <= last; tile += keys) {
            let count = min(keys, last + 1u - tile);
            fetch(cache_row(seq, tile, 0u, kv_head), count, i);
            workgroupBarrier();
            // Scores, two queries by one key at a time.
            for (var n = i; n < padded / 2u * keys; n += WORKGROUP) {
                let r = n / keys * 2u;
                let s = n % keys;
                var score = vec2<f32>(0.0);
                for (var k = 0u; k < quads; k++) {
                    let key = kv_tile[s * (quads + 1u) + k];
                    score += vec2<f32>(dot(q_tile[r * quads + k], key), dot(q_tile[(r + 1u) * quads + k], key));
                }
                scores[r * keys + s] = masked(score.x, r, heads, first_token, run, run_end, tile + s);
                scores[(r + 1u) * keys + s] = masked(score.y, r + 1u, heads, first_token, run, run_end, tile + s);
            }
            workgroupBarrier();
            fetch(cache_row(seq, tile, 1u, kv_head), count, i);
            if i < padded {
                var high = maxima[i];
                for (var s = 0u; s < keys; s++) { high = max(high, scores[i * keys + s]); }
                let correction = exp(maxima[i] - high);
                var sum = sums[i] * correction;
                for (var s = 0u; s < keys; s++) {
                    var weight = 0.0;
                    if scores[i * keys + s] > LOW { weight = exp(scores[i * keys + s] - high); }
                    scores[i * keys + s] = weight;
                    sum += weight;
                }
                maxima[i] = high;
                sums[i] = sum;
                corrections[i] = correction;
            }
            workgroupBarrier();
            if has_values {
#for h 4
                acc$h *= corrections[own_r + $hu];
#end
                for (var s = 0u; s < count; s++) {
                    let v = kv_tile[s * (quads + 1u) + d];
#for h 4
                    acc$h += scores[(own_r + $hu) * keys + s] * v;
#end
                }
            }
            workgroupBarrier();
        }
        run = run_end;
    }

    if has_values {
#for h 4
        write(own_r + $hu, queries, heads, head_at, first_token, d * 4u, acc$h);
#end
    }
}

// LOW where the query's row is of another run or does not see the position.
fn masked(score: f32, r: u32, heads: u32, first_token: u32, run: u32, run_end: u32, pos: u32) -> f32 {
    let t = first_token + r / heads;
    if t < run || t >= run_end { return LOW; }
    let own = row_pos(t);
    return select(LOW, score, pos <= own && pos >= first_visible(own));
}

fn write(r: u32, queries: u32, heads: u32, head_at: u32, first_token: u32, d: u32, value: vec4<f32>) {
    if r >= queries { return; }
    let a = value / sums[r];
    let at = (first_token + r / heads) * params.out_stride + (head_at + r % heads) * params.head_dim + d;
    output[at] = a.x;
    if d + 1u < params.head_dim { output[at + 1u] = a.y; }
    if d + 2u < params.head_dim { output[at + 2u] = a.z; }
    if d + 3u < params.head_dim { output[at + 3u] = a.w; }
}
