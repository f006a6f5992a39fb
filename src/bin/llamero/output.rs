//! Writes results, warnings and errors.

use llamero::error::{Error, ErrorKind, Result, Warnings};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Prints a result as one line of JSON on stdout.
///
/// # Errors
///
/// `Io` when stdout cannot be written.
pub(crate) fn print(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(())
}

/// Prints what the reader of a model's files ignored or corrected, on stderr.
pub(crate) fn warn(warnings: &Warnings) {
    for text in warnings.to_vec() {
        eprintln!("warning: {text}");
    }
}

/// Prints a note on stderr when stderr is a terminal. A program that reads stderr gets errors and warnings only.
pub(crate) fn say(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{text}");
    }
}

/// An `InvalidInput` error.
pub(crate) fn invalid(detail: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, detail)
}
