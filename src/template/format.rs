//! `text % values` and `text.format(values)`.

use super::fault::{Fault, Result, fail};
use super::python;
use super::run::{Call, Run};
use super::value::{Number, Value};

/// Widest field, and most digits after the point.
const MAX_WIDTH: usize = 1 << 16;
/// Longest text that formatting may come to.
const MAX_TEXT: usize = 16 << 20;

/// What is asked of a field.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    /// `<`, `>`, `^` or `=`
    align: Option<char>,
    /// `+` or a space
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn padded(&self, text: String, align: char) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        let fill = |count: usize| std::iter::repeat_n(self.fill.unwrap_or(' '), count);
        let before = match self.align.unwrap_or(align) {
            '<' => 0,
            '^' => missing / 2,
            _ => missing,
        };
        fill(before)
            .chain(text.chars())
            .chain(fill(missing - before))
            .collect()
    }

    /// A number: sign, prefix (`0x`), digits, and what follows the digits.
    fn number(&self, negative: bool, prefix: &str, digits: &str, rest: &str) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let inner_zeros = (self.zero && self.align.is_none()) || self.align == Some('=');
        let fill = if self.zero && self.fill.is_none() {
            '0'
        } else {
            self.fill.unwrap_or(' ')
        };
        let head = sign.len() + prefix.len();
        let mut digits = digits.to_owned();
        if let Some(mark) = self.grouping {
            let group = if matches!(self.kind, Some('x' | 'X' | 'o' | 'b')) {
                4
            } else {
                3
            };
            if inner_zeros && fill == '0' {
                // Zeros are grouped too, so fewer of them are needed.
                let grouped = |len: usize| len + len.saturating_sub(1) / group;
                let mut len = digits.len();
                while head + grouped(len + 1) + rest.len() <= self.width
                    || head + grouped(len) + rest.len() < self.width
                {
                    len += 1;
                }
                digits = "0".repeat(len - digits.len()) + &digits;
            }
            let mut out = String::new();
            for (i, c) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i).is_multiple_of(group) {
                    out.push(mark);
                }
                out.push(c);
            }
            digits = out;
        }
        let len = head + digits.len() + rest.len();
        if inner_zeros && len < self.width {
            let zeros: String = std::iter::repeat_n(fill, self.width - len).collect();
            return format!("{sign}{prefix}{zeros}{digits}{rest}");
        }
        self.padded(format!("{sign}{prefix}{digits}{rest}"), '>')
    }

    fn integer(&self, number: i128, min_digits: usize) -> Result<String> {
        let size = number.unsigned_abs();
        let (prefix, digits) = match self.kind {
            Some('x') => ("0x", format!("{size:x}")),
            Some('X') => ("0X", format!("{size:X}")),
            Some('o') => ("0o", format!("{size:o}")),
            Some('b') => ("0b", format!("{size:b}")),
            _ => ("", size.to_string()),
        };
        let digits = "0".repeat(min_digits.saturating_sub(digits.len())) + &digits;
        Ok(self.number(
            number < 0,
            if self.alternate { prefix } else { "" },
            &digits,
            "",
        ))
    }

    fn float(&self, number: f64) -> String {
        let kind = self.kind.unwrap_or('r');
        let size = number.abs();
        let negative = number.is_sign_negative() && !number.is_nan();
        let upper = kind.is_ascii_uppercase();
        if !number.is_finite() {
            let text = if number.is_nan() { "nan" } else { "inf" };
            let text = if upper {
                text.to_uppercase()
            } else {
                text.to_owned()
            };
            let percent = if kind == '%' { "%" } else { "" };
            return self.number(negative, "", "", &format!("{text}{percent}"));
        }
        let precision = self.precision.unwrap_or(6);
        let mut text = match kind.to_ascii_lowercase() {
            'f' => format!("{size:.precision$}"),
            '%' => format!("{:.precision$}", size * 100.0),
            'e' => exponent(size, precision),
            'r' if self.precision.is_none() => {
                let mut text = String::new();
                let _ = python::float(size, &mut text);
                text
            }
            _ => {
                let text = general(size, precision.max(1), self.alternate);
                // Without a letter there is a digit after the point, as in `repr`.
                let whole = kind == 'r' && !text.contains(['.', 'e']);
                if whole && text.len() < precision.max(1) {
                    format!("{text}.0")
                } else {
                    text
                }
            }
        };
        if self.alternate && !text.contains('.') {
            let at = text.find('e').unwrap_or(text.len());
            text.insert(at, '.');
        }
        if upper {
            text = text.to_uppercase();
        }
        if kind == '%' {
            text.push('%');
        }
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        self.number(negative, "", &text[..digits], &text[digits..])
    }
}

