//! The small files of a Hugging Face folder that a tokenizer is made of, wherever they come from.

use super::hf::HfFiles;
#[cfg(not(target_arch = "wasm32"))]
use crate::error::{Error, ErrorKind};
use std::collections::HashMap;

/// Contents by file name.
#[derive(Clone, Debug, Default)]
pub struct HfFolder(HashMap<&'static str, Vec<u8>>);

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
    pub fn read(folder: &std::path::Path) -> crate::error::Result<HfFolder> {
        let mut files = HfFolder::default();
        for name in HfFolder::NAMES {
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
        Ok(files)
    }

    /// Takes a file's contents; other names than [`HfFolder::NAMES`] are left out.
    pub fn insert(&mut self, name: &str, bytes: Vec<u8>) {
        if let Some(name) = HfFolder::NAMES.iter().find(|known| **known == name) {
            self.0.insert(name, bytes);
        }
    }

    /// As [`Tokenizer::from_hf`](super::Tokenizer::from_hf) takes them.
    pub fn files(&self) -> HfFiles<'_> {
        let get = |name: &str| self.0.get(name).map(Vec::as_slice);
        HfFiles {
            tokenizer_json: get("tokenizer.json"),
            tokenizer_model: get("tokenizer.model"),
            tokenizer_config: get("tokenizer_config.json"),
            special_tokens_map: get("special_tokens_map.json"),
            added_tokens: get("added_tokens.json"),
            generation_config: get("generation_config.json"),
            config: get("config.json"),
            chat_template: get("chat_template.jinja").or(get("chat_template.json")),
        }
    }
}
