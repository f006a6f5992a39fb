//! From a model's files to an [`Opened`] model.

use super::GenerationConfig;
use crate::error::{Error, ErrorKind, Result, Warnings};
use crate::format::{ByteSource, Checkpoint, FileFormat, no_weights};
use crate::model::{Config, ModelPlan, plan, quantize_type};
use crate::tokenizer::{HfFiles, HfFolder, Tokenizer};
use std::fmt;
use std::rc::Rc;

/// Positions allocated when the caller names no context: the model's own, but no more than this.
pub const DEFAULT_MAX_CONTEXT: u32 = 4096;

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";

/// The largest file beside the weights: tokenizer.json of a vocabulary of 262,144 tokens takes some 35 MB.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// A model's file, opened and understood, its weights not yet loaded.
pub struct Opened {
    /// The open file or files.
    pub checkpoint: Checkpoint,
    /// Hyperparameters.
    pub config: Config,
    /// What to run.
    pub model: ModelPlan,
    /// Vocabulary, merges, chat template; `None` where the model's files hold none.
    pub tokenizer: Option<Tokenizer>,
    /// What its files recommend for sampling.
    pub generation_config: GenerationConfig,
    /// What was wrong with the files and was left out.
    pub warnings: Warnings,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("checkpoint", &self.checkpoint.name())
            .field("config", &self.config)
            .field("generation_config", &self.generation_config)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl Opened {
    /// Reads config and vocabulary, and checks every weight's shape. `files`: what lies beside safetensors (a GGUF
    /// holds its vocabulary itself); `quantize`: see [`quantize_type`].
    ///
    /// # Errors
    ///
    /// Those of [`quantize_type`], [`Config::read`], [`plan`], [`Tokenizer::from_gguf`] and [`Tokenizer::open_hf`].
    pub async fn new(
        checkpoint: Checkpoint,
        files: HfFiles<'_>,
        quantize: Option<&str>,
    ) -> Result<Self> {
        let quantize = quantize.map(quantize_type).transpose()?;
        // Names the file at fault.
        let weights = checkpoint.name();
        let in_weights = |error: Error| at_fault(error, &weights);
        let config =
            Config::read(&checkpoint)
                .await
                .map_err(|error| match checkpoint.format() {
                    FileFormat::Gguf => in_weights(error),
                    FileFormat::Safetensors => at_fault(error, "config.json"),
                })?;
        let model = plan(&config, &checkpoint, quantize).map_err(in_weights)?;
        let tokenizer = match checkpoint.format() {
            FileFormat::Gguf if !checkpoint.metadata().contains("tokenizer.ggml.model") => None,
            FileFormat::Gguf => {
                Some(Tokenizer::from_gguf(checkpoint.metadata()).map_err(in_weights)?)
            }
            FileFormat::Safetensors if files.tokenizer_json.or(files.tokenizer_model).is_none() => {
                None
            }
            FileFormat::Safetensors => Some(Tokenizer::open_hf(files).await?),
        };
        // Transformers lets a vocabulary have more tokens than the table has rows; llama.cpp does not.
        if let Some(tokenizer) = &tokenizer
            && checkpoint.format() == FileFormat::Gguf
            && tokenizer.vocab_size() > config.vocab_size as usize
        {
            return Err(in_weights(Error::invalid_file(format!(
                "the vocabulary has {} tokens and the embedding table {} rows",
                tokenizer.vocab_size(),
                config.vocab_size
            ))));
        }
        let generation_config = match files.generation_config {
            Some(bytes) => GenerationConfig::from_json(bytes),
            None => GenerationConfig::from_gguf(checkpoint.metadata()),
        };
        let mut warnings = checkpoint.warnings().clone();
        if let Some(tokenizer) = &tokenizer {
            let found = tokenizer.warnings().clone();
            warnings.append(match checkpoint.format() {
                FileFormat::Gguf => found.at(&weights),
                FileFormat::Safetensors => found,
            });
        }
        Ok(Self {
            checkpoint,
            config,
            model,
            tokenizer,
            generation_config,
            warnings,
        })
    }

    /// The context to allocate in positions, from what the caller asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for 0, and for more than the model was made for.
    pub fn context(&self, asked: Option<u32>) -> Result<u32> {
        let most = self.config.max_position_embeddings;
        match asked {
            None => Ok(most.min(DEFAULT_MAX_CONTEXT)),
            Some(0) => Err(Error::invalid_input("max_context must be at least 1")),
            Some(n) if n > most => Err(Error::invalid_input(format!(
                "max_context is {n}; this model was made for at most {most} positions"
            ))),
            Some(n) => Ok(n),
        }
    }
}

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
    ) -> Result<Self> {
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
            return Self::new(
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
                return Self::new(Checkpoint::open_gguf(ggufs).await?, files.files(), quantize)
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
        Self::new(checkpoint, files.files(), quantize).await
    }

    /// Opens the model at a local path, as [`Checkpoint::open_path`] does, with what lies beside its weights.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint::open_path`] and [`Opened::new`], and
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) for a file that cannot be read.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn open_path(path: &std::path::Path, quantize: Option<&str>) -> Result<Self> {
        let checkpoint = Checkpoint::open_path(path).await?;
        let files = if path.is_dir() {
            HfFolder::read(path)?
        } else {
            HfFolder::default()
        };
        Self::new(checkpoint, files.files(), quantize).await
    }
}

/// The error with the file's name, and with what to do about a broken file.
fn at_fault(error: Error, file: &str) -> Error {
    let broken = error.kind() == ErrorKind::InvalidFile;
    let error = error.at(file);
    if broken {
        error.advise("get another copy or conversion of this model")
    } else {
        error
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
