//! The tokenizer inside a GGUF file: keys `tokenizer.ggml.*` (ggml `docs/gguf.md`).

use std::sync::Arc;

use super::bpe::Bpe;
use super::end_tokens::{end_ids, mark_ends};
use super::pre_tokenizers::PreTokenizer;
use super::special::SpecialTokens;
use super::spm::{self, Spacing, Spm};
use super::stream::{Leading, Spelling};
use super::vocabulary::{Kind, Vocabulary};
use super::{Encoder, Inner, Tokenizer};
use crate::error::{Error, Result, Warnings};
use crate::format::Metadata;
use crate::template::{self, ChatTemplate};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
/// More ends than one, as Ollama writes them.
const EOS_LIST: &str = "tokenizer.ggml.eos_token_ids";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
/// Special tokens that only a chat template asks for, as its variables. The third is spelled as llama.cpp spells it.
const MORE_VARIABLES: [(&str, &str); 5] = [
    ("unk_token", UNKNOWN),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("cls_token", "tokenizer.ggml.cls_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// A token that only LLaMA 3 vocabularies have; some early conversions lack the name of the pre-tokenizer, and
/// the default one would cut their text wrongly.
const LLAMA3_BOS: &str = "<|begin_of_text|>";

impl Tokenizer {
    /// The tokenizer of a GGUF file: `tokenizer.ggml.model` is `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    ///
    /// # Errors
    /// `InvalidFile` for a broken vocabulary, `Unsupported` for another model or an unknown pre-tokenizer.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let mut warnings = Warnings::default();
        what_is_missing(metadata, &mut warnings)?;
        match metadata.require_str(MODEL)? {
            "gpt2" => byte_level(metadata, warnings),
            "llama" => sentencepiece(metadata, warnings),
            other => Err(Error::unsupported(format!(
                "tokenizer model {other:?} ({MODEL}); supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)"
            ))),
        }
    }
}

fn byte_level(metadata: &Metadata, warnings: Warnings) -> Result<Tokenizer> {
    let vocabulary = vocabulary(metadata)?;
    let pre = match metadata.str(PRE)? {
        Some(name) => name,
        None if vocabulary.id(LLAMA3_BOS).is_some() => "llama-bpe",
        None => "default",
    };
    let pre_tokenizer = PreTokenizer::named(pre)?;
    let add_bos = pre_tokenizer.add_bos;
    // A rule that is not UTF-8 joins nothing that text can be spelled by; an empty one keeps its rank.
    let rules = metadata.require_strings(MERGES)?;
    let rules = rules
        .iter()
        .enumerate()
        .map(|(rank, rule)| if rules.is_utf8(rank) { rule } else { "" });
    let bpe = Bpe::new(&vocabulary, rules, pre_tokenizer)?;
    let encoder = Encoder::Bpe(SpecialTokens::of(&vocabulary), bpe);
    finish(
        metadata,
        vocabulary,
        encoder,
        Spelling::ByteLevel,
        Leading::Keep,
        add_bos,
        warnings,
    )
}

fn sentencepiece(metadata: &Metadata, mut warnings: Warnings) -> Result<Tokenizer> {
    let vocabulary = vocabulary(metadata)?;
    // Without scores all are equal, as in llama.cpp.
    let scores = filled(metadata.f32s(SCORES)?).unwrap_or_else(|| vec![0.0; vocabulary.len()]);
    let unknown = match token_id(metadata, &vocabulary, UNKNOWN, &mut warnings) {
        Some(id) => Some(id),
        None => vocabulary
            .iter()
            .find(|(_, _, kind)| *kind == Kind::Unknown)
            .map(|(id, _, _)| id),
    };
    let spacing = Spacing {
        add_prefix: metadata.bool(ADD_PREFIX)?.unwrap_or(true),
        prefix_after_special: true,
        // The key `remove_extra_whitespaces` is for other kinds of vocabularies (llama.cpp).
        remove_extra: false,
    };
    let leading = if spacing.add_prefix {
        Leading::OneSpace
    } else {
        Leading::Keep
    };
    let spm = Spm::new(&vocabulary, &scores, unknown, spacing)?;
    let encoder = Encoder::Spm(SpecialTokens::of(&vocabulary), spm);
    finish(
        metadata,
        vocabulary,
        encoder,
        Spelling::SentencePiece,
        leading,
        true,
        warnings,
    )
}

fn vocabulary(metadata: &Metadata) -> Result<Vocabulary> {
    let texts = metadata.require_strings(TOKENS)?.clone();
    let kinds = match filled(metadata.i32s(TYPES)?) {
        Some(numbers) => numbers.into_iter().map(Kind::from_file).collect(),
        None => texts.iter().map(guess_kind).collect(),
    };
    let mut vocabulary = Vocabulary::new(texts, kinds)?;
    mark_ends(&mut vocabulary);
    Ok(vocabulary)
}

/// A list that holds something; some writers leave an empty one.
fn filled<T>(list: Option<Vec<T>>) -> Option<Vec<T>> {
    list.filter(|list| !list.is_empty())
}

/// What the vocabulary lacks and what stands for it.
fn what_is_missing(metadata: &Metadata, warnings: &mut Warnings) -> Result<()> {
    if filled(metadata.i32s(TYPES)?).is_none() {
        warnings.add(format!(
            "{TYPES} is missing; the kinds of tokens are told by their texts"
        ));
    }
    if metadata.str(MODEL)? == Some("llama") && filled(metadata.f32s(SCORES)?).is_none() {
        warnings.add(format!(
            "{SCORES} is missing; all tokens have the score 0, as in llama.cpp"
        ));
    }
    Ok(())
}

/// The token that `key` names. Some writers put -1, that is `u32::MAX`, for none. Anything else that is no token is a
/// warning and counts for none, as in llama.cpp: files whose EOS lies beyond the vocabulary are in use.
fn token_id(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    key: &str,
    warnings: &mut Warnings,
) -> Option<u32> {
    match metadata.i128(key) {
        Ok(None) => None,
        Ok(Some(id)) if id == -1 || id == i128::from(u32::MAX) => None,
        Ok(Some(id)) => vocabulary.known(id, key, warnings),
        Err(error) => {
            warnings.add(format!("{}; it is ignored", error.detail()));
            None
        }
    }
}

/// The tokens of a list of ids, likewise.
fn token_ids(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    key: &str,
    warnings: &mut Warnings,
) -> Vec<u32> {
    let ids = metadata.i128s(key).unwrap_or_else(|error| {
        warnings.add(format!("{}; it is ignored", error.detail()));
        None
    });
    ids.into_iter()
        .flatten()
        .filter_map(|id| vocabulary.known(id, key, warnings))
        .collect()
}

/// The kind of a token where the file gives none.
fn guess_kind(text: &str) -> Kind {
    match text {
        "<unk>" => Kind::Unknown,
        "<s>" | "</s>" => Kind::Control,
        _ if text.starts_with("<|") && text.ends_with("|>") => Kind::Control,
        _ if spm::byte_of(text).is_some() => Kind::Byte,
        _ => Kind::Normal,
    }
}

/// What both kinds have in common: BOS, EOS, ends.
fn finish(
    metadata: &Metadata,
    vocabulary: Vocabulary,
    encoder: Encoder,
    spelling: Spelling,
    leading: Leading,
    add_bos: bool,
    mut warnings: Warnings,
) -> Result<Tokenizer> {
    let mut id = |key: &str| token_id(metadata, &vocabulary, key, &mut warnings);
    // SentencePiece files may leave out ids that are the same in all of them.
    let default = |text: &str| {
        let id = vocabulary.id(text)?;
        (spelling == Spelling::SentencePiece && vocabulary.kind(id) == Kind::Control).then_some(id)
    };
    let bos = id(BOS).or_else(|| default("<s>"));
    let eos = id(EOS).or_else(|| default("</s>"));
    let named = [eos, id(EOT), id(EOM)];
    let more = MORE_VARIABLES.map(|(name, key)| (name, id(key)));
    let list = token_ids(metadata, &vocabulary, EOS_LIST, &mut warnings);
    let end_ids = end_ids(&vocabulary, named.into_iter().flatten().chain(list));
    let templates = chat_templates(metadata, &mut warnings);
    let chat_template = (!templates.is_empty()).then(|| {
        let text = |id: Option<u32>| id.and_then(|id| vocabulary.text(id));
        // Templates write these two without asking whether they are there.
        let own = [("bos_token", bos), ("eos_token", eos)]
            .map(|(name, id)| (name, Some(text(id).unwrap_or_default())));
        let more = more.map(|(name, id)| (name, text(id)));
        let special = own
            .into_iter()
            .chain(more)
            .filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
        ChatTemplate::unchecked(templates, special.collect())
    });
    let add_bos = metadata.bool(ADD_BOS)?.unwrap_or(add_bos);
    Ok(Tokenizer(Arc::new(Inner {
        encoder,
        spelling,
        leading,
        bos,
        eos,
        add_bos,
        add_eos: metadata.bool(ADD_EOS)?.unwrap_or(false),
        chat_bos: add_bos,
        end_ids,
        chat_template,
        warnings,
        vocabulary,
    })))
}

/// `tokenizer.chat_template`, and those by name: `tokenizer.chat_template.NAME`, which `tokenizer.chat_templates` lists
/// once more. One that is no text is a warning; the model is still good for text.
fn chat_templates(metadata: &Metadata, warnings: &mut Warnings) -> Vec<(String, String)> {
    let mut templates = Vec::new();
    for key in metadata.keys().filter(|key| key.starts_with(CHAT_TEMPLATE)) {
        let name = match key[CHAT_TEMPLATE.len()..].strip_prefix('.') {
            Some(name) => name,
            None if key == CHAT_TEMPLATE => template::DEFAULT,
            None => continue,
        };
        match metadata.str(key) {
            Ok(source) => {
                templates.extend(source.map(|source| (name.to_owned(), source.to_owned())));
            }
            Err(error) => warnings.add(format!("{}; it is ignored", error.detail())),
        }
    }
    templates
}
