//! Text to token ids and back, and conversations to text.
//!
//! A [`Tokenizer`] is read from a GGUF's metadata or from Hugging Face's files, never changes afterwards, and is
//! cheap to clone. Ids are those of the model's own tokenizer, exactly: llama.cpp for a GGUF, `tokenizers` for a
//! `tokenizer.json`, sentencepiece for a `tokenizer.model`. Nothing here knows tensors, the engine, or JavaScript.
//!
//! Byte-level and SentencePiece BPE are our own (`bpe`, `spm`, over one loop in `merge`): a GGUF's 49,000
//! tokens then load in milliseconds within a few MiB. A `tokenizer.json` may hold any pipeline, so it goes
//! through the `tokenizers` crate.

mod bpe;
mod byte_level;
mod end_tokens;
mod gguf;
pub(crate) mod hf;
mod hf_folder;
mod merge;
mod pattern;
mod pre_tokenizers;
mod sentencepiece;
mod special;
mod spm;
mod stream;
mod tiktoken;
mod vocabulary;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, Warnings};
pub use crate::template::{ChatTemplate, DateTime, TemplateInput};
use bpe::Bpe;
pub use hf::HfFiles;
#[cfg(not(feature = "tokenizer-json"))]
pub use hf::remote;
pub use hf_folder::HfFolder;
use special::{Fragment, SpecialTokens};
use spm::Spm;
pub use stream::DecodeStream;
use stream::{Leading, Spelling};
use vocabulary::{Kind, Vocabulary};

/// Longest text in bytes: positions in it are 32-bit.
const MAX_TEXT: usize = u32::MAX as usize / 4;

/// How to encode.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct EncodeOptions {
    /// Put BOS before and EOS after the text where the model wants them; default false.
    #[cfg_attr(test, ts(as = "Option<_>", optional))]
    pub add_special: bool,
    /// Recognise special tokens (`<|im_start|>`) that are spelled out in the text. For text that a chat template
    /// made; never for a user's own text, which could otherwise speak as the system. Default false.
    #[cfg_attr(test, ts(as = "Option<_>", optional))]
    pub parse_special: bool,
}

/// A model's tokenizer. Clones share one vocabulary.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

/// What turns text into ids.
enum Encoder {
    Bpe(SpecialTokens, Bpe),
    Spm(SpecialTokens, Spm),
    Pipeline(Box<hf::Pipeline>),
}

struct Inner {
    vocabulary: Vocabulary,
    encoder: Encoder,
    spelling: Spelling,
    leading: Leading,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    /// Whether a conversation gets a BOS that its template did not write, see [`Tokenizer::encode_chat`].
    chat_bos: bool,
    end_ids: Vec<u32>,
    chat_template: Option<ChatTemplate>,
    warnings: Warnings,
}

