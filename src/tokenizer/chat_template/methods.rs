//! Python methods and Jinja filters beyond those that minijinja and its `pycompat` bring, and those of `pycompat` whose
//! cost a template could drive up without limit: the engine charges for what a method is called on and what it returns,
//! but only afterwards.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::python;

/// Longest text that padding may ask for.
const MAX_PADDING: usize = 1 << 16;
/// Longest text that formatting or joining may come to.
const MAX_TEXT: usize = 16 << 20;

/// Methods of texts; everything else goes to `pycompat`.
pub(super) fn call_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match method {
            "join" => return join(state, text, args),
            "format" => return str_format(text, args).map(Value::from),
            _ => {}
        }
        if let Some(result) = text_method(text, method, args) {
            return result;
        }
    }
    if value.kind() == ValueKind::Seq {
        // `count` compares with every item.
        state.consume_fuel(value.len().unwrap_or(0) as u64)?;
    }
    unknown_method_callback(state, value, method, args)
}

fn text_method(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let one = || from_args::<(&str,)>(args).map(|(part,)| part);
    Some(match method {
        "index" => one().and_then(|part| position(text, text.find(part))),
        "rindex" => one().and_then(|part| position(text, text.rfind(part))),
        "removeprefix" => one().map(|part| Value::from(text.strip_prefix(part).unwrap_or(text))),
        "removesuffix" => one().map(|part| Value::from(text.strip_suffix(part).unwrap_or(text))),
        "partition" => one().map(|part| match text.split_once(part) {
            Some((before, after)) => triple(before, part, after),
            None => triple(text, "", ""),
        }),
        "rpartition" => one().map(|part| match text.rsplit_once(part) {
            Some((before, after)) => triple(before, part, after),
            None => triple("", "", text),
        }),
        "rsplit" => rsplit(text, args),
        "swapcase" => from_args::<()>(args).map(|()| text.chars().map(swap_case).collect::<String>().into()),
        "casefold" => from_args::<()>(args).map(|()| text.to_lowercase().into()),
        "zfill" | "ljust" | "rjust" | "center" => pad(text, method, args),
        _ => return None,
    })
}

fn position(text: &str, at: Option<usize>) -> Result<Value, Error> {
    let at = at.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
    Ok(Value::from(text[..at].chars().count()))
}

fn triple(before: &str, middle: &str, after: &str) -> Value {
    Value::from(Tuple::from([Value::from(before), Value::from(middle), Value::from(after)]))
}

fn swap_case(c: char) -> String {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let pieces = most.and_then(|most| usize::try_from(most).ok()).map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => text.rsplitn(pieces, separator).collect(),
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim();
            while !rest.is_empty() {
                let cut = if parts.len() + 1 < pieces { rest.rfind(char::is_whitespace) } else { None };
                let start = cut.map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8));
                parts.push(&rest[start..]);
                rest = rest[..start].trim_end();
            }
            parts
        }
    };
    parts.reverse();
    Ok(Value::from_iter(parts))
}

fn too_long(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what} is too long"))
}

/// `text.join(values)`
fn join(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (values,): (&Value,) = from_args(args)?;
    let mut joined = String::new();
    for (i, value) in values.try_iter()?.checked().enumerate() {
        let value = value?;
        // Items may be empty, and then cost nothing in what is returned.
        state.consume_fuel(1)?;
        if i > 0 {
            joined.push_str(text);
        }
        joined.push_str(&python::string(&value)?);
        if joined.len() > MAX_TEXT {
            return Err(too_long("the joined text"));
        }
    }
    Ok(Value::from(joined))
}

fn pad(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<&str>) = from_args(args)?;
    let missing = width.saturating_sub(text.chars().count());
    if missing > MAX_PADDING {
        return Err(too_long("the padding"));
    }
    let fill = fill.unwrap_or(" ");
    if fill.chars().count() != 1 {
        let detail = "the fill character must be exactly one character long";
        return Err(Error::new(ErrorKind::InvalidOperation, detail));
    }
    Ok(Value::from(match method {
        "ljust" => format!("{text}{}", fill.repeat(missing)),
        "rjust" => format!("{}{text}", fill.repeat(missing)),
        // CPython gives the odd space to the left if the width is odd too.
        "center" => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))
        }
        _ => {
            let digits = text.trim_start_matches(['-', '+']);
            format!("{}{}{digits}", &text[..text.len() - digits.len()], "0".repeat(missing))
        }
    }))
}

