//! Files: from bytes to names, shapes, types and byte ranges.
//!
//! [`Checkpoint`] is the one view that GGUF and safetensors both give. Opening one reads headers only, by bounded
//! ranges; weights are read piece by piece when somebody asks. This module knows bytes: no device, and no meaning of
//! any tensor or key.
//!
//! Nothing in a file is trusted. A length is checked against the bytes that remain before anything is allocated for
//! it, every offset against the real size of the file, and each cap is a named constant with its reason.

#![warn(
    clippy::cast_possible_truncation,
    reason = "a file's numbers become ours here"
)]

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
pub(crate) use sniff::{check_small, json_text, no_weights};
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
    fn new(name: String, dtype: DType, shape: Vec<u64>, file: usize, offset: u64) -> Result<Self> {
        let overflow = || overflow(&name, &shape);
        elements(&shape).ok_or_else(overflow)?;
        let mut tensor = Self {
            name: String::new(),
            dtype,
            shape: Vec::new(),
            file,
            offset,
            bytes: 0,
        };
        let cols = shape.last().copied().unwrap_or(1);
        if !cols.is_multiple_of(dtype.block_len() as u64) {
            return Err(broken(format_args!(
                "tensor {name}: rows of {cols} are not a multiple of {}, the block size of {dtype}",
                dtype.block_len()
            )));
        }
        let rows = shape.iter().rev().skip(1).product::<u64>();
        tensor.bytes = dtype
            .row_bytes(cols)
            .and_then(|row| row.checked_mul(rows))
            .ok_or_else(overflow)?;
        tensor.name = name;
        tensor.shape = shape;
        Ok(tensor)
    }
}

/// The number of elements of a shape; `None` where it does not fit.
fn elements(shape: &[u64]) -> Option<u64> {
    shape
        .iter()
        .try_fold(1_u64, |product, &dim| product.checked_mul(dim))
}

fn overflow(name: &str, shape: &[u64]) -> Error {
    broken(format_args!(
        "tensor {name}: the size of {shape:?} overflows 64 bits"
    ))
}

/// A tensor that can be no weight of a model: its elements have a type that no weight has (buffers of integers), or it
/// has no elements. It costs nothing until somebody needs it.
struct Unread {
    name: String,
    /// The type's name in its format.
    type_name: String,
    /// The dimension that is 0, and the shape.
    empty: Option<(usize, Vec<u64>)>,
    file: usize,
    offset: u64,
    bytes: u64,
}

impl Unread {
    /// `element_bytes`: 0 where it is not known; `bytes` is then 0 too.
    fn new(
        name: String,
        type_name: &str,
        element_bytes: u64,
        shape: &[u64],
        file: usize,
        offset: u64,
    ) -> Result<Self> {
        let bytes = elements(shape).and_then(|count| count.checked_mul(element_bytes));
        let bytes = bytes.ok_or_else(|| overflow(&name, shape))?;
        let empty = shape
            .iter()
            .position(|&dim| dim == 0)
            .map(|at| (at, shape.to_vec()));
        Ok(Self {
            name,
            type_name: type_name.to_owned(),
            empty,
            file,
            offset,
            bytes,
        })
    }

    /// What to say where a model needs it.
    fn refuse(&self, format: FileFormat) -> Error {
        let name = &self.name;
        if let Some((at, shape)) = &self.empty {
            return broken(format_args!(
                "tensor {name}: dimension {at} of {shape:?} is 0"
            ));
        }
        let type_name = &self.type_name;
        Error::unsupported(match format {
            FileFormat::Safetensors => format!(
                "tensor {name} is stored as {type_name:.20}; of safetensors only F32, F16 and BF16 are supported. For a \
                 quantised model choose a GGUF file"
            ),
            FileFormat::Gguf if type_name == "F64" => {
                format!("tensor {name} is stored as F64; choose another file of this model")
            }
            FileFormat::Gguf => format!(
                "tensor {name} is stored as {type_name}, integers, which are no weights; choose another file of this model"
            ),
        })
    }
}

/// An entry of a file's tensor table.
enum Stored {
    Weights(TensorInfo),
    Unread(Unread),
}

impl Stored {
    fn name_and_bytes(&self) -> (&str, u64) {
        match self {
            Self::Weights(tensor) => (&tensor.name, tensor.bytes),
            Self::Unread(tensor) => (&tensor.name, tensor.bytes),
        }
    }

    fn offset(&self) -> u64 {
        match self {
            Self::Weights(tensor) => tensor.offset,
            Self::Unread(tensor) => tensor.offset,
        }
    }
}

/// A model's tensors and metadata, over one or several files.
pub struct Checkpoint {
    format: FileFormat,
    sources: Vec<Rc<dyn ByteSource>>,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    /// Sorted by name.
    unread: Vec<Unread>,
    /// Tensors that an index names and no file holds, each with the shard that should.
    promised: Vec<(String, String)>,
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
    pub async fn open_gguf(sources: Vec<Rc<dyn ByteSource>>) -> Result<Self> {
        let mut parts = Vec::with_capacity(sources.len());
        for source in sources {
            let header = gguf::read_header(source.as_ref())
                .await
                .map_err(|error| error.at(source.name()))?;
            parts.push((source, header));
        }
        let joined = gguf::join_parts(parts)?;
        let first = joined
            .sources
            .first()
            .map_or_else(String::new, |source| source.name().to_owned());
        let mut checkpoint = Self::new(
            FileFormat::Gguf,
            joined.sources,
            joined.metadata,
            joined.tensors,
            joined.unread,
        )
        .map_err(|error| error.at(first))?;
        checkpoint.warnings.append(joined.warnings);
        Ok(checkpoint)
    }

