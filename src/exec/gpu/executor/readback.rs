//! What a step copies back, and what becomes of it on the processor: log-probabilities and the final norm.

use super::super::lower::{Buffer, Lowered};
use super::GpuExecutor;
use crate::error::{Error, Result};
use crate::exec::{Draw, Head, HeadCounts, HeadOutput, Output, Pending};
use crate::plan::{Logprobs, Op, Role, TensorId, fine};
use std::collections::HashMap;

/// Staging buffers for more than ids that are kept for later steps.
const KEPT: usize = 4;

/// One copy into the staging buffer.
pub(super) struct Part {
    slot: Buffer,
    from: u64,
    to: u64,
    bytes: u64,
}

/// The final norm, where heads want its output.
struct FinalNorm {
    weight: Vec<f32>,
    eps: f32,
}

/// The staging buffer of a step: ids, then logits, then rows of the residual stream.
pub(super) struct Readback {
    heads: Vec<Head>,
    drawn: u64,
    /// Runs of logits.
    pub(super) logits: Vec<Part>,
    hidden: Vec<Part>,
    logit_stride: usize,
    hidden_stride: usize,
    vocab: usize,
    width: usize,
    norm: Option<FinalNorm>,
    /// All of it.
    pub(super) bytes: u64,
}

impl Readback {
    /// For heads of a step of a lowered plan; `norms`: norm weights by tensor.
    pub(super) fn new(
        lowered: &Lowered,
        norms: &HashMap<TensorId, Vec<f32>>,
        heads: &[Head],
        counts: HeadCounts,
    ) -> Result<Self> {
        let plan = &lowered.plan;
        let mut readback = Self {
            heads: heads.to_vec(),
            drawn: u64::from(counts.drawn),
            logits: Vec::new(),
            hidden: Vec::new(),
            logit_stride: 0,
            hidden_stride: 0,
            vocab: plan.vocab_size as usize,
            width: plan.hidden_size as usize,
            norm: None,
            bytes: u64::from(counts.drawn) * 4,
        };
        if heads.iter().any(|head| head.want.reads_logits()) {
            let value = plan
                .last(Role::Logits)
                .ok_or_else(|| Error::internal("a plan without logits"))?;
            let (slot, stride) = (lowered.buffer(value), u64::from(lowered.stride(value)) * 4);
            readback.logit_stride = lowered.stride(value) as usize;
            for (at, _) in (0_u64..)
                .zip(heads)
                .filter(|(_, head)| head.want.reads_logits())
            {
                readback.bytes = push(
                    &mut readback.logits,
                    slot,
                    at * stride,
                    readback.bytes,
                    stride,
                );
            }
        }
        if heads.iter().any(|head| head.want.hidden) {
            let head = plan.ops.iter().find_map(|op| match op {
                Op::LmHead { input, .. } => Some(*input),
                _ => None,
            });
            let input = head.ok_or_else(|| Error::internal("a plan without a head"))?;
            let (slot, stride) = (
                lowered.buffer(input.x),
                u64::from(lowered.stride(input.x)) * 4,
            );
            readback.hidden_stride = lowered.stride(input.x) as usize;
            readback.norm = match input.norm {
                None => None,
                Some(norm) => Some(FinalNorm {
                    weight: norms
                        .get(&norm.weight)
                        .cloned()
                        .ok_or_else(|| Error::internal("no weight of the final norm"))?,
                    eps: norm.eps,
                }),
            };
            for head in heads.iter().filter(|head| head.want.hidden) {
                let from = u64::from(head.row) * stride;
                readback.bytes = push(&mut readback.hidden, slot, from, readback.bytes, stride);
            }
        }
        Ok(readback)
    }

    /// Copies logits, before sampling changes them.
    pub(super) fn copy_logits(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &HashMap<Buffer, wgpu::Buffer>,
        staging: &Option<wgpu::Buffer>,
    ) -> Result<()> {
        copy(&self.logits, encoder, buffers, staging)
    }

    /// Copies ids and rows of the residual stream, at the end of the step.
    pub(super) fn copy_rest(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &HashMap<Buffer, wgpu::Buffer>,
        staging: &Option<wgpu::Buffer>,
    ) -> Result<()> {
        if self.drawn > 0 {
            let ids = Part {
                slot: Buffer::Ids,
                from: 0,
                to: 0,
                bytes: self.drawn * 4,
            };
            copy(&[ids], encoder, buffers, staging)?;
        }
        copy(&self.hidden, encoder, buffers, staging)
    }

    /// Whether nothing but ids comes back.
    fn is_ids(&self) -> bool {
        self.logits.is_empty() && self.hidden.is_empty()
    }

