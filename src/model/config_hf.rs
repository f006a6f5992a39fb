//! [`Config`] from a Hugging Face config.json. What a file leaves out has the default that Transformers gives it
//! (`configuration_llama.py`, `configuration_mistral.py`, `configuration_mixtral.py`, `configuration_llama4.py`), but for the
//! sizes that no default fits.

use super::config::{
    Architecture, Config, Llama4Config, MAX_LAYERS, MixtureConfig, unknown_architecture,
};
use super::rope::{RopeScaling, yarn_mscale};
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use serde_json::Value;

/// Defaults of one `model_type`.
struct Family {
    /// `model_type`
    name: &'static str,
    architecture: Architecture,
    num_key_value_heads: Option<u32>,
    rms_norm_eps: f64,
    rope_theta: f64,
    max_position_embeddings: u32,
    sliding_window: Option<u32>,
    head_dim: Option<u32>,
    moe: bool,
}

const LLAMA: Family = Family {
    name: "llama",
    architecture: Architecture::Llama,
    num_key_value_heads: None,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000.0,
    max_position_embeddings: 2048,
    sliding_window: None,
    head_dim: None,
    moe: false,
};

const FAMILIES: &[Family] = &[
    LLAMA,
    Family {
        name: "mistral",
        num_key_value_heads: Some(8),
        max_position_embeddings: 131_072,
        sliding_window: Some(4096),
        ..LLAMA
    },
    Family {
        name: "mixtral",
        num_key_value_heads: Some(8),
        rms_norm_eps: 1e-5,
        rope_theta: 1e6,
        max_position_embeddings: 131_072,
        moe: true,
        ..LLAMA
    },
    Family {
        name: "llama4_text",
        architecture: Architecture::Llama4,
        num_key_value_heads: Some(8),
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        max_position_embeddings: 131_072,
        moe: true,
        ..LLAMA
    },
    Family {
        name: "qwen2",
        architecture: Architecture::Qwen2,
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        ..LLAMA
    },
    Family {
        name: "qwen3",
        architecture: Architecture::Qwen3,
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        head_dim: Some(128),
        ..LLAMA
    },
    Family {
        name: "qwen3_moe",
        architecture: Architecture::Qwen3Moe,
        num_key_value_heads: Some(4),
        max_position_embeddings: 32_768,
        moe: true,
        ..LLAMA
    },
];

/// See [`Config::read`].
pub(super) fn read(checkpoint: &Checkpoint) -> Result<Config> {
    let Some(whole) = checkpoint.metadata().json() else {
        return Err(Error::internal("safetensors without a config.json"));
    };
    let (c, family) = text_model(whole)?;
    let hidden_size = c.need("hidden_size")?;
    let num_hidden_layers = c.need("num_hidden_layers")?;
    if num_hidden_layers > MAX_LAYERS {
        return Err(Error::invalid_file(format!(
            "{num_hidden_layers} layers; at most {MAX_LAYERS} are read"
        )));
    }
    let heads = c.need("num_attention_heads")?;
    let head_dim = head_dim(c, family, hidden_size, heads)?;
    let is_llama4 = family.architecture == Architecture::Llama4;
    let expert_width = c.need("intermediate_size")?;
    let max_position_embeddings = c
        .count("max_position_embeddings")?
        .unwrap_or(family.max_position_embeddings);
    let rope = c.object("rope_parameters")?.or(c.object("rope_scaling")?);
    let mixture = if family.moe {
        Some(mixture(c, family, num_hidden_layers, expert_width)?)
    } else {
        None
    };
    let llama4 = if is_llama4 {
        Some(llama4(c, num_hidden_layers)?)
    } else {
        None
    };
    let (attention_bias, mlp_bias) = biases(c, family)?;
    if family.name.starts_with("qwen") {
        refuse_partial_windows(c)?;
    }
    let rope_dim = rope_dim(c, rope, head_dim)?;
    Ok(Config {
        architecture: family.architecture,
        name: name(whole)?,
        hidden_size,
        intermediate_size: if is_llama4 {
            c.need("intermediate_size_mlp")?
        } else {
            expert_width
        },
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: c.count("num_key_value_heads")?.unwrap_or_else(|| {
            family
                .num_key_value_heads
                .filter(|_| !c.has("num_key_value_heads"))
                .unwrap_or(heads)
        }),
        head_dim,
        rope_dim,
        vocab_size: c.need("vocab_size")?,
        rms_norm_eps: c.number("rms_norm_eps")?.unwrap_or(family.rms_norm_eps) as f32,
        rope_theta: rope_theta(c, rope, family)?,
        rope_scaling: rope
            .map(|rope| rope_scaling(rope, max_position_embeddings))
            .transpose()?
            .flatten(),
        max_position_embeddings,
        sliding_window: sliding_window(c, family)?,
        tie_word_embeddings: match c.flag("tie_word_embeddings")? {
            Some(tied) => tied,
            None => Fields(whole).flag("tie_word_embeddings")?.unwrap_or(false),
        },
        attention_bias,
        attention_output_bias: match family.architecture {
            Architecture::Qwen2 => Some(false),
            _ => attention_bias,
        },
        qk_norm: matches!(
            family.architecture,
            Architecture::Qwen3 | Architecture::Qwen3Moe
        ),
        rope_halves: !is_llama4,
        mlp_bias,
        mixture,
        llama4,
    })
}

