//! Where what a test is held to comes from: `tests/data/references`, which scripts of this project make
//! (`tests/data/make_references.py`), and, where `LLAMERO_FIXTURES` names one, a folder of the same form beside it.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// A folder of references.
#[derive(Clone, Debug)]
pub struct References {
    pub root: PathBuf,
    /// The project's own.
    pub own: bool,
}

impl References {
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    pub fn json(&self, relative: impl AsRef<Path>) -> Value {
        let path = self.path(relative);
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Folders of cases for the command line, by name.
    #[cfg(feature = "cli")]
    pub fn cases(&self) -> Vec<PathBuf> {
        let folder = self.path(if self.own { "cases" } else { "cases-2" });
        let entries = std::fs::read_dir(folder).expect("a folder of cases");
        let mut cases: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.join("case.json").exists())
            .collect();
        cases.sort();
        cases
    }

    /// What a message calls this folder.
    pub fn name(&self) -> &'static str {
        if self.own { "references" } else { "fixtures" }
    }
}

/// The project's own.
pub fn own() -> References {
    References {
        root: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/references"),
        own: true,
    }
}

/// The folder that `LLAMERO_FIXTURES` names.
pub fn fixtures() -> Option<References> {
    let root = PathBuf::from(std::env::var_os("LLAMERO_FIXTURES").filter(|path| !path.is_empty())?);
    // A test runs in the crate's folder.
    assert!(
        root.join("models").is_dir(),
        "LLAMERO_FIXTURES is {}, which is no folder of references",
        root.display()
    );
    Some(References { root, own: false })
}

/// All that a test is to be held to.
pub fn all() -> Vec<References> {
    std::iter::once(own()).chain(fixtures()).collect()
}
