//! Output that keeps to a form: which tokens may come next.

use crate::error::Result;
use crate::plan::TokenMask;

/// Decides before each draw of one sequence which tokens may be drawn: a grammar, a schema, a list of answers.
///
/// A constrained sequence waits for each of its tokens before the next is computed; other sequences are not held up.
pub trait TokenConstraint {
    /// Forbids tokens that may not come next. `mask` allows what the request allows. A mask that is left without tokens
    /// ends the request with an error.
    ///
    /// # Errors
    ///
    /// The constraint's own, with which the request ends.
    fn restrict(&mut self, mask: &mut TokenMask) -> Result<()>;

    /// Takes a drawn token.
    ///
    /// # Errors
    ///
    /// The constraint's own, with which the request ends.
    fn accept(&mut self, id: u32) -> Result<()>;

    /// Whether nothing may follow: the sequence ends with finish reason `stop`.
    fn is_finished(&self) -> bool {
        false
    }
}
