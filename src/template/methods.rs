//! Methods of Python's own types that a template may call. Those that change a list or a mapping are not there, as in
//! Transformers' sandbox.

use super::fault::{Fault, Result, fail};
use super::format;
use super::run::{Call, Run, pairs, required};
use super::text;
use super::value::{Number, Object, Value, View};

/// Longest text that padding or tabs may ask for.
const MAX_PADDING: usize = 1 << 16;
/// Longest text that a method may come to.
const MAX_TEXT: usize = 16 << 20;

const OF_TEXTS: [&str; 45] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
    "encode",
];
const OF_DICTS: [&str; 6] = ["get", "items", "keys", "values", "copy", "fromkeys"];

/// The method of a value by its name.
pub(super) fn find(value: &Value, name: &str) -> Option<&'static str> {
    let names: &[&'static str] = match value {
        Value::Text(_) | Value::Safe(_) => &OF_TEXTS,
        Value::Dict(_) => &OF_DICTS,
        Value::List(_) => &["count", "index", "copy"],
        Value::Tuple(_) | Value::Range(_) => &["count", "index"],
        Value::Bool(_) | Value::Int(_) => &["bit_length", "bit_count", "conjugate", "is_integer"],
        Value::Float(_) => &["is_integer", "conjugate"],
        Value::Object(object) => match &**object {
            Object::Loop(_) => &["cycle", "changed"],
            Object::Cycler { .. } => &["next", "reset"],
            Object::Function("dict") => &["fromkeys"],
            _ => &[],
        },
        _ => &[],
    };
    names.iter().copied().find(|known| *known == name)
}

/// `value.name(…)`
pub(super) fn call(run: &mut Run, value: &Value, name: &str, call: Call) -> Result<Value> {
    match value {
        Value::Text(text) | Value::Safe(text) => {
            run.charge_text(text.len())?;
            let result = text_method(run, text, name, call)?;
            match result {
                Value::Text(text) => {
                    run.charge_text(text.len())?;
                    // What a safe text is made into by itself is safe too.
                    let alone = !matches!(
                        name,
                        "format" | "format_map" | "join" | "replace" | "center" | "ljust" | "rjust"
                    );
                    let safe = alone && matches!(value, Value::Safe(_));
                    Ok(if safe {
                        Value::Safe(text)
                    } else {
                        Value::Text(text)
                    })
                }
                other => {
                    run.charge_values(other.size().values)?;
                    Ok(other)
                }
            }
        }
        Value::Dict(dict) => match name {
            "get" => {
                let [key, default] = call.bind(name, ["/key", "/default"])?;
                let key = required(name, key)?;
                key.check_key()?;
                Ok(dict.get(&key).cloned().or(default).unwrap_or(Value::None))
            }
            "fromkeys" => from_keys(run, call),
            _ => {
                let [] = call.bind(name, [])?;
                Ok(match name {
                    "keys" => Value::View(View::Keys, dict.clone()),
                    "values" => Value::View(View::Values, dict.clone()),
                    "items" => Value::View(View::Items, dict.clone()),
                    _ => Value::Dict(dict.clone()),
                })
            }
        },
        Value::List(_) | Value::Tuple(_) | Value::Range(_) => {
            sequence_method(run, value, name, call)
        }
        Value::Object(object) => object_method(run, object, name, call),
        _ => {
            let [] = call.bind(name, [])?;
            match (value.number(), name) {
                (Some(Number::Int(number)), "bit_length") => Ok(Value::Int(i128::from(
                    128 - number.unsigned_abs().leading_zeros(),
                ))),
                (Some(Number::Int(number)), "bit_count") => {
                    Ok(Value::Int(i128::from(number.unsigned_abs().count_ones())))
                }
                (Some(Number::Int(_)), "is_integer") => Ok(Value::Bool(true)),
                (Some(Number::Float(number)), "is_integer") => {
                    Ok(Value::Bool(number.fract() == 0.0))
                }
                (Some(Number::Int(number)), _) => Ok(Value::Int(number)),
                _ => Ok(value.clone()),
            }
        }
    }
}

/// `count`, `index` and `copy` of a sequence.
fn sequence_method(run: &mut Run, value: &Value, name: &str, call: Call) -> Result<Value> {
    if name == "copy" {
        let [] = call.bind(name, [])?;
        return Ok(value.clone());
    }
    let [item, start, stop] = call.bind(name, ["/value", "/start", "/stop"])?;
    let item = required(name, item)?;
    run.charge(run.comparison_cost(value, &item))?;
    let items = run.items(value)?;
    if name == "count" {
        return Ok(items
            .iter()
            .filter(|known| known.equals(&item))
            .count()
            .into());
    }
    let len = items.len() as i128;
    let place = |bound: Option<Value>, default: i128| -> Result<i128> {
        let at = bound.map_or(Ok(default), |bound| bound.int())?;
        Ok(if at < 0 {
            at.saturating_add(len).max(0)
        } else {
            at.min(len)
        })
    };
    let (start, stop) = (place(start, 0)?, place(stop, len)?);
    let found = (start..stop).find(|at| items[*at as usize].equals(&item));
    found
        .map(Value::Int)
        .ok_or_else(|| Fault::new("what index looks for is not in the list"))
}

