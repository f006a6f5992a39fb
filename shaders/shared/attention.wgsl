// What the attention kernels are told.
struct AttentionParams {
    rows_at: u32,
    pages_at: u32,
    pages_per_seq: u32,
    kv_heads: u32,
    group: u32,          // query heads per key/value head
    part_heads: u32,     // query heads per workgroup
    parts: u32,          // workgroups per group
    head_dim: u32,       // D
    head_quads: u32,     // D rounded up to 4, over 4
    heads: u32,          // H
    out_stride: u32,
    scale: f32,
    window: u32,         // positions seen, 0: all
    chunk: u32,          // chunk length, 0: none
    temperature: f32,    // growth of the scale with position, 0: none
    temperature_floor: f32,
    tile_tokens: u32,    // attention_tile: rows of the step per tile
    keys: u32,           // attention_tile: keys per tile, a divisor of PAGE
}
