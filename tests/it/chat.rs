//! Chats, from a model's files to the ids of a prompt: which template, what it sees, where BOS goes, what stops an answer;
//! and names of tokens that are none. Models are made here.

use crate::support::gguf::{GgufBuilder, strings};
use llamero::engine::{Chat, Opened, apply_chat_template};
use llamero::error::{ErrorKind, Result};
use llamero::format::{ByteSource, Checkpoint, MemorySource};
use llamero::quant::DType;
use llamero::tokenizer::{ChatTemplate, DateTime, HfFiles, TemplateInput, Tokenizer};
use pollster::block_on;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

const BOS: u32 = 1;
const EOS: u32 = 2;
const IM_START: u32 = 3;
const IM_END: u32 = 4;
/// The first of the byte tokens.
const BYTES: u32 = 5;
const VOCAB: usize = 5 + 256 + 1;

/// `x` as an id.
fn byte(text: &str) -> u32 {
    BYTES + u32::from(text.as_bytes()[0])
}

/// A model of one block whose text is bytes, with all keys but those of special tokens and templates.
fn model() -> GgufBuilder {
    const H: u64 = 32;
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
        .map(str::to_owned)
        .into();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.push("▁".to_owned());
    let mut kinds = vec![2_i32, 3, 3, 3, 3];
    kinds.resize(VOCAB - 1, 6);
    kinds.push(1);
    let mut file = GgufBuilder::new()
        .meta("general.architecture", "llama")
        .meta("llama.embedding_length", H as u32)
        .meta("llama.feed_forward_length", H as u32)
        .meta("llama.block_count", 1_u32)
        .meta("llama.attention.head_count", 2_u32)
        .meta("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .meta("llama.context_length", 256_u32)
        .meta("tokenizer.ggml.model", "llama")
        .meta("tokenizer.ggml.tokens", strings(tokens))
        .meta("tokenizer.ggml.token_type", kinds)
        .meta("tokenizer.ggml.scores", vec![0.0_f32; VOCAB])
        .meta("tokenizer.ggml.add_space_prefix", false);
    let shapes: [(&str, &[u64]); 12] = [
        ("token_embd.weight", &[VOCAB as u64, H]),
        ("output.weight", &[VOCAB as u64, H]),
        ("output_norm.weight", &[H]),
        ("blk.0.attn_norm.weight", &[H]),
        ("blk.0.ffn_norm.weight", &[H]),
        ("blk.0.attn_q.weight", &[H, H]),
        ("blk.0.attn_k.weight", &[H, H]),
        ("blk.0.attn_v.weight", &[H, H]),
        ("blk.0.attn_output.weight", &[H, H]),
        ("blk.0.ffn_gate.weight", &[H, H]),
        ("blk.0.ffn_up.weight", &[H, H]),
        ("blk.0.ffn_down.weight", &[H, H]),
    ];
    for (name, shape) in shapes {
        let count = shape.iter().product::<u64>() as usize;
        let values: Vec<f32> = (0..count)
            .map(|i| (i * 37 % 101) as f32 / 101.0 - 0.4)
            .collect();
        file = file.values(name, shape, DType::F32, &values);
    }
    file
}

fn gguf_tokenizer(file: &GgufBuilder) -> Tokenizer {
    let checkpoint = block_on(Checkpoint::open_gguf(file.sources())).unwrap();
    Tokenizer::from_gguf(checkpoint.metadata()).unwrap()
}

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chat-{name}"));
    if path.is_dir() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    path
}

fn write(name: &str, contents: impl AsRef<[u8]>) -> String {
    let path = scratch(name);
    std::fs::write(&path, contents).unwrap();
    path.to_str().unwrap().to_owned()
}

fn run(args: &[&str], zone: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamero"));
    command
        .env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"))
        .env("TZ", zone)
        .args(args)
        .output()
        .unwrap()
}

/// What the command line prints, and its warnings.
fn result(args: &[&str]) -> (Value, Vec<String>) {
    let output = run(args, "UTC0");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {words}");
    let warnings = words
        .lines()
        .filter_map(|line| line.strip_prefix("warning: "))
        .map(str::to_owned);
    (
        serde_json::from_slice(&output.stdout).unwrap(),
        warnings.collect(),
    )
}

fn hello() -> Value {
    json!([{"role": "user", "content": "hello"}])
}

