//! Whole models against references' logits and greedy ids, on every executor and kernel variant.

use crate::support::cases::models_of;
use crate::support::gguf::GgufBuilder;
use crate::support::harness::{
    Model, assert_close, greedy, ids, logits, on_cpu, on_gpu, open_model, reference,
};
use crate::support::references::{self, References};
use crate::support::{harness, npy};
use llamero::error::ErrorKind;
use llamero::exec::Executor;
use llamero::exec::gpu::{CacheType, GpuOptions};
use llamero::format::{ByteSource, Checkpoint, MemorySource};
use llamero::model::Config;
use llamero::quant::DType;
use serde_json::{Value, json};
use std::path::Path;
use std::rc::Rc;

/// Stated with the references, for f32 compute.
const TOLERANCE: f32 = 2e-3;
const CONTEXT: u32 = 128;

struct Sequence {
    tokens: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn load(references: &References, file: &str) -> (Model, Vec<Sequence>) {
    let folder = Path::new("models").join(file.split('/').next().unwrap());
    let model = open_model(&references.path("models").join(file), None).unwrap();
    let sequences = references.json(folder.join("expected.json"))["sequences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| Sequence {
            tokens: ids(&s["tokens"]),
            logits: npy::read_npy(&references.path(folder.join(s["logits"].as_str().unwrap()))).1,
            greedy: ids(&s["greedy"]),
        })
        .collect();
    (model, sequences)
}

/// Whole prompt at once, in uneven chunks, and token by token.
fn check(name: &str, executor: &mut dyn Executor, sequences: &[Sequence]) {
    for sequence in sequences {
        let n = sequence.tokens.len();
        for step in [n.min(64), 33, 1] {
            let got = logits(executor, &sequence.tokens, step);
            assert_close(
                &format!("{name}, {n} tokens by {step}"),
                &got,
                &sequence.logits,
                TOLERANCE,
            );
        }
        let got = greedy(executor, &sequence.tokens, sequence.greedy.len());
        assert_eq!(got, sequence.greedy, "{name}: greedy ids after {n} tokens");
    }
}

/// Every model that a test is to be held to, with its name.
fn for_each_model(mut each: impl FnMut(&str, &Model, &[Sequence])) {
    for references in references::all() {
        let models = models_of(&references);
        for file in &models {
            let (model, sequences) = load(&references, file);
            each(
                &format!("{}: {file}", references.name()),
                &model,
                &sequences,
            );
        }
        eprintln!("{} models of the {}", models.len(), references.name());
    }
}

#[test]
fn fixtures_on_the_reference() {
    for_each_model(|name, model, sequences| {
        check(
            &format!("{name} on reference"),
            &mut reference(model, CONTEXT),
            sequences,
        );
    });
}

