//! Byte-level BPE (GPT-2, LLaMA 3, SmolLM): words, spelled byte by byte, joined by ranked merge rules.

use std::collections::HashMap;

use super::byte_level;
use super::merge::{Merger, NO_TOKEN};
use super::pre_tokenizers::{PreTokenizer, check_white_space};
use super::vocabulary::{Kind, Vocabulary};
use crate::error::{Error, Result};

/// Merge rules and the pre-tokenizer.
pub(super) struct Bpe {
    pre_tokenizer: PreTokenizer,
    /// (left, right) → (rank, what they make). Four numbers a rule: 280,000 rules take 10 MiB.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// The token of each single byte, or [`NO_TOKEN`].
    bytes: Box<[u32; 256]>,
}

impl Bpe {
    /// Rules are `"left right"`, best first, of texts in `vocabulary`.
    ///
    /// # Errors
    /// `InvalidFile` for a rule that is no such pair.
    pub(super) fn new<'a>(
        vocabulary: &Vocabulary,
        rules: impl ExactSizeIterator<Item = &'a str>,
        pre_tokenizer: PreTokenizer,
    ) -> Result<Bpe> {
        let mut merges = HashMap::with_capacity(rules.len());
        let mut joined = String::new();
        for (rank, rule) in rules.enumerate() {
            let bad = |why: &str| Error::invalid_file(format!("merge rule {rank} of the tokenizer, {rule:?}, {why}"));
            // A part may itself begin with a space in no vocabulary that is spelled byte-level.
            let (left, right) = rule.split_once(' ').ok_or_else(|| bad("is not two texts with a space between"))?;
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let id = |text: &str| vocabulary.id(text).ok_or_else(|| bad(&format!("needs {text:?}, which is no token")));
            // A rule that is there twice keeps its better rank.
            merges.entry((id(left)?, id(right)?)).or_insert((rank as u32, id(&joined)?));
        }
        let mut bytes = Box::new([NO_TOKEN; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            let spelled = byte_level::char_of(byte as u8);
            *id = vocabulary.id(spelled.encode_utf8(&mut [0; 4])).unwrap_or(NO_TOKEN);
        }
        Ok(Bpe { pre_tokenizer, merges, bytes })
    }

    /// Appends the ids of ordinary text. A byte for which the vocabulary has no token is left out, as
    /// `tokenizers` and llama.cpp do (SmolLM2 lacks some control characters).
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        check_white_space(text)?;
        let mut merger = Merger::default();
        let mut spelled = String::new();
        for word in self.pre_tokenizer.split(text) {
            let word = &text.as_bytes()[word];
            if self.pre_tokenizer.ignore_merges {
                spelled.clear();
                spelled.extend(word.iter().map(|&byte| byte_level::char_of(byte)));
                let whole = vocabulary.id(&spelled);
                if let Some(id) = whole.filter(|&id| matches!(vocabulary.kind(id), Kind::Normal | Kind::UserDefined)) {
                    ids.push(id);
                    continue;
                }
            }
            merger.clear();
            for &byte in word {
                merger.push(1, self.bytes[byte as usize]);
            }
            let symbols = merger.run(|left, right| self.merges.get(&(left.token, right.token)).copied());
            ids.extend(symbols.map(|symbol| symbol.token).filter(|&token| token != NO_TOKEN));
        }
        Ok(())
    }
}
