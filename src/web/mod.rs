//! The crate for JavaScript: the one module that knows it. Runs in a worker; `www/lib` is the other half.
//!
//! Options and results are plain objects; errors are `Error`s with a `code`. Nothing here has logic of its own.

mod source;

use crate::engine::{
    self, Chat, Costs, DecodeOptions, Device, DeviceInfo, Kernels, LoadOptions, ModelInfo, Opened,
    Phase, Progress, Request, RequestId, TemplateOptions, Update, apply_chat_template,
};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::cpu::{CpuExecutor, CpuOptions, Pool};
use crate::exec::gpu::{CacheType, Gpu, GpuExecutor, GpuOptions};
use crate::exec::reference::ReferenceExecutor;
use crate::exec::{Executor, Limits};
use crate::format::ByteSource;
use crate::plan::Plan;
use crate::tokenizer::{DateTime, EncodeOptions, Tokenizer};
use serde::{Deserialize, Serialize};
use source::{JsSource, SourceAdapter};
use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// Rows per step on the reference: it computes a step at once, and cancelling waits for it.
const REFERENCE_ROWS: u32 = 16;

/// Threads where the caller names none and JavaScript does not know the processor better.
const MAX_THREADS: u32 = 8;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"import type {
  ChatTemplateOptions,
  Costs,
  DecodeOptions,
  EncodeOptions,
  EngineOptions,
  EngineProgress,
  Event,
  GenerationResult,
  ModelInfo,
  Request,
} from './generated/engine.js';

/** A file, as the engine reads it. */
export interface EngineSource {
  name: string;
  size: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** What happened to a request. */
export type Update =
  | Event
  | { type: 'done'; result: GenerationResult }
  | { type: 'failed'; error: unknown };

/** Starts workers that share the engine's memory; resolves with how many are about to join. */
export type StartThreads = (
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  handle: number,
  count: number,
) => Promise<number>;
"#;

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// A loaded model.
#[wasm_bindgen]
pub struct Engine {
    engine: Rc<RefCell<engine::Engine>>,
    /// Where the engine runs on one.
    gpu: Option<Gpu>,
    tokenizer: Option<Tokenizer>,
    info: ModelInfo,
}

#[wasm_bindgen]
impl Engine {
    /// Opens a model (one source, or the parts of a split GGUF) and loads it into the device. `on_opened()` is called
    /// once, when the files have been understood and before memory is taken for the weights; what it returns is awaited.
    /// Where threads are wanted and this module can share its memory, `start_threads(module, memory, handle, count)` is
    /// called: it is to start workers that call [`join_pool`], and returns a promise of how many are about to.
    pub async fn load(
        #[wasm_bindgen(unchecked_param_type = "EngineSource[]")] sources: Vec<JsSource>,
        #[wasm_bindgen(unchecked_param_type = "EngineOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "(progress: EngineProgress) => void")]
        on_progress: js_sys::Function,
        #[wasm_bindgen(unchecked_param_type = "() => Promise<unknown>")]
        on_opened: js_sys::Function,
        #[wasm_bindgen(unchecked_param_type = "StartThreads")] start_threads: js_sys::Function,
    ) -> Result<Engine, JsValue> {
        let options: LoadOptions = from_js("load", options)?;
        let sources = sources
            .into_iter()
            .map(|s| Rc::new(SourceAdapter::new(s)) as Rc<dyn ByteSource>)
            .collect();
        load(sources, &options, &on_progress, &on_opened, &start_threads)
            .await
            .map_err(to_js_error)
    }

    /// Model, config, device.
    #[wasm_bindgen(unchecked_return_type = "ModelInfo")]
    pub fn info(&self) -> Result<JsValue, JsValue> {
        to_js(&self.info)
    }

    /// Text to token ids.
    pub fn tokenize(
        &self,
        text: &str,
        #[wasm_bindgen(unchecked_param_type = "EncodeOptions")] options: JsValue,
    ) -> Result<Vec<u32>, JsValue> {
        let options: EncodeOptions = from_js("tokenize", options)?;
        self.tokenizer()?.encode(text, options).map_err(to_js_error)
    }

