//! Byte-level BPE (GPT-2, LLaMA 3, SmolLM): words, spelled byte by byte, joined by ranked merge rules.

use std::collections::HashMap;

use super::byte_level;
use super::merge::{Merger, NO_TOKEN};
use super::pre_tokenizers::PreTokenizer;
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
    /// Rules are `"left right"`, best first. As in llama.cpp, what they join need not be tokens, and a rule of one text
    /// only does nothing.
    ///
    /// # Errors
    /// `InvalidFile` for more rules than ids can count.
    pub(super) fn new<'a>(
        vocabulary: &Vocabulary,
        rules: impl ExactSizeIterator<Item = &'a str>,
        pre_tokenizer: PreTokenizer,
    ) -> Result<Self> {
        if vocabulary.len() + 3 * rules.len() >= NO_TOKEN as usize {
            return Err(Error::invalid_file(format!(
                "the tokenizer has {} merge rules",
                rules.len()
            )));
        }
        let mut merges = HashMap::with_capacity(rules.len());
        // Texts that are no tokens; their ids follow those of the vocabulary.
        let mut between: HashMap<String, u32> = HashMap::new();
        let mut joined = String::new();
        for (rank, rule) in rules.enumerate() {
            let first = rule.chars().next().map_or(0, char::len_utf8);
            let Some(at) = rule[first..].find(' ').map(|at| at + first) else {
                continue;
            };
            let (left, right) = (&rule[..at], &rule[at + 1..]);
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let mut id = |text: &str| {
                vocabulary.id(text).unwrap_or_else(|| {
                    let next = (vocabulary.len() + between.len()) as u32;
                    *between.entry(text.to_owned()).or_insert(next)
                })
            };
            // A rule that is there twice keeps its better rank.
            merges
                .entry((id(left), id(right)))
                .or_insert((rank as u32, id(&joined)));
        }
        let mut bytes = Box::new([NO_TOKEN; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            let spelled = byte_level::char_of(byte as u8);
            let mut buffer = [0; 4];
            let spelled = &*spelled.encode_utf8(&mut buffer);
            *id = vocabulary
                .id(spelled)
                .or(between.get(spelled).copied())
                .unwrap_or(NO_TOKEN);
        }
        Ok(Self {
            pre_tokenizer,
            merges,
            bytes,
        })
    }

    /// For a vocabulary without rules, whose first `ranks` tokens are in the order in which they were made (tiktoken's):
    /// two tokens are joined where they make one of these, and the token with the smallest id is made first.
    ///
    /// # Errors
    /// `InvalidFile` where a byte has no token.
    pub(super) fn of_ranks(
        vocabulary: &Vocabulary,
        ranks: usize,
        mut pre_tokenizer: PreTokenizer,
    ) -> Result<Self> {
        let ranked = |text: &str| vocabulary.id(text).filter(|id| (*id as usize) < ranks);
        let mut merges = HashMap::new();
        for (id, text, _) in vocabulary.iter().take(ranks) {
            for (at, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at(at);
                if let (Some(left), Some(right)) = (ranked(left), ranked(right)) {
                    merges.insert((left, right), (id, id));
                }
            }
        }
        let mut bytes = Box::new([NO_TOKEN; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            let mut buffer = [0; 4];
            let spelled = byte_level::char_of(byte as u8).encode_utf8(&mut buffer);
            *id = ranked(spelled).ok_or_else(|| {
                Error::invalid_file(format!(
                    "tokenizer.model has no token for the byte {byte}; download it again"
                ))
            })?;
        }
        // tiktoken takes a word that is a token before it joins anything.
        pre_tokenizer.ignore_merges = true;
        Ok(Self {
            pre_tokenizer,
            merges,
            bytes,
        })
    }

    /// Appends the ids of ordinary text. A byte for which the vocabulary has no token is left out, as
    /// `tokenizers` and llama.cpp do (SmolLM2 lacks some control characters).
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let mut merger = Merger::default();
        let mut spelled = String::new();
        for word in self.pre_tokenizer.split(text) {
            let word = &text.as_bytes()[word];
            if self.pre_tokenizer.ignore_merges {
                spelled.clear();
                spelled.extend(word.iter().map(|&byte| byte_level::char_of(byte)));
                let whole = vocabulary.id(&spelled);
                if let Some(id) = whole
                    .filter(|&id| matches!(vocabulary.kind(id), Kind::Normal | Kind::UserDefined))
                {
                    ids.push(id);
                    continue;
                }
            }
            merger.clear();
            for &byte in word {
                merger.push(1, self.bytes[byte as usize]);
            }
            let symbols =
                merger.run(|left, right| self.merges.get(&(left.token, right.token)).copied());
            for symbol in symbols.filter(|symbol| symbol.token != NO_TOKEN) {
                match (symbol.token as usize).checked_sub(vocabulary.len()) {
                    None => ids.push(symbol.token),
                    // Taken apart again, into bytes.
                    Some(_) => {
                        let bytes = word[symbol.range()]
                            .iter()
                            .map(|&byte| self.bytes[byte as usize]);
                        ids.extend(bytes.filter(|&id| (id as usize) < vocabulary.len()));
                    }
                }
            }
        }
        Ok(())
    }
}
