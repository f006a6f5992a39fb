// What the workgroups of a split attention found, put together: a = sum of e^(m - M) v over sum of e^(m - M) l.
//
// One workgroup of 64 per row and head. Dispatch: [H, T]

#import shared/state
#import shared/visible
#import shared/splits

struct Params {
    rows_at: u32,
    heads: u32,          // H
    head_dim: u32,       // D
    head_quads: u32,
    out_stride: u32,
    window: u32,
    chunk: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read> partial: array<vec4<f32>>;     // [T, H, MAX_SPLITS, head_quads + 1]
@group(0) @binding(3) var<storage, read_write> output: array<f32>;      // [T, out_stride]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.y;
    let head = group.x;
    let pos = row_pos(t);
    let pages = pos / PAGE - first_visible(pos) / PAGE + 1u;
    let splits = (pages + pages_per_split(pos) - 1u) / pages_per_split(pos);
    let stride = params.head_quads + 1u;
    let start = (t * params.heads + head) * MAX_SPLITS * stride;

    var high = partial[start + params.head_quads].x;
    for (var s = 1u; s < splits; s++) { high = max(high, partial[start + s * stride + params.head_quads].x); }
    for (var quad = i; quad < params.head_quads; quad += 64u) {
        var value = vec4<f32>(0.0);
        var sum = 0.0;
        for (var s = 0u; s < splits; s++) {
            let part = partial[start + s * stride + params.head_quads];
            let weight = exp(part.x - high);
            value += weight * partial[start + s * stride + quad];
            sum += weight * part.y;
        }
        let a = value / sum;
        let d = quad * 4u;
        let at = t * params.out_stride + head * params.head_dim + d;
        output[at] = a.x;
        if d + 1u < params.head_dim { output[at + 1u] = a.y; }
        if d + 2u < params.head_dim { output[at + 2u] = a.z; }
        if d + 3u < params.head_dim { output[at + 3u] = a.w; }
    }
}
