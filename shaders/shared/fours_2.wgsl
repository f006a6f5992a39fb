// Query heads of a workgroup, over 4.
const FOURS: u32 = 2u;