/// The hyperparameters of the text model, and its family.
///
/// # Errors
///
/// `Unsupported` for a model that Llamero does not run, `InvalidFile` where `model_type` is missing.
fn text_model(whole: &Value) -> Result<(Fields<'_>, &'static Family)> {
    // A multimodal checkpoint keeps the text model's apart.
    let c = Fields(match whole.get("text_config") {
        Some(text) if text.is_object() => text,
        _ => whole,
    });
    let model_type = c
        .text("model_type")?
        .ok_or_else(|| Error::invalid_file("model_type is missing"))?;
    let Some(family) = FAMILIES.iter().find(|family| family.name == model_type) else {
        let names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        return Err(unknown_architecture("model type", model_type, &names));
    };
    for config in [c.0, whole] {
        refuse_other_heads(config)?;
        refuse_quantized(config)?;
    }
    refuse_other_activations(c)?;
    Ok((c, family))
}

/// What Transformers calls the model.
fn name(whole: &Value) -> Result<Option<String>> {
    let name = Fields(whole).text("_name_or_path")?;
    Ok(name.filter(|name| !name.is_empty()).map(str::to_owned))
}

/// The base of rope's frequencies. Transformers 5 keeps it beside the scaling.
fn rope_theta(c: Fields<'_>, rope: Option<Fields<'_>>, family: &Family) -> Result<f64> {
    let of_rope = match rope {
        Some(rope) => rope.number("rope_theta")?,
        None => None,
    };
    Ok(of_rope
        .or(c.number("rope_theta")?)
        .unwrap_or(family.rope_theta))
}

/// Values of a head.
fn head_dim(c: Fields<'_>, family: &Family, hidden_size: u32, heads: u32) -> Result<u32> {
    Ok(match c.count("head_dim")? {
        Some(n) => n,
        None if family.head_dim.is_some() && !c.has("head_dim") => {
            family.head_dim.unwrap_or_default()
        }
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(Error::invalid_file(format!(
                "hidden_size {hidden_size} is not a multiple of {heads} heads"
            )));
        }
    })
}

/// Values of a head that rope rotates, of `head_dim`.
fn rope_dim(c: Fields<'_>, rope: Option<Fields<'_>>, head_dim: u32) -> Result<u32> {
    let of_rope = match rope {
        Some(rope) => rope.number("partial_rotary_factor")?,
        None => None,
    };
    let factor = match of_rope {
        Some(factor) => Some(factor),
        None => c.number("partial_rotary_factor")?,
    };
    Ok(factor.map_or(head_dim, |factor| (f64::from(head_dim) * factor) as u32))
}

