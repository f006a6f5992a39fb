//! Records the dispatches of one kind of step, operation by operation.

use super::super::kernels::{
    Choices, Dot, FamilyId, Kernel, MatrixParams, NormParams, Reduce, Variant, Weights, embed,
    matmul_store, matvec_gate_up, matvec_residual, matvec_silu_mul, matvec_store, sample,
};
use super::super::state::AdjustmentLayout;
use super::settings::kv;
use super::trial::{TrialPlan, VOCABULARY, WIDTH};
use super::{Buffer, Dispatch, Lowered, Recording, RowBucket, Rows, padded};
use crate::error::{Error, Result};
use crate::exec::Want;
use crate::plan::{BufferId, Input, Linear, Op, Role, TensorId, ValueId};
use crate::quant::DType;
use std::collections::HashMap;

/// Below this many workgroups a large GPU is not filled; more lanes per row then help.
const ENOUGH_WORKGROUPS: u32 = 1024;

/// A recording under way.
pub(super) struct Recorder<'a> {
    pub lowered: &'a Lowered,
    pub bucket: RowBucket,
    pub split: bool,
    /// Where the step's rows lie in the state buffer.
    pub rows_at: u32,
    /// Partial sums per row that the last producer of each residual stream wrote.
    pub partials: HashMap<BufferId, u32>,
    /// Index of the operation that is being lowered.
    pub op: usize,
    pub out: Recording,
}

/// How a kernel reads an input.
pub(super) struct Read {
    pub input: Buffer,
    pub partials: Buffer,
    pub norm: NormParams,
}

/// Where a kernel writes a residual stream, and what it leaves for the norm that reads it.
pub(super) struct Written {
    pub id: BufferId,
    pub next_norm: Buffer,
    pub x: Buffer,
    pub scaled: Buffer,
    pub partials: Buffer,
}

/// How many lanes share a row: as `wanted`, or as few as still read 16 neighbouring blocks at once, and more where the
/// matrix has too few rows to fill a large GPU.
fn matvec_lanes(quads: u32, blocks: u32, wanted: Option<u32>) -> u32 {
    let mut lanes = 4;
    while lanes < wanted.unwrap_or(16) && lanes * 2 <= blocks {
        lanes *= 2;
    }
    let groups = |lanes: u32| (quads * lanes).div_ceil(matvec_store::WORKGROUP);
    while wanted.is_none() && lanes < 64 && lanes * 2 <= blocks && groups(lanes) < ENOUGH_WORKGROUPS
    {
        lanes *= 2;
    }
    lanes
}

impl<'a> Recorder<'a> {
    pub fn new(lowered: &'a Lowered, bucket: RowBucket, split: bool, rows_at: u32) -> Self {
        Recorder {
            lowered,
            bucket,
            split,
            rows_at,
            partials: HashMap::new(),
            op: 0,
            out: Recording::default(),
        }
    }

    pub fn push<K: Kernel>(
        &self,
        choices: Choices,
        params: K::Params,
        bindings: &K,
        groups: u32,
        rows: Rows,
    ) -> Result<Dispatch> {
        let variant = Variant::new(K::FAMILY, choices)
            .ok_or_else(|| Error::internal(format!("no kernel {:?} {choices:?}", K::FAMILY)))?;
        Ok(self.dispatch(variant, Vec::new(), params, bindings, groups, rows))
    }

