// Pairs of (row, slot) sorted by expert, as moe_group left them in `state`; "t" here counts in that order.
#import shared/expert_tiles

// Expert (counted in this part; of another part: not below `params.experts`), first pair, end.
fn expert_tile(tile: u32) -> vec3<u32> {
    let at = params.groups_at + params.max_pairs + TILE_WORDS * tile;
    let expert = state[at];
    if expert == NO_EXPERT { return vec3<u32>(expert, 0u, 0u); }
    return vec3<u32>(expert - params.first_expert, state[at + 1u], state[at + 2u]);
}

fn pair_at(t: u32) -> u32 { return state[params.groups_at + t]; }

fn pair_weight(pair: u32) -> f32 {
    if params.weigh == 0u { return 1.0; }
    return bitcast<f32>(state[params.routes_at + 2u * pair + 1u]);
}
