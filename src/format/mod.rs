//! Files: from bytes to names, shapes, types and byte ranges.
//!
//! [`Checkpoint`] is the one view that GGUF and safetensors both give. Opening one reads headers only, by bounded
//! ranges; weights are read piece by piece when somebody asks. This module knows bytes: no device, and no meaning of
//! any tensor or key.
//!
//! Nothing in a file is trusted. A length is checked against the bytes that remain before anything is allocated for
//! it, every offset against the real size of the file, and each cap is a named constant with its reason.

mod gguf;
#[cfg(not(target_arch = "wasm32"))]
mod local;
mod metadata;
mod safetensors;
mod sniff;
mod source;

use std::collections::HashMap;
use std::rc::Rc;

pub use gguf::split_names;
pub use metadata::{Array, Metadata, StringArray, Value};
pub use safetensors::index_shards;
#[cfg(not(target_arch = "wasm32"))]
pub use source::FileSource;
pub use source::{ByteSource, LocalBoxFuture, MemorySource};

use crate::error::{Error, Result, Warnings};
use crate::quant::DType;

/// How much of a file is read first. Holds the header of a tiny model and of many safetensors shards.
const FIRST_READ_BYTES: u64 = 256 << 10;

/// The longest header that is read. GGUF with a vocabulary of 256k tokens and merges takes about 20 MB, a safetensors
/// header with 10,000 tensors about 1 MB.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// The most tensors a checkpoint may announce. The largest models published have tens of thousands; more would only
/// serve to exhaust memory (about 250 bytes each).
const MAX_TENSORS: u64 = 1 << 18;

/// The longest tensor name. ggml itself stops at 63 bytes, Hugging Face names stay under 200.
const MAX_TENSOR_NAME_BYTES: u64 = 255;

/// The error for bytes that no writer of such files leaves.
fn broken(what: impl std::fmt::Display) -> Error {
    Error::invalid_file(format!("{what}; the file is broken, download it again"))
}

/// Which kind of file a [`Checkpoint`] was read from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// ggml's single file (or split set) with metadata, vocabulary and weights.
    Gguf,
    /// Hugging Face's weights, beside config.json and tokenizer.json.
    Safetensors,
}

/// Where one tensor is, and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// The name in the file.
    pub name: String,
    /// How its weights are stored.
    pub dtype: DType,
    /// Outermost first: `[rows, cols]` for a matrix, so the reverse of ggml's `ne`. Weights of one row are adjacent.
    pub shape: Vec<u64>,
    /// Which of the checkpoint's sources holds it.
    pub file: usize,
    /// First byte, absolute in that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// The product of all dimensions but the last; 1 for a vector.
    pub fn rows(&self) -> u64 {
        self.shape.iter().rev().skip(1).product()
    }

    /// The last dimension: weights per row.
    pub fn cols(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes per row.
    pub fn row_bytes(&self) -> u64 {
        // Opening the file checked the row; the fallback is never taken.
        self.dtype.row_bytes(self.cols()).unwrap_or(0)
    }

    /// Weights in the tensor.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Makes the entry after checking everything that can be checked without the file: dimensions, block size,
    /// overflow. `bytes` is computed.
    fn new(name: String, dtype: DType, shape: Vec<u64>, file: usize, offset: u64) -> Result<TensorInfo> {
        if let Some(at) = shape.iter().position(|&dim| dim == 0) {
            return Err(broken(format_args!("tensor {name}: dimension {at} of {shape:?} is 0")));
        }
        let overflow = || broken(format_args!("tensor {name}: the size of {shape:?} overflows 64 bits"));
        shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim)).ok_or_else(overflow)?;
        let mut tensor = TensorInfo { name: String::new(), dtype, shape: Vec::new(), file, offset, bytes: 0 };
        let cols = shape.last().copied().unwrap_or(1);
        if !cols.is_multiple_of(dtype.block_len() as u64) {
            return Err(broken(format_args!(
                "tensor {name}: rows of {cols} are not a multiple of {}, the block size of {dtype}",
                dtype.block_len()
            )));
        }
        let rows = shape.iter().rev().skip(1).product::<u64>();
        tensor.bytes = dtype.row_bytes(cols).and_then(|row| row.checked_mul(rows)).ok_or_else(overflow)?;
        tensor.name = name;
        tensor.shape = shape;
        Ok(tensor)
    }
}