fn from_keys(run: &mut Run, call: Call) -> Result<Value> {
    let [keys, value] = call.bind("fromkeys", ["/iterable", "/value"])?;
    let keys = required("fromkeys", keys)?;
    let value = value.unwrap_or(Value::None);
    let entries = run
        .items(&keys)?
        .into_iter()
        .map(|key| (key, value.clone()))
        .collect();
    run.dict(entries)
}

fn object_method(run: &mut Run, object: &Object, name: &str, call: Call) -> Result<Value> {
    match (object, name) {
        (Object::Loop(state), "cycle") => {
            if call.positional.is_empty() || !call.named.is_empty() {
                return fail("cycle needs at least one value");
            }
            Ok(call.positional[state.at.get() % call.positional.len()].clone())
        }
        (Object::Loop(state), _) => {
            let value = Value::tuple(call.positional.clone());
            let before = state.changed.replace(Some(call.positional));
            let before = before.map(Value::tuple);
            if let Some(before) = &before {
                run.charge(run.comparison_cost(before, &value))?;
            }
            Ok(Value::Bool(
                before.is_none_or(|before| !before.equals(&value)),
            ))
        }
        (Object::Cycler { items, at, .. }, "next") => {
            let [] = call.bind(name, [])?;
            let value = items[at.get()].clone();
            at.set((at.get() + 1) % items.len());
            Ok(value)
        }
        (Object::Cycler { at, .. }, _) => {
            let [] = call.bind(name, [])?;
            at.set(0);
            Ok(Value::None)
        }
        _ => from_keys(run, call),
    }
}

/// An argument that must be a text.
fn text_of<'a>(what: &str, value: &'a Option<Value>) -> Result<&'a str> {
    let text = value.as_ref().and_then(Value::text);
    text.ok_or_else(|| {
        let given = value
            .as_ref()
            .map_or("nothing".to_owned(), Value::described);
        Fault::new(format!("{what} needs a text, not {given}"))
    })
}

/// An argument that is a text or none.
fn optional_text<'a>(what: &str, value: &'a Option<Value>) -> Result<Option<&'a str>> {
    if matches!(value, None | Some(Value::None)) {
        Ok(None)
    } else {
        text_of(what, value).map(Some)
    }
}

fn optional_int(value: &Option<Value>) -> Result<Option<i128>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => value.int().map(Some),
    }
}

fn texts(parts: Vec<&str>) -> Value {
    Value::list(parts.into_iter().map(Value::from).collect())
}

fn too_long<T>(what: &str) -> Result<T> {
    fail(format!("{what} is too long"))
}

/// `text.replace(old, new)`, at most `most` times.
pub(super) fn replaced(
    run: &mut Run,
    text: &str,
    old: &str,
    new: &str,
    most: Option<i128>,
) -> Result<String> {
    let most = most
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(usize::MAX);
    run.charge_text(text.len())?;
    let count = if old.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(old).count()
    }
    .min(most);
    run.charge_text(text.len().saturating_add(count.saturating_mul(new.len())))?;
    Ok(if most == usize::MAX {
        text.replace(old, new)
    } else {
        text.replacen(old, new, most)
    })
}

/// `text.center(width)` and its kin.
pub(super) fn padded(text: &str, width: i128, fill: char, method: &str) -> Result<String> {
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(text.chars().count());
    if missing > MAX_PADDING {
        return too_long("the padding");
    }
    let before = match method {
        "ljust" => 0,
        "rjust" => missing,
        // CPython gives the odd space to the left if the width is odd too.
        _ => missing / 2 + (missing & width & 1),
    };
    let fill = |count: usize| std::iter::repeat_n(fill, count);
    Ok(fill(before)
        .chain(text.chars())
        .chain(fill(missing - before))
        .collect())
}

/// `text.strip(chars)`
pub(super) fn stripped<'a>(text: &'a str, chars: Option<&str>, method: &str) -> &'a str {
    let strips = |c: char| chars.map_or_else(|| text::is_space(c), |chars| chars.contains(c));
    match method {
        "lstrip" => text.trim_start_matches(strips),
        "rstrip" => text.trim_end_matches(strips),
        _ => text.trim_matches(strips),
    }
}

