//! Streaming text of one sequence: token ids in, pieces out, stop texts found and withheld.

use crate::error::{ErrorKind, Result};
use crate::tokenizer::DecodeStream;
use std::rc::Rc;

/// Decodes ids piece by piece. A piece that could be the start of a stop text is held back until it is decided.
#[derive(Default)]
pub struct TextStream {
    /// `None` for a model without a vocabulary: its ids have no text.
    decoder: Option<DecodeStream>,
    stop: Rc<[String]>,
    /// Emitted so far.
    text: String,
    /// Decoded and withheld.
    held: String,
}

impl TextStream {
    /// An empty stream.
    pub fn new(decoder: Option<DecodeStream>, stop: Rc<[String]>) -> TextStream {
        TextStream { decoder, stop, text: String::new(), held: String::new() }
    }

    /// The text to show for this token (maybe empty), and whether a stop text ended the sequence.
    pub fn push(&mut self, id: u32) -> Result<(String, bool)> {
        let Some(decoder) = &mut self.decoder else { return Ok((String::new(), false)) };
        let piece = match decoder.push(id) {
            // An embedding table may have more rows than the vocabulary has tokens; these have no text.
            Err(error) if error.kind() == ErrorKind::InvalidInput => String::new(),
            piece => piece?,
        };
        Ok(self.take(&piece, false))
    }

    /// What was still withheld.
    pub fn finish(&mut self) -> Result<String> {
        let piece = self.decoder.as_mut().map_or_else(String::new, DecodeStream::finish);
        Ok(self.take(&piece, true).0)
    }

    /// Everything emitted.
    pub fn into_text(self) -> String {
        self.text
    }

    fn take(&mut self, piece: &str, last: bool) -> (String, bool) {
        self.held.push_str(piece);
        let found = self.stop.iter().filter_map(|s| self.held.find(s.as_str())).min();
        let end = match found {
            Some(at) => at,
            None if last => self.held.len(),
            None => self.held.len() - self.stop.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0),
        };
        let out: String = self.held[..end].to_owned();
        self.held = if found.is_some() { String::new() } else { self.held[end..].to_owned() };
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
