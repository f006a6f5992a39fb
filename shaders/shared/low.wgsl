// The device need not keep infinities: LOWEST stands for minus infinity, and every value up to LOW counts as it.
const LOW: f32 = -3.0e38;
const LOWEST: f32 = -3.3e38;
