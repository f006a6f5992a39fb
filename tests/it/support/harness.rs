//! Executors and models for tests.

use llamero::engine::{self, Opened};
use llamero::error::Result;
use llamero::exec::cpu::{CpuExecutor, CpuOptions, Pool};
use llamero::exec::gpu::{CacheType, Gpu, GpuExecutor, GpuOptions};
use llamero::exec::reference::ReferenceExecutor;
use llamero::exec::{Executor, Head, Limits, Step, Want};
use llamero::format::{ByteSource, Checkpoint, FileSource, MemorySource};
use llamero::model::{Config, ModelPlan, load_weights, plan};
use llamero::plan::Row;
pub use llamero::quant::Random;
use llamero::quant::{DType, sample_rows};
use std::path::Path;
use std::rc::Rc;
use std::sync::Mutex;

pub const DEFAULT_MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/models/SmolLM2-135M-Instruct.Q4_1.gguf"
);

/// A model file, opened.
pub struct Model {
    pub checkpoint: Checkpoint,
    pub config: Config,
    pub model: ModelPlan,
}

pub fn open(path: &Path) -> Model {
    open_source(Rc::new(FileSource::open(path).expect("the file is there")))
}

pub fn open_bytes(bytes: Vec<u8>) -> Model {
    open_source(Rc::new(MemorySource::new("test.gguf", bytes)))
}

fn open_source(source: Rc<dyn ByteSource>) -> Model {
    pollster::block_on(async {
        let checkpoint = Checkpoint::open_gguf(vec![source]).await.expect("a GGUF");
        understand(checkpoint, None).await.expect("a model")
    })
}

/// A model at a path: a GGUF, or a folder of safetensors. `quantize` as in [`plan`].
pub fn open_model(path: &Path, quantize: Option<DType>) -> Result<Model> {
    pollster::block_on(async { understand(Checkpoint::open_path(path).await?, quantize).await })
}

async fn understand(checkpoint: Checkpoint, quantize: Option<DType>) -> Result<Model> {
    let config = Config::read(&checkpoint).await?;
    let model = plan(&config, &checkpoint, quantize)?;
    Ok(Model {
        checkpoint,
        config,
        model,
    })
}

/// Devices that no test uses now. A device keeps its compiled pipelines, so that few devices serve all tests in little
/// memory; they are never dropped, as wgpu cannot be while a thread's own storage is.
static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

