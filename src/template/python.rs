//! Values as Python writes them: `str()`, `repr()`, and `json.dumps`.

use std::fmt::{self, Write};

use super::fault::{Result, fail};
use super::value::{Number, Object, Sequence, Value};

/// Deepest nesting that is written out; conversations from outside may be nested as deep as their parser allows.
const MAX_DEPTH: usize = 128;
/// Longest text of one value.
const MAX_TEXT: usize = 4 << 20;

/// `str(value)`; nothing for an undefined value.
pub(super) fn string(value: &Value) -> Result<String> {
    match value {
        Value::Text(text) | Value::Safe(text) => Ok(text.to_string()),
        Value::Undefined(_) => Ok(String::new()),
        _ => repr(value),
    }
}

/// `repr(value)`
pub(super) fn repr(value: &Value) -> Result<String> {
    let mut out = String::new();
    write_repr(value, &mut out, 0, false)?;
    Ok(out)
}

/// `repr(value)` with mappings in the order of their keys, as `pprint` writes it.
pub(super) fn sorted_repr(value: &Value) -> Result<String> {
    let mut out = String::new();
    write_repr(value, &mut out, 0, true)?;
    Ok(out)
}

/// A text with MarkupSafe's entities.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// A character that is not ASCII, without the backslash: `xe9`, `u20ac`, `U0001f600`.
pub(super) fn ascii_escape(c: char) -> String {
    let code = c as u32;
    match code {
        0..=0xff => format!("x{code:02x}"),
        0x100..=0xffff => format!("u{code:04x}"),
        _ => format!("U{code:08x}"),
    }
}

/// `repr` with everything but ASCII escaped.
pub(super) fn ascii(value: &Value) -> Result<String> {
    let mut out = String::new();
    for c in repr(value)?.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.push('\\');
            out.push_str(&ascii_escape(c));
        }
    }
    Ok(out)
}

/// Whether writing may go on.
fn check_limits(out: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return fail("a value is nested too deep to be written out");
    }
    if out.len() > MAX_TEXT {
        return fail("a value is too large to be written out");
    }
    Ok(())
}

fn write_all(items: &[Value], out: &mut String, depth: usize, sorted: bool) -> Result<()> {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_repr(item, out, depth + 1, sorted)?;
    }
    Ok(())
}

fn write_repr(value: &Value, out: &mut String, depth: usize, sorted: bool) -> Result<()> {
    check_limits(out, depth)?;
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Value::Int(number) => {
            let _ = write!(out, "{number}");
        }
        Value::Float(number) => {
            let _ = float(*number, out);
        }
        Value::Text(text) => quote(text, out),
        Value::Safe(text) => {
            out.push_str("Markup(");
            quote(text, out);
            out.push(')');
        }
        Value::List(sequence) => {
            out.push('[');
            write_all(&sequence.items, out, depth, sorted)?;
            out.push(']');
        }
        Value::Tuple(sequence) => write_tuple(sequence, out, depth, sorted)?,
        Value::Dict(dict) => {
            let mut entries: Vec<&(Value, Value)> = dict.entries.iter().collect();
            if sorted {
                // Keys that cannot be compared stay in their order.
                let _ = super::filters::sort_by_keys(&mut entries, |(key, _)| key, false);
            }
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(key, out, depth + 1, sorted)?;
                out.push_str(": ");
                write_repr(value, out, depth + 1, sorted)?;
            }
            out.push('}');
        }
        Value::Range(range) => {
            let _ = write!(out, "range({}, {}", range.start, range.stop);
            if range.step != 1 {
                let _ = write!(out, ", {}", range.step);
            }
            out.push(')');
        }
        Value::View(view, dict) => {
            out.push_str(value.type_name());
            out.push_str("([");
            write_all(&dict.view(*view), out, depth, sorted)?;
            out.push_str("])");
        }
        Value::Iterator(_) => out.push_str("<generator object>"),
        Value::Object(object) => match &**object {
            Object::Macro { definition, .. } => {
                out.push_str("<Macro ");
                quote(&definition.name, out);
                out.push('>');
            }
            Object::Loop(state) => {
                let _ = write!(
                    out,
                    "<LoopContext {}/{}>",
                    state.at.get() + 1,
                    state.items.len()
                );
            }
            _ => {
                let _ = write!(out, "<{} object>", value.type_name());
            }
        },
    }
    Ok(())
}

