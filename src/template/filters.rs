//! Jinja's filters, with the arguments and the answers that its own have.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt::Write;

use super::ast::{Comparison, Operator};
use super::fault::{Fault, Result, fail};
use super::format;
use super::methods;
use super::python::{self, JsonStyle};
use super::run::{Call, Run, named_tuple, required};
use super::tests;
use super::text;
use super::value::{Key, Number, Value};

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];
/// Widest indent.
const MAX_INDENT: usize = 128;

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn unknown(name: &str) -> String {
    format!("no filter has the name {name}")
}

/// An argument that is an integer.
fn whole(what: &str, value: Option<Value>, default: i128) -> Result<i128> {
    value.map_or(Ok(default), |value| match value {
        Value::Int(_) | Value::Bool(_) => value.int(),
        _ => fail(format!(
            "{what} needs an integer, not {}",
            value.described()
        )),
    })
}

fn flag(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.is_true())
}

fn present(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !matches!(value, Value::None))
}

/// `value|name(…)`
pub(super) fn apply(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    run.charge(1)?;
    match name {
        "map" => return map(run, &value, call),
        "select" | "reject" | "selectattr" | "rejectattr" => {
            return select(run, name, &value, call);
        }
        "format" => return formatted(run, &value, call),
        _ => {}
    }
    if let Some(result) = text_filter(run, name, &value) {
        let [] = call.bind(name, [])?;
        let text = result?;
        run.charge_text(text.len())?;
        // A safe text stays safe, but where Jinja joins it anew.
        let safe = matches!(value, Value::Safe(_)) && name != "title";
        return Ok(if safe {
            Value::Safe(text.into())
        } else {
            text.into()
        });
    }
    Ok(match name {
        "default" | "d" => {
            let [default, falsy] = call.bind(name, ["default_value", "boolean"])?;
            let replaces = value.is_undefined() || flag(falsy) && !value.is_true();
            if replaces {
                default.unwrap_or_else(|| "".into())
            } else {
                value
            }
        }
        "length" | "count" => {
            let [] = call.bind(name, [])?;
            let len = value
                .len()
                .ok_or_else(|| Fault::new(format!("{} has no length", value.type_name())))?;
            len.into()
        }
        "list" => {
            let [] = call.bind(name, [])?;
            let items = run.items(&value)?;
            run.list(items)?
        }
        "items" => {
            let [] = call.bind(name, [])?;
            run.charge_values(value.item_count())?;
            Value::iterator(methods::items_of(&value)?)
        }
        "tojson" => to_json(run, &value, call)?,
        "safe" => {
            let [] = call.bind(name, [])?;
            Value::Safe(run.string(&value)?.into())
        }
        "escape" | "e" => {
            let [] = call.bind(name, [])?;
            match value {
                Value::Safe(_) => value,
                _ => {
                    let escaped = python::escape(&run.string(&value)?);
                    run.charge_text(escaped.len())?;
                    Value::Safe(escaped.into())
                }
            }
        }
        "forceescape" => {
            let [] = call.bind(name, [])?;
            let escaped = python::escape(&run.string(&value)?);
            run.charge_text(escaped.len())?;
            Value::Safe(escaped.into())
        }
        "striptags" => {
            let [] = call.bind(name, [])?;
            let shown = run.string(&value)?;
            without_tags(run, &shown)?.into()
        }
        "join" => {
            let [separator, attribute] = call.bind(name, ["d", "attribute"])?;
            let separator =
                separator.map_or(Ok(String::new()), |separator| run.string(&separator))?;
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
            joined.into()
        }
        "replace" => {
            let [old, new, count] = call.bind(name, ["old", "new", "count"])?;
            let shown = run.string(&value)?;
            let (old, new) = (
                run.string(&required(name, old)?)?,
                run.string(&required(name, new)?)?,
            );
            let count = present(count).map(|count| count.int()).transpose()?;
            methods::replaced(run, &shown, &old, &new, count)?.into()
        }
        "trim" => {
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
            if matches!(value, Value::Safe(_)) {
                Value::Safe(trimmed.into())
            } else {
                trimmed.into()
            }
        }
        "center" => {
            let [width] = call.bind(name, ["width"])?;
            let shown = run.string(&value)?;
            methods::padded(&shown, whole(name, width, 80)?, ' ', name)?.into()
        }
        "indent" => indented(run, &value, call)?,
        "truncate" => truncated(run, value, call)?,
        "wordwrap" => wrapped(run, &value, call)?,
        "int" => {
            let [default, base] = call.bind(name, ["default", "base"])?;
            to_int(&value, default, whole(name, base, 10)?)?
        }
        "float" => {
            let [default] = call.bind(name, ["default"])?;
            match to_float(&value)? {
                Some(number) => Value::Float(number),
                None => default.unwrap_or(Value::Float(0.0)),
            }
        }
        "abs" => {
            let [] = call.bind(name, [])?;
            match value.number() {
                Some(Number::Int(number)) => Value::Int(
                    number
                        .checked_abs()
                        .ok_or_else(|| Fault::new("an integer is too large"))?,
                ),
                Some(Number::Float(number)) => Value::Float(number.abs()),
                None => return fail(format!("abs needs a number, not {}", value.described())),
            }
        }
        "round" => rounded(&value, call)?,
        "sum" => {
            let [attribute, start] = call.bind(name, ["attribute", "start"])?;
            let mut sum = start.unwrap_or(Value::Int(0));
            if sum.text().is_some() {
                return fail("sum cannot begin with a text");
            }
            for item in run.items(&value)? {
                run.charge(1)?;
                let item = match &attribute {
                    None | Some(Value::None) => item,
                    Some(attribute) => by_attribute(run, item, attribute, None)?,
                };
                sum = run.arithmetic(Operator::Add, &sum, &item)?;
            }
            sum
        }
        "first" => {
            let [] = call.bind(name, [])?;
            // Of an iterator the others stay.
            let first = match &value {
                Value::Iterator(generator) => generator.next(),
                Value::Text(text) | Value::Safe(text) => {
                    text.chars().next().map(|c| String::from(c).into())
                }
                _ => run.items(&value)?.into_iter().next(),
            };
            first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty."))
        }
        "last" => {
            let [] = call.bind(name, [])?;
            let last = match &value {
                Value::Iterator(_) => {
                    return fail("a generator cannot be gone through from its end");
                }
                Value::Text(text) | Value::Safe(text) => {
                    text.chars().last().map(|c| String::from(c).into())
                }
                _ => run.items(&value)?.pop(),
            };
            last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty."))
        }
        "random" => {
            return fail(
                "the filter random is not supported: a chat template gives the same text every time",
            );
        }
        "urlize" => return fail("the filter urlize is not supported in a chat template"),
        "reverse" => {
            let [] = call.bind(name, [])?;
            match &value {
                Value::Text(text) | Value::Safe(text) => {
                    run.charge_text(text.len())?;
                    text.chars().rev().collect::<String>().into()
                }
                _ => {
                    let mut items = run.items(&value)?;
                    items.reverse();
                    if matches!(value, Value::Iterator(_)) {
                        run.list(items)?
                    } else {
                        Value::iterator(items)
                    }
                }
            }
        }
        "min" | "max" => {
            let [sensitive, attribute] = call.bind(name, ["case_sensitive", "attribute"])?;
            let keyed = keyed(run, &value, flag(sensitive), present(attribute), None)?;
            let better = if name == "min" {
                Comparison::Less
            } else {
                Comparison::Greater
            };
            let mut best: Option<(Value, Value)> = None;
            for (key, item) in keyed {
                if match &best {
                    None => true,
                    Some((known, _)) => run.compare(better, &key, known)?,
                } {
                    best = Some((key, item));
                }
            }
            best.map_or_else(
                || Value::undefined("No aggregated item, sequence was empty."),
                |(_, item)| item,
            )
        }
        "sort" => {
            let [reverse, sensitive, attribute] =
                call.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let attributes: Vec<Option<Value>> = match present(attribute) {
                Some(attribute) => match attribute.text() {
                    Some(names) => names.split(',').map(|name| Some(name.into())).collect(),
                    None => vec![Some(attribute)],
                },
                None => vec![None],
            };
            let sensitive = flag(sensitive);
            let mut keyed = Vec::new();
            for item in run.items(&value)? {
                run.charge(attributes.len())?;
                let mut keys = Vec::new();
                for attribute in &attributes {
                    let key = match attribute {
                        Some(attribute) => by_attribute(run, item.clone(), attribute, None)?,
                        None => item.clone(),
                    };
                    keys.push(folded(key, sensitive));
                }
                keyed.push((Value::list(keys), item));
            }
            sort_cost(run, &keyed)?;
            sort_by_keys(&mut keyed, |(key, _)| key, flag(reverse))?;
            run.list(keyed.into_iter().map(|(_, item)| item).collect())?
        }
        "dictsort" => {
            let [sensitive, by, reverse] = call.bind(name, ["case_sensitive", "by", "reverse"])?;
            let at = match by.as_ref().map(Value::text) {
                None | Some(Some("key")) => 0,
                Some(Some("value")) => 1,
                _ => return fail("dictsort sorts by key or by value"),
            };
            let Value::Dict(dict) = &value else {
                return fail("dictsort needs a mapping");
            };
            let sensitive = flag(sensitive);
            let mut keyed: Vec<(Value, Value)> = Vec::new();
            for (key, value) in &dict.entries {
                let by = if at == 0 { key } else { value };
                keyed.push((
                    folded(by.clone(), sensitive),
                    Value::tuple(vec![key.clone(), value.clone()]),
                ));
            }
            sort_cost(run, &keyed)?;
            sort_by_keys(&mut keyed, |(key, _)| key, flag(reverse))?;
            run.list(keyed.into_iter().map(|(_, item)| item).collect())?
        }
        "unique" => {
            let [sensitive, attribute] = call.bind(name, ["case_sensitive", "attribute"])?;
            #[allow(
                clippy::mutable_key_type,
                reason = "what changes inside a value is no part of its hash"
            )]
            let mut seen = HashSet::new();
            let mut kept = Vec::new();
            for (key, item) in keyed(run, &value, flag(sensitive), present(attribute), None)? {
                run.charge(run.comparison_cost(&key, &key))?;
                key.check_key()?;
                if seen.insert(Key(key)) {
                    kept.push(item);
                }
            }
            Value::iterator(kept)
        }
        "groupby" => {
            let [attribute, default, sensitive] =
                call.bind(name, ["attribute", "default", "case_sensitive"])?;
            let attribute = required(name, attribute)?;
            let default = present(default);
            let sensitive = flag(sensitive);
            let mut keyed = keyed(
                run,
                &value,
                sensitive,
                Some(attribute.clone()),
                default.clone(),
            )?;
            sort_cost(run, &keyed)?;
            sort_by_keys(&mut keyed, |(key, _)| key, false)?;
            let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
            for (key, item) in keyed {
                match groups.last_mut() {
                    Some((known, items)) if known.equals(&key) => items.push(item),
                    _ => groups.push((key, vec![item])),
                }
            }
            let mut out = Vec::new();
            for (key, items) in groups {
                let key = match items.first() {
                    Some(first) if !sensitive => {
                        by_attribute(run, first.clone(), &attribute, default.as_ref())?
                    }
                    _ => key,
                };
                out.push(named_tuple(
                    vec![key, Value::list(items)],
                    &["grouper", "list"],
                ));
            }
            run.list(out)?
        }
        "batch" => {
            let [count, fill] = call.bind(name, ["linecount", "fill_with"])?;
            let count = whole(name, Some(required(name, count)?), 0)?;
            let mut batches = Vec::new();
            let mut batch = Vec::new();
            for item in run.items(&value)? {
                if batch.len() as i128 == count {
                    batches.push(Value::list(std::mem::take(&mut batch)));
                }
                batch.push(item);
            }
            if !batch.is_empty() {
                if let Some(fill) = present(fill) {
                    let missing = usize::try_from(count - batch.len() as i128).unwrap_or(0);
                    batch.extend(repeated(run, fill, missing)?);
                }
                batches.push(Value::list(batch));
            }
            let batches = run.list(batches)?;
            Value::iterator(batches.items()?)
        }
        "slice" => {
            let [count, fill] = call.bind(name, ["slices", "fill_with"])?;
            let count = whole(name, Some(required(name, count)?), 0)?;
            let items = run.items(&value)?;
            let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
                if count < 0 {
                    return Ok(Value::iterator(Vec::new()));
                }
                return fail("division by zero");
            };
            let fill = present(fill);
            let (each, longer) = (items.len() / count, items.len() % count);
            // So many lists may be empty.
            repeated(run, Value::None, count)?;
            let mut slices = Vec::new();
            let mut at = 0;
            for i in 0..count {
                let len = each + usize::from(i < longer);
                let mut slice = items[at..at + len].to_vec();
                at += len;
                if i >= longer {
                    slice.extend(fill.clone());
                }
                slices.push(Value::list(slice));
            }
            let slices = run.list(slices)?;
            Value::iterator(slices.items()?)
        }
        "attr" => {
            let [name] = call.bind(name, ["name"])?;
            let name = required("attr", name)?;
            let Some(name) = name.text() else {
                return fail("attr needs the name of an attribute");
            };
            match &value {
                Value::Undefined(what) => return fail(&**what),
                _ => run
                    .own_attribute(&value, name)?
                    .unwrap_or_else(|| super::run::missing(&value, name)),
            }
        }
        "wordcount" => {
            let [] = call.bind(name, [])?;
            let shown = run.string(&value)?;
            let words = shown
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty());
            words.count().into()
        }
        "filesizeformat" => {
            let [binary] = call.bind(name, ["binary"])?;
            let Some(bytes) = to_float(&value)? else {
                return fail("filesizeformat needs a number");
            };
            file_size(bytes, flag(binary)).into()
        }
        "urlencode" => {
            let [] = call.bind(name, [])?;
            url_encoded(run, &value)?.into()
        }
        "xmlattr" => {
            let [space] = call.bind(name, ["autospace"])?;
            xml_attributes(run, &value, space.is_none_or(|space| space.is_true()))?.into()
        }
        "pprint" => {
            let [] = call.bind(name, [])?;
            let shown = python::sorted_repr(&value)?;
            if shown.chars().count() > 80 {
                return fail(
                    "the filter pprint is supported for what fits into a line of 80 characters",
                );
            }
            run.text(shown)?
        }
        _ => return fail(unknown(name)),
    })
}

