//! Pipelines: compiled once a device for each kernel variant and its override constants, and kept.

use super::device::{Gpu, add};
use super::kernels::{FamilyId, Variant};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A variant and its override constants.
type Key = (Variant, Vec<(&'static str, u32)>);

#[derive(Default)]
pub(super) struct Pipelines {
    /// By family.
    layouts: BTreeMap<FamilyId, wgpu::BindGroupLayout>,
    pipelines: BTreeMap<Key, Rc<wgpu::ComputePipeline>>,
}

impl Gpu {
    /// The pipeline of a variant with these override constants, and the layout of its bind groups.
    pub(super) fn pipeline(
        &self,
        variant: &Variant,
        constants: &[(&'static str, u32)],
    ) -> Result<(Rc<wgpu::ComputePipeline>, wgpu::BindGroupLayout)> {
        let gpu = self;
        let mut made = self.pipelines.borrow_mut();
        let layout = made
            .layouts
            .entry(variant.family)
            .or_insert_with(|| bind_group_layout(gpu, variant.family));
        let layout = layout.clone();
        let key = (*variant, constants.to_vec());
        if let Some(pipeline) = made.pipelines.get(&key) {
            return Ok((pipeline.clone(), layout));
        }
        let name = variant.name();
        let mut source = variant.source().map_err(Error::internal)?;
        if variant.subgroups() {
            source.insert_str(0, gpu.capabilities().subgroups_preamble);
        }
        if gpu.is_broken(&name)
            && let Some(main) = source.find("fn main(")
            && let Some(body) = source[main..].find(") {\n")
        {
            source.insert_str(main + body + 4, "if group.x == 0u { return; }\n");
        }
        let module = gpu
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&name),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
        let pipeline_layout = gpu
            .device
            .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(&name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
        let overrides: Vec<(&str, f64)> = constants
            .iter()
            .map(|(name, value)| (*name, f64::from(*value)))
            .collect();
        add(&gpu.counters().pipelines, 1);
        let pipeline = Rc::new(gpu.device.create_compute_pipeline(
            &wgpu::ComputePipelineDescriptor {
                label: Some(&name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &overrides,
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            },
        ));
        made.pipelines.insert(key, pipeline.clone());
        Ok((pipeline, layout))
    }
}

fn bind_group_layout(gpu: &Gpu, family: FamilyId) -> wgpu::BindGroupLayout {
    let entry =
        |binding: u32, ty: wgpu::BufferBindingType, size: Option<u64>| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty,
                has_dynamic_offset: false,
                min_binding_size: size.and_then(std::num::NonZeroU64::new),
            },
            count: None,
        };
    let mut entries = vec![entry(
        0,
        wgpu::BufferBindingType::Uniform,
        Some(u64::from(family.facts().params_bytes)),
    )];
    for (i, written) in family.facts().written.iter().enumerate() {
        entries.push(entry(
            i as u32 + 1,
            wgpu::BufferBindingType::Storage {
                read_only: !written,
            },
            None,
        ));
    }
    gpu.device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(family.family().name),
            entries: &entries,
        })
}
