//! Filters that make or round numbers.

use crate::template::ast::Operator;
use crate::template::fault::{Fault, Result, fail};
use crate::template::format;
use crate::template::run::{Call, Run};
use crate::template::text;
use crate::template::value::{Number, Value};

use super::{by_attribute, whole};

/// `int`
pub(super) fn int(_: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [default, base] = call.bind(name, ["default", "base"])?;
    to_int(&value, default, whole(name, base, 10)?)
}

/// `float`
pub(super) fn float(_: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [default] = call.bind(name, ["default"])?;
    Ok(match to_float(&value)? {
        Some(number) => Value::Float(number),
        None => default.unwrap_or(Value::Float(0.0)),
    })
}

/// `abs`
pub(super) fn absolute(_: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    Ok(match value.number() {
        Some(Number::Int(number)) => Value::Int(
            number
                .checked_abs()
                .ok_or_else(|| Fault::new("an integer is too large"))?,
        ),
        Some(Number::Float(number)) => Value::Float(number.abs()),
        None => return fail(format!("abs needs a number, not {}", value.described())),
    })
}

/// `sum`
pub(super) fn summed(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    Ok(sum)
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
pub(super) fn to_float(value: &Value) -> Result<Option<f64>> {
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

pub(super) fn rounded(value: &Value, call: Call) -> Result<Value> {
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
