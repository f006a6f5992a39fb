//! SentencePiece BPE (LLaMA 1 and 2, Mistral): characters joined into the piece with the best score, bytes for
//! what has no piece.
//!
//! Reference: sentencepiece `bpe_model.cc` and `normalizer.cc`; llama.cpp `llm_tokenizer_spm_session`.

use std::collections::HashMap;

use super::merge::{Merger, NO_TOKEN};
use super::vocabulary::{Kind, Vocabulary};
use crate::error::{Error, Result};

/// The mark that stands for a space inside pieces (U+2581).
pub(super) const SPACE_MARK: char = '▁';

/// How text is prepared before pieces are looked up.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Spacing {
    /// A space is put before the text.
    pub add_prefix: bool,
    /// … and again after each special token (llama.cpp, and Transformers' `legacy` behaviour).
    pub prefix_after_special: bool,
    /// Spaces at both ends are dropped, and runs of them become one.
    pub remove_extra: bool,
}

/// Scores and byte tokens.
pub(super) struct Spm {
    /// Smaller joins sooner; per token.
    orders: Vec<u32>,
    /// The token of each single byte, or [`NO_TOKEN`].
    bytes: Box<[u32; 256]>,
    unknown: Option<u32>,
    spacing: Spacing,
    /// No piece has a space mark after another character, so text may be cut before such a mark.
    words_are_separate: bool,
}

/// A number that sorts the other way round than `score`.
fn order_of(score: f32) -> u32 {
    // Adding zero makes -0.0 and 0.0 one score.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    !ascending
}

/// The byte that a byte token's text (`<0x0A>`) names.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 || hex.starts_with('+') {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

