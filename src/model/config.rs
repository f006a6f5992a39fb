//! `Config`: the hyperparameters, in Hugging Face's names, read from GGUF metadata.
//!
//! | here (Hugging Face) | GGUF key (after `llama.`) | llama2.c |
//! | --- | --- | --- |
//! | `hidden_size` | `embedding_length` | `dim` |
//! | `intermediate_size` | `feed_forward_length` | `hidden_dim` |
//! | `num_hidden_layers` | `block_count` | `n_layers` |
//! | `num_attention_heads` | `attention.head_count` | `n_heads` |
//! | `num_key_value_heads` | `attention.head_count_kv` | `n_kv_heads` |
//! | `head_dim` | `attention.key_length` | `dim / n_heads` |
//! | `rms_norm_eps` | `attention.layer_norm_rms_epsilon` | 1e-5 |
//! | `rope_theta` | `rope.freq_base` | 10000 |
//! | `rope_scaling` | `rope.scaling.*`, tensor `rope_freqs.weight` | |
//! | `max_position_embeddings` | `context_length` | `seq_len` |
//! | `sliding_window` | `attention.sliding_window` | |
//! | `num_local_experts`, `num_experts_per_tok` | `expert_count`, `expert_used_count` | |
//! | LLaMA 4: `interleave_moe_layer_step` | `interleave_moe_layer_step` | |
//! | LLaMA 4: `attention_chunk_size` | `attention.chunk_size`, 8192 | |

use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::plan::{MAX_EXPERTS, MAX_EXPERTS_USED};

/// Limits that no LLaMA comes near; beyond them a file is broken or hostile.
const MAX_LAYERS: u32 = 1024;
const MAX_WIDTH: u32 = 1 << 20;
const MAX_VOCAB: u32 = 1 << 24;
const MAX_HEAD_DIM: u32 = 512;

/// Which member of the family.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// LLaMA 1, 2, 3, Mixtral, and models of the same architecture.
    Llama,
    /// The text model of LLaMA 4.
    Llama4,
}

/// The architectures that [`Config::from_gguf`] accepts, for error messages.
const ARCHITECTURES: &[(&str, Architecture)] = &[("llama", Architecture::Llama), ("llama4", Architecture::Llama4)];

/// How rope frequencies are changed for contexts longer than the training's.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "rope_type")]
pub enum RopeScaling {
    /// Positions divided by `factor`.
    Linear {
        /// Context multiple.
        factor: f64,
    },
    /// A divisor for each frequency, as the GGUF tensor `rope_freqs.weight` gives (LLaMA 3.1 and later).
    Divisors {
        /// One per rotated pair.
        divisors: Vec<f32>,
    },
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MixtureConfig {
    /// `X`
    pub num_local_experts: u32,
    /// Experts per token.
    pub num_experts_per_tok: u32,
    /// `F` of an expert.
    pub moe_intermediate_size: u32,
    /// Block `i` is a mixture if `(i + 1) % interleave_moe_layer_step == 0`.
    pub interleave_moe_layer_step: u32,
}

/// What LLaMA 4 does besides.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Llama4Config {
    /// Block `i` has rope and chunked attention, unless `(i + 1) % no_rope_layer_interval == 0`.
    pub no_rope_layer_interval: u32,
    /// Positions per chunk.
    pub attention_chunk_size: u32,
    /// Queries and keys of blocks with rope are normalised.
    pub use_qk_norm: bool,
    /// Attention of blocks without rope is scaled by position: see [`Temperature`](crate::plan::Temperature).
    pub attn_temperature_tuning: bool,
    /// Positions per step of that scale.
    pub floor_scale: f32,
    /// Its growth.
    pub attn_scale: f32,
}

/// Hyperparameters of a model of the LLaMA family.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Config {
    /// Family member.
    pub architecture: Architecture,
    /// `general.name`, if the file has one.
    pub name: Option<String>,
    /// `E`
    pub hidden_size: u32,
    /// `F`
    pub intermediate_size: u32,
    /// Blocks.
    pub num_hidden_layers: u32,
    /// `H`
    pub num_attention_heads: u32,
    /// `KV`
    pub num_key_value_heads: u32,
    /// `D`; not always `E / H`.
    pub head_dim: u32,
    /// Rotated values per head (even, at most `D`).
    pub rope_dim: u32,
    /// `V`
    pub vocab_size: u32,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Rope base frequency.
    pub rope_theta: f64,
    /// Rope scaling, if any.
    pub rope_scaling: Option<RopeScaling>,
    /// Context length the model was made for.
    pub max_position_embeddings: u32,
    /// Positions that attention sees, if fewer than all.
    pub sliding_window: Option<u32>,
    /// The head uses the embedding table.
    pub tie_word_embeddings: bool,
    /// Mixture of experts, if any block has one.
    pub mixture: Option<MixtureConfig>,
    /// For [`Architecture::Llama4`].
    pub llama4: Option<Llama4Config>,
}