impl Tokenizer {
    /// The ids of `text`.
    ///
    /// # Errors
    /// `InvalidInput` for text that cannot be encoded: over a gigabyte, a million spaces in a row (by a `tokenizer.json`), a
    /// character that a vocabulary without byte tokens lacks.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return Err(Error::invalid_input(format!(
                "the text has {} bytes; split it",
                text.len()
            )));
        }
        let inner = &*self.0;
        let vocabulary = &inner.vocabulary;
        let mut ids = Vec::new();
        if options.add_special && inner.add_bos {
            ids.extend(inner.bos);
        }
        match &inner.encoder {
            Encoder::Bpe(special, bpe) => {
                for fragment in special.split(vocabulary, text, options.parse_special) {
                    match fragment {
                        Fragment::Token(id) => ids.push(id),
                        Fragment::Text(range) => bpe.encode(vocabulary, &text[range], &mut ids)?,
                    }
                }
            }
            Encoder::Spm(special, spm) => {
                for (i, fragment) in special
                    .split(vocabulary, text, options.parse_special)
                    .into_iter()
                    .enumerate()
                {
                    match fragment {
                        Fragment::Token(id) => ids.push(id),
                        Fragment::Text(range) => {
                            spm.encode(vocabulary, &text[range], i == 0, &mut ids)?;
                        }
                    }
                }
            }
            Encoder::Pipeline(pipeline) => {
                pipeline.encode(text, options.parse_special, options.add_special, &mut ids)?;
            }
        }
        if options.add_special && inner.add_eos {
            ids.extend(inner.eos);
        }
        Ok(ids)
    }

    /// The ids of a conversation that a chat template has written, in which special tokens are spelled out. EOS is never
    /// put behind it: an answer is to follow.
    ///
    /// Of a GGUF, whose metadata may ask for BOS (`tokenizer.ggml.add_bos_token`, or what is usual for the kind of
    /// vocabulary), a conversation begins with BOS exactly once: it is added unless the template wrote it, as in llama.cpp;
    /// those who make GGUFs take BOS out of templates for that reason. Of a Hugging Face folder, ids are what the template
    /// wrote and nothing else, whatever `add_bos_token` or a post-processor say: these are for plain text, and
    /// `apply_chat_template(tokenize=True)` of Transformers, for which such templates are written, leaves both aside.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        let encode = |text| {
            self.encode(
                text,
                EncodeOptions {
                    add_special: false,
                    parse_special: true,
                },
            )
        };
        let Some((bos, spelled)) = self.spelled_bos().filter(|_| self.0.chat_bos) else {
            return encode(text);
        };
        let rest = match text.strip_prefix(spelled) {
            Some(rest) => rest,
            // Some templates begin with an empty line before BOS.
            None if text.trim_start().starts_with(spelled) => return encode(text),
            None => text,
        };
        let mut ids = vec![bos];
        ids.extend(encode(rest)?);
        Ok(ids)
    }

    /// The ids of a text to go on with, in which special tokens are not recognised. `add_special`: with BOS where the model
    /// wants it; a text that itself begins with BOS, spelled out, then has one and not two.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encode = |text| {
            self.encode(
                text,
                EncodeOptions {
                    add_special,
                    parse_special: false,
                },
            )
        };
        if let Some((bos, spelled)) = self.spelled_bos().filter(|_| add_special)
            && let Some(rest) = text.strip_prefix(spelled)
        {
            let ids = encode(rest)?;
            if ids.first() == Some(&bos) {
                return Ok(ids);
            }
        }
        encode(text)
    }

    /// BOS and its text, if it has one.
    fn spelled_bos(&self) -> Option<(u32, &str)> {
        let bos = self.0.bos?;
        self.token_text(bos)
            .filter(|text| !text.is_empty())
            .map(|text| (bos, text))
    }

    /// The text of `ids`. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// `InvalidInput` for an id that is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut stream = self.stream(skip_special);
        let mut text = String::new();
        for &id in ids {
            text.push_str(&stream.push(id)?);
        }
        text.push_str(&stream.finish());
        Ok(text)
    }

    /// A decoder for ids that come one at a time.
    pub fn stream(&self, skip_special: bool) -> DecodeStream {
        DecodeStream::new(self, skip_special)
    }

    /// The bytes that a token stands for (`b" world"`), `None` beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        stream::token_bytes(&self.0.vocabulary, self.0.spelling, id)
    }

    /// A token's text as the vocabulary spells it (`"Ġworld"`).
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.0.vocabulary.text(id)
    }

    /// The token that the vocabulary spells so.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.0.vocabulary.id(text)
    }

    /// Number of ids.
    pub fn vocab_size(&self) -> usize {
        self.0.vocabulary.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.0.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.0.eos
    }

    /// Every token at which generation stops: end of text, of turn, of message.
    pub fn end_ids(&self) -> &[u32] {
        &self.0.end_ids
    }

    /// Whether `skip_special` leaves this token out.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.0.vocabulary.kind(id), Kind::Control | Kind::Unknown)
    }

    /// The model's own chat template.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.0.chat_template.as_ref()
    }

    /// What was wrong with the files and was left out.
    pub fn warnings(&self) -> &Warnings {
        &self.0.warnings
    }

    fn leading(&self) -> Leading {
        self.0.leading
    }
}
