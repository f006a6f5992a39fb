//! Looking inside a step: values read back ([taps](Trace::taps)) and changed ([edits](Trace::edits)) as they are computed.
//!
//! Points have the names of `TransformerLens` (Nanda & Bloom 2022). Many of them lie between the coarse operations of a
//! model's plan; where others are asked for, [`Traced::new`] puts fine operations in the place of the coarse one around
//! them. Steps without a trace run the model's own plan.

use super::{
    AttentionSpec, Experts, Heads, Input, Layout, Linear, Norm, Op, Plan, Role, Row, TensorId,
    ValueId,
};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A place in a layer, or before or after all of them.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the shapes stand in HOOKS")]
pub enum Hook {
    Embed,
    ResidPre,
    Ln1Scale,
    Ln1Normalized,
    Query,
    Key,
    Value,
    RotQuery,
    RotKey,
    Scores,
    Pattern,
    Z,
    AttnOut,
    ResidMid,
    Ln2Scale,
    Ln2Normalized,
    Gate,
    Up,
    MlpPost,
    RouterLogits,
    ExpertWeights,
    ExpertIndices,
    PickedWeights,
    MlpOut,
    ResidPost,
    FinalScale,
    FinalNormalized,
    FinalOutput,
    Logits,
}

/// Every hook's name within its layer, and whether it belongs to one. Shapes have the letters of the [module](super).
const HOOKS: &[(Hook, bool, &str)] = &[
    // [T, E]
    (Hook::Embed, false, "hook_embed"),
    (Hook::ResidPre, true, "hook_resid_pre"),
    // [T, 1]: sqrt(mean(x^2) + eps)
    (Hook::Ln1Scale, true, "ln1.hook_scale"),
    // [T, E]: x / scale, before the norm's weight
    (Hook::Ln1Normalized, true, "ln1.hook_normalized"),
    // [T, H, D], before rope
    (Hook::Query, true, "attn.hook_q"),
    // [T, KV, D], before rope
    (Hook::Key, true, "attn.hook_k"),
    // [T, KV, D]
    (Hook::Value, true, "attn.hook_v"),
    // As attention reads them.
    (Hook::RotQuery, true, "attn.hook_rot_q"),
    (Hook::RotKey, true, "attn.hook_rot_k"),
    // [T, H, S], scaled; minus infinity where a position is not seen
    (Hook::Scores, true, "attn.hook_attn_scores"),
    // [T, H, S]
    (Hook::Pattern, true, "attn.hook_pattern"),
    // [T, H, D]
    (Hook::Z, true, "attn.hook_z"),
    // [T, E]: what each half adds to the residual stream, and the stream between them
    (Hook::AttnOut, true, "hook_attn_out"),
    (Hook::ResidMid, true, "hook_resid_mid"),
    (Hook::Ln2Scale, true, "ln2.hook_scale"),
    (Hook::Ln2Normalized, true, "ln2.hook_normalized"),
    // [T, F]
    (Hook::Gate, true, "mlp.hook_pre"),
    (Hook::Up, true, "mlp.hook_pre_linear"),
    // [T, F]: silu(gate) * up
    (Hook::MlpPost, true, "mlp.hook_post"),
    // [T, X]
    (Hook::RouterLogits, true, "mlp.hook_router_logits"),
    // [T, X]: of all experts
    (Hook::ExpertWeights, true, "mlp.hook_expert_weights"),
    // [T, used]: of those that the row uses, best first
    (Hook::ExpertIndices, true, "mlp.hook_expert_indices"),
    (Hook::PickedWeights, true, "mlp.expert_weights_renormalised"),
    (Hook::MlpOut, true, "hook_mlp_out"),
    (Hook::ResidPost, true, "hook_resid_post"),
    (Hook::FinalScale, false, "ln_final.hook_scale"),
    (Hook::FinalNormalized, false, "ln_final.hook_normalized"),
    // [T, E]: with the norm's weight
    (Hook::FinalOutput, false, "final_norm_output"),
    // [logit rows, V]
    (Hook::Logits, false, "logits"),
];

/// A hook of a layer: `blocks.3.attn.hook_pattern`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// The layer, for hooks that belong to one.
    pub layer: Option<u32>,
    /// The place in it.
    pub hook: Hook,
}

