//! `Config`: the hyperparameters, in Hugging Face's names.
//!
//! | here and in config.json | GGUF key (after `llama.`) | llama2.c |
//! | --- | --- | --- |
//! | `hidden_size` | `embedding_length` | `dim` |
//! | `intermediate_size` (LLaMA 4: `intermediate_size_mlp`) | `feed_forward_length` | `hidden_dim` |
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
//! | LLaMA 4: `interleave_moe_layer_step` or `moe_layers` | `interleave_moe_layer_step` | |
//! | LLaMA 4: `attention_chunk_size` | `attention.chunk_size`, 8192 | |

use super::rope::{self, RopeScaling};
use crate::error::{Error, Result};
use crate::format::{Checkpoint, FileFormat};
use crate::plan::{MAX_EXPERTS, MAX_EXPERTS_USED};

/// Limits that no LLaMA comes near; beyond them a file is broken or hostile.
pub(super) const MAX_LAYERS: u32 = 1024;
const MAX_WIDTH: u32 = 1 << 20;
const MAX_VOCAB: u32 = 1 << 24;
const MAX_HEAD_DIM: u32 = 512;

/// Which member of the family.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Architecture {
    /// LLaMA 1, 2, 3, Mixtral, and models of the same architecture.
    Llama,
    /// The text model of LLaMA 4.
    Llama4,
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: normalised queries and keys.
    Qwen3,
    /// Qwen 3's mixture of experts.
    Qwen3Moe,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct MixtureConfig {
    /// `X`
    pub num_local_experts: u32,
    /// Experts per token.
    pub num_experts_per_tok: u32,
    /// `F` of an expert.
    pub moe_intermediate_size: u32,
    /// Whether layer `i` is a mixture.
    pub moe_layers: Vec<bool>,
}

/// What LLaMA 4 does besides.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Llama4Config {
    /// Whether layer `i` rotates queries and keys.
    pub rope_layers: Vec<bool>,
    /// Whether layer `i` attends within its chunk only.
    pub chunked_layers: Vec<bool>,
    /// Positions per chunk.
    pub attention_chunk_size: u32,
    /// Queries and keys of layers with rope are normalised.
    pub use_qk_norm: bool,
    /// Attention of layers without rope is scaled by position: see [`Temperature`](crate::plan::Temperature).
    pub attn_temperature_tuning: bool,
    /// Positions per step of that scale.
    pub floor_scale: f32,
    /// Its growth.
    pub attn_scale: f32,
}

/// Hyperparameters of a model of the LLaMA family.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "ModelConfig"))]
pub struct Config {
    /// Family member.
    pub architecture: Architecture,
    /// The file's own name of the model, if it has one.
    pub name: Option<String>,
    /// `E`
    pub hidden_size: u32,
    /// `F`
    pub intermediate_size: u32,
    /// Layers.
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
    /// Whether q, k and v have a bias; `None`: each has one that the file holds one for.
    pub attention_bias: Option<bool>,
    /// Whether o has a bias; `None`: if the file holds one.
    pub attention_output_bias: Option<bool>,
    /// Heads of queries and of keys are normalised, with a weight, before they are rotated.
    pub qk_norm: bool,
    /// In the file, rope pairs the first half of a head's rotated values with the second; else neighbours.
    pub rope_halves: bool,
    /// Whether gate, up and down have a bias; `None`: each has one that the file holds one for.
    pub mlp_bias: Option<bool>,
    /// Mixture of experts, if any layer has one.
    pub mixture: Option<MixtureConfig>,
    /// For [`Architecture::Llama4`].
    pub llama4: Option<Llama4Config>,
}

