//! What the files of weight types share: the description of a type, numbers in bytes, and ways to round.

pub(super) use super::int8::{Int8Groups, Products, each_product};

/// Appends the blocks of values.
pub(crate) type Quantize = fn(&[f32], &mut Vec<u8>);

/// A weight type: its block, and what is done with one.
pub(crate) struct WeightType {
    /// ggml's name, such as `Q4_K`.
    pub name: &'static str,
    /// Number in a GGUF file (`enum ggml_type` of `ggml.h`).
    pub ggml_id: u32,
    /// Weights per block.
    pub block_len: usize,
    /// Bytes per block (the `block_*` structs of `ggml-common.h`).
    pub block_bytes: usize,
    /// Whole blocks to exact values.
    pub dequantize: fn(&[u8], &mut [f32]),
    /// Whole blocks to small integers with a scale per 16, for types whose planes are `int8`.
    pub int8: Option<fn(&[u8], &mut Int8Groups)>,
    /// Values, a whole number of blocks, to blocks as ggml's reference code rounds. `None`: rounding needs a search.
    pub quantize: Option<Quantize>,
    /// Makes a block of random bytes one whose weights are about as large as `scale`, where nothing quantises.
    pub sample: fn(block: &mut [u8], scale: f32),
    /// Layout on a GPU.
    pub planes: Planes,
}

/// How a type lies on a GPU; see [`planes`](super::planes).
pub(crate) struct Planes {
    /// Which `shaders/weights/*.wgsl` reads it.
    pub format: &'static str,
    /// Bytes of quants per 32 weights.
    pub block_bytes: u64,
    /// u32 of scales in a row of this many blocks of 32 weights.
    pub scale_words: fn(blocks: u64) -> u64,
    /// Splits a stored row into zeroed quants and scales.
    pub split: fn(row: &[u8], quants: &mut [u8], scales: &mut [u8]),
}

impl WeightType {
    /// A type without a shader of its own.
    pub const fn with_int8(
        name: &'static str,
        ggml_id: u32,
        (block_len, block_bytes): (usize, usize),
        dequantize: fn(&[u8], &mut [f32]),
        int8: fn(&[u8], &mut Int8Groups),
        sample: fn(&mut [u8], f32),
    ) -> Self {
        Self {
            name,
            ggml_id,
            block_len,
            block_bytes,
            dequantize,
            int8: Some(int8),
            quantize: None,
            sample,
            planes: Planes {
                format: "int8",
                block_bytes: 32,
                scale_words: |blocks| 2 * blocks,
                // `PlaneLayout` splits what `int8` gives.
                split: |_, _, _| {},
            },
        }
    }
}

/// For types that quantise: their samples are quantised values.
pub(super) fn no_sample(_: &mut [u8], _: f32) {}

/// Runs `block` over blocks of `BYTES` bytes and `LEN` weights.
pub(super) fn each_block<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (rows, _) = out.as_chunks_mut::<LEN>();
    for (bytes, out) in blocks.iter().zip(rows) {
        block(bytes, out);
    }
}

/// Calls `split(index, block, its quants)` for each block of `BYTES` bytes of a stored row.
pub(super) fn each_split<const BYTES: usize>(
    row: &[u8],
    quants: &mut [u8],
    mut split: impl FnMut(usize, &[u8; BYTES], &mut [u8]),
) {
    let (blocks, _) = row.as_chunks::<BYTES>();
    let bytes = (quants.len() / blocks.len().max(1)).max(1);
    for (i, (block, quants)) in blocks
        .iter()
        .zip(quants.chunks_exact_mut(bytes))
        .enumerate()
    {
        split(i, block, quants);
    }
}

/// Copies `bytes` to `out[at..]`.
pub(super) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Sets the f16 at `block[at..]`.
pub(super) fn put_f16(block: &mut [u8], at: usize, value: f32) {
    put(block, at, &half::f16::from_f32(value).to_le_bytes());
}

/// The little-endian f16 at `bytes[at..at + 2]`, widened.
pub(super) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The little-endian u16 at `bytes[at..at + 2]`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian u32 at `bytes[at..at + 4]`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// 4-bit number `i`; the low nibble of a byte comes first.
pub(super) fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 2] >> (4 * (i % 2))) & 15
}

