//! [`Config`] from the metadata of a GGUF.

use super::config::{
    Architecture, Config, Llama4Config, MAX_LAYERS, MixtureConfig, unknown_architecture,
};
use super::rope::RopeScaling;
use crate::error::{Error, Result};
use crate::format::Checkpoint;

/// `general.architecture`
const ARCHITECTURES: &[(&str, Architecture)] = &[
    ("llama", Architecture::Llama),
    ("llama4", Architecture::Llama4),
    ("qwen2", Architecture::Qwen2),
    ("qwen3", Architecture::Qwen3),
    ("qwen3moe", Architecture::Qwen3Moe),
];

/// See [`Config::read`].
pub(super) async fn read(checkpoint: &Checkpoint) -> Result<Config> {
    let meta = checkpoint.metadata();
    let arch = meta.str("general.architecture")?.ok_or_else(|| {
        Error::invalid_file("general.architecture is missing, so that this is no language model")
    })?;
    let Some((_, architecture)) = ARCHITECTURES.iter().find(|(name, _)| *name == arch) else {
        let names: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
        return Err(unknown_architecture("architecture", arch, &names));
    };
    let key = |name: &str| format!("{arch}.{name}");
    let need = |name: &str| need(checkpoint, arch, name);

    let hidden_size = need("embedding_length")?;
    let num_hidden_layers = need("block_count")?;
    if num_hidden_layers > MAX_LAYERS {
        return Err(Error::invalid_file(format!(
            "{num_hidden_layers} layers; at most {MAX_LAYERS} are read"
        )));
    }
    let heads = per_layer(checkpoint, &key("attention.head_count"), num_hidden_layers)?
        .ok_or_else(|| {
            Error::invalid_file(format!("{} is missing", key("attention.head_count")))
        })?;
    let kv_heads = per_layer(
        checkpoint,
        &key("attention.head_count_kv"),
        num_hidden_layers,
    )?
    .unwrap_or(heads);
    let intermediate_size = per_layer(checkpoint, &key("feed_forward_length"), num_hidden_layers)?
        .ok_or_else(|| Error::invalid_file(format!("{} is missing", key("feed_forward_length"))))?;
    let head_dim = head_dim(checkpoint, arch, hidden_size, heads)?;
    let rope_dim = meta.u32(&key("rope.dimension_count"))?.unwrap_or(head_dim);
    let rms_norm_eps = meta
        .f32(&key("attention.layer_norm_rms_epsilon"))?
        .ok_or_else(|| {
            Error::invalid_file(format!(
                "{} is missing",
                key("attention.layer_norm_rms_epsilon")
            ))
        })?;
    let max_position_embeddings = need("context_length")?;
    let mixture = mixture(checkpoint, arch, num_hidden_layers, intermediate_size)?;
    let llama4 = match architecture {
        Architecture::Llama4 => Some(llama4(checkpoint, num_hidden_layers, mixture.as_ref())?),
        _ => None,
    };
    let sliding_window = sliding_window(checkpoint, arch, *architecture)?;
    Ok(Config {
        architecture: *architecture,
        name: meta.str("general.name")?.map(str::to_owned),
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        rope_dim,
        vocab_size: vocab_size(checkpoint)?,
        rms_norm_eps,
        rope_theta: f64::from(meta.f32(&key("rope.freq_base"))?.unwrap_or(10_000.0)),
        rope_scaling: rope_scaling(checkpoint, arch, rope_dim, max_position_embeddings).await?,
        max_position_embeddings,
        sliding_window,
        tie_word_embeddings: !checkpoint.holds("output.weight"),
        attention_bias: None,
        attention_output_bias: None,
        qk_norm: matches!(architecture, Architecture::Qwen3 | Architecture::Qwen3Moe),
        // llama.cpp puts the rows of a LLaMA's queries and keys in pairs, and leaves Qwen's as they are.
        rope_halves: !matches!(architecture, Architecture::Llama | Architecture::Llama4),
        mlp_bias: None,
        mixture,
        llama4,
    })
}

/// Values of a head. Keys and values have as many.
fn head_dim(checkpoint: &Checkpoint, arch: &str, hidden_size: u32, heads: u32) -> Result<u32> {
    let meta = checkpoint.metadata();
    let key = |name: &str| format!("{arch}.{name}");
    let head_dim = match meta.u32(&key("attention.key_length"))? {
        Some(n) => n,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(Error::invalid_file(format!(
                "embedding length {hidden_size} is not a multiple of {heads} heads"
            )));
        }
    };
    if let Some(n) = meta.u32(&key("attention.value_length"))?
        && n != head_dim
    {
        return Err(Error::unsupported(format!(
            "keys of {head_dim} and values of {n} values per head"
        )));
    }
    Ok(head_dim)
}

/// The mixture of experts, where `expert_count` says that some layers have one.
fn mixture(
    checkpoint: &Checkpoint,
    arch: &str,
    layers: u32,
    intermediate_size: u32,
) -> Result<Option<MixtureConfig>> {
    let meta = checkpoint.metadata();
    let experts = meta.u32(&format!("{arch}.expert_count"))?.unwrap_or(0);
    if experts == 0 {
        return Ok(None);
    }
    let step = if arch == "llama4" {
        need(checkpoint, arch, "interleave_moe_layer_step")?
    } else {
        1
    };
    if step == 0 {
        return Err(Error::invalid_file(format!(
            "{arch}.interleave_moe_layer_step is 0"
        )));
    }
    let norm = format!("{arch}.expert_weights_norm");
    if arch == "qwen3moe" && meta.bool(&norm)? == Some(false) {
        return Err(Error::unsupported(format!(
            "{norm} is false: experts whose weights do not sum to 1; the published Qwen 3 mixtures leave the key out"
        )));
    }
    Ok(Some(MixtureConfig {
        num_local_experts: experts,
        num_experts_per_tok: need(checkpoint, arch, "expert_used_count")?,
        moe_intermediate_size: meta
            .u32(&format!("{arch}.expert_feed_forward_length"))?
            .unwrap_or(intermediate_size),
        moe_layers: (1..=layers).map(|i| i % step == 0).collect(),
    }))
}

