// Positions per page of the key/value cache.
const PAGE: u32 = 32u;
