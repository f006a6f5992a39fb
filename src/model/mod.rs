//! What a LLaMA is: the [`Config`] read from a file, the [`plan`] it becomes, and the loading of its weights.
//! The only module that knows the architecture; it knows no device.

mod config;
mod config_gguf;
mod config_hf;
mod llama;
mod names;
mod rope;
mod source;
mod weights;

pub use config::{Architecture, Config, Llama4Config, MixtureConfig};
pub use llama::{ModelPlan, plan, quantize_type};
pub use rope::RopeScaling;
pub use source::{Arrangement, Source};
pub use weights::{LoadProgress, load_weights};