impl Config {
    /// Reads the config of an open model. Of a GGUF this needs a small tensor (`rope_freqs.weight`) where rope is
    /// scaled by it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::error::ErrorKind::Unsupported) for another architecture, by name, and for
    /// variants that do not run; [`ErrorKind::InvalidFile`](crate::error::ErrorKind::InvalidFile) for numbers that
    /// cannot be.
    pub async fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let config = match checkpoint.format() {
            FileFormat::Gguf => super::config_gguf::read(checkpoint).await?,
            FileFormat::Safetensors => super::config_hf::read(checkpoint)?,
        };
        config.checked()
    }

    /// Checks what both kinds of file can get wrong.
    fn checked(self) -> Result<Self> {
        for (name, value, max) in [
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH),
            ("num_key_value_heads", self.num_key_value_heads, MAX_WIDTH),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            ("vocab_size", self.vocab_size, MAX_VOCAB),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                u32::MAX,
            ),
            ("sliding_window", self.sliding_window.unwrap_or(1), u32::MAX),
        ] {
            in_range(name, value, max)?;
        }
        // All heads together, as rows of a matrix.
        in_range(
            "heads times head_dim",
            self.num_attention_heads.saturating_mul(self.head_dim),
            MAX_WIDTH,
        )?;
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return Err(Error::invalid_file(format!(
                "{} attention heads do not share {} key/value heads evenly",
                self.num_attention_heads, self.num_key_value_heads
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::invalid_file(format!(
                "head dimension {} is odd: rope needs pairs",
                self.head_dim
            )));
        }
        if self.rope_dim == 0 || !self.rope_dim.is_multiple_of(2) || self.rope_dim > self.head_dim {
            return Err(Error::invalid_file(format!(
                "rope over {} of {} values per head",
                self.rope_dim, self.head_dim
            )));
        }
        if !(0.0..1.0).contains(&self.rms_norm_eps) {
            return Err(Error::invalid_file(format!(
                "RMSNorm epsilon {} is not a small positive number",
                self.rms_norm_eps
            )));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(Error::invalid_file(format!(
                "rope base {} is not a positive number",
                self.rope_theta
            )));
        }
        self.check_mixture()?;
        self.check_llama4()?;
        let rope_scaling = self.rope_scaling.map(RopeScaling::checked).transpose()?;
        Ok(Self {
            rope_scaling,
            ..self
        })
    }

    fn check_mixture(&self) -> Result<()> {
        let Some(mixture) = &self.mixture else {
            return Ok(());
        };
        in_range("number of experts", mixture.num_local_experts, MAX_EXPERTS)?;
        let most = mixture.num_local_experts.min(MAX_EXPERTS_USED);
        in_range("experts per token", mixture.num_experts_per_tok, most)?;
        in_range(
            "width of an expert",
            mixture.moe_intermediate_size,
            MAX_WIDTH,
        )?;
        Ok(())
    }

    fn check_llama4(&self) -> Result<()> {
        let Some(llama4) = &self.llama4 else {
            return Ok(());
        };
        in_range(
            "attention_chunk_size",
            llama4.attention_chunk_size,
            u32::MAX,
        )?;
        if !(llama4.floor_scale.is_finite()
            && llama4.floor_scale > 0.0
            && llama4.attn_scale.is_finite())
        {
            return Err(Error::invalid_file(format!(
                "attention temperature: floor_scale {} and attn_scale {} are not usable",
                llama4.floor_scale, llama4.attn_scale
            )));
        }
        Ok(())
    }

    /// Rope angles per position for each rotated pair, all scaling applied.
    pub fn inv_freq(&self) -> Vec<f64> {
        rope::inv_freq(self.rope_theta, self.rope_dim, self.rope_scaling.as_ref())
    }
}

/// The error for an architecture that is not run.
pub(super) fn unknown_architecture(what: &str, name: &str, known: &[&str]) -> Error {
    Error::unsupported(format!(
        "the {what} {name:?} is not one that Llamero runs; it runs {} (LLaMA 1 to 4, Qwen 2 and 3, and models of the same \
         architecture, such as SmolLM2, TinyLlama, Mistral and Mixtral)",
        known.join(", ")
    ))
}

fn in_range(name: &str, value: u32, max: u32) -> Result<()> {
    if value == 0 || value > max {
        return Err(Error::invalid_file(format!(
            "{name} is {value}; it must be between 1 and {max}"
        )));
    }
    Ok(())
}
