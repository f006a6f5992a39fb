//! The LLaMA: from a [`Config`] to a [`Plan`], in the order of the paper.

use super::config::{Architecture, Config, RopeScaling};
use crate::error::{Error, Result};
use crate::format::{Checkpoint, TensorInfo};
use crate::plan::{
    CacheSpec, Experts, Gating, Heads, Linear, Mask, Norm, Op, Plan, Rope, Temperature, TensorId, TensorSpec,
};
use std::collections::HashMap;

/// A plan and where each of its tensors lies in the checkpoint.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    /// What to run.
    pub plan: Plan,
    /// For each of [`Plan::tensors`], the stored tensors whose rows follow each other in it: one, but for experts that
    /// are stored one by one.
    pub sources: Vec<Vec<TensorInfo>>,
}

/// Writes the plan of a model: checks that every weight is there, in the shape that the config demands.
pub fn plan(config: &Config, checkpoint: &Checkpoint) -> Result<ModelPlan> {
    let mut b = Builder { checkpoint, tensors: Vec::new(), sources: Vec::new(), ids: HashMap::new() };
    let (e, f, v) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let heads =
        Heads { heads: config.num_attention_heads, kv_heads: config.num_key_value_heads, head_dim: config.head_dim };
    let (q_rows, kv_rows) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
    let every_mask = config.sliding_window.map_or(Mask::Causal, Mask::Window);
    let scale = 1.0 / (config.head_dim as f32).sqrt();
    let eps = config.rms_norm_eps;

    let table = b.matrix("token_embd.weight", v, e)?;
    let mut ops = vec![Op::Embed { table }];
    for i in 0..config.num_hidden_layers {
        let cache = i as usize;
        let norm = Norm { weight: b.vector(&format!("blk.{i}.attn_norm.weight"), e)?, eps };
        let q = b.linear(&format!("blk.{i}.attn_q"), q_rows, e)?;
        let k = b.linear(&format!("blk.{i}.attn_k"), kv_rows, e)?;
        let v = b.linear(&format!("blk.{i}.attn_v"), kv_rows, e)?;
        let (mut rope, mut mask, mut temperature) = (Some(0), every_mask, None);
        let mut qk_norm = false;
        if let Some(llama4) = &config.llama4 {
            if (i + 1) % llama4.no_rope_layer_interval == 0 {
                rope = None;
                temperature = llama4
                    .attn_temperature_tuning
                    .then_some(Temperature { floor_scale: llama4.floor_scale, scale: llama4.attn_scale });
            } else {
                mask = Mask::Chunk(llama4.attention_chunk_size);
                qk_norm = llama4.use_qk_norm;
            }
        }
        ops.push(Op::QkvRope { norm, q, k, v, heads, rope, cache });
        if qk_norm {
            ops.push(Op::QkNorm { heads, cache, eps });
        }
        ops.push(Op::Attention { heads, cache, scale, mask, temperature });
        ops.push(Op::OResidual { o: b.linear(&format!("blk.{i}.attn_output"), e, q_rows)? });
        let norm = Norm { weight: b.vector(&format!("blk.{i}.ffn_norm.weight"), e)?, eps };
        let mixture = config.mixture.as_ref().filter(|m| (i + 1) % m.interleave_moe_layer_step == 0);
        let Some(mixture) = mixture else {
            let gate = b.linear(&format!("blk.{i}.ffn_gate"), f, e)?;
            let up = b.linear(&format!("blk.{i}.ffn_up"), f, e)?;
            ops.push(Op::GateUpSilu { norm, gate, up });
            ops.push(Op::DownResidual { down: b.linear(&format!("blk.{i}.ffn_down"), e, f)? });
            continue;
        };
        let is_llama4 = config.architecture == Architecture::Llama4;
        let experts = Experts {
            count: mixture.num_local_experts,
            used: mixture.num_experts_per_tok,
            gating: if is_llama4 { Gating::Sigmoid } else { Gating::Softmax },
        };
        let (x, f) = (experts.count, mixture.moe_intermediate_size);
        let router = b.matrix(&format!("blk.{i}.ffn_gate_inp.weight"), x, e)?;
        ops.push(Op::MoeRoute { norm, router, experts });
        let gate = b.experts(i, "ffn_gate", x, f, e)?;
        let up = b.experts(i, "ffn_up", x, f, e)?;
        ops.push(Op::MoeGateUpSilu { norm, gate, up, experts });
        let down = b.experts(i, "ffn_down", x, e, f)?;
        if is_llama4 {
            // The shared expert reads the same input, so before anything is added to the stream.
            let gate = b.linear(&format!("blk.{i}.ffn_gate_shexp"), f, e)?;
            let up = b.linear(&format!("blk.{i}.ffn_up_shexp"), f, e)?;
            ops.push(Op::GateUpSilu { norm, gate, up });
            ops.push(Op::MoeDownResidual { down, experts });
            ops.push(Op::DownResidual { down: b.linear(&format!("blk.{i}.ffn_down_shexp"), e, f)? });
        } else {
            ops.push(Op::MoeDownResidual { down, experts });
        }
    }
    let norm = Norm { weight: b.vector("output_norm.weight", e)?, eps };
    let weight = if config.tie_word_embeddings { table } else { b.matrix("output.weight", v, e)? };
    ops.push(Op::LmHead { norm, weight });
    ops.push(Op::Sample);

    let magnitude = match &config.rope_scaling {
        None | Some(RopeScaling::Linear { .. } | RopeScaling::Divisors { .. }) => 1.0,
    };
    let plan = Plan {
        tensors: b.tensors,
        ropes: vec![Rope { inv_freq: config.inv_freq(), magnitude }],
        caches: vec![
            CacheSpec { kv_heads: heads.kv_heads, head_dim: heads.head_dim };
            config.num_hidden_layers as usize
        ],
        ops,
        hidden_size: e,
        vocab_size: v,
        context_length: config.max_position_embeddings,
    };
    Ok(ModelPlan { plan, sources: b.sources })
}

