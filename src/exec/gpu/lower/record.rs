//! Records the dispatches of one kind of step, operation by operation.

use super::super::kernels::{
    Kernel, Variant, embed, matvec_gate_up, matvec_residual, matvec_silu_mul, matvec_store, sample,
    variant,
};
use super::super::state::AdjustmentLayout;
use super::{Dispatch, Lowered, Recording, Rows, Shape, Slot, padded};
use crate::error::{Error, Result};
use crate::plan::{BufferId, Input, Linear, Op, TensorId, ValueId};
use std::collections::HashMap;

/// Rows of W that one tile of matmul covers.
const TILE_QUADS: u32 = 16;
/// Workgroup size of matvec.
const MATVEC_WORKGROUP: u32 = 64;
/// Below this many workgroups a large GPU is not filled; more lanes per row then help.
const ENOUGH_WORKGROUPS: u32 = 1024;

/// A recording under way.
pub(super) struct Recorder<'a> {
    pub lowered: &'a Lowered,
    pub shape: Shape,
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
    pub input: Slot,
    pub partials: Slot,
    /// Partial sums per row.
    pub count: u32,
    pub eps: f32,
}

/// Where a kernel writes a residual stream, and what it leaves for the norm that reads it.
pub(super) struct Written {
    pub id: BufferId,
    pub next_norm: Slot,
    pub x: Slot,
    pub scaled: Slot,
    pub partials: Slot,
}

/// How many lanes share a row: as `wanted`, or as few as still read 16 neighbouring blocks at once, and more where the
/// matrix has too few rows to fill a large GPU.
fn matvec_lanes(quads: u32, blocks: u32, wanted: Option<u32>) -> u32 {
    let mut lanes = 4;
    while lanes < wanted.unwrap_or(16) && lanes * 2 <= blocks {
        lanes *= 2;
    }
    let groups = |lanes: u32| (quads * lanes).div_ceil(MATVEC_WORKGROUP);
    while wanted.is_none() && lanes < 64 && lanes * 2 <= blocks && groups(lanes) < ENOUGH_WORKGROUPS
    {
        lanes *= 2;
    }
    lanes
}

