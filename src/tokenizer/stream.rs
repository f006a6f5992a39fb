//! Ids back to text, one at a time: whole characters only, and the same text as decoding all at once.

use std::borrow::Cow;

use super::spm::{self, SPACE_MARK};
use super::vocabulary::{Kind, Vocabulary};
use super::{Tokenizer, byte_level};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a token's text spells bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Spelling {
    /// GPT-2's characters for bytes.
    ByteLevel,
    /// U+2581 for a space, `<0x0A>` for a byte.
    SentencePiece,
}

/// What is taken off the beginning of a decoded text, to undo what encoding put there.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Leading {
    /// Nothing.
    Keep,
    /// One space.
    OneSpace,
    /// Every space mark of the first token (the `Metaspace` decoder of `tokenizers`).
    MarksOfFirstToken,
}

/// The bytes that a token stands for.
pub(super) fn token_bytes(
    vocabulary: &Vocabulary,
    spelling: Spelling,
    id: u32,
) -> Option<Cow<'_, [u8]>> {
    let text = vocabulary.text(id)?;
    if let Some(raw) = vocabulary.raw(id) {
        return Some(match spelling {
            Spelling::SentencePiece => Cow::Owned(unmarked(raw)),
            Spelling::ByteLevel => Cow::Borrowed(raw),
        });
    }
    let literal = Cow::Borrowed(text.as_bytes());
    Some(match (spelling, vocabulary.kind(id)) {
        (_, Kind::Control | Kind::Unknown) | (Spelling::ByteLevel, Kind::UserDefined) => literal,
        (Spelling::ByteLevel, _) => byte_level::bytes_of(text).map_or(literal, Cow::Owned),
        (Spelling::SentencePiece, Kind::Byte) => {
            spm::byte_of(text).map_or(literal, |byte| Cow::Owned(vec![byte]))
        }
        (Spelling::SentencePiece, _) if text.contains(SPACE_MARK) => {
            Cow::Owned(text.replace(SPACE_MARK, " ").into_bytes())
        }
        (Spelling::SentencePiece, _) => literal,
    })
}

/// Spaces for marks, in bytes that are not UTF-8.
fn unmarked(raw: &[u8]) -> Vec<u8> {
    let mut mark = [0; 4];
    let mark = SPACE_MARK.encode_utf8(&mut mark).as_bytes();
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        match rest.strip_prefix(mark) {
            Some(after) => {
                bytes.push(b' ');
                rest = after;
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

/// Decodes ids one at a time; made by [`Tokenizer::stream`].
///
/// Pieces joined together are exactly what [`Tokenizer::decode`] gives for all ids at once: a character whose
/// bytes are spread over several tokens comes with the last of them, bytes that are no UTF-8 become U+FFFD, and
/// a SentencePiece text loses the space that encoding put before it.
#[derive(Clone, Debug)]
pub struct DecodeStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    leading: Leading,
    /// Bytes of a character whose end has not come yet; at most 3.
    pending: Vec<u8>,
}

impl DecodeStream {
    pub(super) fn new(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        let leading = tokenizer.leading();
        Self {
            tokenizer: tokenizer.clone(),
            skip_special,
            leading,
            pending: Vec::new(),
        }
    }

    /// For text that continues other text: a space at its beginning is meant, and stays.
    #[must_use]
    pub fn continuing(mut self) -> Self {
        self.leading = Leading::Keep;
        self
    }

    /// The text that this id completes, maybe none.
    ///
    /// # Errors
    /// `InvalidInput` for an id that is not in the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let bytes = self.tokenizer.token_bytes(id).ok_or_else(|| {
            Error::invalid_input(format!(
                "token id {id} is not in the vocabulary of {} tokens",
                self.tokenizer.vocab_size()
            ))
        })?;
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        match std::mem::replace(&mut self.leading, Leading::Keep) {
            // The beginning has not come yet.
            leading if bytes.is_empty() => self.leading = leading,
            Leading::Keep => self.pending.extend_from_slice(&bytes),
            Leading::OneSpace => self
                .pending
                .extend_from_slice(bytes.strip_prefix(b" ").unwrap_or(&bytes)),
            Leading::MarksOfFirstToken => {
                let text = self.tokenizer.token_text(id).unwrap_or_default();
                match text.contains(SPACE_MARK) {
                    true => self
                        .pending
                        .extend_from_slice(text.replace(SPACE_MARK, "").as_bytes()),
                    false => self.pending.extend_from_slice(&bytes),
                }
            }
        }
        Ok(self.take_whole_characters())
    }

    /// The text of a special token that this decoder leaves out.
    pub fn left_out(&self, id: u32) -> Option<&str> {
        if self.skip_special && self.tokenizer.is_special(id) {
            self.tokenizer.token_text(id)
        } else {
            None
        }
    }

    /// What is left when no more ids come: U+FFFD if a character was cut off.
    pub fn finish(&mut self) -> String {
        let cut_off = !self.pending.is_empty();
        self.pending.clear();
        if cut_off {
            char::REPLACEMENT_CHARACTER.to_string()
        } else {
            String::new()
        }
    }

    fn take_whole_characters(&mut self) -> String {
        let mut text = String::with_capacity(self.pending.len());
        let mut kept = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            let end = kept + chunk.valid().len() + chunk.invalid().len();
            if chunk.invalid().is_empty() {
                kept = end;
            } else if end == self.pending.len() && is_unfinished(chunk.invalid()) {
                kept += chunk.valid().len();
            } else {
                text.push(char::REPLACEMENT_CHARACTER);
                kept = end;
            }
        }
        self.pending.drain(..kept);
        text
    }
}

/// Whether more bytes could make these a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}
