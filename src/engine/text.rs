//! Streaming text of one sequence: token ids in, pieces out, stop texts found and withheld.

use crate::error::{ErrorKind, Result};
use crate::tokenizer::DecodeStream;
use std::ops::Range;
use std::rc::Rc;

/// Decodes ids piece by piece. A piece that could be the start of a stop text is held back until it is decided.
///
/// Special tokens are not shown, but stop texts are looked for in the text with them spelled out, as Transformers and
/// llama.cpp do: a stop text may be a special token, or a part of the text with one in it.
#[derive(Default)]
pub struct TextStream {
    /// `None` for a model without a vocabulary: its ids have no text.
    decoder: Option<DecodeStream>,
    stop: Rc<[String]>,
    /// Emitted so far.
    text: String,
    /// Decoded and withheld, special tokens spelled out.
    held: Held,
}

/// Text of which parts are not shown.
#[derive(Default)]
struct Held {
    text: String,
    /// Byte ranges that special tokens fill; ascending, not empty, apart.
    hidden: Vec<Range<usize>>,
}

impl Held {
    fn push(&mut self, piece: &str, is_hidden: bool) {
        let start = self.text.len();
        self.text.push_str(piece);
        if is_hidden && !piece.is_empty() {
            self.hidden.push(start..self.text.len());
        }
    }

    /// Takes the first `end` bytes away, and gives what is shown of them.
    fn take(&mut self, end: usize) -> String {
        let mut shown = String::with_capacity(end);
        let mut at = 0;
        for range in self.hidden.iter().take_while(|range| range.start < end) {
            shown.push_str(&self.text[at..range.start]);
            at = range.end.min(end);
        }
        shown.push_str(&self.text[at..end]);
        self.text.drain(..end);
        self.hidden.retain(|range| range.end > end);
        for range in &mut self.hidden {
            *range = range.start.saturating_sub(end)..range.end - end;
        }
        shown
    }
}

impl TextStream {
    /// An empty stream.
    pub fn new(decoder: Option<DecodeStream>, stop: Rc<[String]>) -> TextStream {
        TextStream { decoder, stop, text: String::new(), held: Held::default() }
    }

    /// The text to show for this token (maybe empty), and whether a stop text ended the sequence.
    pub fn push(&mut self, id: u32) -> Result<(String, bool)> {
        let Some(decoder) = &mut self.decoder else { return Ok((String::new(), false)) };
        let piece = match decoder.push(id) {
            // An embedding table may have more rows than the vocabulary has tokens; these have no text.
            Err(error) if error.kind() == ErrorKind::InvalidInput => String::new(),
            piece => piece?,
        };
        match decoder.left_out(id) {
            Some(spelled) => self.held.push(spelled, true),
            None => self.held.push(&piece, false),
        }
        Ok(self.emit(false))
    }

    /// What was still withheld, and not the stop text that it may complete.
    pub fn finish(&mut self) -> Result<String> {
        let piece = self.decoder.as_mut().map_or_else(String::new, DecodeStream::finish);
        self.held.push(&piece, false);
        Ok(self.emit(true).0)
    }

    /// Everything emitted.
    pub fn into_text(self) -> String {
        self.text
    }

    fn emit(&mut self, last: bool) -> (String, bool) {
        let held = &self.held.text;
        let found = self.stop.iter().filter_map(|s| held.find(s.as_str())).min();
        let end = match found {
            Some(at) => at,
            None if last => held.len(),
            None => held.len() - self.stop.iter().map(|s| overlap(held, s)).max().unwrap_or(0),
        };
        let out = self.held.take(end);
        if found.is_some() {
            self.held = Held::default();
        }
        self.text.push_str(&out);
        (out, found.is_some())
    }
}

/// Bytes of the longest end of `text` that is a beginning of `stop` (and not all of it).
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0 && text.ends_with(&stop[..*at])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn overlap_is_the_longest_undecided_end() {
        assert_eq!(overlap("hello\nUs", "\nUser:"), 3);
        assert_eq!(overlap("hello", "\nUser:"), 0);
        assert_eq!(overlap("aa", "aab"), 2);
        assert_eq!(overlap("caf\u{e9}", "\u{e9}\u{e8}"), 2);
    }
}
