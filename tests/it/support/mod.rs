//! What tests share.

pub mod adjustments;
pub mod case;
pub mod cases;
pub mod counting;
pub mod fuzz;
pub mod gguf;
pub mod harness;
pub mod npy;
pub mod references;
pub mod safetensors;
pub mod vocabularies;