fn text_method(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    if let Some(answer) = text::is(text, name) {
        let [] = call.bind(name, [])?;
        return Ok(Value::Bool(answer));
    }
    match name {
        "format" => Ok(format::str_format(run, text, &call)?.into()),
        "format_map" => format_map(run, text, name, call),
        "join" => join(run, text, name, call),
        "split" | "rsplit" => split(run, text, name, call),
        "splitlines" => split_lines(run, text, name, call),
        "strip" | "lstrip" | "rstrip" => strip(run, text, name, call),
        "startswith" | "endswith" => has_affix(run, text, name, call),
        "find" | "rfind" | "index" | "rindex" | "count" => find_part(text, name, call),
        "replace" => replace(run, text, name, call),
        "removeprefix" | "removesuffix" => remove_affix(text, name, call),
        "partition" | "rpartition" => partition(text, name, call),
        "ljust" | "rjust" | "center" => pad(text, name, call),
        "zfill" => fill_zeros(text, name, call),
        "expandtabs" => expand_tabs(run, text, name, call),
        _ => {
            let [] = call.bind(name, [])?;
            recased(text, name)
        }
    }
}

/// The methods that take nothing.
fn recased(text: &str, name: &str) -> Result<Value> {
    Ok(match name {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        // The letters whose folding is no lower case.
        "casefold" => text.to_lowercase().replace('ß', "ss").replace('ς', "σ"),
        "capitalize" => text::capitalized(text),
        "title" => text::title(text),
        "swapcase" => text::swap_case(text),
        _ => return fail(format!("the method {name} of a text is not supported")),
    }
    .into())
}

/// `text.format_map(mapping)`.
fn format_map(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    let [mapping] = call.bind(name, ["/mapping"])?;
    let Some(Value::Dict(dict)) = mapping else {
        return fail("format_map needs a mapping");
    };
    let named = dict
        .entries
        .iter()
        .filter_map(|(key, value)| Some((key.text()?.into(), value.clone())));
    let call = Call {
        positional: Vec::new(),
        named: named.collect(),
    };
    Ok(format::str_format(run, text, &call)?.into())
}

/// `text.join(items)`.
fn join(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    let [items] = call.bind(name, ["/iterable"])?;
    let items = required(name, items)?;
    let mut joined = String::new();
    for (i, item) in run.items(&items)?.iter().enumerate() {
        let Some(item) = item.text() else {
            return fail(format!("join needs texts, not {}", item.described()));
        };
        let separator = if i > 0 { text } else { "" };
        run.charge(1)?;
        run.charge_text(separator.len() + item.len())?;
        if joined.len() > MAX_TEXT {
            return too_long("the joined text");
        }
        joined.push_str(separator);
        joined.push_str(item);
    }
    Ok(joined.into())
}

/// `text.split(sep, maxsplit)` and `rsplit`.
fn split(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    let [separator, most] = call.bind(name, ["sep", "maxsplit"])?;
    let separator = optional_text(name, &separator)?;
    if separator == Some("") {
        return fail("a text cannot be split at nothing");
    }
    let most = most.map_or(Ok(-1), |most| most.int())?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    // As many parts as there can be, before there are.
    run.charge_values(match separator {
        Some(separator) => text.matches(separator).count(),
        None => text.len() / 2,
    })?;
    Ok(texts(if name == "split" {
        text::split(text, separator, most)
    } else {
        text::rsplit(text, separator, most)
    }))
}

