// IQ4_NL: nibbles as Q4_0, which pick uneven levels; scale f16, two blocks a u32. weight = level d.
#import shared/levels_iq4
#import shared/level_block

fn load_block(row: u32, b: u32) -> Block {
    let d = half_of(scales[row * params.matrix.scale_stride + b / 2u], b);
    return level_block(weights[row * params.matrix.blocks + b], d);
}
