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
    pub fn new(decoder: Option<DecodeStream>, stop: Rc<[String]>) -> Self {
        Self {
            decoder,
            stop,
            text: String::new(),
            held: Held::default(),
        }
    }

    /// The text to show for this token (maybe empty), and whether a stop text ended the sequence.
    pub fn push(&mut self, id: u32) -> Result<(String, bool)> {
        let Some(decoder) = &mut self.decoder else {
            return Ok((String::new(), false));
        };
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
        let piece = self
            .decoder
            .as_mut()
            .map_or_else(String::new, DecodeStream::finish);
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
            None => {
                held.len()
                    - self
                        .stop
                        .iter()
                        .map(|s| overlap(held, s))
                        .max()
                        .unwrap_or(0)
            }
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
    stop.char_indices()
        .map(|(at, _)| at)
        .filter(|at| *at > 0 && text.ends_with(&stop[..*at]))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{TextStream, overlap};
    use crate::format::{Metadata, StringArray};
    use crate::tokenizer::Tokenizer;

    const A: u32 = 1;
    const B: u32 = 2;
    const START: u32 = 3;
    const END: u32 = 4;
    /// The two bytes of an e with an acute accent.
    const ACUTE: [u32; 2] = [5, 6];

    fn tokenizer() -> Tokenizer {
        let mut metadata = Metadata::default();
        let texts: StringArray = [
            "<unk>",
            "a",
            "b",
            "<|start|>",
            "<|end|>",
            "<0xC3>",
            "<0xA9>",
        ]
        .into_iter()
        .collect();
        metadata.insert("tokenizer.ggml.model", "llama".into());
        metadata.insert("tokenizer.ggml.tokens", texts.into());
        metadata.insert("tokenizer.ggml.scores", vec![0.0_f32; 7].into());
        metadata.insert(
            "tokenizer.ggml.token_type",
            vec![2_i32, 1, 1, 3, 3, 6, 6].into(),
        );
        metadata.insert("tokenizer.ggml.add_space_prefix", false.into());
        Tokenizer::from_gguf(&metadata).expect("a tokenizer")
    }

    /// The pieces that are shown, the last one by `finish` unless a stop text came; and whether one did.
    fn run(ids: &[u32], stop: &[&str]) -> (Vec<String>, bool) {
        let stop: Vec<String> = stop.iter().map(|text| (*text).to_owned()).collect();
        let mut stream = TextStream::new(Some(tokenizer().stream(true)), stop.into());
        let mut pieces = Vec::new();
        for id in ids {
            let (piece, stopped) = stream.push(*id).expect("a token");
            pieces.push(piece);
            if stopped {
                assert_eq!(stream.into_text(), pieces.concat());
                return (pieces, true);
            }
        }
        pieces.push(stream.finish().expect("text"));
        assert_eq!(stream.into_text(), pieces.concat());
        (pieces, false)
    }

    #[test]
    fn special_tokens_are_not_shown_and_stop_texts_see_them() {
        /// Ids, stop texts, the pieces that are shown, whether a stop text came.
        type Case<'a> = (&'a [u32], &'a [&'a str], &'a [&'a str], bool);
        let cases: [Case<'_>; 19] = [
            // Nothing to look for.
            (&[A, START, B, END], &[], &["a", "", "b", "", ""], false),
            // One that is a special token, at the beginning, and after text.
            (&[START, A], &["<|start|>"], &[""], true),
            (&[A, B, END], &["<|end|>"], &["a", "b", ""], true),
            (&[A, START, B], &["<|end|>"], &["a", "", "b", ""], false),
            // Text before it: held back, dropped if it is a part, shown if not.
            (&[A, B, START], &["b<|start|>"], &["a", "", ""], true),
            (&[A, B, A], &["b<|start|>"], &["a", "", "ba", ""], false),
            (&[A, B], &["b<|start|>"], &["a", "", "b"], false),
            (&[A, B, END], &["b<|start|>"], &["a", "", "b", ""], false),
            // Text after it.
            (&[B, START, A], &["<|start|>a"], &["b", "", ""], true),
            (
                &[B, START, B, A],
                &["<|start|>a"],
                &["b", "", "b", "a", ""],
                false,
            ),
            // On both sides, and several tokens long.
            (
                &[A, END, START, B],
                &["<|end|><|start|>b"],
                &["a", "", "", ""],
                true,
            ),
            (
                &[A, A, START, B, A],
                &["a<|start|>b"],
                &["", "a", "", ""],
                true,
            ),
            (
                &[A, A, START, A, B],
                &["a<|start|>b"],
                &["", "a", "", "a", "ab", ""],
                false,
            ),
            // It begins or ends within one.
            (&[A, END, B], &["|>b"], &["a", "", ""], true),
            (&[A, B, START], &["b<|st"], &["a", "", ""], true),
            (&[END, A, END], &["d|>a<|e"], &["", "", ""], true),
            // The first of several in the text counts, whatever their order in the list.
            (&[A, B, END], &["<|end|>", "b"], &["a", ""], true),
            (&[B, END], &["<|end|>", "b<|end|>"], &["", ""], true),
            // A character whose bytes have a special token between them.
            (
                &[ACUTE[0], START, ACUTE[1], A],
                &["<|end|>"],
                &["", "", "\u{e9}", "a", ""],
                false,
            ),
        ];
        for (ids, stop, pieces, stopped) in cases {
            let pieces = pieces.iter().map(|piece| (*piece).to_owned()).collect();
            assert_eq!(run(ids, stop), (pieces, stopped), "{ids:?} {stop:?}");
        }
    }

    #[test]
    fn without_a_stop_text_the_text_is_the_decoded_one() {
        let ids = [
            START, A, ACUTE[0], END, ACUTE[1], B, ACUTE[0], START, A, 0, ACUTE[0],
        ];
        let tokenizer = tokenizer();
        let want = tokenizer.decode(&ids, true).expect("text");
        for stop in [
            &[][..],
            &["zz"],
            &["<|start|>z", "a<|q"],
            &["\u{e9}<|end|>z"],
        ] {
            let (pieces, stopped) = run(&ids, stop);
            assert_eq!(
                (pieces.concat(), stopped),
                (want.clone(), false),
                "{stop:?}"
            );
        }
    }

    #[test]
    fn ids_without_a_text_show_nothing() {
        assert_eq!(
            run(&[A, 99, B], &["ab"]),
            (vec!["".into(), "".into(), "".into()], true)
        );
        let mut stream = TextStream::new(None, [].into());
        assert_eq!(stream.push(7).expect("no text"), (String::new(), false));
    }

    #[test]
    fn overlap_is_the_longest_undecided_end() {
        assert_eq!(overlap("hello\nUs", "\nUser:"), 3);
        assert_eq!(overlap("hello", "\nUser:"), 0);
        assert_eq!(overlap("aa", "aab"), 2);
        assert_eq!(overlap("caf\u{e9}", "\u{e9}\u{e8}"), 2);
    }
}
