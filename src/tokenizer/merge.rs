//! Byte-pair merging: the one loop behind byte-level BPE and SentencePiece BPE.
//!
//! Neighbouring symbols are joined, best pair first, until no pair can be joined. What "best" means is the
//! caller's: the rank of a merge rule (Sennrich et al. 2016, arXiv:1508.07909) or the score of the joined piece
//! (sentencepiece `bpe_model.cc`). Equal pairs join from the left, as both originals do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A symbol without a token of its own (a character that no piece has).
pub(super) const NO_TOKEN: u32 = u32::MAX;
const END: u32 = u32::MAX;

/// A stretch of the text and its token.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    /// First byte in the text.
    pub start: u32,
    /// Bytes; 0 once it was joined to the symbol before it.
    pub len: u32,
    /// Token id, or [`NO_TOKEN`].
    pub token: u32,
    prev: u32,
    next: u32,
}

impl Symbol {
    /// `text[start..start + len]`.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

/// A pair in the queue: its order, its left and its right symbol, then the bytes and the token of both joined.
type Pair = (u32, u32, u32, u32, u32);

/// Symbols of one word, and the queue; kept between words so that nothing is allocated per word.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// The smallest pair first.
    queue: BinaryHeap<Reverse<Pair>>,
}

impl Merger {
    /// Starts a new word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends the next `len` bytes of the word as a symbol.
    pub(super) fn push(&mut self, len: u32, token: u32) {
        let index = self.symbols.len() as u32;
        let (start, prev) = match self.symbols.last_mut() {
            Some(last) => {
                last.next = index;
                (last.start + last.len, index - 1)
            }
            None => (0, END),
        };
        self.symbols.push(Symbol {
            start,
            len,
            token,
            prev,
            next: END,
        });
    }

    /// Joins symbols until `join` knows no more pairs, and gives what is left in order. `join` tells for two
    /// neighbours their order (smaller is sooner) and the token they make.
    pub(super) fn run(
        &mut self,
        join: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) -> impl Iterator<Item = &Symbol> {
        for left in 1..self.symbols.len() as u32 {
            self.queue_pair(left - 1, left, &join);
        }
        while let Some(Reverse((_, left, right, len, token))) = self.queue.pop() {
            let (l, r) = (self.symbols[left as usize], self.symbols[right as usize]);
            // One of the two was joined elsewhere since.
            if l.len == 0 || l.next != right || l.len + r.len != len {
                continue;
            }
            let next = r.next;
            self.symbols[right as usize].len = 0;
            let joined = &mut self.symbols[left as usize];
            (joined.len, joined.token, joined.next) = (len, token, next);
            if next != END {
                self.symbols[next as usize].prev = left;
                self.queue_pair(left, next, &join);
            }
            if l.prev != END {
                self.queue_pair(l.prev, left, &join);
            }
        }
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn queue_pair(
        &mut self,
        left: u32,
        right: u32,
        join: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) {
        let (l, r) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((order, token)) = join(l, r) {
            let len = l.len + r.len;
            self.queue.push(Reverse((order, left, right, len, token)));
        }
    }
}
