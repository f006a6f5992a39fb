//! A sequence that has a slot, and a step in the making.

use super::super::constraint::TokenConstraint;
use super::RequestId;
use crate::exec::{Head, Pending};
use crate::plan::{Row, TokenMask, Trace};
use std::rc::Rc;

/// Names a sequence. Unlike a slot, never used twice.
pub(super) type SequenceKey = u64;

/// What restricts a sequence's draws.
pub(super) struct Constrained {
    pub constraint: Box<dyn TokenConstraint>,
    /// What the request itself allows.
    pub allowed: Rc<TokenMask>,
}

/// A sequence with a slot.
pub(super) struct Running {
    pub key: SequenceKey,
    pub request: RequestId,
    /// Which of the request's.
    pub index: u32,
    pub slot: u32,
    /// Enough for the given tokens and all that may be drawn.
    pub pages: Vec<u32>,
    /// Given tokens, and what was drawn and read back.
    pub tokens: Vec<u32>,
    /// How many were given.
    pub given: usize,
    /// Given positions that are in the cache, or will be when the steps under way are done.
    pub computed: usize,
    /// Drawn tokens under way.
    pub ahead: u32,
    /// Tokens that are drawn at most; 0: none.
    pub max_new_tokens: u32,
    pub constrained: Option<Constrained>,
    /// What its steps read and change; it shares them with its own request alone.
    pub trace: Option<Rc<Trace>>,
}

impl Running {
    /// Whether all given tokens are computed, at least in the steps under way, and more are drawn.
    pub fn decodes(&self) -> bool {
        self.max_new_tokens > 0 && self.computed == self.given
    }

    /// Whether [`Step::Next`](crate::exec::Step::Next) may run its tokens before they are read back.
    pub fn chains(&self) -> bool {
        self.max_new_tokens > 0 && self.constrained.is_none() && self.trace.is_none()
    }

    /// Given rows that no step has run.
    pub fn missing(&self) -> usize {
        self.given - self.computed
    }

    /// Whether there is a row to run that no other step has to come back for.
    pub fn is_ready(&self) -> bool {
        self.missing() > 0 || (self.decodes() && self.ahead == 0)
    }

    /// Whether another token may be drawn after those under way.
    pub fn has_room(&self) -> bool {
        (self.tokens.len() - self.given) as u32 + self.ahead < self.max_new_tokens
    }

    /// Tokens whose keys and values are in the cache: all but the last drawn one, which has not been run.
    pub fn cached(&self) -> &[u32] {
        if self.trace.is_some() {
            // Edits may have changed them.
            return &[];
        }
        let drawn = self.tokens.len() - self.given;
        let end = match (self.decodes(), drawn) {
            (true, 1..) => self.tokens.len() - 1,
            (true, 0) => self.given - 1,
            _ => self.computed,
        };
        &self.tokens[..end]
    }
}

/// Rows of one sequence in a step: neighbours.
#[derive(Copy, Clone, Debug)]
pub(super) struct Part {
    pub key: SequenceKey,
    pub first: u32,
    pub rows: u32,
}

/// A step under way.
pub(super) struct Flight {
    pub pending: Pending,
    pub parts: Vec<Part>,
    /// Of each head, whose it is and at which position.
    pub heads: Vec<(SequenceKey, u32)>,
    /// The number of the step, which tells those of the request whose trace it has.
    pub traced: bool,
}

/// A step in the making.
#[derive(Default)]
pub(super) struct Batch {
    pub rows: Vec<Row>,
    pub heads: Vec<(Head, SequenceKey, u32)>,
    pub parts: Vec<Part>,
}

impl Batch {
    /// Adds a row, and says that the sequence's rows go on.
    pub fn row(&mut self, key: SequenceKey, row: Row) {
        self.rows.push(row);
        match self.parts.last_mut() {
            Some(part) if part.key == key && part.first + part.rows == row.pos => part.rows += 1,
            _ => self.parts.push(Part {
                key,
                first: row.pos,
                rows: 1,
            }),
        }
    }
}
