//! Folders of safetensors against Transformers' logits (`tests/data/make_hf.py`), quantising while they load, and what
//! config.json may not say.

use crate::support::cases::own_models;
use crate::support::gguf::GgufBuilder;
use crate::support::harness::{
    Model, assert_close, logits, on_cpu, on_gpu, open_bytes, open_model, reference,
};
use crate::support::{harness, npy, safetensors};
use llamero::engine::Opened;
use llamero::error::ErrorKind;
use llamero::exec::Executor;
use llamero::format::{ByteSource, Checkpoint, MemorySource};
use llamero::model::{Config, RopeScaling, quantize_type};
use llamero::quant::DType;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hf");
/// Logits have a standard deviation of about 1; the oracle computes in float32.
const TOLERANCE: f32 = 1e-3;
const CONTEXT: u32 = 64;

fn folder(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

fn tokens() -> Vec<u32> {
    serde_json::from_str(&std::fs::read_to_string(folder("tokens.json")).unwrap()).unwrap()
}

fn check(name: &str, on: &str, executor: &mut dyn Executor) {
    let (tokens, want) = (tokens(), npy::read_npy(&folder(name).join("logits.npy")).1);
    for step in [30, 7, 1] {
        assert_close(
            &format!("{name} on {on} by {step}"),
            &logits(executor, &tokens, step),
            &want,
            TOLERANCE,
        );
    }
}

#[test]
fn folders_on_the_reference() {
    for name in &own_models() {
        check(
            name,
            "reference",
            &mut reference(&open_model(&folder(name), None).unwrap(), CONTEXT),
        );
    }
}

#[test]
fn folders_on_the_cpu() {
    for name in &own_models() {
        check(
            name,
            "CPU",
            &mut on_cpu(&open_model(&folder(name), None).unwrap(), CONTEXT, 2, false),
        );
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn folders_on_the_gpu() {
    for name in &own_models() {
        let model = open_model(&folder(name), None).unwrap();
        for (variant, options) in harness::gpu_variants() {
            check(name, variant, &mut on_gpu(&model, CONTEXT, &options));
        }
    }
}

/// The plan's tensors as a GGUF that holds them already quantised.
fn requantised(name: &str, to: DType) -> Model {
    let model = open_model(&folder(name), None).unwrap();
    let plan = &model.model.plan;
    let c = &model.config;
    let mut gguf = GgufBuilder::new()
        .meta("general.architecture", "llama")
        .meta("llama.embedding_length", c.hidden_size)
        .meta("llama.feed_forward_length", c.intermediate_size)
        .meta("llama.block_count", c.num_hidden_layers)
        .meta("llama.attention.head_count", c.num_attention_heads)
        .meta("llama.attention.head_count_kv", c.num_key_value_heads)
        .meta("llama.attention.key_length", c.head_dim)
        .meta("llama.attention.value_length", c.head_dim)
        .meta("llama.attention.layer_norm_rms_epsilon", c.rms_norm_eps)
        .meta("llama.rope.freq_base", c.rope_theta as f32)
        .meta("llama.context_length", c.max_position_embeddings);
    match c.rope_scaling.clone() {
        Some(RopeScaling::Yarn {
            factor,
            attention_factor,
            beta_fast,
            beta_slow,
            original_max_position_embeddings: original,
            truncate: true,
        }) => {
            // llama.cpp's key multiplies the factor that the paper gives.
            let attention = attention_factor / RopeScaling::yarn_attention_factor(factor);
            gguf = gguf
                .meta("llama.rope.scaling.type", "yarn")
                .meta("llama.rope.scaling.factor", factor as f32)
                .meta(
                    "llama.rope.scaling.original_context_length",
                    original as u32,
                )
                .meta("llama.rope.scaling.attn_factor", attention as f32)
                .meta("llama.rope.scaling.yarn_beta_fast", beta_fast as f32)
                .meta("llama.rope.scaling.yarn_beta_slow", beta_slow as f32);
        }
        Some(other) => panic!("{other:?} is not written"),
        None => {}
    }
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let mut collect = Collect::default();
    pollster::block_on(llamero::model::load_weights(
        &model.model,
        &model.checkpoint,
        &mut collect,
        |_| Ok(()),
    ))
    .unwrap();
    for (spec, bytes) in plan.tensors.iter().zip(collect.0) {
        let name = names
            .iter()
            .fold(spec.name.clone(), |name, (hf, gguf)| name.replace(hf, gguf));
        let mut values = vec![0.0; (spec.rows * spec.cols) as usize];
        spec.dtype.dequantize(&bytes, &mut values).unwrap();
        let is_vector = spec.rows == 1;
        let shape = if is_vector {
            vec![spec.cols]
        } else {
            vec![spec.rows, spec.cols]
        };
        let fits = !is_vector && to.row_bytes(spec.cols).is_some();
        gguf = gguf.values(&name, &shape, if fits { to } else { DType::F32 }, &values);
    }
    open_bytes(gguf.build())
}

/// Takes what an executor would be loaded with.
#[derive(Default)]
struct Collect(Vec<Vec<u8>>);

impl Executor for Collect {
    fn info(&self) -> llamero::exec::ExecutorInfo {
        Default::default()
    }
    fn limits(&self) -> llamero::exec::Limits {
        llamero::exec::Limits::for_context(32, 1, 1)
    }
    fn load_rows(
        &mut self,
        tensor: llamero::plan::TensorId,
        _first_row: u64,
        bytes: &[u8],
    ) -> llamero::error::Result<()> {
        self.0.resize(self.0.len().max(tensor.0 + 1), Vec::new());
        self.0[tensor.0].extend_from_slice(bytes);
        Ok(())
    }
    fn flush_loads(
        &mut self,
    ) -> llamero::exec::LocalBoxFuture<'static, llamero::error::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn set_pages(&mut self, _seq: u32, _pages: &[u32]) -> llamero::error::Result<()> {
        Ok(())
    }
    fn set_mask(
        &mut self,
        _seq: u32,
        _mask: &llamero::plan::TokenMask,
    ) -> llamero::error::Result<()> {
        Ok(())
    }

    fn set_sampling(
        &mut self,
        _seq: u32,
        _sampling: &llamero::plan::Sampling,
        _history: llamero::plan::History<'_>,
    ) -> llamero::error::Result<()> {
        Ok(())
    }
    fn submit(
        &mut self,
        _step: llamero::exec::Step<'_>,
    ) -> llamero::error::Result<llamero::exec::Pending> {
        panic!("nothing is run")
    }
}

/// A GGUF of the same weights, made from the folder, gives what the folder gives: both formats and their keys agree.
#[test]
fn yarn_in_a_gguf() {
    for name in ["yarn", "yarn-mscale", "dynamic"] {
        check(
            name,
            "reference, as GGUF",
            &mut reference(&requantised(name, DType::F32), CONTEXT),
        );
    }
}

#[test]
fn quantising_while_loading_equals_quantising_first() {
    let tokens = tokens();
    for to in [
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
    ] {
        let first = logits(
            &mut reference(&requantised("yarn", to), CONTEXT),
            &tokens,
            30,
        );
        let model = open_model(&folder("yarn"), Some(to)).unwrap();
        let specs = &model.model.plan.tensors;
        let of = |name: &str| specs.iter().find(|s| s.name.contains(name)).unwrap().dtype;
        assert_eq!((of("q_proj"), of("embed_tokens")), (to, to));
        // Rows of 48 are no whole blocks; vectors are never quantised.
        assert_eq!(
            (of("down_proj"), of("input_layernorm")),
            (DType::BF16, DType::BF16)
        );
        let loading = logits(&mut reference(&model, CONTEXT), &tokens, 30);
        assert_close(&format!("{to}"), &loading, &first, 1e-6);
        let plain = npy::read_npy(&folder("yarn").join("logits.npy")).1;
        assert!(
            harness::worst(&loading, &plain).0 > 1e-3,
            "{to}: nothing was rounded"
        );
    }
    // Experts are quantised, the router is not.
    for name in ["mixtral", "llama4"] {
        let model = open_model(&folder(name), Some(DType::Q8_0)).unwrap();
        let specs = &model.model.plan.tensors;
        let count = |want: DType| {
            specs
                .iter()
                .filter(|s| s.rows > 4 && s.dtype == want)
                .count()
        };
        assert!(count(DType::Q8_0) > 8);
        let is_router = |name: &str| name.contains("router") || name.ends_with("_moe.gate.weight");
        let routers: Vec<DType> = specs
            .iter()
            .filter(|s| is_router(&s.name))
            .map(|s| s.dtype)
            .collect();
        assert!(
            !routers.is_empty() && routers.iter().all(|dtype| *dtype == DType::BF16),
            "{routers:?}"
        );
        // A choice of experts that is nearly a tie may flip, so not every logit is close.
        let got = logits(&mut reference(&model, CONTEXT), &tokens, 30);
        let want = npy::read_npy(&folder(name).join("logits.npy")).1;
        let mut off: Vec<f32> = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).collect();
        off.sort_by(f32::total_cmp);
        assert!(
            off[off.len() / 2] < 0.05,
            "{name}: the median logit is off by {}",
            off[off.len() / 2]
        );
    }
    for name in ["q4_k", "int4", ""] {
        let error = quantize_type(name).unwrap_err();
        for dtype in DType::quantizable() {
            let offered = dtype.name().to_lowercase();
            assert!(error.to_string().contains(&offered), "{error}");
        }
    }
    assert_eq!(quantize_type("q8_0").unwrap(), DType::Q8_0);
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn quantising_while_loading_on_the_gpu() {
    let tokens = tokens();
    for to in [DType::Q8_0, DType::Q4_0] {
        let model = open_model(&folder("yarn"), Some(to)).unwrap();
        let want = logits(&mut reference(&model, CONTEXT), &tokens, 30);
        for (variant, options) in harness::gpu_variants() {
            let got = logits(&mut on_gpu(&model, CONTEXT, &options), &tokens, 30);
            assert_close(&format!("{to} on {variant}"), &got, &want, TOLERANCE);
        }
    }
}

/// The tensors of a case's file: name, type, shape, bytes.
/// Name, type, shape, bytes.
type StoredTensor = (String, String, Vec<u64>, Vec<u8>);
type Tensors = Vec<StoredTensor>;

fn stored(name: &str) -> Tensors {
    let file = std::fs::read(folder(name).join("model.safetensors")).unwrap();
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Value = serde_json::from_slice(header).unwrap();
    let entries = header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__");
    let mut tensors: Vec<(u64, StoredTensor)> = entries
        .map(|(name, entry)| {
            let [begin, end]: [u64; 2] =
                serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            let shape = serde_json::from_value(entry["shape"].clone()).unwrap();
            let bytes = data[begin as usize..end as usize].to_vec();
            (
                begin,
                (
                    name.clone(),
                    entry["dtype"].as_str().unwrap().to_owned(),
                    shape,
                    bytes,
                ),
            )
        })
        .collect();
    tensors.sort_by_key(|(begin, _)| *begin);
    tensors.into_iter().map(|(_, tensor)| tensor).collect()
}

fn write(tensors: &[StoredTensor]) -> Vec<u8> {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            (
                name.as_str(),
                dtype.as_str(),
                shape.as_slice(),
                bytes.clone(),
            )
        })
        .collect();
    safetensors::safetensors(&tensors)
}

