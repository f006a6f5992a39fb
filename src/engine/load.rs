//! From a model's files to a loaded [`Model`]: which device runs it, and what happens where that device cannot.

use super::{Model, Opened};
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "cpu")]
use crate::exec::cpu::{CpuExecutor, CpuOptions, Pool};
use crate::exec::gpu::Gpu;
#[cfg(feature = "gpu")]
use crate::exec::gpu::{GpuExecutor, GpuOptions};
use crate::exec::reference::ReferenceExecutor;
use crate::exec::{CacheType, Executor, Limits, LocalBoxFuture};
use crate::format::ByteSource;
use crate::plan::Plan;
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// Rows per step on the reference: it computes a step when it is submitted, and cancelling waits for that.
const REFERENCE_ROWS: u32 = 16;

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
    /// [`ErrorKind::InvalidInput`] for another name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "webgpu" => Ok(Self::WebGpu),
            "cpu" => Ok(Self::Cpu),
            "reference" => Ok(Self::Reference),
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

/// What a load is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "Phase"))]
pub enum LoadPhase {
    /// Files are opened and understood.
    Open,
    /// Kernels are made.
    Compile,
    /// Weights are read and handed to the device.
    #[serde(rename = "download")]
    Weights,
    /// The model can be used.
    Ready,
}

/// Callbacks that a load needs from its caller. All have defaults.
pub trait LoadHost {
    /// Takes progress in bytes of the files; an error stops the load.
    ///
    /// # Errors
    ///
    /// The caller's own, with which the load ends.
    fn progress(&mut self, _phase: LoadPhase, _loaded: u64, _total: u64) -> Result<()> {
        Ok(())
    }

    /// Called once, when the files are understood and before memory is taken for the weights. The load waits for it.
    fn opened(&mut self, _opened: &Opened) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Makes the CPU's threads: `threads` as in [`LoadOptions::threads`]. Default: natively, as many as there are cores;
    /// in a browser one.
    #[cfg(feature = "cpu")]
    fn pool(&mut self, threads: Option<u32>) -> LocalBoxFuture<'_, Result<Pool>> {
        Box::pin(std::future::ready(Ok(native_pool(threads))))
    }

    /// Told why [`Device::Auto`] does not take the GPU, or leaves it.
    fn without_gpu(&mut self, _reason: &Error) {}
}

/// A host that wants to know nothing.
impl LoadHost for () {}

#[cfg(all(feature = "cpu", not(target_arch = "wasm32")))]
fn native_pool(threads: Option<u32>) -> Pool {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Pool::with_threads(threads.map_or_else(cores, |n| n as usize))
}

#[cfg(all(feature = "cpu", target_arch = "wasm32"))]
fn native_pool(_threads: Option<u32>) -> Pool {
    Pool::new()
}

/// [`LoadOptions`], understood.
struct Wanted<'a> {
    options: &'a LoadOptions,
    #[cfg_attr(
        not(any(feature = "cpu", feature = "gpu")),
        expect(dead_code, reason = "no executor, no cache")
    )]
    cache: Option<CacheType>,
}

impl LoadOptions {
    fn check(&self) -> Result<Wanted<'_>> {
        let cache = match self.kv_cache_type.as_deref() {
            None => None,
            Some(name) => Some(CacheType::from_name(name).ok_or_else(|| {
                Error::invalid_input(format!(
                    "kv_cache_type is {name:?}; it may be \"f16\", \"f32\" or \"q8_0\""
                ))
            })?),
        };
        if self.threads == Some(0) {
            return Err(Error::invalid_input("threads must be at least 1"));
        }
        Ok(Wanted {
            options: self,
            cache,
        })
    }
}

