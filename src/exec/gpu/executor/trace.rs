//! Traced steps: buffers, bind groups and a recording of their own, made for the step. Weights, cache and state are shared.

use super::super::device::add;
use super::super::kernels::FamilyId;
use super::super::lower::{Buffer, Dispatch, LOW, Lowered, Stage};
use super::GpuExecutor;
use super::readback::{Readback, floats, words};
use super::replay::PARAMS_ALIGN;
use crate::error::{Error, Result};
use crate::exec::{Head, HeadCounts, LocalBoxFuture, Pending};
use crate::plan::{Hook, Point, Role, Row, Tap, Trace, Traced, ValueId};
use std::collections::HashMap;

/// What is encoded, in order.
enum Item {
    /// A command, and its grid.
    Run(super::replay::Command, (u32, u32)),
    /// Copies the logits that heads want, before they are changed.
    CopyLogits,
    /// Copies this many bytes from an offset of a buffer into the taps' buffer.
    Copy(wgpu::Buffer, u64, u64),
}

/// Taps of a step, when they have come back.
pub(super) type TapsRead = LocalBoxFuture<'static, Result<Vec<Tap>>>;

/// A tap on its way back: where it lies in the taps' buffer.
struct Awaited {
    point: Point,
    value: ValueId,
    offset: u64,
    bytes: u64,
}

/// The dispatches of a traced step, and what is read between them.
#[derive(Default)]
struct Recorded {
    dispatches: Vec<Dispatch>,
    /// Which of them samples.
    sampling_at: Option<usize>,
    /// Before which dispatch; a buffer, from which byte on, and how many.
    copies: Vec<(usize, Buffer, u64, u64)>,
    taps: Vec<Awaited>,
    /// Of all taps.
    taps_bytes: u64,
}

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_DST)
    .union(wgpu::BufferUsages::COPY_SRC);

impl GpuExecutor {
    pub(super) fn run_traced(
        &mut self,
        rows: &[Row],
        heads: &[Head],
        trace: &Trace,
    ) -> Result<Pending> {
        self.gpu.check()?;
        let counts = HeadCounts::of(heads)?;
        let traced = Traced::of(&self.lowered.plan, trace)?;
        let last = self.write_rows(rows, heads, counts)?;
        self.rows_of_last_step = rows.len() as u32;
        let lowered = self.lowered.traced(&traced, last + 1);
        let readback = Readback::new(&lowered, &self.norms, heads, counts)?;
        let staging = self.staging_for(&readback)?;

        let mut own = self.traced_values(&lowered, rows.len() as u32, counts.logits)?;
        let mut recorded = self.recorded(&lowered, &traced, trace, rows, counts, &mut own)?;
        let samples = recorded.sampling_at.is_some();
        let (taps, taps_bytes) = (std::mem::take(&mut recorded.taps), recorded.taps_bytes);
        let items = self.items(recorded, rows.len() as u32, counts, &own)?;
        let taps_staging = if taps_bytes > 0 {
            Some(self.staging_buffer(taps_bytes)?)
        } else {
            None
        };

        let label = wgpu::CommandEncoderDescriptor {
            label: Some("traced step"),
        };
        let mut encoder = self.gpu.device.create_command_encoder(&label);
        // This step's buffers take the place of the executor's.
        let mut visible = own;
        if let Some(ids) = self.buffers.get(&Buffer::Ids) {
            visible.entry(Buffer::Ids).or_insert_with(|| ids.clone());
        }
        self.encode_items(items, &mut encoder, taps_staging.as_ref(), |encoder| {
            readback.copy_logits(encoder, &visible, &staging)
        })?;
        let counters = self.gpu.counters();
        add(&counters.submits, 1);
        add(&counters.steps, 1);
        if !samples {
            readback.copy_logits(&mut encoder, &visible, &staging)?;
        }
        readback.copy_rest(&mut encoder, &visible, &staging)?;
        self.gpu.queue.submit([encoder.finish()]);

        let read = taps_staging
            .as_ref()
            .map(|staging| self.gpu.read(staging, taps_bytes));
        let rows = rows.len();
        let logit_rows = counts.logits as usize;
        let order = trace.taps.clone();
        let taps: TapsRead = Box::pin(async move {
            let bytes = match read {
                Some(read) => read.await?,
                None => Vec::new(),
            };
            let tap = |point: &Point| {
                let tap = taps.iter().find(|tap| tap.point == *point);
                let tap = tap.ok_or_else(|| Error::internal("a tapped value was not computed"))?;
                let bytes = &bytes[tap.offset as usize..(tap.offset + tap.bytes) as usize];
                unpack(&lowered, &traced, tap, bytes, rows, logit_rows)
            };
            order.iter().map(tap).collect::<Result<Vec<Tap>>>()
        });
        Ok(self.pending(readback, staging, vec![taps]))
    }

