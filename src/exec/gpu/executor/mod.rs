//! Buffers, pipelines and bind groups for a lowered plan, made once; steps replay its recordings.

mod inspect;
mod readback;
mod replay;
mod trace;

use self::readback::Readback;
use self::replay::{Command, Replay};
use super::device::{Gpu, add};
use super::kernels::{self, Variant};
use super::lower::{
    Buffer, CacheType, Dispatch, Lowered, Region, RowBucket, Settings, Tuning, splits,
};
use super::profile::{Timed, Times};
use super::self_test::{self, Reference};
use super::state::{AdjustmentLayout, device_sampling, region_words};
use super::tune::{self, Free};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{
    Costs, Executor, ExecutorInfo, Head, HeadCounts, Limits, Pending, SelfTest, Step, Tuned,
};
use crate::plan::{History, MAX_BIASES, Plan, Row, Sampling, TensorId, TokenCounts, TokenMask};
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

/// Where some rows of a tensor go.
#[derive(Clone, Debug)]
enum Target {
    /// Into a matrix part: tensor rows `first..end` start at row `at` of the part.
    Rows {
        part: usize,
        first: u64,
        end: u64,
        at: u64,
    },
    /// Values `first..end` into the bias of a matrix part, from its element `at` on.
    Bias {
        part: usize,
        first: u64,
        end: u64,
        at: u64,
    },
    /// The whole vector, as f32.
    Norm,
}