fn chat<'a>(messages: &'a Value, kwargs: Option<&'a Map<String, Value>>) -> Chat<'a> {
    Chat {
        messages,
        tools: None,
        kwargs,
        template: None,
        add_generation_prompt: true,
        now: None,
    }
}

fn seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64
}

/// A time as a template writes it.
fn shown(format: &str, seconds: i64, offset_minutes: i32) -> String {
    let template =
        ChatTemplate::new(&format!("{{{{ strftime_now('{format}') }}}}"), "", "").unwrap();
    let now = Some(DateTime::from_unix(seconds, offset_minutes));
    template
        .render(&TemplateInput {
            now,
            ..TemplateInput::default()
        })
        .unwrap()
}

#[test]
fn every_chat_has_a_clock() {
    // As LLaMA 3.2's template asks for the date.
    let template = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}";
    let file = model()
        .meta("tokenizer.ggml.add_bos_token", false)
        .meta("tokenizer.chat_template", template);
    let before = seconds();
    let text = apply_chat_template(&gguf_tokenizer(&file), &chat(&hello(), None)).unwrap();
    assert!(
        [before, seconds()]
            .iter()
            .any(|now| shown("%d %b %Y", *now, 0) == text),
        "{text}"
    );

    let (path, messages) = (
        write("clock.gguf", file.build()),
        write("clock.json", hello().to_string()),
    );
    let (rendered, _) = result(&[
        "template",
        &path,
        "--messages",
        &messages,
        "--now",
        "2025-03-04T15:09:26",
    ]);
    assert_eq!(rendered["text"], "04 Mar 2025");
    let generate = [
        "generate",
        &path,
        "--messages",
        &messages,
        "--max-new-tokens",
        "1",
        "--backend",
        "reference",
    ];
    assert_eq!(
        result(&generate).0["usage"]["prompt_tokens"],
        "04 Mar 2025".len()
    );
    // The zone's own time: POSIX counts hours west of Greenwich.
    let clock = write("clock.jinja", "{{ strftime_now('%Y-%m-%d %H') }}");
    for (zone, minutes) in [("UTC0", 0), ("XYZ-5", 300), ("ABC9:30", -570)] {
        let before = seconds();
        let output = run(
            &[
                "template",
                "none",
                "--messages",
                &messages,
                "--template",
                &clock,
            ],
            zone,
        );
        let text: Value = serde_json::from_slice(&output.stdout).unwrap();
        let near = [before, seconds()].map(|now| shown("%Y-%m-%d %H", now, minutes));
        assert!(
            near.iter().any(|near| text["text"] == near.as_str()),
            "{zone}: {text}, not {near:?}"
        );
    }
}

#[test]
fn bos_begins_a_chat_once_where_a_gguf_asks_for_it() {
    let (h, nl) = (byte("h"), byte("\n"));
    let cases: [(Option<bool>, &str, &[u32]); 10] = [
        (
            Some(true),
            "<|im_start|>h<|im_end|>",
            &[BOS, IM_START, h, IM_END],
        ),
        (Some(true), "<s><|im_start|>h", &[BOS, IM_START, h]),
        (Some(true), "{{ bos_token }}h", &[BOS, h]),
        (Some(true), "\n{{ bos_token }}h", &[nl, BOS, h]),
        (
            Some(true),
            "{{ bos_token }}h{{ eos_token }}{{ bos_token }}h",
            &[BOS, h, EOS, BOS, h],
        ),
        (Some(true), "h{{ bos_token }}", &[BOS, h, BOS]),
        (Some(true), "{{ '' }}", &[BOS]),
        (Some(false), "<|im_start|>h", &[IM_START, h]),
        (Some(false), "<s>h", &[BOS, h]),
        // What is usual for such a vocabulary.
        (None, "h", &[BOS, h]),
    ];
    for (add_bos, template, want) in cases {
        let mut file = model()
            .meta("tokenizer.ggml.add_eos_token", true)
            .meta("tokenizer.chat_template", template);
        if let Some(add_bos) = add_bos {
            file = file.meta("tokenizer.ggml.add_bos_token", add_bos);
        }
        let tokenizer = gguf_tokenizer(&file);
        let text = apply_chat_template(&tokenizer, &chat(&hello(), None)).unwrap();
        assert_eq!(
            tokenizer.encode_chat(&text).unwrap(),
            want,
            "{add_bos:?} {template:?}"
        );
    }
}

