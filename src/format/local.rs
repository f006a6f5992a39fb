//! Opening a checkpoint by its path on a local disk: a GGUF file, or a folder of safetensors.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{ByteSource, Checkpoint, FileSource, index_shards, split_names};
use crate::error::{Error, ErrorKind, Result};

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

impl Checkpoint {
    /// Opens the model at `path`: a GGUF file (any part of a split set, the others lie beside it), or a folder with
    /// config.json and safetensors.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open_gguf`] and [`Checkpoint::open_safetensors`];
    /// [`ErrorKind::Io`] when a file is missing or cannot be read.
    pub async fn open_path(path: &Path) -> Result<Checkpoint> {
        if path.is_dir() {
            return open_folder(path).await;
        }
        let names = path.file_name().and_then(|name| name.to_str()).and_then(split_names);
        let paths = match names {
            Some(names) => names.into_iter().map(|name| path.with_file_name(name)).collect(),
            None => vec![path.to_owned()],
        };
        Checkpoint::open_gguf(open_all(&paths)?).await
    }
}

async fn open_folder(folder: &Path) -> Result<Checkpoint> {
    let config = read(&folder.join(CONFIG))
        .map_err(|error| error.advise("a folder of safetensors needs it: name a model's folder, or a GGUF file"))?;
    let index_path = folder.join(INDEX);
    let index = if index_path.exists() { Some(read(&index_path)?) } else { None };
    let names = match &index {
        Some(index) => index_shards(index)?,
        None => vec![SINGLE.to_owned()],
    };
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    Checkpoint::open_safetensors(&config, index.as_deref(), open_all(&paths)?).await
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<Rc<dyn ByteSource>>> {
    paths.iter().map(|path| Ok(Rc::new(FileSource::open(path)?) as Rc<dyn ByteSource>)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Error::new(ErrorKind::Io, format!("cannot read {}", path.display())).with_source(error))
}
