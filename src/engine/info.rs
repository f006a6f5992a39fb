//! What a caller is told of a loaded model: plain data, of which `www/lib/generated` is the TypeScript.

use super::{GenerationConfig, LoadPhase, Model};
use crate::exec::{ExecutorInfo, SelfTest};
use crate::model::{Architecture, Config};
use serde::Serialize;

/// What was loaded, and which device runs it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ModelInfo {
    /// The name that the model's files give it (`general.name` of a GGUF); empty where they give none.
    pub name: String,
    /// `general.architecture`, such as `llama`.
    pub architecture: Architecture,
    /// Hyperparameters by their Hugging Face names.
    pub config: Config,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file or files.
    pub bytes: u64,
    /// Positions that a prompt and its output may use together.
    pub context: u32,
    /// Sampling settings that the model's files recommend (`generation_config.json`, or `general.sampling.*` of a GGUF);
    /// empty where they name none. Calls do not take them by themselves: pass what you want of them.
    pub generation_config: GenerationConfig,
    /// Whether the model has a chat template, which `chat()` needs.
    pub chat_template: bool,
    /// What was wrong with the model's files and was left out without harm: a sentence each, which names the file and the
    /// key. Mostly empty.
    pub warnings: Vec<String>,
    /// On WebGPU: how many kernels were checked against the reference at load, and the names of those that this device
    /// got wrong and that were replaced. `null` elsewhere.
    #[cfg_attr(test, ts(optional = false))]
    pub self_test: Option<SelfTest>,
    /// The device that runs the model.
    pub device: DeviceInfo,
}

/// The device that runs a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct DeviceInfo {
    /// What the executor tells.
    #[serde(flatten)]
    pub executor: ExecutorInfo,
    /// Why `auto` did not take WebGPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_reason: Option<String>,
    /// On the CPU: why there are fewer threads than were asked for, or than there are cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads_reason: Option<String>,
}

impl ModelInfo {
    /// What there is to say of `model`.
    pub fn new(model: &Model) -> Self {
        let config = model.config().clone();
        let mut executor = model.executor().info();
        let tensors = &model.plan().tensors;
        Self {
            name: config.name.clone().unwrap_or_default(),
            architecture: config.architecture,
            parameters: tensors.iter().map(|t| t.rows * t.cols).sum(),
            config,
            bytes: model.file_bytes(),
            context: model.context(),
            generation_config: *model.generation_config(),
            chat_template: model
                .tokenizer()
                .is_ok_and(|tokenizer| tokenizer.chat_template().is_some()),
            warnings: model.warnings().to_vec(),
            self_test: executor.self_test.take(),
            device: DeviceInfo {
                executor,
                fallback_reason: model.fallback_reason().map(ToString::to_string),
                threads_reason: None,
            },
        }
    }
}

/// What running has cost since the model was loaded, and what a step reads; for measurements.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Costs {
    /// Steps of the model: one per decoded token of all sequences together, some for a prompt. WebGPU alone counts them.
    pub steps: u64,
    /// Kernel launches.
    pub dispatches: u64,
    /// Milliseconds of the worker spent on encoding and submitting steps.
    pub encode_ms: f64,
    /// Bytes of weights that a decoded token reads.
    pub weight_bytes_per_token: u64,
    /// Bytes of keys and values per position: a decoded token reads those of all positions before it.
    pub cache_bytes_per_position: f64,
}

impl Costs {
    /// What `model` has cost so far.
    pub fn new(model: &Model) -> Self {
        let (plan, executor) = (model.plan(), model.executor());
        let costs = executor.costs();
        Self {
            steps: costs.steps,
            dispatches: costs.dispatches,
            encode_ms: costs.encode_seconds * 1e3,
            weight_bytes_per_token: plan.bytes_per_token(),
            cache_bytes_per_position: executor.cache_bytes_per_position(),
        }
    }
}

/// How far a load is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "EngineProgress"))]
pub struct Progress {
    /// What the load does.
    pub phase: LoadPhase,
    /// Bytes of weights that reached the device.
    pub loaded: u64,
    /// Bytes of the files.
    pub total: u64,
}
