// A quad is four adjacent rows of W. Beyond the last row, the last one again.
fn quad_rows(quad: u32) -> vec4<u32> {
    return min(vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.matrix.rows - 1u));
}
