//! Buffers, pipelines and bind groups for a lowered plan, made once; steps replay its recordings.

mod buffers;
mod encode;
mod inspect;
mod readback;
mod replay;
mod trace;
mod upload;

use self::replay::Replay;
use self::upload::Target;
use super::device::Gpu;
use super::kernels::Variant;
use super::lower::{Buffer, CacheType, Dispatch, Lowered, Region, RowBucket, Settings, Tuning};
use super::profile::Times;
use super::self_test::{self, Reference};
use super::tune::{self, Free};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{
    Costs, Executor, ExecutorInfo, Head, HeadCounts, Limits, Pending, SelfTest, Step, Tuned,
};
use crate::plan::{History, Plan, Sampling, TensorId, TokenMask};
use futures_core::future::LocalBoxFuture;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Rows per prefill step.
const MAX_ROWS: u32 = 256;
/// Steps in flight: enough to hide a readback. Browsers that wait 100 ms for one need more.
const RUN_AHEAD: u32 = 3;
const RUN_AHEAD_SLOW: u32 = 12;
/// Uploads between waits: bounds what the driver (or browser) keeps copies of.
const UPLOAD_WINDOW: u64 = 32 << 20;

/// Choices that tests and callers may make; `None`: what suits the device.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Makes the executor that the kernels are checked against at load; `None`: no self-test.
    pub reference: Option<Reference>,
    /// Reduce by subgroup shuffles, where the device has them.
    pub subgroups: Option<bool>,
    /// Integer dot products.
    pub int8: Option<bool>,
    /// f16 tiles, where the device has f16.
    pub f16: Option<bool>,
    /// Kernels for 2, 4 and 8 rows.
    pub columns: Option<bool>,
    /// Divide long sequences among workgroups in attention.
    pub splits: Option<bool>,
    /// Lanes that share a row in matvec: one of [`Tuning::LANES`].
    pub lanes: Option<u32>,
    /// Measure, once the weights are there, which kernels this device runs fastest, among those not chosen here.
    pub tune: bool,
    /// How keys and values are stored; f16 by default.
    pub cache: Option<CacheType>,
    /// Split weights as if larger buffers could not be bound.
    pub max_binding: Option<u64>,
    /// Rows per step.
    pub max_rows: Option<u32>,
    /// Steps in flight.
    pub run_ahead: Option<u32>,
}

/// Runs a plan on a GPU.
pub struct GpuExecutor {
    gpu: Gpu,
    lowered: Lowered,
    buffers: HashMap<Buffer, wgpu::Buffer>,
    /// For each tensor, where its rows go.
    targets: HashMap<TensorId, Vec<Target>>,
    /// By bucket, where the rows lie, and whether attention is split.
    recordings: HashMap<(RowBucket, Region, bool), Replay>,
    /// Heads of the sampled region, one per row.
    sampled: Vec<Head>,
    /// No row of the sampled region lies beyond this position.
    sampled_pos: u32,
    /// For ids alone.
    staging: Rc<RefCell<Vec<wgpu::Buffer>>>,
    /// For logits and more, of several sizes.
    wide_staging: Rc<RefCell<Vec<wgpu::Buffer>>>,
    /// Bytes written since the last wait.
    uploaded: u64,
    weight_bytes: u64,
    cache_bytes: u64,
    rows_of_last_step: u32,
    /// Errors of pipelines in the making.
    compiling: Vec<LocalBoxFuture<'static, Option<wgpu::Error>>>,
    reference: Option<Reference>,
    self_test: Option<SelfTest>,
    /// What the tuning run may choose; taken by it.
    tune: Option<Free>,
    tuned: Option<Tuned>,
    times: Rc<RefCell<Times>>,
    /// Norm weights, for [`Inspect::poke`].
    norms: HashMap<TensorId, Vec<f32>>,
}

impl std::fmt::Debug for GpuExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuExecutor").finish_non_exhaustive()
    }
}

