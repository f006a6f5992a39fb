//! Activations and caches set and read back, for tests and for looking inside. No step does this.

use super::super::lower::{Buffer, CacheType, Lowered, padded};
use super::GpuExecutor;
use super::readback::{floats, words};
use crate::error::{Error, Result};
use crate::exec::Inspect;
use crate::plan::{AttentionSpec, Op, Role, TensorId, ValueId};
use futures_core::future::LocalBoxFuture;

impl Inspect for GpuExecutor {
    fn poke(&mut self, role: Role, values: &[f32], norm: Option<TensorId>) -> Result<()> {
        let value = self
            .lowered
            .plan
            .first(role)
            .ok_or_else(|| no_value(role))?;
        let (slot, width, stride) = self.activation(value);
        let spread = |row: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
            let rows = values.len() / width;
            (0..rows * stride)
                .map(|i| {
                    if i % stride < width {
                        row(i / stride, i % stride)
                    } else {
                        0.0
                    }
                })
                .collect()
        };
        let plain = match (role, self.head_padding()) {
            (Role::Query, Some((d, padded))) if d != padded => values
                .chunks(d)
                .flat_map(|head| head.iter().copied().chain(vec![0.0; padded - d]))
                .collect(),
            _ => spread(&|t, i| values[t * width + i]),
        };
        self.gpu
            .write(&self.buffers[&slot], 0, bytemuck::cast_slice(&plain));
        if let (Role::Residual, Buffer::Value(id)) = (role, slot) {
            let norm = norm
                .ok_or_else(|| Error::internal("the residual stream is kept with a norm weight"))?;
            let weight = self
                .norms
                .get(&norm)
                .ok_or_else(|| Error::internal("not a norm weight"))?;
            let scaled = spread(&|t, i| values[t * width + i] * weight[i]);
            self.gpu.write(
                &self.buffers[&Buffer::Scaled(id)],
                0,
                bytemuck::cast_slice(&scaled),
            );
            let stride = self.lowered.partial_stride() as usize;
            for (t, row) in values.chunks_exact(width).enumerate() {
                let squares: f32 = row.iter().map(|v| v * v).sum();
                self.gpu.write(
                    &self.buffers[&Buffer::Partials(id)],
                    (t * stride * 4) as u64,
                    bytemuck::bytes_of(&squares),
                );
            }
        }
        Ok(())
    }

    fn peek(&mut self, role: Role, rows: usize) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let Some(value) = self.lowered.plan.last(role) else {
            return Box::pin(std::future::ready(Err(no_value(role))));
        };
        let (slot, width, stride) = self.activation(value);
        let padding = if role == Role::Query {
            self.head_padding()
        } else {
            None
        };
        let bytes = self.read_slot(slot);
        Box::pin(async move {
            let values = floats(&bytes?.await?);
            let rows = values
                .chunks_exact(stride)
                .take(rows)
                .flat_map(|row| row[..width].to_vec());
            Ok(match padding {
                Some((d, padded)) => rows
                    .collect::<Vec<f32>>()
                    .chunks(padded)
                    .flat_map(|h| h[..d].to_vec())
                    .collect(),
                None => rows.collect(),
            })
        })
    }

    fn peek_cache(
        &mut self,
        cache: usize,
        page: u32,
        which: u32,
    ) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let spec = self.lowered.plan.caches[cache];
        let kind = self.lowered.settings.cache;
        let page_size = self.lowered.settings.limits.page_size as usize;
        let bytes = self.read_slot(Buffer::Cache(cache));
        Box::pin(async move {
            let values = words(&bytes?.await?);
            let (d, stride) = (spec.head_dim as usize, kind.words(spec.head_dim) as usize);
            let len = spec.kv_heads as usize * page_size * stride;
            let vectors = values[(page * 2 + which) as usize * len..][..len].chunks_exact(stride);
            let half =
                |word: u32, i: usize| half::f16::from_bits((word >> (16 * i)) as u16).to_f32();
            Ok(match kind {
                CacheType::F32 => vectors
                    .flat_map(|v| v[..d].iter().map(|w| f32::from_bits(*w)))
                    .collect(),
                CacheType::F16 => vectors
                    .flat_map(|v| (0..d).map(|i| half(v[i / 2], i % 2)))
                    .collect(),
                CacheType::Q8_0 => {
                    let scales = d.div_ceil(32) * 8;
                    let value = |v: &[u32], i: usize| {
                        f32::from((v[i / 4] >> (8 * (i % 4))) as i8)
                            * half(v[scales + i / 64], i / 32 % 2)
                    };
                    vectors
                        .flat_map(|v| (0..d).map(|i| value(v, i)).collect::<Vec<_>>())
                        .collect()
                }
            })
        })
    }
}