    /// Buffers for the values of a traced step.
    fn traced_values(
        &self,
        lowered: &Lowered,
        tokens: u32,
        logit_rows: u32,
    ) -> Result<HashMap<Buffer, wgpu::Buffer>> {
        let most = self.gpu.capabilities().max_binding;
        let mut own = HashMap::new();
        for (slot, bytes) in lowered.value_buffers(tokens, logit_rows.max(1)) {
            if bytes > most {
                return Err(Error::invalid_input(format!(
                    "the traced values of {tokens} rows need {} MB in one buffer, and this device binds at most {} MB: trace \
                     fewer tokens at a time",
                    bytes >> 20,
                    most >> 20
                )));
            }
            own.insert(
                slot,
                self.gpu.buffer("traced value", bytes.max(16), STORAGE)?,
            );
        }
        Ok(own)
    }

    /// The dispatches, and between them what is edited and read. The buffers of edits go into `own`.
    fn recorded(
        &self,
        lowered: &Lowered,
        traced: &Traced,
        trace: &Trace,
        rows: &[Row],
        counts: HeadCounts,
        own: &mut HashMap<Buffer, wgpu::Buffer>,
    ) -> Result<Recorded> {
        let (tokens, logit_rows) = (rows.len() as u32, counts.logits);
        let sampled = (logit_rows > 0).then_some(counts.drawn > 0);
        let mut recorded = Recorded::default();
        for stage in lowered.record_traced(tokens, logit_rows, sampled)? {
            let value = match stage {
                Stage::Dispatch(dispatch) => {
                    if dispatch.variant.family == FamilyId::Sample {
                        recorded.sampling_at = Some(recorded.dispatches.len());
                    }
                    recorded.dispatches.push(dispatch);
                    continue;
                }
                Stage::Written(value) => value,
            };
            let points: Vec<Point> = traced
                .at
                .iter()
                .filter(|(_, at)| **at == value)
                .map(|(p, _)| *p)
                .collect();
            for (number, edit) in trace
                .edits
                .iter()
                .enumerate()
                .filter(|(_, edit)| points.contains(&edit.point))
            {
                let Some(change) = lowered.lower_edit(edit, value, rows, number)? else {
                    continue;
                };
                for (slot, bytes) in [
                    (
                        Buffer::EditRows(number),
                        bytemuck::cast_slice::<u32, u8>(&change.rows),
                    ),
                    (
                        Buffer::EditValues(number),
                        bytemuck::cast_slice::<f32, u8>(&change.values),
                    ),
                ] {
                    let size = (bytes.len() as u64).max(16);
                    let buffer = self.gpu.buffer("edit", size, STORAGE)?;
                    self.gpu.write(&buffer, 0, bytes);
                    own.insert(slot, buffer);
                }
                recorded.dispatches.extend(change.dispatches);
            }
            for point in trace.taps.iter().filter(|point| points.contains(point)) {
                let (slot, from, bytes) = place(lowered, value, tokens, logit_rows);
                recorded.taps.push(Awaited {
                    point: *point,
                    value,
                    offset: recorded.taps_bytes,
                    bytes,
                });
                let at = recorded.dispatches.len();
                recorded.copies.push((at, slot, from, bytes));
                recorded.taps_bytes += bytes;
            }
        }
        Ok(recorded)
    }