    /// Token ids to text.
    pub fn detokenize(
        &self,
        ids: Vec<u32>,
        #[wasm_bindgen(unchecked_param_type = "DecodeOptions")] options: JsValue,
    ) -> Result<String, JsValue> {
        let options: DecodeOptions = from_js("detokenize", options)?;
        self.tokenizer()?
            .decode(&ids, options.skip_special.unwrap_or(false))
            .map_err(to_js_error)
    }

    /// A conversation as the model's chat template renders it.
    pub fn apply_chat_template(
        &self,
        #[wasm_bindgen(unchecked_param_type = "readonly unknown[]")] messages: JsValue,
        #[wasm_bindgen(unchecked_param_type = "ChatTemplateOptions")] options: JsValue,
    ) -> Result<String, JsValue> {
        let options: TemplateOptions = from_js("apply_chat_template", options)?;
        let messages: serde_json::Value = from_js("messages", messages)?;
        let chat = Chat {
            messages: &messages,
            tools: options.tools.as_ref(),
            kwargs: options.chat_template_kwargs.as_ref(),
            template: options.chat_template.as_deref(),
            add_generation_prompt: options.add_generation_prompt.unwrap_or(true),
            now: Some(local_now()),
        };
        apply_chat_template(self.tokenizer()?, &chat).map_err(to_js_error)
    }

    /// Checks a request and queues it: [`Engine::step`] runs all that are queued. Returns its id.
    pub fn enqueue(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Request")] request: JsValue,
    ) -> Result<f64, JsValue> {
        let request = Request {
            now: Some(local_now()),
            ..from_js("generate", request)?
        };
        let seed = random_seed().map_err(to_js_error)?;
        let id = self
            .engine()?
            .enqueue(&request, seed)
            .map_err(to_js_error)?;
        Ok(id.0 as f64)
    }

    /// Runs all requests on by one step, one call at a time. `on_update(id, update)` gets what happened: events as
    /// [`engine::Event`] writes them, and last `{type: "done", result}` or `{type: "failed", error}`. False: nothing is
    /// left to run.
    pub async fn step(
        &self,
        #[wasm_bindgen(unchecked_param_type = "(id: number, update: Update) => void")]
        on_update: js_sys::Function,
    ) -> Result<bool, JsValue> {
        let pending = self.engine()?.advance();
        // What was cancelled is answered before a step is waited for.
        self.tell(&on_update)?;
        let Some(pending) = pending else {
            return Ok(false);
        };
        // Nothing is borrowed meanwhile: requests may come and be cancelled.
        let output = pending.await;
        self.engine()?.arrived(output);
        self.tell(&on_update)?;
        Ok(true)
    }

    /// Ends a request: the next call of [`Engine::step`] gives its result, what it has by now, with finish reason
    /// `aborted`.
    pub fn cancel(&self, id: f64) -> Result<(), JsValue> {
        self.engine()?.cancel(RequestId(id as u64));
        Ok(())
    }

    /// Logits of every position, `[ids, vocab]`; while no request runs.
    pub async fn logits(&self, ids: Vec<u32>) -> Result<js_sys::Float32Array, JsValue> {
        let engine = self.engine.clone();
        let mut engine = engine.try_borrow_mut().map_err(|_| to_js_error(busy()))?;
        let vocab = engine.plan().vocab_size;
        let out = js_sys::Float32Array::new_with_length(ids.len() as u32 * vocab);
        engine
            .logits(&ids, |first, values| {
                let at = first as u32 * vocab;
                out.subarray(at, at + values.len() as u32).copy_from(values);
                Ok(())
            })
            .await
            .map_err(to_js_error)?;
        Ok(out)
    }

    /// What steps cost so far, and the bytes that one reads.
    #[wasm_bindgen(unchecked_return_type = "Costs")]
    pub fn costs(&self) -> Result<JsValue, JsValue> {
        let engine = self.engine()?;
        let (plan, executor) = (engine.plan(), engine.executor());
        let costs = executor.costs();
        to_js(&Costs {
            steps: costs.steps,
            dispatches: costs.dispatches,
            encode_ms: costs.encode_seconds * 1e3,
            weight_bytes_per_token: plan.bytes_per_token(),
            cache_bytes_per_position: executor.cache_bytes_per_position(),
        })
    }

    /// Bytes per second of copies on the GPU; `undefined` on the CPU. While no request runs.
    pub async fn copy_bandwidth(&self) -> Result<Option<f64>, JsValue> {
        match self.gpu.clone() {
            Some(gpu) => gpu.copy_bandwidth().await.map(Some).map_err(to_js_error),
            None => Ok(None),
        }
    }

