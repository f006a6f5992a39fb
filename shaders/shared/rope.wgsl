// Rotary position embedding. `rope` holds (cos, sin) of pos % ROPE_LOW, [ROPE_LOW, rope_pairs], and from
// `params.rope_high` on, of ROPE_LOW (pos / ROPE_LOW). The importing kernel binds it.
const ROPE_LOW: u32 = 256u;

// Pair `pair` of a head at position `pos`. Angle addition keeps the precision that cos of a large angle would lose.
fn rotate(v: vec2<f32>, pos: u32, pair: u32) -> vec2<f32> {
    if pair >= params.rope_pairs { return v; }
    let low = rope[(pos % ROPE_LOW) * params.rope_pairs + pair];
    let high = rope[params.rope_high + (pos / ROPE_LOW) * params.rope_pairs + pair];
    let c = high.x * low.x - high.y * low.y;
    let s = high.y * low.x + high.x * low.y;
    return vec2<f32>(v.x * c - v.y * s, v.x * s + v.y * c);
}
