// Which cached positions a row sees, and how its scores are scaled (attention's parameters).

fn first_visible(pos: u32) -> u32 {
    if params.window != 0u && pos + 1u > params.window { return pos + 1u - params.window; }
    if params.chunk != 0u { return pos - pos % params.chunk; }
    return 0u;
}
