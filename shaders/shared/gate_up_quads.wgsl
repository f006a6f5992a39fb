// W holds `rows` rows of the gate, then as many of up. A quad is two rows of each, so that one invocation has both.
#import shared/silu

fn quad_rows(quad: u32) -> vec4<u32> {
    let a = min(quad * 2u, params.matrix.rows - 1u);
    let b = min(quad * 2u + 1u, params.matrix.rows - 1u);
    return vec4<u32>(a, b, params.matrix.rows + a, params.matrix.rows + b);
}
