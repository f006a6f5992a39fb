// Tiles of the grouped products: up to EXPERT_TILE pairs of (row, slot) that use the same expert. `moe_group` writes
// them, the `grouped_` products read them.
const EXPERT_TILE: u32 = 32u;
const TILE_WORDS: u32 = 3u;             // expert, first pair, end
const NO_EXPERT: u32 = 0xffffffffu;     // of a tile that is not used
