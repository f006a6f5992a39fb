//! The command line: JSON on stdout, one line of error on stderr, exit 0 or 1.

use crate::support::gguf::{GgufBuilder, strings};
use crate::support::harness::tiny;
use crate::support::{harness, npy};
use llamero::quant::DType;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    // Drivers complain on stderr where this is not set, as it is not in containers.
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamero"));
    command
        .env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"))
        .args(args)
        .output()
        .unwrap()
}

fn result(args: &[&str]) -> Value {
    let output = run(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The error's line.
fn failure(args: &[&str]) -> String {
    let output = run(args);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {words}");
    assert!(output.stdout.is_empty(), "{args:?}");
    assert_eq!(words.trim_end().lines().count(), 1, "{words}");
    words
}

fn scratch(name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, contents).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn inspect_tells_what_is_in_a_file() {
    let info = result(&["inspect", text(&tiny("Q8_0"))]);
    assert_eq!(info["architecture"], "llama");
    assert_eq!(info["config"]["num_key_value_heads"], 2);
    assert_eq!(info["config"]["hidden_size"], 64);
    assert!(info["tensors"].to_string().contains("Q8_0"), "{info}");
    assert_eq!(
        info["bytes"],
        std::fs::metadata(tiny("Q8_0")).unwrap().len()
    );
}

#[test]
fn text_to_ids_and_back() {
    let model = tiny("Q8_0");
    let model = text(&model);
    let words = "Grüße, 世界! <|im_start|>";
    let special = result(&["tokenize", model, "--text", words])["ids"].clone();
    let plain = result(&["tokenize", model, "--text", words, "--plain"])["ids"].clone();
    assert!(
        special.as_array().unwrap().len() < plain.as_array().unwrap().len(),
        "{special} {plain}"
    );
    let list = |ids: &Value| {
        ids.as_array()
            .unwrap()
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(
        result(&["detokenize", model, "--ids", &list(&plain)])["text"],
        words
    );
    assert_eq!(
        result(&["detokenize", model, "--ids", &list(&special)])["text"],
        words
    );
    let without = result(&[
        "detokenize",
        model,
        "--ids",
        &list(&special),
        "--skip-special",
    ]);
    assert_eq!(without["text"], "Grüße, 世界! ");
    let texts = scratch("texts.json", json!([words, ""]).to_string());
    assert_eq!(
        result(&["tokenize", model, "--texts", text(&texts)])["ids"],
        json!([special, []])
    );
}

#[test]
fn template_and_generation_from_messages() {
    let model = tiny("Q8_0");
    let messages = scratch(
        "messages.json",
        json!([{"role": "user", "content": "Hi"}]).to_string(),
    );
    let rendered = result(&[
        "template",
        text(&model),
        "--messages",
        text(&messages),
        "--add-generation-prompt",
    ]);
    assert_eq!(
        rendered["text"],
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let own = scratch(
        "own.jinja",
        "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
    );
    let own = ["--template", text(&own), "--bos", "[", "--eos", "]"];
    let rendered = result(
        &[
            &["template", text(&model), "--messages", text(&messages)],
            &own[..],
        ]
        .concat(),
    );
    assert_eq!(rendered["text"], "[Hi]");
    let args = [
        "--backend",
        "reference",
        "--max-new-tokens",
        "5",
        "--ignore-eos",
        "--temperature",
        "1",
    ];
    let several = [
        "generate",
        text(&model),
        "--messages",
        text(&messages),
        "-n",
        "3",
        "--seed",
        "4",
    ];
    let generation = result(&[&several[..], &args[..]].concat());
    assert_eq!(generation["sequences"].as_array().unwrap().len(), 3);
    assert_eq!(
        generation["sequences"][2]["ids"].as_array().unwrap().len(),
        5
    );
    assert_eq!(generation["sequences"][2]["finish_reason"], "length");
    assert_eq!(generation["usage"]["completion_tokens"], 15);
    assert!(generation["timings"]["decode_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn sampling_options_reach_the_engine() {
    let model = tiny("Q8_0");
    let base = [
        "generate",
        text(&model),
        "--ids",
        "1,2",
        "--backend",
        "reference",
        "--max-new-tokens",
        "4",
    ];
    let with = |options: &[&'static str]| [&base[..], &["--ignore-eos"], options].concat();
    let biased = with(&[
        "--logit-bias",
        "65=99.5,66=100",
        "--logit-bias",
        "7=-100",
        "--suppress-tokens",
        "66,67",
    ]);
    assert_eq!(
        result(&biased)["sequences"][0]["ids"],
        json!([65, 65, 65, 65])
    );
    let penalised = with(&[
        "--allowed-tokens",
        "65,66",
        "--presence-penalty",
        "2",
        "--frequency-penalty",
        "2",
    ]);
    let penalised = [
        &penalised[..],
        &["--repetition-penalty", "1.5", "--logit-bias", "65=0.5"],
    ]
    .concat();
    let drawn = result(&penalised)["sequences"][0]["ids"].to_string();
    assert!(drawn.contains("65") && drawn.contains("66"), "{drawn}");
    assert!(failure(&with(&["--logit-bias", "five"])).contains("--logit-bias"));
    assert!(failure(&with(&["--logit-bias", "5=1,5=2"])).contains("token 5 twice"));
    assert!(failure(&with(&["--repetition-penalty", "-1"])).contains("repetition_penalty"));
    let sequence = |options| result(&with(options))["sequences"][0].clone();
    let greedy = sequence(&[]);
    let off = sequence(&["--temperature", "2", "--do-sample=false"]);
    assert_eq!(off["ids"], greedy["ids"]);
    assert!(sequence(&["--logprobs"])["logprobs"].is_array());
    assert!(sequence(&["--logprobs=false"])["logprobs"].is_null());
    assert!(failure(&with(&["--do-sample=perhaps"])).contains("--do-sample"));
    // Tokens of bytes begin at 3.
    let stops = ["--allowed-tokens", "68", "--stop", "Z", "--stop", "AA"];
    let told = result(&[&base[..], &stops].concat())["sequences"][0].clone();
    assert_eq!(
        (&told["text"], &told["finish_reason"]),
        (&json!(""), &json!("stop"))
    );
    assert_eq!(told["ids"], json!([68, 68]));
}

/// The names of a request's options, which src/web/typescript.rs takes from the struct.
fn request_options() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/lib/generated/engine.ts");
    let file = std::fs::read_to_string(file).unwrap();
    let (_, list) = file.split_once("export const REQUEST = [").unwrap();
    let (list, _) = list.split_once(']').unwrap();
    list.split('\'')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_option_of_a_request_is_a_flag() {
    let output = run(&["generate", "--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    let options = request_options();
    assert!(options.len() > 25, "{options:?}");
    for option in options {
        let flag = format!("--{} ", option.replace('_', "-"));
        let optional = format!("--{}[", option.replace('_', "-"));
        assert!(
            help.contains(&flag) || help.contains(&optional),
            "{option}: {help}"
        );
    }
}

#[test]
fn logits_are_an_npy_file() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("logits.npy");
    let model = tiny("Q8_0");
    let args = [
        "logits",
        text(&model),
        "--ids",
        "1,2,3",
        "--backend",
        "reference",
        "--out",
        text(&out),
    ];
    result(&args);
    let (shape, values) = npy::read_npy(&out);
    assert_eq!(shape, [3, 320]);
    assert!(values.iter().all(|x| x.is_finite()) && values.iter().any(|x| *x != values[0]));
}

#[test]
fn perplexity_of_a_file() {
    let words = scratch(
        "words.txt",
        "It was the best of times, it was the worst of times. ".repeat(4),
    );
    let model = tiny("Q8_0");
    let args = [
        "perplexity",
        text(&model),
        "--file",
        text(&words),
        "--context",
        "64",
        "--backend",
        "reference",
    ];
    let found = result(&args);
    // Worse than guessing, as random weights are; each window of 64 scores all but its first token.
    assert!(found["perplexity"].as_f64().unwrap() > 320.0, "{found}");
    let tokens = result(&[
        "tokenize",
        text(&model),
        "--file",
        text(&words),
        "--plain",
        "--add-special",
    ]);
    let tokens = tokens["ids"].as_array().unwrap().len();
    assert_eq!(found["tokens"], tokens - tokens.div_ceil(64), "{found}");
}

/// The lines that `bench` prints.
fn bench(args: &[&str]) -> Vec<Value> {
    let model = tiny("Q8_0");
    let output = run(&[
        &["bench", text(&model), "--trials", "1", "--gen", "4"],
        args,
    ]
    .concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn bench_prints_one_object_per_size() {
    let lines = bench(&[
        "--backend",
        "cpu",
        "--prompt",
        "16,40",
        "--context",
        "33,500",
        "--batch",
        "1,2",
    ]);
    let of = |name: &str| {
        lines
            .iter()
            .filter(|line| line["bench"] == name)
            .collect::<Vec<_>>()
    };
    let device = of("device")[0];
    assert_eq!(device["backend"], "cpu");
    assert!(
        device["copy_bytes_per_second"].as_f64().unwrap() > 1e6,
        "{device}"
    );
    let prefill = of("prefill");
    assert_eq!(
        prefill
            .iter()
            .map(|line| line["prompt"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [16, 40]
    );
    assert!(
        prefill
            .iter()
            .all(|line| line["prefill_tps"].as_f64().unwrap() > 0.0),
        "{prefill:?}"
    );
    let decode = of("decode");
    assert_eq!(decode.len(), 4);
    for line in &decode[..2] {
        assert!(line["decode_tps"].as_f64().unwrap() > 0.0, "{line}");
        let weights = device["weight_bytes_per_token"].as_f64().unwrap();
        // 4 blocks of 2 heads of 16 keys and values in f16, 35 positions on average.
        let cache = 35.0 * 4.0 * 2.0 * 2.0 * 16.0 * 2.0 * line["batch"].as_f64().unwrap();
        assert_eq!(
            line["bytes_per_step"].as_f64().unwrap(),
            weights + cache,
            "{line}"
        );
    }
    // The model goes up to 512 positions: what does not fit is said.
    assert!(
        decode[3]["skipped"].as_str().unwrap().contains("512"),
        "{decode:?}"
    );
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn bench_counts_what_a_step_on_a_gpu_costs() {
    let lines = bench(&["--backend", "gpu", "--prompt", "16", "--context", "32"]);
    let decode = lines.iter().find(|line| line["bench"] == "decode").unwrap();
    // Five for each of 4 blocks; embedding, head, sampling.
    assert_eq!(decode["dispatches_per_step"], 23.0, "{decode}");
    assert!(
        decode["encode_ms_per_step"].as_f64().unwrap() > 0.0,
        "{decode}"
    );
    assert!(
        decode["share_of_copy_bandwidth"].as_f64().unwrap() > 0.0,
        "{decode}"
    );
}

#[test]
fn models_of_real_shapes_are_made_with_as_few_layers_as_asked() {
    for (shape, dtype, hidden, kv_heads, vocab) in [
        ("1b", "Q4_0", 2048, 8, 128_256),
        ("3b", "Q4_K", 3072, 8, 128_256),
        ("7b", "Q6_K", 4096, 32, 32_000),
    ] {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{shape}.gguf"));
        result(&[
            "make",
            text(&path),
            "--shape",
            shape,
            "--type",
            dtype,
            "--layers",
            "1",
        ]);
        let info = result(&["inspect", text(&path)]);
        let config = &info["config"];
        assert_eq!(config["hidden_size"], hidden);
        assert_eq!(config["num_key_value_heads"], kv_heads);
        assert_eq!(config["num_hidden_layers"], 1);
        assert_eq!(config["vocab_size"], vocab);
        assert!(
            info["tensors"][dtype]["count"].as_u64().unwrap() >= 8,
            "{info}"
        );
        std::fs::remove_file(&path).unwrap();
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("none.gguf");
    assert!(failure(&["make", text(&path), "--type", "Q8_0,Q9"]).contains("Q9 is no weight type"));
    assert!(failure(&["make", text(&path), "--layers", "0"]).contains("--layers"));
    // The older spelling.
    assert!(failure(&["make", text(&path), "--blocks", "0"]).contains("--layers"));
    assert!(failure(&["make", text(&path), "--type", "Q4_K"]).contains("smaller blocks"));
}

#[test]
fn the_matrices_of_a_made_model_take_turns_in_the_types_named() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("turns.gguf");
    result(&[
        "make",
        text(&path),
        "--shape",
        "small",
        "--layers",
        "1",
        "--type",
        "Q8_0,Q4_K,IQ2_S",
    ]);
    let info = result(&["inspect", text(&path)]);
    // Embedding, gate and up; queries, keys and values, down; what attention's output goes through.
    for (dtype, count) in [("Q8_0", 3), ("Q4_K", 4), ("IQ2_S", 1)] {
        assert_eq!(info["tensors"][dtype]["count"], count, "{dtype}: {info}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn requantised_models_keep_their_logits_nearly() {
    let from = tiny("Q8_0");
    let logits = |model: &Path| {
        let out = scratch("requantised.npy", "");
        result(&[
            "logits",
            text(model),
            "--ids",
            "5,6,7",
            "--out",
            text(&out),
            "--backend",
            "reference",
        ]);
        npy::read_npy(&out).1
    };
    let (want, rms) = (logits(&from), |a: &[f32], b: &[f32]| {
        (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / a.len() as f32).sqrt()
    });
    let spread = rms(&want, &vec![0.0; want.len()]);
    for (dtype, stored, most) in [
        ("F16", "F16", 0.01),
        ("Q5_1", "Q5_1", 0.15),
        ("Q4_0", "Q4_0", 0.4),
        ("Q4_K", "Q5_0", 0.2),
    ] {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("requantised-{dtype}.gguf"));
        result(&["requantize", text(&from), text(&path), "--type", dtype]);
        let info = result(&["inspect", text(&path)]);
        assert!(
            info["tensors"][stored]["count"].as_u64().unwrap() >= 28,
            "{info}"
        );
        let got = logits(&path);
        assert_eq!(got.len(), want.len());
        let off = rms(&got, &want) / spread;
        assert!(
            off > 0.0 && off < most,
            "{dtype}: {off} of the logits' spread"
        );
        assert_eq!(
            result(&["tokenize", text(&path), "--text", "the end"]),
            result(&["tokenize", text(&from), "--text", "the end"])
        );
    }
    assert!(failure(&["requantize", text(&from), "x.gguf", "--type", "Q9"]).contains("Q9"));
}

/// A folder of its own for a test.
fn own_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn the_vocabulary_of_a_split_model_is_found_from_any_part() {
    let folder = own_folder("split vocabulary");
    let tokens: Vec<String> = ["<unk>", "<s>", "</s>", "\u{2581}a", "a", "\u{2581}"]
        .map(str::to_owned)
        .into();
    let part = |number: u16| {
        let builder = GgufBuilder::new()
            .meta("split.no", number)
            .meta("split.count", 3_u16);
        let builder = if number > 0 {
            builder
        } else {
            builder
                .meta("tokenizer.ggml.model", "llama")
                .meta("tokenizer.ggml.tokens", strings(&tokens))
                .meta("tokenizer.ggml.scores", vec![0_f32; 6])
                .meta("tokenizer.chat_template", "{{ messages[0].content }}!")
        };
        builder.values("unused", &[1], DType::F32, &[0.0]).build()
    };
    let path = |number: u16| folder.join(format!("m-{:05}-of-00003.gguf", number + 1));
    let messages = scratch(
        "split.messages.json",
        r#"[{"role": "user", "content": "hi"}]"#,
    );
    std::fs::write(path(0), part(0)).unwrap();
    // The first part alone, then two of three.
    for given in [0, 2] {
        std::fs::write(path(given), part(given)).unwrap();
        let model = path(given);
        assert_eq!(
            result(&["tokenize", text(&model), "--text", "aa"])["ids"],
            json!([3, 4])
        );
        assert_eq!(
            result(&["detokenize", text(&model), "--ids", "3,4"])["text"],
            "aa"
        );
        assert_eq!(
            result(&["template", text(&model), "--messages", text(&messages)])["text"],
            "hi!"
        );
    }
    std::fs::remove_file(path(0)).unwrap();
    let says = failure(&["tokenize", text(&path(2)), "--text", "a"]);
    assert!(says.contains("part 3 of a split model"), "{says}");
}

#[test]
fn a_tokenizer_model_is_taken_by_itself_and_in_a_folder() {
    let folder = own_folder("ranks");
    let ranks: String = (0..=255_u8)
        .map(|byte| format!("{} {byte}\n", base64::encode([byte])))
        .collect();
    let file = folder.join("tokenizer.model");
    std::fs::write(&file, ranks).unwrap();
    // It was asked for: what lies beside it under the newer name is not looked at.
    for model in [&file, &folder] {
        let ids = &result(&[
            "tokenize",
            text(model),
            "--text",
            "a<|eot_id|>",
            "--add-special",
        ])["ids"];
        assert_eq!(*ids, json!([256, 97, 265]), "{}", model.display());
    }
    std::fs::write(
        folder.join("tokenizer.json"),
        "version https://git-lfs.github.com/spec/v1\n",
    )
    .unwrap();
    assert_eq!(
        result(&["tokenize", text(&file), "--text", "a"])["ids"],
        json!([97])
    );
    for model in [&folder, &folder.join("tokenizer.json")] {
        let says = failure(&["tokenize", text(model), "--text", "a"]);
        assert!(
            says.contains("tokenizer.json seems to be a git LFS pointer"),
            "{says}"
        );
    }
}

#[test]
fn errors_are_one_line_that_says_what_to_do() {
    let model = tiny("Q8_0");
    let model = text(&model);
    assert!(failure(&["inspect", "/nowhere/model.gguf"]).contains("/nowhere/model.gguf"));
    let notes = scratch(
        "notes.gguf",
        "Dear diary, this is no model at all, however long it is.",
    );
    assert!(failure(&["inspect", text(&notes)]).contains("GGUF"));
    let whole = std::fs::read(tiny("Q8_0")).unwrap();
    let cut = scratch("cut.gguf", &whole[..whole.len() / 2]);
    let words = failure(&[
        "generate",
        text(&cut),
        "--prompt",
        "a",
        "--backend",
        "reference",
    ]);
    assert!(
        words.contains("truncated") || words.contains("ends") || words.contains("shorter"),
        "{words}"
    );
    assert!(failure(&["detokenize", model, "--ids", "99999"]).contains("99999"));
    let long = scratch("long.txt", "word ".repeat(2000));
    assert!(
        failure(&["perplexity", model, "--file", text(&long), "--context", "1"])
            .contains("context")
    );
    assert!(failure(&["generate", model, "--temprature", "1"]).contains("--temprature"));
    let request = ["generate", model, "--backend", "reference", "--prompt"];
    let with = |args: &[&str]| failure(&[&request[..], args].concat());
    assert!(with(&[&"word ".repeat(2000)]).contains("context"));
    assert!(with(&["a", "--temperature", "-1"]).contains("temperature"));
    assert!(with(&["a", "-n", "5", "--temperature", "0"]).contains("greedy"));
    assert!(with(&["a", "--max-context", "100000"]).contains("512"));
}

/// Tensors of a safetensors file: shape and values by name.
fn tensors(path: &Path) -> std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| {
        data.chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    file.tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.shape().to_vec(), values(view.data()))))
        .collect()
}

const MIXTRAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hf/mixtral");

/// 70 ids: more than one step takes.
fn seventy_ids() -> String {
    let ids: Vec<String> = (0..70).map(|i| (i * 11 % 64).to_string()).collect();
    ids.join(",")
}

/// Captures values of [`MIXTRAL`] into a file.
fn capture(ids: &str, hooks: &str, out: &Path, backend: &str) -> Value {
    result(&[
        "capture",
        MIXTRAL,
        "--ids",
        ids,
        "--hooks",
        hooks,
        "--out",
        text(out),
        "--backend",
        backend,
    ])
}

/// Logits of [`MIXTRAL`], `[70, 64]`, by way of the scratch file `name`.
fn edited_logits(ids: &str, edits: Option<&Path>, name: &str) -> Vec<f32> {
    let out = scratch(name, "");
    let mut args = vec!["logits", MIXTRAL, "--ids", ids, "--out", text(&out)];
    args.extend(["--backend", "cpu", "--kv-cache-type", "f32"]);
    if let Some(edits) = edits {
        args.extend(["--edits", text(edits)]);
    }
    result(&args);
    npy::read_npy(&out).1
}

/// A file, `name`, that edits the first block's output at every position, by a tensor of the file `values`.
fn edits_file(name: &str, op: &str, values: &str, tensor: &str) -> PathBuf {
    let entry = json!([{ "hook": "blocks.0.hook_resid_post", "op": op, "positions": null,
        "file": values, "tensor": tensor }]);
    scratch(name, entry.to_string())
}

#[test]
fn inner_values_are_captured() {
    let ids = seventy_ids();
    let out = scratch("captured.safetensors", "");
    let said = capture(&ids, "*", &out, "cpu");
    let all = tensors(&out);
    assert_eq!(said["shapes"].as_object().unwrap().len(), all.len());
    let values = |name: &str| &all[name].1;
    for i in 0..2 {
        let part = |name: &str| values(&format!("blocks.{i}.hook_{name}"));
        let (pre, attn, mid) = (part("resid_pre"), part("attn_out"), part("resid_mid"));
        let (mlp, post) = (part("mlp_out"), part("resid_post"));
        for j in 0..pre.len() {
            assert!(
                (pre[j] + attn[j] - mid[j]).abs() < 1e-4
                    && (mid[j] + mlp[j] - post[j]).abs() < 1e-4,
                "block {i}, value {j}"
            );
        }
        // Longer than a step: later rows see more positions.
        let (shape, pattern) = &all[&format!("blocks.{i}.attn.hook_pattern")];
        assert_eq!(shape[1..], [70, 70]);
        for (row, weights) in pattern.chunks_exact(70).enumerate() {
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            assert!(weights[row % 70 + 1..].iter().all(|weight| *weight == 0.0));
        }
    }
    // One name, and the other executors.
    for backend in ["reference", "cpu"] {
        let one = ["blocks.1.hook_resid_post", "blocks.1.attn.hook_rot_k"].join(",");
        capture(&ids, &one, &out, backend);
        let few = tensors(&out);
        assert_eq!(few.len(), 2);
        for (name, (shape, got)) in &few {
            assert_eq!(*shape, all[name].0);
            harness::assert_close(name, got, &all[name].1, 1e-3);
        }
    }
}

/// A value replaced by itself, and by the sum with another.
#[test]
fn inner_values_are_edited() {
    let ids = seventy_ids();
    let logits = |edits: Option<&Path>| edited_logits(&ids, edits, "edited.npy");
    let plain = logits(None);
    let edit =
        |op: &str, tensor: &str| edits_file("edits.json", op, "for-edits.safetensors", tensor);
    let file = scratch("for-edits.safetensors", "");
    let hooks = "blocks.0.hook_resid_post,blocks.0.hook_resid_pre";
    capture(&ids, hooks, &file, "cpu");
    harness::assert_close(
        "by itself",
        &logits(Some(&edit("replace", "blocks.0.hook_resid_post"))),
        &plain,
        1e-4,
    );
    let other = logits(Some(&edit("add", "blocks.0.hook_resid_pre")));
    assert!(harness::worst(&other, &plain).0 > 0.1);
    // A generation with these edits draws what these logits say.
    let edits = edit("add", "blocks.0.hook_resid_pre");
    let generated = result(&[
        "generate",
        MIXTRAL,
        "--ids",
        &ids,
        "--max-new-tokens",
        "3",
        "--ignore-eos",
        "--top-logprobs",
        "2",
        "--backend",
        "cpu",
        "--edits",
        text(&edits),
    ]);
    let sequence = &generated["sequences"][0];
    let last = &other[other.len() - 64..];
    let best = (0..64)
        .max_by(|a, b| last[*a].total_cmp(&last[*b]))
        .unwrap();
    assert_eq!(sequence["ids"][0], best, "{generated}");
    assert_eq!(sequence["ids"].as_array().unwrap().len(), 3);
    let total = last.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
    let first = &sequence["logprobs"][0];
    let logprob = first["logprob"].as_f64().unwrap();
    assert!(
        (logprob - (f64::from(last[best]) - total)).abs() < 1e-3,
        "{generated}"
    );
    assert_eq!(first["top"][0]["id"], best);
}

#[test]
fn edits_and_hooks_that_are_not_there_are_refused() {
    let out = scratch("refused.safetensors", "");
    let values = scratch("refused-values.safetensors", "");
    capture("1", "blocks.0.hook_resid_pre", &values, "cpu");
    for (op, tensor, word) in [
        ("multiply", "x", "add or replace"),
        ("add", "no-such-tensor", "no-such-tensor"),
    ] {
        let bad = edits_file(
            "refused-edits.json",
            op,
            "refused-values.safetensors",
            tensor,
        );
        let error = failure(&[
            "logits",
            MIXTRAL,
            "--ids",
            "1",
            "--out",
            text(&out),
            "--edits",
            text(&bad),
        ]);
        assert!(error.contains(word), "{error}");
    }
    let error = failure(&[
        "capture",
        MIXTRAL,
        "--ids",
        "1",
        "--hooks",
        "blocks.0.nothing",
        "--out",
        text(&out),
    ]);
    assert!(error.contains("blocks.N.attn.hook_pattern"), "{error}");
}

#[test]
fn scores_of_ids_are_the_logits_own() {
    let ids = seventy_ids();
    let plain = edited_logits(&ids, None, "scored.npy");
    let scores = result(&[
        "score",
        MIXTRAL,
        "--ids",
        &ids,
        "--backend",
        "cpu",
        "--kv-cache-type",
        "f32",
    ]);
    let scores = scores["logprobs"].as_array().unwrap();
    assert!(scores[0].is_null() && scores.len() == 70);
    let row = &plain[4 * 64..5 * 64];
    let total: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
    let want = f64::from(row[5 * 11]) - total.ln();
    assert!((scores[5].as_f64().unwrap() - want).abs() < 1e-4);
}