impl GpuExecutor {
    /// Allocates everything for contexts of `context` positions and compiles the pipelines. Weights come after.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ModelTooLarge`] where the device has no room for weights and cache, [`ErrorKind::InvalidInput`] for lanes that
    /// no kernel has, and the errors of [`Lowered::new`] and [`Lowered::record`].
    pub async fn new(gpu: &Gpu, plan: Plan, context: u32, options: &GpuOptions) -> Result<Self> {
        let capabilities = gpu.capabilities();
        let run_ahead = if capabilities.slow_await {
            RUN_AHEAD_SLOW
        } else {
            RUN_AHEAD
        };
        let max_rows = options.max_rows.unwrap_or(MAX_ROWS);
        if let Some(lanes) = options.lanes.filter(|lanes| !Tuning::LANES.contains(lanes)) {
            return Err(Error::invalid_input(format!(
                "lanes is {lanes}; it may be 4, 8, 16, 32 or 64"
            )));
        }
        let tuning = capabilities.tuning();
        let tuning = Tuning {
            subgroups: options.subgroups.unwrap_or(tuning.subgroups) && capabilities.subgroups,
            int8: options.int8.unwrap_or(tuning.int8),
            f16: options.f16.unwrap_or(tuning.f16) && capabilities.shader_f16,
            columns: options.columns.unwrap_or(tuning.columns),
            splits: options.splits.unwrap_or(tuning.splits),
            lanes: options.lanes,
        };
        let max_binding = options
            .max_binding
            .unwrap_or(u64::MAX)
            .min(capabilities.max_binding);
        let limits = Limits::for_context(context, max_rows, options.run_ahead.unwrap_or(run_ahead));
        let settings = Settings::new(
            tuning,
            options.cache.unwrap_or_default(),
            max_binding,
            limits,
        );
        let mut executor = Self::with_settings(gpu, plan, settings).await?;
        executor.reference = options.reference;
        executor.tune = options.tune.then(|| Free {
            subgroups: options.subgroups.is_none() && capabilities.subgroups,
            int8: options.int8.is_none(),
            lanes: options.lanes.is_none(),
        });
        Ok(executor)
    }

    /// As lowered by these settings; [`Executor::ready`] tells whether the pipelines came to be.
    pub(super) async fn with_settings(gpu: &Gpu, plan: Plan, settings: Settings) -> Result<Self> {
        let lowered = Lowered::new(plan, settings)?;
        let is_trial = lowered.settings.trial.is_some();
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let built = Self::build(gpu, lowered);
        let popped = scope.pop();
        // A trial is small, and a wait may be long.
        let out_of_memory = if is_trial { None } else { popped.await };
        let mut executor = built?;
        if let Some(error) = out_of_memory {
            return Err(Error::new(
                ErrorKind::ModelTooLarge,
                format!(
                    "the GPU has no room for {} MB of weights and {} MB of cache; use a smaller model or a smaller \
                     max_context",
                    executor.weight_bytes >> 20,
                    executor.cache_bytes >> 20
                ),
            )
            .with_source(error.to_string()));
        }
        executor.record_all()?;
        Ok(executor)
    }

    /// Resolves when all pipelines are made.
    pub(super) async fn compiled(&mut self) -> Result<()> {
        for compiling in std::mem::take(&mut self.compiling) {
            if let Some(error) = compiling.await {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "this GPU's driver refused a kernel; please report it",
                )
                .with_source(error.to_string()));
            }
        }
        Ok(())
    }

    /// Records again, without the variants that the self-test found wrong.
    pub(super) fn replace(&mut self, wrong: Vec<Variant>) -> Result<()> {
        self.lowered.settings.wrong.extend(wrong);
        self.recordings.clear();
        self.record_all()
    }

    /// Records again, with other kernels.
    pub(super) async fn retune(&mut self, tuning: Tuning) -> Result<()> {
        if self.lowered.settings.tuning != tuning {
            self.lowered.settings.tuning = tuning;
            self.recordings.clear();
            self.record_all()?;
            self.compiled().await?;
        }
        Ok(())
    }

    /// Every dispatch that some step may run, and in which bucket.
    pub(super) fn dispatches(&self) -> impl Iterator<Item = (RowBucket, bool, &Dispatch)> {
        self.recordings
            .iter()
            .flat_map(|((bucket, _, split), replay)| {
                let body = replay
                    .body
                    .iter()
                    .chain(&replay.sample)
                    .map(move |command| (*bucket, *split, &command.dispatch));
                let heads = replay.heads.iter();
                body.chain(heads.flat_map(move |(bucket, head)| {
                    head.iter().map(move |c| (*bucket, *split, &c.dispatch))
                }))
            })
    }

    /// What the device did so far.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The lowered plan.
    pub fn lowered(&self) -> &Lowered {
        &self.lowered
    }
}