    /// Reads only what a GGUF file says about its model, tokenizer included. Of a split set the first part is enough:
    /// the others hold weights.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open_gguf`];
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for another part than the first.
    pub async fn read_gguf_metadata(source: &dyn ByteSource) -> Result<(Metadata, Warnings)> {
        let read = async {
            let (metadata, warnings) = gguf::read_header(source).await?.into_metadata();
            gguf::check_first(&metadata)?;
            Ok((metadata, warnings.at(source.name())))
        };
        read.await.map_err(|error: Error| error.at(source.name()))
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
    ) -> Result<Self> {
        safetensors::open(config_json, index_json, sources).await
    }

    fn new(
        format: FileFormat,
        sources: Vec<Rc<dyn ByteSource>>,
        metadata: Metadata,
        mut tensors: Vec<TensorInfo>,
        mut unread: Vec<Unread>,
    ) -> Result<Self> {
        if tensors.is_empty() {
            return Err(match unread.first() {
                Some(tensor) => tensor.refuse(format),
                None => {
                    Error::invalid_file("the file holds no tensors; get the file with the weights")
                }
            });
        }
        tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
        for pair in tensors.windows(2) {
            if pair[0].file == pair[1].file && pair[1].offset - pair[0].offset < pair[0].bytes {
                return Err(broken(format_args!(
                    "tensors {} and {} overlap",
                    pair[0].name, pair[1].name
                )));
            }
        }
        // What is not read may overlap what it likes.
        unread.sort_by_key(|tensor| (tensor.file, tensor.offset));
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), index).is_some() {
                return Err(broken(format_args!(
                    "two tensors are called {}",
                    tensor.name
                )));
            }
        }
        if let Some(tensor) = unread
            .iter()
            .find(|tensor| by_name.contains_key(&tensor.name))
        {
            return Err(broken(format_args!(
                "two tensors are called {}",
                tensor.name
            )));
        }
        let mut warnings = Warnings::default();
        if !unread.is_empty() {
            warnings.add(left_aside(&unread, &sources));
            unread.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(Self {
            format,
            sources,
            metadata,
            tensors,
            by_name,
            unread,
            promised: Vec::new(),
            warnings,
        })
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

    /// Whether the files hold a tensor of this name, be it one that cannot be read.
    pub fn holds(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.unread(name).is_some()
    }

    fn unread(&self, name: &str) -> Option<&Unread> {
        let at = self
            .unread
            .binary_search_by(|tensor| tensor.name.as_str().cmp(name))
            .ok()?;
        self.unread.get(at)
    }

    /// The tensor called `name`, which the model needs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidFile`](crate::error::ErrorKind::InvalidFile) where it is missing or has no elements,
    /// [`ErrorKind::Unsupported`](crate::error::ErrorKind::Unsupported) where its type is none that weights have.
    pub fn require(&self, name: &str) -> Result<&TensorInfo> {
        if let Some(tensor) = self.tensor(name) {
            return Ok(tensor);
        }
        Err(if let Some(tensor) = self.unread(name) {
            tensor.refuse(self.format)
        } else if let Some((_, shard)) = self.promised.iter().find(|(tensor, _)| tensor == name) {
            Error::invalid_file(format!(
                "model.safetensors.index.json puts {name} into {shard}, which does not hold it; download both again"
            ))
        } else {
            Error::invalid_file(format!(
                "the file has no tensor {name}, which this model needs; get the whole model"
            ))
        })
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
    pub async fn read(
        &self,
        tensor: &TensorInfo,
        offset_in_tensor: u64,
        len: usize,
    ) -> Result<Vec<u8>> {
        let in_range = offset_in_tensor
            .checked_add(len as u64)
            .is_some_and(|end| end <= tensor.bytes);
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

/// The warning for tensors that are no weights.
fn left_aside(unread: &[Unread], sources: &[Rc<dyn ByteSource>]) -> String {
    const SHOWN: usize = 3;
    let show = |tensor: &Unread| match &tensor.empty {
        Some(_) => format!("{:.60} (empty)", tensor.name),
        None => format!("{:.60} ({:.20})", tensor.name, tensor.type_name),
    };
    let shown: Vec<String> = unread.iter().take(SHOWN).map(show).collect();
    let more = if unread.len() > SHOWN {
        format!(" and {} more", unread.len() - SHOWN)
    } else {
        String::new()
    };
    let file = unread
        .first()
        .and_then(|tensor| sources.get(tensor.file))
        .map_or("", |source| source.name());
    format!(
        "{file}: {}{more} can be no weights and are left aside; the model does not use them",
        shown.join(", ")
    )
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