/// `%e`: an exponent of two digits at least.
fn exponent(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent
        .strip_prefix('-')
        .map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `%g`: so many digits in all, the shorter way, without zeros at the end.
fn general(number: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = format!("{number:.*e}", precision - 1);
    let power: i32 = scientific
        .split_once('e')
        .and_then(|(_, power)| power.parse().ok())
        .unwrap_or(0);
    let trim = |text: &str| match keep_zeros || !text.contains('.') {
        true => text.to_owned(),
        false => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
    };
    if number != 0.0 && (power < -4 || power >= precision as i32) {
        let text = exponent(number, precision - 1);
        let (digits, power) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{power}", trim(digits));
    }
    trim(&format!(
        "{number:.*}",
        (precision as i32 - 1 - power).max(0) as usize
    ))
}

fn too_long<T>() -> Result<T> {
    fail("the formatted text is too long")
}

fn bounded(width: Option<usize>) -> Result<usize> {
    match width {
        Some(width) if width <= MAX_WIDTH => Ok(width),
        _ => too_long(),
    }
}

/// Digits at the beginning of `rest`, which is moved past them.
fn digits(rest: &mut &str) -> Option<usize> {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    *rest = after;
    if number.is_empty() {
        None
    } else {
        Some(number.parse().unwrap_or(usize::MAX))
    }
}

fn first(rest: &mut &str) -> Option<char> {
    let mut chars = rest.chars();
    let c = chars.next();
    *rest = chars.as_str();
    c
}

/// `text % values`; `values` is a tuple, a mapping, or one value.
pub(super) fn percent(run: &mut Run, text: &str, values: &Value) -> Result<String> {
    let several = match values {
        Value::Tuple(sequence) => &sequence.items[..],
        _ => std::slice::from_ref(values),
    };
    let mut left = several.iter();
    let mut next = || {
        left.next()
            .ok_or_else(|| Fault::new("not enough values for a format"))
    };
    let mut named = false;
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if out.len() > MAX_TEXT {
            return too_long();
        }
        let by_key = key(&mut rest, values)?;
        named |= by_key.is_some();
        let mut spec = flags(&mut rest);
        if let Some(after) = rest.strip_prefix('*') {
            let width = next()?.int()?;
            if width < 0 {
                spec.align = Some('<');
            }
            spec.width = bounded(usize::try_from(width.unsigned_abs()).ok())?;
            rest = after;
        } else if let Some(width) = digits(&mut rest) {
            spec.width = bounded(Some(width))?;
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            spec.precision = Some(match rest.strip_prefix('*') {
                Some(after) => {
                    rest = after;
                    bounded(usize::try_from(next()?.int()?.max(0)).ok())?
                }
                None => bounded(Some(digits(&mut rest).unwrap_or(0)))?,
            });
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let Some(kind) = first(&mut rest) else {
            return fail("a format ends within a field");
        };
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match by_key {
            Some(value) => value,
            None => next()?,
        };
        let part = converted(spec, kind, value)?;
        run.charge_text(part.len())?;
        out.push_str(&part);
    }
    out.push_str(rest);
    if left.next().is_some()
        && !named
        && !matches!(
            values,
            Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_)
        )
    {
        return fail("not all values are used by a format");
    }
    Ok(out)
}

/// The value of a field's key, as `%(key)s` has it; takes it off `rest`.
fn key<'v>(rest: &mut &str, values: &'v Value) -> Result<Option<&'v Value>> {
    if !rest.starts_with('(') {
        return Ok(None);
    }
    let mut depth = 0;
    let end = rest.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    let Some(end) = end else {
        return fail("a key in a format has no closing bracket");
    };
    let Value::Dict(dict) = values else {
        return fail("a format with keys needs a mapping");
    };
    let key = &rest[1..end];
    *rest = &rest[end + 1..];
    dict.get_text(key)
        .map(Some)
        .ok_or_else(|| Fault::new(format!("a format wants the key {key}")))
}