impl Point {
    /// The point of that name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) with the known names.
    pub fn parse(name: &str) -> Result<Self> {
        let (layer, rest) = match name
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((layer, rest)) => (layer.parse::<u32>().ok(), rest),
            None => (None, name),
        };
        HOOKS
            .iter()
            .find(|(_, in_layer, known)| *known == rest && *in_layer == layer.is_some())
            .map(|(hook, ..)| Self { layer, hook: *hook })
            .ok_or_else(|| {
                let name_of = |(_, in_layer, known): &(Hook, bool, &str)| {
                    if *in_layer {
                        format!("blocks.N.{known}")
                    } else {
                        (*known).to_owned()
                    }
                };
                let known: Vec<String> = HOOKS.iter().map(name_of).collect();
                Error::invalid_input(format!(
                    "there is no hook {name:?}; there are {}",
                    known.join(", ")
                ))
            })
    }

    /// Every point of a plan.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a plan that is traced already.
    pub fn all(plan: &Plan) -> Result<Vec<Self>> {
        let traced = Traced::new(plan, &BTreeSet::new(), true)?;
        Ok(traced.at.into_keys().collect())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "blocks.{layer}.")?;
        }
        let name = HOOKS
            .iter()
            .find(|(hook, ..)| *hook == self.hook)
            .map_or("", |(.., name)| *name);
        f.write_str(name)
    }
}

/// How an edit changes a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum EditKind {
    /// Adds to what was computed.
    Add,
    /// Takes its place.
    Replace,
}

/// A change of a value as soon as it is computed: all that is computed from it sees the new one.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Which value.
    pub point: Point,
    /// How.
    pub kind: EditKind,
    /// Rows of this sequence slot alone; `None`: of every sequence.
    pub seq: Option<u32>,
    /// The positions that are changed; `None`: every position.
    pub positions: Option<Vec<u32>>,
    /// `[n, width]` with the width of the value. Of one row, it is used at every position; else row `i` is for
    /// `positions[i]`, or for position `i` where no positions are given. Of [`Hook::Scores`] and [`Hook::Pattern`], `width` is
    /// `H` times a number of cached positions from the first on.
    pub values: Vec<f32>,
    /// Values per row of `values`.
    pub width: usize,
}

impl Edit {
    /// What the row's value changes by or to, if it does.
    pub fn row(&self, row: Row) -> Option<&[f32]> {
        if self.seq.is_some_and(|seq| seq != row.seq) {
            return None;
        }
        let count = self.values.len() / self.width.max(1);
        let index = match &self.positions {
            Some(positions) => positions.iter().position(|pos| *pos == row.pos)?,
            None => row.pos as usize,
        };
        let index = if count == 1 { 0 } else { index };
        self.values
            .get(index * self.width..(index + 1) * self.width)
    }
}

/// What a step reads back and changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// Values that are read back, after edits.
    pub taps: Vec<Point>,
    /// Changes, made in this order.
    pub edits: Vec<Edit>,
}

/// A value that a tap read: `[rows, shape…]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tap {
    /// Which.
    pub point: Point,
    /// Dimensions: rows of the step first (rows with logits for [`Hook::Logits`]).
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// A plan in which points are values.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The operations.
    pub plan: Plan,
    /// Where its values lie.
    pub layout: Layout,
    /// The value of each point that the plan has.
    pub at: BTreeMap<Point, ValueId>,
}

impl Traced {
    /// A plan in which every point of a trace is a value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for a point that the model does not have, and for an edit
    /// of another width than its value or of another length than its positions.
    pub fn of(plan: &Plan, trace: &Trace) -> Result<Self> {
        let wanted: BTreeSet<Point> = trace
            .taps
            .iter()
            .copied()
            .chain(trace.edits.iter().map(|edit| edit.point))
            .collect();
        let traced = Self::new(plan, &wanted, false)?;
        for edit in &trace.edits {
            traced.check(edit)?;
        }
        Ok(traced)
    }

