//! Opening a checkpoint by its path on a local disk: a GGUF file, or a folder of safetensors.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{ByteSource, Checkpoint, FileSource, no_weights, safetensors, split_names};
use crate::error::{Error, ErrorKind, Result};

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Opens the model at `path`: a GGUF file (any part of a split set, the others lie beside it), or a folder with
    /// config.json and safetensors.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open_gguf`] and [`Checkpoint::open_safetensors`];
    /// [`ErrorKind::Io`] when a file is missing or cannot be read.
    pub async fn open_path(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return open_folder(path).await;
        }
        let names = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(split_names);
        let paths = match names {
            Some(names) => names
                .into_iter()
                .map(|name| path.with_file_name(name))
                .collect(),
            None => vec![path.to_owned()],
        };
        Self::open_gguf(open_all(&paths)?).await
    }
}

async fn open_folder(folder: &Path) -> Result<Checkpoint> {
    let names = file_names(folder)?;
    let weights: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    let config = read(&folder.join(CONFIG)).map_err(|error| match no_weights(&names) {
        Some(other) if weights.is_empty() => other,
        _ => {
            error.advise("a folder of safetensors needs it: name a model's folder, or a GGUF file")
        }
    })?;
    let index_path = folder.join(INDEX);
    let index = if index_path.exists() {
        Some(read(&index_path)?)
    } else {
        None
    };
    if weights.is_empty()
        && index.is_none()
        && let Some(other) = no_weights(&names)
    {
        return Err(other);
    }
    let not_chosen = |error: Error| match error.kind() {
        // What is missing is missing on the disk.
        ErrorKind::InvalidInput => Error::new(ErrorKind::Io, error.detail()).at(folder.display()),
        _ => error,
    };
    let chosen = safetensors::choose_files(&weights, index.as_deref()).map_err(not_chosen)?;
    let index = index.filter(|_| chosen.by_index);
    let paths: Vec<PathBuf> = chosen
        .files
        .iter()
        .map(|file| folder.join(weights[*file]))
        .collect();
    let mut checkpoint =
        Checkpoint::open_safetensors(&config, index.as_deref(), open_all(&paths)?).await?;
    checkpoint.warnings.append(chosen.warnings);
    Ok(checkpoint)
}

/// The names of the files in a folder, sorted; those that are not Unicode are none of a model.
fn file_names(folder: &Path) -> Result<Vec<String>> {
    let failed = |error| {
        Error::new(ErrorKind::Io, format!("cannot read {}", folder.display())).with_source(error)
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<Rc<dyn ByteSource>>> {
    paths
        .iter()
        .map(|path| Ok(Rc::new(FileSource::open(path)?) as Rc<dyn ByteSource>))
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::new(ErrorKind::Io, format!("cannot read {}", path.display())).with_source(error)
    })
}
