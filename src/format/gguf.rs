//! GGUF versions 2 and 3: header, metadata, tensor table, split sets.
//!
//! The header is parsed synchronously from the start of the file. When the parser meets the end of what was read, it
//! stops, twice as much is read, and it starts again; so the parser is a plain function of bytes (easy to fuzz), and
//! the work stays linear. Layout: `docs/gguf.md` of the ggml project.

use std::rc::Rc;

use super::source::{in_memory, read_exactly};
use super::{
    Array, ByteSource, FIRST_READ_BYTES, MAX_HEADER_BYTES, MAX_TENSOR_NAME_BYTES, MAX_TENSORS,
    Metadata, Stored, StringArray, TensorInfo, Unread, Value, broken, sniff,
};
use crate::error::{Error, Result, Warnings};
use crate::quant::DType;

/// The first four bytes of every GGUF file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

/// The most metadata keys. Real files have under a hundred; a hostile one could use them to cost ten times its size.
const MAX_KEYS: u64 = 1 << 16;

/// The longest metadata key, from the specification.
const MAX_KEY_BYTES: u64 = (1 << 16) - 1;

/// The longest string value in which broken UTF-8 is replaced. Each replacement takes three bytes for one.
const MAX_MENDED_BYTES: usize = 64 << 10;

/// How many bytes the strings of one list that are not UTF-8 may have together, for the same reason. A vocabulary of
/// 128,000 tokens has under a mebibyte of text.
const MAX_MENDED_BYTES_OF_LIST: usize = 1 << 20;

/// `GGML_MAX_DIMS`.
const MAX_DIMS: u32 = 4;

/// Where tensor data starts, and each tensor in it, is a multiple of this, unless `general.alignment` says otherwise.
const DEFAULT_ALIGNMENT: u32 = 32;

/// A length, a byte of name, the number of dimensions, one dimension, the type, the offset.
const MIN_TENSOR_ENTRY_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// A length, a byte of key, the type, a byte of value.
const MIN_KEY_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;

const ALIGNMENT_KEY: &str = "general.alignment";
const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// The header of one file. Its tensors carry file index 0 until [`join_parts`] numbers them.
pub(super) struct Header {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    unread: Vec<Unread>,
    warnings: Warnings,
}

impl Header {
    /// What the file says about its model.
    pub(super) fn into_metadata(self) -> (Metadata, Warnings) {
        (self.metadata, self.warnings)
    }
}

/// Reads the header of `source`.
pub(super) async fn read_header(source: &dyn ByteSource) -> Result<Header> {
    let file_len = source.len();
    let limit = file_len.min(MAX_HEADER_BYTES);
    let mut bytes = Vec::new();
    let mut wanted = FIRST_READ_BYTES;
    loop {
        // At most MAX_HEADER_BYTES, so it fits usize on every machine.
        let more = in_memory(wanted.min(limit) - bytes.len() as u64);
        let piece = read_exactly(source, bytes.len() as u64, more).await?;
        if bytes.is_empty() {
            bytes = piece;
        } else {
            bytes.reserve_exact(piece.len());
            bytes.extend_from_slice(&piece);
        }
        match parse(&bytes, file_len) {
            Ok(header) => return Ok(header),
            Err(Stop::Bad(error)) => return Err(error),
            // `needed` lies beyond `bytes`, and `Cursor::take` checked it against the limit: each turn makes progress.
            Err(Stop::More { needed }) => wanted = needed.max(2 * bytes.len() as u64),
        }
    }
}

/// Why parsing stopped.
enum Stop {
    /// The file goes on to at least byte `needed`, but that has not been read yet.
    More { needed: u64 },
    /// The file is broken, or not for us.
    Bad(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Bad(error)
    }
}

type Parsed<T> = std::result::Result<T, Stop>;

