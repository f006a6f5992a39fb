//! Mixtures of experts: which experts a row uses, and their products.

use super::super::kernels::{
    MatrixParams, grouped_down, grouped_gate_up, matvec_moe_down, matvec_moe_gate_up, moe_combine,
    moe_group, route,
};
use super::record::{Recorder, Written};
use super::trial::{TrialPlan, WIDTH};
use super::{Buffer, Lowered, RowBucket, Rows, padded};
use crate::error::{Error, Result};
use crate::plan::{Experts, Gating, Input, Linear, Op, TensorId, ValueId};

impl Recorder<'_> {
    pub(super) fn route(&mut self, input: Input, router: TensorId, experts: Experts) -> Result<()> {
        let lowered = self.lowered;
        let parts = lowered.parts_of(&[Linear {
            weight: router,
            bias: None,
        }]);
        let &[part] = parts.as_slice() else {
            return Err(Error::unsupported(
                "a router larger than this device can bind",
            ));
        };
        let (matrix, read) = (&lowered.parts[part], self.read(input));
        let params = route::Params {
            matrix: matrix.params(),
            rows_at: self.rows_at,
            norm: read.norm,
            routes_at: lowered.state.routes_at,
            used: experts.used,
            sigmoid: u32::from(experts.gating == Gating::Sigmoid),
        };
        let bindings = route::Bindings {
            weights: Buffer::Weights(part),
            scales: Buffer::Scales(part),
            input: read.input,
            state: Buffer::State,
            partials: read.partials,
        };
        let dispatch = self.push(
            self.choices_for(part)?,
            params,
            &bindings,
            1,
            Rows::Tokens(1),
        )?;
        self.out.body.push(dispatch);
        self.group_experts(experts)
    }

    /// Sorts the pairs of row and expert by expert, where rows are grouped.
    pub(super) fn group_experts(&mut self, experts: Experts) -> Result<()> {
        let lowered = self.lowered;
        if self.grouped() {
            let params = moe_group::Params {
                rows_at: self.rows_at,
                routes_at: lowered.state.routes_at,
                groups_at: lowered.state.groups_at,
                used: experts.used,
                experts: experts.count,
                max_pairs: lowered.settings.limits.max_rows * experts.used,
            };
            let dispatch = self.push(
                self.choices(),
                params,
                &moe_group::Bindings {
                    state: Buffer::State,
                },
                1,
                Rows::One,
            )?;
            self.out.body.push(dispatch);
        }
        Ok(())
    }

    /// Rows are grouped by expert where there are many: an expert's weights are then read once for a tile of them.
    pub(super) fn grouped(&self) -> bool {
        matches!(self.bucket, RowBucket::Many(_))
    }

    /// For each part: its index, its first expert, how many it holds.
    pub(super) fn expert_parts(
        &self,
        tensors: &[TensorId],
        experts: Experts,
    ) -> Vec<(usize, u32, u32)> {
        let lowered = self.lowered;
        let rows: u64 = tensors
            .iter()
            .map(|id| lowered.plan.tensor(*id).rows / u64::from(experts.count))
            .sum();
        let mut first = 0;
        let parts = lowered.matrices.get(tensors).cloned().unwrap_or_default();
        parts
            .into_iter()
            .map(|part| {
                let held = (lowered.parts[part].rows / rows) as u32;
                first += held;
                (part, first - held, held)
            })
            .collect()
    }

    pub(super) fn moe_gate_up(
        &mut self,
        input: Input,
        gate: TensorId,
        up: TensorId,
        experts: Experts,
        out: ValueId,
    ) -> Result<()> {
        let (lowered, read) = (self.lowered, self.read(input));
        let rows = (lowered.plan.tensor(gate).rows / u64::from(experts.count)) as u32;
        for (part, first_expert, held) in self.expert_parts(&[gate, up], experts) {
            let matrix = &lowered.parts[part];
            if self.grouped() {
                let params = grouped_gate_up::Params {
                    matrix: MatrixParams {
                        rows,
                        ..matrix.params()
                    },
                    rows_at: self.rows_at,
                    norm: read.norm,
                    out_stride: padded(rows),
                    routes_at: lowered.state.routes_at,
                    groups_at: lowered.state.groups_at,
                    max_pairs: lowered.settings.limits.max_rows * experts.used,
                    used: experts.used,
                    first_expert,
                    experts: held,
                    weigh: u32::from(experts.gating == Gating::Sigmoid),
                };
                let bindings = grouped_gate_up::Bindings {
                    weights: Buffer::Weights(part),
                    scales: Buffer::Scales(part),
                    input: read.input,
                    state: Buffer::State,
                    partials: read.partials,
                    output: lowered.buffer(out),
                };
                let mut dispatch = self.product(
                    RowBucket::Many(4),
                    part,
                    rows.div_ceil(2),
                    params,
                    &bindings,
                )?;
                dispatch.rows = Rows::ExpertTiles(experts.used, experts.count);
                self.out.body.push(dispatch);
                continue;
            }
            let params = matvec_moe_gate_up::Params {
                matrix: MatrixParams {
                    rows,
                    ..matrix.params()
                },
                rows_at: self.rows_at,
                norm: read.norm,
                out_stride: padded(rows),
                routes_at: lowered.state.routes_at,
                used: experts.used,
                first_expert,
                experts: held,
                weigh: u32::from(experts.gating == Gating::Sigmoid),
            };
            let bindings = matvec_moe_gate_up::Bindings {
                weights: Buffer::Weights(part),
                scales: Buffer::Scales(part),
                input: read.input,
                state: Buffer::State,
                partials: read.partials,
                output: lowered.buffer(out),
            };
            let mut dispatch =
                self.product(RowBucket::Few(1), part, rows.div_ceil(2), params, &bindings)?;
            dispatch.rows = Rows::Times(experts.used);
            self.out.body.push(dispatch);
        }
        Ok(())
    }

    pub(super) fn moe_down(
        &mut self,
        input: ValueId,
        down: TensorId,
        experts: Experts,
        out: ValueId,
    ) -> Result<()> {
        let lowered = self.lowered;
        let written = self.write(out)?;
        let rows = (lowered.plan.tensor(down).rows / u64::from(experts.count)) as u32;
        for (part, first_expert, held) in self.expert_parts(&[down], experts) {
            let matrix = &lowered.parts[part];
            if self.grouped() {
                let params = grouped_down::Params {
                    matrix: MatrixParams {
                        rows,
                        ..matrix.params()
                    },
                    rows_at: self.rows_at,
                    out_stride: padded(lowered.plan.hidden_size),
                    routes_at: lowered.state.routes_at,
                    groups_at: lowered.state.groups_at,
                    max_pairs: lowered.settings.limits.max_rows * experts.used,
                    first_expert,
                    experts: held,
                    weigh: u32::from(experts.gating == Gating::Softmax),
                };
                let bindings = grouped_down::Bindings {
                    weights: Buffer::Weights(part),
                    scales: Buffer::Scales(part),
                    input: lowered.buffer(input),
                    state: Buffer::State,
                    output: Buffer::ExpertOutput,
                };
                let mut dispatch = self.product(
                    RowBucket::Many(4),
                    part,
                    rows.div_ceil(4),
                    params,
                    &bindings,
                )?;
                dispatch.rows = Rows::ExpertTiles(experts.used, experts.count);
                self.out.body.push(dispatch);
                continue;
            }
            let params = matvec_moe_down::Params {
                matrix: MatrixParams {
                    rows,
                    ..matrix.params()
                },
                rows_at: self.rows_at,
                x_stride: padded(lowered.plan.hidden_size),
                partial_stride: lowered.partial_stride(),
                routes_at: lowered.state.routes_at,
                used: experts.used,
                first_expert,
                experts: held,
                weigh: u32::from(experts.gating == Gating::Softmax),
            };
            let bindings = matvec_moe_down::Bindings {
                weights: Buffer::Weights(part),
                scales: Buffer::Scales(part),
                input: lowered.buffer(input),
                state: Buffer::State,
                next_norm: written.next_norm,
                x: written.x,
                scaled: written.scaled,
                partials_out: written.partials,
            };
            let dispatch =
                self.product(RowBucket::Few(1), part, rows.div_ceil(4), params, &bindings)?;
            // Every part goes over all of x, so the last one's sums are those of the whole.
            self.partials.insert(written.id, dispatch.groups);
            self.out.body.push(dispatch);
        }
        if self.grouped() {
            self.moe_combine(&written, experts)?;
        }
        Ok(())
    }

    /// Adds what [`Buffer::ExpertOutput`] holds of each row's experts to the residual stream.
    fn moe_combine(&mut self, written: &Written, experts: Experts) -> Result<()> {
        let hidden = self.lowered.plan.hidden_size;
        let params = moe_combine::Params {
            hidden,
            x_stride: padded(hidden),
            partial_stride: self.lowered.partial_stride(),
            used: experts.used,
        };
        let bindings = moe_combine::Bindings {
            given: Buffer::ExpertOutput,
            next_norm: written.next_norm,
            x: written.x,
            scaled: written.scaled,
            partials_out: written.partials,
        };
        let dispatch = self.push(self.choices(), params, &bindings, 1, Rows::Tokens(1))?;
        self.out.body.push(dispatch);
        self.partials.insert(written.id, 1);
        Ok(())
    }
}