/// Filters that take nothing and make a text of a text.
fn text_filter(run: &mut Run, name: &str, value: &Value) -> Option<Result<String>> {
    if !matches!(name, "upper" | "lower" | "capitalize" | "title" | "string") {
        return None;
    }
    Some(run.string(value).map(|text| match name {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "capitalize" => text::capitalized(&text),
        "title" => title(&text),
        _ => text,
    }))
}

fn title(text: &str) -> String {
    let splits = |c: char| text::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = String::with_capacity(text.len());
    let mut at_start = true;
    let mut rest = String::new();
    for c in text.chars() {
        if splits(c) || at_start {
            out.push_str(&std::mem::take(&mut rest).to_lowercase());
            if splits(c) {
                out.push(c);
            } else {
                out.extend(c.to_uppercase());
            }
        } else {
            rest.push(c);
        }
        at_start = splits(c);
    }
    out + &rest.to_lowercase()
}

/// The value of an attribute, `a.b.0`; numbers are indices.
fn by_attribute(
    run: &mut Run,
    item: Value,
    attribute: &Value,
    default: Option<&Value>,
) -> Result<Value> {
    let parts: Vec<Value> = match attribute.text() {
        Some(path) => {
            let part = |part: &str| match part.parse::<u32>() {
                Ok(index) if part.bytes().all(|c| c.is_ascii_digit()) => {
                    Value::Int(i128::from(index))
                }
                _ => part.into(),
            };
            path.split('.').map(part).collect()
        }
        None => vec![attribute.clone()],
    };
    let mut item = item;
    for part in parts {
        run.charge(1)?;
        item = run.item(&item, &part)?;
        if let (Some(default), true) = (default, item.is_undefined()) {
            item = default.clone();
        }
    }
    Ok(item)
}