/// The 32 numbers of 4 bits in 16 bytes: the low nibbles, then the high ones.
pub(crate) fn split_nibbles(qs: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 })
}

/// The 32 numbers of 5 bits of `Q5_0` and `Q5_1`: nibbles, and bit `i` of `high` as the fifth of number `i`.
pub(crate) fn five_bits(qs: &[u8], high: &[u8]) -> [u8; 32] {
    let low = split_nibbles(qs);
    std::array::from_fn(|i| low[i] | ((high[i / 8] >> (i % 8)) & 1) << 4)
}

/// 2-bit number `i` of group `group` of a K type, whose groups of 32 share bytes four by four: group `4 half + part` lies
/// in bytes `32 half ..`, shifted by its part.
pub(crate) fn k_crumb(bytes: &[u8], group: usize, i: usize) -> u8 {
    (bytes[32 * (group / 4) + i] >> (2 * (group % 4))) & 3
}

/// 4-bit number `i` of group `group` of `Q4_K` and `Q5_K`, whose groups of 32 share bytes two by two.
pub(crate) fn k_nibble(bytes: &[u8], group: usize, i: usize) -> u8 {
    (bytes[32 * (group / 2) + i] >> (4 * (group % 2))) & 15
}

/// The 6-bit scale and minimum of group `group` of `Q4_K` and `Q5_K`, from their twelve bytes `packed`. The first four of
/// each are the low bits of bytes 0..4 and 4..8; the others have their low nibbles in bytes 8..12 and their upper bits on
/// top of the first ones.
pub(crate) fn k_scale_and_min(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[4 + group] & 63);
    }
    let low = packed[4 + group];
    (
        (low & 15) | (packed[group - 4] >> 6) << 4,
        (low >> 4) | (packed[group] >> 6) << 4,
    )
}

/// Dequantises a block of `Q4_K` or `Q5_K`: `d: f16, dmin: f16, scales: [u8; 12]`, and numbers that `q` gives by group
/// and index; weight = `d * scale * q - dmin * min`.
pub(super) fn k_block(block: &[u8], out: &mut [f32; 256], q: impl Fn(usize, usize) -> u8) {
    let (d, d_min) = (f16_at(block, 0), f16_at(block, 2));
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = k_scale_and_min(&block[4..16], group);
        let (scale, min) = (d * f32::from(scale), d_min * f32::from(min));
        for (i, value) in out.iter_mut().enumerate() {
            *value = scale * f32::from(q(group, i)) - min;
        }
    }
}

/// The scales of `Q4_K` and `Q5_K` in a plane: four u32 with `d` and `dmin`; low nibbles of the 8 scales; of the 8
/// minima; upper two bits of the scales, and above these of the minima.
pub(super) fn k_scale_words(block: &[u8]) -> [u8; 16] {
    let mut words = [0_u32; 3];
    for group in 0..8 {
        let (scale, min) = k_scale_and_min(&block[4..16], group);
        let (scale, min) = (u32::from(scale), u32::from(min));
        words[0] |= (scale & 15) << (4 * group);
        words[1] |= (min & 15) << (4 * group);
        words[2] |= scale >> 4 << (2 * group) | min >> 4 << (16 + 2 * group);
    }
    let mut out = [0; 16];
    out[..4].copy_from_slice(&block[..4]);
    for (bytes, word) in out[4..].chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// The 6-bit scale of sub-block `k` (16 weights) of `Q3_K`: low four bits in a nibble of the first eight bytes, the upper
/// two in the last four.
pub(crate) fn q3_k_scale(packed: &[u8], k: usize) -> u8 {
    let low = (packed[k % 8] >> (4 * (k / 8))) & 15;
    let upper = (packed[8 + k % 4] >> (2 * (k / 4))) & 3;
    low | upper << 4
}

/// The 6-bit number of weight `i` of group `group` of a `Q6_K` block.
pub(crate) fn q6_k_number(block: &[u8], group: usize, i: usize) -> u8 {
    let (half, part) = (group / 4, group % 4);
    let low = (block[64 * half + 32 * (part % 2) + i] >> (4 * (part / 2))) & 15;
    low | k_crumb(&block[128..192], group, i) << 4
}

/// The 6-bit scale of group `group` of an `IQ4_XS` block.
pub(crate) fn iq4_xs_scale(block: &[u8], group: usize) -> u8 {
    let upper = (u16_at(block, 2) >> (2 * group)) & 3;
    nibble(&block[4..8], group) | (upper as u8) << 4
}

/// The levels of `IQ4_NL` and `IQ4_XS` (`kvalues_iq4nl`), denser near zero where weights are.
pub(crate) const IQ4: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// All E2M1 floats (OCP Microscaling 1.0), doubled so that they are integers; scales are halved to match.
pub(crate) const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 weights whose numbers of 4 bits pick levels.
pub(super) fn level_block(qs: &[u8], levels: &[i8; 16], scale: f32, out: &mut [f32]) {
    for (value, q) in out.iter_mut().zip(split_nibbles(qs)) {
        *value = scale * f32::from(levels[usize::from(q)]);
    }
}

// Planes: see the table in `planes.rs`.

/// 32 numbers of 4 bits in 16 bytes.
pub(super) fn pack_nibbles(out: &mut [u8], number: impl Fn(usize) -> u8) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = number(i) & 15 | (number(i + 16) & 15) << 4;
    }
}