    fn check(&self, edit: &Edit) -> Result<()> {
        let point = edit.point;
        if matches!(
            point.hook,
            Hook::Ln1Scale | Hook::Ln2Scale | Hook::FinalScale | Hook::ExpertIndices | Hook::Logits
        ) {
            return Err(Error::invalid_input(format!(
                "{point} can be read, and not edited"
            )));
        }
        let value = self.plan.value_spec(self.at[&point]);
        let heads = self.heads(point.layer);
        let fits = match (value.role, point.hook) {
            (Role::Scores | Role::Pattern, _) => {
                edit.width > 0 && edit.width.is_multiple_of(heads.max(1))
            }
            (_, Hook::PickedWeights) => edit.width * 2 == value.width as usize,
            _ => edit.width == value.width as usize,
        };
        let count = edit.values.len().checked_div(edit.width).unwrap_or(0);
        let whole = count * edit.width == edit.values.len();
        let enough = edit
            .positions
            .as_ref()
            .is_none_or(|positions| count == 1 || count == positions.len());
        if !fits || !whole || !enough || count == 0 {
            return Err(Error::invalid_input(format!(
                "the edit of {point} has {} values in rows of {}; a row of the value has {}, and there must be one row, or \
                 one for each position",
                edit.values.len(),
                edit.width,
                if value.width == 0 {
                    "heads x positions".to_owned()
                } else {
                    value.width.to_string()
                },
            )));
        }
        if edit.values.iter().any(|value| value.is_nan()) {
            return Err(Error::invalid_input(format!(
                "the edit of {point} holds a value that is no number"
            )));
        }
        Ok(())
    }

    /// Query heads of a layer's attention.
    pub fn heads(&self, layer: Option<u32>) -> usize {
        self.plan
            .ops
            .iter()
            .find_map(|op| match op {
                Op::Scores { spec, out, .. } if self.plan.value_spec(*out).layer == layer => {
                    Some(spec.heads.heads as usize)
                }
                _ => None,
            })
            .unwrap_or(0)
    }

    /// The dimensions of a point's value beside the rows, for values of `width` per row.
    pub fn dims(&self, point: Point, width: usize) -> Vec<usize> {
        let by_head = |d: u32| vec![width / d.max(1) as usize, d as usize];
        let head_dim = self.plan.caches.first().map_or(1, |cache| cache.head_dim);
        match point.hook {
            Hook::Query | Hook::Key | Hook::Value | Hook::RotQuery | Hook::RotKey | Hook::Z => {
                by_head(head_dim)
            }
            Hook::Scores | Hook::Pattern => {
                let heads = self.heads(point.layer).max(1);
                vec![heads, width / heads]
            }
            _ => vec![width],
        }
    }

    /// With fine operations around the wanted points, or around all.
    fn new(plan: &Plan, wanted: &BTreeSet<Point>, all: bool) -> Result<Self> {
        let mut opener = Opener {
            from: plan,
            to: plan.without_ops(),
            wanted,
            all,
            map: vec![None; plan.values.len()],
            at: BTreeMap::new(),
            norms: Vec::new(),
            sum: None,
            layer: None,
        };
        let mut skip = false;
        for (i, op) in plan.ops.iter().enumerate() {
            if std::mem::take(&mut skip) {
                continue;
            }
            skip = opener.op(op, &plan.ops[i + 1..])?;
        }
        let Opener { to, at, .. } = opener;
        if let Some(missing) = wanted.iter().find(|point| !at.contains_key(point)) {
            return Err(Error::invalid_input(format!("this model has no {missing}")));
        }
        let layout = Layout::new(&to)?;
        Ok(Self {
            plan: to,
            layout,
            at,
        })
    }
}

/// Writes a plan anew, with fine operations where they are wanted.
struct Opener<'a> {
    from: &'a Plan,
    to: Plan,
    wanted: &'a BTreeSet<Point>,
    all: bool,
    /// For each value of the first plan, that of the second.
    map: Vec<Option<ValueId>>,
    at: BTreeMap<Point, ValueId>,
    /// Values whose norm is written out: the value, the norm, its output.
    norms: Vec<(ValueId, Norm, ValueId)>,
    /// The residual stream to which the half that is written adds its sum.
    sum: Option<ValueId>,
    layer: Option<u32>,
}

