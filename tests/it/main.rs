//! The integration tests, one binary: a module for each part of the crate. Those that run the command line need feature
//! `cli`.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, reason = "a test panics on purpose")]

mod architecture;
#[cfg(feature = "cli")]
mod batching;
#[cfg(feature = "cli")]
mod cases;
#[cfg(feature = "cli")]
mod chat;
mod chat_template;
#[cfg(feature = "cli")]
mod cli;
mod counts;
mod cpu;
#[cfg(feature = "cli")]
mod engine;
mod formats;
mod fuzz_seeds;
mod hf;
mod kernels;
mod llama;
mod malformed;
mod malformed_models;
mod quant_models;
mod quants;
#[cfg(feature = "cli")]
mod queue;
#[cfg(feature = "cli")]
mod self_test;
mod smollm2;
mod support;
mod supported;
mod template_limits;
mod tokenizers;
mod trace;
