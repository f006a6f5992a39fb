//! Values of a template, with Python's meaning of equality, order, truth and membership.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::ast::{For, Macro, Name};
use super::fault::{Result, fail};

#[derive(Clone)]
pub(super) enum Value {
    /// What is not there; the text says what was looked for.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Rc<str>),
    /// Text that is escaped already, or said to be `safe`.
    Safe(Rc<str>),
    List(Rc<Sequence>),
    Tuple(Rc<Sequence>),
    Dict(Rc<Dict>),
    Range(Rc<Range>),
    /// `keys()`, `values()` and `items()` of a mapping.
    View(View, Rc<Dict>),
    /// What can be gone through once.
    Iterator(Rc<Generator>),
    Object(Rc<Object>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

/// How much a value holds, shared parts as often as they are there: `[a, a]` of `[b, b]` of … takes little memory and has no
/// end for whatever goes through it.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub values: usize,
    pub depth: usize,
    /// Length of its texts.
    pub bytes: usize,
}

impl Size {
    const ONE: Self = Self {
        values: 1,
        depth: 1,
        bytes: 0,
    };
}

pub(super) struct Generator {
    items: RefCell<std::vec::IntoIter<Value>>,
    /// What it held at first.
    size: Size,
}

pub(super) struct Sequence {
    pub items: Vec<Value>,
    pub size: Size,
    /// Names of a tuple's items.
    pub names: &'static [&'static str],
}

#[derive(Default)]
pub(super) struct Dict {
    pub entries: Vec<(Value, Value)>,
    /// Places by key, where there are many.
    index: HashMap<Key, usize>,
    size: Option<Size>,
}

pub(super) struct Range {
    pub start: i128,
    pub stop: i128,
    pub step: i128,
    pub len: usize,
}

pub(super) enum Object {
    /// Attributes lie in the run, by this number: a namespace may hold itself.
    Namespace(usize),
    Macro {
        definition: Rc<Macro>,
        scope: usize,
        scope_id: u64,
    },
    Loop(LoopState),
    Cycler {
        items: Vec<Value>,
        size: Size,
        at: Cell<usize>,
    },
    Joiner {
        separator: Value,
        used: Cell<bool>,
    },
    Function(&'static str),
    Method(Value, &'static str),
}

pub(super) struct LoopState {
    pub items: Vec<Value>,
    pub size: Size,
    pub at: Cell<usize>,
    pub depth: usize,
    /// What `changed` was last asked about; emptied when the loop ends, for it may hold the loop.
    pub changed: RefCell<Option<Vec<Value>>>,
    /// What a recursive loop runs again, and the scope around it.
    pub again: Option<(Rc<For>, usize)>,
}

/// A mapping's key.
pub(super) struct Key(pub Value);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(&other.0)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(&self.0, state);
    }
}

fn hash<H: Hasher>(value: &Value, state: &mut H) {
    match value {
        Value::Text(text) | Value::Safe(text) => text.hash(state),
        Value::Tuple(sequence) => sequence.items.iter().for_each(|item| hash(item, state)),
        // Numbers that are equal, of whatever type, are one key.
        _ => match value.number() {
            Some(Number::Int(number)) => (number as f64).to_bits().hash(state),
            Some(Number::Float(number)) => (number + 0.0).to_bits().hash(state),
            None => 0.hash(state),
        },
    }
}

/// Above so many entries a mapping gets an index.
const INDEXED: usize = 16;

impl Dict {
    pub fn new(entries: Vec<(Value, Value)>) -> Self {
        let mut dict = Self::default();
        for (key, value) in entries {
            dict.insert(key, value);
        }
        dict.seal();
        dict
    }

    /// Replaces the value of a key that is there.
    pub fn insert(&mut self, key: Value, value: Value) {
        if self.entries.len() == INDEXED && self.index.is_empty() {
            self.index = self
                .entries
                .iter()
                .enumerate()
                .map(|(at, (key, _))| (Key(key.clone()), at))
                .collect();
        }
        match self.place(&key) {
            Some(at) => self.entries[at].1 = value,
            None => {
                if self.entries.len() >= INDEXED {
                    self.index.insert(Key(key.clone()), self.entries.len());
                }
                self.entries.push((key, value));
            }
        }
    }

