//! tiktoken's file of ranks under the name `tokenizer.model`, as Meta publishes LLaMA 3 and 4: a line for each token, with
//! its bytes in base64 and its rank, which is its id. Special tokens follow the ranks; the file does not name them.
//!
//! Names and numbers: `tokenizer.py` of meta-llama/llama3 and meta-llama/llama-models. Where a `tokenizer.json` of the
//! same model numbers the reserved tokens otherwise, the names are those of `tokenizer.json`.

use super::byte_level;
use crate::error::{Error, Result};
use crate::format::StringArray;

/// Ranks of LLaMA 4's vocabulary; LLaMA 3's has 128,000.
const LLAMA4_RANKS: usize = 200_000;
/// Ranks of LLaMA 3's vocabulary.
pub(super) const LLAMA3_RANKS: usize = 128_000;
/// Special tokens of LLaMA 3, named and reserved.
const LLAMA3_SPECIAL: usize = 256;
/// Special tokens of LLaMA 4.
const LLAMA4_SPECIAL: usize = 2048;
/// The longest token. LLaMA 3's and 4's longest are 128 spaces.
const MAX_TOKEN_BYTES: usize = 1 << 8;

/// Which names the special tokens have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// LLaMA 3 of April 2024.
    Llama3,
    /// LLaMA 3.1, 3.2 and 3.3, whose `tokenizer.model` is the same file.
    Llama31,
    Llama4,
}

impl Family {
    /// The family of a vocabulary with so many ranks. `tools`: the model is of LLaMA 3.1 or later.
    pub(super) fn of(ranks: usize, tools: bool) -> Self {
        match ranks {
            LLAMA4_RANKS => Self::Llama4,
            _ if tools => Self::Llama31,
            _ => Self::Llama3,
        }
    }

    /// The pre-tokenizer's name in a GGUF.
    pub(super) fn pre_tokenizer(self) -> &'static str {
        match self {
            Self::Llama3 | Self::Llama31 => "llama-bpe",
            Self::Llama4 => "llama4",
        }
    }

    /// The special tokens, in the order of their ids.
    pub(super) fn special_tokens(self) -> Vec<String> {
        let reserved = |prefix: &str, numbers: std::ops::RangeInclusive<usize>| -> Vec<String> {
            numbers
                .map(|number| format!("<|{prefix}reserved_special_token_{number}|>"))
                .collect()
        };
        let add = |names: &mut Vec<String>, texts: &[&str]| {
            names.extend(texts.iter().map(|text| format!("<|{text}|>")));
        };
        let mut names: Vec<String> = Vec::new();
        add(&mut names, &["begin_of_text", "end_of_text"]);
        match self {
            Self::Llama3 => {
                names.extend(reserved("", 0..=3));
                add(&mut names, &["start_header_id", "end_header_id"]);
                names.extend(reserved("", 4..=4));
                add(&mut names, &["eot_id"]);
                names.extend(reserved("", 5..=LLAMA3_SPECIAL - 6));
            }
            Self::Llama31 => {
                names.extend(reserved("", 0..=1));
                add(&mut names, &["finetune_right_pad_id"]);
                names.extend(reserved("", 2..=2));
                add(
                    &mut names,
                    &[
                        "start_header_id",
                        "end_header_id",
                        "eom_id",
                        "eot_id",
                        "python_tag",
                    ],
                );
                names.extend(reserved("", 3..=LLAMA3_SPECIAL - 9));
            }
            Self::Llama4 => {
                add(&mut names, &["fim_prefix", "fim_middle", "fim_suffix"]);
                add(
                    &mut names,
                    &["header_start", "header_end", "eom", "eot", "step"],
                );
                names.extend(reserved("text_post_train_", 0..=5));
                add(
                    &mut names,
                    &["python_start", "python_end", "finetune_right_pad"],
                );
                names.extend(reserved("text_post_train_", 6..=66));
                add(&mut names, &["image_start", "image_end"]);
                names.extend(reserved("vision_", 0..=1));
                add(&mut names, &["tile_x_separator", "tile_y_separator"]);
                names.extend(reserved("vision_", 2..=5));
                add(&mut names, &["image"]);
                names.extend(reserved("vision_", 6..=6));
                add(&mut names, &["patch"]);
                names.extend(reserved("vision_", 7..=1047));
                names.extend(reserved("reasoning_", 0..=7));
                add(
                    &mut names,
                    &["reasoning_thinking_start", "reasoning_thinking_end"],
                );
                let more = LLAMA4_SPECIAL - names.len();
                names.extend(reserved("", 0..=more - 1));
            }
        }
        names
    }
}

/// Whether a file begins with a line of ranks.
pub(super) fn is_ranks(bytes: &[u8]) -> bool {
    let end = bytes
        .iter()
        .take(2 * MAX_TOKEN_BYTES)
        .position(|&byte| byte == b'\n')
        .unwrap_or(bytes.len());
    let line = bytes.get(..end).unwrap_or_default();
    line.len() <= 2 * MAX_TOKEN_BYTES && entry(line.trim_ascii_end()).is_some()
}