    /// Bytes of this module's memory.
    pub fn heap_bytes(&self) -> f64 {
        (core::arch::wasm32::memory_size(0) * 65_536) as f64
    }
}

impl Engine {
    /// Gives what happened to JavaScript; see [`Engine::step`].
    fn tell(&self, on_update: &js_sys::Function) -> Result<(), JsValue> {
        let updates = self.engine()?.updates();
        for (id, update) in updates {
            let update = match update {
                Update::Event(event) => to_js(&event)?,
                Update::Done(Ok(generation)) => object("done", "result", &to_js(&generation)?),
                Update::Done(Err(error)) => object("failed", "error", &to_js_error(error)),
            };
            on_update.call2(&JsValue::NULL, &JsValue::from_f64(id.0 as f64), &update)?;
        }
        Ok(())
    }

    /// The engine, unless [`Engine::logits`] has it.
    fn engine(&self) -> Result<RefMut<'_, engine::Engine>, JsValue> {
        self.engine
            .try_borrow_mut()
            .map_err(|_| to_js_error(busy()))
    }

    fn tokenizer(&self) -> Result<&Tokenizer, JsValue> {
        self.tokenizer.as_ref().ok_or_else(|| {
            to_js_error(Error::invalid_input(
                "this model came without a tokenizer; add its tokenizer.json to its files",
            ))
        })
    }
}

