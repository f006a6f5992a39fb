//! Loads models and tokenizers from the paths that commands are given.

use crate::args::{Backend, Device};
use crate::output::{say, warn};
use llamero::engine::{self, Kernels, LoadHost, LoadOptions, LoadPhase, Model, Opened};
use llamero::error::{Error, Result};
use llamero::exec::LocalBoxFuture;
use llamero::format::{ByteSource, Checkpoint, FileSource, split_names};
use llamero::tokenizer::{HfFolder, Tokenizer};
use std::io::IsTerminal;
use std::path::Path;

/// Opens a model and loads its weights.
pub(crate) async fn load(model: &Path, device: &Device) -> Result<Model> {
    let mut host = Loading {
        shows: std::io::stderr().is_terminal(),
    };
    Model::load_path(model, &device.options(), &mut host).await
}

impl Device {
    /// As the engine takes them.
    fn options(&self) -> LoadOptions {
        let device = match self.backend {
            Backend::Auto => engine::Device::Auto,
            Backend::Gpu => engine::Device::WebGpu,
            Backend::Cpu => engine::Device::Cpu,
            Backend::Reference => engine::Device::Reference,
        };
        LoadOptions {
            device,
            max_context: self.max_context,
            kv_cache_type: self.kv_cache_type.clone(),
            threads: self.threads.map(|n| n.max(1) as u32),
            quantize: self.quantize.clone(),
            kernels: Kernels {
                subgroups: self.no_subgroups.then_some(false),
                int8: self.int8,
                f16: self.f16,
                columns: self.columns,
                splits: self.columns,
                lanes: self.lanes,
            },
            tune: self.tune,
            profile: self.profile,
        }
    }
}

/// Shows a load on stderr.
struct Loading {
    /// Whether stderr is a terminal, which shows progress.
    shows: bool,
}

impl LoadHost for Loading {
    fn progress(&mut self, phase: LoadPhase, loaded: u64, total: u64) -> Result<()> {
        match phase {
            LoadPhase::Weights if self.shows => {
                eprint!("\rloading {} of {} MB", loaded >> 20, total >> 20);
            }
            LoadPhase::Ready if self.shows => eprint!("\r\x1b[K"),
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, opened: &Opened) -> LocalBoxFuture<'_, Result<()>> {
        warn(&opened.warnings);
        Box::pin(std::future::ready(Ok(())))
    }

    fn without_gpu(&mut self, reason: &Error) {
        say(&format!(
            "running on the CPU: {reason} (--backend gpu insists)"
        ));
    }
}

/// The tokenizer of a GGUF (of a split one, the first part is enough), of a `tokenizer.json` or `tokenizer.model`, or of a
/// Hugging Face folder.
pub(crate) async fn tokenizer(model: &Path) -> Result<Tokenizer> {
    let has_extension = |extension: &str| {
        model
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(extension))
    };
    let (is_json, is_pieces) = (has_extension("json"), has_extension("model"));
    if !model.is_dir() && !is_json && !is_pieces {
        return gguf_tokenizer(model).await;
    }
    let mut files = HfFolder::read(if model.is_dir() {
        model
    } else {
        model.parent().unwrap_or(Path::new("."))
    })?;
    if is_json || is_pieces {
        let name = if is_json {
            "tokenizer.json"
        } else {
            "tokenizer.model"
        };
        files.insert(
            name,
            std::fs::read(model).map_err(|e| Error::from(e).at(model.display()))?,
        );
    }
    let mut files = files.files();
    if is_pieces {
        // It was asked for, so the newer form beside it does not count.
        files.tokenizer_json = None;
    }
    let tokenizer = Tokenizer::from_hf(files)?;
    warn(tokenizer.warnings());
    Ok(tokenizer)
}

/// The tokenizer of a GGUF. That of a split set lies in the first part, beside whichever is given.
async fn gguf_tokenizer(model: &Path) -> Result<Tokenizer> {
    let parts = model
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(split_names);
    let first = parts
        .and_then(|parts| parts.into_iter().next())
        .map(|name| model.with_file_name(name));
    let path = first
        .as_deref()
        .filter(|path| path.exists())
        .unwrap_or(model);
    let source = FileSource::open(path)?;
    let (metadata, warnings) = Checkpoint::read_gguf_metadata(&source).await?;
    let tokenizer = Tokenizer::from_gguf(&metadata).map_err(|error| error.at(source.name()))?;
    warn(&warnings);
    warn(&tokenizer.warnings().clone().at(source.name()));
    Ok(tokenizer)
}
