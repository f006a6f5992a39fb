//! The file `tokenizer.model`: sentencepiece's `ModelProto`, as far as BPE needs it.
//!
//! Protocol buffers are read by hand (developers.google.com/protocol-buffers, "Encoding"; the fields are those of
//! `sentencepiece_model.proto`): four wire types, three messages. Every length is checked against what remains.

use super::vocabulary::Kind;
use crate::error::{Error, Result};
use crate::format::{StringArray, check_small};

/// Pieces and the settings that matter for encoding.
pub(super) struct Model {
    pub texts: StringArray,
    pub scores: Vec<f32>,
    pub kinds: Vec<Kind>,
    /// A space is put before the text.
    pub add_dummy_prefix: bool,
    /// Spaces at both ends are dropped, and runs of them become one.
    pub remove_extra_whitespaces: bool,
}

/// `TrainerSpec.ModelType`.
const MODEL_TYPE_BPE: u64 = 2;
const MODEL_TYPES: [&str; 5] = ["unspecified", "unigram", "BPE", "word", "char"];

/// One field's value.
enum Field<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(&'a [u8]),
}

fn broken(why: &str) -> Error {
    Error::invalid_file(format!(
        "tokenizer.model is broken: {why}; download it again"
    ))
}

/// The fields of a message, in order.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self
                .0
                .split_first()
                .ok_or_else(|| broken("it ends inside a number"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(broken("a number has more than ten bytes"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| broken("a field is longer than the file"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next field's number and value.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let len = usize::try_from(self.varint()?)
                    .map_err(|_| broken("a field is longer than the file"))?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                Field::Fixed32(bytes)
            }
            other => return Err(broken(&format!("wire type {other}"))),
        };
        Ok(Some((key >> 3, field)))
    }
}

/// Reads a `tokenizer.model`.
///
/// # Errors
/// `InvalidFile` if it is broken, `Unsupported` if its model is not BPE or its text is normalised by a table.
pub(super) fn read(bytes: &[u8]) -> Result<Model> {
    check_small("tokenizer.model", bytes)?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Error::invalid_file(
            "tokenizer.model seems to be JSON text; a tokenizer.json needs that name",
        ));
    }
    let mut model = Model {
        texts: StringArray::default(),
        scores: Vec::new(),
        kinds: Vec::new(),
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
    };
    let mut model_type = 1;
    let mut message = Message(bytes);
    while let Some(field) = message.next()? {
        match field {
            (1, Field::Bytes(piece)) => read_piece(piece, &mut model)?,
            (2, Field::Bytes(spec)) => model_type = read_trainer(spec)?,
            (3, Field::Bytes(spec)) => read_normalizer(spec, &mut model)?,
            _ => {}
        }
    }
    if model.texts.is_empty() {
        return Err(broken("it holds no pieces"));
    }
    if model_type != MODEL_TYPE_BPE {
        let name = usize::try_from(model_type)
            .ok()
            .and_then(|at| MODEL_TYPES.get(at))
            .unwrap_or(&"unknown");
        return Err(Error::unsupported(format!(
            "tokenizer.model holds a {name} model; only BPE is supported: give tokenizer.json instead"
        )));
    }
    Ok(model)
}

fn read_piece(bytes: &[u8], model: &mut Model) -> Result<()> {
    let (mut text, mut score, mut kind) = (&b""[..], 0.0, Kind::Normal);
    let mut message = Message(bytes);
    while let Some(field) = message.next()? {
        match field {
            (1, Field::Bytes(bytes)) => text = bytes,
            (2, Field::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
            (3, Field::Varint(number)) => {
                kind = Kind::from_file(i32::try_from(number).unwrap_or(0));
            }
            _ => {}
        }
    }
    if !model.texts.push_bytes(text) {
        return Err(broken("its pieces are too long"));
    }
    model.scores.push(score);
    model.kinds.push(kind);
    Ok(())
}

/// The model type.
fn read_trainer(bytes: &[u8]) -> Result<u64> {
    let mut model_type = 1;
    let mut message = Message(bytes);
    while let Some(field) = message.next()? {
        match field {
            (3, Field::Varint(number)) => model_type = number,
            (24, Field::Varint(1)) => {
                return Err(Error::unsupported(
                    "tokenizer.model puts spaces at the end of words, which is not supported",
                ));
            }
            _ => {}
        }
    }
    Ok(model_type)
}

fn read_normalizer(bytes: &[u8], model: &mut Model) -> Result<()> {
    let mut message = Message(bytes);
    while let Some(field) = message.next()? {
        match field {
            (2, Field::Bytes(table)) if !table.is_empty() => {
                return Err(Error::unsupported(
                    "tokenizer.model normalises text by a table, which is not supported: give tokenizer.json instead",
                ));
            }
            (3, Field::Varint(yes)) => model.add_dummy_prefix = yes != 0,
            (4, Field::Varint(yes)) => model.remove_extra_whitespaces = yes != 0,
            (5, Field::Varint(0)) => {
                return Err(Error::unsupported(
                    "tokenizer.model keeps spaces unmarked, which is not supported",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
