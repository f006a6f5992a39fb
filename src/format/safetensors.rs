//! Safetensors: a length, a JSON header, and the weights; several such files when an index says so.
//!
//! The header is parsed by ranges like GGUF's, into a bounded table and never into a JSON tree. The rules are those of
//! the `safetensors` crate's documentation: tensors cover the data without holes or overlaps, and nothing follows them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::source::{file_name, read_exactly};
use super::{
    ByteSource, Checkpoint, FIRST_READ_BYTES, FileFormat, MAX_HEADER_BYTES, MAX_TENSOR_NAME_BYTES, MAX_TENSORS,
    Metadata, TensorInfo, broken, sniff,
};
use crate::error::{Error, Result};
use crate::quant::DType;

/// The header's length, a little-endian u64, comes first.
const LENGTH_BYTES: u64 = 8;

/// The one key of a header that is no tensor.
const METADATA_KEY: &str = "__metadata__";

/// The most dimensions of a tensor; weights have at most three. Bounds what a header can cost.
const MAX_DIMS: usize = 8;

/// The longest config.json. Real ones are under 100 kB, and its JSON tree takes many times its size.
const MAX_CONFIG_BYTES: usize = 1 << 20;

/// See [`Checkpoint::open_safetensors`].
pub(super) async fn open(
    config_json: &[u8],
    index_json: Option<&[u8]>,
    sources: Vec<Rc<dyn ByteSource>>,
) -> Result<Checkpoint> {
    let metadata = Metadata::from_json(parse_config(config_json)?);
    let index = index_json.map(parse_index).transpose()?;
    let sources = match &index {
        Some(index) => choose_shards(index, sources)?,
        None => sources,
    };
    if sources.is_empty() {
        return Err(Error::invalid_input("no safetensors file was given"));
    }
    let mut tensors = Vec::new();
    for (file, source) in sources.iter().enumerate() {
        let of_file = read_header(source.as_ref(), file).await.map_err(|error| error.at(source.name()))?;
        tensors.extend(of_file);
        if tensors.len() as u64 > MAX_TENSORS {
            return Err(Error::invalid_file(format!("the files hold more than {MAX_TENSORS} tensors")));
        }
    }
    let checkpoint = Checkpoint::new(FileFormat::Safetensors, sources, metadata, tensors)?;
    if let Some(index) = &index {
        check_index(index, &checkpoint)?;
    }
    Ok(checkpoint)
}

/// The names of the files that a `model.safetensors.index.json` needs, each once, in the order of first mention.
///
/// # Errors
///
/// [`ErrorKind::InvalidFile`](crate::error::ErrorKind::InvalidFile) when it is no such index, or names anything but a
/// plain file beside itself.
pub fn index_shards(index_json: &[u8]) -> Result<Vec<String>> {
    Ok(parse_index(index_json)?.shards)
}

fn parse_config(json: &[u8]) -> Result<serde_json::Value> {
    if json.len() > MAX_CONFIG_BYTES {
        return Err(Error::invalid_file(format!(
            "config.json is {} bytes long, which is no configuration",
            json.len()
        )));
    }
    let config: serde_json::Value = serde_json::from_slice(json)
        .map_err(|error| Error::invalid_file("config.json is not JSON; download it again").with_source(error))?;
    if !config.is_object() {
        return Err(Error::invalid_file("config.json is not a JSON object; download it again"));
    }
    Ok(config)
}

/// A parsed index: which tensor is in which shard.
struct Index {
    shards: Vec<String>,
    /// Tensor name, and number of its shard.
    tensors: Vec<(String, usize)>,
}