/// Whether q, k and v, and gate, up and down have a bias.
fn biases(c: Fields<'_>, family: &Family) -> Result<(Option<bool>, Option<bool>)> {
    let bias = |name| -> Result<Option<bool>> { Ok(Some(c.flag(name)?.unwrap_or(false))) };
    // Only LLaMA's own class has these switches; LLaMA 4 has the first.
    Ok(match family.name {
        "llama" => (bias("attention_bias")?, bias("mlp_bias")?),
        "llama4_text" | "qwen3" | "qwen3_moe" => (bias("attention_bias")?, Some(false)),
        "qwen2" => (Some(true), Some(false)),
        _ => (Some(false), Some(false)),
    })
}

/// Positions that attention sees, if fewer than all. Only Mistral and Mixtral have a window.
fn sliding_window(c: Fields<'_>, family: &Family) -> Result<Option<u32>> {
    let window = if c.has("sliding_window") {
        c.count("sliding_window")?
    } else {
        family.sliding_window
    };
    let may = family.architecture == Architecture::Llama && family.name != "llama";
    Ok(window.filter(|positions| *positions > 0 && may))
}

fn refuse_other_activations(c: Fields<'_>) -> Result<()> {
    match c.text("hidden_act")? {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => Err(Error::unsupported(format!(
            "the activation {other:?} is not supported; LLaMAs use silu"
        ))),
    }
}

/// Qwen can have a sliding window in some layers and not in others.
fn refuse_partial_windows(c: Fields<'_>) -> Result<()> {
    let sliding = |kind: &Value| kind.as_str() == Some("sliding_attention");
    let listed =
        c.0.get("layer_types")
            .and_then(Value::as_array)
            .is_some_and(|kinds| kinds.iter().any(sliding));
    let on = c.flag("use_sliding_window")?.unwrap_or(false) && c.count("sliding_window")?.is_some();
    if listed || on {
        return Err(Error::unsupported(
            "a sliding window in some of a Qwen's layers (use_sliding_window); the published models leave it off",
        ));
    }
    Ok(())
}

/// Qwen 3's keys have other names.
fn qwen_mixture(c: Fields<'_>, layers: u32) -> Result<MixtureConfig> {
    if !c.flag("norm_topk_prob")?.unwrap_or(false) {
        return Err(Error::unsupported(
            "norm_topk_prob is false, or left out, in config.json: experts whose weights do not sum to 1; the published Qwen 3 \
             mixtures set it to true",
        ));
    }
    let step = c.count("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err(Error::invalid_file(
            "decoder_sparse_step is 0 in config.json; 1 gives every layer experts",
        ));
    }
    let dense = c.counts("mlp_only_layers")?.unwrap_or_default();
    if let Some(layer) = dense.iter().find(|layer| **layer >= layers) {
        return Err(Error::invalid_file(format!(
            "mlp_only_layers in config.json names layer {layer}; the model has layers 0 to {}",
            layers.saturating_sub(1)
        )));
    }
    Ok(MixtureConfig {
        num_local_experts: c
            .count("num_experts")?
            .or(c.count("num_local_experts")?)
            .unwrap_or(128),
        num_experts_per_tok: c.count("num_experts_per_tok")?.unwrap_or(8),
        moe_intermediate_size: c.count("moe_intermediate_size")?.unwrap_or(768),
        moe_layers: (0..layers)
            .map(|i| !dense.contains(&i) && (i + 1) % step == 0)
            .collect(),
    })
}

