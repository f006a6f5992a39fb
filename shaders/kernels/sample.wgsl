// Logits to a token id, as plan::Sampling defines it; writes the id and, where the next decode step runs it, its row there.
//
// One workgroup per head. Instead of sorting the vocabulary: the smallest kept logit is found by radix selection on
// an order-preserving integer key (4 passes of 8 bits; by count for top_k, by probability mass in units of 2^-30 for
// top_p), then the draw is an argmax over the kept logits plus noise that depends on (seed, position, id) alone.
// Adjustments (biases, penalties, the mask) are made in place, by the very invocation that reads a logit later.
// Dispatch: [1, heads that draw]

#import shared/state

struct Params {
    vocab: u32,
    logits_stride: u32,
    rows_at: u32,
    next_at: u32,        // region of the rows that the next decode step runs
    mask_at: u32,        // in a sequence's adjustments, which begin with the counts
    biases_at: u32,
    adjustments_stride: u32,
}

struct Sampling {        // host: gpu/state.rs
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    seed: vec2<u32>,
    biases: u32,         // entries of the list of biases
    flags: u32,          // COUNTED | MASKED
    repetition: f32,
    inverse_repetition: f32,
    presence: f32,
    frequency: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;       // [heads, logits_stride]
@group(0) @binding(2) var<storage, read> sampling: array<Sampling>;      // [sequences]
@group(0) @binding(3) var<storage, read_write> state: array<u32>;
@group(0) @binding(4) var<storage, read_write> ids: array<u32>;          // [heads]
// [sequences, adjustments_stride]: counts [vocab], mask [ceil(vocab / 32)], biases [, 2] of id and f32
@group(0) @binding(5) var<storage, read_write> adjustments: array<u32>;

const WORKGROUP: u32 = 256u;
const REFUSED: f32 = -3.4e38;    // what the mask makes of a logit
const COUNTED: u32 = 1u;
const MASKED: u32 = 2u;
const PROMPT: u32 = 0x80000000u; // of a count: the prompt has the token; the other bits: how often it was drawn

var<workgroup> best_value: array<f32, 256>;
var<workgroup> best_id: array<u32, 256>;
var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> prefix: u32;      // key bits decided so far
var<workgroup> target_left: u32; // count or mass still to be found
var<workgroup> own_seq: u32;

fn ordered_key(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// pcg4d (Jarzynski & Olano 2020).
fn pcg4d(a: vec4<u32>) -> u32 {
    var v = a * 1664525u + 1013904223u;
    for (var n = 0u; n < 2u; n++) {
        v.x += v.y * v.w;
        v.y += v.z * v.x;
        v.z += v.x * v.y;
        v.w += v.y * v.z;
        v ^= v >> vec4<u32>(16u);
    }
    return v.x;
}

fn exponential(seed: vec2<u32>, pos: u32, id: u32) -> f32 {
    let u = min((f32(pcg4d(vec4<u32>(seed, pos, id))) + 0.5) * (1.0 / 4294967296.0), 1.0 - 1.0 / 16777216.0);
    if u < 0.015625 { return u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * 0.25))); }
    return -log(1.0 - u);
}

// A logit after penalties and mask.
fn adjusted(logit: f32, n: u32, base: u32, settings: Sampling) -> f32 {
    var v = logit;
    if (settings.flags & COUNTED) != 0u {
        let count = adjustments[base + n];
        if count != 0u {
            v *= select(settings.repetition, settings.inverse_repetition, v > 0.0);
            let drawn = count & ~PROMPT;
            if drawn > 0u { v -= settings.frequency * f32(drawn) + settings.presence; }
        }
    }
    if (settings.flags & MASKED) != 0u && ((adjustments[base + params.mask_at + n / 32u] >> (n % 32u)) & 1u) == 0u {
        v = REFUSED;
    }
    return v;
}

// Largest value and its id over the workgroup, the lowest id among equals; in slot 0 for all to read.
fn reduce_best(i: u32, value: f32, id: u32) {
    best_value[i] = value;
    best_id[i] = id;
    workgroupBarrier();
    for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
        if i < step {
            let other = best_value[i + step];
            if other > best_value[i] || (other == best_value[i] && best_id[i + step] < best_id[i]) {
                best_value[i] = other;
                best_id[i] = best_id[i + step];
            }
        }
        workgroupBarrier();
    }
}

fn reduce_sum(i: u32, value: f32) -> f32 {
    best_value[i] = value;
    workgroupBarrier();
    for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
        if i < step { best_value[i] += best_value[i + step]; }
        workgroupBarrier();
    }
    let sum = best_value[0];
    workgroupBarrier();
    return sum;
}