impl Config {
    /// Reads the config of an open GGUF. Needs a small tensor (`rope_freqs.weight`) where rope is scaled by it.
    pub async fn from_gguf(checkpoint: &Checkpoint) -> Result<Config> {
        let meta = checkpoint.metadata();
        let arch = meta
            .str("general.architecture")?
            .ok_or_else(|| Error::invalid_file("the GGUF has no general.architecture; it is not a language model"))?;
        let Some((_, architecture)) = ARCHITECTURES.iter().find(|(name, _)| *name == arch) else {
            let names: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
            return Err(Error::unsupported(format!(
                "the architecture {arch:?} is not one that Llamero runs; it runs {} (LLaMA 1 to 4, and models of the \
                 same architecture, such as SmolLM2, TinyLlama, Mistral and Mixtral)",
                names.join(", ")
            )));
        };
        let key = |name: &str| format!("{arch}.{name}");
        let need = |name: &str| -> Result<u32> {
            let key = key(name);
            meta.u32(&key)?.ok_or_else(|| Error::invalid_file(format!("the GGUF has no {key}")))
        };

        let hidden_size = in_range(&key("embedding_length"), need("embedding_length")?, MAX_WIDTH)?;
        let intermediate_size = in_range(&key("feed_forward_length"), need("feed_forward_length")?, MAX_WIDTH)?;
        let num_hidden_layers = in_range(&key("block_count"), need("block_count")?, MAX_LAYERS)?;
        let heads = per_layer(checkpoint, &key("attention.head_count"), num_hidden_layers)?
            .ok_or_else(|| Error::invalid_file(format!("the GGUF has no {}", key("attention.head_count"))))?;
        let num_attention_heads = in_range(&key("attention.head_count"), heads, MAX_WIDTH)?;
        let kv_heads = per_layer(checkpoint, &key("attention.head_count_kv"), num_hidden_layers)?;
        let num_key_value_heads =
            in_range(&key("attention.head_count_kv"), kv_heads.unwrap_or(num_attention_heads), MAX_WIDTH)?;
        if num_attention_heads % num_key_value_heads != 0 {
            return Err(Error::invalid_file(format!(
                "{num_attention_heads} attention heads do not share {num_key_value_heads} key/value heads evenly"
            )));
        }
        let head_dim = match meta.u32(&key("attention.key_length"))? {
            Some(n) => n,
            None if hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
            None => {
                return Err(Error::invalid_file(format!(
                    "embedding length {hidden_size} is not a multiple of {num_attention_heads} heads"
                )));
            }
        };
        let head_dim = in_range(&key("attention.key_length"), head_dim, MAX_HEAD_DIM)?;
        if let Some(n) = meta.u32(&key("attention.value_length"))?
            && n != head_dim
        {
            return Err(Error::unsupported(format!("keys of {head_dim} and values of {n} values per head")));
        }
        if head_dim % 2 != 0 {
            return Err(Error::invalid_file(format!("head dimension {head_dim} is odd: rope needs pairs")));
        }
        let rope_dim = meta.u32(&key("rope.dimension_count"))?.unwrap_or(head_dim);
        if rope_dim == 0 || rope_dim % 2 != 0 || rope_dim > head_dim {
            return Err(Error::invalid_file(format!("rope over {rope_dim} of {head_dim} values per head")));
        }
        let rms_norm_eps = meta.f32(&key("attention.layer_norm_rms_epsilon"))?.ok_or_else(|| {
            Error::invalid_file(format!("the GGUF has no {}", key("attention.layer_norm_rms_epsilon")))
        })?;
        if !(0.0..1.0).contains(&rms_norm_eps) {
            return Err(Error::invalid_file(format!("RMSNorm epsilon {rms_norm_eps} is not a small positive number")));
        }
        let rope_theta = f64::from(meta.f32(&key("rope.freq_base"))?.unwrap_or(10_000.0));
        if !(rope_theta.is_finite() && rope_theta > 0.0) {
            return Err(Error::invalid_file(format!("rope base {rope_theta} is not a positive number")));
        }
        let vocab_size = vocab_size(checkpoint)?;
        let max_position_embeddings = need("context_length")?;
        if max_position_embeddings == 0 {
            return Err(Error::invalid_file("the model's context length is 0"));
        }
        let count = meta.u32(&key("expert_count"))?.unwrap_or(0);
        let mixture = if count == 0 {
            None
        } else {
            let used = in_range(&key("expert_used_count"), need("expert_used_count")?, count.min(MAX_EXPERTS_USED))?;
            let step = if *architecture == Architecture::Llama4 { need("interleave_moe_layer_step")? } else { 1 };
            let width = meta.u32(&key("expert_feed_forward_length"))?.unwrap_or(intermediate_size);
            Some(MixtureConfig {
                num_local_experts: in_range(&key("expert_count"), count, MAX_EXPERTS)?,
                num_experts_per_tok: used,
                moe_intermediate_size: in_range(&key("expert_feed_forward_length"), width, MAX_WIDTH)?,
                interleave_moe_layer_step: in_range(&key("interleave_moe_layer_step"), step, MAX_LAYERS)?,
            })
        };
        let llama4 = if *architecture == Architecture::Llama4 {
            let chunk = meta.u32(&key("attention.chunk_size"))?.unwrap_or(8192);
            // What the file does not say is what llama.cpp takes for granted (llama-model.cpp, LLM_ARCH_LLAMA4).
            Some(Llama4Config {
                no_rope_layer_interval: 4,
                attention_chunk_size: in_range(&key("attention.chunk_size"), chunk, u32::MAX)?,
                use_qk_norm: count != 128,
                attn_temperature_tuning: true,
                floor_scale: 8192.0,
                attn_scale: 0.1,
            })
        } else {
            None
        };
        Ok(Config {
            architecture: *architecture,
            name: meta.str("general.name")?.map(str::to_owned),
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rope_dim,
            vocab_size,
            rms_norm_eps,
            rope_theta,
            rope_scaling: rope_scaling(checkpoint, arch, rope_dim).await?,
            max_position_embeddings,
            sliding_window: meta.u32(&key("attention.sliding_window"))?.filter(|n| *n > 0),
            tie_word_embeddings: checkpoint.tensor("output.weight").is_none(),
            mixture,
            llama4,
        })
    }

