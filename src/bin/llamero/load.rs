//! Loads models and tokenizers from the paths that commands are given.

use crate::args::{Backend, Device};
use crate::output::{invalid, say, warn};
use llamero::engine::{Engine, Opened};
use llamero::error::{Error, Result};
use llamero::exec::cpu::{CpuExecutor, CpuOptions, Pool};
use llamero::exec::gpu::{CacheType, Gpu, GpuExecutor, GpuOptions};
use llamero::exec::reference::ReferenceExecutor;
use llamero::exec::{Executor, Limits};
use llamero::format::{ByteSource, Checkpoint, FileSource, split_names};
use llamero::tokenizer::{HfFolder, Tokenizer};
use std::io::IsTerminal;
use std::path::Path;

/// Opens a model and loads its weights.
pub(crate) async fn load(model: &Path, device: &Device) -> Result<Engine> {
    let opened = Opened::open_path(model, device.quantize.as_deref()).await?;
    warn(&opened.warnings);
    Ok(load_with(opened, device).await?.0)
}

/// The engine, and the GPU if that is what runs it.
pub(crate) async fn load_with(opened: Opened, device: &Device) -> Result<(Engine, Option<Gpu>)> {
    let context = opened.context(device.max_context)?;
    let plan = opened.model.plan.clone();
    let gpu = match device.backend {
        Backend::Gpu => Some(Gpu::request_with(device.profile).await?),
        Backend::Auto => match Gpu::request_with(device.profile).await {
            Ok(gpu) if !gpu.capabilities().software => Some(gpu),
            Ok(gpu) => {
                say(&format!(
                    "{} is a software GPU: running on the CPU (--backend gpu insists)",
                    gpu.capabilities().name
                ));
                None
            }
            Err(error) => {
                say(&format!("running on the CPU: {error}"));
                None
            }
        },
        Backend::Cpu | Backend::Reference => None,
    };
    let executor: Box<dyn Executor> = match &gpu {
        None if device.backend == Backend::Reference => Box::new(ReferenceExecutor::new(
            plan,
            Limits::for_context(context, 64, 1),
        )?),
        None => {
            let cache_f16 = match device.cache_type() {
                "f16" => true,
                "f32" => false,
                other => {
                    return Err(invalid(&format!(
                        "--kv-cache-type {other}: on the CPU it may be f16 or f32"
                    )));
                }
            };
            let pool = Some(Pool::with_threads(device.threads()));
            Box::new(CpuExecutor::new(
                plan,
                context,
                CpuOptions {
                    pool,
                    cache_f16: Some(cache_f16),
                    ..CpuOptions::default()
                },
            )?)
        }
        Some(gpu) => {
            let options = GpuOptions {
                reference: Some(|plan, limits| Ok(Box::new(ReferenceExecutor::new(plan, limits)?))),
                subgroups: device.no_subgroups.then_some(false),
                int8: device.int8,
                f16: device.f16,
                columns: device.columns,
                splits: device.columns,
                lanes: device.lanes,
                tune: device.tune,
                cache: Some(CacheType::from_name(device.cache_type()).ok_or_else(|| {
                    invalid(&format!(
                        "--kv-cache-type {}: it may be f16, f32 or q8_0",
                        device.cache_type()
                    ))
                })?),
                ..GpuOptions::default()
            };
            Box::new(GpuExecutor::new(gpu, plan, context, &options).await?)
        }
    };
    let show = std::io::stderr().is_terminal();
    let engine = Engine::load(opened, executor, context, |p| {
        if show {
            eprint!("\rloading {} of {} MB", p.loaded >> 20, p.total >> 20);
        }
        Ok(())
    })
    .await?;
    if show {
        eprint!("\r\x1b[K");
    }
    Ok((engine, gpu))
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
