//! What the fuzzer does with any bytes, one function per target. The same functions replay its seeds as ordinary tests.

use std::rc::Rc;

use llamero::engine::Opened;
use llamero::format::{ByteSource, Checkpoint, MemorySource, index_shards};
use llamero::tokenizer::{
    ChatTemplate, DateTime, EncodeOptions, HfFiles, TemplateInput, Tokenizer,
};
use pollster::block_on;

/// What the fuzzer runs on its bytes.
pub type Target = fn(&[u8]);

/// Every target by name; the folder of its seeds has the same name.
pub const TARGETS: &[(&str, Target)] = &[
    ("gguf", gguf),
    ("safetensors", safetensors),
    ("template", template),
    ("tokenizer_json", tokenizer_json),
    ("tokenizer_model", tokenizer_model),
];

/// Most weights that a run dequantises: the fuzzer is to look for faults, not to wait.
const MAX_WEIGHTS: u64 = 1 << 16;

fn memory(name: &str, bytes: &[u8]) -> Rc<dyn ByteSource> {
    Rc::new(MemorySource::new(name, bytes.to_vec()))
}

/// Opens the bytes as a GGUF file: tensors, vocabulary, config, plan.
pub fn gguf(bytes: &[u8]) {
    let Ok(checkpoint) = block_on(Checkpoint::open_gguf(vec![memory("fuzz.gguf", bytes)])) else {
        return;
    };
    read_all(&checkpoint);
    if let Ok(tokenizer) = Tokenizer::from_gguf(checkpoint.metadata()) {
        exercise(&tokenizer);
    }
    let _ = block_on(Opened::new(checkpoint, HfFiles::default(), None));
}

/// Opens the bytes as a safetensors file, or, where they begin with a brace, as the index and the config of one.
pub fn safetensors(bytes: &[u8]) {
    const FILE: &[u8] = b"\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  \0\0\0\0";
    if !bytes.starts_with(b"{") {
        if let Ok(checkpoint) = block_on(Checkpoint::open_safetensors(
            b"{}",
            None,
            vec![memory("fuzz", bytes)],
        )) {
            read_all(&checkpoint);
        }
        return;
    }
    // The index's tensors, and a config for a checkpoint that has none of the weights.
    let name = index_shards(bytes)
        .ok()
        .and_then(|names| names.first().cloned())
        .unwrap_or_default();
    for index in [Some(bytes), None] {
        if let Ok(checkpoint) = block_on(Checkpoint::open_safetensors(
            bytes,
            index,
            vec![memory(&name, FILE)],
        )) {
            read_all(&checkpoint);
            let _ = block_on(Opened::new(checkpoint, HfFiles::default(), None));
        }
    }
}

fn read_all(checkpoint: &Checkpoint) {
    for tensor in checkpoint
        .tensors()
        .iter()
        .filter(|tensor| tensor.elements() <= MAX_WEIGHTS)
    {
        let bytes = block_on(checkpoint.read(tensor, 0, tensor.bytes as usize)).expect("in range");
        let mut values = vec![0.0; tensor.elements() as usize];
        tensor
            .dtype
            .dequantize(&bytes, &mut values)
            .expect("whole blocks");
    }
}

/// Reads the bytes as the JSON files of a tokenizer, with a NUL between: tokenizer.json, `tokenizer_config.json`,
/// `generation_config.json`.
pub fn tokenizer_json(bytes: &[u8]) {
    let mut files = bytes.split(|byte| *byte == 0);
    let files = HfFiles {
        tokenizer_json: files.next(),
        tokenizer_config: files.next(),
        generation_config: files.next(),
        ..HfFiles::default()
    };
    if let Ok(tokenizer) = Tokenizer::from_hf(files) {
        exercise(&tokenizer);
    }
}

/// Reads the bytes as a `tokenizer.model`.
pub fn tokenizer_model(bytes: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_hf(HfFiles {
        tokenizer_model: Some(bytes),
        ..HfFiles::default()
    }) {
        exercise(&tokenizer);
    }
}

/// Encodes and decodes what is awkward. Ids are of the vocabulary, and pieces make the whole.
fn exercise(tokenizer: &Tokenizer) {
    const TEXTS: &[&str] = &[
        "",
        " Hello  world",
        "<s>a</s> b<|im_end|>\n\n",
        "naïve 世界 👩‍👩‍👧 \u{0}\u{fffd}\t12345'll",
    ];
    for text in TEXTS {
        for parse_special in [false, true] {
            let options = EncodeOptions {
                add_special: parse_special,
                parse_special,
            };
            let Ok(ids) = tokenizer.encode(text, options) else {
                continue;
            };
            assert!(
                ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()),
                "{ids:?}"
            );
            let whole = tokenizer
                .decode(&ids, parse_special)
                .expect("ids of the vocabulary");
            let mut stream = tokenizer.stream(parse_special);
            let mut pieces: String = ids
                .iter()
                .map(|id| stream.push(*id).expect("ids of the vocabulary"))
                .collect();
            pieces.push_str(&stream.finish());
            assert_eq!(pieces, whole, "{ids:?} in pieces");
        }
    }
    let ends = tokenizer.end_ids();
    assert!(
        ends.iter()
            .all(|id| (*id as usize) < tokenizer.vocab_size()),
        "{ends:?}"
    );
    if let Some(template) = tokenizer.chat_template() {
        let _ = template.render(&TemplateInput::default());
    }
}

/// Renders a conversation with the bytes as a chat template.
pub fn template(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(template) = ChatTemplate::new(source, "<s>", "</s>") else {
        return;
    };
    let messages = serde_json::json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi <there> \"you\"\n é世 "},
        {"role": "assistant", "content": null, "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.5, true, null]}}}]},
        {"role": "tool", "name": "f", "content": "{\"a\": 1}"},
    ]);
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let _ = template.render(&TemplateInput {
        messages: &messages,
        tools: Some(&tools),
        add_generation_prompt: true,
        now: DateTime::from_iso("2025-03-14T15:09:26"),
        extra: None,
    });
}
