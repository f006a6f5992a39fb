// Softmax of each part of a row: scores of a head, or a router's logits. Values of LOW are positions that are not seen.
//
// One workgroup of 64 per part and row. Dispatch: [parts, T]

#import shared/low

struct Params {
    width: u32,         // values per part
    stride: u32,        // of both
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [T, stride], of these parts * width
@group(0) @binding(2) var<storage, read_write> output: array<f32>;    // [T, stride]

var<workgroup> of_lane: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = group.y * params.stride + group.x * params.width;
    var most = LOW;
    for (var n = i; n < params.width; n += 64u) { most = max(most, x[at + n]); }
    of_lane[i] = most;
    workgroupBarrier();
    for (var l = 0u; l < 64u; l++) { most = max(most, of_lane[l]); }
    workgroupBarrier();
    var total = 0.0;
    for (var n = i; n < params.width; n += 64u) {
        if x[at + n] > LOW { total += exp(x[at + n] - most); }
    }
    of_lane[i] = total;
    workgroupBarrier();
    total = 0.0;
    for (var l = 0u; l < 64u; l++) { total += of_lane[l]; }
    for (var n = i; n < params.width; n += 64u) {
        var share = 0.0;
        if x[at + n] > LOW { share = exp(x[at + n] - most) / total; }
        output[at + n] = share;
    }
}
