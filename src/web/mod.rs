//! The crate for JavaScript: the one module that knows it. Runs in a worker; `www/lib` is the other half.
//!
//! Options and results are plain objects; errors are `Error`s with a `code`. Nothing here has logic of its own.

mod errors;
mod source;
#[cfg(not(feature = "tokenizer-json"))]
mod tokenizers;

use crate::engine::{
    Chat, Costs, DecodeOptions, EmbedRequest, Event, JobResult, LoadHost, LoadOptions, LoadPhase,
    Model, ModelInfo, Opened, Progress, Request, RequestId, ScoreRequest, TemplateOptions,
    TextOrIds, Update, apply_chat_template,
};
use crate::error::{Error, Result};
use crate::exec::LocalBoxFuture;
#[cfg(feature = "cpu")]
use crate::exec::cpu::Pool;
use crate::exec::gpu::Gpu;
use crate::format::ByteSource;
use crate::tokenizer::{DateTime, EncodeOptions, Tokenizer};
use errors::{from_js_error, to_js_error};
use serde::{Deserialize, Serialize};
use source::{JsSource, SourceAdapter};
use std::cell::{RefCell, RefMut};
use std::fmt;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// Threads where the caller names none and JavaScript does not know the processor better.
#[cfg(feature = "cpu")]
const MAX_THREADS: u32 = 8;

/// What the declarations below name; `www/lib/generated` is made from the structs of the same names.
#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r"import type {
  ChatTemplateOptions,
  Costs,
  DecodeOptions,
  EncodeOptions,
  EngineOptions,
  EngineProgress,
  EmbedRequest,
  Event,
  GenerationRequest,
  GenerationResult,
  ModelInfo,
  Score,
  ScoreRequest,
  TextOrIds,
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
  /** Logits of positions from `first` on, `[positions, vocab]`. */
  | { type: 'logits'; first: number; values: Float32Array }
  | { type: 'done'; result: GenerationResult | Score[] | Float32Array[] | number }
  | { type: 'failed'; error: unknown };

/** Starts workers that share the engine's memory; resolves with how many are about to join. */
export type StartThreads = (
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  handle: number,
  count: number,
) => Promise<number>;
";

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// A loaded model.
#[wasm_bindgen]
pub struct Engine {
    model: Rc<RefCell<Model>>,
    /// Where the engine runs on one.
    gpu: Option<Gpu>,
    tokenizer: Option<Tokenizer>,
    info: ModelInfo,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The model may be borrowed by a call.
        f.debug_struct("Engine")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
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
        let mut callbacks = Callbacks {
            on_progress,
            on_opened,
            start_threads,
        };
        let model = Model::load(sources, &options, &mut callbacks)
            .await
            .map_err(to_js_error)?;
        Ok(Engine {
            info: ModelInfo::new(&model),
            gpu: model.gpu().cloned(),
            tokenizer: model.tokenizer().ok().cloned(),
            model: Rc::new(RefCell::new(model)),
        })
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
        #[wasm_bindgen(unchecked_param_type = "GenerationRequest")] request: JsValue,
    ) -> Result<f64, JsValue> {
        let request = Request {
            now: Some(local_now()),
            ..from_js("generate", request)?
        };
        let seed = random_seed().map_err(to_js_error)?;
        let id = self.model()?.enqueue(&request, seed).map_err(to_js_error)?;
        Ok(id.0 as f64)
    }

    /// Runs all requests on by one step, one call at a time. `on_update(id, update)` gets what happened: events as
    /// [`Event`](crate::engine::Event) writes them, and last `{type: "done", result}` or `{type: "failed", error}`. False: nothing is
    /// left to run.
    pub async fn step(
        &self,
        #[wasm_bindgen(unchecked_param_type = "(id: number, update: Update) => void")]
        on_update: js_sys::Function,
    ) -> Result<bool, JsValue> {
        let pending = self.model()?.advance();
        // What was cancelled is answered before a step is waited for.
        self.tell(&on_update)?;
        let Some(pending) = pending else {
            return Ok(false);
        };
        // Nothing is borrowed meanwhile: requests may come and be cancelled.
        let output = pending.await;
        self.model()?.arrived(output);
        self.tell(&on_update)?;
        Ok(true)
    }

    /// Ends a request: the next call of [`Engine::updates`] or [`Engine::step`] gives its result. That of a generation is what
    /// it has by now, with finish reason `aborted`; others fail with code `aborted`.
    pub fn cancel(&self, id: f64) -> Result<(), JsValue> {
        self.model()?.cancel(RequestId(id as u64));
        Ok(())
    }

    /// Queues the logits of every position of a text or of ids, which events of type `logits` tell. Returns its id.
    pub fn enqueue_logits(
        &self,
        #[wasm_bindgen(unchecked_param_type = "TextOrIds")] text: JsValue,
    ) -> Result<f64, JsValue> {
        let text: TextOrIds = from_js("logits", text)?;
        let id = self.model()?.enqueue_logits(&text).map_err(to_js_error)?;
        Ok(id.0 as f64)
    }

    /// Queues the scoring of continuations. Returns its id.
    pub fn enqueue_score(
        &self,
        #[wasm_bindgen(unchecked_param_type = "ScoreRequest")] request: JsValue,
    ) -> Result<f64, JsValue> {
        let request: ScoreRequest = from_js("score", request)?;
        let id = self.model()?.enqueue_score(&request).map_err(to_js_error)?;
        Ok(id.0 as f64)
    }

    /// Queues the embedding of texts. Returns its id.
    pub fn enqueue_embed(
        &self,
        #[wasm_bindgen(unchecked_param_type = "EmbedRequest")] request: JsValue,
    ) -> Result<f64, JsValue> {
        let request: EmbedRequest = from_js("embed", request)?;
        let id = self.model()?.enqueue_embed(&request).map_err(to_js_error)?;
        Ok(id.0 as f64)
    }

    /// Tells what happened since the last call, as [`Engine::step`] does.
    pub fn updates(
        &self,
        #[wasm_bindgen(unchecked_param_type = "(id: number, update: Update) => void")]
        on_update: &js_sys::Function,
    ) -> Result<(), JsValue> {
        self.tell(on_update)
    }

    /// What steps cost so far, and the bytes that one reads.
    #[wasm_bindgen(unchecked_return_type = "Costs")]
    pub fn costs(&self) -> Result<JsValue, JsValue> {
        to_js(&Costs::new(&*self.model()?))
    }

    /// Bytes per second of copies on the GPU; `undefined` on the CPU. Steps beside it make it less.
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
        let updates = self.model()?.updates();
        for (id, update) in updates {
            let update = match update {
                Update::Event(Event::Logits { first, values }) => {
                    let update = object(
                        "logits",
                        "values",
                        &js_sys::Float32Array::from(&values[..]).into(),
                    );
                    js_sys::Reflect::set(&update, &"first".into(), &first.into())?;
                    update
                }
                Update::Event(event) => to_js(&event)?,
                Update::Done(Ok(result)) => object("done", "result", &result_to_js(result)?),
                Update::Done(Err(error)) => object("failed", "error", &to_js_error(error)),
            };
            on_update.call2(&JsValue::NULL, &JsValue::from_f64(id.0 as f64), &update)?;
        }
        Ok(())
    }

    /// The model. No call borrows it over an await.
    fn model(&self) -> Result<RefMut<'_, Model>, JsValue> {
        self.model.try_borrow_mut().map_err(|_| to_js_error(busy()))
    }

    fn tokenizer(&self) -> Result<&Tokenizer, JsValue> {
        self.tokenizer.as_ref().ok_or_else(|| {
            to_js_error(Error::invalid_input(
                "this model came without a tokenizer; add its tokenizer.json to its files",
            ))
        })
    }
}

