// Rows of x per invocation.
const EACH: u32 = 8u;