impl Spm {
    /// One score per token.
    ///
    /// # Errors
    /// `InvalidFile` for another number of scores, a score that is not a number, or a malformed byte token.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        scores: &[f32],
        unknown: Option<u32>,
        spacing: Spacing,
    ) -> Result<Self> {
        if scores.len() != vocabulary.len() {
            return Err(Error::invalid_file(format!(
                "the tokenizer has {} tokens but {} scores",
                vocabulary.len(),
                scores.len()
            )));
        }
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            return Err(Error::invalid_file(format!(
                "the score of token {id} is not a number"
            )));
        }
        let mut bytes = Box::new([NO_TOKEN; 256]);
        let mut words_are_separate = true;
        for (id, text, kind) in vocabulary.iter() {
            match kind {
                Kind::Byte => {
                    let byte = byte_of(text).ok_or_else(|| {
                        Error::invalid_file(format!(
                            "token {id} is a byte, but its text {text:?} names none"
                        ))
                    })?;
                    bytes[byte as usize] = id;
                }
                Kind::Normal | Kind::UserDefined | Kind::Unused => {
                    let mut marks = text.match_indices(SPACE_MARK);
                    words_are_separate &=
                        marks.all(|(at, _)| at == 0 || text[..at].ends_with(SPACE_MARK));
                }
                Kind::Unknown | Kind::Control => {}
            }
        }
        // llama.cpp finds bytes by their text, whatever kind the file gives them.
        for (byte, id) in bytes
            .iter_mut()
            .enumerate()
            .filter(|(_, id)| **id == NO_TOKEN)
        {
            *id = vocabulary
                .id(&format!("<0x{byte:02X}>"))
                .unwrap_or(NO_TOKEN);
        }
        let orders = scores.iter().map(|&score| order_of(score)).collect();
        Ok(Self {
            orders,
            bytes,
            unknown,
            spacing,
            words_are_separate,
        })
    }

    /// Appends the ids of ordinary text. `first`: nothing came before it; else a special token did.
    ///
    /// # Errors
    /// `InvalidInput` for a character that has no piece where there are neither bytes nor an unknown token.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        first: bool,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let marked = self.mark_spaces(text, first);
        let mut merger = Merger::default();
        let mut rest = marked.as_str();
        while !rest.is_empty() {
            let word;
            (word, rest) = rest.split_at(self.word_end(rest));
            self.encode_word(vocabulary, word, &mut merger, ids)?;
        }
        Ok(())
    }

    fn mark_spaces(&self, text: &str, first: bool) -> String {
        let mut marked = String::with_capacity(text.len() + SPACE_MARK.len_utf8());
        let text = if self.spacing.remove_extra {
            text.trim_matches(' ')
        } else {
            text
        };
        if self.spacing.add_prefix
            && (first || self.spacing.prefix_after_special)
            && !text.is_empty()
        {
            marked.push(SPACE_MARK);
        }
        let mut after_space = false;
        for c in text.chars() {
            let space = c == ' ';
            if !(space && after_space && self.spacing.remove_extra) {
                marked.push(if space { SPACE_MARK } else { c });
            }
            after_space = space;
        }
        marked
    }

    /// Bytes of the first stretch of `text` whose pieces do not depend on what follows. Short stretches keep
    /// the queue short: a megabyte in one stretch would need tens of megabytes of it.
    fn word_end(&self, text: &str) -> usize {
        if !self.words_are_separate {
            return text.len();
        }
        let mut before = SPACE_MARK;
        for (at, c) in text.char_indices() {
            if c == SPACE_MARK && before != SPACE_MARK {
                return at;
            }
            before = c;
        }
        text.len()
    }

    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        // Control, unknown and byte tokens are no pieces: their text is never found in a user's text.
        let piece = |text: &str| {
            let id = vocabulary.id(text)?;
            matches!(
                vocabulary.kind(id),
                Kind::Normal | Kind::UserDefined | Kind::Unused
            )
            .then_some(id)
        };
        merger.clear();
        let mut buffer = [0; 4];
        for c in word.chars() {
            merger.push(
                c.len_utf8() as u32,
                piece(c.encode_utf8(&mut buffer)).unwrap_or(NO_TOKEN),
            );
        }
        // An unused piece may be joined into another on the way; one that remains is taken apart again.
        let parts = std::cell::RefCell::new(HashMap::new());
        let symbols = merger.run(|left, right| {
            let id = piece(word.get(left.range().start..right.range().end)?)?;
            if vocabulary.kind(id) == Kind::Unused {
                parts
                    .borrow_mut()
                    .insert(id, (left.range().len(), left.token, right.token));
            }
            Some((self.orders[id as usize], id))
        });
        let mut unknown_before = false;
        for symbol in symbols {
            let mut open = vec![(symbol.token, &word[symbol.range()])];
            while let Some((token, text)) = open.pop() {
                let unused = token != NO_TOKEN && vocabulary.kind(token) == Kind::Unused;
                if let (true, Some(&(cut, left, right))) = (unused, parts.borrow().get(&token)) {
                    open.extend([(right, &text[cut..]), (left, &text[..cut])]);
                    continue;
                }
                if token != NO_TOKEN {
                    ids.push(token);
                    unknown_before = false;
                } else {
                    unknown_before = self.push_unknown(text, unknown_before, ids)?;
                }
            }
        }
        Ok(())
    }

    /// Appends what stands for a character without a piece; tells whether that was the unknown token. A run of
    /// unknown characters is one unknown token.
    fn push_unknown(&self, text: &str, unknown_before: bool, ids: &mut Vec<u32>) -> Result<bool> {
        let bytes = text.bytes().map(|byte| self.bytes[byte as usize]);
        if bytes.clone().all(|id| id != NO_TOKEN) {
            ids.extend(bytes);
            return Ok(false);
        }
        let unknown = self.unknown.ok_or_else(|| {
            Error::invalid_input(format!(
                "this model's vocabulary has no token for {text:?}; leave it out of the text"
            ))
        })?;
        if !unknown_before {
            ids.push(unknown);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::{byte_of, order_of};

    #[test]
    fn a_better_score_comes_first_and_zeros_are_equal() {
        let scores = [
            f32::INFINITY,
            3.5,
            1e-20,
            0.0,
            -1e-20,
            -2.0,
            -1e9,
            f32::NEG_INFINITY,
        ];
        assert!(scores.map(order_of).is_sorted_by(|a, b| a < b));
        assert_eq!(order_of(0.0), order_of(-0.0));
    }

    #[test]
    fn byte_tokens_have_exactly_two_digits() {
        assert_eq!(
            (byte_of("<0x0A>"), byte_of("<0xff>")),
            (Some(10), Some(255))
        );
        assert!(
            [
                "<0x>", "<0x1>", "<0x100>", "<0x+1>", "<0xZZ>", "0x0A", "<0xé>"
            ]
            .iter()
            .all(|t| byte_of(t).is_none())
        );
    }
}
