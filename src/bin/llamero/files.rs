//! Reads the files that options name.

use crate::output::invalid;
use llamero::error::{Error, Result};
use std::path::Path;

/// The text of a file.
///
/// # Errors
///
/// `Io` when the file cannot be read, `InvalidInput` when it is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::from(e).at(path.display()))?;
    String::from_utf8(bytes).map_err(|_| invalid(&format!("{}: not UTF-8 text", path.display())))
}

/// The value in a JSON file.
///
/// # Errors
///
/// Those of [`read_text`], and `InvalidInput` when the text is not JSON of the type that is asked for.
pub(crate) fn from_json<T: for<'de> serde::Deserialize<'de>>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_text(path)?)
        .map_err(|e| invalid(&format!("{}: {e}", path.display())))
}
