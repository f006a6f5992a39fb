//! Writes GGUF files, version 3, for the models that this tool makes. Layout: `docs/gguf.md` of the ggml project.

use crate::output::invalid;
use llamero::error::{Error, Result};
use llamero::format::{Array, Metadata, Value};
use llamero::quant::DType;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Where tensor data starts, and each tensor in it, is a multiple of this: the default of the format.
const ALIGNMENT: u64 = 32;

/// A tensor of the file to be: `shape` is outermost first, so the reverse of how the file has it.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
}

impl Entry {
    /// Weights per row.
    pub(crate) fn cols(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    pub(crate) fn rows(&self) -> u64 {
        self.shape.iter().rev().skip(1).product()
    }

    /// Bytes of all rows.
    fn bytes(&self) -> Result<u64> {
        self.dtype.row_bytes(self.cols()).and_then(|row| row.checked_mul(self.rows())).ok_or_else(|| {
            let (name, cols) = (&self.name, self.cols());
            invalid(&format!(
                "{name}: rows of {cols} are not whole blocks of {} weights; take a type with smaller blocks than {}",
                self.dtype.block_len(),
                self.dtype
            ))
        })
    }
}

/// A file being written: the header first, then the tensors in the order of the header.
pub(crate) struct GgufWriter {
    file: BufWriter<File>,
    written: u64,
}

impl GgufWriter {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// `InvalidInput` where a row is no whole number of blocks; what the file system says.
    pub(crate) fn create(out: &Path, metadata: &Metadata, tensors: &[Entry]) -> Result<Self> {
        let mut header = b"GGUF".to_vec();
        header.extend(3_u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            put_string(&mut header, key);
            header.extend(type_id(value).to_le_bytes());
            put_value(&mut header, value);
        }
        let mut offset = 0_u64;
        for tensor in tensors {
            put_string(&mut header, &tensor.name);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor
                .shape
                .iter()
                .rev()
                .for_each(|dim| header.extend(dim.to_le_bytes()));
            header.extend(tensor.dtype.ggml_id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset += tensor.bytes()?.next_multiple_of(ALIGNMENT);
        }
        let file = File::create(out).map_err(|e| Error::from(e).at(out.display()))?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 20, file),
            written: 0,
        };
        writer.put(&header)?;
        writer.end_tensor()?;
        Ok(writer)
    }

    /// The next bytes of the current tensor.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Fills up to where the next tensor starts.
    pub(crate) fn end_tensor(&mut self) -> Result<()> {
        let padding = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.put(&[0; ALIGNMENT as usize][..padding as usize])
    }

    /// Bytes of the whole file.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.file.flush()?;
        Ok(self.written)
    }
}

/// GGUF's number of a value's type (`enum gguf_type`).
fn type_id(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => out.push(*n),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F32(n) => out.extend(n.to_le_bytes()),
        Value::F64(n) => out.extend(n.to_le_bytes()),
        Value::Bool(b) => out.push(u8::from(*b)),
        Value::String(text) => put_string(out, text),
        Value::Array(array) => put_array(out, array),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    macro_rules! numbers {
        ($id:literal, $values:expr) => {{
            out.extend(u32::to_le_bytes($id));
            out.extend(($values.len() as u64).to_le_bytes());
            $values.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(a) => numbers!(0, a),
        Array::I8(a) => numbers!(1, a),
        Array::U16(a) => numbers!(2, a),
        Array::I16(a) => numbers!(3, a),
        Array::U32(a) => numbers!(4, a),
        Array::I32(a) => numbers!(5, a),
        Array::F32(a) => numbers!(6, a),
        Array::U64(a) => numbers!(10, a),
        Array::I64(a) => numbers!(11, a),
        Array::F64(a) => numbers!(12, a),
        Array::Bool(a) => {
            out.extend(7_u32.to_le_bytes());
            out.extend((a.len() as u64).to_le_bytes());
            out.extend(a.iter().map(|b| u8::from(*b)));
        }
        Array::String(a) => {
            out.extend(8_u32.to_le_bytes());
            out.extend((a.len() as u64).to_le_bytes());
            for string in (0..a.len()).filter_map(|i| a.bytes(i)) {
                out.extend((string.len() as u64).to_le_bytes());
                out.extend(string);
            }
        }
    }
}
