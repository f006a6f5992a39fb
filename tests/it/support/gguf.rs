//! Writes GGUF files for tests: whole tiny models, and broken files, in a few lines each.
//!
//! ```ignore
//! let bytes = GgufBuilder::new()
//!     .meta("general.architecture", "llama")
//!     .meta("tokenizer.ggml.tokens", strings(["<unk>", "a"]))
//!     .values("token_embd.weight", &[2, 32], DType::Q8_0, &[0.5; 64])
//!     .build();
//! ```

use std::rc::Rc;

use llamero::format::{Array, ByteSource, MemorySource, StringArray, Value};
use llamero::quant::DType;

/// A GGUF file in the making. What it does not offer, a test does to the finished bytes.
pub struct GgufBuilder {
    version: u32,
    alignment: u64,
    /// Keys with their values, already encoded.
    keys: Vec<Vec<u8>>,
    tensors: Vec<Entry>,
    announced_keys: Option<u64>,
    announced_tensors: Option<u64>,
}

struct Entry {
    name: Vec<u8>,
    /// Innermost first, as in the file.
    ne: Vec<u64>,
    type_id: u32,
    /// Relative to the start of the data; computed when absent.
    offset: Option<u64>,
    bytes: Vec<u8>,
}

impl GgufBuilder {
    /// An empty version 3 file.
    pub fn new() -> Self {
        Self {
            version: 3,
            alignment: 32,
            keys: Vec::new(),
            tensors: Vec::new(),
            announced_keys: None,
            announced_tensors: None,
        }
    }

    /// Appends a metadata key.
    pub fn meta(self, key: &str, value: impl Into<Value>) -> Self {
        let mut bytes = Vec::new();
        let kind = encode_value(&value.into(), &mut bytes);
        self.raw_meta(key.as_bytes(), kind, &bytes)
    }

    /// Appends a metadata key of any type number, with the bytes of its value as they are to be in the file.
    pub fn raw_meta(mut self, key: &[u8], kind: u32, value: &[u8]) -> Self {
        let mut bytes = Vec::new();
        encode_string(key, &mut bytes);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
        self.keys.push(bytes);
        self
    }

    /// Appends a tensor. `shape` is outermost first: `[rows, cols]`. `bytes` are its blocks.
    pub fn tensor(self, name: &str, shape: &[u64], dtype: DType, bytes: Vec<u8>) -> Self {
        let ne: Vec<u64> = shape.iter().rev().copied().collect();
        self.raw_tensor(name.as_bytes(), &ne, dtype.ggml_id(), None, bytes)
    }

    /// Appends a tensor of `values`, stored as `dtype` (one that [`DType::quantize`] writes).
    pub fn values(self, name: &str, shape: &[u64], dtype: DType, values: &[f32]) -> Self {
        assert_eq!(
            shape.iter().product::<u64>(),
            values.len() as u64,
            "{name}: {shape:?}"
        );
        let mut bytes = Vec::new();
        dtype
            .quantize(values, &mut bytes)
            .expect("a type that can be written");
        self.tensor(name, shape, dtype, bytes)
    }

    /// Appends a tensor entry with anything in it. `ne` is innermost first; `offset` is relative to the data's start.
    pub fn raw_tensor(
        mut self,
        name: &[u8],
        ne: &[u64],
        type_id: u32,
        offset: Option<u64>,
        bytes: Vec<u8>,
    ) -> Self {
        self.tensors.push(Entry {
            name: name.to_vec(),
            ne: ne.to_vec(),
            type_id,
            offset,
            bytes,
        });
        self
    }