    /// Counts what it holds; before that it holds one value.
    pub fn seal(&mut self) {
        let parts = self.entries.iter().flat_map(|(key, value)| [key, value]);
        self.size = Some(total(parts));
    }

    fn place(&self, key: &Value) -> Option<usize> {
        if self.entries.len() <= INDEXED && self.index.is_empty() {
            return self.entries.iter().position(|(known, _)| known.equals(key));
        }
        self.index.get(&Key(key.clone())).copied()
    }

    pub fn get(&self, key: &Value) -> Option<&Value> {
        self.place(key).map(|at| &self.entries[at].1)
    }

    pub fn get_text(&self, key: &str) -> Option<&Value> {
        if self.entries.len() <= INDEXED {
            return self
                .entries
                .iter()
                .find(|(known, _)| known.text() == Some(key))
                .map(|(_, value)| value);
        }
        self.get(&Value::from(key))
    }

    pub fn view(&self, view: View) -> Vec<Value> {
        let entries = self.entries.iter();
        match view {
            View::Keys => entries.map(|(key, _)| key.clone()).collect(),
            View::Values => entries.map(|(_, value)| value.clone()).collect(),
            View::Items => entries
                .map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]))
                .collect(),
        }
    }
}

/// The size of what holds these values.
pub(super) fn total<'a>(parts: impl Iterator<Item = &'a Value>) -> Size {
    let mut size = Size::ONE;
    for part in parts {
        let part = part.size();
        size.values = size.values.saturating_add(part.values);
        size.bytes = size.bytes.saturating_add(part.bytes);
        size.depth = size.depth.max(part.depth + 1);
    }
    size
}

impl Range {
    pub fn get(&self, at: usize) -> Value {
        Value::Int(self.start + self.step * at as i128)
    }
}

#[derive(Clone, Copy)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub fn float(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(number as i128)
    }
}

