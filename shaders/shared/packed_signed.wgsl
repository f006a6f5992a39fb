// Four int8 weights of a word against four int8 activations.
#import shared/packed

fn load_block(row: u32, b: u32) -> Block {
    let p = load_packed(row, b);
    return Block(
        signed_bytes_of(p.lo.x), signed_bytes_of(p.lo.y), signed_bytes_of(p.lo.z), signed_bytes_of(p.lo.w),
        signed_bytes_of(p.hi.x), signed_bytes_of(p.hi.y), signed_bytes_of(p.hi.z), signed_bytes_of(p.hi.w), p.d, p.m);
}