    /// Sets the version number (3).
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Aligns data to `alignment` bytes instead of 32, and says so in the metadata.
    pub fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = u64::from(alignment.max(1));
        self.meta("general.alignment", alignment)
    }

    /// Announces another number of metadata keys than there are.
    pub fn announce_keys(mut self, keys: u64) -> Self {
        self.announced_keys = Some(keys);
        self
    }

    /// Announces another number of tensors than there are.
    pub fn announce_tensors(mut self, tensors: u64) -> Self {
        self.announced_tensors = Some(tensors);
        self
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(b"GGUF");
        file.extend(self.version.to_le_bytes());
        file.extend(
            self.announced_tensors
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        file.extend(
            self.announced_keys
                .unwrap_or(self.keys.len() as u64)
                .to_le_bytes(),
        );
        self.keys.iter().for_each(|key| file.extend(key));
        let mut data = Vec::new();
        for tensor in &self.tensors {
            encode_string(&tensor.name, &mut file);
            file.extend((tensor.ne.len() as u32).to_le_bytes());
            tensor
                .ne
                .iter()
                .for_each(|dim| file.extend(dim.to_le_bytes()));
            file.extend(tensor.type_id.to_le_bytes());
            pad(&mut data, self.alignment);
            file.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
        }
        pad(&mut file, self.alignment);
        file.extend(data);
        pad(&mut file, self.alignment);
        file
    }

    /// The file, as what [`llamero::format::Checkpoint::open_gguf`] takes.
    pub fn sources(&self) -> Vec<Rc<dyn ByteSource>> {
        vec![Rc::new(MemorySource::new("test.gguf", self.build()))]
    }
}

/// A string array for [`GgufBuilder::meta`].
pub fn strings<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> StringArray {
    strings.into_iter().collect()
}

/// A length and the bytes.
pub fn encode_string(string: &[u8], out: &mut Vec<u8>) {
    out.extend((string.len() as u64).to_le_bytes());
    out.extend(string);
}

/// Writes the value's bytes and returns its type number (`gguf_metadata_value_type`).
fn encode_value(value: &Value, out: &mut Vec<u8>) -> u32 {
    match value {
        Value::U8(n) => (out.extend(n.to_le_bytes()), 0).1,
        Value::I8(n) => (out.extend(n.to_le_bytes()), 1).1,
        Value::U16(n) => (out.extend(n.to_le_bytes()), 2).1,
        Value::I16(n) => (out.extend(n.to_le_bytes()), 3).1,
        Value::U32(n) => (out.extend(n.to_le_bytes()), 4).1,
        Value::I32(n) => (out.extend(n.to_le_bytes()), 5).1,
        Value::F32(n) => (out.extend(n.to_le_bytes()), 6).1,
        Value::Bool(b) => (out.push(u8::from(*b)), 7).1,
        Value::String(string) => (encode_string(string.as_bytes(), out), 8).1,
        Value::U64(n) => (out.extend(n.to_le_bytes()), 10).1,
        Value::I64(n) => (out.extend(n.to_le_bytes()), 11).1,
        Value::F64(n) => (out.extend(n.to_le_bytes()), 12).1,
        Value::Array(array) => {
            let mut elements = Vec::new();
            let kind = encode_elements(array, &mut elements);
            out.extend(kind.to_le_bytes());
            out.extend((array.len() as u64).to_le_bytes());
            out.extend(elements);
            9
        }
    }
}

fn encode_elements(array: &Array, out: &mut Vec<u8>) -> u32 {
    match array {
        Array::U8(a) => (out.extend(a), 0).1,
        Array::I8(a) => (out.extend(a.iter().map(|n| *n as u8)), 1).1,
        Array::U16(a) => (out.extend(a.iter().flat_map(|n| n.to_le_bytes())), 2).1,
        Array::I16(a) => (out.extend(a.iter().flat_map(|n| n.to_le_bytes())), 3).1,
        Array::U32(a) => (out.extend(a.iter().flat_map(|n| n.to_le_bytes())), 4).1,
        Array::I32(a) => (out.extend(a.iter().flat_map(|n| n.to_le_bytes())), 5).1,
        Array::F32(a) => (out.extend(a.iter().flat_map(|n| n.to_le_bytes())), 6).1,
        Array::Bool(a) => (out.extend(a.iter().map(|b| u8::from(*b))), 7).1,
        Array::String(a) => {
            (
                (0..a.len()).for_each(|i| encode_string(a.bytes(i).unwrap_or_default(), out)),
                8,
            )
                .1
        }
        Array::U64(a) => (out.extend(a.iter().flat_map(|n| n.to_le_bytes())), 10).1,
        Array::I64(a) => (out.extend(a.iter().flat_map(|n| n.to_le_bytes())), 11).1,
        Array::F64(a) => (out.extend(a.iter().flat_map(|n| n.to_le_bytes())), 12).1,
    }
}

fn pad(bytes: &mut Vec<u8>, alignment: u64) {
    bytes.resize((bytes.len() as u64).next_multiple_of(alignment) as usize, 0);
}