/// Parses a header from `bytes`, the start of a file of `file_len` bytes.
fn parse(bytes: &[u8], file_len: u64) -> Parsed<Header> {
    if !bytes.starts_with(MAGIC) {
        return Err(
            sniff::not_gguf(&bytes[..bytes.len().min(sniff::SNIFF_BYTES)], file_len).into(),
        );
    }
    let mut cursor = Cursor {
        bytes,
        at: MAGIC.len(),
        file_len,
        warnings: Warnings::default(),
    };
    check_version(cursor.u32("the version")?)?;
    let tensor_count = cursor.u64("the tensor count")?;
    let key_count = cursor.u64("the metadata count")?;
    check_count(
        "tensors",
        tensor_count,
        MAX_TENSORS,
        MIN_TENSOR_ENTRY_BYTES,
        cursor.remaining(),
    )?;
    check_count(
        "metadata keys",
        key_count,
        MAX_KEYS,
        MIN_KEY_ENTRY_BYTES,
        cursor.remaining(),
    )?;

    let mut metadata = Metadata::default();
    for _ in 0..key_count {
        let key = cursor.text("a metadata key", MAX_KEY_BYTES)?;
        if key.is_empty() {
            return Err(broken("a metadata key is empty").into());
        }
        let value = cursor.value(key)?;
        if metadata.insert(key, value).is_some() {
            return Err(broken(format_args!("the metadata key {key} appears twice")).into());
        }
    }
    let alignment = alignment(&metadata)?;

    let (mut tensors, mut unread) = (Vec::new(), Vec::new());
    for _ in 0..tensor_count {
        match cursor.tensor()? {
            Stored::Weights(tensor) => tensors.push(tensor),
            Stored::Unread(tensor) => unread.push(tensor),
        }
    }

    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let absolute = |name: &str, offset: u64, bytes: u64| -> Result<u64> {
        if !offset.is_multiple_of(alignment) {
            return Err(broken(format_args!(
                "tensor {name}: offset {offset} is not a multiple of the alignment {alignment}"
            )));
        }
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_len => Ok(start),
            _ => Err(Error::invalid_file(format!(
                "tensor {name}: its {bytes} bytes at offset {offset} reach beyond the {file_len} bytes of the file, \
                 which is truncated or broken; download it again"
            ))),
        }
    };
    for tensor in &mut tensors {
        tensor.offset = absolute(&tensor.name, tensor.offset, tensor.bytes)?;
    }
    for tensor in &mut unread {
        tensor.offset = absolute(&tensor.name, tensor.offset, tensor.bytes)?;
    }
    Ok(Header {
        metadata,
        tensors,
        unread,
        warnings: cursor.warnings,
    })
}

fn check_version(version: u32) -> Result<()> {
    match version {
        2 | 3 => Ok(()),
        1 => Err(Error::unsupported(
            "GGUF version 1 (August 2023) is not supported; get a newer file of this model",
        )),
        _ if version.swap_bytes() <= 0xffff && version > 0xffff => Err(Error::unsupported(
            "this GGUF file is big-endian; get the little-endian one",
        )),
        0 => Err(Error::invalid_file(
            "GGUF version 0 does not exist; the file is broken, download it again",
        )),
        _ => Err(Error::unsupported(format!(
            "GGUF version {version} is newer than the versions 2 and 3 that this build reads; get an update"
        ))),
    }
}

/// Counts are checked before anything is allocated for them.
fn check_count(what: &str, count: u64, cap: u64, min_bytes: u64, remaining: u64) -> Result<()> {
    if count > cap || count > remaining / min_bytes {
        return Err(Error::invalid_file(format!(
            "the file announces {count} {what}; with {remaining} bytes left it is broken or truncated, download it again"
        )));
    }
    Ok(())
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let stored = metadata
        .u32(ALIGNMENT_KEY)
        .map_err(|error| error.advise("the file is broken, download it again"))?;
    let alignment = stored.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() {
        return Err(broken(format_args!(
            "{ALIGNMENT_KEY} is {alignment}, which is not a power of two"
        )));
    }
    Ok(u64::from(alignment))
}

/// A reader over the bytes at hand that knows how long the file really is.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
    warnings: Warnings,
}

impl<'a> Cursor<'a> {
    /// Bytes between here and the end of the file.
    fn remaining(&self) -> u64 {
        self.file_len - self.at as u64
    }

