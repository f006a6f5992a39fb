// Rows of x per pass over the weights.
const COLS: u32 = 8u;
