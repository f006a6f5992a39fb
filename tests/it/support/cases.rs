//! The list of what runs (tests/data/cases.json): tests run it, and the table in tests/SUPPORTED.md is made from it.

use super::references::References;
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Cases {
    pub variants: Vec<Variant>,
    /// Weight types, each a file of `quants`; native tests and the browser's run all of them.
    pub types: Vec<String>,
}

/// A variant of the family, by the model that stands for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub what: String,
    /// A folder of `models` in every folder of references, and the files in it that are run natively.
    pub fixture: Option<String>,
    /// That folder is in the project's own references alone.
    #[serde(default)]
    pub only_here: bool,
    #[serde(default)]
    pub files: Vec<String>,
    /// A folder of tests/data/hf, for which all the rest is true or false.
    pub own: Option<String>,
    /// Files that run in Chromium on WebGPU.
    #[serde(default)]
    pub webgpu: Browser,
    /// Files that run in Chromium on the CPU.
    #[serde(default)]
    pub cpu: Browser,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Browser {
    Files(Vec<String>),
    Own(bool),
}

impl Default for Browser {
    fn default() -> Self {
        Self::Own(false)
    }
}

impl Browser {
    pub fn runs(&self) -> bool {
        match self {
            Self::Files(files) => !files.is_empty(),
            Self::Own(own) => *own,
        }
    }
}

pub fn cases() -> Cases {
    serde_json::from_str(include_str!("../../data/cases.json")).expect("tests/data/cases.json")
}

/// `NAME/FILE` of the models in a folder of references.
pub fn models_of(references: &References) -> Vec<String> {
    let mut models = Vec::new();
    for variant in cases().variants {
        if let Some(fixture) = &variant.fixture
            && (references.own || !variant.only_here)
        {
            models.extend(variant.files.iter().map(|file| format!("{fixture}/{file}")));
        }
    }
    assert!(models.len() >= 24, "{models:?}");
    models
}

/// Folders of tests/data/hf.
pub fn own_models() -> Vec<String> {
    let own: Vec<String> = cases()
        .variants
        .into_iter()
        .filter_map(|variant| variant.own)
        .collect();
    assert!(own.len() >= 9, "{own:?}");
    own
}
