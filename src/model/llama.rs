//! The LLaMA: from a [`Config`] to a [`Plan`], in the order of the paper.

use super::config::{Architecture, Config, MixtureConfig};
use super::names::{Names, Part, Stacked};
use super::rope::RopeScaling;
use super::source::{Arrangement, Source};
use crate::error::{Error, Result};
use crate::format::{Checkpoint, TensorInfo};
use crate::plan::{
    AttentionSpec, CacheSpec, Experts, Gating, Heads, Linear, Mask, Norm, Plan, Rope, Temperature,
    TensorId, ValueId,
};
use crate::quant::DType;
use std::collections::HashMap;

/// A plan and where each of its tensors lies in the checkpoint.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    /// What to run.
    pub plan: Plan,
    /// For each of [`Plan::tensors`], what its rows are made of, in order: one stored tensor, but for experts that are
    /// stored one by one or by columns.
    pub sources: Vec<Vec<Source>>,
}

/// A type that weights can be quantised to while they load, by its name in any case (`q8_0`).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for another, with those that there are.
pub fn quantize_type(name: &str) -> Result<DType> {
    DType::from_name(name)
        .filter(|dtype| DType::quantizable().any(|other| other == *dtype))
        .ok_or_else(|| {
            let names: Vec<String> = DType::quantizable()
                .map(|dtype| dtype.name().to_lowercase())
                .collect();
            Error::invalid_input(format!(
                "quantize is {name:?}; it may be {}",
                names.join(", ")
            ))
        })
}

/// Writes the plan of a model: checks that every weight is there, in the shape that the config demands.
///
/// `quantize` (see [`quantize_type`]): matrices that are stored as F32, F16 or BF16 become this type while they load, as if the file had been
/// quantised before; all but routers, and those whose rows are no whole blocks.
///
/// # Errors
///
/// [`ErrorKind::InvalidFile`](crate::error::ErrorKind::InvalidFile) for a weight that is missing or has another shape.
pub fn plan(
    config: &Config,
    checkpoint: &Checkpoint,
    quantize: Option<DType>,
) -> Result<ModelPlan> {
    let names = Names::of(checkpoint, config);
    let mut b = Builder {
        checkpoint,
        names,
        quantize,
        halves: config
            .rope_halves
            .then_some((u64::from(config.head_dim), u64::from(config.rope_dim))),
        plan: Plan::new(
            config.hidden_size,
            config.vocab_size,
            config.max_position_embeddings,
        ),
        sources: Vec::new(),
        ids: HashMap::new(),
    };
    let (e, v, heads) = (config.hidden_size, config.vocab_size, heads(config));
    b.plan.caches = vec![
        CacheSpec {
            kv_heads: heads.kv_heads,
            head_dim: heads.head_dim
        };
        config.num_hidden_layers as usize
    ];
    let magnitude = config
        .rope_scaling
        .as_ref()
        .map_or(1.0, RopeScaling::magnitude) as f32;
    b.plan.ropes = vec![Rope {
        inv_freq: config.inv_freq(),
        magnitude,
    }];

    let table = b.matrix(b.names.embedding(), v, e)?;
    let mut x = b.plan.embed(table);
    for i in 0..config.num_hidden_layers {
        b.plan.enter_layer(Some(i));
        x = b.attention_half(config, i, x)?;
        x = match config
            .mixture
            .as_ref()
            .filter(|mixture| mixture.moe_layers[i as usize])
        {
            Some(mixture) => b.mixture_half(config, mixture, i, x)?,
            None => b.feed_forward_half(config, i, x)?,
        };
    }
    b.plan.enter_layer(None);
    let norm = Norm {
        weight: b.vector(b.names.final_norm(), e)?,
        eps: config.rms_norm_eps,
    };
    let weight = if config.tie_word_embeddings {
        table
    } else {
        b.matrix(b.names.head(), v, e)?
    };
    let logits = b.plan.lm_head(x.normed(norm), weight);
    b.plan.sample(logits);
    Ok(ModelPlan {
        plan: b.plan,
        sources: b.sources,
    })
}