impl Opener<'_> {
    fn wants(&self, hooks: &[Hook]) -> bool {
        let layer = |hook: &Hook| {
            HOOKS
                .iter()
                .any(|(known, in_layer, _)| known == hook && *in_layer)
        };
        self.all
            || hooks.iter().any(|hook| {
                let layer = if layer(hook) { self.layer } else { None };
                self.wanted.contains(&Point { layer, hook: *hook })
            })
    }

    fn mark(&mut self, hook: Hook, value: ValueId) {
        let in_layer = HOOKS
            .iter()
            .any(|(known, in_layer, _)| *known == hook && *in_layer);
        self.at.insert(
            Point {
                layer: if in_layer { self.layer } else { None },
                hook,
            },
            value,
        );
    }

    /// A value of the first plan in the second.
    fn mapped(&mut self, value: ValueId) -> ValueId {
        if let Some(known) = self.map[value.0] {
            return known;
        }
        let spec = self.from.value_spec(value);
        let new = self.to.value(spec.role, spec.width);
        self.map[value.0] = Some(new);
        new
    }

    fn input(&mut self, input: Input) -> Input {
        let x = self.mapped(input.x);
        let known = self
            .norms
            .iter()
            .find(|(value, norm, _)| *value == x && Some(*norm) == input.norm);
        known.map_or(Input { x, ..input }, |(.., out)| out.plain())
    }

    /// The input with its norm written out, and marked.
    fn open_norm(&mut self, input: Input, scale_hook: Hook, normalized_hook: Hook) -> ValueId {
        let Some(norm) = input.norm else {
            return self.mapped(input.x);
        };
        let read = self.input(input);
        if read.norm.is_none() {
            return read.x;
        }
        let (x, hidden) = (read.x, self.to.hidden_size);
        let scale = self.to.value(Role::NormScale, 1);
        self.to.ops.push(Op::NormScale {
            x,
            eps: norm.eps,
            out: scale,
        });
        let normalized = self.to.value(Role::Normalized, hidden);
        self.to.ops.push(Op::Normalize {
            x,
            scale,
            out: normalized,
        });
        let out = self.to.value(Role::NormOutput, hidden);
        self.to.ops.push(Op::Weigh {
            x: normalized,
            weight: norm.weight,
            out,
        });
        self.mark(scale_hook, scale);
        self.mark(normalized_hook, normalized);
        self.norms.push((x, norm, out));
        out
    }

    fn linears<const N: usize>(
        &mut self,
        x: ValueId,
        linears: [(Linear, Role); N],
    ) -> [ValueId; N] {
        let outs = linears.map(|(linear, role)| {
            let rows = self.to.tensor(linear.weight).rows as u32;
            (linear, self.to.value(role, rows))
        });
        self.to.ops.push(Op::Linears {
            x,
            linears: outs.to_vec(),
        });
        outs.map(|(_, out)| out)
    }

    /// Writes an operation; true if the next one is written too.
    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    fn op(&mut self, op: &Op, after: &[Op]) -> Result<bool> {
        if let Some(out) = &op.writes().next() {
            let layer = self.from.value_spec(*out).layer;
            if layer != self.layer {
                self.norms.clear();
            }
            self.layer = layer;
            self.to.enter_layer(layer);
        }
        match op {
            Op::Embed { table, out } => {
                let new = self.to.embed(*table);
                self.map[out.0] = Some(new);
                self.mark(Hook::Embed, new);
            }
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
                return self.qkv_rope(*input, [*q, *k, *v], *heads, *rope, *cache, *query, after);
            }
            Op::QkNorm {
                query,
                out,
                heads,
                cache,
                eps,
                weights,
                rope,
            } => {
                let query = self.mapped(*query);
                let new = self
                    .to
                    .qk_norm(query, *heads, *cache, *eps, *weights, *rope);
                self.map[out.0] = Some(new);
                self.mark(Hook::RotQuery, new);
            }
            Op::Attention { query, spec, out } => {
                let query = self.mapped(*query);
                let new = if self.wants(&[Hook::Scores, Hook::Pattern]) {
                    self.open_attention(query, *spec)
                } else {
                    self.to.attention(query, *spec)
                };
                self.map[out.0] = Some(new);
                self.mark(Hook::Z, new);
            }
            Op::Residual {
                input,
                linear,
                x,
                out,
            } => {
                let first_half = self.from.value_spec(*input).role == Role::Attention;
                let input = self.mapped(*input);
                let base = self.base(
                    *x,
                    if first_half {
                        Hook::AttnOut
                    } else {
                        Hook::MlpOut
                    },
                );
                let new = self.to.residual(input, *linear, base);
                self.map[out.0] = Some(new);
                self.end_of_half(*out, first_half, after);
            }
            Op::GateUpSilu {
                input,
                gate,
                up,
                out,
            } => {
                let width = self.from.value_spec(*out).width;
                let new = self.gate_up_silu(*input, *gate, *up, width);
                self.map[out.0] = Some(new);
                self.mark(Hook::MlpPost, new);
            }
            Op::MoeRoute {
                input,
                router,
                experts,
                out,
            } => {
                let new = self.moe_route(*input, *router, *experts);
                self.map[out.0] = Some(new);
                self.mark(Hook::ExpertIndices, new);
                self.mark(Hook::PickedWeights, new);
            }
            Op::MoeGateUpSilu {
                input,
                routes,
                gate,
                up,
                experts,
                out,
            } => {
                let (input, routes) = (self.input(*input), self.mapped(*routes));
                let new = self
                    .to
                    .moe_gate_up_silu(input, routes, [*gate, *up], *experts);
                self.map[out.0] = Some(new);
            }
            Op::MoeDownResidual {
                input,
                routes,
                down,
                experts,
                x,
                out,
            } => {
                let (input, routes) = (self.mapped(*input), self.mapped(*routes));
                let base = self.base(*x, Hook::MlpOut);
                let new = self
                    .to
                    .moe_down_residual(input, routes, *down, *experts, base);
                self.map[out.0] = Some(new);
                self.end_of_half(*out, false, after);
            }
            Op::LmHead { input, weight, out } => {
                let read =
                    if self.wants(&[Hook::FinalScale, Hook::FinalNormalized, Hook::FinalOutput]) {
                        let read = self.open_norm(*input, Hook::FinalScale, Hook::FinalNormalized);
                        self.mark(Hook::FinalOutput, read);
                        read.plain()
                    } else {
                        self.input(*input)
                    };
                let new = self.to.lm_head(read, *weight);
                self.map[out.0] = Some(new);
                self.mark(Hook::Logits, new);
            }
            Op::Sample { logits } => {
                let logits = self.mapped(*logits);
                self.to.sample(logits);
            }
            fine => {
                return Err(Error::internal(format!(
                    "{} in a model's plan",
                    fine.name()
                )));
            }
        }
        Ok(false)
    }

    /// Writes [`Op::QkvRope`], and the norm of queries and keys after it where there is one: then true.
    fn qkv_rope(
        &mut self,
        input: Input,
        [q, k, v]: [Linear; 3],
        heads: Heads,
        rope: Option<usize>,
        cache: usize,
        query: ValueId,
        after: &[Op],
    ) -> Result<bool> {
        let x = self.mapped(input.x);
        self.mark(Hook::ResidPre, x);
        let qk_norm = match after.first() {
            Some(Op::QkNorm {
                query: from,
                out,
                eps,
                weights,
                rope,
                ..
            }) if *from == query => Some((*out, *eps, *weights, *rope)),
            _ => None,
        };
        if !self.wants(&[
            Hook::Ln1Scale,
            Hook::Ln1Normalized,
            Hook::Query,
            Hook::Key,
            Hook::Value,
            Hook::RotKey,
        ]) {
            let input = self.input(input);
            let new = self.to.qkv_rope(input, [q, k, v], heads, rope, cache);
            self.map[query.0] = Some(new);
            if qk_norm.is_none() {
                self.mark(Hook::RotQuery, new);
            }
            return Ok(false);
        }
        let read = self.open_norm(input, Hook::Ln1Scale, Hook::Ln1Normalized);
        let [raw_q, raw_k, value] = self.linears(
            read,
            [(q, Role::RawQuery), (k, Role::RawKey), (v, Role::Value)],
        );
        for (hook, value) in [
            (Hook::Query, raw_q),
            (Hook::Key, raw_k),
            (Hook::Value, value),
        ] {
            self.mark(hook, value);
        }
        let d = heads.head_dim;
        let each = [
            (raw_q, heads.heads, Role::Query),
            (raw_k, heads.kv_heads, Role::Key),
        ];
        let [q, key] = [0, 1].map(|which| {
            let (mut x, heads, role) = each[which];
            let Some((_, eps, weights, rope_after)) = qk_norm else {
                return self.rope(x, heads, d, rope, role);
            };
            // LLaMA 4 normalises what is rotated, Qwen 3 rotates what is normalised.
            if rope_after.is_none() {
                x = self.rope(x, heads, d, rope, role);
            }
            let spec = self.to.value_spec(x);
            let out = self.to.value(spec.role, spec.width);
            let weight = weights.map(|weights| weights[which]);
            self.to.ops.push(Op::HeadNorm {
                x,
                weight,
                head_dim: d,
                eps,
                out,
            });
            if rope_after.is_some() {
                self.rope(out, heads, d, rope_after, role)
            } else {
                out
            }
        });
        self.to.ops.push(Op::StoreKv {
            key,
            value,
            heads,
            cache,
        });
        self.mark(Hook::RotQuery, q);
        self.mark(Hook::RotKey, key);
        self.map[qk_norm.map_or(query, |(out, ..)| out).0] = Some(q);
        Ok(qk_norm.is_some())
    }

    /// Writes [`Op::GateUpSilu`] of a width; what it writes.
    fn gate_up_silu(&mut self, input: Input, gate: Linear, up: Linear, width: u32) -> ValueId {
        if !self.wants(&[Hook::Ln2Scale, Hook::Ln2Normalized, Hook::Gate, Hook::Up]) {
            let input = self.input(input);
            return self.to.gate_up_silu(input, gate, up);
        }
        let read = self.open_norm(input, Hook::Ln2Scale, Hook::Ln2Normalized);
        let [gate, up] = self.linears(read, [(gate, Role::Gate), (up, Role::Up)]);
        self.mark(Hook::Gate, gate);
        self.mark(Hook::Up, up);
        let out = self.to.value(Role::FeedForward, width);
        self.to.ops.push(Op::SiluMul { gate, up, out });
        out
    }

    /// Writes [`Op::MoeRoute`]; what it writes.
    fn moe_route(&mut self, input: Input, router: TensorId, experts: Experts) -> ValueId {
        if !self.wants(&[
            Hook::Ln2Scale,
            Hook::Ln2Normalized,
            Hook::RouterLogits,
            Hook::ExpertWeights,
        ]) {
            let input = self.input(input);
            return self.to.moe_route(input, router, experts);
        }
        let read = self.open_norm(input, Hook::Ln2Scale, Hook::Ln2Normalized);
        let router = Linear {
            weight: router,
            bias: None,
        };
        let [logits] = self.linears(read, [(router, Role::RouterLogits)]);
        let weights = self.to.value(Role::ExpertWeights, experts.count);
        self.to.ops.push(Op::ExpertWeights {
            logits,
            gating: experts.gating,
            out: weights,
        });
        let out = self.to.value(Role::Routes, 2 * experts.used);
        self.to.ops.push(Op::PickExperts {
            weights,
            experts,
            out,
        });
        self.mark(Hook::RouterLogits, logits);
        self.mark(Hook::ExpertWeights, weights);
        out
    }

    /// `x` rotated.
    fn rope(
        &mut self,
        x: ValueId,
        heads: u32,
        head_dim: u32,
        rope: Option<usize>,
        role: Role,
    ) -> ValueId {
        let out = self.to.value(role, heads * head_dim);
        self.to.ops.push(Op::Rope {
            x,
            heads,
            head_dim,
            rope,
            out,
        });
        out
    }

    fn open_attention(&mut self, query: ValueId, spec: AttentionSpec) -> ValueId {
        let scores = self.to.value(Role::Scores, 0);
        self.to.ops.push(Op::Scores {
            query,
            spec,
            out: scores,
        });
        let pattern = self.to.value(Role::Pattern, 0);
        self.to.ops.push(Op::Softmax {
            scores,
            heads: spec.heads.heads,
            out: pattern,
        });
        let out = self
            .to
            .value(Role::Attention, spec.heads.heads * spec.heads.head_dim);
        self.to.ops.push(Op::Mix { pattern, spec, out });
        self.mark(Hook::Scores, scores);
        self.mark(Hook::Pattern, pattern);
        out
    }

    /// What an operation of a half adds to: the residual stream, or zeros where the half's sum is wanted for itself.
    fn base(&mut self, x: ValueId, hook: Hook) -> ValueId {
        let mapped = self.mapped(x);
        if self.sum.is_some() || !self.wants(&[hook]) {
            return mapped;
        }
        self.sum = Some(mapped);
        let zero = self.to.value(Role::Residual, self.to.hidden_size);
        self.to.ops.push(Op::Zero { out: zero });
        zero
    }

    /// After an operation that adds to the stream: its half may be over.
    fn end_of_half(&mut self, out: ValueId, first: bool, after: &[Op]) {
        let layer = self.layer;
        let more = !first
            && after.iter().any(|op| {
                let adds = matches!(op, Op::Residual { .. } | Op::MoeDownResidual { .. });
                adds && op
                    .writes()
                    .next()
                    .is_some_and(|out| self.from.value_spec(out).layer == layer)
            });
        if more {
            return;
        }
        if let Some(x) = self.sum.take() {
            let y = self.mapped(out);
            let sum = self.to.value(Role::Residual, self.to.hidden_size);
            self.to.ops.push(Op::Add { x, y, out: sum });
            self.mark(if first { Hook::AttnOut } else { Hook::MlpOut }, y);
            self.map[out.0] = Some(sum);
        }
        let x = self.mapped(out);
        self.mark(
            if first {
                Hook::ResidMid
            } else {
                Hook::ResidPost
            },
            x,
        );
    }
}
