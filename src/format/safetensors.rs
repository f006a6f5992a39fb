//! Safetensors: a length, a JSON header, and the weights; several such files when an index says so.
//!
//! The header is parsed by ranges like GGUF's, into a bounded table and never into a JSON tree. The rules are those of
//! the `safetensors` crate's documentation: tensors cover the data without holes or overlaps, and nothing follows them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::gguf::{Numbered, numbered};
use super::source::{file_name, in_memory, read_exactly};
use super::{
    ByteSource, Checkpoint, FIRST_READ_BYTES, FileFormat, MAX_HEADER_BYTES, MAX_TENSOR_NAME_BYTES,
    MAX_TENSORS, Metadata, Stored, TensorInfo, Unread, broken, sniff,
};
use crate::error::{Error, Result, Warnings};
use crate::quant::DType;

/// The header's length, a little-endian u64, comes first.
const LENGTH_BYTES: u64 = 8;

/// The one key of a header that is no tensor.
const METADATA_KEY: &str = "__metadata__";

/// The most dimensions of a tensor; weights have at most three. Bounds what a header can cost.
const MAX_DIMS: usize = 8;

/// The longest config.json. Real ones are under 100 kB, and its JSON tree takes many times its size.
const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Which tensor lies in which file, where there are several.
const INDEX: &str = "model.safetensors.index.json";
/// The file of a model that is not cut.
const SINGLE: &str = "model.safetensors";

/// See [`Checkpoint::open_safetensors`].
pub(super) async fn open(
    config_json: &[u8],
    index_json: Option<&[u8]>,
    sources: Vec<Rc<dyn ByteSource>>,
) -> Result<Checkpoint> {
    let metadata = Metadata::from_json(parse_config(config_json)?);
    let index = index_json.map(parse_index).transpose()?;
    let names: Vec<&str> = sources
        .iter()
        .map(|source| file_name(source.name()))
        .collect();
    let Choice {
        files,
        by_index,
        mut warnings,
    } = choose(&names, index.as_ref())?;
    let index = index.filter(|_| by_index);
    let sources: Vec<Rc<dyn ByteSource>> = files
        .into_iter()
        .filter_map(|file| sources.get(file).cloned())
        .collect();
    let (mut tensors, mut unread) = (Vec::new(), Vec::new());
    for (file, source) in sources.iter().enumerate() {
        let of_file = read_header(source.as_ref(), file)
            .await
            .map_err(|error| error.at(source.name()))?;
        for stored in of_file {
            match stored {
                Stored::Weights(tensor) => tensors.push(tensor),
                Stored::Unread(tensor) => unread.push(tensor),
            }
        }
        if (tensors.len() + unread.len()) as u64 > MAX_TENSORS {
            return Err(Error::invalid_file(format!(
                "the files hold more than {MAX_TENSORS} tensors"
            )));
        }
    }
    if let Some(index) = &index {
        resolve_twins(index, &mut tensors, &mut warnings);
    }
    let mut checkpoint =
        Checkpoint::new(FileFormat::Safetensors, sources, metadata, tensors, unread)?;
    if let Some(index) = index {
        check_index(index, &mut checkpoint);
    }
    checkpoint.warnings.append(warnings);
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
    let config: serde_json::Value = serde_json::from_slice(&sniff::json_text("config.json", json)?)
        .map_err(|error| {
            Error::invalid_file("config.json is not JSON; download it again").with_source(error)
        })?;
    if !config.is_object() {
        return Err(Error::invalid_file(
            "config.json is not a JSON object; download it again",
        ));
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
        return Err(Error::invalid_file(
            "model.safetensors.index.json is too long; download it again",
        ));
    }
    let json = sniff::json_text(INDEX, json)?;
    let raw: Raw<'_> = serde_json::from_slice(&json).map_err(|error| {
        Error::invalid_file(
            "model.safetensors.index.json is not a safetensors index; download it again",
        )
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
    if shard.is_empty()
        || shard.starts_with('.')
        || shard.contains(['/', '\\', ':', '\0', '?', '#', '%'])
    {
        return Err(Error::invalid_file(format!(
            "model.safetensors.index.json names {shard:?}, which is not a plain file name; get the model from a source you trust"
        )));
    }
    Ok(())
}

/// Which of the files at hand hold the model.
pub(super) struct Choice {
    /// Their numbers; in the index' order, where it counts.
    pub files: Vec<usize>,
    /// The index counts.
    pub by_index: bool,
    pub warnings: Warnings,
}