struct Idle(&'static Gpu);

// SAFETY: `Lent` puts a device here when the thread of its test ends. What the test made of it is dropped by then, so
// that no other thread counts references to it.
unsafe impl Send for Idle {}

/// The device of a test's thread.
struct Lent(&'static Gpu);

impl Drop for Lent {
    fn drop(&mut self) {
        IDLE.lock().expect("no panic inside").push(Idle(self.0));
    }
}

/// The device of this thread's test.
pub fn gpu() -> Gpu {
    thread_local! {
        static LENT: Lent = {
            let idle = IDLE.lock().expect("no panic inside").pop();
            Lent(match idle {
                Some(Idle(gpu)) => gpu,
                None => Box::leak(Box::new(
                    pollster::block_on(Gpu::request()).expect("a Vulkan driver that works"),
                )),
            })
        };
    }
    LENT.with(|lent| lent.0.clone())
}

/// Kernels that are exact but for the order of sums, with exact caches: those that run anywhere, and the fast ones.
pub fn gpu_variants() -> Vec<(&'static str, GpuOptions)> {
    let plain = GpuOptions {
        subgroups: Some(false),
        int8: Some(false),
        f16: Some(false),
        columns: Some(false),
        splits: Some(false),
        cache: Some(CacheType::F32),
        ..GpuOptions::default()
    };
    let columns = GpuOptions {
        columns: Some(true),
        splits: Some(true),
        ..plain.clone()
    };
    let mut variants = vec![("plain", plain), ("plain, columns", columns.clone())];
    if gpu().capabilities().subgroups {
        variants.push((
            "subgroups, columns",
            GpuOptions {
                subgroups: Some(true),
                ..columns
            },
        ));
    }
    variants
}

/// Of `gpu_variants` the fastest, which devices with all features use. Every kernel's tests run all of them every day
/// (kernels.rs, `self_test.rs`); whole models run the others with `./build.sh test --all`.
pub fn everyday_variants() -> Vec<(&'static str, GpuOptions)> {
    gpu_variants().split_off(gpu_variants().len() - 1)
}

/// Those of `gpu_variants` that are not among `everyday_variants`.
pub fn other_variants() -> Vec<(&'static str, GpuOptions)> {
    let mut variants = gpu_variants();
    variants.pop();
    variants
}

/// Kernels that round activations.
pub fn rounding_variants() -> Vec<(&'static str, GpuOptions)> {
    let (_, columns) = gpu_variants().pop().expect("there are some");
    let mut variants = vec![(
        "int8",
        GpuOptions {
            int8: Some(true),
            ..columns.clone()
        },
    )];
    if gpu().capabilities().shader_f16 {
        variants.push((
            "f16",
            GpuOptions {
                f16: Some(true),
                ..columns
            },
        ));
    }
    variants
}

pub fn reference(model: &Model, context: u32) -> ReferenceExecutor {
    let limits = Limits::for_context(context, 64, 1);
    let mut executor = ReferenceExecutor::new(model.model.plan.clone(), limits).expect("memory");
    fill(model, &mut executor);
    executor
}

pub fn on_gpu(model: &Model, context: u32, options: &GpuOptions) -> GpuExecutor {
    let plan = model.model.plan.clone();
    let mut executor = pollster::block_on(GpuExecutor::new(&gpu(), plan, context, options))
        .expect("a GPU executor");
    fill(model, &mut executor);
    pollster::block_on(executor.ready()).expect("kernels");
    executor
}

pub fn on_cpu(model: &Model, context: u32, threads: usize, cache_f16: bool) -> CpuExecutor {
    let pool = Some(Pool::with_threads(threads));
    let options = CpuOptions {
        pool,
        cache_f16: Some(cache_f16),
        ..CpuOptions::default()
    };
    let mut executor =
        CpuExecutor::new(model.model.plan.clone(), context, options).expect("memory");
    fill(model, &mut executor);
    executor
}

pub fn fill(model: &Model, executor: &mut dyn Executor) {
    pollster::block_on(load_weights(
        &model.model,
        &model.checkpoint,
        executor,
        |_| Ok(()),
    ))
    .expect("weights load");
}

/// Gives sequence 0 all pages, in reverse order: a cache that ignored the page table would fail.
pub fn assign_pages(executor: &mut dyn Executor) {
    let pages: Vec<u32> = (0..executor.limits().num_pages).rev().collect();
    executor.set_pages(0, &pages).expect("pages");
}

/// Logits of every position, `step` tokens at a time.
pub fn logits(executor: &mut dyn Executor, ids: &[u32], step: usize) -> Vec<f32> {
    assign_pages(executor);
    let mut out = Vec::new();
    for (chunk, tokens) in ids.chunks(step).enumerate() {
        let rows: Vec<Row> = tokens
            .iter()
            .enumerate()
            .map(|(i, token)| Row {
                token: *token,
                seq: 0,
                pos: (chunk * step + i) as u32,
            })
            .collect();
        let heads: Vec<u32> = (0..rows.len() as u32).collect();
        let step = Step::Rows {
            rows: &rows,
            heads: &Head::all(&heads, Want::LOGITS),
            trace: None,
        };
        let output = pollster::block_on(executor.submit(step).expect("a step"));
        out.extend(output.expect("logits").logits());
    }
    out
}

/// Greedy continuation by [`Step::Next`], several steps in flight.
pub fn greedy(executor: &mut dyn Executor, ids: &[u32], count: usize) -> Vec<u32> {
    assign_pages(executor);
    let rows: Vec<Row> = ids
        .iter()
        .enumerate()
        .map(|(pos, token)| Row {
            token: *token,
            seq: 0,
            pos: pos as u32,
        })
        .collect();
    let max = executor.limits().max_rows as usize;
    let last = (rows.len() - 1) / max * max;
    for chunk in rows[..last].chunks(max) {
        let step = Step::Rows {
            rows: chunk,
            heads: &[],
            trace: None,
        };
        pollster::block_on(executor.submit(step).expect("a step")).expect("prefill");
    }
    let head = [(rows.len() - last) as u32 - 1];
    let step = Step::Rows {
        rows: &rows[last..],
        heads: &Head::all(&head, Want::ID),
        trace: None,
    };
    let mut pending = vec![executor.submit(step).expect("a step")];
    for _ in 1..count {
        pending.push(executor.submit(Step::Next).expect("a step"));
    }
    pending
        .into_iter()
        .map(|p| pollster::block_on(p).expect("a token").ids()[0])
        .collect()
}

/// Largest difference, with where it is. NaN counts as infinite.
pub fn worst(got: &[f32], want: &[f32]) -> (f32, usize) {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let mut worst = (0.0, 0);
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let d = (g - w).abs();
        let d = if d.is_nan() { f32::INFINITY } else { d };
        if d > worst.0 {
            worst = (d, i);
        }
    }
    worst
}

#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    let (difference, at) = worst(got, want);
    assert!(
        difference <= tolerance,
        "{what}: value {at} of {} is {}, expected {} (off by {difference}, allowed {tolerance})",
        got.len(),
        got[at],
        want[at]
    );
}

