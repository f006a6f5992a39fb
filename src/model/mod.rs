//! What a LLaMA is: the [`Config`] read from a file, the [`plan`] it becomes, and the loading of its weights.
//! The only module that knows the architecture; it knows no device.

mod config;
mod llama;
mod weights;

pub use config::{Architecture, Config, RopeScaling};
pub use llama::{ModelPlan, plan};
pub use weights::{LoadProgress, load_weights};
