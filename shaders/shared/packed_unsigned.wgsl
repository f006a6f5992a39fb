// Four unsigned quants of a word against four int8 activations.
#import shared/packed

fn load_block(row: u32, b: u32) -> Block {
    let p = load_packed(row, b);
    return Block(
        bytes_of(p.lo.x), bytes_of(p.lo.y), bytes_of(p.lo.z), bytes_of(p.lo.w),
        bytes_of(p.hi.x), bytes_of(p.hi.y), bytes_of(p.hi.z), bytes_of(p.hi.w), p.d, p.m);
}
