// How a row's visible pages are divided among workgroups: from its position alone, so that nothing has to be told.
// At least 4 pages each, at most MAX_SPLITS. Host: lower.rs.

const MAX_SPLITS: u32 = 16u;

fn pages_per_split(pos: u32) -> u32 {
    let pages = pos / PAGE - first_visible(pos) / PAGE + 1u;
    return max(4u, (pages + MAX_SPLITS - 1u) / MAX_SPLITS);
}