/// Opens a case's config with these files, as a page gives them.
fn opened(files: Vec<(&str, Vec<u8>)>) -> llamero::error::Result<Opened> {
    let config = std::fs::read(folder("dynamic").join("config.json")).unwrap();
    let files = files.into_iter().chain([("config.json", config)]);
    let sources = files
        .map(|(name, bytes)| Rc::new(MemorySource::new(name, bytes)) as Rc<dyn ByteSource>)
        .collect();
    pollster::block_on(Opened::from_sources(sources, None))
}

fn check_opened(what: &str, opened: llamero::error::Result<Opened>, warns: &str) {
    let Opened {
        checkpoint,
        config,
        model,
        warnings,
        ..
    } = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let want = npy::read_npy(&folder("dynamic").join("logits.npy")).1;
    let got = logits(
        &mut reference(
            &Model {
                checkpoint,
                config,
                model,
            },
            CONTEXT,
        ),
        &tokens(),
        30,
    );
    assert_close(what, &got, &want, TOLERANCE);
    let says = warnings.to_vec().join("\n");
    assert!(
        says.contains(warns) && says.is_empty() == warns.is_empty(),
        "{what}: {says}"
    );
}

fn tensor(
    name: &str,
    dtype: &str,
    shape: &[u64],
    bytes: usize,
) -> (String, String, Vec<u64>, Vec<u8>) {
    (
        name.to_owned(),
        dtype.to_owned(),
        shape.to_vec(),
        vec![0; bytes],
    )
}