#[test]
fn a_prompt_that_begins_with_bos_has_one() {
    let tokenizer = gguf_tokenizer(&model().meta("tokenizer.ggml.add_bos_token", true));
    let literal: Vec<u32> = "<s>".bytes().map(|b| BYTES + u32::from(b)).collect();
    let h = byte("h");
    assert_eq!(tokenizer.encode_prompt("h", true).unwrap(), [BOS, h]);
    assert_eq!(tokenizer.encode_prompt("<s>h", true).unwrap(), [BOS, h]);
    assert_eq!(
        tokenizer.encode_prompt("<s>h", false).unwrap(),
        [&literal[..], &[h]].concat()
    );
    assert_eq!(
        tokenizer.encode_prompt("h<s>", true).unwrap(),
        [&[BOS, h], &literal[..]].concat()
    );
    let without = gguf_tokenizer(&model().meta("tokenizer.ggml.add_bos_token", false));
    assert_eq!(
        without.encode_prompt("<s>h", true).unwrap(),
        [&literal[..], &[h]].concat()
    );
}

/// `tokenizer.json` of bytes, and tokens from 256 on.
fn tokenizer_json(tokens: &[&str]) -> String {
    let bytes: Map<String, Value> = (0_u8..=255)
        .map(|b| (format!("<0x{b:02X}>"), b.into()))
        .collect();
    let added: Vec<Value> = tokens
        .iter()
        .enumerate()
        .map(|(i, text)| json!({"id": 256 + i, "content": text, "special": true, "normalized": false}))
        .collect();
    json!({
        "added_tokens": added,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
        ]},
        "model": {"type": "BPE", "vocab": bytes, "merges": [], "byte_fallback": true},
    })
    .to_string()
}

/// A tokenizer of Hugging Face's files.
fn from_hf(
    tokens: &[&str],
    files: &[(&str, Value)],
    templates: &[(&str, &str)],
) -> Result<Tokenizer> {
    let tokenizer = tokenizer_json(tokens);
    let text = |name: &str| {
        files
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, json)| json.to_string())
    };
    let (config, map, generation) = (
        text("tokenizer_config.json"),
        text("special_tokens_map.json"),
        text("generation_config.json"),
    );
    let (model, old) = (text("config.json"), text("chat_template.json"));
    let own = templates
        .iter()
        .find(|(name, _)| *name == "chat_template.jinja")
        .map(|(_, text)| text.as_bytes());
    let more: Vec<(String, Vec<u8>)> = templates
        .iter()
        .filter(|(name, _)| *name != "chat_template.jinja")
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
        .collect();
    Tokenizer::from_hf(HfFiles {
        tokenizer_json: Some(tokenizer.as_bytes()),
        tokenizer_config: config.as_deref().map(str::as_bytes),
        special_tokens_map: map.as_deref().map(str::as_bytes),
        generation_config: generation.as_deref().map(str::as_bytes),
        config: model.as_deref().map(str::as_bytes),
        chat_template: own,
        additional_templates: &more,
        chat_template_json: old.as_deref().map(str::as_bytes),
        ..HfFiles::default()
    })
}

#[test]
fn a_folders_chat_is_what_its_template_writes() {
    // As `apply_chat_template(tokenize=True)` of Transformers: neither the class nor the post-processor adds anything.
    let config =
        json!({"bos_token": "<s>", "add_bos_token": true, "tokenizer_class": "LlamaTokenizer"});
    let tokenizer = from_hf(&["<s>"], &[("tokenizer_config.json", config)], &[]).unwrap();
    assert_eq!(tokenizer.encode_prompt("h", true).unwrap(), [256, 104]);
    assert_eq!(tokenizer.encode_chat("h").unwrap(), [104]);
    assert_eq!(tokenizer.encode_chat("<s>h").unwrap(), [256, 104]);
    assert_eq!(tokenizer.encode_prompt("<s>h", true).unwrap(), [256, 104]);
}