fn folded(key: Value, sensitive: bool) -> Value {
    match key.text() {
        Some(text) if !sensitive => text.to_lowercase().into(),
        _ => key,
    }
}

/// Items with what they are compared by.
fn keyed(
    run: &mut Run,
    value: &Value,
    sensitive: bool,
    attribute: Option<Value>,
    default: Option<Value>,
) -> Result<Vec<(Value, Value)>> {
    let mut keyed = Vec::new();
    for item in run.items(value)? {
        run.charge(1)?;
        let key = match &attribute {
            Some(attribute) => by_attribute(run, item.clone(), attribute, default.as_ref())?,
            None => item.clone(),
        };
        run.charge_text(key.text().map_or(0, str::len))?;
        keyed.push((folded(key, sensitive), item));
    }
    Ok(keyed)
}

fn sort_cost(run: &mut Run, keyed: &[(Value, Value)]) -> Result<()> {
    let rounds = 1 + keyed.len().checked_ilog2().unwrap_or(0) as usize;
    let cost = keyed
        .iter()
        .map(|(key, _)| run.comparison_cost(key, key))
        .fold(keyed.len() / 4, usize::saturating_add);
    run.charge(cost.saturating_mul(rounds) / 2)
}

/// Sorts; items that are equal stay in their order, from the end too. Where two cannot be compared, nothing is moved.
///
/// By merging, with no more than Python's own question, whether one is less than the other: keys of mixed types and numbers that
/// are none have no total order, which the standard library's sort demands.
pub(super) fn sort_by_keys<T>(
    items: &mut Vec<T>,
    key: impl Fn(&T) -> &Value,
    reverse: bool,
) -> Result<()> {
    let less = |a: usize, b: usize| -> Result<bool> {
        let (a, b) = if reverse { (b, a) } else { (a, b) };
        Ok(key(&items[a]).compare(key(&items[b]), "<")? == Some(Ordering::Less))
    };
    let count = items.len();
    let (mut order, mut merged): (Vec<usize>, Vec<usize>) =
        ((0..count).collect(), Vec::with_capacity(count));
    let mut run = 1;
    while run < count {
        merged.clear();
        for start in (0..count).step_by(2 * run) {
            let (middle, end) = ((start + run).min(count), (start + 2 * run).min(count));
            let (mut left, mut right) = (start, middle);
            while left < middle && right < end {
                if less(order[right], order[left])? {
                    merged.push(order[right]);
                    right += 1;
                } else {
                    merged.push(order[left]);
                    left += 1;
                }
            }
            merged.extend_from_slice(&order[left..middle]);
            merged.extend_from_slice(&order[right..end]);
        }
        std::mem::swap(&mut order, &mut merged);
        run *= 2;
    }
    let mut all: Vec<Option<T>> = items.drain(..).map(Some).collect();
    items.extend(order.into_iter().filter_map(|i| all[i].take()));
    Ok(())
}

