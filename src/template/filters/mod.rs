//! Jinja's filters, with the arguments and the answers that its own have.

mod markup;
mod numbers;
mod sequences;
mod text;

use super::fault::{Result, fail};
use super::run::{Call, Run, required};
use super::text as texts;
use super::value::Value;

pub(super) use sequences::sort_by_keys;

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
    match name {
        "map" => sequences::map(run, &value, call),
        "select" | "reject" | "selectattr" | "rejectattr" => {
            sequences::select(run, name, &value, call)
        }
        "format" => text::formatted(run, &value, call),
        "default" | "d" => or_default(run, name, value, call),
        "length" | "count" => sequences::length(run, name, value, call),
        "list" => sequences::to_list(run, name, value, call),
        "items" => sequences::items_of(run, name, value, call),
        "tojson" => text::to_json(run, &value, call),
        "safe" => text::safe(run, name, value, call),
        "escape" | "e" => markup::escaped(run, name, value, call),
        "forceescape" => markup::escaped_again(run, name, value, call),
        "striptags" => markup::stripped_of_tags(run, name, value, call),
        "join" => text::joined(run, name, value, call),
        "replace" => text::replaced(run, name, value, call),
        "trim" => text::trimmed(run, name, value, call),
        "center" => text::centred(run, name, value, call),
        "indent" => text::indented(run, &value, call),
        "truncate" => text::truncated(run, value, call),
        "wordwrap" => text::wrapped(run, &value, call),
        "int" => numbers::int(run, name, value, call),
        "float" => numbers::float(run, name, value, call),
        "abs" => numbers::absolute(run, name, value, call),
        "round" => numbers::rounded(&value, call),
        "sum" => numbers::summed(run, name, value, call),
        "first" => sequences::first(run, name, value, call),
        "last" => sequences::last(run, name, value, call),
        "random" => fail(
            "the filter random is not supported: a chat template gives the same text every time",
        ),
        "urlize" => fail("the filter urlize is not supported in a chat template"),
        "reverse" => sequences::reversed(run, name, value, call),
        "min" | "max" => sequences::extreme(run, name, value, call),
        "sort" => sequences::sorted(run, name, value, call),
        "dictsort" => sequences::dict_sorted(run, name, value, call),
        "unique" => sequences::unique(run, name, value, call),
        "groupby" => sequences::grouped(run, name, value, call),
        "batch" => sequences::batched(run, name, value, call),
        "slice" => sequences::sliced(run, name, value, call),
        "attr" => attribute(run, name, value, call),
        "wordcount" => text::word_count(run, name, value, call),
        "filesizeformat" => text::size_shown(run, name, value, call),
        "urlencode" => markup::url_encode(run, name, value, call),
        "xmlattr" => markup::xml_attr(run, name, value, call),
        "pprint" => text::pretty(run, name, value, call),
        _ => fail(unknown(name)),
    }
}

/// `default`: another value for one that is undefined, or false where that counts.
fn or_default(_: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [default, falsy] = call.bind(name, ["default_value", "boolean"])?;
    let replaces = value.is_undefined() || flag(falsy) && !value.is_true();
    Ok(if replaces {
        default.unwrap_or_else(|| "".into())
    } else {
        value
    })
}

/// `attr`: an attribute of the value, never an item.
fn attribute(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [name] = call.bind(name, ["name"])?;
    let name = required("attr", name)?;
    let Some(name) = name.text() else {
        return fail("attr needs the name of an attribute");
    };
    Ok(match &value {
        Value::Undefined(what) => return fail(&**what),
        _ => run
            .own_attribute(&value, name)?
            .unwrap_or_else(|| super::run::missing(&value, name)),
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
        "capitalize" => texts::capitalized(&text),
        "title" => title(&text),
        _ => text,
    }))
}

fn title(text: &str) -> String {
    let splits = |c: char| texts::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
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