#[test]
fn what_no_layer_needs_costs_no_answer() {
    let plain = stored("dynamic");
    check_opened(
        "plain",
        opened(vec![("model.safetensors", write(&plain))]),
        "",
    );
    let mut buffers = plain.clone();
    buffers.insert(0, tensor("model.position_ids", "I64", &[1, 4], 32));
    buffers.insert(
        2,
        tensor("model.layers.0.self_attn.masked_bias", "BOOL", &[2, 2], 4),
    );
    buffers.push(tensor("model.empty", "F16", &[0, 8], 0));
    buffers.push(tensor(
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "F32",
        &[4],
        16,
    ));
    check_opened(
        "buffers",
        opened(vec![("model.safetensors", write(&buffers))]),
        "position_ids (I64)",
    );

    let (first, second) = plain.split_at(plain.len() / 2);
    let (a, b) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    let map = |extra: Value| {
        let shards = first
            .iter()
            .map(|t| (t, a))
            .chain(second.iter().map(|t| (t, b)));
        let mut map: serde_json::Map<String, Value> = shards
            .map(|(t, shard)| (t.0.clone(), shard.into()))
            .collect();
        map.extend(extra.as_object().unwrap().clone());
        (
            "model.safetensors.index.json",
            json!({ "weight_map": map }).to_string().into_bytes(),
        )
    };
    let shards = || vec![(a, write(first)), (b, write(second))];
    let with = |mut files: Vec<(&'static str, Vec<u8>)>, more: (&'static str, Vec<u8>)| {
        files.push(more);
        files
    };
    check_opened("shards", opened(with(shards(), map(json!({})))), "");
    check_opened(
        "too many",
        opened(with(shards(), map(json!({"x.inv_freq": a})))),
        "x.inv_freq",
    );
    check_opened(
        "elsewhere",
        opened(with(shards(), map(json!({(second[0].0.as_str()): a})))),
        "another shard",
    );
    check_opened("no index", opened(shards()), "index.json is missing");
    let whole = ("model.safetensors", write(&plain));
    check_opened(
        "stale",
        opened(vec![whole.clone(), map(json!({}))]),
        "left aside",
    );
    check_opened(
        "variant",
        opened(vec![whole.clone(), ("model.fp16.safetensors", vec![0; 9])]),
        "fp16",
    );
    check_opened(
        "adapter",
        opened(vec![("adapter_model.safetensors", write(first)), whole]),
        "adapter",
    );
}

