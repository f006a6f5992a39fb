//! What a caller may ask of a load and of the tokenizer: plain data, of which `www/lib/generated` is the TypeScript.
//!
//! Options of a generation are [`super::Request`]. An unknown option is an error, never ignored.

use crate::error::{Error, Result};
use serde::Deserialize;

/// Options of a load that the engine takes. An unknown name is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "EngineOptions", optional_fields))]
pub struct LoadOptions {
    /// The device that runs the model; default `auto`.
    #[cfg_attr(test, ts(as = "Option<_>", optional))]
    pub device: Device,
    /// Positions that a sequence may have, and that the sequences under way share; default: the model's own, at most
    /// 4096.
    pub max_context: Option<u32>,
    /// How cached keys and values are stored; default: `f16` (the reference: always `f32`). `q8_0` is for WebGPU.
    #[cfg_attr(test, ts(type = "CacheType", optional))]
    pub kv_cache_type: Option<String>,
    /// Threads on the CPU, 1 to 256; default: one per core, at most 8. More than one need a page that is cross-origin
    /// isolated (headers COOP and COEP); elsewhere there is one.
    pub threads: Option<u32>,
    /// Matrices that are stored as F32, F16 or BF16 become this type while they load, as if the file had been quantised
    /// before.
    #[cfg_attr(test, ts(type = "Quantize", optional))]
    pub quantize: Option<String>,
    /// Which kernels WebGPU uses where there is a choice; default: what suits the adapter (`info.device.features`
    /// tells). `int8: false` keeps activations exact on adapters where integer dot products are the default.
    #[cfg_attr(test, ts(as = "Option<_>", optional))]
    pub kernels: Kernels,
    /// Measure which kernels this GPU runs fastest, once: some seconds of the first load. The browser keeps what was
    /// found, for each adapter, and later loads with `tune` start with it. What `kernels` names is left as it says;
    /// nothing becomes less exact than it is without. Default false.
    #[cfg_attr(test, ts(as = "Option<_>", optional))]
    pub tune: bool,
    /// Time each kernel; slower throughout.
    #[serde(skip)]
    pub profile: bool,
}

/// Which device runs the model.
///
/// `auto`: WebGPU on a GPU, else the CPU (`info.device.fallback_reason` says why). `webgpu`: WebGPU or an error, also
/// where WebGPU is software. `cpu`: WebAssembly. `reference`: the slow path that tests compare with.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Device {
    /// WebGPU on a GPU, else the CPU.
    #[default]
    Auto,
    /// WebGPU or an error.
    WebGpu,
    /// The CPU.
    Cpu,
    /// Plain Rust: slow, and what tests compare with.
    Reference,
}

impl Device {
    /// The device of that name: `auto`, `webgpu`, `cpu` or `reference`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for another name.
    pub fn from_name(name: &str) -> Result<Device> {
        match name {
            "auto" => Ok(Device::Auto),
            "webgpu" => Ok(Device::WebGpu),
            "cpu" => Ok(Device::Cpu),
            "reference" => Ok(Device::Reference),
            other => Err(Error::invalid_input(format!(
                "device is {other:?}; it may be \"auto\", \"webgpu\", \"cpu\" or \"reference\""
            ))),
        }
    }
}

/// Kernels of the GPU where there is a choice; one that is absent is as the adapter suggests. See `features` of
/// [`DeviceInfo`](super::DeviceInfo).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct Kernels {
    /// Reduce by subgroup shuffles.
    pub subgroups: Option<bool>,
    /// Integer dot products: activations are rounded to 8 bits, block by block.
    pub int8: Option<bool>,
    /// Tiles of f16 in products of matrices (`shader-f16`).
    pub f16: Option<bool>,
    /// Kernels for several rows at a time.
    pub columns: Option<bool>,
    /// Divide long sequences among workgroups in attention.
    pub splits: Option<bool>,
    /// Lanes of the GPU that share a row of a matrix while decoding: 4, 8, 16, 32 or 64; else by the matrix's size.
    pub lanes: Option<u32>,
}

/// Options of decoding: token ids to text.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct DecodeOptions {
    /// Leave special tokens out; default false.
    pub skip_special: Option<bool>,
}

/// How the chat template writes out a conversation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(
    test,
    derive(ts_rs::TS),
    ts(rename = "ChatTemplateOptions", optional_fields)
)]
pub struct TemplateOptions {
    /// End with the beginning of the assistant's turn; default true.
    pub add_generation_prompt: Option<bool>,
    /// Tool definitions for the chat template.
    #[cfg_attr(test, ts(type = "readonly unknown[]", optional))]
    pub tools: Option<serde_json::Value>,
    /// Variables of the chat template's own, such as `{ enable_thinking: false }` for Qwen3: plain data, as in JSON. They
    /// replace the variables that a template has anyway, special tokens for instance.
    #[cfg_attr(test, ts(type = "Record<string, unknown>", optional))]
    pub chat_template_kwargs: Option<serde_json::Map<String, serde_json::Value>>,
    /// The name of one of the model's chat templates, or a template's text; default: `tool_use` where there are tools and
    /// the model has it, else `default`.
    pub chat_template: Option<String>,
}
