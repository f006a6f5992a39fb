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
use crate::error::{Error, Result};
use crate::format::{Metadata, Value};
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
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
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
    pub fn from_gguf(metadata: &Metadata) -> Result<Tokenizer> {
        match metadata.require_str(MODEL)? {
            "gpt2" => byte_level(metadata),
            "llama" => sentencepiece(metadata),
            other => Err(Error::unsupported(format!(
                "tokenizer model {other:?} ({MODEL}); supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)"
            ))),
        }
    }
}

fn byte_level(metadata: &Metadata) -> Result<Tokenizer> {
    let vocabulary = vocabulary(metadata)?;
    let pre = match metadata.str(PRE)? {
        Some(name) => name,
        None if vocabulary.id(LLAMA3_BOS).is_some() => "llama-bpe",
        None => "default",
    };
    let pre_tokenizer = PreTokenizer::named(pre)?;
    let add_bos = pre_tokenizer.add_bos;
    let bpe = Bpe::new(&vocabulary, metadata.require_strings(MERGES)?.iter(), pre_tokenizer)?;
    let encoder = Encoder::Bpe(SpecialTokens::of(&vocabulary), bpe);
    finish(metadata, vocabulary, encoder, Spelling::ByteLevel, Leading::Keep, add_bos)
}

fn sentencepiece(metadata: &Metadata) -> Result<Tokenizer> {
    let vocabulary = vocabulary(metadata)?;
    let scores = metadata
        .f32s(SCORES)?
        .ok_or_else(|| Error::invalid_file(format!("a SentencePiece vocabulary needs {SCORES}")))?;
    let unknown = match token_id(metadata, &vocabulary, UNKNOWN)? {
        Some(id) => Some(id),
        None => vocabulary.iter().find(|(_, _, kind)| *kind == Kind::Unknown).map(|(id, _, _)| id),
    };
    let spacing = Spacing {
        add_prefix: metadata.bool(ADD_PREFIX)?.unwrap_or(true),
        prefix_after_special: true,
        // The key `remove_extra_whitespaces` is for other kinds of vocabularies (llama.cpp).
        remove_extra: false,
    };
    let leading = if spacing.add_prefix { Leading::OneSpace } else { Leading::Keep };
    let spm = Spm::new(&vocabulary, &scores, unknown, spacing)?;
    let encoder = Encoder::Spm(SpecialTokens::of(&vocabulary), spm);
    finish(metadata, vocabulary, encoder, Spelling::SentencePiece, leading, true)
}

fn vocabulary(metadata: &Metadata) -> Result<Vocabulary> {
    let texts = metadata.require_strings(TOKENS)?.clone();
    let kinds = match metadata.i32s(TYPES)? {
        Some(numbers) => numbers.into_iter().map(Kind::from_file).collect(),
        None => texts.iter().map(guess_kind).collect(),
    };
    let mut vocabulary = Vocabulary::new(texts, kinds)?;
    mark_ends(&mut vocabulary);
    Ok(vocabulary)
}

/// The token that `key` names. Some writers put -1, that is `u32::MAX`, for none.
fn token_id(metadata: &Metadata, vocabulary: &Vocabulary, key: &str) -> Result<Option<u32>> {
    if matches!(metadata.get(key), Some(Value::U32(u32::MAX) | Value::I32(-1))) {
        return Ok(None);
    }
    metadata.u32(key)?.map(|id| vocabulary.checked(id, key)).transpose()
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
) -> Result<Tokenizer> {
    let id = |key: &str| token_id(metadata, &vocabulary, key);
    // SentencePiece files may leave out ids that are the same in all of them.
    let default = |text: &str| {
        let id = vocabulary.id(text)?;
        (spelling == Spelling::SentencePiece && vocabulary.kind(id) == Kind::Control).then_some(id)
    };
    let bos = id(BOS)?.or_else(|| default("<s>"));
    let eos = id(EOS)?.or_else(|| default("</s>"));
    let end_ids = end_ids(&vocabulary, [eos, id(EOT)?, id(EOM)?].into_iter().flatten());
    let templates = chat_templates(metadata)?;
    let chat_template = (!templates.is_empty()).then(|| {
        let text = |id: Option<u32>| id.and_then(|id| vocabulary.text(id)).unwrap_or_default();
        let special = [("bos_token", bos), ("eos_token", eos)].map(|(name, id)| (name.to_owned(), text(id).into()));
        ChatTemplate::unchecked(templates, special.into_iter().collect())
    });
    Ok(Tokenizer(Arc::new(Inner {
        encoder,
        spelling,
        leading,
        bos,
        eos,
        add_bos: metadata.bool(ADD_BOS)?.unwrap_or(add_bos),
        add_eos: metadata.bool(ADD_EOS)?.unwrap_or(false),
        end_ids,
        chat_template,
        vocabulary,
    })))
}

/// `tokenizer.chat_template`, and others by name.
fn chat_templates(metadata: &Metadata) -> Result<Vec<(String, String)>> {
    let mut templates = Vec::new();
    for key in metadata.keys().filter(|key| key.starts_with(CHAT_TEMPLATE)) {
        let name = match key[CHAT_TEMPLATE.len()..].strip_prefix('.') {
            Some(name) => name,
            None if key == CHAT_TEMPLATE => template::DEFAULT,
            None => continue,
        };
        templates.extend(metadata.str(key)?.map(|source| (name.to_owned(), source.to_owned())));
    }
    Ok(templates)
}