/// A token's bytes and rank.
fn entry(line: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = std::str::from_utf8(line).ok()?;
    let (token, rank) = line.split_once(' ')?;
    let token = base64::decode(token)
        .ok()
        .filter(|token| (1..=MAX_TOKEN_BYTES).contains(&token.len()))?;
    let rank = if rank.bytes().all(|byte| byte.is_ascii_digit()) {
        rank.parse().ok()?
    } else {
        return None;
    };
    Some((token, rank))
}

/// The tokens in the order of their ranks, in the spelling of a byte-level vocabulary.
///
/// # Errors
/// `InvalidFile` for a line that is no token with its rank, and for ranks that are missing or there twice.
pub(super) fn read(bytes: &[u8]) -> Result<StringArray> {
    let broken = |why: String| {
        Error::invalid_file(format!(
            "tokenizer.model is broken: {why}; download it again"
        ))
    };
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            continue;
        }
        let (token, rank) = entry(line).ok_or_else(|| {
            broken(format!(
                "line {} is no token in base64 with its rank",
                number + 1
            ))
        })?;
        tokens.push((rank, token.into_iter().map(byte_level::char_of).collect()));
    }
    tokens.sort_by_key(|(rank, _)| *rank);
    let mut texts = StringArray::with_capacity(tokens.len());
    for (at, (rank, text)) in tokens.iter().enumerate() {
        if at != *rank {
            let what = if *rank < at { "there twice" } else { "missing" };
            return Err(broken(format!("rank {} is {what}", at.min(*rank))));
        }
        if !texts.push(text) {
            return Err(broken("its tokens are too long".to_owned()));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::{Family, is_ranks, read};

    #[test]
    fn special_tokens_have_the_ids_of_the_published_tokenizers() {
        let of =
            |family: Family, first: usize, id: usize| family.special_tokens()[id - first].clone();
        for (family, count) in [
            (Family::Llama3, 256),
            (Family::Llama31, 256),
            (Family::Llama4, 2048),
        ] {
            let mut names = family.special_tokens();
            assert_eq!(names.len(), count, "{family:?}");
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{family:?}: a name is there twice");
        }
        for (id, old, new) in [
            (128_000, "<|begin_of_text|>", "<|begin_of_text|>"),
            (128_001, "<|end_of_text|>", "<|end_of_text|>"),
            (
                128_004,
                "<|reserved_special_token_2|>",
                "<|finetune_right_pad_id|>",
            ),
            (
                128_005,
                "<|reserved_special_token_3|>",
                "<|reserved_special_token_2|>",
            ),
            (128_006, "<|start_header_id|>", "<|start_header_id|>"),
            (128_007, "<|end_header_id|>", "<|end_header_id|>"),
            (128_008, "<|reserved_special_token_4|>", "<|eom_id|>"),
            (128_009, "<|eot_id|>", "<|eot_id|>"),
            (128_010, "<|reserved_special_token_5|>", "<|python_tag|>"),
            (
                128_011,
                "<|reserved_special_token_6|>",
                "<|reserved_special_token_3|>",
            ),
            (
                128_255,
                "<|reserved_special_token_250|>",
                "<|reserved_special_token_247|>",
            ),
        ] {
            assert_eq!(
                (
                    of(Family::Llama3, 128_000, id),
                    of(Family::Llama31, 128_000, id)
                ),
                (old.into(), new.into())
            );
        }
        for (id, name) in [
            (200_000, "<|begin_of_text|>"),
            (200_001, "<|end_of_text|>"),
            (200_005, "<|header_start|>"),
            (200_006, "<|header_end|>"),
            (200_007, "<|eom|>"),
            (200_008, "<|eot|>"),
            (200_016, "<|python_start|>"),
            (200_018, "<|finetune_right_pad|>"),
            (200_079, "<|text_post_train_reserved_special_token_66|>"),
            (200_080, "<|image_start|>"),
            (200_090, "<|image|>"),
            (200_092, "<|patch|>"),
            (201_133, "<|vision_reserved_special_token_1047|>"),
        ] {
            assert_eq!(of(Family::Llama4, 200_000, id), name);
        }
    }

    #[test]
    fn lines_are_tokens_with_their_ranks() {
        let texts = read(b"IQ== 1\r\nIA== 0\n\n").unwrap();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["\u{120}", "!"]);
        assert!(is_ranks(b"IQ== 0\nIg== 1\n") && is_ranks(b"IQ== 0"));
        for other in [
            &b""[..],
            b"\x0a\x0e\x0a\x05<unk>",
            b"version https://git-lfs",
            b"IQ== x",
            b"{",
            b"IQ==",
            b"I 1",
        ] {
            assert!(!is_ranks(other), "{other:?}");
        }
        for (file, says) in [
            (&b"IQ== 0\nIg== 2\n"[..], "rank 1 is missing"),
            (b"IQ== 0\nIg== 0\n", "rank 0 is there twice"),
            (b"IQ== 0\nnonsense\n", "line 2"),
            (b"IQ== 0\nIg== 99999999999999999999999\n", "line 2"),
        ] {
            let error = read(file).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
