//! Fine operations (plan/trace.rs): simple kernels, for steps that are looked into.

use super::super::kernels::{
    edit, head_norm, mix, norm_scale, pick_experts, pointwise, residual_norm, rope_heads,
    row_softmax, scores, store_kv,
};
use super::record::{Recorder, Written};
use super::{Buffer, CacheType, Dispatch, Lowered, RowBucket, Rows, padded, strides};
use crate::error::{Error, Result};
use crate::plan::{
    AttentionSpec, Edit, EditKind, Gating, Heads, Linear, Mask, Op, Role, Row, Traced, ValueId,
};

/// Invocations of the kernels that take a value each.
const WORKGROUP: u32 = 64;

/// A dispatch, or a value that is complete.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Runs.
    Dispatch(Dispatch),
    /// May be edited and read.
    Written(ValueId),
}

/// What an edit does in one step: rows, their new values, and the dispatches that put them there.
#[derive(Clone, Debug)]
pub struct LoweredEdit {
    /// Rows of the step.
    pub rows: Vec<u32>,
    /// `[rows, width]`
    pub values: Vec<f32>,
    /// The change, and what must be computed anew beside it.
    pub dispatches: Vec<Dispatch>,
}

impl Lowered {
    /// The same weights and buffers, for a plan in which points are values. `seen`: cached positions that scores have.
    #[must_use]
    pub fn traced(&self, traced: &Traced, seen: u32) -> Self {
        let mut strides = strides(&traced.plan);
        for op in &traced.plan.ops {
            if let Op::Scores { spec, out, .. } = op {
                strides[out.0] = spec.heads.heads * seen;
            }
            if let Op::Softmax { heads, out, .. } = op {
                strides[out.0] = heads * seen;
            }
        }
        Self {
            plan: traced.plan.clone(),
            layout: traced.layout.clone(),
            strides,
            seen,
            settings: self.settings.clone(),
            state: self.state,
            parts: self.parts.clone(),
            norms: self.norms.clone(),
            matrices: self.matrices.clone(),
        }
    }

    /// The stages of a traced step of `tokens` rows, of which `heads` have logits; `None`: no head, `Some(true)`: sampled.
    ///
    /// # Errors
    ///
    /// Those of [`Lowered::record`].
    pub fn record_traced(
        &self,
        tokens: u32,
        heads: u32,
        sampled: Option<bool>,
    ) -> Result<Vec<Stage>> {
        let mut r = Recorder::new(
            self,
            self.settings.bucket(tokens),
            false,
            self.state.host_at,
        );
        let mut stages = Vec::new();
        for (index, op) in self.plan.ops.iter().enumerate() {
            r.op = index;
            match op {
                Op::LmHead { input, weight, out } => {
                    if sampled.is_none() {
                        break;
                    }
                    r.out.body.extend(r.store(
                        self.settings.bucket(heads),
                        *input,
                        *weight,
                        *out,
                        true,
                    )?);
                }
                Op::Sample { .. } => {
                    if sampled == Some(true) {
                        r.lower(op)?;
                        r.out.body.extend(std::mem::take(&mut r.out.sample));
                    }
                }
                op => r.lower(op)?,
            }
            stages.extend(r.out.body.drain(..).map(Stage::Dispatch));
            stages.extend(op.writes().map(Stage::Written));
        }
        Ok(stages)
    }