/// Which safetensors of a local folder hold its model, of those that are there (`names`, plain file names).
///
/// # Errors
///
/// [`ErrorKind::InvalidFile`](crate::error::ErrorKind::InvalidFile) for a broken index,
/// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) where a file that the model needs is missing.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn choose_files(names: &[&str], index_json: Option<&[u8]>) -> Result<Choice> {
    choose(names, index_json.map(parse_index).transpose()?.as_ref())
}

/// The index' shards, if all are there; else model.safetensors; else a whole numbered set; else whatever is no adapter
/// and no copy in another form.
fn choose(names: &[&str], index: Option<&Index>) -> Result<Choice> {
    if names.is_empty() && index.is_none() {
        return Err(Error::invalid_input(format!(
            "there is no safetensors file; add {SINGLE}, or all parts and {INDEX}"
        )));
    }
    let find = |wanted: &str| names.iter().position(|name| *name == wanted);
    let (whole, mut warnings) = (find(SINGLE), Warnings::default());
    if let Some(index) = index {
        let shards: Vec<Option<usize>> = index.shards.iter().map(|shard| find(shard)).collect();
        let missing = shards
            .iter()
            .position(Option::is_none)
            .and_then(|at| index.shards.get(at));
        match (missing, whole) {
            (None, _) => {
                let files = shards.into_iter().flatten().collect();
                return Ok(Choice { files, by_index: true, warnings });
            }
            (Some(shard), Some(_)) => warnings.add(format!(
                "{INDEX} is left aside: it names {shard:.80}, which is not there, and {SINGLE} holds a whole model"
            )),
            (Some(shard), None) => {
                return Err(Error::invalid_input(format!("{INDEX} needs {shard}, which is missing; add that file")));
            }
        }
    }
    let files = match whole {
        Some(file) => vec![file],
        None => match numbered_set(names)? {
            Some(files) => {
                warnings.add(format!(
                    "{INDEX} is missing; the parts are numbered, and all of them are there"
                ));
                files
            }
            None => without_others(names),
        },
    };
    if index.is_none() && files.len() < names.len() {
        let others: Vec<&str> = (0..names.len())
            .filter(|file| !files.contains(file))
            .map(|file| names[file])
            .collect();
        let count = if others.len() > 1 {
            format!(" and {} more", others.len() - 1)
        } else {
            String::new()
        };
        let first = files.first().map_or("", |file| names[*file]);
        warnings.add(format!(
            "{:.80}{count} left aside: {first:.80} holds the model",
            others[0]
        ));
    }
    Ok(Choice {
        files,
        by_index: false,
        warnings,
    })
}