    /// Commands and copies, in the order in which they are encoded.
    fn items(
        &mut self,
        recorded: Recorded,
        tokens: u32,
        counts: HeadCounts,
        own: &HashMap<Buffer, wgpu::Buffer>,
    ) -> Result<Vec<Item>> {
        let mut params: Vec<u8> = Vec::new();
        for dispatch in &recorded.dispatches {
            params.extend_from_slice(&dispatch.params);
            params.resize(params.len().next_multiple_of(PARAMS_ALIGN), 0);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let params_buffer =
            self.gpu
                .buffer("traced params", (params.len() as u64).max(16), usage)?;
        self.gpu.write(&params_buffer, 0, &params);
        let mut items = Vec::new();
        let mut copies = recorded.copies.into_iter().peekable();
        for (i, dispatch) in recorded.dispatches.into_iter().enumerate() {
            while let Some((_, slot, from, bytes)) = copies.next_if(|(at, ..)| *at == i) {
                items.push(Item::Copy(self.buffer_of(own, slot)?, from, bytes));
            }
            let is_sampling = recorded.sampling_at == Some(i);
            if is_sampling {
                items.push(Item::CopyLogits);
            }
            let heads = if is_sampling {
                counts.drawn
            } else {
                counts.logits
            };
            let grid = dispatch.grid(tokens, heads, 1);
            let command =
                self.command_with(dispatch, &params_buffer, (i * PARAMS_ALIGN) as u64, own)?;
            items.push(Item::Run(command, grid));
        }
        for (_, slot, from, bytes) in copies {
            items.push(Item::Copy(self.buffer_of(own, slot)?, from, bytes));
        }
        Ok(items)
    }

    /// Encodes each run of commands as a pass, and the copies between them.
    fn encode_items(
        &self,
        items: Vec<Item>,
        encoder: &mut wgpu::CommandEncoder,
        taps: Option<&wgpu::Buffer>,
        copy_logits: impl Fn(&mut wgpu::CommandEncoder) -> Result<()>,
    ) -> Result<()> {
        let counters = self.gpu.counters();
        let (mut at, mut items) = (0, items.into_iter().peekable());
        while items.peek().is_some() {
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                add(&counters.passes, 1);
                while let Some(Item::Run(command, (x, y))) =
                    items.next_if(|item| matches!(item, Item::Run(..)))
                {
                    pass.set_pipeline(&command.pipeline);
                    pass.set_bind_group(0, &command.bind_group, &[]);
                    pass.dispatch_workgroups(x, y, 1);
                    add(&counters.dispatches, 1);
                }
            }
            while let Some(item) = items.next_if(|item| !matches!(item, Item::Run(..))) {
                let Item::Copy(source, from, bytes) = item else {
                    copy_logits(encoder)?;
                    continue;
                };
                if let Some(staging) = taps {
                    encoder.copy_buffer_to_buffer(&source, from, staging, at, bytes);
                }
                at += bytes;
            }
        }
        Ok(())
    }

    fn buffer_of(&self, own: &HashMap<Buffer, wgpu::Buffer>, slot: Buffer) -> Result<wgpu::Buffer> {
        let buffer = own.get(&slot).or_else(|| self.buffers.get(&slot));
        buffer
            .cloned()
            .ok_or_else(|| Error::internal(format!("no buffer for {slot:?}")))
    }
}

/// Where a value lies: its buffer, from which byte on, and how many.
fn place(lowered: &Lowered, value: ValueId, tokens: u32, logit_rows: u32) -> (Buffer, u64, u64) {
    let spec = lowered.plan.value_spec(value);
    match spec.role {
        Role::Routes => {
            let bytes = u64::from(tokens) * u64::from(spec.width) * 4;
            (Buffer::State, u64::from(lowered.state.routes_at) * 4, bytes)
        }
        Role::Logits => (
            lowered.buffer(value),
            0,
            u64::from(logit_rows) * u64::from(lowered.stride(value)) * 4,
        ),
        _ => (
            lowered.buffer(value),
            0,
            u64::from(tokens) * u64::from(lowered.stride(value)) * 4,
        ),
    }
}

/// A value as it was copied back, without what lies between its rows and heads.
fn unpack(
    lowered: &Lowered,
    traced: &Traced,
    tap: &Awaited,
    bytes: &[u8],
    rows: usize,
    logit_rows: usize,
) -> Result<Tap> {
    let spec = lowered.plan.value_spec(tap.value);
    let stride = lowered.stride(tap.value) as usize;
    let mut count = rows;
    let values: Vec<f32> = match spec.role {
        Role::Routes => {
            let words = words(bytes);
            let pairs = words.chunks_exact(2);
            match tap.point.hook {
                Hook::ExpertIndices => pairs.map(|pair| pair[0] as f32).collect(),
                _ => pairs.map(|pair| f32::from_bits(pair[1])).collect(),
            }
        }
        Role::Query => {
            let heads = lowered.query_heads(tap.value)?;
            let (d, padded) = (
                heads.head_dim as usize,
                Lowered::head_stride(&heads) as usize,
            );
            floats(bytes)
                .chunks_exact(padded)
                .flat_map(|head| head[..d].to_vec())
                .collect()
        }
        Role::Scores | Role::Pattern => {
            let value = |v: f32| if v < LOW { f32::NEG_INFINITY } else { v };
            floats(bytes).into_iter().map(value).collect()
        }
        role => {
            if role == Role::Logits {
                count = logit_rows;
            }
            let width = spec.width as usize;
            floats(bytes)
                .chunks_exact(stride)
                .flat_map(|row| row[..width].to_vec())
                .collect()
        }
    };
    let mut shape = vec![count];
    shape.extend(traced.dims(tap.point, values.len() / count.max(1)));
    Ok(Tap {
        point: tap.point,
        shape,
        values,
    })
}
