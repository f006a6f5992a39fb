//! `tokenizer.json`, read into our own types. The `tokenizers` crate would read it too, but panics on some broken files,
//! and reads kinds of models that no LLaMA has. What is not listed here is refused by its name.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenizers::normalizer::SplitDelimiterBehavior;

use super::super::Added;
use crate::error::{Error, Result};
use crate::format::json_text;

/// The whole file. `version`, `truncation` and `padding` are for batches of training text, and are left aside.
#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub added_tokens: Vec<Added>,
    #[serde(default)]
    pub normalizer: Option<Normalizer>,
    #[serde(default)]
    pub pre_tokenizer: Option<PreTokenizer>,
    #[serde(default)]
    pub post_processor: Option<PostProcessor>,
    #[serde(default)]
    pub decoder: Option<Decoder>,
    pub model: Model,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum Normalizer {
    Sequence {
        normalizers: Vec<Self>,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    Strip {
        #[serde(default = "yes")]
        strip_left: bool,
        #[serde(default = "yes")]
        strip_right: bool,
    },
    StripAccents,
    Lowercase,
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum PreTokenizer {
    Sequence {
        pretokenizers: Vec<Self>,
    },
    ByteLevel {
        #[serde(default = "yes")]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: Pattern,
        behavior: SplitDelimiterBehavior,
        #[serde(default)]
        invert: bool,
    },
    Metaspace(Metaspace),
    Digits {
        #[serde(default)]
        individual_digits: bool,
    },
    Punctuation {
        #[serde(default = "isolated")]
        behavior: SplitDelimiterBehavior,
    },
    Whitespace,
    WhitespaceSplit,
    CharDelimiterSplit {
        delimiter: char,
    },
}

/// Spaces as marks. Files older than `prepend_scheme` have `add_prefix_space`.
#[derive(Clone, Deserialize)]
pub(super) struct Metaspace {
    #[serde(default = "mark")]
    pub replacement: char,
    #[serde(default)]
    pub prepend_scheme: Option<Prepend>,
    #[serde(default = "yes")]
    pub add_prefix_space: bool,
    #[serde(default = "yes")]
    pub split: bool,
}

/// Where a mark is put before text that has none.
#[derive(Copy, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Prepend {
    First,
    Never,
    Always,
}

impl Metaspace {
    pub(super) fn scheme(&self) -> Prepend {
        self.prepend_scheme.unwrap_or(if self.add_prefix_space {
            Prepend::Always
        } else {
            Prepend::Never
        })
    }
}

#[derive(Deserialize)]
pub(super) enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum PostProcessor {
    Sequence {
        processors: Vec<Self>,
    },
    /// Changes offsets only.
    ByteLevel {},
    TemplateProcessing {
        single: Vec<Piece>,
        #[serde(default)]
        special_tokens: HashMap<String, TemplateToken>,
    },
    BertProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
    RobertaProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
}

#[derive(Deserialize)]
pub(super) enum Piece {
    Sequence {},
    SpecialToken { id: String },
}

#[derive(Deserialize)]
pub(super) struct TemplateToken {
    pub ids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum Decoder {
    Sequence {
        decoders: Vec<Self>,
    },
    ByteLevel {},
    ByteFallback {},
    Fuse {},
    Metaspace(Metaspace),
    Replace {
        pattern: Pattern,
        content: String,
    },
    Strip {
        content: char,
        #[serde(default)]
        start: usize,
        #[serde(default)]
        stop: usize,
    },
}

/// `model`. All but BPE have another kind of `vocab`, which is then left empty.
#[derive(Deserialize)]
pub(super) struct Model {
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub unk_token: Option<String>,
    #[serde(default)]
    pub continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub end_of_word_suffix: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub fuse_unk: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub byte_fallback: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub ignore_merges: bool,
    pub vocab: Vocab,
    /// Only BPE has them.
    #[serde(default)]
    pub merges: Option<Merges>,
}

/// Tokens with their ids.
#[derive(Default)]
pub(super) struct Vocab(pub Vec<(String, u32)>);

/// Pairs, best first, as `"a b"` or `["a", "b"]`.
pub(super) struct Merges(pub Vec<(String, String)>);

fn yes() -> bool {
    true
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn isolated() -> SplitDelimiterBehavior {
    SplitDelimiterBehavior::Isolated
}

fn mark() -> char {
    crate::tokenizer::spm::SPACE_MARK
}

/// Reads a `tokenizer.json` whose model is BPE.
///
/// # Errors
/// `InvalidFile` if it is broken or holds steps that no LLaMA has, `Unsupported` for another model.
pub(super) fn read(bytes: &[u8]) -> Result<File> {
    let file: File = serde_json::from_slice(&json_text("tokenizer.json", bytes)?)
        .map_err(|error| Error::invalid_file(format!("tokenizer.json cannot be read: {error}")))?;
    let kind = match (&file.model.kind, &file.model.merges) {
        (Some(kind), _) => kind,
        (None, Some(_)) => "BPE",
        (None, None) => "nameless",
    };
    if kind != "BPE" {
        return Err(Error::unsupported(format!(
            "tokenizer.json holds a {kind} model; only BPE, which every LLaMA has, is supported"
        )));
    }
    if file.model.merges.is_none() {
        return Err(Error::invalid_file(
            "the model of tokenizer.json has no merge rules; get the whole file",
        ));
    }
    let affix = [
        &file.model.continuing_subword_prefix,
        &file.model.end_of_word_suffix,
    ];
    if affix.into_iter().flatten().any(|affix| !affix.is_empty()) {
        return Err(Error::unsupported(
            "tokenizer.json marks the beginnings or ends of words (continuing_subword_prefix, end_of_word_suffix), \
             which no LLaMA does and is not supported",
        ));
    }
    Ok(file)
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocab;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Vocab(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocab::default())
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Rule {
            Text(String),
            Pair((String, String)),
        }
        let rules = Vec::<Rule>::deserialize(deserializer)?;
        // Old merges files begin with a line of their version.
        let rules = rules
            .into_iter()
            .filter(|rule| !matches!(rule, Rule::Text(text) if text.starts_with("#version")));
        let pairs = rules.map(|rule| match rule {
            Rule::Pair(pair) => Ok(pair),
            Rule::Text(text) => match text.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(serde::de::Error::custom(format!(
                    "the merge rule {text:?} is not two texts"
                ))),
            },
        });
        pairs.collect::<Result<_, _>>().map(Merges)
    }
}
