//! A plan of one or a few operations with random weights, which tests run on an executor and on the reference.

use super::harness::{Random, assign_pages, random_weights};
use llamero::exec::reference::ReferenceExecutor;
use llamero::exec::{Executor, Head, Inspect, Limits, Output, Step, Want};
use llamero::plan::{
    AttentionSpec, CacheSpec, Heads, Linear, Mask, Norm, Plan, Role, Rope, Row, Temperature,
    TensorId, ValueId,
};
use llamero::quant::DType;

/// Positions that executors have room for.
pub const CONTEXT: u32 = 1024;

/// A plan in the making, with its weights' bytes.
pub struct Case {
    pub plan: Plan,
    pub weights: Vec<Vec<u8>>,
    pub random: Random,
    /// Blocks of `Q8_0` hold -128 too, which no quantiser writes and a file may hold.
    pub lowest: bool,
}

/// How queries and keys are normalised.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// They are not.
    No,
    /// After their rotation, without a weight (LLaMA 4).
    Plain,
    /// Before it, with weights (Qwen 3).
    Weighed,
}

/// What an attention case consists of.
#[derive(Copy, Clone, Debug)]
pub struct Attention {
    /// Types of the matrices of queries, keys and values.
    pub types: [DType; 3],
    pub heads: Heads,
    pub mask: Mask,
    pub bias: bool,
    /// Rotated pairs per head.
    pub rope_pairs: u32,
    pub temperature: Option<Temperature>,
    pub qk_norm: QkNorm,
}

impl Case {
    pub fn new(hidden: u32, vocab: u32, seed: u64) -> Self {
        Self {
            plan: Plan::new(hidden, vocab, 8192),
            weights: Vec::new(),
            random: Random(seed),
            lowest: false,
        }
    }

    pub fn tensor(&mut self, dtype: DType, rows: u32, cols: u32) -> TensorId {
        let scale = 2.0 / (cols as f32).sqrt();
        let mut bytes = random_weights(
            dtype,
            u64::from(rows),
            u64::from(cols),
            scale,
            &mut self.random,
        );
        if dtype == DType::Q8_0 && self.lowest {
            bytes
                .chunks_exact_mut(34)
                .step_by(3)
                .for_each(|block| block[5] = 0x80);
        }
        let name = format!("tensor {}", self.weights.len());
        self.weights.push(bytes);
        self.plan.tensor_spec(name, dtype, rows.into(), cols.into())
    }

    pub fn linear(&mut self, dtype: DType, rows: u32, cols: u32, bias: bool) -> Linear {
        let weight = self.tensor(dtype, rows, cols);
        Linear {
            weight,
            bias: bias.then(|| self.tensor(DType::F32, 1, rows)),
        }
    }

    pub fn norm(&mut self) -> Norm {
        let hidden = self.plan.hidden_size;
        Norm {
            weight: self.tensor(DType::F32, 1, hidden),
            eps: 1e-5,
        }
    }

    /// The residual stream that is set before a step.
    pub fn stream(&mut self) -> ValueId {
        let hidden = self.plan.hidden_size;
        self.plan.value(Role::Residual, hidden)
    }

    /// `x + W a`, alone: `a` of this role.
    pub fn residual(&mut self, role: Role, linear: Linear) -> ValueId {
        let inner = self.plan.tensor(linear.weight).cols as u32;
        let (x, a) = (self.stream(), self.plan.value(role, inner));
        self.plan.residual(a, linear, x)
    }

    /// Queries, keys and values of the residual stream, and attention.
    pub fn attention(&mut self, attention: Attention) {
        let Attention {
            types,
            heads,
            mask,
            bias,
            rope_pairs,
            temperature,
            qk_norm,
        } = attention;
        let hidden = self.plan.hidden_size;
        let norm = self.norm();
        let d = heads.head_dim;
        let q = self.linear(types[0], heads.heads * d, hidden, bias);
        let k = self.linear(types[1], heads.kv_heads * d, hidden, bias);
        let v = self.linear(types[2], heads.kv_heads * d, hidden, bias);
        self.plan.caches = vec![CacheSpec {
            kv_heads: heads.kv_heads,
            head_dim: d,
        }];
        let inv_freq = (0..rope_pairs)
            .map(|j| 10_000_f64.powf(-f64::from(2 * j) / f64::from(d)))
            .collect();
        self.plan.ropes = vec![Rope {
            inv_freq,
            magnitude: 1.25,
        }];
        let rope = (rope_pairs > 0).then_some(0);
        let x = self.stream();
        let own = rope.filter(|_| qk_norm != QkNorm::Weighed);
        let mut query = self.plan.qkv_rope(x.normed(norm), [q, k, v], heads, own, 0);
        if qk_norm == QkNorm::Weighed {
            let weights = [self.tensor(DType::F32, 1, d), self.tensor(DType::F32, 1, d)];
            query = self
                .plan
                .qk_norm(query, heads, 0, 1e-5, Some(weights), rope);
        }
        if qk_norm == QkNorm::Plain {
            query = self.plan.qk_norm(query, heads, 0, 1e-5, None, None);
        }
        let spec = AttentionSpec {
            heads,
            cache: 0,
            scale: 1.0 / (d as f32).sqrt(),
            mask,
            temperature,
        };
        self.plan.attention(query, spec);
    }

    /// Loads the weights in two pieces, as a loader would; the first ends inside a band of four rows.
    pub fn load(&self, executor: &mut dyn Executor) {
        for (i, bytes) in self.weights.iter().enumerate() {
            let row = self.plan.tensors[i].row_bytes() as usize;
            let cut = bytes.len() / row / 2 * row;
            if cut > 0 {
                executor.load_rows(TensorId(i), 0, &bytes[..cut]).unwrap();
            }
            executor
                .load_rows(TensorId(i), (cut / row) as u64, &bytes[cut..])
                .unwrap();
        }
        assign_pages(executor);
    }

    pub fn reference(&self) -> ReferenceExecutor {
        let mut executor =
            ReferenceExecutor::new(self.plan.clone(), Limits::for_context(CONTEXT, 64, 1)).unwrap();
        self.load(&mut executor);
        executor
    }
}

/// Rows of one sequence with random tokens.
pub fn rows(n: usize, first_pos: u32, vocab: u32, random: &mut Random) -> Vec<Row> {
    (0..n)
        .map(|i| Row {
            token: (random.bits() % u64::from(vocab)) as u32,
            seq: 0,
            pos: first_pos + i as u32,
        })
        .collect()
}

pub fn run(executor: &mut dyn Inspect, rows: &[Row], heads: &[u32], want: Want) -> Output {
    let step = Step::Rows {
        rows,
        heads: &Head::all(heads, want),
        trace: None,
    };
    pollster::block_on(executor.submit(step).unwrap()).unwrap()
}
