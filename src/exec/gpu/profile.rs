//! Times of kernels, by timestamp queries: for `bench --profile` alone, for every kernel then has a pass of its own.

use super::device::Gpu;
use super::kernels::Variant;
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Kernels that one step may have: WebGPU allows 4096 queries in a set.
const MAX_KERNELS: u32 = 2048;

/// By kernel: how often, and seconds in all.
pub(super) type Times = BTreeMap<String, (u64, f64)>;

/// One step being timed.
pub(super) struct Timed {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    names: Vec<String>,
    period: f32,
}

impl Timed {
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("times"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * MAX_KERNELS,
        });
        let bytes = u64::from(MAX_KERNELS) * 16;
        let resolve = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let read = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Self {
            queries,
            resolved: gpu.buffer("times", bytes, resolve)?,
            staging: gpu.buffer("times", bytes, read)?,
            names: Vec::new(),
            period: gpu.queue.get_timestamp_period(),
        })
    }

    /// Encodes a kernel in a pass of its own; beyond the limit, untimed.
    pub fn dispatch(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        pipeline: &wgpu::ComputePipeline,
        bind_group: &wgpu::BindGroup,
        (x, y): (u32, u32),
        variant: &Variant,
    ) {
        let at = 2 * self.names.len() as u32;
        let timestamp_writes = (at < 2 * MAX_KERNELS).then(|| wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        });
        if timestamp_writes.is_some() {
            self.names.push(variant.name());
        }
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes,
        });
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, bind_group, &[]);
        pass.dispatch_workgroups(x, y, 1);
    }

    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let count = 2 * self.names.len() as u32;
        encoder.resolve_query_set(&self.queries, 0..count, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, u64::from(count) * 8);
    }

    /// Adds the step's times to `times`.
    pub async fn collect(self, gpu: &Gpu, times: &RefCell<Times>) -> Result<()> {
        let bytes = gpu
            .read(&self.staging, self.names.len() as u64 * 16)
            .await?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        let mut times = times
            .try_borrow_mut()
            .map_err(|_| Error::internal("times are in use"))?;
        for (name, ticks) in self.names.into_iter().zip(ticks.chunks_exact(2)) {
            let entry = times.entry(name).or_default();
            entry.0 += 1;
            entry.1 += ticks[1].saturating_sub(ticks[0]) as f64 * f64::from(self.period) * 1e-9;
        }
        Ok(())
    }
}
