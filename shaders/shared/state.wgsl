// The rows of a step, in `state` (host: gpu/state.rs). `params.rows_at` says where the step's region starts:
//   [0] T, rows in this step   [1] heads that need logits   [2] heads whose tokens the next step runs   [3] unused
//   then per row four words: token, sequence, position, and for row j the row index of head j.
// `params.pages_at`: page table, `params.pages_per_seq` words a sequence.

const ROW_WORDS: u32 = 4u;

fn row_count() -> u32 { return state[params.rows_at]; }
fn head_count() -> u32 { return state[params.rows_at + 1u]; }
fn next_count() -> u32 { return state[params.rows_at + 2u]; }
fn row_token(t: u32) -> u32 { return state[params.rows_at + ROW_WORDS + t * ROW_WORDS]; }
fn row_seq(t: u32) -> u32 { return state[params.rows_at + ROW_WORDS + t * ROW_WORDS + 1u]; }
fn row_pos(t: u32) -> u32 { return state[params.rows_at + ROW_WORDS + t * ROW_WORDS + 2u]; }
fn head_row(j: u32) -> u32 { return state[params.rows_at + ROW_WORDS + j * ROW_WORDS + 3u]; }