fn parse_index(json: &[u8]) -> Result<Index> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        weight_map: Table<Cow<'a, str>>,
    }
    if json.len() as u64 > MAX_HEADER_BYTES {
        return Err(Error::invalid_file("model.safetensors.index.json is too long; download it again"));
    }
    let raw: Raw = serde_json::from_slice(json).map_err(|error| {
        Error::invalid_file("model.safetensors.index.json is not a safetensors index; download it again")
            .with_source(error)
    })?;
    let mut shards: Vec<String> = Vec::new();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut tensors = Vec::with_capacity(raw.weight_map.0.len());
    for (tensor, shard) in &raw.weight_map.0 {
        let number = match numbers.get(shard.as_ref()) {
            Some(&number) => number,
            None => {
                check_shard_name(shard)?;
                shards.push(shard.to_string());
                numbers.insert(shard, shards.len() - 1);
                shards.len() - 1
            }
        };
        tensors.push((tensor.clone(), number));
    }
    Ok(Index { shards, tensors })
}

/// An index must not reach out of its folder.
fn check_shard_name(shard: &str) -> Result<()> {
    if shard.is_empty() || shard.starts_with('.') || shard.contains(['/', '\\', ':', '\0', '?', '#', '%']) {
        return Err(Error::invalid_file(format!(
            "model.safetensors.index.json names {shard:?}, which is not a plain file name; get the model from a source you trust"
        )));
    }
    Ok(())
}

/// The sources that the index names, in its order.
fn choose_shards(index: &Index, sources: Vec<Rc<dyn ByteSource>>) -> Result<Vec<Rc<dyn ByteSource>>> {
    let find = |shard: &String| {
        sources.iter().find(|source| file_name(source.name()) == shard).cloned().ok_or_else(|| {
            Error::invalid_input(format!("model.safetensors.index.json needs {shard}, which is missing; add that file"))
        })
    };
    index.shards.iter().map(find).collect()
}

fn check_index(index: &Index, checkpoint: &Checkpoint) -> Result<()> {
    for (name, shard) in &index.tensors {
        if checkpoint.tensor(name).is_none_or(|tensor| tensor.file != *shard) {
            return Err(Error::invalid_file(format!(
                "model.safetensors.index.json puts {name} into {}, which does not hold it; download both again",
                index.shards[*shard]
            )));
        }
    }
    Ok(())
}

/// Reads the header of one file and checks its tensors against the file's length.
async fn read_header(source: &dyn ByteSource, file: usize) -> Result<Vec<TensorInfo>> {
    let file_len = source.len();
    // At most MAX_HEADER_BYTES here and below, so it fits usize on every machine.
    let mut bytes = read_exactly(source, 0, file_len.min(FIRST_READ_BYTES) as usize).await?;
    let start = &bytes[..bytes.len().min(sniff::SNIFF_BYTES)];
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(not_safetensors(start, file_len, "it is shorter than 8 bytes"));
    };
    let length = u64::from_le_bytes(*length);
    if length > file_len - LENGTH_BYTES {
        let detail = format!("its header should have {length} bytes, the whole file has {file_len}");
        return Err(not_safetensors(start, file_len, &detail));
    }
    // The header must begin with a brace; where it does not, the file may be something we can name.
    if let (Some(error), false) = (sniff::not_safetensors(start, file_len), start.get(8) == Some(&b'{')) {
        return Err(error);
    }
    if length > MAX_HEADER_BYTES {
        let detail = format!("its header has {length} bytes, at most {} MiB are read", MAX_HEADER_BYTES >> 20);
        return Err(not_safetensors(start, file_len, &detail));
    }
    let data_start = LENGTH_BYTES + length;
    if data_start > bytes.len() as u64 {
        let rest = read_exactly(source, bytes.len() as u64, (data_start - bytes.len() as u64) as usize).await?;
        bytes.reserve_exact(rest.len());
        bytes.extend_from_slice(&rest);
    }
    let header = &bytes[LENGTH_BYTES as usize..data_start as usize];
    let table: Table<Entry> = serde_json::from_slice(header).map_err(|error| {
        Error::invalid_file("the safetensors header is broken; download it again").with_source(error)
    })?;

    let data_len = file_len - data_start;
    let mut tensors = Vec::with_capacity(table.0.len());
    for (name, entry) in table.0 {
        let (begin, end) = entry.data_offsets;
        if begin > end || end > data_len {
            return Err(Error::invalid_file(format!(
                "tensor {name}: bytes {begin} to {end} are not within the {data_len} bytes of data; the file is truncated \
                 or broken, download it again"
            )));
        }
        let dtype = dtype(&name, &entry.dtype)?;
        let tensor = TensorInfo::new(name, dtype, entry.shape.0, file, data_start + begin)?;
        if tensor.bytes != end - begin {
            return Err(broken(format_args!(
                "tensor {}: {} of shape {:?} takes {} bytes, the header gives it {}",
                tensor.name,
                tensor.dtype,
                tensor.shape,
                tensor.bytes,
                end - begin
            )));
        }
        tensors.push(tensor);
    }
    check_coverage(&mut tensors, data_start, file_len)?;
    Ok(tensors)
}