pub fn ids(value: &serde_json::Value) -> Vec<u32> {
    value
        .as_array()
        .expect("an array")
        .iter()
        .map(|v| v.as_u64().expect("an id") as u32)
        .collect()
}

/// A model with random weights that the command line makes, of the type; made once.
#[cfg(feature = "cli")]
pub fn tiny(dtype: &str) -> std::path::PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tiny-{dtype}.gguf"));
    if !path.exists() {
        // Tests run side by side: only a whole file may appear under its name.
        let part = path.with_extension(format!(
            "{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_llamero"))
            .args(["make", "--shape", "tiny", "--type", dtype])
            .arg(&part)
            .stdout(std::process::Stdio::null())
            .status()
            .expect("the command line runs");
        assert!(status.success(), "make --type {dtype}: {status}");
        std::fs::rename(&part, &path).expect("a rename");
    }
    path
}

pub fn engine(
    path: &Path,
    context: u32,
    make: impl FnOnce(&llamero::plan::Plan) -> Box<dyn Executor>,
) -> engine::Model {
    pollster::block_on(async {
        let opened = Opened::open_path(path, None).await.expect("a model");
        let executor = make(&opened.model.plan);
        engine::Model::with_executor(opened, executor, context, |_| Ok(()))
            .await
            .expect("weights load")
    })
}

pub fn gpu_engine(path: &Path, context: u32, options: &GpuOptions) -> engine::Model {
    engine(path, context, |plan| {
        Box::new(
            pollster::block_on(GpuExecutor::new(&gpu(), plan.clone(), context, options))
                .expect("a GPU executor"),
        )
    })
}

/// An engine on every executor that this machine has.
pub fn executors(
    path: &Path,
    context: u32,
    options: &GpuOptions,
) -> Vec<(&'static str, engine::Model)> {
    let reference = engine(path, context, |plan| {
        Box::new(
            ReferenceExecutor::new(plan.clone(), Limits::for_context(context, 64, 1))
                .expect("memory"),
        )
    });
    let cpu = engine(path, context, |plan| {
        let options = CpuOptions {
            cache_f16: options.cache.map(|cache| cache != CacheType::F32),
            ..CpuOptions::default()
        };
        Box::new(CpuExecutor::new(plan.clone(), context, options).expect("memory"))
    });
    let mut all = vec![("reference", reference), ("cpu", cpu)];
    if cfg!(gpu) {
        all.push(("gpu", gpu_engine(path, context, options)));
    }
    all
}

/// All results are the same.
#[cfg(feature = "cli")]
pub fn assert_agree<N: std::fmt::Display, T: PartialEq + std::fmt::Debug>(all: &[(N, T)]) {
    for (name, result) in &all[1..] {
        assert_eq!(*result, all[0].1, "{name} and {} differ", all[0].0);
    }
}

/// Rows of random weights of about `scale`, in any type.
pub fn random_weights(
    dtype: DType,
    rows: u64,
    cols: u64,
    scale: f32,
    random: &mut Random,
) -> Vec<u8> {
    sample_rows(dtype, rows, cols, scale, random).expect("random rows")
}