impl GpuExecutor {
    /// For a residual stream `[T, E]`: what was kept beside it for the norm that follows, and what that should be.
    #[expect(clippy::type_complexity, reason = "pairs of found and expected")]
    pub(in crate::exec::gpu) fn peek_norm(
        &self,
        norm: TensorId,
        x: &[f32],
    ) -> Result<Vec<(LocalBoxFuture<'static, Result<Vec<f32>>>, Vec<f32>)>> {
        let hidden = self.lowered.plan.hidden_size as usize;
        let weight = self
            .norms
            .get(&norm)
            .ok_or_else(|| Error::internal("not a norm weight"))?;
        let rows = x.len() / hidden;
        let scaled = x
            .iter()
            .enumerate()
            .map(|(i, v)| v * weight[i % hidden])
            .collect();
        let squares = x
            .chunks_exact(hidden)
            .map(|row| row.iter().map(|v| v * v).sum())
            .collect();
        let (width, stride) = (
            padded(hidden as u32) as usize,
            self.lowered.partial_stride() as usize,
        );
        let last = self
            .lowered
            .plan
            .last(Role::Residual)
            .ok_or_else(|| no_value(Role::Residual))?;
        let id = self.lowered.layout.of(last);
        let (found, partials) = (
            self.read_slot(Buffer::Scaled(id))?,
            self.read_slot(Buffer::Partials(id))?,
        );
        let partial_count = self.partial_count();
        Ok(vec![
            (
                Box::pin(async move {
                    let found = floats(&found.await?);
                    Ok(found
                        .chunks_exact(width)
                        .take(rows)
                        .flat_map(|row| row[..hidden].to_vec())
                        .collect())
                }),
                scaled,
            ),
            (
                Box::pin(async move {
                    let found = floats(&partials.await?);
                    Ok(found
                        .chunks_exact(stride)
                        .take(rows)
                        .map(|row| row[..partial_count].iter().sum())
                        .collect())
                }),
                squares,
            ),
        ])
    }

    /// Partial sums per row that the last producer of the residual stream writes.
    fn partial_count(&self) -> usize {
        let bodies = self.recordings.values().flat_map(|replay| &replay.body);
        let last = bodies
            .filter(|c| {
                c.dispatch
                    .buffers
                    .iter()
                    .any(|slot| matches!(slot, Buffer::Partials(_)))
            })
            .last();
        last.map_or(1, |command| command.dispatch.groups as usize)
    }

    /// Copies a buffer back, whole.
    fn read_slot(&self, slot: Buffer) -> Result<LocalBoxFuture<'static, Result<Vec<u8>>>> {
        let source = self
            .buffers
            .get(&slot)
            .ok_or_else(|| Error::internal(format!("no buffer for {slot:?}")))?;
        let staging = self.staging_buffer(source.size())?;
        let mut encoder = self
            .gpu
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(source, 0, &staging, 0, source.size());
        self.gpu.queue.submit([encoder.finish()]);
        Ok(Box::pin(self.gpu.read(&staging, source.size())))
    }

    /// Buffer, values per row, and values between rows, of a value. Of queries a row's length is given in padded heads.
    fn activation(&self, value: ValueId) -> (Buffer, usize, usize) {
        let stride = self.lowered.stride(value) as usize;
        let spec = self.lowered.plan.value_spec(value);
        let width = if spec.role == Role::Query {
            stride
        } else {
            spec.width as usize
        };
        (self.lowered.buffer(value), width, stride)
    }

    /// Head dimension and its padded length, where activations and caches hold whole heads.
    fn head_padding(&self) -> Option<(usize, usize)> {
        self.lowered.plan.ops.iter().find_map(|op| match op {
            Op::QkvRope { heads, .. }
            | Op::Attention {
                spec: AttentionSpec { heads, .. },
                ..
            } => Some((
                heads.head_dim as usize,
                Lowered::head_stride(heads) as usize,
            )),
            _ => None,
        })
    }
}

fn no_value(role: Role) -> Error {
    Error::internal(format!("a plan without {role:?}"))
}
