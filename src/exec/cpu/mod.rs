//! The plan on the processor: SIMD kernels, threads where there are some. What runs where there is no GPU.
//!
//! Weights are kept once, re-ordered at load (`formats`); activations are rounded to 16 bits per block of 32 for
//! matrices of quantised types (`input`), and products are summed in integers (`matmul`). Matrices of floats are
//! multiplied in f32. `attention` reads the cache a page at a time. `pool` shares rows among threads.
//!
//! `unsafe` is confined to this module: vector loads and stores, and buffers of which threads write different parts.

mod attention;
mod executor;
mod formats;
mod input;
mod kernels;
mod matmul;
mod ops;
pub mod pool;
mod simd;

pub use executor::{CpuExecutor, CpuOptions, rounds_activations};
pub use pool::Pool;