/// 32 numbers of 2 bits in 8 bytes.
pub(super) fn pack_crumbs(out: &mut [u8], number: impl Fn(usize) -> u8) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = (0..4).fold(0, |byte, field| {
            byte | number(16 * (i / 4) + 4 * field + i % 4) << (2 * field)
        });
    }
}

/// 32 single bits in 4 bytes; `find` gives the byte and bit of a weight.
pub(super) fn spread_bits(bytes: &[u8], find: impl Fn(usize) -> (usize, usize)) -> [u8; 4] {
    std::array::from_fn(|lane| {
        (0..8).fold(0, |out, field| {
            let (byte, bit) = find(4 * field + lane);
            out | (bytes[byte] >> bit & 1) << field
        })
    })
}

// The reference quantisers of the simple types (`quantize_row_*_ref` in ggml-quants.c): one pass, no search.

/// Runs `block` over blocks of 32 values.
pub(super) fn each_32(values: &[f32], block: impl FnMut(&[f32; 32])) {
    values.as_chunks::<32>().0.iter().for_each(block);
}

/// `Q4_0` and `Q5_0`: the value of largest magnitude becomes the most negative level, so `d` carries its sign.
pub(super) fn centred(block: &[f32; 32], bits: u32, out: &mut Vec<u8>) {
    let mut extreme = 0.0_f32;
    for &value in block {
        if value.abs() > extreme.abs() {
            extreme = value;
        }
    }
    let zero = (1 << (bits - 1)) as f32;
    let d = extreme / -zero;
    let inverse = inverse(d);
    push_f16(d, out);
    push_levels(bits, out, |i| block[i] * inverse + (zero + 0.5));
}

/// `Q4_1` and `Q5_1`: levels evenly spaced from the smallest value to the largest.
pub(super) fn with_minimum(block: &[f32; 32], bits: u32, out: &mut Vec<u8>) {
    let min = block.iter().copied().fold(f32::MAX, f32::min);
    let max = block.iter().copied().fold(f32::MIN, f32::max);
    let d = (max - min) / ((1 << bits) - 1) as f32;
    let inverse = inverse(d);
    push_f16(d, out);
    push_f16(min, out);
    push_levels(bits, out, |i| (block[i] - min) * inverse + 0.5);
}

/// `1 / d`, or 0 for a block of zeros.
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Appends an f16.
pub(super) fn push_f16(value: f32, out: &mut Vec<u8>) {
    out.extend(half::f16::from_f32(value).to_le_bytes());
}

/// Truncates `level(i)` to `bits` bits; writes the fifth bits first where there are any, then pairs of nibbles.
fn push_levels(bits: u32, out: &mut Vec<u8>, level: impl Fn(usize) -> f32) {
    let highest = ((1_u32 << bits) - 1) as u8;
    // `as` saturates, so that a NaN or an infinity in the input still gives some level.
    let levels: [u8; 32] = std::array::from_fn(|i| (level(i) as u8).min(highest));
    if bits == 5 {
        let high = levels
            .iter()
            .enumerate()
            .fold(0_u32, |high, (i, level)| high | u32::from(level >> 4) << i);
        out.extend(high.to_le_bytes());
    }
    out.extend((0..16).map(|i| (levels[i] & 15) | (levels[i + 16] & 15) << 4));
}
