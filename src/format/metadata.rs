//! What a file says about its model: GGUF's typed key-value pairs, or config.json.
//!
//! Arrays are kept as they are in the file, one allocation each; a vocabulary of 128k strings costs its text and four
//! bytes per string. Lookups say which key is wrong and how; which keys a model needs is known by `model/`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// One metadata value, of one of GGUF's types.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number of type `u8`.
    U8(u8),
    /// A number of type `i8`.
    I8(i8),
    /// A number of type `u16`.
    U16(u16),
    /// A number of type `i16`.
    I16(i16),
    /// A number of type `u32`.
    U32(u32),
    /// A number of type `i32`.
    I32(i32),
    /// A number of type `u64`.
    U64(u64),
    /// A number of type `i64`.
    I64(i64),
    /// A number of type `f32`.
    F32(f32),
    /// A number of type `f64`.
    F64(f64),
    /// A boolean.
    Bool(bool),
    /// A text.
    String(String),
    /// A list whose elements have one type.
    Array(Array),
}

/// A metadata array; all elements have one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Elements of `u8`.
    U8(Vec<u8>),
    /// Elements of `i8`.
    I8(Vec<i8>),
    /// Elements of `u16`.
    U16(Vec<u16>),
    /// Elements of `i16`.
    I16(Vec<i16>),
    /// Elements of `u32`.
    U32(Vec<u32>),
    /// Elements of `i32`.
    I32(Vec<i32>),
    /// Elements of `u64`.
    U64(Vec<u64>),
    /// Elements of `i64`.
    I64(Vec<i64>),
    /// Elements of `f32`.
    F32(Vec<f32>),
    /// Elements of `f64`.
    F64(Vec<f64>),
    /// Booleans.
    Bool(Vec<bool>),
    /// Texts.
    String(StringArray),
}

/// Many strings in one piece of text. A string that is not UTF-8 has two forms: its exact bytes, and a text in which
/// U+FFFD stands for what is no character.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StringArray {
    text: String,
    /// Where string `i` ends in `text`; it starts where the one before it ends.
    ends: Vec<u32>,
    /// The exact bytes of the strings that are not UTF-8, one after the other.
    raw: Vec<u8>,
    /// The number of each of these strings, ascending, and where it ends in `raw`.
    raw_ends: Vec<(u32, u32)>,
}

impl StringArray {
    /// No strings, with room for `strings`.
    pub fn with_capacity(strings: usize) -> Self {
        Self {
            ends: Vec::with_capacity(strings),
            ..Self::default()
        }
    }

    /// Appends a string; `false` when the text would pass 4 GiB, which no header this crate reads can hold.
    #[must_use]
    pub fn push(&mut self, string: &str) -> bool {
        let Ok(end) = u32::try_from(self.text.len() as u64 + string.len() as u64) else {
            return false;
        };
        self.text.push_str(string);
        self.ends.push(end);
        true
    }

    /// Appends a string of any bytes; `false` as for [`StringArray::push`].
    #[must_use]
    pub fn push_bytes(&mut self, bytes: &[u8]) -> bool {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return self.push(text);
        }
        let Ok(end) = u32::try_from(self.raw.len() as u64 + bytes.len() as u64) else {
            return false;
        };
        let Ok(number) = u32::try_from(self.ends.len()) else {
            return false;
        };
        if !self.push(&String::from_utf8_lossy(bytes)) {
            return false;
        }
        self.raw.extend_from_slice(bytes);
        self.raw_ends.push((number, end));
        true
    }

    /// The numbers of the strings that are not UTF-8, ascending.
    pub fn not_utf8(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.raw_ends.iter().map(|(number, _)| *number as usize)
    }

    /// The exact bytes of string `i`.
    pub fn bytes(&self, i: usize) -> Option<&[u8]> {
        match self
            .raw_ends
            .binary_search_by_key(&i, |(number, _)| *number as usize)
        {
            Ok(at) => {
                let start = if at == 0 {
                    0
                } else {
                    self.raw_ends[at - 1].1 as usize
                };
                self.raw.get(start..self.raw_ends[at].1 as usize)
            }
            Err(_) => self.get(i).map(str::as_bytes),
        }
    }

    /// Whether string `i` is UTF-8, so that its text is all of it.
    pub fn is_utf8(&self, i: usize) -> bool {
        self.raw_ends
            .binary_search_by_key(&i, |(number, _)| *number as usize)
            .is_err()
    }

    /// How many bytes the strings that are not UTF-8 have together.
    pub(super) fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String `i`, as text.
    pub fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.text.get(start..end)
    }

    /// All strings, in order, as texts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let string = &self.text[start..end as usize];
            start = end as usize;
            string
        })
    }

    /// Gives back the room that was reserved and not used.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
    }
}