impl Executor for GpuExecutor {
    fn info(&self) -> ExecutorInfo {
        let capabilities = self.gpu.capabilities();
        let settings = &self.lowered.settings;
        let mut features = Vec::new();
        for (name, on) in [
            ("subgroups", settings.tuning.subgroups),
            ("int8", settings.tuning.int8),
            ("shader-f16", settings.tuning.f16),
            ("columns", settings.tuning.columns),
            ("splits", settings.tuning.splits),
        ] {
            if on {
                features.push(name.to_owned());
            }
        }
        ExecutorInfo {
            kind: "webgpu".into(),
            name: capabilities.name.clone(),
            vendor: capabilities.vendor.clone(),
            architecture: capabilities.architecture.clone(),
            software: capabilities.software,
            features,
            weight_bytes: self.weight_bytes,
            cache_bytes: self.cache_bytes,
            cache_type: settings.cache.name().into(),
            lanes: settings.tuning.lanes,
            tuned: self.tuned.clone(),
            self_test: self.self_test.clone(),
        }
    }

    fn limits(&self) -> Limits {
        self.lowered.settings.limits
    }

    fn costs(&self) -> Costs {
        let counters = self.gpu.counters();
        let times = self.times.borrow();
        Costs {
            steps: counters.steps.get(),
            dispatches: counters.dispatches.get(),
            encode_seconds: counters.encode_micros.get() / 1e6,
            kernels: times
                .iter()
                .map(|(name, (count, seconds))| (name.clone(), *count, *seconds))
                .collect(),
        }
    }

    fn load_rows(&mut self, tensor: TensorId, first_row: u64, bytes: &[u8]) -> Result<()> {
        self.upload_rows(tensor, first_row, bytes)
    }

    fn flush_loads(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        if self.uploaded < UPLOAD_WINDOW {
            return Box::pin(std::future::ready(Ok(())));
        }
        self.uploaded = 0;
        Box::pin(self.gpu.idle())
    }

    fn ready(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.compiled().await?;
            if let Some(free) = self.tune.take() {
                self.tuned = Some(tune::run(self, free).await?);
            }
            if let Some(reference) = self.reference {
                self.self_test = Some(self_test::run(self, reference).await?);
            }
            Ok(())
        })
    }

    fn set_pages(&mut self, seq: u32, pages: &[u32]) -> Result<()> {
        self.write_pages(seq, pages)
    }

    fn set_sampling(&mut self, seq: u32, sampling: &Sampling, history: History<'_>) -> Result<()> {
        self.write_sampling(seq, sampling, history)
    }

    fn set_mask(&mut self, seq: u32, mask: &TokenMask) -> Result<()> {
        self.write_mask(seq, mask)
    }

    fn submit(&mut self, step: Step<'_>) -> Result<Pending> {
        match step {
            Step::Rows {
                rows,
                heads,
                trace: None,
            } => {
                let last = self.write_rows(rows, heads, HeadCounts::of(heads)?)?;
                self.rows_of_last_step = rows.len() as u32;
                self.run(Region::Host, rows.len() as u32, last, heads)
            }
            Step::Rows {
                rows,
                heads,
                trace: Some(trace),
            } => self.run_traced(rows, heads, trace),
            Step::Next => {
                if self.sampled.is_empty() {
                    return Err(Error::internal("no sampled tokens to go on from"));
                }
                let pos = self.sampled_pos;
                self.sampled_pos += 1;
                let heads = self.sampled.clone();
                self.run(Region::Sampled, heads.len() as u32, pos, &heads)
            }
        }
    }
}
