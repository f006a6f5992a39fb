// The (row, slot) pairs of a step, sorted by expert, and cut into tiles of one expert: what the grouped
// products go through, so that an expert's weights are read once per tile and not once per row.
//
// One workgroup. Dispatch: [1, 1]

#import shared/state
#import shared/expert_tiles

struct Params {
    rows_at: u32,
    routes_at: u32,
    groups_at: u32,      // of the pairs; tiles follow, see grouped.wgsl
    used: u32,
    experts: u32,        // X
    max_pairs: u32,      // room for pairs
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> state: array<u32>;

const WORKGROUP: u32 = 256u;

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> next: array<atomic<u32>, 256>;
var<workgroup> tiles: u32;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let pairs = row_count() * params.used;
    atomicStore(&counts[i], 0u);
    workgroupBarrier();
    for (var p = i; p < pairs; p += WORKGROUP) { atomicAdd(&counts[state[params.routes_at + 2u * p]], 1u); }
    workgroupBarrier();
    let tiles_at = params.groups_at + params.max_pairs;
    if i == 0u {
        var first = 0u;
        var tile = 0u;
        for (var e = 0u; e < params.experts; e++) {
            let end = first + atomicLoad(&counts[e]);
            atomicStore(&next[e], first);
            for (var at = first; at < end; at += EXPERT_TILE) {
                state[tiles_at + TILE_WORDS * tile] = e;
                state[tiles_at + TILE_WORDS * tile + 1u] = at;
                state[tiles_at + TILE_WORDS * tile + 2u] = min(at + EXPERT_TILE, end);
                tile++;
            }
            first = end;
        }
        tiles = tile;
    }
    workgroupBarrier();
    // As many tiles as are dispatched.
    for (var tile = tiles + i; tile < (pairs + EXPERT_TILE - 1u) / EXPERT_TILE + params.experts; tile += WORKGROUP) {
        state[tiles_at + TILE_WORDS * tile] = NO_EXPERT;
    }
    for (var p = i; p < pairs; p += WORKGROUP) {
        let at = atomicAdd(&next[state[params.routes_at + 2u * p]], 1u);
        state[params.groups_at + at] = p;
    }
}