    /// An edit of a value in a step of these rows; `None` where it changes none of them. `number` tells its buffers apart.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a query that nothing reads and for a residual stream that no norm reads.
    pub fn lower_edit(
        &self,
        edit: &Edit,
        value: ValueId,
        rows: &[Row],
        number: usize,
    ) -> Result<Option<LoweredEdit>> {
        let spec = self.plan.value_spec(value);
        let by_position = matches!(spec.role, Role::Scores | Role::Pattern);
        let parts = if by_position {
            (self.stride(value) / self.seen.max(1)) as usize
        } else {
            1
        };
        // Positions that the step does not have cannot be changed.
        let given = edit.width / parts;
        let kept = if by_position {
            given.min(self.seen as usize)
        } else {
            given
        };
        let (mut own, mut values) = (Vec::new(), Vec::new());
        for (t, row) in rows.iter().enumerate() {
            let Some(new) = edit.row(*row) else { continue };
            own.push(t as u32);
            for part in new.chunks_exact(given) {
                // The device has no infinities.
                values.extend(
                    part[..kept]
                        .iter()
                        .map(|v| v.clamp(super::LOWEST, -super::LOWEST)),
                );
            }
        }
        if own.is_empty() {
            return Ok(None);
        }
        let r = Recorder::new(self, RowBucket::Few(1), false, self.state.host_at);
        let stride = self.stride(value);
        let (base, stride, part, part_stride, step) = match spec.role {
            Role::Routes => (self.state.routes_at + 1, spec.width, spec.width / 2, 0, 2),
            Role::Query => {
                let heads = self.query_heads(value)?;
                (0, stride, heads.head_dim, Self::head_stride(&heads), 1)
            }
            _ if by_position => (0, stride, kept as u32, self.seen, 1),
            _ => (0, stride, spec.width, 0, 1),
        };
        let width = (parts * kept) as u32;
        let add = u32::from(edit.kind == EditKind::Add);
        let params = edit::Params {
            width,
            base,
            stride,
            part,
            part_stride,
            step,
            add,
        };
        let bindings = edit::Bindings {
            rows: Buffer::EditRows(number),
            values: Buffer::EditValues(number),
            output: self.buffer(value),
        };
        let mut change = r.push(
            r.choices(),
            params,
            &bindings,
            width.div_ceil(WORKGROUP),
            Rows::One,
        )?;
        change.rows = Rows::Exactly(own.len() as u32);
        let mut dispatches = vec![change];
        if spec.role == Role::Residual {
            dispatches.push(r.residual_norm(value)?);
        }
        Ok(Some(LoweredEdit {
            rows: own,
            values,
            dispatches,
        }))
    }

    /// The heads of a query value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a query that nothing reads.
    pub fn query_heads(&self, value: ValueId) -> Result<Heads> {
        let found = self.plan.ops.iter().find_map(|op| match op {
            Op::QkvRope { heads, query, .. } if *query == value => Some(*heads),
            Op::QkNorm {
                heads, query, out, ..
            } if *query == value || *out == value => Some(*heads),
            Op::Attention { spec, query, .. } | Op::Scores { spec, query, .. }
                if *query == value =>
            {
                Some(spec.heads)
            }
            _ => None,
        });
        // A query that only its norm reads has the heads of the normalised one.
        let reader = self.plan.ops.iter().find_map(|op| match op {
            Op::HeadNorm { x, out, .. } if *x == value => Some(*out),
            _ => None,
        });
        match (found, reader) {
            (Some(heads), _) => Ok(heads),
            (None, Some(reader)) => self.query_heads(reader),
            (None, None) => Err(Error::internal("a query that nothing reads")),
        }
    }

    /// Columns of the room for products of [`Op::Linears`].
    pub(super) fn products_width(&self) -> u32 {
        let widths = self.plan.ops.iter().filter_map(|op| match op {
            Op::Linears { linears, .. } => Some(
                linears
                    .iter()
                    .map(|(l, _)| self.plan.tensor(l.weight).rows as u32)
                    .sum::<u32>(),
            ),
            _ => None,
        });
        padded(widths.max().unwrap_or(0))
    }
}

/// What [`Recorder::pointwise`] reads and writes.
struct Pointwise {
    mode: u32,
    width: u32,
    x: Option<(Buffer, u32, u32)>,
    y: Option<(Buffer, u32)>,
    out: (Buffer, u32, u32),
}

