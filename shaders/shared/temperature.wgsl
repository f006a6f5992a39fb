// How much sharper attention is far from the start (plan: Temperature).
fn scale_at(pos: u32) -> f32 {
    if params.temperature == 0.0 { return params.scale; }
    return params.scale * (1.0 + params.temperature * log(1.0 + floor(f32(pos + 1u) / params.temperature_floor)));
}
