//! The LLaMA: from a [`Config`] to a [`Plan`], in the order of the paper.

use super::config::{Config, RopeScaling};
use crate::error::{Error, Result};
use crate::format::{Checkpoint, TensorInfo};
use crate::plan::{CacheSpec, Heads, Linear, Mask, Norm, Op, Plan, Rope, TensorId, TensorSpec};
use std::collections::HashMap;

/// A plan and where each of its tensors lies in the checkpoint.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    /// What to run.
    pub plan: Plan,
    /// For each of [`Plan::tensors`], the stored tensor.
    pub sources: Vec<TensorInfo>,
}

/// Writes the plan of a model: checks that every weight is there, in the shape that the config demands.
pub fn plan(config: &Config, checkpoint: &Checkpoint) -> Result<ModelPlan> {
    let mut b = Builder { checkpoint, tensors: Vec::new(), sources: Vec::new(), ids: HashMap::new() };
    let (e, f, v) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let heads =
        Heads { heads: config.num_attention_heads, kv_heads: config.num_key_value_heads, head_dim: config.head_dim };
    let (q_rows, kv_rows) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
    let mask = config.sliding_window.map_or(Mask::Causal, Mask::Window);
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
        ops.push(Op::QkvRope { norm, q, k, v, heads, rope: Some(0), cache });
        ops.push(Op::Attention { heads, cache, scale, mask });
        ops.push(Op::OResidual { o: b.linear(&format!("blk.{i}.attn_output"), e, q_rows)? });
        let norm = Norm { weight: b.vector(&format!("blk.{i}.ffn_norm.weight"), e)?, eps };
        let gate = b.linear(&format!("blk.{i}.ffn_gate"), f, e)?;
        let up = b.linear(&format!("blk.{i}.ffn_up"), f, e)?;
        ops.push(Op::GateUpSilu { norm, gate, up });
        ops.push(Op::DownResidual { down: b.linear(&format!("blk.{i}.ffn_down"), e, f)? });
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
    sources: Vec<TensorInfo>,
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

    fn tensor(&mut self, name: &str, shape: &[u64]) -> Result<TensorId> {
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let info = self
            .checkpoint
            .tensor(name)
            .ok_or_else(|| Error::invalid_file(format!("the file has no tensor {name}, which this model needs")))?;
        // GGUF drops outer dimensions of 1, and nothing else.
        let squeezed: Vec<u64> = {
            let skip = info.shape.iter().take_while(|d| **d == 1).count().min(info.shape.len().saturating_sub(1));
            info.shape[skip..].to_vec()
        };
        let wanted: Vec<u64> = {
            let skip = shape.iter().take_while(|d| **d == 1).count().min(shape.len() - 1);
            shape[skip..].to_vec()
        };
        if squeezed != wanted {
            return Err(Error::invalid_file(format!(
                "tensor {name} has shape {:?}; the config demands {shape:?}",
                info.shape
            )));
        }
        let (rows, cols) = match shape {
            [cols] => (1, *cols),
            _ => (shape[..shape.len() - 1].iter().product(), shape[shape.len() - 1]),
        };
        let id = TensorId(self.tensors.len());
        self.tensors.push(TensorSpec { name: name.to_owned(), dtype: info.dtype, rows, cols });
        self.sources.push(info.clone());
        self.ids.insert(name.to_owned(), id);
        Ok(id)
    }
}
