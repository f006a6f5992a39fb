//! What a checkpoint calls the weights of a LLaMA.

use super::config::{Architecture, Config};
use crate::format::{Checkpoint, FileFormat};

/// A weight of one layer; its matrix or vector, without `.weight` or `.bias`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    AttentionNorm,
    Query,
    Key,
    Value,
    QueryNorm,
    KeyNorm,
    Output,
    FeedForwardNorm,
    Gate,
    Up,
    Down,
    Router,
    /// Experts are named by [`Names::expert`] and [`Names::stacked_experts`].
    ExpertGate,
    ExpertUp,
    ExpertDown,
    SharedGate,
    SharedUp,
    SharedDown,
}

/// How experts that share one tensor lie in it.
pub(super) enum Stacked {
    /// `[X, rows, cols]`: this tensor alone.
    Whole(String),
    /// `[X, cols, parts * rows]`: our rows are its columns, part `part` of `parts` equal ones.
    Columns { name: String, part: u64, parts: u64 },
}

/// A naming scheme.
pub(super) enum Names {
    /// llama.cpp's (`gguf-py/gguf/constants.py`).
    Gguf,
    /// Transformers'. `prefix` comes before everything but the head.
    HuggingFace {
        prefix: String,
        head: String,
        architecture: Architecture,
    },
}

impl Names {
    /// The scheme of a checkpoint.
    pub(super) fn of(checkpoint: &Checkpoint, config: &Config) -> Self {
        if checkpoint.format() == FileFormat::Gguf {
            return Self::Gguf;
        }
        // A bare model has no prefix; one that also sees puts its language model below another name.
        let known = [
            ("model.", ""),
            ("language_model.model.", "language_model."),
            ("model.language_model.", ""),
            ("", ""),
        ];
        let there = |prefix: &str| checkpoint.holds(&format!("{prefix}embed_tokens.weight"));
        let (prefix, head) = known
            .into_iter()
            .find(|(prefix, _)| there(prefix))
            .unwrap_or(known[0]);
        Self::HuggingFace {
            prefix: prefix.to_owned(),
            head: format!("{head}lm_head.weight"),
            architecture: config.architecture,
        }
    }

    pub(super) fn embedding(&self) -> String {
        match self {
            Self::Gguf => "token_embd.weight".to_owned(),
            Self::HuggingFace { prefix, .. } => format!("{prefix}embed_tokens.weight"),
        }
    }

    pub(super) fn final_norm(&self) -> String {
        match self {
            Self::Gguf => "output_norm.weight".to_owned(),
            Self::HuggingFace { prefix, .. } => format!("{prefix}norm.weight"),
        }
    }

    pub(super) fn head(&self) -> String {
        match self {
            Self::Gguf => "output.weight".to_owned(),
            Self::HuggingFace { head, .. } => head.clone(),
        }
    }

    /// A layer's weight, without `.weight` or `.bias`.
    pub(super) fn layer(&self, i: u32, part: Part) -> String {
        let Self::HuggingFace {
            prefix,
            architecture,
            ..
        } = self
        else {
            let name = match part {
                Part::AttentionNorm => "attn_norm",
                Part::Query => "attn_q",
                Part::Key => "attn_k",
                Part::Value => "attn_v",
                Part::QueryNorm => "attn_q_norm",
                Part::KeyNorm => "attn_k_norm",
                Part::Output => "attn_output",
                Part::FeedForwardNorm => "ffn_norm",
                Part::Gate | Part::ExpertGate => "ffn_gate",
                Part::Up | Part::ExpertUp => "ffn_up",
                Part::Down | Part::ExpertDown => "ffn_down",
                Part::Router => "ffn_gate_inp",
                Part::SharedGate => "ffn_gate_shexp",
                Part::SharedUp => "ffn_up_shexp",
                Part::SharedDown => "ffn_down_shexp",
            };
            return format!("blk.{i}.{name}");
        };
        let llama4 = *architecture == Architecture::Llama4;
        let qwen = *architecture == Architecture::Qwen3Moe;
        let mlp = if llama4 { "feed_forward" } else { "mlp" };
        let name = match part {
            Part::AttentionNorm => "input_layernorm".to_owned(),
            Part::Query => "self_attn.q_proj".to_owned(),
            Part::Key => "self_attn.k_proj".to_owned(),
            Part::Value => "self_attn.v_proj".to_owned(),
            Part::QueryNorm => "self_attn.q_norm".to_owned(),
            Part::KeyNorm => "self_attn.k_norm".to_owned(),
            Part::Output => "self_attn.o_proj".to_owned(),
            Part::FeedForwardNorm => "post_attention_layernorm".to_owned(),
            Part::Gate => format!("{mlp}.gate_proj"),
            Part::Up => format!("{mlp}.up_proj"),
            Part::Down => format!("{mlp}.down_proj"),
            Part::Router if llama4 => "feed_forward.router".to_owned(),
            Part::Router if qwen => "mlp.gate".to_owned(),
            Part::Router => "block_sparse_moe.gate".to_owned(),
            Part::ExpertGate if qwen => "mlp.experts.{}.gate_proj".to_owned(),
            Part::ExpertUp if qwen => "mlp.experts.{}.up_proj".to_owned(),
            Part::ExpertDown if qwen => "mlp.experts.{}.down_proj".to_owned(),
            Part::ExpertGate => "block_sparse_moe.experts.{}.w1".to_owned(),
            Part::ExpertUp => "block_sparse_moe.experts.{}.w3".to_owned(),
            Part::ExpertDown => "block_sparse_moe.experts.{}.w2".to_owned(),
            Part::SharedGate => format!("{mlp}.shared_expert.gate_proj"),
            Part::SharedUp => format!("{mlp}.shared_expert.up_proj"),
            Part::SharedDown => format!("{mlp}.shared_expert.down_proj"),
        };
        format!("{prefix}layers.{i}.{name}")
    }

    /// The matrix of one expert, where each has its own.
    pub(super) fn expert(&self, i: u32, part: Part, expert: u32) -> String {
        let name = self.layer(i, part);
        match self {
            Self::Gguf => format!("{name}.{expert}.weight"),
            Self::HuggingFace { .. } => {
                format!("{}.weight", name.replace("{}", &expert.to_string()))
            }
        }
    }

    /// The tensor that holds all experts' matrices, where they share one.
    pub(super) fn stacked_experts(&self, i: u32, part: Part) -> Stacked {
        match self {
            Self::Gguf => Stacked::Whole(format!("{}_exps.weight", self.layer(i, part))),
            // LLaMA 4's, whose gate and up share a tensor too.
            Self::HuggingFace { prefix, .. } => {
                let (name, part, parts) = match part {
                    Part::ExpertUp => ("gate_up_proj", 1, 2),
                    Part::ExpertDown => ("down_proj", 0, 1),
                    _ => ("gate_up_proj", 0, 2),
                };
                Stacked::Columns {
                    name: format!("{prefix}layers.{i}.feed_forward.experts.{name}"),
                    part,
                    parts,
                }
            }
        }
    }
}
