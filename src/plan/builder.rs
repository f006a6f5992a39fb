//! Writing a plan, operation by operation. Each function adds one operation and gives the value that it writes.

use super::{
    AttentionSpec, Experts, Heads, Input, Linear, Norm, Op, Plan, Role, TensorId, TensorSpec,
    Value, ValueId,
};
use crate::quant::DType;

impl Plan {
    /// A plan without tensors and operations.
    pub fn new(hidden_size: u32, vocab_size: u32, context_length: u32) -> Self {
        Self {
            tensors: Vec::new(),
            ropes: Vec::new(),
            caches: Vec::new(),
            values: Vec::new(),
            ops: Vec::new(),
            hidden_size,
            vocab_size,
            context_length,
            layer: None,
        }
    }

    /// The same tensors, ropes and caches, and no operations.
    #[must_use]
    pub fn without_ops(&self) -> Self {
        Self {
            values: Vec::new(),
            ops: Vec::new(),
            layer: None,
            ..self.clone()
        }
    }

    /// Adds a tensor.
    pub fn tensor_spec(
        &mut self,
        name: impl Into<String>,
        dtype: DType,
        rows: u64,
        cols: u64,
    ) -> TensorId {
        self.tensors.push(TensorSpec {
            name: name.into(),
            dtype,
            rows,
            cols,
        });
        TensorId(self.tensors.len() - 1)
    }

    /// The layer that values written from now on belong to.
    pub fn enter_layer(&mut self, layer: Option<u32>) {
        self.layer = layer;
    }

    /// Adds a value. One that no operation writes is set from outside before a step.
    pub fn value(&mut self, role: Role, width: u32) -> ValueId {
        self.values.push(Value {
            role,
            layer: self.layer,
            width,
        });
        ValueId(self.values.len() - 1)
    }

    fn outputs(&self, linear: Linear) -> u32 {
        self.tensor(linear.weight).rows as u32
    }

    /// [`Op::Embed`]
    pub fn embed(&mut self, table: TensorId) -> ValueId {
        let out = self.value(Role::Residual, self.hidden_size);
        self.ops.push(Op::Embed { table, out });
        out
    }

    /// [`Op::QkvRope`]
    pub fn qkv_rope(
        &mut self,
        input: Input,
        [q, k, v]: [Linear; 3],
        heads: Heads,
        rope: Option<usize>,
        cache: usize,
    ) -> ValueId {
        let query = self.value(Role::Query, heads.heads * heads.head_dim);
        self.ops.push(Op::QkvRope {
            input,
            q,
            k,
            v,
            heads,
            rope,
            cache,
            query,
        });
        query
    }

    /// [`Op::QkNorm`]
    pub fn qk_norm(
        &mut self,
        query: ValueId,
        heads: Heads,
        cache: usize,
        eps: f32,
        weights: Option<[TensorId; 2]>,
        rope: Option<usize>,
    ) -> ValueId {
        let out = self.value(Role::Query, heads.heads * heads.head_dim);
        self.ops.push(Op::QkNorm {
            query,
            out,
            heads,
            cache,
            eps,
            weights,
            rope,
        });
        out
    }

    /// [`Op::Attention`]
    pub fn attention(&mut self, query: ValueId, spec: AttentionSpec) -> ValueId {
        let out = self.value(Role::Attention, spec.heads.heads * spec.heads.head_dim);
        self.ops.push(Op::Attention { query, spec, out });
        out
    }

    /// [`Op::Residual`]
    pub fn residual(&mut self, input: ValueId, linear: Linear, x: ValueId) -> ValueId {
        let out = self.value(Role::Residual, self.hidden_size);
        self.ops.push(Op::Residual {
            input,
            linear,
            x,
            out,
        });
        out
    }

    /// [`Op::GateUpSilu`]
    pub fn gate_up_silu(&mut self, input: Input, gate: Linear, up: Linear) -> ValueId {
        let out = self.value(Role::FeedForward, self.outputs(gate));
        self.ops.push(Op::GateUpSilu {
            input,
            gate,
            up,
            out,
        });
        out
    }

    /// [`Op::MoeRoute`]
    pub fn moe_route(&mut self, input: Input, router: TensorId, experts: Experts) -> ValueId {
        let out = self.value(Role::Routes, 2 * experts.used);
        self.ops.push(Op::MoeRoute {
            input,
            router,
            experts,
            out,
        });
        out
    }

    /// [`Op::MoeGateUpSilu`]
    pub fn moe_gate_up_silu(
        &mut self,
        input: Input,
        routes: ValueId,
        [gate, up]: [TensorId; 2],
        experts: Experts,
    ) -> ValueId {
        let inner = self.tensor(gate).rows as u32 / experts.count;
        let out = self.value(Role::ExpertFeedForward, experts.used * inner);
        self.ops.push(Op::MoeGateUpSilu {
            input,
            routes,
            gate,
            up,
            experts,
            out,
        });
        out
    }

    /// [`Op::MoeDownResidual`]
    pub fn moe_down_residual(
        &mut self,
        input: ValueId,
        routes: ValueId,
        down: TensorId,
        experts: Experts,
        x: ValueId,
    ) -> ValueId {
        let out = self.value(Role::Residual, self.hidden_size);
        self.ops.push(Op::MoeDownResidual {
            input,
            routes,
            down,
            experts,
            x,
            out,
        });
        out
    }

    /// [`Op::LmHead`]
    pub fn lm_head(&mut self, input: Input, weight: TensorId) -> ValueId {
        let out = self.value(Role::Logits, self.vocab_size);
        self.ops.push(Op::LmHead { input, weight, out });
        out
    }

    /// [`Op::Sample`]
    pub fn sample(&mut self, logits: ValueId) {
        self.ops.push(Op::Sample { logits });
    }
}

impl ValueId {
    /// Read as it is.
    pub fn plain(self) -> Input {
        Input {
            x: self,
            norm: None,
        }
    }

    /// Read through a norm.
    pub fn normed(self, norm: Norm) -> Input {
        Input {
            x: self,
            norm: Some(norm),
        }
    }
}
