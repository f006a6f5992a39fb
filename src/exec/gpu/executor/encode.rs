//! Writes what a step needs, and encodes its dispatches.

use super::super::device::add;
use super::super::lower::{Buffer, Region, RowBucket, splits};
use super::super::profile::Timed;
use super::super::state::region_words;
use super::GpuExecutor;
use super::readback::Readback;
use super::replay::Command;
use crate::error::{Error, Result};
use crate::exec::{Head, HeadCounts, Pending};
use crate::plan::Row;
use std::rc::Rc;

impl GpuExecutor {
    /// Writes a step's rows into the state; gives their last position.
    pub(super) fn write_rows(
        &mut self,
        rows: &[Row],
        heads: &[Head],
        counts: HeadCounts,
    ) -> Result<u32> {
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
    pub(super) fn run(
        &mut self,
        region: Region,
        tokens: u32,
        pos: u32,
        heads: &[Head],
    ) -> Result<Pending> {
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
}