    /// Rope angles per position for each rotated pair, all scaling applied.
    pub fn inv_freq(&self) -> Vec<f64> {
        (0..self.rope_dim / 2)
            .map(|j| {
                let freq = self.rope_theta.powf(-2.0 * f64::from(j) / f64::from(self.rope_dim));
                match &self.rope_scaling {
                    None => freq,
                    Some(RopeScaling::Linear { factor }) => freq / factor,
                    Some(RopeScaling::Divisors { divisors }) => freq / f64::from(divisors[j as usize]),
                }
            })
            .collect()
    }
}

fn in_range(key: &str, value: u32, max: u32) -> Result<u32> {
    if value == 0 || value > max {
        return Err(Error::invalid_file(format!("{key} is {value}; it must be between 1 and {max}")));
    }
    Ok(value)
}

/// A count that GGUF gives once, or as an array with one entry a block. Only equal entries are LLaMAs.
fn per_layer(checkpoint: &Checkpoint, key: &str, layers: u32) -> Result<Option<u32>> {
    let meta = checkpoint.metadata();
    let Some(list) = meta.u32s(key).ok().flatten() else {
        return meta.u32(key);
    };
    if list.len() != layers as usize {
        return Err(Error::invalid_file(format!("{key} has {} entries for {layers} blocks", list.len())));
    }
    match list.iter().find(|n| **n != list[0]) {
        None => Ok(list.first().copied()),
        Some(_) => Err(Error::unsupported(format!("{key} differs between blocks"))),
    }
}

/// Rows of the embedding table, checked against the vocabulary that the file states.
fn vocab_size(checkpoint: &Checkpoint) -> Result<u32> {
    let table = checkpoint
        .tensor("token_embd.weight")
        .ok_or_else(|| Error::invalid_file("the file has no embedding table (token_embd.weight)"))?;
    let rows = u32::try_from(table.rows()).unwrap_or(u32::MAX);
    in_range("the vocabulary", rows, MAX_VOCAB)
}

async fn rope_scaling(checkpoint: &Checkpoint, arch: &str, rope_dim: u32) -> Result<Option<RopeScaling>> {
    let meta = checkpoint.metadata();
    if let Some(tensor) = checkpoint.tensor("rope_freqs.weight") {
        let pairs = (rope_dim / 2) as usize;
        if tensor.elements() != pairs as u64 || tensor.bytes > 1 << 16 {
            return Err(Error::invalid_file(format!(
                "rope_freqs.weight has {} values for {pairs} rotated pairs",
                tensor.elements()
            )));
        }
        let bytes = checkpoint.read(tensor, 0, tensor.bytes as usize).await?;
        let mut divisors = vec![0.0; pairs];
        tensor.dtype.dequantize(&bytes, &mut divisors)?;
        if divisors.iter().any(|d| !(d.is_finite() && *d > 0.0)) {
            return Err(Error::invalid_file("rope_freqs.weight holds a value that is not a positive number"));
        }
        return Ok(Some(RopeScaling::Divisors { divisors }));
    }
    let factor = meta.f32(&format!("{arch}.rope.scaling.factor"))?;
    let kind = meta.str(&format!("{arch}.rope.scaling.type"))?;
    match (kind, factor) {
        (None | Some("none"), _) => Ok(None),
        (Some("linear"), factor) => {
            let factor = f64::from(factor.unwrap_or(1.0));
            if !(factor.is_finite() && factor > 0.0) {
                return Err(Error::invalid_file(format!("rope scaling factor {factor} is not a positive number")));
            }
            Ok(Some(RopeScaling::Linear { factor }))
        }
        (Some(other), _) => Err(Error::unsupported(format!("rope scaling {other:?}; none and linear are known"))),
    }
}