/// The flags of a field; takes them off `rest`.
fn flags(rest: &mut &str) -> Spec {
    let mut spec = Spec::default();
    loop {
        match rest.chars().next() {
            Some('-') => spec.align = Some('<'),
            Some('+') => spec.sign = Some('+'),
            Some(' ') if spec.sign.is_none() => spec.sign = Some(' '),
            Some(' ') => {}
            Some('#') => spec.alternate = true,
            Some('0') => spec.zero = true,
            _ => return spec,
        }
        *rest = &rest[1..];
    }
}

/// A field of the conversion `kind`.
fn converted(mut spec: Spec, kind: char, value: &Value) -> Result<String> {
    spec.kind = Some(kind);
    let number = || {
        value
            .number()
            .ok_or_else(|| Fault::new(format!("%{kind} needs a number, not {}", value.described())))
    };
    Ok(match kind {
        's' | 'r' | 'a' => {
            let mut text = match kind {
                's' => python::string(value)?,
                'r' => python::repr(value)?,
                _ => python::ascii(value)?,
            };
            if let Some(precision) = spec.precision {
                text = text.chars().take(precision).collect();
            }
            spec.padded(text, '>')
        }
        'c' => {
            let text = match value {
                Value::Text(text) | Value::Safe(text) if text.chars().count() == 1 => {
                    text.to_string()
                }
                Value::Int(code) => character(*code)?,
                _ => return fail("%c needs one character"),
            };
            spec.padded(text, '>')
        }
        'd' | 'i' | 'u' => {
            spec.kind = Some('d');
            let number = match number()? {
                Number::Int(number) => number,
                Number::Float(number) => whole(number)?,
            };
            let precision = spec.precision.take().unwrap_or(0);
            spec.integer(number, precision)?
        }
        'x' | 'X' | 'o' => match number()? {
            Number::Int(number) => {
                let precision = spec.precision.take().unwrap_or(0);
                spec.integer(number, precision)?
            }
            Number::Float(_) => return fail(format!("%{kind} needs an integer")),
        },
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = number()?.float();
            spec.float(number)
        }
        _ => return fail(format!("%{kind} is no field of a format")),
    })
}

fn character(code: i128) -> Result<String> {
    let c = u32::try_from(code).ok().and_then(char::from_u32);
    c.map(String::from)
        .ok_or_else(|| Fault::new("a number names no character"))
}

/// A float without what is after the point.
pub(super) fn whole(number: f64) -> Result<i128> {
    if !number.is_finite() {
        return fail(format!("{number} is no integer"));
    }
    if number.abs() >= 1.7e38 {
        fail("an integer is too large")
    } else {
        Ok(number as i128)
    }
}

/// `text.format(…)`
pub(super) fn str_format(run: &mut Run, text: &str, call: &Call) -> Result<String> {
    let mut automatic = Some(0);
    fields(run, text, call, &mut automatic, 0)
}

fn fields(
    run: &mut Run,
    text: &str,
    call: &Call,
    automatic: &mut Option<usize>,
    depth: usize,
) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let mark = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(mark).filter(|_| depth == 0) {
            out.push_str(mark);
            rest = after;
            continue;
        }
        if mark == "}" {
            return fail("a format has a single }");
        }
        if out.len() > MAX_TEXT {
            return too_long();
        }
        // Up to the bracket that closes the field; fields may be within it, and anything in square brackets.
        let mut open = 1;
        let mut end = None;
        let mut in_key = false;
        for (at, c) in rest.char_indices() {
            match c {
                '[' => in_key = true,
                ']' => in_key = false,
                '{' if !in_key => open += 1,
                '}' if !in_key => open -= 1,
                _ => {}
            }
            if open == 0 {
                end = Some(at);
                break;
            }
        }
        let Some(end) = end else {
            return fail("a field of a format has no }");
        };
        if depth > 1 {
            return fail("fields of a format are nested too deep");
        }
        let part = field(run, &rest[..end], call, automatic, depth)?;
        run.charge_text(part.len())?;
        out.push_str(&part);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn field(
    run: &mut Run,
    field: &str,
    call: &Call,
    automatic: &mut Option<usize>,
    depth: usize,
) -> Result<String> {
    let mut in_key = false;
    let name_end = field.find(|c| {
        in_key = (in_key || c == '[') && c != ']';
        !in_key && matches!(c, '!' | ':')
    });
    let (name, mut rest) = field.split_at(name_end.unwrap_or(field.len()));
    let mut value = lookup(run, name, call, automatic)?;
    if let Some(after) = rest.strip_prefix('!') {
        rest = after;
        value = match first(&mut rest) {
            Some('s') => python::string(&value)?,
            Some('r') => python::repr(&value)?,
            Some('a') => python::ascii(&value)?,
            _ => return fail("a conversion in a format is !s, !r or !a"),
        }
        .into();
        if !rest.is_empty() && !rest.starts_with(':') {
            return fail("a conversion in a format is followed by : or }");
        }
    }
    let spec = fields(
        run,
        rest.strip_prefix(':').unwrap_or(""),
        call,
        automatic,
        depth + 1,
    )?;
    formatted(&value, &spec)
}