fn repeated(run: &mut Run, value: Value, count: usize) -> Result<Vec<Value>> {
    let list = run.list(vec![value])?;
    let times = Value::Int(count as i128);
    run.arithmetic(Operator::Multiply, &list, &times)?.items()
}

fn map(run: &mut Run, value: &Value, mut call: Call) -> Result<Value> {
    if !value.is_true() {
        return Ok(Value::iterator(Vec::new()));
    }
    let mut out = Vec::new();
    if call.positional.is_empty() && call.named.iter().any(|(name, _)| &**name == "attribute") {
        let [attribute, default] = call.bind("map", ["attribute", "default"])?;
        let (attribute, default) = (required("map", attribute)?, present(default));
        for item in run.items(value)? {
            out.push(by_attribute(run, item, &attribute, default.as_ref())?);
        }
    } else {
        if call.positional.is_empty() {
            return fail("map needs the name of a filter, or an attribute");
        }
        let filter = call.positional.remove(0);
        let Some(filter) = filter.text().filter(|name| exists(name)) else {
            return fail(unknown(&run.string(&filter)?));
        };
        for item in run.items(value)? {
            let call = Call {
                positional: call.positional.clone(),
                named: call.named.clone(),
            };
            run.charge_values(call.positional.len() + call.named.len())?;
            out.push(apply(run, filter, item, call)?);
        }
    }
    let out = run.list(out)?;
    Ok(Value::iterator(out.items()?))
}