/// Sorts tensors by offset; there may be neither holes nor overlaps, nor anything after the last.
fn check_coverage(tensors: &mut [TensorInfo], data_start: u64, file_len: u64) -> Result<()> {
    tensors.sort_by_key(|tensor| tensor.offset);
    let mut covered = data_start;
    for tensor in tensors.iter() {
        if tensor.offset != covered {
            let what = if tensor.offset < covered { "overlaps the one before it" } else { "comes after a hole" };
            return Err(broken(format_args!("tensor {} {what}", tensor.name)));
        }
        covered += tensor.bytes;
    }
    if covered != file_len {
        return Err(Error::invalid_file(format!(
            "the header describes {covered} bytes, the file has {file_len}; download it again"
        )));
    }
    Ok(())
}

fn not_safetensors(start: &[u8], file_len: u64, otherwise: &str) -> Error {
    sniff::not_safetensors(start, file_len).unwrap_or_else(|| {
        Error::invalid_file(format!("this is not a safetensors file: {otherwise}; download it again"))
    })
}

fn dtype(tensor: &str, name: &str) -> Result<DType> {
    match name {
        "F32" => Ok(DType::F32),
        "F16" => Ok(DType::F16),
        "BF16" => Ok(DType::BF16),
        _ => Err(Error::unsupported(format!(
            "tensor {tensor} is stored as {name:.20}; of safetensors only F32, F16 and BF16 are supported. For a \
             quantised model choose a GGUF file"
        ))),
    }
}

/// One tensor of a header.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Dims,
    data_offsets: (u64, u64),
}

/// At most [`MAX_DIMS`] dimensions.
struct Dims(Vec<u64>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dims, D::Error> {
        struct DimsVisitor;
        impl<'de> Visitor<'de> for DimsVisitor {
            type Value = Dims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_DIMS} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Dims, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = sequence.next_element()? {
                    if dims.len() == MAX_DIMS {
                        return Err(A::Error::invalid_length(MAX_DIMS + 1, &self));
                    }
                    dims.push(dim);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(DimsVisitor)
    }
}

/// A JSON object from tensor names to `V`, in its own order, with at most [`MAX_TENSORS`] entries; the header's
/// `__metadata__` is left out. A name that appears twice is found later, by [`Checkpoint::new`].
struct Table<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Table<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Table<V>, D::Error> {
        struct TableVisitor<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for TableVisitor<V> {
            type Value = Table<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a tensor per key")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<V>, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key == METADATA_KEY {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if key.is_empty() || key.len() as u64 > MAX_TENSOR_NAME_BYTES {
                        return Err(A::Error::custom(format!("a tensor name has {} bytes", key.len())));
                    }
                    if entries.len() as u64 == MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    let value = map.next_value().map_err(|error| A::Error::custom(format!("tensor {key}: {error}")))?;
                    entries.push((key.into_owned(), value));
                }
                Ok(Table(entries))
            }
        }
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}