/// `name.attribute[key]`
fn lookup(run: &mut Run, name: &str, call: &Call, automatic: &mut Option<usize>) -> Result<Value> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(end);
    let mut value = if first.is_empty() || first.bytes().all(|c| c.is_ascii_digit()) {
        let at = match (first.parse::<usize>(), *automatic) {
            (Ok(at), Some(0) | None) => {
                *automatic = None;
                at
            }
            (Err(_), Some(next)) if first.is_empty() => {
                *automatic = Some(next + 1);
                next
            }
            _ => return fail("the fields of a format are numbered here and not there"),
        };
        call.positional
            .get(at)
            .cloned()
            .ok_or_else(|| Fault::new("a format wants more values than there are"))?
    } else {
        call.named_value(first)
            .ok_or_else(|| Fault::new(format!("a format wants the value {first}")))?
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = run.attribute(&value, &after[..end])?;
            rest = &after[end..];
        } else {
            let inner = rest
                .strip_prefix('[')
                .and_then(|after| after.split_once(']'));
            let Some((key, after)) = inner else {
                return fail("a key in a format has no ]");
            };
            let key = key
                .parse::<i128>()
                .map_or_else(|_| Value::from(key), Value::Int);
            value = run.item(&value, &key)?;
            rest = after;
        }
    }
    Ok(value)
}

/// `format(value, spec)`
fn formatted(value: &Value, text: &str) -> Result<String> {
    if text.is_empty() {
        return python::string(value);
    }
    let mut spec = Spec::default();
    let mut rest = text;
    let is_align = |c: Option<char>| c.is_some_and(|c| matches!(c, '<' | '>' | '^' | '='));
    if is_align(rest.chars().nth(1)) {
        spec.fill = first(&mut rest);
        spec.align = first(&mut rest);
    } else if is_align(rest.chars().next()) {
        spec.align = first(&mut rest);
    }
    if rest.starts_with(['+', '-', ' ']) {
        spec.sign = first(&mut rest);
    }
    if let Some(after) = rest.strip_prefix('#') {
        spec.alternate = true;
        rest = after;
    }
    if let Some(after) = rest.strip_prefix('0') {
        spec.zero = true;
        rest = after;
    }
    if let Some(width) = digits(&mut rest) {
        spec.width = bounded(Some(width))?;
    }
    if rest.starts_with([',', '_']) {
        spec.grouping = first(&mut rest);
    }
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        spec.precision = match digits(&mut rest) {
            Some(precision) => Some(bounded(Some(precision))?),
            None => return fail("a format lacks the precision after its point"),
        };
    }
    spec.kind = first(&mut rest);
    let wrong = || fail(format!("{text:?} is no format of a {}", value.type_name()));
    if !rest.is_empty() {
        return wrong();
    }
    match value {
        Value::Text(text) | Value::Safe(text) => {
            let numeric = spec.sign.is_some()
                || spec.alternate
                || spec.grouping.is_some()
                || spec.align == Some('=');
            if numeric || !matches!(spec.kind, None | Some('s')) {
                return wrong();
            }
            if spec.zero && spec.fill.is_none() {
                spec.fill = Some('0');
            }
            let text = match spec.precision {
                Some(precision) => text.chars().take(precision).collect(),
                None => text.to_string(),
            };
            Ok(spec.padded(text, '<'))
        }
        _ => match (value.number(), spec.kind) {
            (Some(Number::Int(number)), None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X'))
                if spec.precision.is_none() =>
            {
                spec.integer(number, 0)
            }
            (Some(Number::Int(code)), Some('c')) => Ok(spec.padded(character(code)?, '<')),
            (Some(Number::Int(number)), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => {
                Ok(spec.float(number as f64))
            }
            (Some(Number::Float(number)), None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => {
                Ok(spec.float(number))
            }
            (Some(Number::Float(number)), Some('n')) => {
                spec.kind = Some('g');
                Ok(spec.float(number))
            }
            _ => wrong(),
        },
    }
}
