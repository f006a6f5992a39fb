//! Text to token ids and back, and conversations to text.
//!
//! A [`Tokenizer`] is read from a GGUF's metadata or from Hugging Face's files, never changes afterwards, and is
//! cheap to clone. Ids are those of the model's own tokenizer, exactly: llama.cpp for a GGUF, `tokenizers` for a
//! `tokenizer.json`, sentencepiece for a `tokenizer.model`. Nothing here knows tensors, the engine, or JavaScript.
//!
//! Byte-level and SentencePiece BPE are our own ([`bpe`], [`spm`], over one loop in [`merge`]): a GGUF's 49,000
//! tokens then load in milliseconds within a few MiB. A `tokenizer.json` may hold any pipeline, so it goes
//! through the `tokenizers` crate.

mod bpe;
mod byte_level;
mod end_tokens;
mod gguf;
mod hf;
mod hf_folder;
mod merge;
mod pre_tokenizers;
mod sentencepiece;
mod special;
mod spm;
mod stream;
mod vocabulary;

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{Error, Result};
pub use crate::template::{ChatTemplate, DateTime, TemplateInput};
use bpe::Bpe;
pub use hf::HfFiles;
pub use hf_folder::HfFolder;
use special::{Fragment, SpecialTokens};
use spm::Spm;
pub use stream::DecodeStream;
use stream::{Leading, Spelling};
use vocabulary::{Kind, Vocabulary};

/// Longest text in bytes: positions in it are 32-bit.
const MAX_TEXT: usize = u32::MAX as usize / 4;

/// How to encode.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put BOS before and EOS after the text where the model wants them.
    pub add_special: bool,
    /// Recognise special tokens (`<|im_start|>`) that are spelled out in the text. For text that a chat template
    /// made; never for a user's own text, which could otherwise speak as the system.
    pub parse_special: bool,
}

/// A model's tokenizer. Clones share one vocabulary.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

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
    end_ids: Vec<u32>,
    chat_template: Option<ChatTemplate>,
}

impl Tokenizer {
    /// The ids of `text`.
    ///
    /// # Errors
    /// `InvalidInput` for text that cannot be encoded: over a gigabyte, a million spaces in a row, a character
    /// that a vocabulary without byte tokens lacks.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return Err(Error::invalid_input(format!("the text has {} bytes; split it", text.len())));
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
                for (i, fragment) in special.split(vocabulary, text, options.parse_special).into_iter().enumerate() {
                    match fragment {
                        Fragment::Token(id) => ids.push(id),
                        Fragment::Text(range) => spm.encode(vocabulary, &text[range], i == 0, &mut ids)?,
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

    fn leading(&self) -> Leading {
        self.0.leading
    }
}
