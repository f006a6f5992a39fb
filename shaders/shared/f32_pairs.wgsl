// Two adjacent values of a cached vector, as f32.
alias CacheWord = f32;

fn load_pair(at: u32) -> vec2<f32> { return vec2<f32>(cache[at], cache[at + 1u]); }

fn store_pair(at: u32, v: vec2<f32>) {
    cache[at] = v.x;
    cache[at + 1u] = v.y;
}