/// What a conversation becomes without tools, with an empty list of them, and with one.
fn rendered(tokenizer: &Tokenizer) -> [Option<String>; 3] {
    let (messages, none, one) = (
        hello(),
        json!([]),
        json!([{"type": "function", "function": {"name": "f"}}]),
    );
    [None, Some(&none), Some(&one)].map(|tools| {
        apply_chat_template(
            tokenizer,
            &Chat {
                tools,
                ..chat(&messages, None)
            },
        )
        .ok()
    })
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn templates_come_from_where_transformers_takes_them() {
    let config =
        |template: Value| vec![("tokenizer_config.json", json!({"chat_template": template}))];
    let old = |template: Value| ("chat_template.json", json!({"chat_template": template}));
    let list = json!([{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]);
    let jinja = [("chat_template.jinja", "J")];
    let with_tools = [
        ("chat_template.jinja", "J"),
        ("rag", "R"),
        ("tool_use", "A"),
    ];
    let some = |texts: [&str; 3]| texts.map(|text| Some(text.to_owned()));
    let cases = [
        (
            "config",
            from_hf(&[], &config("C".into()), &[]),
            some(["C", "C", "C"]),
        ),
        (
            "list",
            from_hf(&[], &config(list.clone()), &[]),
            some(["D", "T", "T"]),
        ),
        (
            "mapping",
            from_hf(&[], &config(json!({"tool_use": "T", "default": "D"})), &[]),
            some(["D", "T", "T"]),
        ),
        (
            "file wins",
            from_hf(&[], &config(list.clone()), &jinja),
            some(["J", "J", "J"]),
        ),
        (
            "folder",
            from_hf(&[], &[], &with_tools),
            some(["J", "A", "A"]),
        ),
        (
            "folder wins",
            from_hf(&[], &config(list.clone()), &with_tools),
            some(["J", "A", "A"]),
        ),
        // Transformers drops the templates of the config for those of the folder, though there be no default.
        (
            "no default",
            from_hf(&[], &config("C".into()), &[("tool_use", "A")]),
            [None, Some("A".into()), Some("A".into())],
        ),
        (
            "default by name",
            from_hf(&[], &[], &[("default", "F"), ("chat_template.jinja", "J")]),
            some(["F", "F", "F"]),
        ),
        (
            "old file",
            from_hf(&[], &[old("O".into())], &[]),
            some(["O", "O", "O"]),
        ),
        (
            "old file, list",
            from_hf(&[], &[old(list)], &[]),
            some(["D", "T", "T"]),
        ),
        (
            "config before old file",
            from_hf(&[], &[config("C".into()).remove(0), old("O".into())], &[]),
            some(["C", "C", "C"]),
        ),
    ];
    for (what, tokenizer, want) in cases {
        let tokenizer = tokenizer.unwrap();
        assert_eq!(rendered(&tokenizer), want, "{what}");
        assert!(tokenizer.warnings().is_empty(), "{what}");
    }
    let broken = from_hf(
        &[],
        &config(json!([{"name": "default", "template": "D"}, {"name": "tool_use"}, 7])),
        &[],
    )
    .unwrap();
    assert_eq!(rendered(&broken), some(["D", "D", "D"]));
    let warnings = broken.warnings().to_vec();
    assert!(
        warnings.len() == 2
            && warnings
                .iter()
                .all(|w| w.starts_with("tokenizer_config.json: ")),
        "{warnings:?}"
    );
}

#[test]
fn a_gguf_names_templates_by_keys() {
    let file = model()
        .meta("tokenizer.chat_template", "D")
        .meta("tokenizer.chat_template.tool_use", "T")
        .meta("tokenizer.chat_template.rag", "R{{ unk_token }}")
        .meta("tokenizer.chat_template.odd", 7_u32)
        .meta(
            "tokenizer.chat_templates",
            strings(["tool_use", "rag", "odd"]),
        )
        .meta("tokenizer.ggml.unknown_token_id", 0_u32);
    let tokenizer = gguf_tokenizer(&file);
    assert_eq!(
        rendered(&tokenizer),
        ["D", "T", "T"].map(|text| Some(text.to_owned()))
    );
    let warnings = tokenizer.warnings().to_vec();
    assert!(
        warnings.len() == 1 && warnings[0].contains("tokenizer.chat_template.odd"),
        "{warnings:?}"
    );
    let messages = hello();
    let by = |template| {
        apply_chat_template(
            &tokenizer,
            &Chat {
                template: Some(template),
                ..chat(&messages, None)
            },
        )
    };
    assert_eq!(by("rag").unwrap(), "R<unk>");
    assert_eq!(
        by("{{ messages[0].content }}{{ eos_token }}").unwrap(),
        "hello</s>"
    );
    let error = by("tool_us").unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidInput && error.to_string().contains("tool_use"),
        "{error}"
    );
}

#[test]
fn a_folders_named_templates_are_found_by_every_way_in() {
    let folder = scratch("named");
    std::fs::create_dir_all(folder.join("additional_chat_templates")).unwrap();
    let tokenizer = tokenizer_json(&[]);
    let tools = write(
        "tools.json",
        json!([{"type": "function", "function": {"name": "f"}}]).to_string(),
    );
    let messages = write("named.json", hello().to_string());
    let files = [
        ("tokenizer.json", tokenizer.as_str()),
        ("chat_template.jinja", "D"),
        (
            "additional_chat_templates/tool_use.jinja",
            "T{{ tools|length }}",
        ),
        ("additional_chat_templates/rag.jinja", "R"),
        ("additional_chat_templates/notes.txt", "no template"),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let model = folder.to_str().unwrap();
    let template = ["template", model, "--messages", &messages];
    assert_eq!(result(&template).0["text"], "D");
    assert_eq!(
        result(&[&template[..], &["--tools", &tools]].concat()).0["text"],
        "T1"
    );
    assert_eq!(
        result(
            &[
                &template[..],
                &["--tools", &tools, "--chat-template", "rag"]
            ]
            .concat()
        )
        .0["text"],
        "R"
    );

    // As the browser brings them: a list of sources.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf/yarn");
    let read = |name: &str| std::fs::read(data.join(name)).unwrap();
    let mut sources: Vec<Rc<dyn ByteSource>> = vec![
        Rc::new(MemorySource::new("config.json", read("config.json"))),
        Rc::new(MemorySource::new(
            "model.safetensors",
            read("model.safetensors"),
        )),
    ];
    sources.extend(
        files.map(|(name, text)| {
            Rc::new(MemorySource::new(name, text.as_bytes().to_vec())) as Rc<_>
        }),
    );
    let opened = block_on(Opened::from_sources(sources, None)).unwrap();
    assert_eq!(
        rendered(&opened.tokenizer.unwrap()),
        ["D", "T0", "T1"].map(|text| Some(text.to_owned()))
    );
}

#[test]
fn special_tokens_are_variables_by_their_names() {
    let all = "{{ bos_token }} {{ eos_token }} {{ pad_token }} {{ image_token }} {{ boi_token }} {{ add_bos_token is defined }}";
    let text = |files: &[(&str, Value)]| {
        let tokenizer = from_hf(
            &["<s>", "</s>", "<img>", "<boi>"],
            files,
            &[("chat_template.jinja", all)],
        )
        .unwrap();
        apply_chat_template(&tokenizer, &chat(&hello(), None)).unwrap()
    };
    let named = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "image_token": "<img>", "add_bos_token": true});
    let config = |more: Value| {
        let mut config = named.clone();
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        ("tokenizer_config.json", config)
    };
    assert_eq!(text(&[config(json!({}))]), "<s> </s>  <img>  False");
    assert_eq!(
        text(&[config(
            json!({"extra_special_tokens": {"boi_token": "<boi>", "image_token": "<s>"}})
        )]),
        "<s> </s>  <s> <boi> False"
    );
    assert_eq!(
        text(&[config(json!({"extra_special_tokens": ["<boi>"]}))]),
        "<s> </s>  <img>  False"
    );
    // The older file counts unless the newer one lists its tokens.
    let map = (
        "special_tokens_map.json",
        json!({"pad_token": "<img>", "eos_token": "<boi>"}),
    );
    assert_eq!(
        text(&[config(json!({})), map.clone()]),
        "<s> <boi> <img> <img>  False"
    );
    assert_eq!(
        text(&[config(json!({"added_tokens_decoder": {}})), map]),
        "<s> </s>  <img>  False"
    );
}

