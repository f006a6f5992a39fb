//! Why a render stopped.

pub(super) type Result<T> = std::result::Result<T, Fault>;

#[derive(Debug)]
pub(super) enum Fault {
    /// The template does not follow the language; the line, from 1.
    Syntax(String, u32),
    /// An operation that its values do not allow.
    Value(String),
    /// `raise_exception`, with what the template says.
    Raised(String),
    /// The budget of steps is spent.
    Steps,
    /// More output than any conversation needs.
    Output,
}

impl Fault {
    pub fn new(what: impl Into<String>) -> Self {
        Self::Value(what.into())
    }

    pub fn syntax(what: impl Into<String>, line: u32) -> Self {
        Self::Syntax(what.into(), line)
    }
}

/// A fault of values.
pub(super) fn fail<T>(what: impl Into<String>) -> Result<T> {
    Err(Fault::new(what))
}
