//! Jinja's tests: what may follow `is`.

use super::ast::{Comparison, Operator};
use super::fault::{Result, fail};
use super::run::{Call, Run, required};
use super::text;
use super::value::{Number, Object, Value};

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    ">=",
    "ge",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn unknown(name: &str) -> String {
    format!("no test has the name {name}")
}

/// `value is name(…)`
#[expect(clippy::too_many_lines, reason = "a match of one arm per test")]
pub(super) fn apply(run: &mut Run, name: &str, value: &Value, call: Call) -> Result<bool> {
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(Comparison::Equal),
        "!=" | "ne" => Some(Comparison::NotEqual),
        ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
        ">=" | "ge" => Some(Comparison::GreaterEqual),
        "<" | "lt" | "lessthan" => Some(Comparison::Less),
        "<=" | "le" => Some(Comparison::LessEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let [other] = call.bind(name, ["seq"])?;
        return run.compare(comparison, value, &required(name, other)?);
    }
    match name {
        "divisibleby" => {
            let [number] = call.bind(name, ["num"])?;
            let rest = run.arithmetic(Operator::Modulo, value, &required(name, number)?)?;
            return Ok(rest.equals(&Value::Int(0)));
        }
        "sameas" => {
            let [other] = call.bind(name, ["other"])?;
            return Ok(value.is(&required(name, other)?));
        }
        _ => {}
    }
    let [] = call.bind(name, [])?;
    Ok(match name {
        "odd" | "even" => {
            let rest = run.arithmetic(Operator::Modulo, value, &Value::Int(2))?;
            rest.equals(&Value::Int(i128::from(name == "odd")))
        }
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "filter" | "test" => {
            value.check_key()?;
            let known = if name == "filter" {
                super::filters::exists
            } else {
                exists
            };
            value.text().is_some_and(known)
        }
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value.number(), Some(Number::Int(_) | Number::Float(_))),
        "lower" | "upper" => {
            let shown = run.string(value)?;
            text::is(
                &shown,
                if name == "lower" {
                    "islower"
                } else {
                    "isupper"
                },
            )
            .unwrap_or(false)
        }
        "string" => value.text().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => match value {
            Value::View(..) | Value::Iterator(_) | Value::Object(_) => false,
            _ => value.len().is_some(),
        },
        "iterable" => {
            value.is_iterable()
                || matches!(value, Value::Object(object) if matches!(**object, Object::Loop(_)))
        }
        "callable" => match value {
            Value::Undefined(_) => true,
            Value::Object(object) => {
                !matches!(**object, Object::Namespace(_) | Object::Cycler { .. })
            }
            _ => false,
        },
        "escaped" => matches!(value, Value::Safe(_)),
        _ => return fail(unknown(name)),
    })
}
