//! Small integers with one scale per 16 weights: the form of the types that no kernel reads as they are stored.

/// Takes weights as products of a scale and a small integer. Sixteen adjacent weights share a scale.
pub(super) trait Products {
    /// Weight `i` of the block is `scale * level`.
    fn put(&mut self, i: usize, scale: f32, level: i8);
}

impl<const LEN: usize> Products for [f32; LEN] {
    fn put(&mut self, i: usize, scale: f32, level: i8) {
        self[i] = scale * f32::from(level);
    }
}

/// Weights as products of a small integer and one scale per 16.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Int8Groups {
    /// One per weight.
    pub levels: Vec<i8>,
    /// One per 16 weights.
    pub scales: Vec<f32>,
    /// First weight of the block being written.
    pub(super) at: usize,
}

impl Int8Groups {
    /// Room for `len` weights.
    pub fn new(len: usize) -> Self {
        Self {
            levels: vec![0; len],
            scales: vec![0.0; len.div_ceil(16)],
            at: 0,
        }
    }
}

impl Products for Int8Groups {
    fn put(&mut self, i: usize, scale: f32, level: i8) {
        self.levels[self.at + i] = level;
        self.scales[(self.at + i) / 16] = scale;
    }
}

/// Runs `block` over blocks of `BYTES` bytes and `len` weights.
pub(super) fn each_product<const BYTES: usize>(
    bytes: &[u8],
    out: &mut Int8Groups,
    len: usize,
    block: impl Fn(&[u8; BYTES], &mut Int8Groups),
) {
    for bytes in bytes.as_chunks().0 {
        block(bytes, out);
        out.at += len;
    }
}
