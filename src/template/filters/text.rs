//! Filters that lay a text out.

use crate::template::fault::{Fault, Result, fail};
use crate::template::format;
use crate::template::methods;
use crate::template::python::{self, JsonStyle};
use crate::template::run::{Call, Run, required};
use crate::template::text;
use crate::template::value::Value;

use super::numbers::to_float;
use super::{MAX_INDENT, by_attribute, flag, present, whole};

/// `safe`: a text that is not escaped.
pub(super) fn safe(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    Ok(Value::Safe(run.string(&value)?.into()))
}

/// `join`: the items as one text.
pub(super) fn joined(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [separator, attribute] = call.bind(name, ["d", "attribute"])?;
    let separator = separator.map_or(Ok(String::new()), |separator| run.string(&separator))?;
    let mut joined = String::new();
    for (i, item) in run.items(&value)?.into_iter().enumerate() {
        run.charge(1)?;
        let item = match &attribute {
            None | Some(Value::None) => item,
            Some(attribute) => by_attribute(run, item, attribute, None)?,
        };
        if i > 0 {
            run.charge_text(separator.len())?;
            joined.push_str(&separator);
        }
        joined.push_str(&run.string(&item)?);
    }
    Ok(joined.into())
}

/// `replace`
pub(super) fn replaced(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [old, new, count] = call.bind(name, ["old", "new", "count"])?;
    let shown = run.string(&value)?;
    let (old, new) = (
        run.string(&required(name, old)?)?,
        run.string(&required(name, new)?)?,
    );
    let count = present(count).map(|count| count.int()).transpose()?;
    Ok(methods::replaced(run, &shown, &old, &new, count)?.into())
}

/// `trim`
pub(super) fn trimmed(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [chars] = call.bind(name, ["chars"])?;
    let shown = run.string(&value)?;
    let chars = present(chars);
    let chars = match &chars {
        None => None,
        Some(chars) => Some(
            chars
                .text()
                .ok_or_else(|| Fault::new("trim needs a text of characters"))?,
        ),
    };
    run.charge_text(
        shown
            .len()
            .saturating_mul(chars.map_or(0, |chars| chars.len() / 8)),
    )?;
    let trimmed = methods::stripped(&shown, chars, "strip");
    Ok(if matches!(value, Value::Safe(_)) {
        Value::Safe(trimmed.into())
    } else {
        trimmed.into()
    })
}

/// `center`
pub(super) fn centred(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [width] = call.bind(name, ["width"])?;
    let shown = run.string(&value)?;
    Ok(methods::padded(&shown, whole(name, width, 80)?, ' ', name)?.into())
}

/// `wordcount`
pub(super) fn word_count(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    let shown = run.string(&value)?;
    let words = shown
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty());
    Ok(words.count().into())
}

/// `pprint`, of short values.
pub(super) fn pretty(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    let shown = python::sorted_repr(&value)?;
    if shown.chars().count() > 80 {
        return fail("the filter pprint is supported for what fits into a line of 80 characters");
    }
    run.text(shown)
}

/// `filesizeformat`
pub(super) fn size_shown(_: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [binary] = call.bind(name, ["binary"])?;
    let Some(bytes) = to_float(&value)? else {
        return fail("filesizeformat needs a number");
    };
    Ok(file_size(bytes, flag(binary)).into())
}

pub(super) fn formatted(run: &mut Run, value: &Value, call: Call) -> Result<Value> {
    if !call.positional.is_empty() && !call.named.is_empty() {
        return fail("format takes values by place or by name, not both");
    }
    let text = run.string(value)?;
    let values = match call.named.is_empty() {
        true => Value::tuple(call.positional),
        false => run.dict(
            call.named
                .into_iter()
                .map(|(name, value)| ((&*name).into(), value))
                .collect(),
        )?,
    };
    Ok(format::percent(run, &text, &values)?.into())
}