impl Model {
    /// Loads a model from its files, in any order: a GGUF or all parts of a split set, or what a Hugging Face folder holds.
    /// With [`Device::Auto`] a GPU that is absent, software, wrong in its self-test or too small gives way to the CPU.
    ///
    /// # Errors
    ///
    /// Those of [`Opened::from_sources`] and of `host`; [`ErrorKind::InvalidInput`] for an option that cannot be used;
    /// [`ErrorKind::ModelTooLarge`], [`ErrorKind::WebGpuUnavailable`], [`ErrorKind::Unsupported`] and
    /// [`ErrorKind::DeviceLost`] of the device.
    pub async fn load(
        sources: Vec<Rc<dyn ByteSource>>,
        options: &LoadOptions,
        host: &mut dyn LoadHost,
    ) -> Result<Self> {
        let wanted = options.check()?;
        let total = sources.iter().map(|source| source.len()).sum();
        host.progress(LoadPhase::Open, 0, total)?;
        let quantize = options.quantize.as_deref();
        let open = || Opened::from_sources(sources.clone(), quantize);
        load(open, &wanted, host).await
    }

    /// Loads the model at a local path: a GGUF (of a split set the first part), or a Hugging Face folder.
    ///
    /// # Errors
    ///
    /// Those of [`Opened::open_path`] and [`Model::load`].
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load_path(
        path: impl AsRef<std::path::Path>,
        options: &LoadOptions,
        host: &mut dyn LoadHost,
    ) -> Result<Self> {
        let (wanted, path) = (options.check()?, path.as_ref());
        host.progress(LoadPhase::Open, 0, 0)?;
        let open = || Opened::open_path(path, options.quantize.as_deref());
        load(open, &wanted, host).await
    }

    /// Loads the model at a local path with default options.
    ///
    /// ```
    /// # use llamero::engine::Model;
    /// # pollster::block_on(async {
    /// let mut model = Model::open("tests/data/tiny.gguf").await?;
    /// let text = model.complete("Once upon a time").await?;
    /// println!("{text}");
    /// # assert!(!text.is_empty());
    /// # Ok::<(), llamero::error::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Model::load_path`].
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        Self::load_path(path, &LoadOptions::default(), &mut ()).await
    }
}