async fn load(
    sources: Vec<Rc<dyn ByteSource>>,
    options: &LoadOptions,
    on_progress: &js_sys::Function,
    on_opened: &js_sys::Function,
    start_threads: &js_sys::Function,
) -> Result<Engine> {
    let report = |phase: Phase, loaded: u64, total: u64| -> Result<()> {
        let value = to_js(&Progress {
            phase,
            loaded,
            total,
        })
        .map_err(|_| Error::internal("progress does not serialise"))?;
        on_progress
            .call1(&JsValue::NULL, &value)
            .map(drop)
            .map_err(|e| from_js_error(&e))
    };
    let total = sources.iter().map(|s| s.len()).sum();
    let is_weights = |name: &str| name.ends_with(".gguf") || name.ends_with(".safetensors");
    let file_name = sources
        .iter()
        .map(|source| source.name())
        .find(|name| is_weights(name))
        .or(sources.first().map(|source| source.name()))
        .unwrap_or_default()
        .to_owned();
    report(Phase::Open, 0, total)?;
    let cache = match options.kv_cache_type.as_deref() {
        None => None,
        Some(name) => Some(CacheType::from_name(name).ok_or_else(|| {
            Error::invalid_input(format!(
                "kv_cache_type is {name:?}; it may be \"f16\", \"f32\" or \"q8_0\""
            ))
        })?),
    };
    let device = options.device;
    let auto = device == Device::Auto;
    let mut gpu = auto || device == Device::WebGpu;
    if options.threads == Some(0) {
        return Err(Error::invalid_input("threads must be at least 1"));
    }
    // Why `auto` did not take the GPU, or left it.
    let mut reason = None;
    let (engine, gpu) = loop {
        let opened = Opened::from_sources(sources.clone(), options.quantize.as_deref()).await?;
        let context = opened.context(options.max_context)?;
        if reason.is_none() {
            let go_on = on_opened
                .call0(&JsValue::NULL)
                .map_err(|e| from_js_error(&e))?;
            JsFuture::from(js_sys::Promise::resolve(&go_on))
                .await
                .map_err(|e| from_js_error(&e))?;
        }
        report(Phase::Compile, 0, total)?;
        let plan = opened.model.plan.clone();
        let executor: Result<(Box<dyn Executor>, Option<Gpu>)> = if gpu {
            on_gpu(plan, context, cache, options, auto)
                .await
                .map(|(executor, gpu)| (executor, Some(gpu)))
        } else if device == Device::Reference {
            reference(plan, context).map(|e| (Box::new(e) as Box<dyn Executor>, None))
        } else {
            let cache = cpu_cache(cache, auto)?;
            on_cpu(plan, context, cache, options.threads, start_threads)
                .await
                .map(|executor| (executor, None))
        };
        let loaded = match executor {
            Ok((executor, gpu)) => engine::Engine::load(opened, executor, context, |p| {
                report(Phase::Download, p.loaded, p.total)
            })
            .await
            .map(|engine| (engine, gpu)),
            Err(error) => Err(error),
        };
        match loaded {
            Ok(loaded) => break loaded,
            Err(error) if auto && gpu && of_the_device(&error) => {
                reason = Some(error);
                gpu = false;
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
    };
    report(Phase::Ready, total, total)?;

    let config = engine.config().clone();
    let mut executor = engine.executor().info();
    let info = ModelInfo {
        name: config.name.clone().unwrap_or(file_name),
        architecture: config.architecture,
        parameters: engine.plan().tensors.iter().map(|t| t.rows * t.cols).sum(),
        config,
        bytes: engine.file_bytes(),
        context: engine.context(),
        generation_config: *engine.generation_config(),
        chat_template: engine
            .tokenizer()
            .is_ok_and(|t| t.chat_template().is_some()),
        warnings: engine.warnings().to_vec(),
        self_test: executor.self_test.take(),
        device: DeviceInfo {
            executor,
            fallback_reason: reason.map(|reason| reason.to_string()),
            threads_reason: None,
        },
    };
    Ok(Engine {
        tokenizer: engine.tokenizer().ok().cloned(),
        engine: Rc::new(RefCell::new(engine)),
        gpu,
        info,
    })
}

/// Whether the CPU's cache is of 16 bits. The form that only WebGPU has is refused where the caller chose the CPU, and
/// is 16 bits where `auto` did (`info.device.cache_type` tells).
fn cpu_cache(cache: Option<CacheType>, auto: bool) -> Result<Option<bool>> {
    match cache {
        None => Ok(None),
        Some(CacheType::F16) => Ok(Some(true)),
        Some(CacheType::F32) => Ok(Some(false)),
        Some(CacheType::Q8_0) if auto => Ok(Some(true)),
        Some(CacheType::Q8_0) => Err(Error::invalid_input(
            "kv_cache_type \"q8_0\" needs WebGPU; on the CPU use \"f16\"",
        )),
    }
}

/// Whether an error is the GPU's own: another device may do better.
fn of_the_device(error: &Error) -> bool {
    use ErrorKind::{DeviceLost, ModelTooLarge, Unsupported, WebGpuUnavailable};
    matches!(
        error.kind(),
        WebGpuUnavailable | DeviceLost | Unsupported | ModelTooLarge
    )
}

/// The plan on WebGPU. Of its own accord (`auto`) not on an adapter that is software: the CPU's own kernels are faster.
async fn on_gpu(
    plan: Plan,
    context: u32,
    cache: Option<CacheType>,
    options: &LoadOptions,
    auto: bool,
) -> Result<(Box<dyn Executor>, Gpu)> {
    let gpu = Gpu::request().await?;
    let found = gpu.capabilities();
    if auto && found.software {
        let name = format!("{} {}", found.vendor, found.architecture);
        return Err(Error::new(
            ErrorKind::WebGpuUnavailable,
            format!(
                "the browser's only WebGPU adapter ({}) is itself software on the CPU",
                name.trim()
            ),
        ));
    }
    let Kernels {
        subgroups,
        int8,
        f16,
        columns,
        splits,
        lanes,
    } = options.kernels;
    let options = GpuOptions {
        reference: Some(inspected_reference),
        subgroups,
        int8,
        f16,
        columns,
        splits,
        lanes,
        tune: options.tune,
        cache,
        ..GpuOptions::default()
    };
    Ok((
        Box::new(GpuExecutor::new(&gpu, plan, context, &options).await?),
        gpu,
    ))
}

/// The plan on the CPU, with `threads` threads where this module shares its memory.
async fn on_cpu(
    plan: Plan,
    context: u32,
    cache_f16: Option<bool>,
    threads: Option<u32>,
    start_threads: &js_sys::Function,
) -> Result<Box<dyn Executor>> {
    let pool = Pool::new();
    let others = threads.unwrap_or(MAX_THREADS) - 1;
    if cfg!(target_feature = "atomics") && others > 0 {
        let arguments = js_sys::Array::of4(
            &wasm_bindgen::module(),
            &wasm_bindgen::memory(),
            &JsValue::from(pool.handle() as u32),
            &JsValue::from(others),
        );
        let started = start_threads
            .apply(&JsValue::NULL, &arguments)
            .map_err(|e| from_js_error(&e))?;
        if let Ok(promise) = started.dyn_into::<js_sys::Promise>() {
            let started = JsFuture::from(promise)
                .await
                .map_err(|e| from_js_error(&e))?;
            pool.wait_for(1 + started.as_f64().unwrap_or(0.0) as usize);
        }
    }
    let options = CpuOptions {
        pool: Some(pool),
        cache_f16,
        ..CpuOptions::default()
    };
    Ok(Box::new(CpuExecutor::new(plan, context, options)?))
}

/// What a worker that shares this module's memory does: works for the pool, until its worker is ended.
#[wasm_bindgen]
pub fn join_pool(handle: u32) {
    // SAFETY: the handle went from `on_cpu` to JavaScript and back.
    unsafe { Pool::join(handle as usize) }
}

/// Says that [`join_pool`] ended by a trap in another worker.
#[wasm_bindgen]
pub fn pool_died(handle: u32) {
    // SAFETY: as above.
    unsafe { Pool::died(handle as usize) }
}

fn reference(plan: Plan, context: u32) -> Result<ReferenceExecutor> {
    ReferenceExecutor::new(plan, Limits::for_context(context, REFERENCE_ROWS, 1))
}

/// What the GPU's kernels are checked against.
fn inspected_reference(plan: Plan, limits: Limits) -> Result<Box<dyn crate::exec::Inspect>> {
    Ok(Box::new(ReferenceExecutor::new(plan, limits)?))
}

fn busy() -> Error {
    Error::invalid_input("this model is busy: await (or cancel) the request before")
}

/// `{type, [name]: value}`
fn object(kind: &str, name: &str, value: &JsValue) -> JsValue {
    let object = js_sys::Object::new();
    // Setting properties of a fresh object cannot fail.
    let _ = js_sys::Reflect::set(
        &object,
        &JsValue::from_str("type"),
        &JsValue::from_str(kind),
    );
    let _ = js_sys::Reflect::set(&object, &JsValue::from_str(name), value);
    object.into()
}

/// What the user's clock shows, as JavaScript's `Date` has it.
fn local_now() -> DateTime {
    let now = js_sys::Date::new_0();
    DateTime::from_unix(
        (now.get_time() / 1000.0).floor() as i64,
        -(now.get_timezone_offset() as i32),
    )
}

fn random_seed() -> Result<u64> {
    getrandom::u64().map_err(|e| Error::internal(format!("no random numbers: {e}; set a seed")))
}

/// An option object; a missing one is all defaults, an unknown field an error.
fn from_js<T: for<'de> Deserialize<'de>>(what: &str, value: JsValue) -> Result<T, JsValue> {
    let value = if value.is_undefined() || value.is_null() {
        js_sys::Object::new().into()
    } else {
        value
    };
    serde_wasm_bindgen::from_value(value)
        .map_err(|e| to_js_error(Error::invalid_input(format!("{what}: {e}"))))
}

fn to_js<T: Serialize>(value: &T) -> Result<JsValue, JsValue> {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .map_err(|e| to_js_error(Error::internal(format!("a result does not serialise: {e}"))))
}

fn to_js_error(error: Error) -> JsValue {
    let js = js_sys::Error::new(&error.to_string());
    js.set_name("LlameroError");
    let code = JsValue::from_str(error.kind().code());
    // Setting a property of a fresh object cannot fail.
    let _ = js_sys::Reflect::set(&js, &JsValue::from_str("code"), &code);
    js.into()
}

/// An error that JavaScript threw, its `code` kept if it is one of ours.
fn from_js_error(value: &JsValue) -> Error {
    let text = |key: &str| {
        js_sys::Reflect::get(value, &JsValue::from_str(key))
            .ok()
            .and_then(|v| v.as_string())
    };
    let kind = text("code").and_then(|code| ErrorKind::from_code(&code));
    let kind = match kind {
        Some(kind) => kind,
        None if text("name").as_deref() == Some("AbortError") => ErrorKind::Aborted,
        None => ErrorKind::Io,
    };
    Error::new(
        kind,
        text("message").unwrap_or_else(|| format!("{value:?}")),
    )
}