fn mixture(c: Fields<'_>, family: &Family, layers: u32, width: u32) -> Result<MixtureConfig> {
    if family.architecture == Architecture::Qwen3Moe {
        return qwen_mixture(c, layers);
    }
    let is_llama4 = family.architecture == Architecture::Llama4;
    let (count, used) = if is_llama4 { (16, 1) } else { (8, 2) };
    let step = c
        .count("interleave_moe_layer_step")?
        .filter(|_| is_llama4)
        .unwrap_or(1);
    let moe_layers = match c.counts("moe_layers")?.filter(|_| is_llama4) {
        Some(list) => (0..layers).map(|i| list.contains(&i)).collect(),
        None if step == 0 => return Err(Error::invalid_file("interleave_moe_layer_step is 0")),
        None => (1..=layers).map(|i| i % step == 0).collect(),
    };
    Ok(MixtureConfig {
        num_local_experts: c.count("num_local_experts")?.unwrap_or(count),
        num_experts_per_tok: c.count("num_experts_per_tok")?.unwrap_or(used),
        moe_intermediate_size: width,
        moe_layers,
    })
}

fn llama4(c: Fields<'_>, layers: u32) -> Result<Llama4Config> {
    let interval = c.count("no_rope_layer_interval")?.unwrap_or(4);
    let rope_layers: Vec<bool> = match c.counts("no_rope_layers")?.filter(|list| !list.is_empty()) {
        // The name misleads: 1 marks a layer with rope.
        Some(list) if list.len() >= layers as usize => list[..layers as usize]
            .iter()
            .map(|mark| *mark != 0)
            .collect(),
        Some(list) => {
            return Err(Error::invalid_file(format!(
                "no_rope_layers has {} entries for {layers} layers",
                list.len()
            )));
        }
        None if interval == 0 => return Err(Error::invalid_file("no_rope_layer_interval is 0")),
        None => (1..=layers).map(|i| i % interval != 0).collect(),
    };
    let chunked_layers = match c.0.get("layer_types").and_then(Value::as_array) {
        Some(types) if types.len() == layers as usize => {
            let chunked = |kind: &Value| match kind.as_str() {
                Some("chunked_attention") => Ok(true),
                Some("full_attention") => Ok(false),
                _ => Err(Error::unsupported(format!("the layer type {kind}"))),
            };
            types.iter().map(chunked).collect::<Result<Vec<bool>>>()?
        }
        Some(types) => {
            return Err(Error::invalid_file(format!(
                "layer_types has {} entries for {layers} layers",
                types.len()
            )));
        }
        None => rope_layers.clone(),
    };
    let chunk = if c.has("attention_chunk_size") {
        c.count("attention_chunk_size")?
    } else {
        Some(8192)
    };
    Ok(Llama4Config {
        // No chunk size: chunks without end.
        chunked_layers: if chunk.is_some() {
            chunked_layers
        } else {
            vec![false; layers as usize]
        },
        rope_layers,
        attention_chunk_size: chunk.unwrap_or(u32::MAX),
        use_qk_norm: c.flag("use_qk_norm")?.unwrap_or(true),
        attn_temperature_tuning: c.flag("attn_temperature_tuning")?.unwrap_or(true),
        floor_scale: c.number("floor_scale")?.unwrap_or(8192.0) as f32,
        attn_scale: c.number("attn_scale")?.unwrap_or(0.1) as f32,
    })
}