/// Experts of a trial.
const TRIAL_EXPERTS: u32 = 4;

impl Lowered {
    /// The trial of operation `at` of a mixture: all of the mixture, with few experts.
    pub(super) fn experts_trial(&self, at: usize, trial: &mut TrialPlan) -> Result<()> {
        let real = &self.plan;
        let first = real.ops[..=at]
            .iter()
            .rposition(|op| matches!(op, Op::MoeRoute { .. }))
            .unwrap_or(at);
        let small = |e: &Experts| Experts {
            count: TRIAL_EXPERTS.max(e.used),
            ..*e
        };
        let x = trial.stream();
        let input = x.normed(trial.norm);
        let (mut routes, mut inner) = (None, None);
        for op in &real.ops[first..] {
            let dtype = |id: &TensorId| real.tensor(*id).dtype;
            match op {
                Op::MoeRoute {
                    router, experts, ..
                } => {
                    let experts = small(experts);
                    let router = trial.tensor(dtype(router), experts.count, WIDTH)?;
                    routes = Some(trial.plan.moe_route(input, router, experts));
                }
                Op::MoeGateUpSilu {
                    gate, up, experts, ..
                } => {
                    let experts = small(experts);
                    let gate = trial.tensor(dtype(gate), experts.count * WIDTH, WIDTH)?;
                    let up = trial.tensor(dtype(up), experts.count * WIDTH, WIDTH)?;
                    inner = routes.map(|routes| {
                        trial
                            .plan
                            .moe_gate_up_silu(input, routes, [gate, up], experts)
                    });
                }
                Op::MoeDownResidual { down, experts, .. } => {
                    let experts = small(experts);
                    let down = trial.tensor(dtype(down), experts.count * WIDTH, WIDTH)?;
                    if let (Some(routes), Some(inner)) = (routes, inner) {
                        trial
                            .plan
                            .moe_down_residual(inner, routes, down, experts, x);
                    }
                    break;
                }
                _ => {}
            }
        }
        trial.as_model = true;
        Ok(())
    }
}