    fn dispatch<K: Kernel>(
        &self,
        variant: Variant,
        constants: Vec<(&'static str, u32)>,
        params: K::Params,
        bindings: &K,
        groups: u32,
        rows: Rows,
    ) -> Dispatch {
        Dispatch {
            variant,
            constants,
            params: bytemuck::bytes_of(&params).to_vec(),
            buffers: bindings.buffers(),
            groups,
            split: false,
            rows,
            op: self.op,
        }
    }

    /// The choices that are the same for every kernel of this executor.
    pub fn choices(&self) -> Choices {
        Choices {
            kv: Some(kv(self.lowered.settings.cache)),
            ..Choices::default()
        }
    }

    /// With the weight type of a matrix part.
    pub fn choices_for(&self, part: usize) -> Result<Choices> {
        let format = self.lowered.parts[part].layout.format;
        let weights = Weights::from_name(format)
            .ok_or_else(|| Error::internal(format!("no shaders/weights/{format}.wgsl")))?;
        Ok(Choices {
            weights: Some(weights),
            ..self.choices()
        })
    }

    /// A matrix product: the family of `K` for few rows, its twin for many. The two share an epilogue, and with it
    /// parameters and bindings (build.rs checks it), so callers describe a product once, with the types of the former.
    pub fn product<K: Kernel>(
        &self,
        bucket: RowBucket,
        part: usize,
        quads: u32,
        params: K::Params,
        bindings: &K,
    ) -> Result<Dispatch> {
        let matrix = &self.lowered.parts[part];
        let settings = &self.lowered.settings;
        let tuning = settings.tuning;
        let (family, cols, each) = match bucket {
            RowBucket::Few(cols) => (K::FAMILY, Some(cols), None),
            RowBucket::Many(each) => (K::FAMILY.tiled(), None, Some(each)),
        };
        // The first that is wished for, that the weight type has, and that is right on this device.
        let dots = [
            (Dot::Int8, tuning.int8),
            (Dot::F16, tuning.f16),
            (Dot::F32, true),
        ];
        let reduces = [(Reduce::Subgroups, tuning.subgroups), (Reduce::Plain, true)];
        let common = Choices {
            cols,
            each,
            ..self.choices_for(part)?
        };
        let mut possible = Vec::new();
        for (dot, _) in dots.into_iter().filter(|(_, wished)| *wished) {
            for (reduce, _) in reduces.into_iter().filter(|(_, wished)| *wished) {
                let wanted = Choices {
                    dot: Some(dot),
                    reduce: Some(reduce),
                    ..common
                };
                possible.extend(Variant::new(family, wanted));
            }
        }
        let right = possible
            .iter()
            .find(|variant| !settings.wrong.contains(variant));
        let variant = *right
            .or(possible.last())
            .ok_or_else(|| Error::internal(format!("no kernel {family:?} {common:?}")))?;
        let rows = Rows::Tokens(bucket.rows());
        if each.is_some() {
            let groups = quads.div_ceil(matmul_store::TILE_QUADS);
            return Ok(self.dispatch(variant, Vec::new(), params, bindings, groups, rows));
        }
        let tried = settings.trial.as_ref().and_then(|trial| {
            let mut lanes = trial.lanes.iter();
            lanes
                .find(|(tried, _)| *tried == variant)
                .map(|(_, lanes)| *lanes)
        });
        let lanes =
            tried.unwrap_or_else(|| matvec_lanes(quads, matrix.layout.blocks as u32, tuning.lanes));
        let groups = (quads * lanes).div_ceil(matvec_store::WORKGROUP);
        Ok(self.dispatch(
            variant,
            vec![("LANES", lanes)],
            params,
            bindings,
            groups,
            rows,
        ))
    }

    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    pub fn lower(&mut self, op: &Op) -> Result<()> {
        let lowered = self.lowered;
        match op {
            Op::Embed { table, out } => self.embed(*table, *out),
            Op::QkvRope {
                input,
                q,
                k,
                v,
                heads,
                rope,
                cache,
                query,
            } => {
                let mut row_base = 0;
                for run in lowered.runs(&[*q, *k, *v]) {
                    for part in lowered.parts_of(&run) {
                        self.qkv(part, row_base, *input, heads, *rope, *cache, *query)?;
                        row_base += lowered.parts[part].rows as u32;
                    }
                }
                Ok(())
            }
            Op::QkNorm {
                heads,
                cache,
                eps,
                weights,
                rope,
                out,
                ..
            } => self.qk_norm(heads, *cache, *eps, *weights, *rope, *out),
            Op::Attention { query, spec, out } => self.attention(*query, spec, *out),
            Op::MoeRoute {
                input,
                router,
                experts,
                ..
            } => self.route(*input, *router, *experts),
            Op::MoeGateUpSilu {
                input,
                gate,
                up,
                experts,
                out,
                ..
            } => self.moe_gate_up(*input, *gate, *up, *experts, *out),
            Op::MoeDownResidual {
                input,
                down,
                experts,
                out,
                ..
            } => self.moe_down(*input, *down, *experts, *out),
            Op::Residual {
                input, linear, out, ..
            } => self.residual(*input, *linear, *out),
            Op::GateUpSilu {
                input,
                gate,
                up,
                out,
            } => self.gate_up(*input, *gate, *up, *out),
            Op::LmHead { input, weight, out } => {
                let buckets = lowered
                    .settings
                    .buckets()
                    .into_iter()
                    .filter(|s| s.rows() <= self.bucket.rows());
                let heads = buckets.map(|s| Ok((s, self.store(s, *input, *weight, *out, true)?)));
                self.out.heads = heads.collect::<Result<_>>()?;
                Ok(())
            }
            Op::Sample { logits } => {
                let adjustments = AdjustmentLayout::new(lowered.plan.vocab_size);
                let params = sample::Params {
                    vocab: lowered.plan.vocab_size,
                    logits_stride: lowered.plan.vocab_size,
                    rows_at: self.rows_at,
                    next_at: lowered.state.sampled_at,
                    mask_at: adjustments.mask_at,
                    biases_at: adjustments.biases_at,
                    adjustments_stride: adjustments.stride,
                };
                let bindings = sample::Bindings {
                    logits: lowered.buffer(*logits),
                    sampling: Buffer::Sampling,
                    state: Buffer::State,
                    ids: Buffer::Ids,
                    adjustments: Buffer::Adjustments,
                };
                let dispatch = self.push(self.choices(), params, &bindings, 1, Rows::Heads(1))?;
                self.out.sample = vec![dispatch];
                Ok(())
            }
            fine => self.fine(fine),
        }
    }

    /// What a kernel reads of an operation's input: buffers and how the norm is applied.
    pub(super) fn read(&self, input: Input) -> Read {
        let norm = NormParams {
            partials: 0,
            partial_stride: self.lowered.partial_stride(),
            inv_hidden: 1.0 / self.lowered.plan.hidden_size as f32,
            eps: 1.0,
        };
        match input.norm {
            Some(own) => {
                let id = self.lowered.layout.of(input.x);
                Read {
                    input: Buffer::Scaled(id),
                    partials: Buffer::Partials(id),
                    norm: NormParams {
                        partials: self.partials.get(&id).copied().unwrap_or(1),
                        eps: own.eps,
                        ..norm
                    },
                }
            }
            // No partial sums, and 1 added to their mean: the scale is 1.
            None => Read {
                input: self.lowered.buffer(input.x),
                partials: self.lowered.buffer(input.x),
                norm,
            },
        }
    }

    /// Where a kernel writes a residual stream.
    pub(super) fn write(&self, out: ValueId) -> Result<Written> {
        let id = self.lowered.layout.of(out);
        let next_norm = Buffer::Norm(self.lowered.next_norm(out)?);
        Ok(Written {
            id,
            next_norm,
            x: Buffer::Value(id),
            scaled: Buffer::Scaled(id),
            partials: Buffer::Partials(id),
        })
    }

    fn embed(&mut self, table: TensorId, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let Written {
            id,
            next_norm,
            x,
            scaled,
            partials,
        } = self.write(out)?;
        let mut first_row = 0;
        for part in lowered.parts_of(&[Linear {
            weight: table,
            bias: None,
        }]) {
            let matrix = &lowered.parts[part];
            let params = embed::Params {
                matrix: matrix.params(),
                rows_at: self.rows_at,
                first_row,
                x_stride: padded(lowered.plan.hidden_size),
                hidden: lowered.plan.hidden_size,
                partial_stride: lowered.partial_stride(),
            };
            let bindings = embed::Bindings {
                weights: Buffer::Weights(part),
                scales: Buffer::Scales(part),
                state: Buffer::State,
                next_norm,
                x,
                scaled,
                partials_out: partials,
            };
            let choices = self.choices_for(part)?;
            let dispatch = self.push(choices, params, &bindings, 1, Rows::Tokens(1))?;
            self.out.body.push(dispatch);
            first_row += matrix.rows as u32;
        }
        self.partials.insert(id, 1);
        Ok(())
    }

    fn residual(&mut self, input: ValueId, linear: Linear, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let input = lowered.buffer(input);
        let Written {
            id,
            next_norm,
            x,
            scaled,
            partials,
        } = self.write(out)?;
        let (mut out_at, mut partial_at) = (0, 0);
        for part in lowered.parts_of(&[linear]) {
            let matrix = &lowered.parts[part];
            let params = matvec_residual::Params {
                matrix: matrix.params(),
                rows_at: self.rows_at,
                x_stride: padded(lowered.plan.hidden_size),
                partial_stride: lowered.partial_stride(),
                out_at,
                partial_at,
            };
            let bindings = matvec_residual::Bindings {
                weights: Buffer::Weights(part),
                scales: Buffer::Scales(part),
                input,
                state: Buffer::State,
                next_norm,
                x,
                scaled,
                partials_out: partials,
            };
            let quads = (matrix.rows as u32).div_ceil(4);
            let dispatch = self.product(self.bucket, part, quads, params, &bindings)?;
            out_at += matrix.rows as u32;
            partial_at += dispatch.groups;
            self.out.body.push(dispatch);
        }
        if partial_at > lowered.partial_stride() {
            return Err(Error::internal(format!("{partial_at} partial sums")));
        }
        self.partials.insert(id, partial_at);
        Ok(())
    }

    fn gate_up(&mut self, input: Input, gate: Linear, up: Linear, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let out_stride = lowered.stride(out);
        if lowered.runs(&[gate, up]).len() == 2 {
            let gates = self.store(self.bucket, input, gate.weight, out, false)?;
            self.out.body.extend(gates);
            return self.silu_mul(input, up, out);
        }
        let read = self.read(input);
        let mut out_at = 0;
        for part in lowered.parts_of(&[gate, up]) {
            let matrix = &lowered.parts[part];
            let rows = matrix.rows as u32 / 2;
            let params = matvec_gate_up::Params {
                matrix: MatrixParams {
                    rows,
                    ..matrix.params()
                },
                rows_at: self.rows_at,
                norm: read.norm,
                out_stride,
                out_at,
            };
            let bindings = matvec_gate_up::Bindings {
                weights: Buffer::Weights(part),
                scales: Buffer::Scales(part),
                input: read.input,
                state: Buffer::State,
                partials: read.partials,
                output: lowered.buffer(out),
            };
            let dispatch = self.product(self.bucket, part, rows.div_ceil(2), params, &bindings)?;
            out_at += rows;
            self.out.body.push(dispatch);
        }
        Ok(())
    }

    /// `out = W input`; `by_head`: for the rows that have logits.
    pub(super) fn store(
        &self,
        bucket: RowBucket,
        input: Input,
        weight: TensorId,
        out: ValueId,
        by_head: bool,
    ) -> Result<Vec<Dispatch>> {
        let lowered = self.lowered;
        let read = self.read(input);
        let mut dispatches = Vec::new();
        let mut at = 0;
        for part in lowered.parts_of(&[Linear { weight, bias: None }]) {
            let out = (lowered.buffer(out), lowered.stride(out), at);
            dispatches.push(self.store_part(bucket, part, &read, out, by_head)?);
            at += lowered.parts[part].rows as u32;
        }
        Ok(dispatches)
    }

    /// The product with one matrix part; `out`: buffer, values between its rows, first column.
    pub(super) fn store_part(
        &self,
        bucket: RowBucket,
        part: usize,
        read: &Read,
        (output, out_stride, out_at): (Buffer, u32, u32),
        by_head: bool,
    ) -> Result<Dispatch> {
        let matrix = &self.lowered.parts[part];
        let params = matvec_store::Params {
            matrix: matrix.params(),
            norm: read.norm,
            rows_at: self.rows_at,
            out_stride,
            out_at,
            by_head: u32::from(by_head),
        };
        let bindings = matvec_store::Bindings {
            weights: Buffer::Weights(part),
            scales: Buffer::Scales(part),
            input: read.input,
            state: Buffer::State,
            partials: read.partials,
            output,
        };
        let quads = params.matrix.rows.div_ceil(4);
        let mut dispatch = self.product(bucket, part, quads, params, &bindings)?;
        if by_head {
            dispatch.rows = Rows::Heads(bucket.rows());
        }
        Ok(dispatch)
    }

    fn silu_mul(&mut self, input: Input, up: Linear, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let (read, out_stride) = (self.read(input), lowered.stride(out));
        let mut out_at = 0;
        for part in lowered.parts_of(&[up]) {
            let matrix = &lowered.parts[part];
            let params = matvec_silu_mul::Params {
                matrix: matrix.params(),
                rows_at: self.rows_at,
                norm: read.norm,
                out_stride,
                out_at,
            };
            let bindings = matvec_silu_mul::Bindings {
                weights: Buffer::Weights(part),
                scales: Buffer::Scales(part),
                input: read.input,
                state: Buffer::State,
                partials: read.partials,
                output: lowered.buffer(out),
            };
            let quads = (matrix.rows as u32).div_ceil(4);
            let dispatch = self.product(self.bucket, part, quads, params, &bindings)?;
            out_at += matrix.rows as u32;
            self.out.body.push(dispatch);
        }
        Ok(())
    }
}

impl Lowered {
    /// The trial of an operation of this file.
    pub(super) fn dense_trial(&self, dispatch: &Dispatch, trial: &mut TrialPlan) -> Result<()> {
        // The weight type of the product in question, which a part of an operation may have to itself.
        let dtype = dispatch.buffers.iter().find_map(|buffer| match buffer {
            Buffer::Weights(part) => Some(self.parts[*part].layout.dtype),
            _ => None,
        });
        let dtype = dtype.unwrap_or(DType::F32);
        let family = dispatch.variant.family;
        match &self.plan.ops[dispatch.op] {
            Op::Embed { .. } => {
                let table = trial.tensor(dtype, VOCABULARY, WIDTH)?;
                trial.plan.embed(table);
            }
            Op::Residual { .. } => {
                let down = trial.linear(dtype, WIDTH, WIDTH)?;
                let x = trial.stream();
                let inner = trial.plan.value(Role::FeedForward, WIDTH);
                trial.plan.residual(inner, down, x);
                trial.input = Some(Role::FeedForward);
            }
            Op::Sample { .. } => {
                trial.plan.vocab_size = 1000;
                let logits = trial.plan.value(Role::Logits, 1000);
                trial.plan.sample(logits);
                trial.input = Some(Role::Logits);
                trial.outputs = Vec::new();
                trial.want = Want::ID;
            }
            Op::GateUpSilu { gate, .. }
                if !matches!(family, FamilyId::MatvecStore | FamilyId::MatmulStore) =>
            {
                // Where the two differ in type, the product in question is that of up.
                let own = matches!(family, FamilyId::MatvecSiluMul | FamilyId::MatmulSiluMul);
                let first = if own {
                    self.plan.tensor(gate.weight).dtype
                } else {
                    dtype
                };
                let gate = trial.linear(first, 136, WIDTH)?;
                let up = trial.linear(dtype, 136, WIDTH)?;
                let x = trial.stream();
                trial.plan.gate_up_silu(x.normed(trial.norm), gate, up);
                trial.outputs = vec![Role::FeedForward];
            }
            // The head, and gate by itself.
            _ => {
                let weight = trial.tensor(dtype, VOCABULARY, WIDTH)?;
                let x = trial.stream();
                trial.plan.lm_head(x.normed(trial.norm), weight);
                trial.outputs = vec![Role::Logits];
                trial.want = Want::LOGITS;
            }
        }
        Ok(())
    }
}