/// Where each tensor goes.
fn targets(lowered: &Lowered) -> HashMap<TensorId, Vec<Target>> {
    let mut targets: HashMap<TensorId, Vec<Target>> = HashMap::new();
    for (part, stacked) in lowered.parts.iter().enumerate() {
        let mut at = 0;
        for (tensor, range) in &stacked.segments {
            let (first, end) = (range.start, range.end);
            targets.entry(*tensor).or_default().push(Target::Rows {
                part,
                first,
                end,
                at,
            });
            at += end - first;
        }
        let mut at = 0;
        for ((bias, range), (weight, _)) in stacked.biases.iter().zip(&stacked.segments) {
            let (first, end) = (range.start, range.end);
            if bias != weight {
                targets.entry(*bias).or_default().push(Target::Bias {
                    part,
                    first,
                    end,
                    at,
                });
            }
            at += end - first;
        }
    }
    for norm in &lowered.norms {
        targets.entry(*norm).or_default().push(Target::Norm);
    }
    targets
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

    fn build(gpu: &Gpu, lowered: Lowered) -> Result<Self> {
        let plan = &lowered.plan;
        let limits = lowered.settings.limits;
        let storage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC;
        let mut buffers = HashMap::new();
        let mut add_buffer = |slot: Buffer, size: u64| -> Result<()> {
            if size > gpu.capabilities().max_binding {
                return Err(Error::new(
                    ErrorKind::ModelTooLarge,
                    format!(
                        "{slot:?} needs {} MB in one binding; this device binds at most {} MB: use a smaller max_context",
                        size >> 20,
                        gpu.capabilities().max_binding >> 20
                    ),
                ));
            }
            buffers.insert(
                slot,
                gpu.buffer(&format!("{slot:?}"), size.max(16), storage)?,
            );
            Ok(())
        };

        let mut weight_bytes = 0;
        for (i, part) in lowered.parts.iter().enumerate() {
            add_buffer(Buffer::Weights(i), part.weights_bytes())?;
            add_buffer(Buffer::Scales(i), part.scales_bytes())?;
            weight_bytes += part.weights_bytes() + part.scales_bytes();
        }
        for norm in &lowered.norms {
            add_buffer(Buffer::Norm(*norm), plan.tensor(*norm).cols * 4)?;
        }

        let mut cache_bytes = 0;
        for (slot, bytes) in lowered.buffers() {
            add_buffer(slot, bytes)?;
            if matches!(slot, Buffer::Cache(_)) {
                cache_bytes += bytes;
            }
        }
        let mut ropes = Vec::new();
        for i in 0..plan.ropes.len().max(1) {
            let table = if i < plan.ropes.len() {
                lowered.rope_table(i, limits.max_context())
            } else {
                vec![[1.0, 0.0]]
            };
            add_buffer(Buffer::Rope(i), (table.len() * 8) as u64)?;
            ropes.push(table);
        }
        for (i, table) in ropes.iter().enumerate() {
            gpu.write(&buffers[&Buffer::Rope(i)], 0, bytemuck::cast_slice(table));
        }
        Ok(Self {
            gpu: gpu.clone(),
            buffers,
            targets: targets(&lowered),
            recordings: HashMap::new(),
            sampled: Vec::new(),
            sampled_pos: 0,
            staging: Rc::default(),
            wide_staging: Rc::default(),
            uploaded: 0,
            weight_bytes,
            cache_bytes,
            rows_of_last_step: 0,
            compiling: Vec::new(),
            reference: None,
            self_test: None,
            tune: None,
            tuned: None,
            times: Rc::default(),
            norms: HashMap::new(),
            lowered,
        })
    }

    /// Writes a step's rows into the state; gives their last position.
    fn write_rows(&mut self, rows: &[Row], heads: &[Head], counts: HeadCounts) -> Result<u32> {
        let limits = self.lowered.settings.limits;
        if rows.is_empty()
            || rows.len() > limits.max_rows as usize
            || heads.len() > limits.max_heads as usize
        {
            return Err(Error::internal(format!(
                "a step of {} rows, {} heads",
                rows.len(),
                heads.len()
            )));
        }
        let words = region_words(rows, heads, counts);
        let offset = u64::from(self.lowered.state.host_at) * 4;
        self.gpu.write(
            &self.buffers[&Buffer::State],
            offset,
            bytemuck::cast_slice(&words),
        );
        let last = rows.iter().map(|row| row.pos).max().unwrap_or(0);
        let next = &heads[..counts.next as usize];
        if !next.is_empty() {
            self.sampled = (0..)
                .zip(next)
                .map(|(row, head)| Head { row, ..*head })
                .collect();
            let ends = next.iter().map(|head| rows[head.row as usize].pos + 1);
            self.sampled_pos = ends.max().unwrap_or(0);
        }
        Ok(last)
    }

    /// Encodes and submits one step, whose rows lie at `pos` or before.
    fn run(&mut self, region: Region, tokens: u32, pos: u32, heads: &[Head]) -> Result<Pending> {
        self.gpu.check()?;
        let counts = HeadCounts::of(heads)?;
        let bucket = self.lowered.settings.bucket(tokens);
        let few = matches!(bucket, RowBucket::Few(_));
        let split = few && self.lowered.split_from().is_some_and(|from| pos >= from);
        let splits = splits(pos, self.lowered.settings.limits.page_size);
        let readback = Readback::new(&self.lowered, &self.norms, heads, counts)?;
        let staging = self.staging_for(&readback)?;
        let replay = self
            .recordings
            .get(&(bucket, region, split))
            .ok_or_else(|| Error::internal(format!("no recording of {bucket:?} {region:?}")))?;
        let mut before: Vec<(&[Command], u32)> = vec![(&replay.body, counts.logits)];
        if counts.logits > 0 {
            let bucket = self.lowered.settings.bucket(counts.logits);
            let head = replay.heads.iter().find(|(s, _)| *s == bucket);
            // A plan that ends before its head (tests have such) has none.
            before.extend(head.map(|(_, head)| (head.as_slice(), counts.logits)));
        }
        let mut after: Vec<(&[Command], u32)> = Vec::new();
        if counts.drawn > 0 {
            // Sampling changes logits in place: those that are read back are copied first, between two passes.
            let list = if readback.logits.is_empty() {
                &mut before
            } else {
                &mut after
            };
            list.push((&replay.sample, counts.drawn));
        }
        let counters = self.gpu.counters();
        let began = web_time::Instant::now();
        let mut profile = match self.gpu.capabilities().timestamps {
            true => Some(Timed::new(&self.gpu)?),
            false => None,
        };
        let mut encoder = self
            .gpu
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor {
                label: Some("step"),
            });
        for (pass, lists) in [before, after].into_iter().enumerate() {
            if lists.is_empty() {
                continue;
            }
            if pass == 1 {
                readback.copy_logits(&mut encoder, &self.buffers, &staging)?;
            }
            let commands = lists.into_iter().flat_map(|(list, heads)| {
                list.iter().map(move |command| {
                    let grid = command.dispatch.grid(tokens, heads, splits);
                    (command, grid)
                })
            });
            self.encode(&mut encoder, commands, profile.as_mut());
        }
        if let Some(timed) = &mut profile {
            timed.resolve(&mut encoder);
        }
        if counts.drawn == 0 {
            readback.copy_logits(&mut encoder, &self.buffers, &staging)?;
        }
        readback.copy_rest(&mut encoder, &self.buffers, &staging)?;
        add(&counters.submits, 1);
        add(&counters.steps, 1);
        self.gpu.queue.submit([encoder.finish()]);
        let pending = self.pending(readback, staging, Vec::new());
        let counters = self.gpu.counters();
        counters
            .encode_micros
            .set(counters.encode_micros.get() + began.elapsed().as_secs_f64() * 1e6);
        let Some(timed) = profile else {
            return Ok(pending);
        };
        let (gpu, times) = (self.gpu.clone(), self.times.clone());
        Ok(Box::pin(async move {
            let output = pending.await?;
            timed.collect(&gpu, &times).await?;
            Ok(output)
        }))
    }

    /// Encodes commands with their grids, in one pass; each in its own where they are timed.
    fn encode<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        commands: impl Iterator<Item = (&'a Command, (u32, u32))>,
        profile: Option<&mut Timed>,
    ) {
        let counters = self.gpu.counters();
        if let Some(timed) = profile {
            for (command, grid) in commands {
                timed.dispatch(
                    encoder,
                    &command.pipeline,
                    &command.bind_group,
                    grid,
                    &command.dispatch.variant,
                );
                add(&counters.passes, 1);
                add(&counters.dispatches, 1);
            }
            return;
        }
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        add(&counters.passes, 1);
        let mut current: Option<&Rc<wgpu::ComputePipeline>> = None;
        for (command, (x, y)) in commands {
            if !current.is_some_and(|p| Rc::ptr_eq(p, &command.pipeline)) {
                pass.set_pipeline(&command.pipeline);
                current = Some(&command.pipeline);
            }
            pass.set_bind_group(0, &command.bind_group, &[]);
            pass.dispatch_workgroups(x, y, 1);
            add(&counters.dispatches, 1);
        }
    }

    fn staging_buffer(&self, size: u64) -> Result<wgpu::Buffer> {
        self.gpu.buffer(
            "staging",
            size,
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        )
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
        let spec = self.lowered.plan.tensor(tensor);
        let row_bytes = spec.row_bytes();
        if row_bytes == 0 || !(bytes.len() as u64).is_multiple_of(row_bytes) {
            return Err(Error::internal(format!(
                "{} bytes are not whole rows of {row_bytes}",
                bytes.len()
            )));
        }
        let end_row = first_row + bytes.len() as u64 / row_bytes;
        let targets = self.targets.get(&tensor).cloned().unwrap_or_default();
        for target in targets {
            match target {
                Target::Rows {
                    part,
                    first,
                    end,
                    at,
                } => {
                    let (from, to) = (first.max(first_row), end.min(end_row));
                    if from >= to {
                        continue;
                    }
                    let layout = self.lowered.parts[part].layout;
                    let stored = &bytes[((from - first_row) * row_bytes) as usize
                        ..((to - first_row) * row_bytes) as usize];
                    let (mut quants, mut scales) = (Vec::new(), Vec::new());
                    layout.split(stored, &mut quants, &mut scales)?;
                    let row = at + from - first;
                    self.gpu.write(
                        &self.buffers[&Buffer::Weights(part)],
                        row * layout.quant_row_bytes(),
                        &quants,
                    );
                    if !scales.is_empty() {
                        self.gpu.write(
                            &self.buffers[&Buffer::Scales(part)],
                            row * layout.scale_row_bytes(),
                            &scales,
                        );
                    }
                    self.uploaded += (quants.len() + scales.len()) as u64;
                }
                Target::Bias {
                    part,
                    first,
                    end,
                    at,
                } => {
                    let values = dequantized(spec, bytes)?;
                    let values = &values[first as usize..end as usize];
                    let offset = (self.lowered.parts[part].bias_at() + at) * 4;
                    self.gpu.write(
                        &self.buffers[&Buffer::Scales(part)],
                        offset,
                        bytemuck::cast_slice(values),
                    );
                }
                Target::Norm => {
                    let values = dequantized(spec, bytes)?;
                    self.gpu.write(
                        &self.buffers[&Buffer::Norm(tensor)],
                        0,
                        bytemuck::cast_slice(&values),
                    );
                    self.norms.insert(tensor, values);
                }
            }
        }
        Ok(())
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
        let limits = self.lowered.settings.limits;
        if pages.len() > limits.max_pages_per_seq as usize {
            return Err(Error::internal(format!(
                "{} pages for one sequence",
                pages.len()
            )));
        }
        let offset = u64::from(self.lowered.state.pages_at + seq * limits.max_pages_per_seq) * 4;
        if !pages.is_empty() {
            self.gpu.write(
                &self.buffers[&Buffer::State],
                offset,
                bytemuck::cast_slice(pages),
            );
        }
        Ok(())
    }

    fn set_sampling(&mut self, seq: u32, sampling: &Sampling, history: History<'_>) -> Result<()> {
        let vocab = self.lowered.plan.vocab_size;
        let layout = AdjustmentLayout::new(vocab);
        let write = |at: u32, words: &[u32]| {
            let offset = (u64::from(seq) * u64::from(layout.stride) + u64::from(at)) * 4;
            self.gpu.write(
                &self.buffers[&Buffer::Adjustments],
                offset,
                bytemuck::cast_slice(words),
            );
        };
        if sampling.penalises() {
            write(0, TokenCounts::new(vocab, history)?.words());
        }
        if let Some(mask) = &sampling.mask {
            if mask.words().len() != vocab.div_ceil(32) as usize {
                return Err(Error::internal("a token mask for another vocabulary"));
            }
            write(layout.mask_at, mask.words());
        }
        if let Some(bias) = &sampling.bias {
            if bias.len() > MAX_BIASES || bias.iter().any(|(id, _)| *id >= vocab) {
                return Err(Error::internal(format!(
                    "{} biases, or one beyond the vocabulary",
                    bias.len()
                )));
            }
            let words: Vec<u32> = bias
                .iter()
                .flat_map(|(id, bias)| [*id, bias.to_bits()])
                .collect();
            write(layout.biases_at, &words);
        }
        let offset = u64::from(seq) * size_of::<kernels::Sampling>() as u64;
        self.gpu.write(
            &self.buffers[&Buffer::Sampling],
            offset,
            bytemuck::bytes_of(&device_sampling(sampling)),
        );
        Ok(())
    }

    fn set_mask(&mut self, seq: u32, mask: &TokenMask) -> Result<()> {
        let vocab = self.lowered.plan.vocab_size;
        if mask.words().len() != vocab.div_ceil(32) as usize {
            return Err(Error::internal("a token mask for another vocabulary"));
        }
        let layout = AdjustmentLayout::new(vocab);
        let at = u64::from(seq) * u64::from(layout.stride) + u64::from(layout.mask_at);
        self.gpu.write(
            &self.buffers[&Buffer::Adjustments],
            at * 4,
            bytemuck::cast_slice(mask.words()),
        );
        Ok(())
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

fn dequantized(spec: &crate::plan::TensorSpec, bytes: &[u8]) -> Result<Vec<f32>> {
    let mut values = vec![0.0; spec.cols as usize];
    spec.dtype.dequantize(bytes, &mut values)?;
    Ok(values)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytes)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}