/// What only LLaMA 4 has. Where the file is silent, llama.cpp's defaults hold (llama-model.cpp, `LLM_ARCH_LLAMA4`).
fn llama4(
    checkpoint: &Checkpoint,
    layers: u32,
    mixture: Option<&MixtureConfig>,
) -> Result<Llama4Config> {
    let chunk = checkpoint
        .metadata()
        .u32("llama4.attention.chunk_size")?
        .unwrap_or(8192);
    let rope_layers: Vec<bool> = (1..=layers).map(|i| i % 4 != 0).collect();
    Ok(Llama4Config {
        chunked_layers: rope_layers.clone(),
        rope_layers,
        attention_chunk_size: chunk,
        use_qk_norm: mixture.is_none_or(|mixture| mixture.num_local_experts != 128),
        attn_temperature_tuning: true,
        floor_scale: 8192.0,
        attn_scale: 0.1,
    })
}

/// The positions that attention sees, if a LLaMA limits them.
fn sliding_window(
    checkpoint: &Checkpoint,
    arch: &str,
    architecture: Architecture,
) -> Result<Option<u32>> {
    let key = format!("{arch}.attention.sliding_window");
    let window = checkpoint.metadata().u32(&key)?.filter(|n| *n > 0);
    if window.is_some() && !matches!(architecture, Architecture::Llama | Architecture::Llama4) {
        return Err(Error::unsupported(format!(
            "{key}: a sliding window in some of a Qwen's layers; the published models leave it off"
        )));
    }
    Ok(window)
}

/// A count that the file must have.
fn need(checkpoint: &Checkpoint, arch: &str, name: &str) -> Result<u32> {
    let key = format!("{arch}.{name}");
    checkpoint
        .metadata()
        .u32(&key)?
        .ok_or_else(|| Error::invalid_file(format!("{key} is missing")))
}

/// A count that GGUF gives once, or as an array with one entry a layer. Only equal entries are LLaMAs.
fn per_layer(checkpoint: &Checkpoint, key: &str, layers: u32) -> Result<Option<u32>> {
    let meta = checkpoint.metadata();
    let Some(list) = meta.u32s(key).ok().flatten() else {
        return meta.u32(key);
    };
    if list.len() != layers as usize {
        return Err(Error::invalid_file(format!(
            "{key} has {} entries for {layers} layers",
            list.len()
        )));
    }
    match list.iter().find(|n| **n != list[0]) {
        None => Ok(list.first().copied()),
        Some(_) => Err(Error::unsupported(format!("{key} differs between layers"))),
    }
}

/// Rows of the embedding table.
fn vocab_size(checkpoint: &Checkpoint) -> Result<u32> {
    let table = checkpoint.require("token_embd.weight")?;
    Ok(u32::try_from(table.rows()).unwrap_or(u32::MAX))
}

/// The keys are those that llama.cpp reads (llama-arch.cpp, `LLM_KV_ROPE_*`), with its defaults.
async fn rope_scaling(
    checkpoint: &Checkpoint,
    arch: &str,
    rope_dim: u32,
    context: u32,
) -> Result<Option<RopeScaling>> {
    let meta = checkpoint.metadata();
    let number = |name: &str| -> Result<Option<f64>> {
        Ok(meta.f32(&format!("{arch}.rope.{name}"))?.map(f64::from))
    };
    let factor = match number("scaling.factor")? {
        // The older name.
        None => number("scale_linear")?,
        factor => factor,
    }
    // 0 stands for none.
    .filter(|factor| *factor != 0.0)
    .unwrap_or(1.0);
    let kind = meta
        .str(&format!("{arch}.rope.scaling.type"))?
        .unwrap_or("linear");
    let scaling = match kind {
        "none" => None,
        "linear" if factor == 1.0 => None,
        "linear" => Some(RopeScaling::Linear { factor }),
        "yarn" => {
            let original = meta
                .u32(&format!("{arch}.rope.scaling.original_context_length"))?
                .unwrap_or(context);
            let attention = number("scaling.attn_factor")?.unwrap_or(1.0);
            Some(RopeScaling::Yarn {
                factor,
                attention_factor: attention * RopeScaling::yarn_attention_factor(factor),
                beta_fast: number("scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: number("scaling.yarn_beta_slow")?.unwrap_or(1.0),
                original_max_position_embeddings: f64::from(original),
                truncate: true,
            })
        }
        other => {
            return Err(Error::unsupported(format!(
                "rope scaling {other:?} is not supported; none, linear and yarn are"
            )));
        }
    };
    if !checkpoint.holds("rope_freqs.weight") {
        return Ok(scaling);
    }
    let tensor = checkpoint.require("rope_freqs.weight")?;
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
    match scaling {
        None => {}
        Some(RopeScaling::Linear { factor }) => {
            divisors.iter_mut().for_each(|d| *d *= factor as f32);
        }
        Some(_) => return Err(Error::unsupported("rope_freqs.weight together with YaRN")),
    }
    Ok(Some(RopeScaling::Divisors { divisors }))
}