#[test]
fn what_a_layer_needs_is_an_error_by_name() {
    let plain = stored("dynamic");
    let needed = "model.layers.0.mlp.up_proj.weight";
    let at = plain.iter().position(|(name, ..)| name == needed).unwrap();
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = plain.clone();
        change(&mut tensors);
        opened(vec![("model.safetensors", write(&tensors))])
            .err()
            .unwrap()
    };
    let error = with(&|tensors| drop(tensors.remove(at)));
    assert!(
        error.kind() == ErrorKind::InvalidFile && error.detail().contains(needed),
        "{error}"
    );
    let integers = |tensors: &mut Tensors| {
        let elements: u64 = tensors[at].2.iter().product();
        tensors[at].1 = "I8".to_owned();
        tensors[at].3 = vec![0; elements as usize];
    };
    let error = with(&integers);
    let says = error.detail();
    assert!(
        error.kind() == ErrorKind::Unsupported && says.contains(needed) && says.contains("I8"),
        "{error}"
    );
    let error = with(&|tensors| tensors[at] = tensor(needed, "F32", &[0, 8], 0));
    assert!(
        error.kind() == ErrorKind::InvalidFile && error.detail().contains(needed),
        "{error}"
    );
    // Where the plan looks whether a tensor is there, one that cannot be read is.
    let error = with(&|tensors| {
        let table = tensors
            .iter_mut()
            .find(|(name, ..)| name == "model.embed_tokens.weight")
            .unwrap();
        *table = tensor("model.embed_tokens.weight", "U8", &[4], 4);
    });
    assert!(
        error.kind() == ErrorKind::Unsupported && error.detail().contains("embed_tokens"),
        "{error}"
    );

    let error = opened(vec![("pytorch_model.bin", vec![0])]).err().unwrap();
    assert!(
        error.kind() == ErrorKind::Unsupported && error.detail().contains("PyTorch"),
        "{error}"
    );
}

