// A weight matrix in planes (host: quant/planes.rs): `weights` holds the quants in 16-byte words, `scales` what
// belongs to each block; after the scales, at `bias_at`, the bias (0: none).

struct MatrixParams {
    rows: u32,           // rows of W that this dispatch has; gate_up: of each half
    blocks: u32,         // blocks of 32 per row
    scale_stride: u32,   // u32 of scales per row
    bias_at: u32,        // u32 index of the bias in `scales`; 0: no bias
}

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;  // [rows, blocks, QUANT_WORDS]
#ifdef WIDE_SCALES
@group(0) @binding(2) var<storage, read> scales: array<vec4<u32>>;   // [rows, scale_stride / 4] then bias [rows]

fn scale_word(at: u32) -> u32 { return scales[at / 4u][at % 4u]; }
#else
@group(0) @binding(2) var<storage, read> scales: array<u32>;         // [rows, scale_stride] then bias [rows]

fn scale_word(at: u32) -> u32 { return scales[at]; }
#endif

fn bias_of(row: u32) -> f32 {
    return select(0.0, bitcast<f32>(scale_word(params.matrix.bias_at + row)), params.matrix.bias_at != 0u);
}

// One of the two f16 in a word: the first for even i.
fn half_of(word: u32, i: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (i & 1u) != 0u);
}
