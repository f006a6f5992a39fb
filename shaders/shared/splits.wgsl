// How a row's visible pages are divided among workgroups: from its position alone, so that nothing has to be told.
// At least SPLIT_PAGES pages each, at most MAX_SPLITS workgroups.
#import shared/page

const MAX_SPLITS: u32 = 16u;
const SPLIT_PAGES: u32 = 4u;

fn pages_per_split(pos: u32) -> u32 {
    let pages = pos / PAGE - first_visible(pos) / PAGE + 1u;
    return max(SPLIT_PAGES, (pages + MAX_SPLITS - 1u) / MAX_SPLITS);
}