/// As `modeling_rope_utils.py` of Transformers computes it.
fn rope_scaling(rope: Fields<'_>, context: u32) -> Result<Option<RopeScaling>> {
    let kind = match rope.text("rope_type")? {
        Some(kind) => Some(kind),
        None => rope.text("type")?,
    };
    let need = |name: &str| {
        rope.number(name)?.ok_or_else(|| {
            Error::invalid_file(format!(
                "rope scaling {:?} needs {name}, which is missing",
                kind.unwrap_or_default()
            ))
        })
    };
    Ok(match kind.unwrap_or("default") {
        // The dynamic kind changes nothing up to max_position_embeddings, where our contexts end.
        "default" | "dynamic" => None,
        "linear" => Some(RopeScaling::Linear {
            factor: need("factor")?,
        }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: need("factor")?,
            low_freq_factor: need("low_freq_factor")?,
            high_freq_factor: need("high_freq_factor")?,
            original_max_position_embeddings: need("original_max_position_embeddings")?,
        }),
        "yarn" => {
            let factor = need("factor")?;
            let or_default = |name: &str, default: f64| -> Result<f64> {
                Ok(rope.number(name)?.filter(|n| *n != 0.0).unwrap_or(default))
            };
            let (mscale, mscale_all) = (
                or_default("mscale", 0.0)?,
                or_default("mscale_all_dim", 0.0)?,
            );
            let attention_factor = match rope.number("attention_factor")? {
                Some(given) => given,
                None if mscale != 0.0 && mscale_all != 0.0 => {
                    yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all)
                }
                None => RopeScaling::yarn_attention_factor(factor),
            };
            Some(RopeScaling::Yarn {
                factor,
                attention_factor,
                beta_fast: or_default("beta_fast", 32.0)?,
                beta_slow: or_default("beta_slow", 1.0)?,
                original_max_position_embeddings: or_default(
                    "original_max_position_embeddings",
                    f64::from(context),
                )?,
                truncate: rope.flag("truncate")?.unwrap_or(true),
            })
        }
        other => {
            return Err(Error::unsupported(format!(
                "rope scaling {other:?} is not supported; default, linear, dynamic, llama3 and yarn are"
            )));
        }
    })
}

/// Weights that are packed in other ways than safetensors' own types.
fn refuse_quantized(config: &Value) -> Result<()> {
    let Some(how) = config
        .get("quantization_config")
        .filter(|how| !how.is_null())
    else {
        return Ok(());
    };
    let method = how
        .get("quant_method")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    Err(Error::unsupported(format!(
        "the safetensors are quantised ({method:.30}); choose the unquantised model, which can be quantised while it \
         loads (option quantize), or a GGUF file"
    )))
}

/// A classifier's weights are a LLaMA's, its answers are not.
fn refuse_other_heads(config: &Value) -> Result<()> {
    let class = config
        .get("architectures")
        .and_then(|list| list.get(0))
        .and_then(Value::as_str)
        .unwrap_or_default();
    for head in [
        "SequenceClassification",
        "TokenClassification",
        "QuestionAnswering",
    ] {
        if class.ends_with(head) {
            return Err(Error::unsupported(format!(
                "{class:.60} has no language model head; use a CausalLM model"
            )));
        }
    }
    Ok(())
}

/// A JSON object's fields, with errors that name them. `null` is absence.
#[derive(Copy, Clone)]
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    /// Whether the key is there, be it with `null`.
    fn has(self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    fn get<T>(
        self,
        name: &str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| {
                let shown = value.to_string();
                Error::invalid_file(format!("{name} is {shown:.40}, not {kind}"))
            }),
        }
    }

    fn text(self, name: &str) -> Result<Option<&'a str>> {
        self.get(name, "a text", Value::as_str)
    }

    fn number(self, name: &str) -> Result<Option<f64>> {
        self.get(name, "a number", Value::as_f64)
    }

    fn flag(self, name: &str) -> Result<Option<bool>> {
        // Python takes a number for a flag, and so do published files (attn_temperature_tuning: 4).
        self.get(name, "true or false", |value| {
            value.as_bool().or(value.as_f64().map(|n| n != 0.0))
        })
    }

    fn count(self, name: &str) -> Result<Option<u32>> {
        self.get(name, "a whole number from 0 to 4294967295", whole)
    }

    fn counts(self, name: &str) -> Result<Option<Vec<u32>>> {
        self.get(name, "a list of whole numbers", |value| {
            value.as_array()?.iter().map(whole).collect()
        })
    }

    fn need(self, name: &str) -> Result<u32> {
        self.count(name)?
            .ok_or_else(|| Error::invalid_file(format!("{name} is missing")))
    }

    fn object(self, name: &str) -> Result<Option<Self>> {
        self.get(name, "an object", |value| {
            value.is_object().then_some(Fields(value))
        })
    }
}

fn whole(value: &Value) -> Option<u32> {
    // 4096.0 is whole too.
    let float = value
        .as_f64()
        .filter(|n| n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(n));
    value
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .or(float.map(|n| n as u32))
}