impl Recorder<'_> {
    /// Lowers a fine operation.
    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    pub(super) fn fine(&mut self, op: &Op) -> Result<()> {
        let lowered = self.lowered;
        let hidden = lowered.plan.hidden_size;
        let at = |value: ValueId| (lowered.buffer(value), lowered.stride(value), 0);
        let beside = |value: ValueId| (lowered.buffer(value), lowered.stride(value));
        let width = |value: ValueId| lowered.plan.value_spec(value).width;
        match op {
            Op::NormScale { x, eps, out } => {
                let params = norm_scale::Params {
                    hidden,
                    x_stride: lowered.stride(*x),
                    out_stride: lowered.stride(*out),
                    eps: *eps,
                };
                let bindings = norm_scale::Bindings {
                    x: lowered.buffer(*x),
                    output: lowered.buffer(*out),
                };
                let dispatch = self.push(self.choices(), params, &bindings, 1, Rows::Tokens(1))?;
                self.out.body.push(dispatch);
                Ok(())
            }
            Op::Normalize { x, scale, out } => {
                let (x, y, out) = (Some(at(*x)), Some(beside(*scale)), at(*out));
                self.pointwise(Pointwise {
                    mode: pointwise::DIVIDE,
                    width: hidden,
                    x,
                    y,
                    out,
                })
            }
            Op::Weigh { x, weight, out } => {
                let (x, y, out) = (Some(at(*x)), Some((Buffer::Norm(*weight), 0)), at(*out));
                self.pointwise(Pointwise {
                    mode: pointwise::WEIGH,
                    width: hidden,
                    x,
                    y,
                    out,
                })
            }
            Op::SiluMul { gate, up, out } => {
                let (x, y) = (Some(at(*gate)), Some(beside(*up)));
                let width = width(*out);
                self.pointwise(Pointwise {
                    mode: pointwise::SILU_MUL,
                    width,
                    x,
                    y,
                    out: at(*out),
                })
            }
            Op::Zero { out } => {
                let out = at(*out);
                self.pointwise(Pointwise {
                    mode: pointwise::ZERO,
                    width: hidden,
                    x: None,
                    y: None,
                    out,
                })
            }
            Op::Add { x, y, out } => {
                let written = Pointwise {
                    mode: pointwise::ADD_TO,
                    width: hidden,
                    x: None,
                    y: Some(beside(*y)),
                    out: at(*out),
                };
                debug_assert_eq!(
                    lowered.layout.of(*x),
                    lowered.layout.of(*out),
                    "the sum takes the place of x"
                );
                self.pointwise(written)?;
                // The kernel that read x may have had more partial sums than one.
                let norm = self.residual_norm(*out)?;
                self.out.body.push(norm);
                Ok(())
            }
            Op::Linears { x, linears } => self.linears(*x, linears),
            Op::Rope {
                x,
                heads,
                head_dim,
                rope,
                out,
            } => {
                let pairs = rope.map_or(0, |r| lowered.plan.ropes[r].inv_freq.len() as u32);
                let is_query = lowered.plan.value_spec(*out).role == Role::Query;
                let geometry = Heads {
                    heads: *heads,
                    kv_heads: *heads,
                    head_dim: *head_dim,
                };
                let out_head_stride = if is_query {
                    Lowered::head_stride(&geometry)
                } else {
                    *head_dim
                };
                let params = rope_heads::Params {
                    rows_at: self.rows_at,
                    head_dim: *head_dim,
                    x_stride: lowered.stride(*x),
                    out_stride: lowered.stride(*out),
                    out_head_stride,
                    rope_pairs: pairs,
                    rope_high: Lowered::rope_high(pairs),
                };
                let bindings = rope_heads::Bindings {
                    state: Buffer::State,
                    x: lowered.buffer(*x),
                    rope: Buffer::Rope(rope.unwrap_or(0)),
                    output: lowered.buffer(*out),
                };
                let dispatch =
                    self.push(self.choices(), params, &bindings, *heads, Rows::Tokens(1))?;
                self.out.body.push(dispatch);
                Ok(())
            }
            Op::HeadNorm {
                x,
                weight,
                head_dim,
                eps,
                out,
            } => {
                let is_query = lowered.plan.value_spec(*x).role == Role::Query;
                let head_stride = if is_query {
                    head_dim.next_multiple_of(4)
                } else {
                    *head_dim
                };
                let heads = width(*x) / head_dim;
                let weighed = u32::from(weight.is_some());
                let params = head_norm::Params {
                    head_dim: *head_dim,
                    head_stride,
                    stride: lowered.stride(*x),
                    eps: *eps,
                    weighed,
                };
                let weight = weight.map_or(Buffer::State, Buffer::Norm);
                let bindings = head_norm::Bindings {
                    x: lowered.buffer(*out),
                    weight,
                };
                let dispatch =
                    self.push(self.choices(), params, &bindings, heads, Rows::Tokens(1))?;
                self.out.body.push(dispatch);
                Ok(())
            }
            Op::StoreKv {
                key,
                value,
                heads,
                cache,
            } => {
                for (which, x) in [(0, *key), (1, *value)] {
                    let params = store_kv::Params {
                        rows_at: self.rows_at,
                        pages_at: lowered.state.pages_at,
                        pages_per_seq: lowered.settings.limits.max_pages_per_seq,
                        kv_heads: heads.kv_heads,
                        head_dim: heads.head_dim,
                        head_stride: Lowered::head_stride(heads),
                        x_stride: lowered.stride(x),
                        which,
                    };
                    let bindings = store_kv::Bindings {
                        state: Buffer::State,
                        x: lowered.buffer(x),
                        cache: lowered.new_keys(*cache),
                    };
                    let dispatch = self.push(
                        self.choices(),
                        params,
                        &bindings,
                        heads.kv_heads,
                        Rows::Tokens(1),
                    )?;
                    self.out.body.push(dispatch);
                }
                Ok(())
            }
            Op::Scores { query, spec, out } => self.scores(*query, spec, *out),
            Op::Softmax { scores, heads, out } => self.softmax(*scores, lowered.seen, *heads, *out),
            Op::Mix { pattern, spec, out } => self.mix(*pattern, spec, *out),
            Op::ExpertWeights {
                logits,
                gating: Gating::Softmax,
                out,
            } => self.softmax(*logits, width(*logits), 1, *out),
            Op::ExpertWeights {
                logits,
                gating: Gating::Sigmoid,
                out,
            } => {
                let (x, width) = (Some(at(*logits)), width(*logits));
                self.pointwise(Pointwise {
                    mode: pointwise::SIGMOID,
                    width,
                    x,
                    y: None,
                    out: at(*out),
                })
            }
            Op::PickExperts {
                weights, experts, ..
            } => {
                let params = pick_experts::Params {
                    experts: experts.count,
                    used: experts.used,
                    stride: lowered.stride(*weights),
                    routes_at: lowered.state.routes_at,
                    normalise: u32::from(experts.gating == Gating::Softmax),
                };
                let bindings = pick_experts::Bindings {
                    weights: lowered.buffer(*weights),
                    state: Buffer::State,
                };
                let dispatch = self.push(self.choices(), params, &bindings, 1, Rows::Tokens(1))?;
                self.out.body.push(dispatch);
                self.group_experts(*experts)
            }
            coarse => Err(Error::internal(format!(
                "{} is no fine operation",
                coarse.name()
            ))),
        }
    }

    fn pointwise(&mut self, op: Pointwise) -> Result<()> {
        let Pointwise {
            mode,
            width,
            x,
            y,
            out,
        } = op;
        // What a mode does not read must be bound all the same, and may not be what is written.
        let (x, x_stride, x_at) = x.unwrap_or((Buffer::State, 0, 0));
        let (y, y_stride) = y.unwrap_or((Buffer::State, 0));
        let (output, out_stride, out_at) = out;
        let params = pointwise::Params {
            mode,
            width,
            x_stride,
            x_at,
            y_stride,
            out_stride,
            out_at,
        };
        let bindings = pointwise::Bindings { x, y, output };
        let dispatch = self.push(
            self.choices(),
            params,
            &bindings,
            width.div_ceil(WORKGROUP),
            Rows::Tokens(1),
        )?;
        self.out.body.push(dispatch);
        Ok(())
    }

    /// What the norm that reads a residual stream needs beside it.
    fn residual_norm(&self, x: ValueId) -> Result<Dispatch> {
        let lowered = self.lowered;
        let Written {
            next_norm,
            x: slot,
            scaled,
            partials,
            ..
        } = self.write(x)?;
        let params = residual_norm::Params {
            hidden: lowered.plan.hidden_size,
            x_stride: lowered.stride(x),
            partial_stride: lowered.partial_stride(),
            partials: lowered.partial_stride(),
        };
        let bindings = residual_norm::Bindings {
            x: slot,
            next_norm,
            scaled,
            partials_out: partials,
        };
        self.push(self.choices(), params, &bindings, 1, Rows::Tokens(1))
    }

    fn linears(&mut self, x: ValueId, linears: &[(Linear, ValueId)]) -> Result<()> {
        let lowered = self.lowered;
        let only: Vec<Linear> = linears.iter().map(|(linear, _)| *linear).collect();
        let read = self.read(x.plain());
        let out_stride = lowered.products_width();
        let mut out_at = 0;
        for run in lowered.runs(&only) {
            let parts = lowered.parts_of(&run);
            if parts.is_empty() {
                return Err(Error::internal(
                    "matrices that no operation of the model stacks so",
                ));
            }
            for part in parts {
                let matrix = &lowered.parts[part];
                let out = (Buffer::Products, out_stride, out_at);
                let dispatch = self.store_part(self.bucket, part, &read, out, false)?;
                self.out.body.push(dispatch);
                let mut from = out_at;
                for (tensor, rows) in &matrix.segments {
                    let count = (rows.end - rows.start) as u32;
                    let value = linears
                        .iter()
                        .find(|(linear, _)| linear.weight == *tensor)
                        .map(|(_, value)| *value);
                    let value =
                        value.ok_or_else(|| Error::internal("a matrix of another operation"))?;
                    self.pointwise(Pointwise {
                        mode: pointwise::COPY,
                        width: count,
                        x: Some((Buffer::Products, out_stride, from)),
                        y: None,
                        out: (
                            lowered.buffer(value),
                            lowered.stride(value),
                            rows.start as u32,
                        ),
                    })?;
                    from += count;
                }
                out_at += matrix.rows as u32;
            }
        }
        Ok(())
    }

    fn scores(&mut self, query: ValueId, spec: &AttentionSpec, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let AttentionSpec {
            heads,
            cache,
            scale,
            mask,
            temperature,
        } = *spec;
        if lowered.settings.cache == CacheType::Q8_0 {
            self.cache_store(&heads, cache)?;
        }
        let (window, chunk) = window_and_chunk(mask);
        let params = scores::Params {
            rows_at: self.rows_at,
            pages_at: lowered.state.pages_at,
            pages_per_seq: lowered.settings.limits.max_pages_per_seq,
            kv_heads: heads.kv_heads,
            group: heads.heads / heads.kv_heads,
            head_quads: Lowered::head_stride(&heads) / 4,
            heads: heads.heads,
            seen: lowered.seen,
            out_stride: lowered.stride(out),
            scale,
            window,
            chunk,
            temperature: temperature.map_or(0.0, |t| t.scale),
            temperature_floor: temperature.map_or(1.0, |t| t.floor_scale),
        };
        let bindings = scores::Bindings {
            state: Buffer::State,
            query: lowered.buffer(query),
            cache: Buffer::Cache(cache),
            output: lowered.buffer(out),
        };
        let groups = heads.heads * lowered.seen.div_ceil(WORKGROUP);
        let dispatch = self.push(self.choices(), params, &bindings, groups, Rows::Tokens(1))?;
        self.out.body.push(dispatch);
        Ok(())
    }

    fn softmax(&mut self, x: ValueId, width: u32, parts: u32, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let params = row_softmax::Params {
            width,
            stride: lowered.stride(x),
        };
        let bindings = row_softmax::Bindings {
            x: lowered.buffer(x),
            output: lowered.buffer(out),
        };
        let dispatch = self.push(self.choices(), params, &bindings, parts, Rows::Tokens(1))?;
        self.out.body.push(dispatch);
        Ok(())
    }

    fn mix(&mut self, pattern: ValueId, spec: &AttentionSpec, out: ValueId) -> Result<()> {
        let lowered = self.lowered;
        let heads = spec.heads;
        let (window, chunk) = window_and_chunk(spec.mask);
        let params = mix::Params {
            rows_at: self.rows_at,
            pages_at: lowered.state.pages_at,
            pages_per_seq: lowered.settings.limits.max_pages_per_seq,
            kv_heads: heads.kv_heads,
            group: heads.heads / heads.kv_heads,
            head_dim: heads.head_dim,
            head_quads: Lowered::head_stride(&heads) / 4,
            seen: lowered.seen,
            pattern_stride: lowered.stride(pattern),
            out_stride: lowered.stride(out),
            window,
            chunk,
        };
        let bindings = mix::Bindings {
            state: Buffer::State,
            pattern: lowered.buffer(pattern),
            cache: Buffer::Cache(spec.cache),
            output: lowered.buffer(out),
        };
        let dispatch = self.push(
            self.choices(),
            params,
            &bindings,
            heads.heads,
            Rows::Tokens(1),
        )?;
        self.out.body.push(dispatch);
        Ok(())
    }
}

/// A mask as kernels have it; 0: none.
pub(super) fn window_and_chunk(mask: Mask) -> (u32, u32) {
    match mask {
        Mask::Causal => (0, 0),
        Mask::Window(n) => (n, 0),
        Mask::Chunk(n) => (0, n),
    }
}
