//! Layout of the small buffers that host and kernels share: the rows of a step, page tables, sampling settings. The
//! twin of `shaders/shared/state.wgsl`.

use super::kernels::moe_group::{EXPERT_TILE, ROW_WORDS, TILE_WORDS};
use super::kernels::{self, sample};
use crate::exec::{Head, HeadCounts, Limits};
use crate::plan::{MAX_BIASES, Penalties, Row, Sampling};

/// u32 offsets into the state buffer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StateLayout {
    /// Rows written by the host.
    pub host_at: u32,
    /// Rows written by the sampler: the next decode step.
    pub sampled_at: u32,
    /// Page tables.
    pub pages_at: u32,
    /// Experts of each row of a step, written by the router: expert and weight (f32), `[max_rows, used, 2]`.
    pub routes_at: u32,
    /// Those pairs of row and slot sorted by expert, `[max_rows * used]`, and tiles of one expert, `[tiles, 3]`: expert, first
    /// pair, end.
    pub groups_at: u32,
    /// All of it.
    pub words: u32,
}

impl StateLayout {
    /// For these capacities, and rows of at most `experts_used` experts out of `experts`.
    pub fn new(limits: &Limits, experts_used: u32, experts: u32) -> Self {
        let region = ROW_WORDS + limits.max_rows * ROW_WORDS;
        let pages_at = 2 * region;
        let routes_at = pages_at + limits.max_seqs * limits.max_pages_per_seq;
        let groups_at = routes_at + limits.max_rows * experts_used * 2;
        let tiles = expert_tiles(limits.max_rows, experts_used, experts);
        Self {
            host_at: 0,
            sampled_at: region,
            pages_at,
            routes_at,
            groups_at,
            words: groups_at + limits.max_rows * experts_used + TILE_WORDS * tiles,
        }
    }
}

/// Tiles that the pairs of `rows` rows fill at most, each expert's last one being a part.
pub fn expert_tiles(rows: u32, used: u32, experts: u32) -> u32 {
    (rows * used).div_ceil(EXPERT_TILE) + experts
}

/// A step's region: a header of rows, heads that need logits and heads that [`Step::Next`](crate::exec::Step::Next) runs; then a
/// row's token, sequence, position, and the row of the head of that number.
pub fn region_words(rows: &[Row], heads: &[Head], counts: HeadCounts) -> Vec<u32> {
    let mut words = vec![rows.len() as u32, counts.logits, counts.next, 0];
    for (i, row) in rows.iter().enumerate() {
        let head = heads.get(i).map_or(0, |head| head.row);
        words.extend([row.token, row.seq, row.pos, head]);
    }
    words
}

/// A sequence's settings as `shaders/kernels/sample.wgsl` reads them.
pub fn device_sampling(sampling: &Sampling) -> kernels::Sampling {
    let Penalties {
        repetition,
        presence,
        frequency,
    } = sampling.penalties;
    let counted = if sampling.penalises() {
        sample::COUNTED
    } else {
        0
    };
    let masked = if sampling.mask.is_some() {
        sample::MASKED
    } else {
        0
    };
    kernels::Sampling {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        seed: [sampling.seed as u32, (sampling.seed >> 32) as u32],
        biases: sampling.bias.as_ref().map_or(0, |bias| bias.len() as u32),
        flags: counted | masked,
        repetition,
        inverse_repetition: 1.0 / repetition,
        presence,
        frequency,
    }
}

/// What [`crate::plan::SequenceSampling`] keeps of a sequence, as `shaders/kernels/sample.wgsl` reads it: u32 offsets into its
/// part of the buffer. Counts come first.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AdjustmentLayout {
    /// Bits of the token mask.
    pub mask_at: u32,
    /// Biases: token id and f32, `[MAX_BIASES, 2]`.
    pub biases_at: u32,
    /// All of one sequence.
    pub stride: u32,
}

impl AdjustmentLayout {
    /// For a vocabulary of `vocab`.
    pub fn new(vocab: u32) -> Self {
        let biases_at = vocab + vocab.div_ceil(32);
        Self {
            mask_at: vocab,
            biases_at,
            stride: biases_at + 2 * MAX_BIASES as u32,
        }
    }
}
