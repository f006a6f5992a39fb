// The input is x g (the residual stream times the norm weight); its producer left partial sums of x^2 in `partials`.
// RMSNorm's scale r = 1 / sqrt(mean(x^2) + eps) is applied to the product (W (r x g) = r W (x g)).

struct NormParams {
    partials: u32,         // partial sums per row; 0: the input is used as it is
    partial_stride: u32,
    inv_hidden: f32,       // 1 / E
    eps: f32,
}

@group(0) @binding(5) var<storage, read> partials: array<f32>;       // [T, partial_stride], of these `partials`

fn norm_partials() -> u32 { return params.norm.partials; }
fn norm_partial(t: u32, p: u32) -> f32 { return partials[input_row(t) * params.norm.partial_stride + p]; }
fn norm_scale(squares: f32) -> f32 { return inverseSqrt(squares * params.norm.inv_hidden + params.norm.eps); }
