//! LLaMA in the browser.
pub mod engine;
pub mod error;
pub mod format;
pub mod gpu;
pub mod model;
pub mod plan;
pub mod quant;
pub mod reference;
pub mod tokenizer;
#[cfg(target_arch = "wasm32")]
pub mod web;