/// The parts of the one set `STEM-00001-of-00003.safetensors` among the files, in order, if there is one.
fn numbered_set(names: &[&str]) -> Result<Option<Vec<usize>>> {
    let parts: Vec<(usize, Numbered<'_>)> = names
        .iter()
        .enumerate()
        .filter_map(|(file, name)| Some((file, numbered(name, ".safetensors")?)))
        .collect();
    let Some((_, first)) = parts.first() else {
        return Ok(None);
    };
    if parts
        .iter()
        .any(|(_, part)| (part.stem, part.count) != (first.stem, first.count))
    {
        return Ok(None);
    }
    let find = |number: u32| {
        let part = parts
            .iter()
            .find(|(_, part)| part.number == number)
            .map(|(file, _)| *file);
        part.ok_or_else(|| {
            let name = first.name(number, ".safetensors");
            Error::invalid_input(format!(
                "{name:.100} is missing, one of {} parts of the model; add that file",
                first.count
            ))
        })
    };
    (1..=first.count).map(find).collect::<Result<_>>().map(Some)
}

/// The files that are neither adapters nor a second copy of another (`NAME.fp16.safetensors`, Mistral's
/// `consolidated.safetensors`); all, where that leaves none.
fn without_others(names: &[&str]) -> Vec<usize> {
    let is_other = |name: &str| {
        let stem = name.strip_suffix(".safetensors").unwrap_or(name);
        let variant = stem.rsplit_once('.').is_some_and(|(base, _)| {
            names
                .iter()
                .any(|other| other.strip_suffix(".safetensors") == Some(base))
        });
        variant || stem.starts_with("adapter_") || stem.starts_with("consolidated")
    };
    let files: Vec<usize> = (0..names.len())
        .filter(|file| !is_other(names[*file]))
        .collect();
    if files.is_empty() {
        (0..names.len()).collect()
    } else {
        files
    }
}

/// Of tensors that several files hold under one name, keeps the one in the file that the index names.
fn resolve_twins(index: &Index, tensors: &mut Vec<TensorInfo>, warnings: &mut Warnings) {
    let mut files: HashMap<&str, (usize, bool)> = HashMap::with_capacity(tensors.len());
    for tensor in tensors.iter() {
        files
            .entry(&tensor.name)
            .and_modify(|(file, twins)| *twins |= *file != tensor.file)
            .or_insert((tensor.file, false));
    }
    if !files.values().any(|(_, twins)| *twins) {
        return;
    }
    let twins: HashSet<String> = files
        .into_iter()
        .filter(|(_, (_, twins))| *twins)
        .map(|(name, _)| name.to_owned())
        .collect();
    let chosen: HashMap<&str, usize> = index
        .tensors
        .iter()
        .map(|(name, shard)| (name.as_str(), *shard))
        .collect();
    let before = tensors.len();
    // A name that the index does not settle stays twice, which is refused.
    tensors.retain(|tensor| {
        let settled = chosen
            .get(tensor.name.as_str())
            .filter(|_| twins.contains(&tensor.name));
        settled.is_none_or(|file| *file == tensor.file)
    });
    if tensors.len() < before {
        let first = twins.iter().min().map_or("", String::as_str);
        warnings.add(format!(
            "several shards hold {first:.80}{}; the one that {INDEX} names counts",
            if twins.len() > 1 {
                format!(" and {} tensors more", twins.len() - 1)
            } else {
                String::new()
            }
        ));
    }
}

/// Notes where the index and the shards disagree. A tensor that is missing is an error only where the model needs it,
/// and one that lies in another shard is found there.
fn check_index(index: Index, checkpoint: &mut Checkpoint) {
    let (mut elsewhere, mut missing) = (Vec::new(), Vec::new());
    for (name, shard) in index.tensors {
        match checkpoint.tensor(&name) {
            Some(tensor) if tensor.file == shard => {}
            Some(_) => elsewhere.push(name),
            None if checkpoint.holds(&name) => {}
            None => missing.push((name, index.shards[shard].clone())),
        }
    }
    let more = |count: usize| {
        if count > 1 {
            format!(" and {} tensors more", count - 1)
        } else {
            String::new()
        }
    };
    if let Some(first) = elsewhere.first() {
        checkpoint.warnings.add(format!(
            "{INDEX} puts {first:.80}{} into another shard than holds it; it is read from where it is",
            more(elsewhere.len())
        ));
    }
    if let Some((first, _)) = missing.first() {
        checkpoint.warnings.add(format!(
            "{INDEX} names {first:.80}{}, which no shard holds; the model does not use it",
            more(missing.len())
        ));
    }
    checkpoint.promised = missing;
}

/// Reads the header of one file and checks its tensors against the file's length.
async fn read_header(source: &dyn ByteSource, file: usize) -> Result<Vec<Stored>> {
    let header = read_json(source).await?;
    let table: Table<Entry<'_>> = serde_json::from_slice(&header).map_err(|error| {
        Error::invalid_file("the safetensors header is broken; download it again")
            .with_source(error)
    })?;
    let data_start = LENGTH_BYTES + header.len() as u64;
    let data_len = source.len() - data_start;
    let mut tensors = Vec::with_capacity(table.0.len());
    for (name, entry) in table.0 {
        let (begin, end) = entry.data_offsets;
        if begin > end || end > data_len {
            return Err(Error::invalid_file(format!(
                "tensor {name}: bytes {begin} to {end} are not within the {data_len} bytes of data; the file is truncated \
                 or broken, download it again"
            )));
        }
        tensors.push(stored(name, entry, file, data_start)?);
    }
    check_coverage(&mut tensors, data_start, source.len())?;
    Ok(tensors)
}