/// What the page's callbacks do during a load.
struct Callbacks {
    on_progress: js_sys::Function,
    on_opened: js_sys::Function,
    #[cfg_attr(
        not(feature = "cpu"),
        expect(dead_code, reason = "a GPU has no use for threads")
    )]
    start_threads: js_sys::Function,
}

impl LoadHost for Callbacks {
    fn progress(&mut self, phase: LoadPhase, loaded: u64, total: u64) -> Result<()> {
        let value = to_js(&Progress {
            phase,
            loaded,
            total,
        })
        .map_err(|_| Error::internal("progress does not serialise"))?;
        self.on_progress
            .call1(&JsValue::NULL, &value)
            .map(drop)
            .map_err(|e| from_js_error(&e))
    }

    fn opened(&mut self, _: &Opened) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async {
            let go_on = self
                .on_opened
                .call0(&JsValue::NULL)
                .map_err(|e| from_js_error(&e))?;
            JsFuture::from(js_sys::Promise::resolve(&go_on))
                .await
                .map(drop)
                .map_err(|e| from_js_error(&e))
        })
    }

    #[cfg(feature = "cpu")]
    fn pool(&mut self, threads: Option<u32>) -> LocalBoxFuture<'_, Result<Pool>> {
        Box::pin(async move {
            let pool = Pool::new();
            let others = threads.unwrap_or(MAX_THREADS) - 1;
            if !cfg!(target_feature = "atomics") || others == 0 {
                return Ok(pool);
            }
            let arguments = js_sys::Array::of4(
                &wasm_bindgen::module(),
                &wasm_bindgen::memory(),
                &JsValue::from(pool.handle() as u32),
                &JsValue::from(others),
            );
            let started = self
                .start_threads
                .apply(&JsValue::NULL, &arguments)
                .map_err(|e| from_js_error(&e))?;
            if let Ok(promise) = started.dyn_into::<js_sys::Promise>() {
                let started = JsFuture::from(promise)
                    .await
                    .map_err(|e| from_js_error(&e))?;
                pool.wait_for(1 + started.as_f64().unwrap_or(0.0) as usize);
            }
            Ok(pool)
        })
    }
}

/// What a worker that shares this module's memory does: works for the pool, until its worker is ended.
#[cfg(feature = "cpu")]
#[wasm_bindgen]
pub fn join_pool(handle: u32) {
    // SAFETY: the handle went from `Callbacks::pool` to JavaScript and back.
    unsafe { Pool::join(handle as usize) }
}

/// Says that [`join_pool`] ended by a trap in another worker.
#[cfg(feature = "cpu")]
#[wasm_bindgen]
pub fn pool_died(handle: u32) {
    // SAFETY: as above.
    unsafe { Pool::died(handle as usize) }
}

fn busy() -> Error {
    Error::invalid_input("this model is busy: await (or cancel) the request before")
}

/// A job's result for JavaScript.
fn result_to_js(result: JobResult) -> Result<JsValue, JsValue> {
    match result {
        JobResult::Generation(generation) => to_js(&generation),
        JobResult::Scores(scores) => to_js(&scores),
        JobResult::Logits(positions) => Ok(positions.into()),
        JobResult::Embeddings(vectors) => Ok(vectors
            .iter()
            .map(|vector| js_sys::Float32Array::from(&vector[..]))
            .collect::<js_sys::Array>()
            .into()),
        JobResult::Captured(_) => Err(to_js_error(Error::unsupported(
            "captured values have no form in JavaScript yet",
        ))),
    }
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