/// `text.splitlines(keepends)`.
fn split_lines(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    let [keep] = call.bind(name, ["keepends"])?;
    run.charge_values(
        text.chars()
            .filter(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
            .count(),
    )?;
    Ok(texts(text::lines(
        text,
        keep.is_some_and(|keep| keep.is_true()),
    )))
}

/// `text.strip(chars)` and its kin.
fn strip(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    let [chars] = call.bind(name, ["/chars"])?;
    let chars = optional_text(name, &chars)?;
    run.charge_text(
        text.len()
            .saturating_mul(chars.map_or(0, |chars| chars.len() / 8)),
    )?;
    Ok(stripped(text, chars, name).into())
}

/// `text.startswith(affix, start, end)` and `endswith`; of several affixes, any.
fn has_affix(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    let [affixes, start, end] = call.bind(name, ["/affix", "/start", "/end"])?;
    let affixes = required(name, affixes)?;
    let affixes = match &affixes {
        Value::Tuple(sequence) => sequence.items.clone(),
        _ => vec![affixes],
    };
    let window = text::window(text, optional_int(&start)?, optional_int(&end)?);
    let piece = window.map(|(from, to)| &text[from..to]);
    let mut found = false;
    run.charge(affixes.len())?;
    for affix in affixes {
        let affix = Some(affix);
        let affix = text_of(name, &affix)?;
        found |= piece.is_some_and(|piece| match name {
            "startswith" => piece.starts_with(affix),
            _ => piece.ends_with(affix),
        });
    }
    Ok(Value::Bool(found))
}

/// `text.find(part, start, end)` and its kin, in characters.
fn find_part(text: &str, name: &str, call: Call) -> Result<Value> {
    let [part, start, end] = call.bind(name, ["/part", "/start", "/end"])?;
    let part = text_of(name, &part)?;
    let window = text::window(text, optional_int(&start)?, optional_int(&end)?);
    if name == "count" {
        let piece = window.map(|(from, to)| &text[from..to]);
        return Ok(piece.map_or(0, |piece| piece.matches(part).count()).into());
    }
    let at = window.and_then(|(from, to)| {
        let piece = &text[from..to];
        let at = if name.starts_with('r') {
            piece.rfind(part)
        } else {
            piece.find(part)
        };
        at.map(|at| text[..from + at].chars().count())
    });
    Ok(match at {
        Some(at) => at.into(),
        None if name.ends_with("find") => Value::Int(-1),
        None => return fail(format!("what {name} looks for is not in the text")),
    })
}

/// `text.replace(old, new, count)`.
fn replace(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    let [old, new, most] = call.bind(name, ["/old", "/new", "count"])?;
    let (old, new) = (text_of(name, &old)?, text_of(name, &new)?);
    Ok(replaced(
        run,
        text,
        old,
        new,
        most.map(|most| most.int()).transpose()?,
    )?
    .into())
}

/// `text.removeprefix(affix)` and `removesuffix`.
fn remove_affix(text: &str, name: &str, call: Call) -> Result<Value> {
    let [affix] = call.bind(name, ["/affix"])?;
    let affix = text_of(name, &affix)?;
    let rest = if name == "removeprefix" {
        text.strip_prefix(affix)
    } else {
        text.strip_suffix(affix)
    };
    Ok(rest.unwrap_or(text).into())
}

/// `text.partition(sep)` and `rpartition`.
fn partition(text: &str, name: &str, call: Call) -> Result<Value> {
    let [separator] = call.bind(name, ["/sep"])?;
    let separator = text_of(name, &separator)?;
    if separator.is_empty() {
        return fail("a text cannot be split at nothing");
    }
    let split = if name == "partition" {
        text.split_once(separator)
    } else {
        text.rsplit_once(separator)
    };
    let parts = match split {
        Some((before, after)) => [before, separator, after],
        None if name == "partition" => [text, "", ""],
        None => ["", "", text],
    };
    Ok(Value::tuple(parts.map(Value::from).into()))
}

/// `text.ljust(width, fillchar)` and its kin.
fn pad(text: &str, name: &str, call: Call) -> Result<Value> {
    let [width, fill] = call.bind(name, ["/width", "/fillchar"])?;
    let fill = optional_text(name, &fill)?.unwrap_or(" ");
    let mut chars = fill.chars();
    let (Some(fill), None) = (chars.next(), chars.next()) else {
        return fail("padding needs one character");
    };
    Ok(padded(text, required(name, width)?.int()?, fill, name)?.into())
}

/// `text.zfill(width)`.
fn fill_zeros(text: &str, name: &str, call: Call) -> Result<Value> {
    let [width] = call.bind(name, ["/width"])?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    let width = required(name, width)?
        .int()?
        .saturating_sub(sign.len() as i128);
    Ok(format!("{sign}{}", padded(digits, width, '0', "rjust")?).into())
}

/// `text.expandtabs(tabsize)`.
fn expand_tabs(run: &mut Run, text: &str, name: &str, call: Call) -> Result<Value> {
    let [size] = call.bind(name, ["tabsize"])?;
    let size = size.map_or(Ok(8), |size| size.int())?;
    let size = usize::try_from(size).unwrap_or(0);
    if size > MAX_PADDING {
        return too_long("a tab");
    }
    let mut out = String::new();
    let mut column = 0;
    for c in text.chars() {
        if c == '\t' {
            let spaces = if size == 0 { 0 } else { size - column % size };
            run.charge(1)?;
            run.charge_text(spaces)?;
            out.extend(std::iter::repeat_n(' ', spaces));
            column += spaces;
        } else {
            out.push(c);
            column = if matches!(c, '\n' | '\r') {
                0
            } else {
                column + 1
            };
        }
    }
    Ok(out.into())
}

/// The entries of a mapping for `items`.
pub(super) fn items_of(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Undefined(_) => Ok(Vec::new()),
        Value::Dict(dict) => Ok(pairs(dict)),
        _ => fail(format!(
            "only a mapping has items, not {}",
            value.type_name()
        )),
    }
}