/// A token that another file calls special is one, and is taken whole from what a template wrote.
#[test]
fn what_is_called_special_is_special() {
    let config = json!({"bos_token": "<0x41>", "extra_special_tokens": ["<0x42>"]});
    let tokenizer = from_hf(&[], &[("tokenizer_config.json", config)], &[]).unwrap();
    assert_eq!(
        tokenizer.encode_chat("<0x41>h<0x42><0x43>").unwrap()[..3],
        [0x41, 104, 0x42]
    );
    assert!(tokenizer.is_special(0x42) && !tokenizer.is_special(0x43));
    assert_eq!(tokenizer.decode(&[0x41, 104, 0x42], true).unwrap(), "h");
}

#[test]
fn a_template_has_variables_of_its_own() {
    let template = "{{ enable_thinking is defined }} {{ enable_thinking }} {{ bos_token }} {{ add_generation_prompt }} {{ tools }}";
    let file = model().meta("tokenizer.chat_template", template);
    let tokenizer = gguf_tokenizer(&file);
    let messages = hello();
    let text = |kwargs: Value| {
        let kwargs = kwargs.as_object().unwrap().clone();
        apply_chat_template(&tokenizer, &chat(&messages, Some(&kwargs)))
    };
    assert_eq!(text(json!({})).unwrap(), "False  <s> True None");
    assert_eq!(
        text(json!({"enable_thinking": false})).unwrap(),
        "True False <s> True None"
    );
    assert_eq!(
        text(json!({"enable_thinking": null})).unwrap(),
        "True None <s> True None"
    );
    assert_eq!(
        text(json!({"bos_token": "B", "add_generation_prompt": false, "tools": [1, 2]})).unwrap(),
        "False  B False [1, 2]"
    );
    for name in [
        "messages",
        "chat_template",
        "tokenize",
        "continue_final_message",
    ] {
        let error = text(json!({name: 1})).unwrap_err();
        assert!(
            error.kind() == ErrorKind::InvalidInput && error.to_string().contains(name),
            "{error}"
        );
    }
    let (path, messages) = (
        write("kwargs.gguf", file.build()),
        write("kwargs.json", messages.to_string()),
    );
    let kwargs = [
        "--messages",
        &messages,
        "--chat-template-kwargs",
        r#"{"enable_thinking": "x"}"#,
    ];
    assert_eq!(
        result(&[&["template", &path], &kwargs[..]].concat()).0["text"],
        "True x <s> False None"
    );
    let more = ["--max-new-tokens", "1", "--backend", "reference"];
    let generated = result(&[&["generate", &path], &kwargs[..], &more[..]].concat()).0;
    // BOS: in front, and where the template writes it.
    assert_eq!(
        generated["usage"]["prompt_tokens"],
        1 + "True x ".len() + 1 + " True None".len()
    );
    for bad in ["[1]", "{", "7"] {
        let output = run(
            &[
                "template",
                &path,
                "--messages",
                &messages,
                "--chat-template-kwargs",
                bad,
            ],
            "UTC0",
        );
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && words.contains("--chat-template-kwargs"),
            "{words}"
        );
    }
}