impl<S: AsRef<str>> FromIterator<S> for StringArray {
    /// # Panics
    ///
    /// Panics when the strings hold more than 4 GiB.
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut array = Self::default();
        for string in strings {
            assert!(array.push(string.as_ref()), "more than 4 GiB of strings");
        }
        array
    }
}

impl Array {
    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(a) => a.len(),
            Self::I8(a) => a.len(),
            Self::U16(a) => a.len(),
            Self::I16(a) => a.len(),
            Self::U32(a) => a.len(),
            Self::I32(a) => a.len(),
            Self::U64(a) => a.len(),
            Self::I64(a) => a.len(),
            Self::F32(a) => a.len(),
            Self::F64(a) => a.len(),
            Self::Bool(a) => a.len(),
            Self::String(a) => a.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the elements are, in words.
    fn elements(&self) -> &'static str {
        match self {
            Self::F32(_) | Self::F64(_) => "floats",
            Self::Bool(_) => "booleans",
            Self::String(_) => "strings",
            _ => "integers",
        }
    }

    /// The elements as integers; `None` when they are something else. `i128` holds every integer type of GGUF.
    fn integers(&self) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
        Some(match self {
            Self::U8(a) => Box::new(a.iter().map(|&n| n.into())),
            Self::I8(a) => Box::new(a.iter().map(|&n| n.into())),
            Self::U16(a) => Box::new(a.iter().map(|&n| n.into())),
            Self::I16(a) => Box::new(a.iter().map(|&n| n.into())),
            Self::U32(a) => Box::new(a.iter().map(|&n| n.into())),
            Self::I32(a) => Box::new(a.iter().map(|&n| n.into())),
            Self::U64(a) => Box::new(a.iter().map(|&n| n.into())),
            Self::I64(a) => Box::new(a.iter().map(|&n| n.into())),
            _ => return None,
        })
    }
}

impl Value {
    /// What the value is, in words, for messages.
    pub fn kind(&self) -> String {
        match self {
            Self::F32(_) | Self::F64(_) => "a float".to_owned(),
            Self::Bool(_) => "a boolean".to_owned(),
            Self::String(_) => "a string".to_owned(),
            Self::Array(array) => format!("an array of {} {}", array.len(), array.elements()),
            _ => "an integer".to_owned(),
        }
    }

    /// The value as an integer; `None` when it is something else.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(n) => n.into(),
            Self::I8(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U64(n) => n.into(),
            Self::I64(n) => n.into(),
            _ => return None,
        })
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),+ $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Value {
                Value::$variant(value.into())
            }
        }
    )+};
}

value_from! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64,
    bool => Bool, &str => String, String => String, Array => Array,
}

macro_rules! array_from {
    ($($from:ty => $variant:ident),+ $(,)?) => {$(
        impl From<$from> for Value {
            fn from(values: $from) -> Value {
                Value::Array(Array::$variant(values))
            }
        }
    )+};
}

array_from! {
    Vec<u8> => U8, Vec<i8> => I8, Vec<u16> => U16, Vec<i16> => I16, Vec<u32> => U32, Vec<i32> => I32, Vec<u64> => U64,
    Vec<i64> => I64, Vec<f32> => F32, Vec<f64> => F64, Vec<bool> => Bool, StringArray => String,
}

/// The key-value pairs of a GGUF file, or the config.json beside safetensors.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: BTreeMap<String, Value>,
    json: Option<serde_json::Value>,
}

impl Metadata {
    /// Metadata that is a JSON object; it has no GGUF keys.
    pub(super) fn from_json(json: serde_json::Value) -> Self {
        Self {
            entries: BTreeMap::new(),
            json: Some(json),
        }
    }

