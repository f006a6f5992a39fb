//! Makes the buffers of a lowered plan.

use super::super::device::Gpu;
use super::super::lower::{Buffer, Lowered};
use super::GpuExecutor;
use super::upload::targets;
use crate::error::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::rc::Rc;

impl GpuExecutor {
    /// The executor, with its buffers and without recordings.
    pub(super) fn build(gpu: &Gpu, lowered: Lowered) -> Result<Self> {
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
}
