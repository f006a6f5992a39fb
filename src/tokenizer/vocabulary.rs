//! A vocabulary: every token's text and kind, looked up by id and by text.
//!
//! One long string, its cut marks and a table of ids: about 13 bytes a token beside the text, where two hash
//! maps of owned strings take 120. A browser holds a 128,000-token vocabulary in 3 MiB this way.

use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Warnings};
use crate::format::StringArray;

/// What a token is. The numbers in a file (GGUF `tokenizer.ggml.token_type`, SentencePiece's `Type`) agree.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Kind {
    /// Text, made by merging.
    Normal,
    /// Stands for whatever has no token. Its own text never comes from a user's text.
    Unknown,
    /// A mark of the model's (`<s>`, `<|im_end|>`). Never comes from a user's text.
    Control,
    /// Always taken whole, from any text.
    UserDefined,
    /// Has an id, is never produced.
    Unused,
    /// One byte (`<0x0A>`), for characters without a token.
    Byte,
}

impl Kind {
    /// The kind with this number in a file; an unknown number is text, as in llama.cpp.
    pub(super) fn from_file(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// The error for a vocabulary without tokens.
pub(super) fn empty() -> Error {
    Error::invalid_file("the tokenizer's vocabulary is empty")
}

/// No id: an empty slot of the table.
const EMPTY: u32 = u32::MAX;

/// Token texts and kinds by id, ids by text.
pub(super) struct Vocabulary {
    texts: StringArray,
    kinds: Vec<Kind>,
    /// Open addressing with linear probing, at most half full; holds ids.
    table: Vec<u32>,
    hasher: RandomState,
}

impl Vocabulary {
    /// A vocabulary of these texts; where a text occurs twice the later id is found by it (as in llama.cpp).
    ///
    /// # Errors
    /// `InvalidFile` if there is no token, or `kinds` has another length.
    pub(super) fn new(texts: StringArray, kinds: Vec<Kind>) -> Result<Self> {
        if texts.is_empty() {
            return Err(empty());
        }
        if kinds.len() != texts.len() {
            return Err(Error::invalid_file(format!(
                "the tokenizer has {} tokens but {} token types",
                texts.len(),
                kinds.len()
            )));
        }
        let table = vec![EMPTY; (texts.len() * 2).next_power_of_two()];
        let mut vocabulary = Self {
            texts,
            kinds,
            table,
            hasher: RandomState::new(),
        };
        for id in 0..vocabulary.texts.len() {
            // No text has the bytes of a token that is not UTF-8.
            if let Some(text) = vocabulary
                .texts
                .get(id)
                .filter(|_| vocabulary.texts.is_utf8(id))
            {
                let slot = vocabulary.slot(text);
                vocabulary.table[slot] = id as u32;
            }
        }
        Ok(vocabulary)
    }

    /// Where `text` is in the table, or the empty slot where it would go.
    fn slot(&self, text: &str) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = self.hasher.hash_one(text) as usize & mask;
        // Ends: half of the slots are empty.
        while self.table[slot] != EMPTY && self.texts.get(self.table[slot] as usize) != Some(text) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The id of the token with exactly this text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let id = self.table[self.slot(text)];
        (id != EMPTY).then_some(id)
    }

    /// The token's bytes as the file has them, where they are not UTF-8.
    pub(super) fn raw(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        if self.texts.is_utf8(id) {
            None
        } else {
            self.texts.bytes(id)
        }
    }

    /// The token's text as the file has it; U+FFFD stands for what is not UTF-8.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize)
    }

    /// The token's kind; `Unused` beyond the end.
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// Makes the token a control token.
    pub(super) fn make_control(&mut self, id: u32) {
        if let Some(kind) = self.kinds.get_mut(id as usize) {
            *kind = Kind::Control;
        }
    }

    /// Number of ids.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Id, text and kind of every token.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        self.texts
            .iter()
            .zip(&self.kinds)
            .enumerate()
            .map(|(id, (text, &kind))| (id as u32, text, kind))
    }

    /// `id` if it is in the vocabulary; else `None`, and a warning that names the `key` it came from.
    pub(super) fn known(&self, id: i128, key: &str, warnings: &mut Warnings) -> Option<u32> {
        let known = u32::try_from(id)
            .ok()
            .filter(|&id| (id as usize) < self.len());
        if known.is_none() {
            warnings.add(format!(
                "{key} is {id}, which is none of the {} tokens; it is ignored",
                self.len()
            ));
        }
        known
    }
}
