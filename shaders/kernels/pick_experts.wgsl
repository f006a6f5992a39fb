// The experts of largest weight of each row, best first (of equal ones the first); after a softmax their weights are made
// to sum to 1.
//
// One invocation per row. Dispatch: [1, T]

struct Params {
    experts: u32,       // X
    used: u32,
    stride: u32,
    routes_at: u32,
    normalise: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;         // [T, stride]
@group(0) @binding(2) var<storage, read_write> state: array<u32>;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let t = group.y;
    let at = params.routes_at + t * params.used * 2u;
    var total = 0.0;
    for (var s = 0u; s < params.used; s++) {
        var best = 0u;
        var high = -1.0e30;
        for (var e = 0u; e < params.experts; e++) {
            var taken = false;
            for (var p = 0u; p < s; p++) { taken = taken || state[at + p * 2u] == e; }
            let weight = weights[t * params.stride + e];
            if !taken && weight > high {
                high = weight;
                best = e;
            }
        }
        total += high;
        state[at + s * 2u] = best;
        state[at + s * 2u + 1u] = bitcast<u32>(high);
    }
    if params.normalise == 0u { return; }
    for (var s = 0u; s < params.used; s++) {
        state[at + s * 2u + 1u] = bitcast<u32>(bitcast<f32>(state[at + s * 2u + 1u]) / total);
    }
}
