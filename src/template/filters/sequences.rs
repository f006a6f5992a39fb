//! Filters of sequences: order, choice, groups.

use crate::template::ast::{Comparison, Operator};
use crate::template::fault::{Fault, Result, fail};
use crate::template::methods;
use crate::template::run::{Call, Run, named_tuple, required};
use crate::template::tests;
use crate::template::value::{Key, Value};
use std::cmp::Ordering;
use std::collections::HashSet;

use super::{apply, by_attribute, exists, flag, present, unknown, whole};

/// `length`
pub(super) fn length(_: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    let len = value
        .len()
        .ok_or_else(|| Fault::new(format!("{} has no length", value.type_name())))?;
    Ok(len.into())
}

/// `list`
pub(super) fn to_list(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    let items = run.items(&value)?;
    run.list(items)
}

/// `items`: the pairs of a mapping.
pub(super) fn items_of(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    run.charge_values(value.item_count())?;
    Ok(Value::iterator(methods::items_of(&value)?))
}

/// `first`
pub(super) fn first(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    // Of an iterator the others stay.
    let first = match &value {
        Value::Iterator(generator) => generator.next(),
        Value::Text(text) | Value::Safe(text) => {
            text.chars().next().map(|c| String::from(c).into())
        }
        _ => run.items(&value)?.into_iter().next(),
    };
    Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
}

/// `last`
pub(super) fn last(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
}

/// `reverse`: a text or a sequence from its end.
pub(super) fn reversed(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
    let [] = call.bind(name, [])?;
    Ok(match &value {
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
    })
}

/// `min` and `max`
pub(super) fn extreme(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    Ok(best.map_or_else(
        || Value::undefined("No aggregated item, sequence was empty."),
        |(_, item)| item,
    ))
}

/// `sort`, by one or several attributes.
pub(super) fn sorted(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    run.list(keyed.into_iter().map(|(_, item)| item).collect())
}

/// `dictsort`: the pairs of a mapping, by key or by value.
pub(super) fn dict_sorted(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    run.list(keyed.into_iter().map(|(_, item)| item).collect())
}

/// `unique`: each item once, at its first place.
pub(super) fn unique(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    Ok(Value::iterator(kept))
}

/// `groupby`: lists of items that have an attribute in common.
pub(super) fn grouped(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    run.list(out)
}

/// `batch`: lists of so many items.
pub(super) fn batched(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    Ok(Value::iterator(batches.items()?))
}

/// `slice`: so many lists of items.
pub(super) fn sliced(run: &mut Run, name: &str, value: Value, call: Call) -> Result<Value> {
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
    Ok(Value::iterator(slices.items()?))
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
pub(in crate::template) fn sort_by_keys<T>(
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

pub(super) fn map(run: &mut Run, value: &Value, mut call: Call) -> Result<Value> {
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

pub(super) fn select(run: &mut Run, name: &str, value: &Value, mut call: Call) -> Result<Value> {
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
