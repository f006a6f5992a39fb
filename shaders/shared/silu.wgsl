// The activation of LLaMA's feed-forward half.
fn silu(v: f32) -> f32 { return v / (1.0 + exp(-v)); }
