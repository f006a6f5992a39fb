// A weight matrix in planes (host: quant/planes.rs): `weights` holds the quants in 16-byte words, `scales` what
// belongs to each block; after the scales, at `params.bias_at`, the bias (0: none).

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;  // [rows, blocks, QUANT_WORDS]
@group(0) @binding(2) var<storage, read> scales: array<u32>;         // [rows, scale_stride] then bias [rows]

fn bias_of(row: u32) -> f32 {
    return select(0.0, bitcast<f32>(scales[params.bias_at + row]), params.bias_at != 0u);
}