/// The JSON text of a file's header.
async fn read_json(source: &dyn ByteSource) -> Result<Vec<u8>> {
    let file_len = source.len();
    let mut bytes = read_exactly(source, 0, in_memory(file_len.min(FIRST_READ_BYTES))).await?;
    let start = &bytes[..bytes.len().min(sniff::SNIFF_BYTES)];
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(not_safetensors(
            start,
            file_len,
            "it is shorter than 8 bytes",
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > file_len - LENGTH_BYTES {
        let detail =
            format!("its header should have {length} bytes, the whole file has {file_len}");
        return Err(not_safetensors(start, file_len, &detail));
    }
    // The header must begin with a brace; where it does not, the file may be something we can name.
    if let (Some(error), false) = (
        sniff::not_safetensors(start, file_len),
        start.get(8) == Some(&b'{'),
    ) {
        return Err(error);
    }
    if length > MAX_HEADER_BYTES {
        let detail = format!(
            "its header has {length} bytes, at most {} MiB are read",
            MAX_HEADER_BYTES >> 20
        );
        return Err(not_safetensors(start, file_len, &detail));
    }
    let (have, end) = (bytes.len() as u64, LENGTH_BYTES + length);
    if end > have {
        let rest = read_exactly(source, have, in_memory(end - have)).await?;
        bytes.reserve_exact(rest.len());
        bytes.extend_from_slice(&rest);
    }
    bytes.truncate(in_memory(end));
    bytes.drain(..in_memory(LENGTH_BYTES));
    Ok(bytes)
}

/// One entry of a header. Its bytes lie `entry.data_offsets` behind `data_start`.
fn stored(name: String, entry: Entry<'_>, file: usize, data_start: u64) -> Result<Stored> {
    let (begin, end) = entry.data_offsets;
    let (shape, start, len) = (entry.shape.0, data_start + begin, end - begin);
    let stored = match dtype(&entry.dtype) {
        Some(dtype) if !shape.contains(&0) => {
            Stored::Weights(TensorInfo::new(name, dtype, shape, file, start)?)
        }
        known => {
            // Types of less than a byte, and those newer than this build, take what the header gives them.
            let element = match known {
                Some(dtype) => dtype.block_bytes() as u64,
                None => element_bytes(&entry.dtype).unwrap_or(0),
            };
            let mut tensor = Unread::new(name, &entry.dtype, element, &shape, file, start)?;
            if element == 0 {
                tensor.bytes = len;
            }
            Stored::Unread(tensor)
        }
    };
    let (name, takes) = stored.name_and_bytes();
    if takes != len {
        let dtype = &entry.dtype;
        return Err(broken(format_args!(
            "tensor {name}: {dtype:.20} of its shape takes {takes} bytes, the header gives it {len}"
        )));
    }
    Ok(stored)
}

/// Sorts tensors by offset; there may be neither holes nor overlaps, nor anything after the last.
fn check_coverage(tensors: &mut [Stored], data_start: u64, file_len: u64) -> Result<()> {
    // A tensor without bytes comes before the one that begins where it is.
    tensors.sort_by_key(|tensor| (tensor.offset(), tensor.name_and_bytes().1));
    let mut covered = data_start;
    for tensor in tensors.iter() {
        let (name, bytes) = tensor.name_and_bytes();
        if tensor.offset() != covered {
            let what = if tensor.offset() < covered {
                "overlaps the one before it"
            } else {
                "comes after a hole"
            };
            return Err(broken(format_args!("tensor {name} {what}")));
        }
        covered += bytes;
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
        Error::invalid_file(format!(
            "this is not a safetensors file: {otherwise}; download it again"
        ))
    })
}

/// The type of weights with this name.
fn dtype(name: &str) -> Option<DType> {
    match name {
        "F32" => Some(DType::F32),
        "F16" => Some(DType::F16),
        "BF16" => Some(DType::BF16),
        _ => None,
    }
}

/// Bytes of an element of a type that weights do not have, where they are whole and known.
fn element_bytes(name: &str) -> Option<u64> {
    match name {
        "BOOL" | "I8" | "U8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ"
        | "F8_E5M2FNUZ" => Some(1),
        "I16" | "U16" => Some(2),
        "I32" | "U32" => Some(4),
        "I64" | "U64" | "F64" | "C64" => Some(8),
        _ => None,
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
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
                        return Err(A::Error::custom(format!(
                            "a tensor name has {} bytes",
                            key.len()
                        )));
                    }
                    if entries.len() as u64 == MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    let value = map
                        .next_value()
                        .map_err(|error| A::Error::custom(format!("tensor {key}: {error}")))?;
                    entries.push((key.into_owned(), value));
                }
                Ok(Table(entries))
            }
        }
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}