    /// The next `len` bytes.
    fn take(&mut self, len: u64, what: &str) -> Parsed<&'a [u8]> {
        if len > self.remaining() {
            return Err(Error::invalid_file(format!(
                "the file ends inside {what}: {len} bytes expected at {}, {} left; it is truncated or broken, download \
                 it again",
                self.at,
                self.remaining()
            ))
            .into());
        }
        let end = self.at as u64 + len;
        if end > MAX_HEADER_BYTES {
            let detail = format!(
                "the header is longer than {} MiB (at {what})",
                MAX_HEADER_BYTES >> 20
            );
            return Err(Error::invalid_file(detail).into());
        }
        if end > self.bytes.len() as u64 {
            return Err(Stop::More { needed: end });
        }
        let end = in_memory(end);
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Parsed<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Parsed<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A length and that many bytes.
    fn string(&mut self, what: &str) -> Parsed<&'a [u8]> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    /// A name: short, and UTF-8.
    fn text(&mut self, what: &str, max_bytes: u64) -> Parsed<&'a str> {
        let len = self.u64(what)?;
        if len > max_bytes {
            let detail = format_args!(
                "the length of {what} is {len} bytes, at most {max_bytes} are allowed"
            );
            return Err(broken(detail).into());
        }
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| {
            broken(format_args!(
                "{what} is not UTF-8: {:?}",
                String::from_utf8_lossy(bytes)
            ))
            .into()
        })
    }

    /// A metadata value: its type, then its bytes. Numbers are those of `gguf_metadata_value_type`.
    fn value(&mut self, key: &str) -> Parsed<Value> {
        Ok(match self.u32(key)? {
            0 => Value::U8(u8::from_le_bytes(self.array(key)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(key)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(key)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(key)?)),
            4 => Value::U32(u32::from_le_bytes(self.array(key)?)),
            5 => Value::I32(i32::from_le_bytes(self.array(key)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(key)?)),
            7 => Value::Bool(self.array::<1>(key)?[0] != 0),
            8 => Value::String(self.mended(key)?),
            9 => Value::Array(self.value_array(key)?),
            10 => Value::U64(u64::from_le_bytes(self.array(key)?)),
            11 => Value::I64(i64::from_le_bytes(self.array(key)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(key)?)),
            other => {
                return Err(broken(format_args!(
                    "metadata key {key} has the unknown type {other}"
                ))
                .into());
            }
        })
    }

    /// An array value: the type of its elements, their number, and the elements.
    fn value_array(&mut self, key: &str) -> Parsed<Array> {
        let element_type = self.u32(key)?;
        let len = self.u64(key)?;
        Ok(match element_type {
            0 => Array::U8(self.numbers(len, key, u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(len, key, i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(len, key, u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(len, key, i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(len, key, u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(len, key, i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(len, key, f32::from_le_bytes)?),
            7 => Array::Bool(self.numbers(len, key, |[byte]| byte != 0)?),
            8 => Array::String(self.strings(len, key)?),
            10 => Array::U64(self.numbers(len, key, u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(len, key, i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(len, key, f64::from_le_bytes)?),
            9 => return Err(Error::unsupported(format!(
                "metadata key {key} is an array of arrays, which is not supported; get another conversion of this model"
            ))
            .into()),
            other => {
                return Err(broken(format_args!("metadata key {key} is an array of the unknown type {other}")).into());
            }
        })
    }

    fn numbers<const N: usize, T>(
        &mut self,
        len: u64,
        key: &str,
        number: fn([u8; N]) -> T,
    ) -> Parsed<Vec<T>> {
        // An overflow cannot be in the file either.
        let bytes = self.take(len.saturating_mul(N as u64), key)?;
        Ok(bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|&bytes| number(bytes))
            .collect())
    }

    fn strings(&mut self, len: u64, key: &str) -> Parsed<StringArray> {
        // Each string has at least its length in the file.
        if len > self.remaining().min(MAX_HEADER_BYTES) / 8 {
            let detail = format_args!(
                "metadata key {key} announces {len} strings, more than the file can hold"
            );
            return Err(broken(detail).into());
        }
        let mut strings = StringArray::with_capacity(in_memory(len));
        for i in 0..len {
            let bytes = self.string(key)?;
            if !strings.push_bytes(bytes) {
                return Err(broken(format_args!("metadata key {key} is too long")).into());
            }
            if strings.raw_len() > MAX_MENDED_BYTES_OF_LIST {
                return Err(broken(format_args!(
                    "metadata key {key}: the strings up to {i} are not UTF-8"
                ))
                .into());
            }
        }
        strings.shrink();
        let count = strings.not_utf8().len();
        if let Some(first) = strings.not_utf8().next() {
            self.warnings.add(format!(
                "metadata key {key}: {count} of {len} strings are not UTF-8 (the first is number {first}); their bytes \
                 are kept as they are, so nothing is lost"
            ));
        }
        Ok(strings)
    }

    /// An entry of the tensor table; its offset is still relative to the start of the data.
    fn tensor(&mut self) -> Parsed<Stored> {
        let name = self.text("a tensor name", MAX_TENSOR_NAME_BYTES)?;
        if name.is_empty() {
            return Err(broken("a tensor has no name").into());
        }
        let dims = self.u32(name)?;
        if !(1..=MAX_DIMS).contains(&dims) {
            let detail =
                format_args!("tensor {name} has {dims} dimensions, 1 to {MAX_DIMS} are possible");
            return Err(broken(detail).into());
        }
        let mut shape = Vec::with_capacity(dims as usize);
        for _ in 0..dims {
            shape.push(self.u64(name)?);
        }
        // The file has the innermost dimension first.
        shape.reverse();
        let type_id = self.u32(name)?;
        let (dtype, other) = (
            DType::from_ggml(type_id),
            OTHER_TYPES.iter().find(|(id, ..)| *id == type_id),
        );
        if dtype.is_none() && other.is_none() {
            return Err(unknown_type(name, type_id).into());
        }
        let offset = self.u64(name)?;
        Ok(match (dtype, other) {
            (Some(dtype), _) if !shape.contains(&0) => {
                Stored::Weights(TensorInfo::new(name.to_owned(), dtype, shape, 0, offset)?)
            }
            (_, Some((_, type_name, bytes))) => Stored::Unread(Unread::new(
                name.to_owned(),
                type_name,
                *bytes,
                &shape,
                0,
                offset,
            )?),
            // Without elements the type does not matter.
            (dtype, _) => {
                let type_name = dtype.map_or("nothing", DType::name);
                Stored::Unread(Unread::new(
                    name.to_owned(),
                    type_name,
                    0,
                    &shape,
                    0,
                    offset,
                )?)
            }
        })
    }

    /// A string value. Short ones mostly describe, so that broken text is no reason to refuse the model; a value that
    /// matters is then not recognised by whoever asks for it. Names are never mended.
    fn mended(&mut self, key: &str) -> Parsed<String> {
        let bytes = self.string(key)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) if bytes.len() <= MAX_MENDED_BYTES => {
                let mut text = String::from_utf8_lossy(bytes).into_owned();
                text.shrink_to_fit();
                self.warnings.add(format!(
                    "metadata key {key} is not UTF-8; U+FFFD stands for what is no character, and the model does not depend \
                     on it"
                ));
                Ok(text)
            }
            Err(_) => Err(broken(format_args!("metadata key {key} is not UTF-8")).into()),
        }
    }
}

/// Types of `enum ggml_type` that hold no weights of a LLaMA, with their names and the bytes of an element.
const OTHER_TYPES: &[(u32, &str, u64)] = &[
    (24, "I8", 1),
    (25, "I16", 2),
    (26, "I32", 4),
    (27, "I64", 8),
    (28, "F64", 8),
];

/// Numbers of `enum ggml_type` that are no weights of ours, by name.
fn unknown_type(name: &str, type_id: u32) -> Error {
    let what = match type_id {
        4 | 5 => "Q4_2 or Q4_3, which ggml removed in 2023",
        31..=33 | 36..=38 => {
            "a repacked layout, which ggml removed; get the plain Q4_0 or IQ4_NL file"
        }
        9 | 15 => "Q8_1 or Q8_K, which is for intermediate results",
        41 => "Q1_0",
        _ => {
            return Error::unsupported(format!(
                "tensor {name} has the unknown type {type_id}; the file is broken, or newer than this build: get another copy, or an update"
            ));
        }
    };
    Error::unsupported(format!(
        "tensor {name} is stored as {what}; choose another file of this model"
    ))
}

/// The sources in order, the metadata of the first, and all tensors with their file's number.
pub(super) struct Joined {
    pub sources: Vec<Rc<dyn ByteSource>>,
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
    pub unread: Vec<Unread>,
    pub warnings: Warnings,
}

/// Puts the parts of a split set in order and checks that it is whole.
pub(super) fn join_parts(parts: Vec<(Rc<dyn ByteSource>, Header)>) -> Result<Joined> {
    let mut numbered = Vec::with_capacity(parts.len());
    for (source, header) in parts {
        let number = header
            .metadata
            .u32(SPLIT_NO)
            .map_err(|error| error.at(source.name()))?;
        let count = header
            .metadata
            .u32(SPLIT_COUNT)
            .map_err(|error| error.at(source.name()))?;
        numbered.push((
            number.unwrap_or(0),
            count.unwrap_or(0).max(1),
            source,
            header,
        ));
    }
    numbered.sort_by_key(|(number, ..)| *number);
    let Some((_, count, first, header)) = numbered.first() else {
        return Err(Error::invalid_input("no file was given"));
    };
    let announced = header.metadata.u64(SPLIT_TENSORS)?.filter(|_| *count > 1);
    let (count, first) = (*count, first.name().to_owned());
    for (index, (number, its_count, source, _)) in numbered.iter().enumerate() {
        if *its_count != count {
            return Err(Error::invalid_input(format!(
                "{} belongs to a set of {its_count} files and {first} to one of {count}; give the parts of one model",
                source.name()
            )));
        }
        if *number as usize != index {
            return Err(part_missing(index, count, &first));
        }
    }
    if numbered.len() as u64 != u64::from(count) {
        return Err(part_missing(numbered.len(), count, &first));
    }

    let mut sources = Vec::with_capacity(numbered.len());
    let mut metadata = None;
    let (mut tensors, mut unread, mut warnings) = (Vec::new(), Vec::new(), Warnings::default());
    for (file, (_, _, source, header)) in numbered.into_iter().enumerate() {
        warnings.append(header.warnings.at(source.name()));
        sources.push(source);
        metadata.get_or_insert(header.metadata);
        tensors.extend(
            header
                .tensors
                .into_iter()
                .map(|tensor| TensorInfo { file, ..tensor }),
        );
        unread.extend(
            header
                .unread
                .into_iter()
                .map(|tensor| Unread { file, ..tensor }),
        );
    }
    let held = tensors.len() + unread.len();
    if let Some(announced) = announced.filter(|&announced| announced != held as u64) {
        return Err(Error::invalid_file(format!(
            "{first}: the split set announces {announced} tensors and holds {held}; download its parts again"
        )));
    }
    Ok(Joined {
        sources,
        metadata: metadata.unwrap_or_default(),
        tensors,
        unread,
        warnings,
    })
}

/// Checks that the metadata is that of a whole model, or of the first part of a set.
pub(super) fn check_first(metadata: &Metadata) -> Result<()> {
    match metadata.u32(SPLIT_NO)? {
        None | Some(0) => Ok(()),
        Some(number) => Err(Error::invalid_input(format!(
            "this is part {} of a split model; the vocabulary lies in the first part: give that one",
            u64::from(number) + 1
        ))),
    }
}

fn part_missing(index: usize, count: u32, first: &str) -> Error {
    Error::invalid_input(format!(
        "{first} belongs to a set of {count} files, and number {} is missing (or given twice); give all of them, each once",
        index + 1
    ))
}

/// The names of all parts when `name` is one of a split set (`NAME-00001-of-00003.gguf`), in order; else `None`.
///
/// `name` may be a path or a URL. At most 99,999 parts, as the five digits allow.
pub fn split_names(name: &str) -> Option<Vec<String>> {
    const SUFFIX: &str = ".gguf";
    let part = numbered(name, SUFFIX)?;
    Some(
        (1..=part.count)
            .map(|number| part.name(number, SUFFIX))
            .collect(),
    )
}

/// A part of a set, by its name.
pub(super) struct Numbered<'a> {
    pub stem: &'a str,
    /// From 1.
    pub number: u32,
    pub count: u32,
}

impl Numbered<'_> {
    /// What another part is called.
    pub(super) fn name(&self, number: u32, suffix: &str) -> String {
        format!("{}-{number:05}-of-{:05}{suffix}", self.stem, self.count)
    }
}

/// Takes `STEM-00001-of-00003` and a suffix apart.
pub(super) fn numbered<'a>(name: &'a str, suffix: &str) -> Option<Numbered<'a>> {
    let (stem, count) = number_at_end(name.strip_suffix(suffix)?)?;
    let (stem, number) = number_at_end(stem.strip_suffix("-of-")?)?;
    let stem = stem.strip_suffix('-')?;
    (1..=count).contains(&number).then_some(Numbered {
        stem,
        number,
        count,
    })
}

/// Splits five digits off the end of `text`.
fn number_at_end(text: &str) -> Option<(&str, u32)> {
    let (stem, digits) = text.split_at_checked(text.len().checked_sub(5)?)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((stem, digits.parse().ok()?))
}