impl Value {
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Sequence::shared(items))
    }

    pub fn tuple(items: Vec<Self>) -> Self {
        Self::Tuple(Sequence::shared(items))
    }

    pub fn iterator(items: Vec<Self>) -> Self {
        let size = total(items.iter());
        Self::Iterator(Rc::new(Generator {
            items: RefCell::new(items.into_iter()),
            size,
        }))
    }

    pub fn undefined(what: impl Into<String>) -> Self {
        Self::Undefined(what.into().into())
    }

    pub fn function(name: &'static str) -> Self {
        Self::Object(Rc::new(Object::Function(name)))
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Safe(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<Number> {
        match self {
            Self::Bool(value) => Some(Number::Int(i128::from(*value))),
            Self::Int(number) => Some(Number::Int(*number)),
            Self::Float(number) => Some(Number::Float(*number)),
            _ => None,
        }
    }

    /// A whole number, as an index or a count.
    pub fn int(&self) -> Result<i128> {
        match self.number() {
            Some(Number::Int(number)) => Ok(number),
            _ => fail(format!("an integer is needed, not {}", self.described())),
        }
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    pub fn size(&self) -> Size {
        match self {
            Self::List(sequence) | Self::Tuple(sequence) => sequence.size,
            Self::Dict(dict) | Self::View(_, dict) => dict.size.unwrap_or(Size::ONE),
            Self::Range(range) => Size {
                values: 1 + range.len,
                depth: 2,
                bytes: 0,
            },
            Self::Iterator(generator) => generator.size,
            Self::Text(text) | Self::Safe(text) => Size {
                bytes: text.len(),
                ..Size::ONE
            },
            Self::Object(object) => match &**object {
                Object::Method(part, _)
                | Object::Joiner {
                    separator: part, ..
                } => total(std::iter::once(part)),
                Object::Loop(LoopState { size, .. }) | Object::Cycler { size, .. } => *size,
                _ => Size::ONE,
            },
            _ => Size::ONE,
        }
    }

    /// The name of its type in Python.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Safe(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Iterator(_) => "generator",
            Self::Object(object) => match &**object {
                Object::Namespace(_) => "Namespace",
                Object::Macro { .. } => "Macro",
                Object::Loop(_) => "LoopContext",
                Object::Cycler { .. } => "Cycler",
                Object::Joiner { .. } => "Joiner",
                Object::Function(_) | Object::Method(..) => "function",
            },
        }
    }

    /// For messages: an undefined value says what was looked for.
    pub fn described(&self) -> String {
        match self {
            Self::Undefined(what) => what.to_string(),
            _ => self.type_name().to_owned(),
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) | Self::Safe(text) => !text.is_empty(),
            Self::List(sequence) | Self::Tuple(sequence) => !sequence.items.is_empty(),
            Self::Dict(dict) | Self::View(_, dict) => !dict.entries.is_empty(),
            Self::Range(range) => range.len > 0,
            Self::Iterator(_) => true,
            Self::Object(_) => true,
        }
    }

    /// `==`
    pub fn equals(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return compare_numbers(a, b) == Some(Ordering::Equal);
        }
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Text(a) | Self::Safe(a), Self::Text(b) | Self::Safe(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                Rc::ptr_eq(a, b)
                    || a.items.len() == b.items.len()
                        && a.items.iter().zip(&b.items).all(|(a, b)| a.equals(b))
            }
            (Self::Dict(a), Self::Dict(b)) => {
                Rc::ptr_eq(a, b)
                    || a.entries.len() == b.entries.len()
                        && a.entries
                            .iter()
                            .all(|(key, value)| b.get(key).is_some_and(|other| value.equals(other)))
            }
            (Self::Range(a), Self::Range(b)) => {
                a.len == b.len
                    && (a.len == 0 || a.start == b.start && (a.len == 1 || a.step == b.step))
            }
            (Self::View(View::Keys, a), Self::View(View::Keys, b)) => {
                a.entries.len() == b.entries.len()
                    && a.entries.iter().all(|(key, _)| b.get(key).is_some())
            }
            _ => self.is(other),
        }
    }

    /// Python's `is`: the same object. Small integers and the texts of a template are one object each there.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Safe(a), Self::Safe(b)) | (Self::Undefined(a), Self::Undefined(b)) => {
                Rc::ptr_eq(a, b)
            }
            (Self::List(a), Self::List(b)) => Rc::ptr_eq(a, b),
            (Self::Tuple(a), Self::Tuple(b)) => {
                Rc::ptr_eq(a, b) || a.items.is_empty() && b.items.is_empty()
            }
            (Self::Dict(a), Self::Dict(b)) => Rc::ptr_eq(a, b),
            (Self::Range(a), Self::Range(b)) => Rc::ptr_eq(a, b),
            (Self::Iterator(a), Self::Iterator(b)) => Rc::ptr_eq(a, b),
            (Self::Object(a), Self::Object(b)) => match (&**a, &**b) {
                (Object::Namespace(a), Object::Namespace(b)) => a == b,
                (Object::Function(a), Object::Function(b)) => a == b,
                _ => Rc::ptr_eq(a, b),
            },
            _ => false,
        }
    }

    /// `<`, `>` and their kin; `symbol` for the message. `None` where nothing compares (`nan`).
    pub fn compare(&self, other: &Self, symbol: &str) -> Result<Option<Ordering>> {
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return Ok(compare_numbers(a, b));
        }
        match (self, other) {
            (Self::Undefined(what), _) | (_, Self::Undefined(what)) => fail(&**what),
            (Self::Text(a) | Self::Safe(a), Self::Text(b) | Self::Safe(b)) => Ok(Some(a.cmp(b))),
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                match a.items.iter().zip(&b.items).find(|(a, b)| !a.equals(b)) {
                    Some((a, b)) => a.compare(b, symbol),
                    None => Ok(Some(a.items.len().cmp(&b.items.len()))),
                }
            }
            _ => fail(format!(
                "{} and {} cannot be compared by {symbol}",
                self.type_name(),
                other.type_name()
            )),
        }
    }

    /// Whether it can be a mapping's key.
    pub fn check_key(&self) -> Result<()> {
        match self {
            Self::List(_) | Self::Dict(_) | Self::View(View::Keys | View::Items, _) => {
                fail(format!("a {} cannot be a mapping's key", self.type_name()))
            }
            Self::Tuple(sequence) => sequence.items.iter().try_for_each(Self::check_key),
            _ => Ok(()),
        }
    }

    /// Whether [`Value::items`] goes through it.
    pub fn is_iterable(&self) -> bool {
        !matches!(
            self,
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Object(_)
        )
    }

    /// All that a loop goes through. An iterator is empty afterwards.
    pub fn items(&self) -> Result<Vec<Self>> {
        Ok(match self {
            Self::Undefined(_) => Vec::new(),
            Self::Text(text) | Self::Safe(text) => text
                .chars()
                .map(|c| Self::from(c.encode_utf8(&mut [0; 4]) as &str))
                .collect(),
            Self::List(sequence) | Self::Tuple(sequence) => sequence.items.clone(),
            Self::Dict(dict) => dict.view(View::Keys),
            Self::Range(range) => (0..range.len).map(|at| range.get(at)).collect(),
            Self::View(view, dict) => dict.view(*view),
            Self::Iterator(generator) => generator.items.borrow_mut().by_ref().collect(),
            _ => return fail(format!("'{}' object is not iterable", self.type_name())),
        })
    }

    /// About what [`Value::items`] costs.
    pub fn item_count(&self) -> usize {
        match self {
            Self::Text(text) | Self::Safe(text) => text.len(),
            Self::List(sequence) | Self::Tuple(sequence) => sequence.items.len(),
            Self::Dict(dict) | Self::View(_, dict) => dict.entries.len(),
            Self::Range(range) => range.len,
            Self::Iterator(generator) => generator.items.borrow().len(),
            _ => 0,
        }
    }

    /// `len(value)`, where there is one.
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::Undefined(_) => Some(0),
            Self::Text(text) | Self::Safe(text) => Some(text.chars().count()),
            Self::Iterator(_) => None,
            Self::Object(object) => match &**object {
                Object::Loop(state) => Some(state.items.len()),
                _ => None,
            },
            Self::List(_) | Self::Tuple(_) | Self::Dict(_) | Self::View(..) | Self::Range(_) => {
                Some(self.item_count())
            }
            _ => None,
        }
    }

    /// `item in self`
    pub fn contains(&self, item: &Self) -> Result<bool> {
        Ok(match self {
            Self::Text(text) | Self::Safe(text) => match item.text() {
                Some(part) => text.contains(part),
                None => {
                    return fail(format!(
                        "'in' a text needs a text, not {}",
                        item.described()
                    ));
                }
            },
            Self::List(sequence) | Self::Tuple(sequence) => {
                sequence.items.iter().any(|known| known.equals(item))
            }
            Self::Dict(dict) | Self::View(View::Keys, dict) => {
                item.check_key()?;
                dict.get(item).is_some()
            }
            Self::Range(range) => match item.number() {
                Some(Number::Int(number)) => {
                    number.checked_sub(range.start).is_some_and(|offset| {
                        offset.checked_rem(range.step) == Some(0)
                            && (0..range.len as i128)
                                .contains(&offset.checked_div(range.step).unwrap_or(-1))
                    })
                }
                _ => self.items()?.iter().any(|known| known.equals(item)),
            },
            Self::Undefined(_) => false,
            Self::View(..) | Self::Iterator(_) => {
                self.items()?.iter().any(|known| known.equals(item))
            }
            _ => {
                return fail(format!(
                    "argument of type '{}' is not iterable",
                    self.type_name()
                ));
            }
        })
    }
}

impl Generator {
    pub fn next(&self) -> Option<Value> {
        self.items.borrow_mut().next()
    }
}

impl Sequence {
    pub fn shared(items: Vec<Value>) -> Rc<Self> {
        let size = total(items.iter());
        Rc::new(Self {
            items,
            size,
            names: &[],
        })
    }
}

fn compare_numbers(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (a, b) => a.float().partial_cmp(&b.float()),
    }
}

/// Attributes of a namespace, in the order in which they were set.
#[derive(Default)]
pub(super) struct Namespace {
    attributes: HashMap<Name, Value>,
    order: Vec<Name>,
}

impl Namespace {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.attributes.get(name)
    }

    pub fn set(&mut self, name: Name, value: Value) {
        if self.attributes.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }
}
