//! The small files of a Hugging Face folder that a tokenizer is made of, wherever they come from.

use super::hf::HfFiles;
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
        "config.json",
        "generation_config.json",
        "chat_template.jinja",
        "chat_template.json",
    ];

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
            config: get("config.json"),
            generation_config: get("generation_config.json"),
            chat_template: get("chat_template.jinja").or(get("chat_template.json")),
        }
    }
}