/// A model's tensors and metadata, over one or several files.
pub struct Checkpoint {
    format: FileFormat,
    sources: Vec<Rc<dyn ByteSource>>,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    warnings: Warnings,
}

impl Checkpoint {
    /// Opens a GGUF file, or all parts of a split set in any order; [`split_names`] tells what they are called.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidFile`](crate::error::ErrorKind::InvalidFile) for a broken file or another kind of file;
    /// [`ErrorKind::Unsupported`](crate::error::ErrorKind::Unsupported) for versions and tensor types that this build
    /// does not read; or the error of the source.
    pub async fn open_gguf(sources: Vec<Rc<dyn ByteSource>>) -> Result<Checkpoint> {
        let mut parts = Vec::with_capacity(sources.len());
        for source in sources {
            let header = gguf::read_header(source.as_ref()).await.map_err(|error| error.at(source.name()))?;
            parts.push((source, header));
        }
        let (sources, metadata, tensors) = gguf::join_parts(parts)?;
        let first = sources.first().map_or_else(String::new, |source| source.name().to_owned());
        Checkpoint::new(FileFormat::Gguf, sources, metadata, tensors).map_err(|error| error.at(first))
    }

    /// Opens safetensors: the text of config.json, of `model.safetensors.index.json` where there is one, and the files.
    ///
    /// With an index the files may come in any order and with others between; [`index_shards`] tells which it needs.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open_gguf`].
    pub async fn open_safetensors(
        config_json: &[u8],
        index_json: Option<&[u8]>,
        sources: Vec<Rc<dyn ByteSource>>,
    ) -> Result<Checkpoint> {
        safetensors::open(config_json, index_json, sources).await
    }

    fn new(
        format: FileFormat,
        sources: Vec<Rc<dyn ByteSource>>,
        metadata: Metadata,
        mut tensors: Vec<TensorInfo>,
    ) -> Result<Checkpoint> {
        if tensors.is_empty() {
            return Err(Error::invalid_file("the file holds no tensors; get the file with the weights"));
        }
        tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
        for pair in tensors.windows(2) {
            if pair[0].file == pair[1].file && pair[1].offset - pair[0].offset < pair[0].bytes {
                return Err(broken(format_args!("tensors {} and {} overlap", pair[0].name, pair[1].name)));
            }
        }
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), index).is_some() {
                return Err(broken(format_args!("two tensors are called {}", tensor.name)));
            }
        }
        Ok(Checkpoint { format, sources, metadata, tensors, by_name, warnings: Warnings::default() })
    }

    /// Which kind of file this is.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// What was wrong with the files and was left out.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// GGUF: the metadata of the (first) file. Safetensors: config.json, as [`Metadata::json`].
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, sorted by file and offset: the order in which to read them.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// The names of the files, in the order of [`TensorInfo::file`].
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.name())
    }

    /// What to call the files together in a message: the file's name, or the first one's and how many more.
    pub fn name(&self) -> String {
        let first = self.sources.first().map_or("", |source| source.name());
        match self.sources.len() {
            0 | 1 => first.to_owned(),
            files => format!("{first} and {} more", files - 1),
        }
    }

    /// `len` bytes of a tensor of this checkpoint, from its byte `offset_in_tensor` on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) when the range leaves the tensor, or the error of
    /// the source.
    pub async fn read(&self, tensor: &TensorInfo, offset_in_tensor: u64, len: usize) -> Result<Vec<u8>> {
        let in_range = offset_in_tensor.checked_add(len as u64).is_some_and(|end| end <= tensor.bytes);
        let (Some(source), true) = (self.sources.get(tensor.file), in_range) else {
            return Err(Error::internal(format!(
                "a read of {len} bytes at {offset_in_tensor} leaves the {} bytes of {}",
                tensor.bytes, tensor.name
            )));
        };
        source::read_exactly(source.as_ref(), tensor.offset + offset_in_tensor, len).await
    }

    /// Bytes of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.len()).sum()
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("format", &self.format)
            .field("files", &self.file_names().collect::<Vec<_>>())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
