//! Recordings made ready: each dispatch with its pipeline and bind group, so that a step creates nothing.

use super::super::device::add;
use super::super::lower::{Buffer, Dispatch, Recording, Region, RowBucket};
use super::GpuExecutor;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::rc::Rc;

/// WebGPU's guaranteed alignment of buffer binding offsets.
pub(super) const PARAMS_ALIGN: usize = 256;
/// Workgroups per grid dimension that WebGPU guarantees.
const MAX_GROUPS: u32 = 65_535;

pub(super) struct Command {
    pub pipeline: Rc<wgpu::ComputePipeline>,
    pub bind_group: wgpu::BindGroup,
    pub dispatch: Dispatch,
}

/// A recording with its pipelines and bind groups.
#[derive(Default)]
pub(super) struct Replay {
    pub body: Vec<Command>,
    pub heads: Vec<(RowBucket, Vec<Command>)>,
    pub sample: Vec<Command>,
}

impl GpuExecutor {
    /// Makes pipelines and bind groups for every kind of step. Browsers compile them while the weights come.
    pub(super) fn record_all(&mut self) -> Result<()> {
        let scope = self
            .gpu
            .device
            .push_error_scope(wgpu::ErrorFilter::Validation);
        let recorded = self.record_shapes();
        self.compiling.push(Box::pin(scope.pop()));
        recorded
    }

    fn record_shapes(&mut self) -> Result<()> {
        for bucket in self.lowered.settings.buckets() {
            for region in [Region::Host, Region::Sampled] {
                for split in [false, true] {
                    if split
                        && (self.lowered.split_from().is_none()
                            || matches!(bucket, RowBucket::Many(_)))
                    {
                        continue;
                    }
                    let recording = self.lowered.record(bucket, region, split)?;
                    let replay = self.realise(recording)?;
                    self.recordings.insert((bucket, region, split), replay);
                }
            }
        }
        Ok(())
    }

    fn realise(&mut self, recording: Recording) -> Result<Replay> {
        // One uniform buffer holds the parameters of every dispatch.
        let mut params: Vec<u8> = Vec::new();
        let heads = recording.heads.iter().flat_map(|(_, head)| head);
        for dispatch in recording.body.iter().chain(heads).chain(&recording.sample) {
            params.extend_from_slice(&dispatch.params);
            params.resize(params.len().next_multiple_of(PARAMS_ALIGN), 0);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self
            .gpu
            .buffer("params", (params.len() as u64).max(16), usage)?;
        self.gpu.write(&buffer, 0, &params);
        let mut offset = 0;
        let mut realise = |list: Vec<Dispatch>| -> Result<Vec<Command>> {
            list.into_iter()
                .map(|dispatch| {
                    let command = self.command(dispatch, &buffer, offset);
                    offset += PARAMS_ALIGN as u64;
                    command
                })
                .collect()
        };
        Ok(Replay {
            body: realise(recording.body)?,
            heads: recording
                .heads
                .into_iter()
                .map(|(bucket, head)| Ok((bucket, realise(head)?)))
                .collect::<Result<_>>()?,
            sample: realise(recording.sample)?,
        })
    }

    fn command(&self, dispatch: Dispatch, params: &wgpu::Buffer, offset: u64) -> Result<Command> {
        self.command_with(dispatch, params, offset, &HashMap::new())
    }

    /// With buffers of one step in the place of the executor's.
    pub(super) fn command_with(
        &self,
        dispatch: Dispatch,
        params: &wgpu::Buffer,
        offset: u64,
        own: &HashMap<Buffer, wgpu::Buffer>,
    ) -> Result<Command> {
        if dispatch.params.len() > PARAMS_ALIGN
            || dispatch.params.len() != dispatch.variant.family.facts().params_bytes as usize
        {
            return Err(Error::internal(format!(
                "{}: {} bytes of params",
                dispatch.variant.name(),
                dispatch.params.len()
            )));
        }
        if dispatch.groups > MAX_GROUPS {
            return Err(Error::unsupported(format!(
                "{}: {} workgroups",
                dispatch.variant.name(),
                dispatch.groups
            )));
        }
        let (pipeline, layout) = self.gpu.pipeline(&dispatch.variant, &dispatch.constants)?;
        let mut entries = vec![wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: params,
                offset,
                size: std::num::NonZeroU64::new(dispatch.params.len() as u64),
            }),
        }];
        for (i, slot) in dispatch.buffers.iter().enumerate() {
            let buffer = own
                .get(slot)
                .or_else(|| self.buffers.get(slot))
                .ok_or_else(|| Error::internal(format!("no buffer for {slot:?}")))?;
            entries.push(wgpu::BindGroupEntry {
                binding: i as u32 + 1,
                resource: buffer.as_entire_binding(),
            });
        }
        add(&self.gpu.counters().bind_groups, 1);
        let bind_group = self
            .gpu
            .device
            .create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.variant.family.family().name),
                layout: &layout,
                entries: &entries,
            });
        Ok(Command {
            pipeline,
            bind_group,
            dispatch,
        })
    }
}