pub(super) fn indented(run: &mut Run, value: &Value, call: Call) -> Result<Value> {
    let [width, first, blank] = call.bind("indent", ["width", "first", "blank"])?;
    let Some(text) = value.text() else {
        return fail(format!("indent needs a text, not {}", value.described()));
    };
    let indent = match &width {
        Some(width) => match width.text() {
            Some(indent) => indent.to_owned(),
            None => {
                let width = usize::try_from(whole("indent", Some(width.clone()), 4)?.max(0))
                    .unwrap_or(usize::MAX);
                run.charge_text(width)?;
                " ".repeat(width)
            }
        },
        None => "    ".to_owned(),
    };
    let (first, blank) = (flag(first), flag(blank));
    // Jinja adds a line end for `splitlines`, which takes the last one away.
    let text = format!("{text}\n");
    let lines = text::lines(&text, false);
    run.charge_text(
        text.len()
            .saturating_add(lines.len().saturating_mul(indent.len())),
    )?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 {
            first
        } else {
            blank || !line.is_empty()
        } {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(if matches!(value, Value::Safe(_)) {
        Value::Safe(out.into())
    } else {
        out.into()
    })
}

pub(super) fn truncated(run: &mut Run, value: Value, call: Call) -> Result<Value> {
    let [length, cut, end, leeway] =
        call.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let (length, leeway) = (
        whole("truncate", length, 255)?,
        whole("truncate", present(leeway), 5)?,
    );
    let end = end.unwrap_or_else(|| "...".into());
    let Some(end) = end.text() else {
        return fail("the end of truncate is a text");
    };
    let rest = length - end.chars().count() as i128;
    if rest < 0 || leeway < 0 {
        return fail("the length of truncate is too small");
    }
    let len = value
        .len()
        .ok_or_else(|| Fault::new(format!("truncate needs a text, not {}", value.described())))?;
    if len as i128 <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let Some(text) = value.text() else {
        return fail("truncate needs a text");
    };
    run.charge_text(text.len())?;
    let kept: String = text
        .chars()
        .take(usize::try_from(rest).unwrap_or(usize::MAX))
        .collect();
    let kept = if flag(cut) {
        &*kept
    } else {
        kept.rsplit_once(' ').map_or(&*kept, |(before, _)| before)
    };
    Ok(format!("{kept}{end}").into())
}

pub(super) fn wrapped(run: &mut Run, value: &Value, call: Call) -> Result<Value> {
    let [width, words, end, hyphens] = call.bind(
        "wordwrap",
        [
            "width",
            "break_long_words",
            "wrapstring",
            "break_on_hyphens",
        ],
    )?;
    let Some(text) = value.text() else {
        return fail(format!("wordwrap needs a text, not {}", value.described()));
    };
    let width = usize::try_from(whole("wordwrap", width, 79)?).unwrap_or(0);
    if width == 0 && !text.is_empty() {
        return fail("the width of wordwrap must be above zero");
    }
    let end = present(end).map_or(Ok("\n".to_owned()), |end| run.string(&end))?;
    let (words, hyphens) = (
        words.is_none_or(|words| words.is_true()),
        hyphens.is_none_or(|hyphens| hyphens.is_true()),
    );
    // A line has a character at least, and an end.
    run.charge_text(text.len().saturating_mul(end.len() + 64))?;
    let lines: Vec<String> = text::lines(text, false)
        .into_iter()
        .map(|line| text::wrap(line, width, words, hyphens).join(&end))
        .collect();
    Ok(lines.join(&end).into())
}

pub(super) fn to_json(run: &mut Run, value: &Value, call: Call) -> Result<Value> {
    let [ascii, indent, separators, sort] = call.bind(
        "tojson",
        ["ensure_ascii", "indent", "separators", "sort_keys"],
    )?;
    let indent = match present(indent) {
        None => None,
        Some(indent) => Some(match indent.text() {
            Some(text) if text.len() > MAX_INDENT => return fail("the indent is too long"),
            Some(text) => text.to_owned(),
            None => " ".repeat(
                usize::try_from(indent.int()?.max(0))
                    .unwrap_or(MAX_INDENT)
                    .min(MAX_INDENT),
            ),
        }),
    };
    let (item, key) = match present(separators) {
        Some(separators) => match &run.items(&separators)?[..] {
            [item, key] => match (item.text(), key.text()) {
                (Some(item), Some(key)) => (item.to_owned(), key.to_owned()),
                _ => return fail("separators are two texts"),
            },
            _ => return fail("separators are two texts"),
        },
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let style = JsonStyle {
        indent,
        item,
        key,
        sort_keys: flag(sort),
        ensure_ascii: flag(ascii),
    };
    let text = style.text(value)?;
    run.text(text)
}

fn file_size(bytes: f64, binary: bool) -> String {
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return "1 Byte".to_owned();
    }
    if bytes < base {
        return format!("{} Bytes", bytes.trunc());
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut unit = base;
    let mut at = 0;
    for i in 0..prefixes.len() {
        unit = base.powi(i as i32 + 2);
        at = i;
        if bytes < unit {
            break;
        }
    }
    let (prefix, suffix) = if binary {
        (prefixes[at].to_uppercase(), "iB")
    } else {
        (prefixes[at].to_owned(), "B")
    };
    format!("{:.1} {prefix}{suffix}", base * bytes / unit)
}
