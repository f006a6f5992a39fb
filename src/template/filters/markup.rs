//! Filters for HTML and for URLs, as MarkupSafe and Jinja's own utilities write them.

use crate::template::fault::{Result, fail};
use crate::template::python;
use crate::template::run::{self, Call, Run};
use crate::template::text;
use crate::template::value::Value;
use std::fmt::Write;

/// `escape`: a text with entities, unless it is safe.
pub(super) fn escaped(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    Ok(match value {
        Value::Safe(_) => value,
        _ => {
            let escaped = python::escape(&run.string(&value)?);
            run.charge_text(escaped.len())?;
            Value::Safe(escaped.into())
        }
    })
}

/// `forceescape`: a text with entities, safe or not.
pub(super) fn escaped_again(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    let escaped = python::escape(&run.string(&value)?);
    run.charge_text(escaped.len())?;
    Ok(Value::Safe(escaped.into()))
}

/// `striptags`
pub(super) fn stripped_of_tags(
    run: &mut Run,
    name: &str,
    value: Value,
    call: Call,
) -> Result<Value> {
    let [] = call.bind(name, [])?;
    let shown = run.string(&value)?;
    Ok(without_tags(run, &shown)?.into())
}

/// `urlencode`
pub(super) fn url_encode(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    Ok(url_encoded(run, &value)?.into())
}

/// `xmlattr`
pub(super) fn xml_attr(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [space] = call.bind(name, ["autospace"])?;
    Ok(xml_attributes(run, &value, space.is_none_or(|space| space.is_true()))?.into())
}

fn url_quoted(text: &str, query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn url_encoded(run: &mut Run, value: &Value) -> Result<String> {
    if value.text().is_some() || !value.is_iterable() {
        let text = run.string(value)?;
        run.charge_text(3 * text.len())?;
        return Ok(url_quoted(&text, false));
    }
    let items = match value {
        Value::Dict(dict) => run::pairs(dict),
        _ => run.items(value)?,
    };
    let mut parts = Vec::new();
    for pair in items {
        let pair = run.items(&pair)?;
        let [key, value] = &pair[..] else {
            return fail("urlencode needs pairs of a key and a value");
        };
        let (key, value) = (run.string(key)?, run.string(value)?);
        run.charge_text(3 * (key.len() + value.len()))?;
        parts.push(format!(
            "{}={}",
            url_quoted(&key, true),
            url_quoted(&value, true)
        ));
    }
    Ok(parts.join("&"))
}

fn xml_attributes(run: &mut Run, value: &Value, space: bool) -> Result<String> {
    let Value::Dict(dict) = value else {
        return fail("xmlattr needs a mapping");
    };
    let mut out = String::new();
    for (key, value) in &dict.entries {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let Some(key) = key.text() else {
            return fail("the names of attributes are texts");
        };
        if key.contains([' ', '\t', '\n', '\r', '\x0b', '\x0c', '/', '>', '=']) {
            return fail(format!("{key:?} is no name of an attribute"));
        }
        let shown = run.string(value)?;
        let shown = if matches!(value, Value::Safe(_)) {
            shown
        } else {
            python::escape(&shown)
        };
        if space || !out.is_empty() {
            out.push(' ');
        }
        let _ = write!(out, "{}=\"{shown}\"", python::escape(key));
    }
    Ok(out)
}

/// MarkupSafe's `striptags`: without comments and tags, white space collapsed, entities resolved.
fn without_tags(run: &mut Run, text: &str) -> Result<String> {
    let mut kept = text.to_owned();
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut out = String::with_capacity(kept.len());
        let mut rest = &kept[..];
        while let Some(start) = rest.find(open) {
            let Some(end) = rest[start..].find(close) else {
                break;
            };
            out.push_str(&rest[..start]);
            rest = &rest[start + end + close.len()..];
        }
        out.push_str(rest);
        kept = out;
    }
    let words: Vec<&str> = text::split(&kept, None, usize::MAX);
    let joined = words.join(" ");
    run.charge_text(joined.len())?;
    let mut out = String::new();
    let mut rest = &joined[..];
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match entity(rest) {
            Some((c, len)) => {
                out.push(c);
                rest = &rest[len..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    Ok(out + rest)
}

/// The character of the entity that `text` begins with, and the entity's length.
fn entity(text: &str) -> Option<(char, usize)> {
    let named = [
        ("&amp;", '&'),
        ("&lt;", '<'),
        ("&gt;", '>'),
        ("&quot;", '"'),
        ("&apos;", '\''),
        ("&nbsp;", '\u{a0}'),
    ];
    if let Some((name, c)) = named.into_iter().find(|(name, _)| text.starts_with(name)) {
        return Some((c, name.len()));
    }
    let end = text.bytes().take(12).position(|byte| byte == b';')?;
    let number = text[..end].strip_prefix("&#")?;
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => number.parse().ok()?,
    };
    Some((char::from_u32(code)?, end + 1))
}