fn select(run: &mut Run, name: &str, value: &Value, mut call: Call) -> Result<Value> {
    if !value.is_true() {
        return Ok(Value::iterator(Vec::new()));
    }
    let attribute = match name.ends_with("attr") {
        true if call.positional.is_empty() => return fail(format!("{name} needs an attribute")),
        true => Some(call.positional.remove(0)),
        false => None,
    };
    let test = if call.positional.is_empty() {
        None
    } else {
        Some(call.positional.remove(0))
    };
    let mut kept = Vec::new();
    for item in run.items(value)? {
        run.charge(1)?;
        let tested = match &attribute {
            Some(attribute) => by_attribute(run, item.clone(), attribute, None)?,
            None => item.clone(),
        };
        let passes = match &test {
            Some(test) => {
                let Some(test) = test.text().filter(|name| tests::exists(name)) else {
                    return fail(tests::unknown(&run.string(test)?));
                };
                let call = Call {
                    positional: call.positional.clone(),
                    named: call.named.clone(),
                };
                run.charge_values(call.positional.len() + call.named.len())?;
                tests::apply(run, test, &tested, call)?
            }
            None => tested.is_true(),
        };
        if passes == name.starts_with("select") {
            kept.push(item);
        }
    }
    Ok(Value::iterator(kept))
}