#[test]
fn ids_beyond_the_vocabulary_are_warnings() {
    let keys = [
        "bos_token_id",
        "eos_token_id",
        "eot_token_id",
        "eom_token_id",
        "unknown_token_id",
        "padding_token_id",
    ];
    let plain = gguf_tokenizer(&model());
    for key in keys.map(|key| format!("tokenizer.ggml.{key}")) {
        let beyond = VOCAB as u32;
        let files = [
            model().meta(&key, beyond),
            model().meta(&key, 1_u64 << 40),
            model().meta(&key, -7_i32),
            model().meta(&key, "x"),
        ];
        for file in files {
            let tokenizer = gguf_tokenizer(&file);
            let warnings = tokenizer.warnings().to_vec();
            assert!(
                warnings.len() == 1 && warnings[0].contains(&key),
                "{key}: {warnings:?}"
            );
            // What is usual for such a vocabulary counts.
            assert_eq!(
                (tokenizer.bos(), tokenizer.eos()),
                (Some(BOS), Some(EOS)),
                "{key}"
            );
            assert_eq!(tokenizer.end_ids(), plain.end_ids());
        }
        // Some writers put this for none.
        for file in [model().meta(&key, u32::MAX), model().meta(&key, -1_i32)] {
            assert!(gguf_tokenizer(&file).warnings().is_empty(), "{key}");
        }
    }
    let list =
        gguf_tokenizer(&model().meta("tokenizer.ggml.eos_token_ids", vec![byte("h"), 99_999]));
    assert!(list.end_ids().contains(&byte("h")) && list.warnings().to_vec()[0].contains("99999"));

    let file = model().meta("tokenizer.ggml.eos_token_id", 32_000_u32);
    let path = write("beyond.gguf", file.build());
    let (info, warnings) = result(&["inspect", &path]);
    assert_eq!(info["warnings"], json!(warnings));
    let what = "chat-beyond.gguf: tokenizer.ggml.eos_token_id is 32000, which is none of the 262 tokens; it is ignored";
    assert_eq!(warnings, [what]);
    assert_eq!(
        result(&["tokenize", &path, "--text", "h"]),
        (json!({"ids": [byte("h")]}), warnings.clone())
    );
    let opened = block_on(Opened::from_sources(file.sources(), None)).unwrap();
    assert_eq!(opened.warnings.to_vec().len(), 1);
}