#[test]
fn fixtures_on_the_cpu() {
    for_each_model(|name, model, sequences| {
        // Threads share rows of matrices and heads: two models show it.
        let most = if ["llama2-gqa/model.gguf", "moe-mixtral/hf"]
            .iter()
            .any(|most| name.ends_with(most))
        {
            2
        } else {
            1
        };
        for threads in 1..=most {
            let mut executor = on_cpu(model, CONTEXT, threads, false);
            check(
                &format!("{name} on {threads} threads"),
                &mut executor,
                sequences,
            );
        }
    });
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn fixtures_on_the_gpu() {
    fixtures_with(&harness::everyday_variants());
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
#[cfg_attr(gpu, ignore = "left out of the everyday tests: ./build.sh test --all")]
fn fixtures_on_the_gpu_with_other_kernels() {
    fixtures_with(&harness::other_variants());
}

fn fixtures_with(variants: &[(&str, GpuOptions)]) {
    for_each_model(|name, model, sequences| {
        for (variant, options) in variants {
            check(
                &format!("{name} on GPU, {variant}"),
                &mut on_gpu(model, CONTEXT, options),
                sequences,
            );
        }
    });
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn matrices_larger_than_a_binding_are_split_by_rows() {
    for references in references::all() {
        // The project's own models are smaller.
        let bindings = if references.own {
            [2 << 10, 4 << 10]
        } else {
            [10 << 10, 20 << 10]
        };
        for name in [
            "llama2-gqa/model.gguf",
            "attn-mlp-bias/hf",
            "odd-dims/model.gguf",
            "llama32-tied/hf",
        ] {
            let (model, sequences) = load(&references, name);
            for max_binding in bindings {
                let options = GpuOptions {
                    max_binding: Some(max_binding),
                    cache: Some(CacheType::F32),
                    ..GpuOptions::default()
                };
                let mut executor = on_gpu(&model, CONTEXT, &options);
                assert!(
                    executor
                        .lowered()
                        .parts
                        .iter()
                        .all(|p| p.weights_bytes() <= max_binding)
                );
                check(
                    &format!("{}: {name} split to {max_binding}", references.name()),
                    &mut executor,
                    &sequences,
                );
            }
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn a_16_bit_cache_stays_close() {
    for references in references::all() {
        for name in ["llama2-gqa/hf", "llama3-gqa/model.gguf"] {
            let (model, sequences) = load(&references, name);
            let mut executor = on_gpu(
                &model,
                CONTEXT,
                &GpuOptions {
                    cache: Some(CacheType::F16),
                    ..GpuOptions::default()
                },
            );
            for sequence in &sequences {
                // Logits here have a standard deviation of 3; f16 keeps 11 bits.
                let got = logits(&mut executor, &sequence.tokens, 64);
                assert_close(name, &got, &sequence.logits, 0.03);
                assert_eq!(
                    greedy(&mut executor, &sequence.tokens, 8),
                    sequence.greedy[..8],
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn what_does_not_run_is_refused_by_name() {
    for arch in ["mamba", "gemma2", ""] {
        let sources = GgufBuilder::new()
            .meta("general.architecture", arch)
            .values("w", &[1], DType::F32, &[1.0])
            .sources();
        let error = pollster::block_on(async {
            let checkpoint = Checkpoint::open_gguf(sources).await.unwrap();
            Config::read(&checkpoint).await.unwrap_err()
        });
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(&format!("{arch:?}")), "{error}");
        assert!(error.to_string().contains("llama, llama4"), "{error}");
    }
}

/// Qwen's window holds for some layers only: taken for all, it would give wrong answers.
#[test]
fn a_window_in_some_layers_is_refused() {
    let sources = GgufBuilder::new()
        .meta("general.architecture", "qwen2")
        .meta("qwen2.embedding_length", 8_u32)
        .meta("qwen2.block_count", 2_u32)
        .meta("qwen2.attention.head_count", 2_u32)
        .meta("qwen2.feed_forward_length", 8_u32)
        .meta("qwen2.attention.layer_norm_rms_epsilon", 1e-6_f32)
        .meta("qwen2.context_length", 64_u32)
        .meta("qwen2.attention.sliding_window", 16_u32)
        .values("token_embd.weight", &[4, 8], DType::F32, &[0.5; 32])
        .sources();
    let error = pollster::block_on(async {
        Config::read(&Checkpoint::open_gguf(sources).await.unwrap())
            .await
            .unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("qwen2.attention.sliding_window"),
        "{error}"
    );
}

/// The config of Qwen 3's small mixture of the references, with other values: of what is wrong with it.
fn qwen_mixture(changes: &[(&str, Value)]) -> llamero::error::Result<Config> {
    let folder = references::own().path("models/qwen3moe/hf");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    let weights = std::fs::read(folder.join("model.safetensors")).unwrap();
    let source = MemorySource::new("model.safetensors", weights);
    let config = config.to_string();
    pollster::block_on(async {
        let sources: Vec<Rc<dyn ByteSource>> = vec![Rc::new(source)];
        let checkpoint = Checkpoint::open_safetensors(config.as_bytes(), None, sources).await?;
        Config::read(&checkpoint).await
    })
}

#[test]
fn the_keys_of_qwens_mixture_are_heeded_or_refused_by_name() {
    let moe_layers = |changes: &[_]| qwen_mixture(changes).unwrap().mixture.unwrap().moe_layers;
    assert_eq!(moe_layers(&[]), [true, true]);
    assert_eq!(
        moe_layers(&[("decoder_sparse_step", json!(2))]),
        [false, true]
    );
    assert_eq!(
        moe_layers(&[("mlp_only_layers", json!([1]))]),
        [true, false]
    );
    let (unsupported, invalid) = (ErrorKind::Unsupported, ErrorKind::InvalidFile);
    for (key, value, kind, advice) in [
        ("norm_topk_prob", json!(false), unsupported, "true"),
        ("norm_topk_prob", json!(null), unsupported, "true"),
        ("norm_topk_prob", json!("yes"), invalid, "true or false"),
        (
            "decoder_sparse_step",
            json!(0),
            invalid,
            "1 gives every layer experts",
        ),
        ("decoder_sparse_step", json!("2"), invalid, "whole number"),
        ("mlp_only_layers", json!([2]), invalid, "layers 0 to 1"),
        ("mlp_only_layers", json!([-1]), invalid, "whole numbers"),
        ("mlp_only_layers", json!("all"), invalid, "list"),
    ] {
        let error = qwen_mixture(&[(key, value.clone())]).unwrap_err();
        let told = error.to_string();
        assert_eq!(error.kind(), kind, "{key} {value}: {told}");
        assert!(
            told.contains(key) && told.contains(advice),
            "{key} {value}: {told}"
        );
    }
}

#[test]
fn a_gguf_of_a_mixture_whose_weights_do_not_sum_to_1_is_refused() {
    let read = |norm: bool| {
        let sources = GgufBuilder::new()
            .meta("general.architecture", "qwen3moe")
            .meta("qwen3moe.embedding_length", 8_u32)
            .meta("qwen3moe.block_count", 2_u32)
            .meta("qwen3moe.attention.head_count", 2_u32)
            .meta("qwen3moe.feed_forward_length", 8_u32)
            .meta("qwen3moe.attention.layer_norm_rms_epsilon", 1e-6_f32)
            .meta("qwen3moe.context_length", 64_u32)
            .meta("qwen3moe.expert_count", 4_u32)
            .meta("qwen3moe.expert_used_count", 2_u32)
            .meta("qwen3moe.expert_weights_norm", norm)
            .values("token_embd.weight", &[4, 8], DType::F32, &[0.5; 32])
            .sources();
        pollster::block_on(async { Config::read(&Checkpoint::open_gguf(sources).await?).await })
    };
    assert_eq!(
        read(true).unwrap().mixture.unwrap().moe_layers,
        [true, true]
    );
    let error = read(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let told = error.to_string();
    assert!(
        told.contains("qwen3moe.expert_weights_norm is false"),
        "{told}"
    );
}