fn formatted(run: &mut Run, value: &Value, call: Call) -> Result<Value> {
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

fn to_json(run: &mut Run, value: &Value, call: Call) -> Result<Value> {
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

fn indented(run: &mut Run, value: &Value, call: Call) -> Result<Value> {
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

fn truncated(run: &mut Run, value: Value, call: Call) -> Result<Value> {
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

fn wrapped(run: &mut Run, value: &Value, call: Call) -> Result<Value> {
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

/// Digits of an integer as Python's `int` reads them: space around, a sign, single underscores between.
fn parsed_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim_matches(text::is_space);
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find(|(prefix, of)| lower.starts_with(prefix) && (base == 0 || base == *of));
    let (base, digits) = match prefixed {
        Some((_, of)) => (of, lower[2..].strip_prefix('_').unwrap_or(&lower[2..])),
        None if base == 0
            && lower.starts_with('0')
            && lower.chars().any(|c| c != '0' && c != '_') =>
        {
            return None;
        }
        None => (if base == 0 { 10 } else { base }, &*lower),
    };
    let mut number: i128 = 0;
    let mut after_digit = false;
    for c in digits.chars() {
        if c == '_' && after_digit {
            after_digit = false;
            continue;
        }
        let digit = c
            .to_digit(36)
            .or_else(|| text::decimal(c))
            .filter(|digit| *digit < base)?;
        number = number
            .checked_mul(i128::from(base))?
            .checked_add(i128::from(digit))?;
        after_digit = true;
    }
    after_digit.then_some(if negative { -number } else { number })
}

fn to_int(value: &Value, default: Option<Value>, base: i128) -> Result<Value> {
    let default = default.unwrap_or(Value::Int(0));
    if let Value::Undefined(what) = value {
        return fail(&**what);
    }
    if let Some(text) = value.text() {
        let Some(base) = u32::try_from(base)
            .ok()
            .filter(|base| *base == 0 || (2..=36).contains(base))
        else {
            return Ok(to_float(value)?.map_or(default, |number| {
                format::whole(number).map_or(Value::Int(0), Value::Int)
            }));
        };
        if let Some(number) = parsed_int(text, base) {
            return Ok(Value::Int(number));
        }
        let digits = text
            .trim_matches(text::is_space)
            .trim_start_matches(['-', '+']);
        if base == 10 && digits.len() > 30 && digits.bytes().all(|c| c.is_ascii_digit()) {
            return fail("an integer is too large");
        }
    }
    match value.number() {
        Some(Number::Int(number)) => return Ok(Value::Int(number)),
        Some(Number::Float(number)) if number.is_infinite() => {
            return fail("infinity is no integer");
        }
        _ => {}
    }
    match to_float(value)? {
        Some(number) if number.is_finite() => format::whole(number).map(Value::Int),
        _ => Ok(default),
    }
}

/// `float(value)`, where that is possible.
fn to_float(value: &Value) -> Result<Option<f64>> {
    if let Value::Undefined(what) = value {
        return fail(&**what);
    }
    let Some(text) = value.text() else {
        return Ok(value.number().map(Number::float));
    };
    let text: String = text
        .trim_matches(text::is_space)
        .chars()
        .map(|c| {
            text::decimal(c)
                .and_then(|digit| char::from_digit(digit, 10))
                .unwrap_or(c)
        })
        .collect();
    let chars: Vec<char> = text.chars().collect();
    let is_digit = |at: Option<usize>| {
        at.and_then(|at| chars.get(at))
            .is_some_and(char::is_ascii_digit)
    };
    let joins = |(at, c): (usize, &char)| {
        *c != '_' || is_digit(at.checked_sub(1)) && is_digit(Some(at + 1))
    };
    if !chars.iter().enumerate().all(joins) {
        return Ok(None);
    }
    Ok(text.replace('_', "").parse().ok())
}

fn rounded(value: &Value, call: Call) -> Result<Value> {
    let [precision, method] = call.bind("round", ["precision", "method"])?;
    let precision = whole("round", precision, 0)?;
    let method = method.unwrap_or_else(|| "common".into());
    let places = i32::try_from(precision.clamp(-400, 400)).unwrap_or(0);
    let Some(number) = value.number() else {
        return fail(format!("round needs a number, not {}", value.described()));
    };
    match (method.text(), number) {
        (Some("common"), Number::Int(number)) => {
            let Some(unit) = u32::try_from(-precision).ok().filter(|_| precision < 0) else {
                return Ok(Value::Int(number));
            };
            let Some(unit) = 10_i128.checked_pow(unit) else {
                return Ok(Value::Int(0));
            };
            let (quotient, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
            let up = rest * 2 > unit || rest * 2 == unit && quotient % 2 != 0;
            let rounded = (quotient + i128::from(up)).checked_mul(unit);
            rounded
                .map(Value::Int)
                .ok_or_else(|| Fault::new("an integer is too large"))
        }
        (Some("common"), Number::Float(number)) => {
            if !number.is_finite() {
                return Ok(Value::Float(number));
            }
            Ok(Value::Float(match usize::try_from(places) {
                // Written out, a float is rounded as its exact value says.
                Ok(places) if places <= 330 => {
                    format!("{number:.places$}").parse().unwrap_or(number)
                }
                Ok(_) => number,
                Err(_) => {
                    let unit = 10_f64.powi(-places);
                    if unit.is_finite() {
                        (number / unit).round_ties_even() * unit
                    } else {
                        0.0 * number
                    }
                }
            }))
        }
        (Some(method @ ("ceil" | "floor")), number) => {
            let unit = 10_f64.powi(places);
            let scaled = number.float() * unit;
            let whole = if method == "ceil" {
                scaled.ceil()
            } else {
                scaled.floor()
            };
            if !whole.is_finite() {
                return fail("a float that is not finite cannot be rounded");
            }
            // `math.ceil` gives an integer, which knows no negative zero.
            Ok(Value::Float((whole + 0.0) / unit))
        }
        _ => fail("the method of round is common, ceil or floor"),
    }
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
        Value::Dict(dict) => super::run::pairs(dict),
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

/// `MarkupSafe`'s `striptags`: without comments and tags, white space collapsed, entities resolved.
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