/// `open` is called again where a second device is tried: an opened model goes to the first.
async fn load<F: Future<Output = Result<Opened>>>(
    open: impl Fn() -> F,
    wanted: &Wanted<'_>,
    host: &mut dyn LoadHost,
) -> Result<Model> {
    let auto = wanted.options.device == Device::Auto;
    let mut on_gpu = auto && cfg!(feature = "gpu") || wanted.options.device == Device::WebGpu;
    // Why `auto` did not take the GPU, or left it.
    let mut reason: Option<Error> = None;
    loop {
        let opened = open().await?;
        let context = opened.context(wanted.options.max_context)?;
        let total = opened.checkpoint.total_bytes();
        if reason.is_none() {
            host.opened(&opened).await?;
        }
        host.progress(LoadPhase::Compile, 0, total)?;
        let plan = opened.model.plan.clone();
        let made = if on_gpu {
            gpu(plan, context, wanted)
                .await
                .map(|(executor, gpu)| (executor, Some(gpu)))
        } else {
            processor(plan, context, wanted, host)
                .await
                .map(|executor| (executor, None))
        };
        let loaded = match made {
            Ok((executor, gpu)) => {
                let progress = |p: crate::model::LoadProgress| {
                    host.progress(LoadPhase::Weights, p.loaded, p.total)
                };
                Model::with_executor(opened, executor, context, progress)
                    .await
                    .map(|model| (model, gpu))
            }
            Err(error) => Err(error),
        };
        match loaded {
            Ok((mut model, gpu)) => {
                host.progress(LoadPhase::Ready, total, total)?;
                model.gpu = gpu;
                model.fallback_reason = reason;
                return Ok(model);
            }
            // A build without the CPU leaves it to its caller to try one that has it.
            Err(error) if auto && on_gpu && cfg!(feature = "cpu") && is_of_the_device(&error) => {
                host.without_gpu(&error);
                reason = Some(error);
                on_gpu = false;
            }
            // What the GPU could not do either is the better advice.
            Err(error) if error.kind() == ErrorKind::ModelTooLarge && reason.is_some() => {
                return Err(match reason.take() {
                    Some(first) if first.kind() == ErrorKind::ModelTooLarge => first,
                    first => error.at(first.map_or_else(String::new, |e| e.to_string())),
                });
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether an error is the GPU's own: another device may do better.
fn is_of_the_device(error: &Error) -> bool {
    use ErrorKind::{DeviceLost, ModelTooLarge, Unsupported, WebGpuUnavailable};
    matches!(
        error.kind(),
        WebGpuUnavailable | DeviceLost | Unsupported | ModelTooLarge
    )
}

#[cfg(not(feature = "gpu"))]
async fn gpu(_: Plan, _: u32, _: &Wanted<'_>) -> Result<(Box<dyn Executor>, Gpu)> {
    Err(Error::new(
        ErrorKind::WebGpuUnavailable,
        "this build of the engine is for the CPU alone; build it with the feature gpu",
    ))
}

/// An executor on the GPU. [`Device::Auto`] refuses an adapter that is software: the CPU's own kernels are faster.
#[cfg(feature = "gpu")]
async fn gpu(plan: Plan, context: u32, wanted: &Wanted<'_>) -> Result<(Box<dyn Executor>, Gpu)> {
    let gpu = Gpu::request_with(wanted.options.profile).await?;
    let found = gpu.capabilities();
    if wanted.options.device == Device::Auto && found.software {
        let name = format!("{} {}", found.vendor, found.architecture);
        let name = if name.trim().is_empty() {
            &found.name
        } else {
            name.trim()
        };
        return Err(Error::new(
            ErrorKind::WebGpuUnavailable,
            format!("the only WebGPU adapter here ({name}) is itself software on the CPU"),
        ));
    }
    let Kernels {
        subgroups,
        int8,
        f16,
        columns,
        splits,
        lanes,
    } = wanted.options.kernels;
    let options = GpuOptions {
        reference: Some(reference),
        subgroups,
        int8,
        f16,
        columns,
        splits,
        lanes,
        tune: wanted.options.tune,
        cache: wanted.cache,
        ..GpuOptions::default()
    };
    let executor = GpuExecutor::new(&gpu, plan, context, &options).await?;
    Ok((Box::new(executor), gpu))
}

/// An executor on the processor.
async fn processor(
    plan: Plan,
    context: u32,
    wanted: &Wanted<'_>,
    host: &mut dyn LoadHost,
) -> Result<Box<dyn Executor>> {
    if wanted.options.device == Device::Reference {
        let limits = Limits::for_context(context, REFERENCE_ROWS, 1);
        return Ok(Box::new(ReferenceExecutor::new(plan, limits)?));
    }
    fast(plan, context, wanted, host).await
}

#[cfg(not(feature = "cpu"))]
async fn fast(_: Plan, _: u32, _: &Wanted<'_>, _: &mut dyn LoadHost) -> Result<Box<dyn Executor>> {
    Err(Error::unsupported(
        "this build of the engine is for the GPU alone; build it with the feature cpu",
    ))
}

/// The executor with SIMD and threads.
#[cfg(feature = "cpu")]
async fn fast(
    plan: Plan,
    context: u32,
    wanted: &Wanted<'_>,
    host: &mut dyn LoadHost,
) -> Result<Box<dyn Executor>> {
    let cache_f16 = match wanted.cache {
        None => None,
        Some(CacheType::F16) => Some(true),
        Some(CacheType::F32) => Some(false),
        Some(CacheType::Q8_0) if wanted.options.device == Device::Auto => Some(true),
        Some(CacheType::Q8_0) => {
            return Err(Error::invalid_input(
                "kv_cache_type \"q8_0\" needs WebGPU; on the CPU use \"f16\"",
            ));
        }
    };
    let options = CpuOptions {
        pool: Some(host.pool(wanted.options.threads).await?),
        cache_f16,
        ..CpuOptions::default()
    };
    Ok(Box::new(CpuExecutor::new(plan, context, options)?))
}

/// What the GPU's kernels are checked against.
#[cfg(feature = "gpu")]
fn reference(plan: Plan, limits: Limits) -> Result<Box<dyn crate::exec::Inspect>> {
    Ok(Box::new(ReferenceExecutor::new(plan, limits)?))
}