/// `text % values`.
pub(super) fn percent(text: &str, values: &Value) -> Result<String, Error> {
    let values = if values.is_tuple() { values.try_iter()?.collect() } else { vec![values.clone()] };
    // Flags, width and precision come between the mark and the letter.
    check_keys(text, '%', |field| field.strip_prefix('(').map(|key| (key, ')')))?;
    let specs = text.split('%').skip(1).map(|rest| rest.split(char::is_alphabetic).next().unwrap_or(rest));
    let stars = specs.clone().any(|spec| spec.contains('*'));
    check_formatted(text, '%', specs, &values, stars)?;
    format(FormatStyle::Printf, text, &values)
}

/// `text.format(values)`
fn str_format(text: &str, values: &[Value]) -> Result<String, Error> {
    let bracket = |field: &'_ str| {
        let at = field.find(['[', '}'])?;
        field[at..].starts_with('[').then_some(at + 1)
    };
    check_keys(text, '{', |field| bracket(field).map(|at| (&field[at..], ']')))?;
    // `{name:spec}`
    let fields = text.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or(rest));
    let specs = fields.filter_map(|field| Some(field.split_once(':')?.1));
    check_formatted(text, '{', specs, values, false)?;
    format(FormatStyle::StrFormat, text, values)
}

/// Refuses keys of fields (`%(key)s`, `{[key]}`) that are not ASCII: minijinja panics at them. `key` gives what follows a
/// key's bracket, and the closing one.
fn check_keys<'a>(text: &'a str, mark: char, key: impl Fn(&'a str) -> Option<(&'a str, char)>) -> Result<(), Error> {
    let mut rest = text;
    while let Some(at) = rest.find(mark) {
        rest = &rest[at + 1..];
        if let Some(literal) = rest.strip_prefix(mark) {
            rest = literal;
            continue;
        }
        while let Some((begun, close)) = key(rest) {
            let end = begun.find(close).unwrap_or(begun.len());
            if !begun[..end].is_ascii() {
                let detail = "a key in a format may only have ASCII characters";
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
            rest = &begun[end..];
        }
    }
    Ok(())
}

/// Checks that a formatted text cannot be too long, whichever values its fields take. `mark` begins a field; `specs` hold
/// the widths and precisions that fields ask for, and with `stars` so do the values.
fn check_formatted<'a>(
    text: &str,
    mark: char,
    specs: impl Iterator<Item = &'a str>,
    values: &[Value],
    stars: bool,
) -> Result<(), Error> {
    let mut longest = 0;
    for value in values {
        let len = match value.as_str() {
            Some(text) => text.len(),
            None if stars && value.is_integer() => usize::try_from(value.clone()).unwrap_or(0),
            // Writing a value out is itself bounded.
            None => python::string(value)?.len(),
        };
        longest = longest.max(len);
    }
    let fields = text.matches(mark).count();
    let numbers = specs.flat_map(|spec| spec.split(|c: char| !c.is_ascii_digit())).filter(|digits| !digits.is_empty());
    let widths = numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).fold(0, usize::saturating_add);
    let most = fields.saturating_mul(longest).saturating_add(widths).saturating_add(text.len());
    if most > MAX_TEXT { Err(too_long("the formatted text")) } else { Ok(()) }
}

/// The `wordcount` filter.
pub(super) fn word_count(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}

/// The `truncate` filter: whole words, an ellipsis, and some leeway.
pub(super) fn truncate(text: &str, length: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let length = length.or(options.get("length")?).unwrap_or(255);
    let cut_words = options.get::<Option<bool>>("killwords")?.unwrap_or(false);
    let end = options.get::<Option<&str>>("end")?.unwrap_or("...");
    let leeway = options.get::<Option<usize>>("leeway")?.unwrap_or(5);
    options.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let kept = if cut_words { &*kept } else { kept.rsplit_once(' ').map_or(&*kept, |(before, _)| before) };
    Ok(format!("{kept}{end}"))
}