/// The attention geometry of every layer.
fn heads(config: &Config) -> Heads {
    Heads {
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    }
}

impl Builder<'_> {
    /// `x + Wo attention(norm(x))`
    fn attention_half(&mut self, config: &Config, i: u32, x: ValueId) -> Result<ValueId> {
        let (at, e, heads) = (i as usize, config.hidden_size, heads(config));
        let (q_rows, kv_rows) = (
            heads.heads * heads.head_dim,
            heads.kv_heads * heads.head_dim,
        );
        let norm = Norm {
            weight: self.norm(i, Part::AttentionNorm, e)?,
            eps: config.rms_norm_eps,
        };
        let bias = config.attention_bias;
        let q = self.linear(i, Part::Query, q_rows, e, bias)?;
        let k = self.linear(i, Part::Key, kv_rows, e, bias)?;
        let v = self.linear(i, Part::Value, kv_rows, e, bias)?;
        let mut spec = AttentionSpec {
            heads,
            cache: at,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            mask: config.sliding_window.map_or(Mask::Causal, Mask::Window),
            temperature: None,
        };
        let (mut rope, mut qk_norm) = (Some(0), false);
        if let Some(llama4) = &config.llama4 {
            if llama4.rope_layers[at] {
                qk_norm = llama4.use_qk_norm;
            } else {
                rope = None;
                spec.temperature = llama4.attn_temperature_tuning.then_some(Temperature {
                    floor_scale: llama4.floor_scale,
                    scale: llama4.attn_scale,
                });
            }
            if llama4.chunked_layers[at] {
                spec.mask = Mask::Chunk(llama4.attention_chunk_size);
            }
        }
        let eps = config.rms_norm_eps;
        let query = if config.qk_norm {
            // Rotated once they are normalised.
            let d = config.head_dim;
            let weights = [
                self.head_norm(i, Part::QueryNorm, d)?,
                self.head_norm(i, Part::KeyNorm, d)?,
            ];
            let query = self
                .plan
                .qkv_rope(x.normed(norm), [q, k, v], heads, None, at);
            self.plan
                .qk_norm(query, heads, at, eps, Some(weights), rope)
        } else {
            let query = self
                .plan
                .qkv_rope(x.normed(norm), [q, k, v], heads, rope, at);
            if qk_norm {
                self.plan.qk_norm(query, heads, at, eps, None, None)
            } else {
                query
            }
        };
        let z = self.plan.attention(query, spec);
        let o = self.linear(i, Part::Output, e, q_rows, config.attention_output_bias)?;
        Ok(self.plan.residual(z, o, x))
    }

    /// `x + Wd (silu(Wg norm(x)) * (Wu norm(x)))`
    fn feed_forward_half(&mut self, config: &Config, i: u32, x: ValueId) -> Result<ValueId> {
        let (e, f, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp_bias,
        );
        let norm = Norm {
            weight: self.norm(i, Part::FeedForwardNorm, e)?,
            eps: config.rms_norm_eps,
        };
        let gate = self.linear(i, Part::Gate, f, e, bias)?;
        let up = self.linear(i, Part::Up, f, e, bias)?;
        let inner = self.plan.gate_up_silu(x.normed(norm), gate, up);
        let down = self.linear(i, Part::Down, e, f, bias)?;
        Ok(self.plan.residual(inner, down, x))
    }

    /// `x +` what the experts of a row give, and the shared expert where there is one.
    fn mixture_half(
        &mut self,
        config: &Config,
        mixture: &MixtureConfig,
        i: u32,
        x: ValueId,
    ) -> Result<ValueId> {
        let (e, bias) = (config.hidden_size, config.mlp_bias);
        let norm = Norm {
            weight: self.norm(i, Part::FeedForwardNorm, e)?,
            eps: config.rms_norm_eps,
        };
        let input = x.normed(norm);
        // LLaMA 4 weighs what the experts get by a sigmoid, and has an expert that every row uses.
        let is_llama4 = config.architecture == Architecture::Llama4;
        let experts = Experts {
            count: mixture.num_local_experts,
            used: mixture.num_experts_per_tok,
            gating: if is_llama4 {
                Gating::Sigmoid
            } else {
                Gating::Softmax
            },
        };
        let (count, f) = (experts.count, mixture.moe_intermediate_size);
        let router = self.router(i, count, e)?;
        let routes = self.plan.moe_route(input, router, experts);
        let gate = self.experts(i, Part::ExpertGate, count, f, e)?;
        let up = self.experts(i, Part::ExpertUp, count, f, e)?;
        let inner = self
            .plan
            .moe_gate_up_silu(input, routes, [gate, up], experts);
        let down = self.experts(i, Part::ExpertDown, count, e, f)?;
        if !is_llama4 {
            return Ok(self.plan.moe_down_residual(inner, routes, down, experts, x));
        }
        let gate = self.linear(i, Part::SharedGate, f, e, bias)?;
        let up = self.linear(i, Part::SharedUp, f, e, bias)?;
        let shared = self.plan.gate_up_silu(input, gate, up);
        let x = self.plan.moe_down_residual(inner, routes, down, experts, x);
        let down = self.linear(i, Part::SharedDown, e, f, bias)?;
        Ok(self.plan.residual(shared, down, x))
    }
}