    /// Each head's part of what was copied.
    fn unpack(&self, bytes: &[u8]) -> Vec<HeadOutput> {
        let (ids, rest) = bytes.split_at(self.drawn as usize * 4);
        let logit_bytes: u64 = self.logits.iter().map(|part| part.bytes).sum();
        let (logits, hidden) = rest.split_at(logit_bytes as usize);
        let mut ids = words(ids).into_iter();
        let (logits, hidden) = (floats(logits), floats(hidden));
        let mut logits = logits.chunks_exact(self.logit_stride.max(1));
        let mut hidden = hidden.chunks_exact(self.hidden_stride.max(1));
        let output = |head: &Head| {
            let mut output = HeadOutput::default();
            if head.want.draw != Draw::No {
                output.id = ids.next();
            }
            if head.want.reads_logits()
                && let Some(logits) = logits.next()
            {
                let logits = &logits[..self.vocab];
                if head.want.logits {
                    output.logits = logits.to_vec();
                }
                output.logprobs = head
                    .want
                    .logprobs
                    .map(|want| Logprobs::new(logits, want.top, want.of.or(output.id)));
            }
            if head.want.hidden
                && let Some(x) = hidden.next()
            {
                let x = &x[..self.width];
                output.hidden = match &self.norm {
                    Some(norm) => fine::norm(x, norm.eps, &norm.weight),
                    None => x.to_vec(),
                };
            }
            output
        };
        self.heads.iter().map(output).collect()
    }
}

/// Adds a copy of `bytes` to `to`, or makes the last one longer; gives where the next goes.
fn push(parts: &mut Vec<Part>, slot: Buffer, from: u64, to: u64, bytes: u64) -> u64 {
    match parts.last_mut() {
        Some(last) if last.from + last.bytes == from => last.bytes += bytes,
        _ => parts.push(Part {
            slot,
            from,
            to,
            bytes,
        }),
    }
    to + bytes
}

fn copy(
    parts: &[Part],
    encoder: &mut wgpu::CommandEncoder,
    buffers: &HashMap<Buffer, wgpu::Buffer>,
    staging: &Option<wgpu::Buffer>,
) -> Result<()> {
    for part in parts {
        let (Some(source), Some(staging)) = (buffers.get(&part.slot), staging) else {
            return Err(Error::internal(format!("no buffer for {:?}", part.slot)));
        };
        encoder.copy_buffer_to_buffer(source, part.from, staging, part.to, part.bytes);
    }
    Ok(())
}

impl GpuExecutor {
    /// A buffer for what a step reads back; `None` where that is nothing.
    pub(super) fn staging_for(&self, readback: &Readback) -> Result<Option<wgpu::Buffer>> {
        if readback.bytes == 0 {
            return Ok(None);
        }
        if readback.is_ids() {
            let kept = self.staging.borrow_mut().pop();
            let most = u64::from(self.lowered.settings.limits.max_heads) * 4;
            return kept.map_or_else(|| self.staging_buffer(most), Ok).map(Some);
        }
        let mut kept = self.wide_staging.borrow_mut();
        let fits = kept
            .iter()
            .position(|buffer| buffer.size() >= readback.bytes);
        match fits {
            Some(at) => Ok(Some(kept.swap_remove(at))),
            None => self.staging_buffer(readback.bytes).map(Some),
        }
    }

    /// A submitted step's output, when it is there. `taps`: makes taps of a traced step, once it is done.
    pub(super) fn pending(
        &self,
        readback: Readback,
        staging: Option<wgpu::Buffer>,
        taps: Vec<super::trace::TapsRead>,
    ) -> Pending {
        let gpu = self.gpu.clone();
        let Some(staging) = staging else {
            return Box::pin(async move {
                let mut output = Output {
                    heads: readback.unpack(&[]),
                    taps: Vec::new(),
                };
                if taps.is_empty() {
                    // Back-pressure without a readback: resolves when the step is done.
                    gpu.idle().await?;
                }
                for read in taps {
                    output.taps.extend(read.await?);
                }
                Ok(output)
            });
        };
        let bytes = self.gpu.read(&staging, readback.bytes);
        let pool = if readback.is_ids() {
            self.staging.clone()
        } else {
            self.wide_staging.clone()
        };
        let most = if readback.is_ids() { usize::MAX } else { KEPT };
        Box::pin(async move {
            let bytes = bytes.await?;
            if pool.borrow().len() < most {
                pool.borrow_mut().push(staging);
            }
            let mut output = Output {
                heads: readback.unpack(&bytes),
                taps: Vec::new(),
            };
            for read in taps {
                output.taps.extend(read.await?);
            }
            Ok(output)
        })
    }
}

impl GpuExecutor {
    pub(super) fn staging_buffer(&self, size: u64) -> Result<wgpu::Buffer> {
        self.gpu.buffer(
            "staging",
            size,
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        )
    }
}

/// Bytes that were read back, as u32.
pub(super) fn words(bytes: &[u8]) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Bytes that were read back, as f32.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}
