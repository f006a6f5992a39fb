//! LLaMA in the browser: stock model files run as WGSL compute shaders on WebGPU.
//!
//! The crate is built twice. For `wasm32` it is the engine of the npm package `llamero` (`web`). Natively it is a
//! library for tests and the command line, over the same GPU code on Vulkan.
//!
//! A tour, in the order in which bytes become text:
//!
//! 1. [`format`](mod@format) opens a model's file as a [`format::Checkpoint`]: metadata, and where each tensor lies. Weights are
//!    read later, in pieces. [`quant`] knows how each weight type packs its numbers.
//! 2. [`model`] reads a [`model::Config`] from it and writes a [`plan::Plan`]: the whole model as a flat list of
//!    operations. No other module knows LLaMA.
//! 3. An executor ([`exec`]) runs the plan: [`exec::gpu`] on WebGPU or Vulkan, [`exec::cpu`] with SIMD and threads,
//!    [`exec::reference`] in plain Rust, the truth in tests.
//! 4. [`tokenizer`] turns text into token ids and back, and conversations into text.
//! 5. [`engine`] has the loaded [`Model`](engine::Model). One queue runs its jobs: generation, scores, logits, embeddings, inner values.
//!
//! ```
//! use llamero::engine::{EmbedRequest, Model, ScoreRequest};
//!
//! # pollster::block_on(async {
//! let mut model = Model::open("tests/data/tiny.gguf").await?;
//! let text = model.complete("Once upon a time").await?;
//!
//! let likely = model
//!     .score(&ScoreRequest {
//!         prompt: "Once upon".into(),
//!         continuations: vec![" a time".into(), " a rope".into()],
//!     })
//!     .await?;
//! let vectors = model
//!     .embed(&EmbedRequest {
//!         texts: vec!["a cat".into(), "a dog".into()],
//!         ..EmbedRequest::default()
//!     })
//!     .await?;
//! # assert!(!text.is_empty() && likely[0].logprob < 0.0 && vectors[0].len() == 64);
//! # Ok::<(), llamero::error::Error>(())
//! # }).unwrap();
//! ```
//!
//! ARCHITECTURE.md has the arrows between modules, the life of a token, and where to add things.

pub mod engine;
pub mod error;
pub mod exec;
pub mod format;
pub mod model;
pub mod plan;
pub mod quant;
pub mod template;
pub mod tokenizer;
#[cfg(all(target_arch = "wasm32", any(feature = "cpu", feature = "gpu")))]
pub mod web;
#[cfg(all(
    target_arch = "wasm32",
    feature = "tokenizer-json",
    not(any(feature = "cpu", feature = "gpu"))
))]
#[path = "web/tokenizer_json.rs"]
pub mod web;

#[cfg(all(test, not(target_arch = "wasm32")))]
#[path = "web/typescript.rs"]
mod typescript;