#[test]
fn ends_beyond_the_vocabulary_are_warnings() {
    let ends = |files: &[(&str, Value)]| {
        let tokenizer = from_hf(&["<s>", "</s>", "<|x|>"], files, &[]).unwrap();
        (tokenizer.end_ids().to_vec(), tokenizer.warnings().to_vec())
    };
    let config = (
        "tokenizer_config.json",
        json!({"bos_token": "<s>", "eos_token": "</s>"}),
    );
    let generation = |ids: Value| ("generation_config.json", json!({"eos_token_id": ids}));
    let (ids, warnings) = ends(&[config.clone(), generation(json!([258, 9999, -2, "x"]))]);
    assert_eq!(ids, [257, 258]);
    let names = warnings
        .iter()
        .all(|w| w.starts_with("generation_config.json: eos_token_id"));
    assert!(warnings.len() == 3 && names, "{warnings:?}");
    // Where none is left, what else the files say counts.
    let (ids, warnings) = ends(&[
        config.clone(),
        generation(json!(9999)),
        ("config.json", json!({"eos_token_id": 258})),
    ]);
    assert_eq!((ids, warnings.len()), (vec![257, 258], 1));
    // A row of the table without a text is a token that a model may write.
    let rows = ("config.json", json!({"vocab_size": 300}));
    assert_eq!(
        ends(&[config.clone(), generation(json!([299, 257])), rows]),
        (vec![257, 299], vec![])
    );
    assert_eq!(
        ends(&[config, generation(Value::Null)]),
        (vec![257], vec![])
    );
}

#[test]
fn special_texts_that_are_no_tokens_are_warnings() {
    let config = json!({"bos_token": "<bos>", "eos_token": "</s>", "pad_token": "[PAD]", "extra_special_tokens": {"image_token": "<i>"}});
    let file = ("tokenizer_config.json", config);
    let tokenizer = from_hf(
        &["</s>"],
        &[file],
        &[("chat_template.jinja", "{{ bos_token }}")],
    )
    .unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(256)));
    let warnings = tokenizer.warnings().to_vec();
    for (key, text) in [
        ("bos_token", "<bos>"),
        ("pad_token", "[PAD]"),
        ("image_token", "<i>"),
    ] {
        let start = format!("tokenizer_config.json: {key} is {text:?}, ");
        assert_eq!(
            warnings.iter().filter(|w| w.starts_with(&start)).count(),
            1,
            "{key}: {warnings:?}"
        );
    }
    assert_eq!(warnings.len(), 3);
    // Templates see the text all the same.
    assert_eq!(
        apply_chat_template(&tokenizer, &chat(&hello(), None)).unwrap(),
        "<bos>"
    );
}

#[test]
fn a_stop_text_may_spell_special_tokens() {
    let path = write("stop.gguf", model().build());
    let generate = |allowed: &str, stop: &[&str]| {
        let mut args = vec![
            "generate",
            &path,
            "--ids",
            "104,105",
            "--max-new-tokens",
            "4",
            "--ignore-eos",
        ];
        args.extend(["--backend", "reference", "--allowed-tokens", allowed]);
        stop.iter().for_each(|stop| args.extend(["--stop", stop]));
        let generation = result(&args).0["sequences"][0].clone();
        (
            generation["text"].clone(),
            generation["ids"].as_array().unwrap().len(),
            generation["finish_reason"].clone(),
        )
    };
    let start = IM_START.to_string();
    assert_eq!(generate(&start, &[]), ("".into(), 4, "length".into()));
    assert_eq!(
        generate(&start, &["<|im_start|>"]),
        ("".into(), 1, "stop".into())
    );
    assert_eq!(
        generate(&start, &["<|im_start|><|im_start|><|im"]),
        ("".into(), 3, "stop".into())
    );
    assert_eq!(
        generate(&start, &["<|im_end|>", "x"]),
        ("".into(), 4, "length".into())
    );
    assert_eq!(
        generate(&byte("h").to_string(), &["hh<|im_start|>"]),
        ("hhhh".into(), 4, "length".into())
    );
}
