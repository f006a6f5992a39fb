//! Values as Python writes them: `str()`, `repr()`, and `json.dumps` with Transformers' settings.

use std::fmt::{self, Write};

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};

/// Deepest nesting that is written out; conversations from outside may be nested as deep as their parser allows.
const MAX_DEPTH: usize = 128;
/// Longest text of one value. A value that holds another twice, which holds a third twice, …, is small and has no end.
const MAX_TEXT: usize = 4 << 20;

/// What `{{ value }}` prints: `str(value)`, nothing for an undefined value.
pub(super) fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    out.write_str(&string(value)?)?;
    Ok(())
}

/// The `string` filter: `str(value)`.
pub(super) fn string(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut text = String::new();
    if value.kind() != ValueKind::Undefined {
        repr(value, &mut text, 0)?;
    }
    Ok(text)
}

/// The `escape` filter, with MarkupSafe's entities. Text that is safe already stays.
pub(super) fn escape(value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let mut escaped = String::new();
    for c in string(value)?.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            _ => escaped.push(c),
        }
    }
    Ok(Value::from_safe_string(escaped))
}

/// The `tojson` filter: `json.dumps` with `ensure_ascii=False`, and Python's separators.
pub(super) fn to_json(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) if indent.as_str().is_some_and(|text| text.len() > MAX_DEPTH) => {
            return Err(Error::new(ErrorKind::InvalidOperation, "the indent is too long"));
        }
        Some(indent) if indent.as_str().is_some() => indent.as_str().map(str::to_owned),
        // `True` is 1 in Python.
        Some(indent) if indent.kind() == ValueKind::Bool => Some(" ".repeat(usize::from(indent.is_true()))),
        Some(indent) => Some(" ".repeat(usize::try_from(indent)?.min(MAX_DEPTH))),
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators are two texts")),
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
    };
    let style = JsonStyle {
        indent: indent.as_deref(),
        item,
        key,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut text = String::new();
    style.write(value, &mut text, 0)?;
    Ok(text)
}

/// Whether writing may go on.
fn check_limits(out: &str, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deep to be written out"));
    }
    if out.len() > MAX_TEXT {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is too large to be written out"));
    }
    Ok(())
}

/// `repr(value)`.
fn repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    check_limits(out, depth)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out)?,
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut items = 0;
            for item in value.try_iter()? {
                if items > 0 {
                    out.push_str(", ");
                }
                repr(&item, out, depth + 1)?;
                items += 1;
            }
            if tuple && items == 1 {
                out.push(',');
            }
            out.push(if tuple { ')' } else { ']' });
        }
        // Callables are maps that print as themselves.
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(&key, out, depth + 1)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => write!(out, "{value}")?,
    }
    Ok(())
}

/// A text in quotes as Python's `repr` chooses and escapes them.
fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == quote => {
                out.push('\\');
                out.push(c);
            }
            // Controls and the spaces that Python does not hold printable.
            _ if c.is_control() || (c.is_whitespace() && c != ' ') || ('\u{200b}'..='\u{200f}').contains(&c) => {
                let code = c as u32;
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    _ => write!(out, "\\u{code:04x}"),
                };
            }
            _ => out.push(c),
        }
    }
    out.push(quote);
}

fn number(value: &Value, out: &mut String) -> Result<(), Error> {
    if value.is_integer() {
        write!(out, "{value}")?;
    } else {
        float(f64::try_from(value.clone())?, out)?;
    }
    Ok(())
}

/// `repr` of a float: shortest digits; an exponent from 1e16 up and below 1e-4.
fn float(number: f64, out: &mut String) -> fmt::Result {
    if !number.is_finite() {
        return out.write_str(if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        });
    }
    if number != 0.0 && !(1e-4..1e16).contains(&number.abs()) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        return write!(out, "{digits}e{sign}{exponent:0>2}");
    }
    write!(out, "{number:?}")
}

/// How JSON is laid out.
struct JsonStyle<'a> {
    indent: Option<&'a str>,
    item: &'a str,
    key: &'a str,
    sort_keys: bool,
    ensure_ascii: bool,
}

impl JsonStyle<'_> {
    fn write(&self, value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
        check_limits(out, depth)?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => write!(out, "{value}")?,
            ValueKind::Number => match f64::try_from(value.clone())? {
                number if number.is_nan() => out.push_str("NaN"),
                f64::INFINITY => out.push_str("Infinity"),
                f64::NEG_INFINITY => out.push_str("-Infinity"),
                number => float(number, out)?,
            },
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                out.push('[');
                let mut empty = true;
                for item in value.try_iter()? {
                    self.separate(empty, out, depth);
                    empty = false;
                    self.write(&item, out, depth + 1)?;
                }
                self.close(empty, out, depth);
                out.push(']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                out.push('{');
                for (i, key) in keys.iter().enumerate() {
                    self.separate(i == 0, out, depth);
                    match key.as_str() {
                        Some(text) => self.string(text, out),
                        None => {
                            out.push('"');
                            self.write(key, out, depth + 1)?;
                            out.push('"');
                        }
                    }
                    out.push_str(self.key);
                    self.write(&value.get_item(key)?, out, depth + 1)?;
                }
                self.close(keys.is_empty(), out, depth);
                out.push('}');
            }
            kind => {
                return Err(Error::new(ErrorKind::BadSerialization, format!("{kind} cannot be written as JSON")));
            }
        }
        Ok(())
    }

    /// What comes before an item.
    fn separate(&self, first: bool, out: &mut String, depth: usize) {
        if !first {
            out.push_str(self.item);
        }
        self.new_line(out, depth + 1);
    }

    /// What comes before the closing bracket.
    fn close(&self, empty: bool, out: &mut String, depth: usize) {
        if !empty {
            self.new_line(out, depth);
        }
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent, depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                _ if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                _ => out.push(c),
            }
        }
        out.push('"');
    }
}