    /// Sets `key`; gives back its former value.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> Option<Value> {
        self.entries.insert(key.into(), value)
    }

    /// The config.json of a safetensors checkpoint, an object; `None` for GGUF.
    pub fn json(&self) -> Option<&serde_json::Value> {
        self.json.as_ref()
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Whether the file has `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A string. `Ok(None)` when the key is absent, here and below.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value has another type.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(string)) => Ok(Some(string)),
            Some(other) => Err(wrong_type(key, other, "a string")),
        }
    }

    /// An integer of any width, sign and value: `i128` holds every integer type of GGUF.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value is no integer, or does not fit.
    pub fn i128(&self, key: &str) -> Result<Option<i128>> {
        self.integer(key)
    }

    /// An array of integers of any width, sign and value.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value is no list of integers, or one of them does not fit.
    pub fn i128s(&self, key: &str) -> Result<Option<Vec<i128>>> {
        self.integers(key)
    }

    /// An integer of any width and sign whose value fits `u32`.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value is no integer, or does not fit.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.integer(key)
    }

    /// An integer of any width and sign whose value fits `i32`.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value is no integer, or does not fit.
    pub fn i32(&self, key: &str) -> Result<Option<i32>> {
        self.integer(key)
    }

    /// An integer of any width and sign whose value fits `u64`.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value is no integer, or does not fit.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.integer(key)
    }

    /// A number: a float, or an integer, rounded to `f32`.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value has another type.
    #[expect(clippy::cast_possible_truncation, reason = "rounded, as documented")]
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.f64(key)?.map(|number| number as f32))
    }

    /// A number: a float, or an integer, rounded to `f64`.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value has another type.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(number)) => Ok(Some(f64::from(*number))),
            Some(Value::F64(number)) => Ok(Some(*number)),
            Some(other) => match other.integer() {
                Some(integer) => Ok(Some(integer as f64)),
                None => Err(wrong_type(key, other, "a number")),
            },
        }
    }

    /// A boolean.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value has another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_type(key, other, "a boolean")),
        }
    }

    /// An array of strings.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value has another type.
    pub fn strings(&self, key: &str) -> Result<Option<&StringArray>> {
        match self.array(key, "an array of strings")? {
            None => Ok(None),
            Some(Array::String(strings)) => Ok(Some(strings)),
            Some(_) => Err(self.wrong_type(key, "an array of strings")),
        }
    }

    /// An array of numbers: floats, or integers, rounded to `f32`.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value has another type.
    #[expect(clippy::cast_possible_truncation, reason = "rounded, as documented")]
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        match self.array(key, "an array of numbers")? {
            None => Ok(None),
            Some(Array::F32(numbers)) => Ok(Some(numbers.clone())),
            Some(Array::F64(numbers)) => {
                Ok(Some(numbers.iter().map(|&number| number as f32).collect()))
            }
            Some(array) => match array.integers() {
                Some(integers) => Ok(Some(integers.map(|integer| integer as f32).collect())),
                None => Err(self.wrong_type(key, "an array of numbers")),
            },
        }
    }

    /// An array of integers whose values all fit `u32`.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value is no list of integers, or one of them does not fit.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.integers(key)
    }

    /// An array of integers whose values all fit `i32`.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the value is no list of integers, or one of them does not fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.integers(key)
    }

    /// [`Metadata::str`] of a key that must be there.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the key is absent, and as [`Metadata::str`] has it.
    pub fn require_str(&self, key: &str) -> Result<&str> {
        self.str(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::u32`] of a key that must be there.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the key is absent, and as [`Metadata::u32`] has it.
    pub fn require_u32(&self, key: &str) -> Result<u32> {
        self.u32(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::u64`] of a key that must be there.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the key is absent, and as [`Metadata::u64`] has it.
    pub fn require_u64(&self, key: &str) -> Result<u64> {
        self.u64(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::f32`] of a key that must be there.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the key is absent, and as [`Metadata::f32`] has it.
    pub fn require_f32(&self, key: &str) -> Result<f32> {
        self.f32(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::strings`] of a key that must be there.
    ///
    /// # Errors
    ///
    /// `InvalidFile` when the key is absent, and as [`Metadata::strings`] has it.
    pub fn require_strings(&self, key: &str) -> Result<&StringArray> {
        self.strings(key)?.ok_or_else(|| missing(key))
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let integer = value
            .integer()
            .ok_or_else(|| wrong_type(key, value, "an integer"))?;
        T::try_from(integer)
            .map(Some)
            .map_err(|_| out_of_range::<T>(key, integer))
    }

    fn integers<T: TryFrom<i128>>(&self, key: &str) -> Result<Option<Vec<T>>> {
        let Some(array) = self.array(key, "an array of integers")? else {
            return Ok(None);
        };
        let integers = array
            .integers()
            .ok_or_else(|| self.wrong_type(key, "an array of integers"))?;
        let mut values = Vec::with_capacity(array.len());
        for integer in integers {
            values.push(T::try_from(integer).map_err(|_| out_of_range::<T>(key, integer))?);
        }
        Ok(Some(values))
    }

    fn array(&self, key: &str, wanted: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(other) => Err(wrong_type(key, other, wanted)),
        }
    }

    fn wrong_type(&self, key: &str, wanted: &str) -> Error {
        match self.get(key) {
            Some(value) => wrong_type(key, value, wanted),
            None => missing(key),
        }
    }
}

fn missing(key: &str) -> Error {
    Error::invalid_file(format!("the metadata key {key} is missing"))
}

fn wrong_type(key: &str, value: &Value, wanted: &str) -> Error {
    Error::invalid_file(format!(
        "metadata key {key} is {}, expected {wanted}",
        value.kind()
    ))
}

fn out_of_range<T>(key: &str, integer: i128) -> Error {
    Error::invalid_file(format!(
        "metadata key {key}: {integer} does not fit {}",
        std::any::type_name::<T>()
    ))
}