fn write_tuple(sequence: &Sequence, out: &mut String, depth: usize, sorted: bool) -> Result<()> {
    out.push('(');
    write_all(&sequence.items, out, depth, sorted)?;
    if sequence.items.len() == 1 {
        out.push(',');
    }
    out.push(')');
    Ok(())
}

/// A text in quotes as Python's `repr` chooses and escapes them.
fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
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
            _ if !super::text::is_printable(c) => {
                out.push('\\');
                out.push_str(&ascii_escape(c));
            }
            _ => out.push(c),
        }
    }
    out.push(quote);
}

/// `repr` of a float: shortest digits; an exponent from 1e16 up and below 1e-4.
pub(super) fn float(number: f64, out: &mut String) -> fmt::Result {
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
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |exponent| ('-', exponent));
        return write!(out, "{digits}e{sign}{exponent:0>2}");
    }
    write!(out, "{number:?}")
}

/// How JSON is laid out.
pub(super) struct JsonStyle {
    pub indent: Option<String>,
    /// Between items, and between a key and its value.
    pub item: String,
    pub key: String,
    pub sort_keys: bool,
    pub ensure_ascii: bool,
}

impl JsonStyle {
    /// `json.dumps(value)`
    pub fn text(&self, value: &Value) -> Result<String> {
        let mut out = String::new();
        self.write(value, &mut out, 0)?;
        Ok(out)
    }

    fn write(&self, value: &Value, out: &mut String, depth: usize) -> Result<()> {
        check_limits(out, depth)?;
        match value {
            Value::Text(text) | Value::Safe(text) => self.string(text, out),
            Value::List(sequence) | Value::Tuple(sequence) => {
                out.push('[');
                for (i, item) in sequence.items.iter().enumerate() {
                    self.separate(i == 0, out, depth);
                    self.write(item, out, depth + 1)?;
                }
                self.close(sequence.items.is_empty(), out, depth);
                out.push(']');
            }
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = dict.entries.iter().collect();
                if self.sort_keys {
                    super::filters::sort_by_keys(&mut entries, |(key, _)| key, false)?;
                }
                out.push('{');
                for (i, (key, value)) in entries.into_iter().enumerate() {
                    self.separate(i == 0, out, depth);
                    match key.text() {
                        Some(text) => self.string(text, out),
                        None => {
                            out.push('"');
                            scalar(key, out).or_else(|_| {
                                fail("a key of JSON is a text, a number, a truth value or none")
                            })?;
                            out.push('"');
                        }
                    }
                    out.push_str(&self.key);
                    self.write(value, out, depth + 1)?;
                }
                self.close(dict.entries.is_empty(), out, depth);
                out.push('}');
            }
            _ => scalar(value, out)?,
        }
        Ok(())
    }

    /// What comes before an item.
    fn separate(&self, first: bool, out: &mut String, depth: usize) {
        if !first {
            out.push_str(&self.item);
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
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
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

/// What JSON writes without brackets or quotes.
fn scalar(value: &Value, out: &mut String) -> Result<()> {
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        _ => match value.number() {
            Some(Number::Int(number)) => {
                let _ = write!(out, "{number}");
            }
            Some(Number::Float(number)) if number.is_nan() => out.push_str("NaN"),
            Some(Number::Float(f64::INFINITY)) => out.push_str("Infinity"),
            Some(Number::Float(f64::NEG_INFINITY)) => out.push_str("-Infinity"),
            Some(Number::Float(number)) => {
                let _ = float(number, out);
            }
            None => return fail(format!("{} cannot be written as JSON", value.described())),
        },
    }
    Ok(())
}