// The largest key k such that at least `wanted` (a count, or mass in units of 1 / mass_scale) lies at keys >= k, among
// keys >= least. mass_scale 0: count.
fn select_key(i: u32, at: u32, wanted: u32, least: u32, high: f32, inv_t: f32, mass_scale: f32) -> u32 {
    if i == 0u {
        prefix = 0u;
        target_left = wanted;
    }
    for (var pass_index = 0u; pass_index < 4u; pass_index++) {
        let shift = 24u - 8u * pass_index;
        atomicStore(&histogram[i], 0u);
        workgroupBarrier();
        let decided = prefix;
        for (var n = i; n < params.vocab; n += WORKGROUP) {
            let v = logits[at + n];
            let key = ordered_key(v);
            let matches = pass_index == 0u || (key >> (shift + 8u)) == decided;
            if matches && key >= least {
                var weight = 1u;
                if mass_scale > 0.0 { weight = u32(exp((v - high) * inv_t) * mass_scale); }
                atomicAdd(&histogram[(key >> shift) & 255u], weight);
            }
        }
        workgroupBarrier();
        if i == 0u {
            var left = target_left;
            var digit = 255u;
            loop {
                let here = atomicLoad(&histogram[digit]);
                if here >= left || digit == 0u { break; }
                left -= here;
                digit -= 1u;
            }
            prefix = (decided << 8u) | digit;
            target_left = left;
        }
        workgroupBarrier();
    }
    let key = prefix;
    workgroupBarrier();
    return key;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let head = group.y;
    let at = head * params.logits_stride;
    if i == 0u { own_seq = row_seq(head_row(head)); }
    let seq = workgroupUniformLoad(&own_seq);
    let settings = sampling[seq];
    let pos = row_pos(head_row(head));
    let base = seq * params.adjustments_stride;

    if settings.biases > 0u {
        for (var k = i; k < settings.biases; k += WORKGROUP) {
            let entry = base + params.biases_at + 2u * k;
            logits[at + adjustments[entry]] += bitcast<f32>(adjustments[entry + 1u]);
        }
        storageBarrier();
    }
    var value = REFUSED;
    var id = 0u;
    for (var n = i; n < params.vocab; n += WORKGROUP) {
        var v = logits[at + n];
        if settings.flags != 0u {
            v = adjusted(v, n, base, settings);
            logits[at + n] = v;
        }
        if v > value {
            value = v;
            id = n;
        }
    }
    reduce_best(i, value, id);

    if settings.temperature > 0.0 {
        let high = best_value[0];
        let inv_t = 1.0 / settings.temperature;
        workgroupBarrier();
        var least = 0u;
        if settings.top_k > 0u && settings.top_k < params.vocab {
            least = select_key(i, at, settings.top_k, 0u, high, inv_t, 0.0);
        }
        if settings.top_p < 1.0 {
            var mass = 0.0;
            for (var n = i; n < params.vocab; n += WORKGROUP) {
                let v = logits[at + n];
                if ordered_key(v) >= least { mass += exp((v - high) * inv_t); }
            }
            let mass_scale = 1073741824.0 / reduce_sum(i, mass);
            let wanted = max(1u, u32(settings.top_p * 1073741824.0));
            least = max(least, select_key(i, at, wanted, least, high, inv_t, mass_scale));
        }
        value = REFUSED;
        id = 0u;
        for (var n = i; n < params.vocab; n += WORKGROUP) {
            let v = logits[at + n];
            let scaled = (v - high) * inv_t;
            if v > REFUSED && ordered_key(v) >= least && exp(scaled) >= settings.min_p {
                let score = scaled - log(exponential(settings.seed, pos, n));
                if score > value {
                    value = score;
                    id = n;
                }
            }
        }
        reduce_best(i, value, id);
    }

    if i == 0u {
        let token = best_id[0];
        ids[head] = token;
        if (settings.flags & COUNTED) != 0u { adjustments[base + token] += 1u; }
        // Heads whose tokens the host runs leave the next step's rows alone.
        let count = next_count();
        if head < count {
            state[params.next_at] = count;
            state[params.next_at + 1u] = count;
            state[params.next_at + 2u] = count;
            let next = params.next_at + ROW_WORDS + head * ROW_WORDS;
            state[next] = token;
            state[next + 1u] = seq;
            state[next + 2u] = pos + 1u;
            state[next + 3u] = head;
        }
    }
}
