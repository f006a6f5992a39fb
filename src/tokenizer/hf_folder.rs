//! The small files of a Hugging Face folder that a tokenizer is made of, wherever they come from.

use super::hf::HfFiles;
#[cfg(not(target_arch = "wasm32"))]
use crate::error::{Error, ErrorKind};
use std::collections::HashMap;

/// Contents by file name.
#[derive(Clone, Debug, Default)]
pub struct HfFolder {
    files: HashMap<&'static str, Vec<u8>>,
    /// Named chat templates, in order of their names.
    templates: Vec<(String, Vec<u8>)>,
}

/// The folder of named chat templates, beside `chat_template.jinja`; a template's name is its file's.
const TEMPLATES: &str = "additional_chat_templates";
const TEMPLATE_END: &str = ".jinja";

impl HfFolder {
    /// The names of the files that are of use; all are optional.
    pub const NAMES: &[&str] = &[
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
        "config.json",
        "chat_template.jinja",
        "chat_template.json",
    ];

    /// Reads those that a local folder holds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) for a file that is there and cannot be read.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(folder: &std::path::Path) -> crate::error::Result<Self> {
        let mut files = Self::default();
        for name in Self::NAMES {
            let path = folder.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => files.insert(name, bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let detail = format!("cannot read {}", path.display());
                    return Err(Error::new(ErrorKind::Io, detail).with_source(error));
                }
            }
        }
        let templates = folder.join(TEMPLATES);
        for entry in templates.read_dir().into_iter().flatten().flatten() {
            let name = format!("{TEMPLATES}/{}", entry.file_name().to_string_lossy());
            if Self::wants(&name) && entry.path().is_file() {
                let bytes = std::fs::read(entry.path()).map_err(|error| {
                    let detail = format!("cannot read {}", entry.path().display());
                    Error::new(ErrorKind::Io, detail).with_source(error)
                })?;
                files.insert(&name, bytes);
            }
        }
        Ok(files)
    }

    /// Whether a file of this name is of use: those of [`HfFolder::NAMES`], and `additional_chat_templates/NAME.jinja`.
    pub fn wants(name: &str) -> bool {
        Self::NAMES.contains(&name) || template_name(name).is_some()
    }

    /// Takes a file's contents, if [it is of use](HfFolder::wants).
    pub fn insert(&mut self, name: &str, bytes: Vec<u8>) {
        if let Some(name) = Self::NAMES.iter().find(|known| **known == name) {
            self.files.insert(name, bytes);
        } else if let Some(name) = template_name(name) {
            let found = self
                .templates
                .binary_search_by(|(known, _)| known.as_str().cmp(name));
            match found {
                Ok(at) => self.templates[at].1 = bytes,
                Err(at) => self.templates.insert(at, (name.to_owned(), bytes)),
            }
        }
    }

    /// As [`Tokenizer::from_hf`](super::Tokenizer::from_hf) takes them.
    pub fn files(&self) -> HfFiles<'_> {
        let get = |name: &str| self.files.get(name).map(Vec::as_slice);
        HfFiles {
            tokenizer_json: get("tokenizer.json"),
            tokenizer_model: get("tokenizer.model"),
            tokenizer_config: get("tokenizer_config.json"),
            special_tokens_map: get("special_tokens_map.json"),
            added_tokens: get("added_tokens.json"),
            generation_config: get("generation_config.json"),
            config: get("config.json"),
            chat_template: get("chat_template.jinja"),
            additional_templates: &self.templates,
            chat_template_json: get("chat_template.json"),
        }
    }
}

/// NAME of `additional_chat_templates/NAME.jinja`.
fn template_name(file: &str) -> Option<&str> {
    let name = file
        .strip_prefix(TEMPLATES)?
        .strip_prefix('/')?
        .strip_suffix(TEMPLATE_END)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}
