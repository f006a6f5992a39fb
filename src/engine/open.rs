//! From a model's files to an [`Opened`] model, whoever brings the files.

use std::rc::Rc;

use super::Opened;
use crate::error::{Error, Result};
use crate::format::{ByteSource, Checkpoint, no_weights};
use crate::tokenizer::HfFolder;

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";

/// The largest file beside the weights: tokenizer.json of a vocabulary of 262,144 tokens takes some 35 MB.
const MAX_SMALL_FILE: u64 = 64 << 20;

impl Opened {
    /// Opens a model from its files, in any order: a GGUF or all parts of a split set, or what a Hugging Face folder
    /// holds. The names of the sources tell which; files that are neither are left aside.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint::open_gguf`], [`Checkpoint::open_safetensors`] and [`Opened::new`].
    pub async fn from_sources(
        sources: Vec<Rc<dyn ByteSource>>,
        quantize: Option<&str>,
    ) -> Result<Opened> {
        let (config, mut files, mut index) = (find(&sources, CONFIG), HfFolder::default(), None);
        let Some(config) = config else {
            // A picked folder may hold other files beside a GGUF.
            let ggufs = with_suffix(&sources, ".gguf");
            if ggufs.is_empty() && !with_suffix(&sources, ".safetensors").is_empty() {
                return Err(Error::invalid_input(
                    "safetensors need the config.json of their model; add that file",
                ));
            }
            let sources = if ggufs.is_empty() { sources } else { ggufs };
            return Opened::new(
                Checkpoint::open_gguf(sources).await?,
                files.files(),
                quantize,
            )
            .await;
        };
        let weights = with_suffix(&sources, ".safetensors");
        if weights.is_empty() && find(&sources, INDEX).is_none() {
            let ggufs = with_suffix(&sources, ".gguf");
            if !ggufs.is_empty() {
                return Opened::new(Checkpoint::open_gguf(ggufs).await?, files.files(), quantize)
                    .await;
            }
            let names: Vec<&str> = sources.iter().map(|source| source.name()).collect();
            if let Some(other) = no_weights(&names) {
                return Err(other);
            }
        }
        let config = read_small(config).await?;
        files.insert(CONFIG, config.clone());
        for source in sources
            .iter()
            .filter(|source| source.name() != CONFIG && HfFolder::wants(source.name()))
        {
            files.insert(source.name(), read_small(source).await?);
        }
        if let Some(source) = find(&sources, INDEX) {
            index = Some(read_small(source).await?);
        }
        let checkpoint = Checkpoint::open_safetensors(&config, index.as_deref(), weights).await?;
        Opened::new(checkpoint, files.files(), quantize).await
    }

    /// Opens the model at a local path, as [`Checkpoint::open_path`] does, with what lies beside its weights.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint::open_path`] and [`Opened::new`], and
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) for a file that cannot be read.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn open_path(path: &std::path::Path, quantize: Option<&str>) -> Result<Opened> {
        let checkpoint = Checkpoint::open_path(path).await?;
        let files = if path.is_dir() {
            HfFolder::read(path)?
        } else {
            HfFolder::default()
        };
        Opened::new(checkpoint, files.files(), quantize).await
    }
}

fn find<'a>(sources: &'a [Rc<dyn ByteSource>], name: &str) -> Option<&'a Rc<dyn ByteSource>> {
    sources.iter().find(|source| source.name() == name)
}

fn with_suffix(sources: &[Rc<dyn ByteSource>], suffix: &str) -> Vec<Rc<dyn ByteSource>> {
    sources
        .iter()
        .filter(|source| source.name().to_ascii_lowercase().ends_with(suffix))
        .cloned()
        .collect()
}

async fn read_small(source: &Rc<dyn ByteSource>) -> Result<Vec<u8>> {
    match usize::try_from(source.len()) {
        Ok(len) if source.len() <= MAX_SMALL_FILE => source.read(0, len).await,
        _ => Err(Error::invalid_file(format!(
            "{} has {} bytes, which is no such file",
            source.name(),
            source.len()
        ))),
    }
}
