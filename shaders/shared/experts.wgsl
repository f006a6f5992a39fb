// Which experts each row uses, and how much (host: gpu/state.rs): from `params.routes_at` on in `state`, for row t and
// slot s the two words expert and weight (f32). This part of the stacked matrices holds `params.experts` of them, from
// `params.first_expert` on.

fn route_at(t: u32, s: u32) -> u32 { return params.routes_at + (t * params.used + s) * 2u; }

// Counted in this part; not below `params.experts` for an expert of another part.
fn expert_of(t: u32, s: u32) -> u32 { return state[route_at(t, s)] - params.first_expert; }

fn expert_weight(t: u32, s: u32) -> f32 { return bitcast<f32>(state[route_at(t, s) + 1u]); }