struct Builder<'a> {
    checkpoint: &'a Checkpoint,
    names: Names,
    quantize: Option<DType>,
    /// `D` and how many of them are rotated, where the rows of q and k have to be put in pairs.
    halves: Option<(u64, u64)>,
    plan: Plan,
    sources: Vec<Vec<Source>>,
    ids: HashMap<String, TensorId>,
}

impl Builder<'_> {
    fn matrix(&mut self, name: String, rows: u32, cols: u32) -> Result<TensorId> {
        let source = Source::whole(self.stored(&name, &[u64::from(rows), u64::from(cols)])?);
        Ok(self.add(name, u64::from(cols), vec![source], true))
    }

    fn vector(&mut self, name: String, len: u32) -> Result<TensorId> {
        let source = Source::whole(self.stored(&name, &[u64::from(len)])?);
        Ok(self.add(name, u64::from(len), vec![source], false))
    }

    fn norm(&mut self, i: u32, part: Part, len: u32) -> Result<TensorId> {
        self.vector(format!("{}.weight", self.names.layer(i, part)), len)
    }

    /// The weight of a norm over heads, whose values go with those of the heads.
    fn head_norm(&mut self, i: u32, part: Part, len: u32) -> Result<TensorId> {
        let name = format!("{}.weight", self.names.layer(i, part));
        let mut source = Source::whole(self.stored(&name, &[u64::from(len)])?);
        if let Some((head_dim, rotary)) = self.halves {
            source.arrangement = Arrangement::RotaryHalfValues { head_dim, rotary };
        }
        Ok(self.add(name, u64::from(len), vec![source], false))
    }

    /// Routers are small and decide much: they keep their type.
    fn router(&mut self, i: u32, rows: u32, cols: u32) -> Result<TensorId> {
        let name = format!("{}.weight", self.names.layer(i, Part::Router));
        let source = Source::whole(self.stored(&name, &[u64::from(rows), u64::from(cols)])?);
        Ok(self.add(name, u64::from(cols), vec![source], false))
    }

    /// A weight and its bias. `with_bias`: whether it has one; `None`: if the file does.
    fn linear(
        &mut self,
        i: u32,
        part: Part,
        rows: u32,
        cols: u32,
        with_bias: Option<bool>,
    ) -> Result<Linear> {
        let name = self.names.layer(i, part);
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let with_bias = with_bias.unwrap_or_else(|| self.checkpoint.holds(&bias));
        let halves = self
            .halves
            .filter(|_| matches!(part, Part::Query | Part::Key));
        let mut source = Source::whole(self.stored(&weight, &[u64::from(rows), u64::from(cols)])?);
        if let Some((head_dim, rotary)) = halves {
            source.arrangement = Arrangement::RotaryHalves { head_dim, rotary };
        }
        let weight = self.add(weight, u64::from(cols), vec![source], true);
        if !with_bias {
            return Ok(Linear { weight, bias: None });
        }
        let mut source = Source::whole(self.stored(&bias, &[u64::from(rows)])?);
        if let Some((head_dim, rotary)) = halves {
            source.arrangement = Arrangement::RotaryHalfValues { head_dim, rotary };
        }
        let bias = self.add(bias, u64::from(rows), vec![source], false);
        Ok(Linear {
            weight,
            bias: Some(bias),
        })
    }

    /// `[count rows, cols]`, from one tensor or from one for each expert.
    fn experts(
        &mut self,
        block: u32,
        part: Part,
        count: u32,
        rows: u32,
        cols: u32,
    ) -> Result<TensorId> {
        let (x, rows, cols) = (u64::from(count), u64::from(rows), u64::from(cols));
        let stacked = self.names.stacked_experts(block, part);
        let first = self.names.expert(block, part, 0);
        let (Stacked::Whole(stacked_name)
        | Stacked::Columns {
            name: stacked_name, ..
        }) = &stacked;
        if !self.checkpoint.holds(stacked_name) && self.checkpoint.holds(&first) {
            let one = |x| {
                Ok(Source::whole(self.stored(
                    &self.names.expert(block, part, x),
                    &[rows, cols],
                )?))
            };
            let sources: Vec<Source> = (0..count).map(one).collect::<Result<_>>()?;
            let first = &sources[0].info;
            if let Some(other) = sources
                .iter()
                .map(|s| &s.info)
                .find(|info| info.dtype != first.dtype)
            {
                return Err(Error::unsupported(format!(
                    "{} is {} and {} is {}; the experts of a block must share a type",
                    first.name, first.dtype, other.name, other.dtype
                )));
            }
            return Ok(self.add(first.name.clone(), cols, sources, true));
        }
        match stacked {
            Stacked::Whole(name) => {
                let source = Source::whole(self.stored(&name, &[x, rows, cols])?);
                Ok(self.add(name, cols, vec![source], true))
            }
            Stacked::Columns { name, part, parts } => {
                let info = self.stored(&name, &[x, cols, parts * rows])?;
                let one = |matrix| Source {
                    info: info.clone(),
                    rows,
                    arrangement: Arrangement::Columns {
                        matrix,
                        first: part * rows,
                    },
                };
                Ok(self.add(
                    format!("{name}[{part}]"),
                    cols,
                    (0..x).map(one).collect(),
                    true,
                ))
            }
        }
    }

    /// Adds a tensor to the plan, once. `quantizable`: it may become another type.
    fn add(
        &mut self,
        name: String,
        cols: u64,
        sources: Vec<Source>,
        quantizable: bool,
    ) -> TensorId {
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let stored = sources[0].info.dtype;
        let float = matches!(stored, DType::F32 | DType::F16 | DType::BF16);
        let wanted = self
            .quantize
            .filter(|to| quantizable && float && to.row_bytes(cols).is_some());
        let rows = sources.iter().map(|source| source.rows).sum();
        let id = self
            .plan
            .tensor_spec(name.clone(), wanted.unwrap_or(stored), rows, cols);
        self.sources.push(sources);
        self.ids.insert(name, id);
        id
    }

    /// The file's entry of a tensor that must have this shape.
    fn stored(&self, name: &str, shape: &[u64]) -> Result<TensorInfo> {
        let info = self.checkpoint.require(name)?;
        // GGUF drops outer dimensions of 1, and nothing else.
        let squeeze = |shape: &[u64]| -> Vec<u64> {
            let skip = shape
                .iter()
                .take_while(|d| **d == 1)
                .count()
                .min(shape.len().saturating_sub(1));
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