impl<'a> Recorder<'a> {
    pub fn new(lowered: &'a Lowered, shape: Shape, split: bool, rows_at: u32) -> Recorder<'a> {
        Recorder {
            lowered,
            shape,
            split,
            rows_at,
            partials: HashMap::new(),
            op: 0,
            out: Recording::default(),
        }
    }

    pub fn push<K: Kernel>(
        &self,
        choices: &[&str],
        params: K::Params,
        bindings: &K,
        groups: u32,
        rows: Rows,
    ) -> Result<Dispatch> {
        self.push_to(
            K::FAMILY,
            choices,
            Vec::new(),
            params,
            bindings,
            groups,
            rows,
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact about the dispatch"
    )]
    pub fn push_to<K: Kernel>(
        &self,
        family: &str,
        choices: &[&str],
        constants: Vec<(&'static str, u32)>,
        params: K::Params,
        bindings: &K,
        groups: u32,
        rows: Rows,
    ) -> Result<Dispatch> {
        let variant = variant(family, choices)
            .ok_or_else(|| Error::internal(format!("no kernel {family} {choices:?}")))?;
        Ok(Dispatch {
            variant,
            constants,
            params: bytemuck::bytes_of(&params).to_vec(),
            slots: bindings.slots(),
            groups,
            split: false,
            rows,
            op: self.op,
        })
    }

    pub fn format(&self, part: usize) -> &'static str {
        self.lowered.parts[part].layout.format
    }

    /// A matrix product: kernel `matvec_X` for few rows, `matmul_X` for many. The two share an epilogue, and with it
    /// parameters and bindings (build.rs checks it), so callers describe it once, with matvec's types.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact about the product"
    )]
    pub fn product<K: Kernel>(
        &self,
        shape: Shape,
        part: usize,
        quads: u32,
        more_choices: &[&str],
        by_head: bool,
        params: K::Params,
        bindings: &K,
    ) -> Result<Dispatch> {
        let matrix = &self.lowered.parts[part];
        let epilogue = K::FAMILY.strip_prefix("matvec_").unwrap_or(K::FAMILY);
        let format = self.format(part);
        let settings = &self.lowered.settings;
        let tuning = settings.tuning;
        let grouped = epilogue.starts_with("grouped_");
        let cols = (!grouped && !epilogue.starts_with("moe_")).then(|| shape.choice());
        let few = matches!(shape, Shape::Few(_));
        let kernel = if few { "matvec_" } else { "matmul_" };
        let family = if grouped {
            epilogue.to_owned()
        } else {
            format!("{kernel}{epilogue}")
        };
        // The first that is wished for, that the weight type has, and that is right on this device.
        let reduces = if few {
            vec![Some("subgroups"), Some("plain")]
        } else {
            vec![None]
        };
        let candidates = ["int8", "f16", "f32"]
            .into_iter()
            .flat_map(|dot| reduces.iter().map(move |r| (dot, *r)));
        let wished = candidates.filter(|(dot, reduce)| match (*dot, *reduce) {
            ("int8", _) if !tuning.int8 => false,
            ("f16", _) if !tuning.f16 => false,
            (_, Some("subgroups")) => tuning.subgroups,
            _ => true,
        });
        let choices = wished.map(|(dot, reduce)| -> Vec<&str> {
            [format]
                .into_iter()
                .chain(reduce)
                .chain([dot])
                .chain(cols)
                .chain(more_choices.iter().copied())
                .collect()
        });
        let possible: Vec<(Vec<&str>, Variant)> = choices
            .filter_map(|choices| variant(&family, &choices).map(|v| (choices, v)))
            .collect();
        let right = possible
            .iter()
            .find(|(_, variant)| !settings.is_wrong(variant))
            .or(possible.last());
        let (choices, chosen) = right.ok_or_else(|| {
            Error::internal(format!("no kernel {family} for {format} {more_choices:?}"))
        })?;
        let (constants, groups) = if few {
            let lanes = matvec_lanes(quads, matrix.layout.blocks as u32, tuning.lanes);
            let tried = settings.trial.as_ref().and_then(|trial| {
                let name = chosen.name();
                trial
                    .lanes
                    .iter()
                    .find(|(variant, _)| *variant == name)
                    .map(|(_, lanes)| *lanes)
            });
            let lanes = tried.unwrap_or(lanes);
            (
                vec![("LANES", lanes)],
                (quads * lanes).div_ceil(MATVEC_WORKGROUP),
            )
        } else {
            (Vec::new(), quads.div_ceil(TILE_QUADS))
        };
        let tile = shape.rows();
        let rows = if by_head {
            Rows::Heads(tile)
        } else {
            Rows::Tokens(tile)
        };
        self.push_to(&family, choices, constants, params, bindings, groups, rows)
    }

    pub fn kv(&self) -> &'static str {
        self.lowered.settings.cache.name()
    }

    pub fn inv_hidden(&self) -> f32 {
        1.0 / self.lowered.plan.hidden_size as f32
    }

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
                let shapes = lowered
                    .settings
                    .shapes()
                    .into_iter()
                    .filter(|s| s.rows() <= self.shape.rows());
                let heads = shapes.map(|s| Ok((s, self.store(s, *input, *weight, *out, true)?)));
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
                    logits: lowered.slot(*logits),
                    sampling: Slot::Sampling,
                    state: Slot::State,
                    ids: Slot::Ids,
                    adjustments: Slot::Adjustments,
                };
                let dispatch = self.push(&[], params, &bindings, 1, Rows::Heads(1))?;
                self.out.sample = vec![dispatch];
                Ok(())
            }
            fine => self.fine(fine),
        }
    }

    /// What a kernel reads of an operation's input: buffers and how the norm is applied.
    pub(super) fn read(&self, input: Input) -> Read {
        let id = self.lowered.layout.of(input.x);
        match input.norm {
            Some(norm) => Read {
                input: Slot::Scaled(id),
                partials: Slot::Partials(id),
                count: self.partials.get(&id).copied().unwrap_or(1),
                eps: norm.eps,
            },
            // No partial sums, and 1 added to their mean: the scale is 1.
            None => Read {
                input: self.lowered.slot(input.x),
                partials: self.lowered.slot(input.x),
                count: 0,
                eps: 1.0,
            },
        }
    }

    /// Where a kernel writes a residual stream.
    pub(super) fn write(&self, out: ValueId) -> Result<Written> {
        let id = self.lowered.layout.of(out);
        let next_norm = Slot::Norm(self.lowered.next_norm(out)?);
        Ok(Written {
            id,
            next_norm,
            x: Slot::Value(id),
            scaled: Slot::Scaled(id),
            partials: Slot::Partials(id),
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
                rows: matrix.rows as u32,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: 0,
                rows_at: self.rows_at,
                first_row,
                x_stride: padded(lowered.plan.hidden_size),
                hidden: lowered.plan.hidden_size,
                partial_stride: lowered.partial_stride(),
            };
            let bindings = embed::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                state: Slot::State,
                next_norm,
                x,
                scaled,
                partials_out: partials,
            };
            let format = self.format(part);
            self.out
                .body
                .push(self.push(&[format], params, &bindings, 1, Rows::Tokens(1))?);
            first_row += matrix.rows as u32;
        }
        self.partials.insert(id, 1);
        Ok(())
    }

    fn residual(&mut self, input: ValueId, linear: Linear, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let input = lowered.slot(input);
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
                rows: matrix.rows as u32,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: matrix.bias_at() as u32,
                rows_at: self.rows_at,
                x_stride: padded(lowered.plan.hidden_size),
                partial_stride: lowered.partial_stride(),
                out_at,
                partial_at,
            };
            let bindings = matvec_residual::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input,
                state: Slot::State,
                next_norm,
                x,
                scaled,
                partials_out: partials,
            };
            let quads = (matrix.rows as u32).div_ceil(4);
            let dispatch = self.product(self.shape, part, quads, &[], false, params, &bindings)?;
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
            let gates = self.store(self.shape, input, gate.weight, out, false)?;
            self.out.body.extend(gates);
            return self.silu_mul(input, up, out);
        }
        let read = self.read(input);
        let mut out_at = 0;
        for part in lowered.parts_of(&[gate, up]) {
            let matrix = &lowered.parts[part];
            let rows = matrix.rows as u32 / 2;
            let params = matvec_gate_up::Params {
                rows,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: matrix.bias_at() as u32,
                rows_at: self.rows_at,
                partials: read.count,
                partial_stride: lowered.partial_stride(),
                inv_hidden: self.inv_hidden(),
                eps: read.eps,
                out_stride,
                out_at,
            };
            let bindings = matvec_gate_up::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input: read.input,
                state: Slot::State,
                partials: read.partials,
                output: lowered.slot(out),
            };
            let dispatch = self.product(
                self.shape,
                part,
                rows.div_ceil(2),
                &[],
                false,
                params,
                &bindings,
            )?;
            out_at += rows;
            self.out.body.push(dispatch);
        }
        Ok(())
    }

    /// `out = W input`
    pub(super) fn store(
        &self,
        shape: Shape,
        input: Input,
        weight: TensorId,
        out: ValueId,
        by_head: bool,
    ) -> Result<Vec<Dispatch>> {
        let lowered = self.lowered;
        let (read, out_stride) = (self.read(input), lowered.stride(out));
        let mut dispatches = Vec::new();
        let mut out_at = 0;
        for part in lowered.parts_of(&[Linear { weight, bias: None }]) {
            let matrix = &lowered.parts[part];
            let params = matvec_store::Params {
                rows: matrix.rows as u32,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: matrix.bias_at() as u32,
                rows_at: self.rows_at,
                partials: read.count,
                partial_stride: lowered.partial_stride(),
                inv_hidden: self.inv_hidden(),
                eps: read.eps,
                out_stride,
                out_at,
                by_head: u32::from(by_head),
            };
            let bindings = matvec_store::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input: read.input,
                state: Slot::State,
                partials: read.partials,
                output: lowered.slot(out),
            };
            let quads = (matrix.rows as u32).div_ceil(4);
            dispatches.push(self.product(shape, part, quads, &[], by_head, params, &bindings)?);
            out_at += matrix.rows as u32;
        }
        Ok(dispatches)
    }

    fn silu_mul(&mut self, input: Input, up: Linear, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let (read, out_stride) = (self.read(input), lowered.stride(out));
        let mut out_at = 0;
        for part in lowered.parts_of(&[up]) {
            let matrix = &lowered.parts[part];
            let params = matvec_silu_mul::Params {
                rows: matrix.rows as u32,
                blocks: matrix.layout.blocks as u32,
                scale_stride: matrix.layout.scale_stride as u32,
                bias_at: matrix.bias_at() as u32,
                rows_at: self.rows_at,
                partials: read.count,
                partial_stride: lowered.partial_stride(),
                inv_hidden: self.inv_hidden(),
                eps: read.eps,
                out_stride,
                out_at,
            };
            let bindings = matvec_silu_mul::Bindings {
                weights: Slot::Weights(part),
                scales: Slot::Scales(part),
                input: read.input,
                state: Slot::State,
                partials: read.partials,
                output: lowered.slot(out),
            };
            let quads = (matrix.rows as u32).div_ceil(4);
            let dispatch = self.product(self.shape, part, quads, &[], false, params, &bindings)?;
            out_at += matrix.rows as u32;
            self.out.body.push(dispatch);
        }
        Ok(())
    }
}