struct Builder<'a> {
    checkpoint: &'a Checkpoint,
    tensors: Vec<TensorSpec>,
    sources: Vec<Vec<TensorInfo>>,
    ids: HashMap<String, TensorId>,
}

impl Builder<'_> {
    fn matrix(&mut self, name: &str, rows: u32, cols: u32) -> Result<TensorId> {
        self.tensor(name, &[u64::from(rows), u64::from(cols)])
    }

    fn vector(&mut self, name: &str, len: u32) -> Result<TensorId> {
        self.tensor(name, &[u64::from(len)])
    }

    /// `NAME.weight`, and `NAME.bias` if the file has one.
    fn linear(&mut self, name: &str, rows: u32, cols: u32) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), rows, cols)?;
        let bias = format!("{name}.bias");
        let bias = match self.checkpoint.tensor(&bias) {
            Some(_) => Some(self.vector(&bias, rows)?),
            None => None,
        };
        Ok(Linear { weight, bias })
    }

    /// `[count rows, cols]`, stacked in the file as `NAME_exps`, or stored one by one as `NAME.0` and so on.
    fn experts(&mut self, block: u32, name: &str, count: u32, rows: u32, cols: u32) -> Result<TensorId> {
        let shape = [u64::from(rows), u64::from(cols)];
        let stacked = format!("blk.{block}.{name}_exps.weight");
        if self.checkpoint.tensor(&stacked).is_some()
            || self.checkpoint.tensor(&format!("blk.{block}.{name}.0.weight")).is_none()
        {
            return self.tensor(&stacked, &[u64::from(count), shape[0], shape[1]]);
        }
        let one = |x| self.stored(&format!("blk.{block}.{name}.{x}.weight"), &shape);
        let sources: Vec<TensorInfo> = (0..count).map(one).collect::<Result<_>>()?;
        if let Some(other) = sources.iter().find(|info| info.dtype != sources[0].dtype) {
            return Err(Error::unsupported(format!(
                "{} is {} and {} is {}; the experts of a block must share a type",
                sources[0].name, sources[0].dtype, other.name, other.dtype
            )));
        }
        Ok(self.add(&stacked, u64::from(count) * shape[0], shape[1], sources))
    }

    fn tensor(&mut self, name: &str, shape: &[u64]) -> Result<TensorId> {
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let info = self.stored(name, shape)?;
        let (rows, cols) = match shape {
            [cols] => (1, *cols),
            _ => (shape[..shape.len() - 1].iter().product(), shape[shape.len() - 1]),
        };
        Ok(self.add(name, rows, cols, vec![info]))
    }

    fn add(&mut self, name: &str, rows: u64, cols: u64, sources: Vec<TensorInfo>) -> TensorId {
        let id = TensorId(self.tensors.len());
        self.tensors.push(TensorSpec { name: name.to_owned(), dtype: sources[0].dtype, rows, cols });
        self.sources.push(sources);
        self.ids.insert(name.to_owned(), id);
        id
    }

    /// The file's entry of a tensor that must have this shape.
    fn stored(&self, name: &str, shape: &[u64]) -> Result<TensorInfo> {
        let info = self
            .checkpoint
            .tensor(name)
            .ok_or_else(|| Error::invalid_file(format!("the file has no tensor {name}, which this model needs")))?;
        // GGUF drops outer dimensions of 1, and nothing else.
        let squeeze = |shape: &[u64]| -> Vec<u64> {
            let skip = shape.iter().take_while(|d| **d == 1).count().min(shape.len().saturating_sub(1));
            shape[skip..].to_vec()
        };
        if squeeze(&info.shape) != squeeze(shape) {
            return Err(Error::invalid_file(format!(
                "tensor {name} has shape {:?}; the config demands {shape:?}",
                info.shape
            )));
        }
        Ok(info.clone())
    }
}
