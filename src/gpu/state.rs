//! Layout of the small buffers that host and kernels share: the rows of a step, page tables, sampling settings. The
//! twin of `shaders/shared/state.wgsl` and of `Sampling` in `shaders/sample.wgsl`.

use crate::plan::{Limits, Row, Sampling};

/// Words of a region's header, and of a row.
const ROW_WORDS: u32 = 4;

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
    /// All of it.
    pub words: u32,
}

impl StateLayout {
    /// For these capacities, and rows of at most `experts_used` experts.
    pub fn new(limits: &Limits, experts_used: u32) -> StateLayout {
        let region = ROW_WORDS + limits.max_rows * ROW_WORDS;
        let pages_at = 2 * region;
        let routes_at = pages_at + limits.max_seqs * limits.max_pages_per_seq;
        StateLayout {
            host_at: 0,
            sampled_at: region,
            pages_at,
            routes_at,
            words: routes_at + limits.max_rows * experts_used * 2,
        }
    }
}

/// A step's region: header, then a row's token, sequence, position, and the row of the head of that number.
pub fn region_words(rows: &[Row], heads: &[u32]) -> Vec<u32> {
    let mut words = vec![rows.len() as u32, heads.len() as u32, 0, 0];
    for (i, row) in rows.iter().enumerate() {
        words.extend([row.token, row.seq, row.pos, heads.get(i).copied().unwrap_or(0)]);
    }
    words
}

/// `Sampling` as `shaders/sample.wgsl` declares it.
pub fn sampling_words(sampling: &Sampling) -> [u32; 8] {
    [
        sampling.temperature.to_bits(),
        sampling.top_k,
        sampling.top_p.to_bits(),
        sampling.min_p.to_bits(),
        sampling.seed as u32,
        (sampling.seed >> 32) as u32,
        0,
        0,
    ]
}