/// The config of a case with some fields changed (`null` in `change`: the field is taken out).
fn config_with(name: &str, change: &Value) -> llamero::error::Result<Config> {
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(folder(name).join("config.json")).unwrap())
            .unwrap();
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            config.as_object_mut().unwrap().shift_remove(key);
        } else {
            config[key] = value.clone();
        }
    }
    let weights = std::fs::read(folder(name).join("model.safetensors")).unwrap();
    pollster::block_on(async {
        let source = Rc::new(MemorySource::new("model.safetensors", weights));
        let checkpoint =
            Checkpoint::open_safetensors(&serde_json::to_vec(&config).unwrap(), None, vec![source])
                .await?;
        Config::read(&checkpoint).await
    })
}

#[test]
fn defaults_are_those_of_transformers() {
    let llama = config_with(
        "dynamic",
        &json!({"num_key_value_heads": null, "rms_norm_eps": null, "rope_parameters": null,
                "max_position_embeddings": null, "head_dim": null, "tie_word_embeddings": null, "sliding_window": 5}),
    )
    .unwrap();
    assert_eq!(
        (
            llama.num_key_value_heads,
            llama.head_dim,
            llama.max_position_embeddings
        ),
        (4, 8, 2048)
    );
    assert_eq!((llama.rms_norm_eps, llama.rope_theta), (1e-6, 10_000.0));
    assert_eq!(
        (
            llama.rope_scaling,
            llama.tie_word_embeddings,
            llama.sliding_window
        ),
        (None, false, None)
    );
    let mistral = config_with("mistral-window", &json!({"sliding_window": null})).unwrap();
    assert_eq!(mistral.sliding_window, Some(4096));
    // The older place of the scaling, with its older name of the type.
    let older = json!({"rope_parameters": null, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}});
    let older = config_with("dynamic", &older).unwrap();
    assert_eq!(
        (older.rope_theta, older.rope_scaling),
        (5e5, Some(RopeScaling::Linear { factor: 2.0 }))
    );
}

#[test]
fn what_a_config_may_not_say() {
    use ErrorKind::{InvalidFile, Unsupported};
    for (change, kind, word) in [
        (json!({"model_type": "gemma2"}), Unsupported, "\"gemma2\""),
        (
            json!({"model_type": "gemma2"}),
            Unsupported,
            "llama, mistral, mixtral, llama4_text",
        ),
        (json!({"hidden_act": "gelu"}), Unsupported, "gelu"),
        (json!({"hidden_size": null}), InvalidFile, "hidden_size"),
        (json!({"vocab_size": "64"}), InvalidFile, "vocab_size"),
        (
            json!({"num_attention_heads": 0}),
            InvalidFile,
            "num_attention_heads",
        ),
        (
            json!({"num_hidden_layers": -1}),
            InvalidFile,
            "num_hidden_layers",
        ),
        (json!({"num_hidden_layers": 1e9}), InvalidFile, "1024"),
        (
            json!({"rope_scaling": 3, "rope_parameters": null}),
            InvalidFile,
            "rope_scaling",
        ),
        (
            json!({"rope_parameters": {"rope_type": "spiral"}}),
            Unsupported,
            "spiral",
        ),
        (
            json!({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}),
            InvalidFile,
            "low_freq_factor",
        ),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": -1.0}}),
            InvalidFile,
            "factor",
        ),
        (
            json!({"partial_rotary_factor": 0.0}),
            InvalidFile,
            "rope over 0",
        ),
        (
            json!({"quantization_config": {"quant_method": "gptq"}}),
            Unsupported,
            "gptq",
        ),
        (
            json!({"architectures": ["LlamaForSequenceClassification"]}),
            Unsupported,
            "SequenceClassification",
        ),
        (json!({"rms_norm_eps": 2.0}), InvalidFile, "epsilon"),
    ] {
        let error = config_with("dynamic", &change).expect_err(&change.to_string());
        assert_eq!(error.kind(), kind, "{change}: {error}");
        assert!(error.to_string().contains(word), "{change}: {error}");
    }
    for change in [
        json!({"no_rope_layers": [1]}),
        json!({"layer_types": ["sliding"]}),
        json!({"floor_scale": 0}),
    ] {
        assert!(config_with("llama4", &change).is_err(), "{change}");
    }
}
