//! Uploads weights, page tables and sampling settings.

use super::super::kernels;
use super::super::lower::{Buffer, Lowered};
use super::super::state::{AdjustmentLayout, device_sampling};
use super::GpuExecutor;
use crate::error::{Error, Result};
use crate::plan::{History, MAX_BIASES, Sampling, TensorId, TensorSpec, TokenCounts, TokenMask};
use std::collections::HashMap;

/// Where some rows of a tensor go.
#[derive(Clone, Debug)]
pub(super) enum Target {
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
pub(super) fn targets(lowered: &Lowered) -> HashMap<TensorId, Vec<Target>> {
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
    /// [`Executor::load_rows`](crate::exec::Executor::load_rows)
    pub(super) fn upload_rows(
        &mut self,
        tensor: TensorId,
        first_row: u64,
        bytes: &[u8],
    ) -> Result<()> {
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

    /// [`Executor::set_pages`](crate::exec::Executor::set_pages)
    pub(super) fn write_pages(&self, seq: u32, pages: &[u32]) -> Result<()> {
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

    /// [`Executor::set_sampling`](crate::exec::Executor::set_sampling)
    pub(super) fn write_sampling(
        &self,
        seq: u32,
        sampling: &Sampling,
        history: History<'_>,
    ) -> Result<()> {
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

    /// [`Executor::set_mask`](crate::exec::Executor::set_mask)
    pub(super) fn write_mask(&self, seq: u32, mask: &TokenMask) -> Result<()> {
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
}

/// The values of one stored row.
fn dequantized(spec: &TensorSpec, bytes: &[u8]) -> Result<Vec<f32>> {
    let mut values = vec![0.0; spec.cols as usize];
    spec.dtype.dequantize(bytes, &mut values)?;
    Ok(values)
}
