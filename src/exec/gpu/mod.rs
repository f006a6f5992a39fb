//! The plan on a GPU: WGSL compute shaders through wgpu, the same host code in a browser and natively.
//!
//! [`lower`] turns a plan into a list of dispatches (plain data); `executor` makes buffers, pipelines and bind groups
//! for it at load and replays it: a decode step is one submit that creates nothing. `wgpu` types do not leave this
//! module. What a browser needs beyond wgpu is in `web`.

mod bandwidth;
mod device;
mod executor;
pub mod kernels;
pub mod lower;
mod pipelines;
mod profile;
mod self_test;
mod state;
mod tune;
#[cfg(target_arch = "wasm32")]
mod web;

pub use device::{Capabilities, Counters, Gpu};
pub use executor::{GpuExecutor, GpuOptions};
pub use lower::CacheType;
pub use self_test::Reference;
