//! Runs a template's tree: scopes, statements, expressions, calls. Every step, and the text and the lists that it makes,
//! come out of one budget.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{
    Arguments, Body, Comparison, Expr, For, Kind, Link, Macro, Name, Operator, Target,
};
use super::clock::DateTime;
use super::fault::{Fault, Result, fail};
use super::format;
use super::python;
use super::value::{
    Dict, LoopState, Namespace, Number, Object, Range, Sequence, Value, View, total,
};
use super::{filters, methods, tests};

/// Deepest nesting of what runs: brackets, blocks, and the macros and loops that call themselves.
const MAX_DEPTH: usize = 200;
/// Deepest nesting of a value: values are freed, as they are printed, from the outside in.
const MAX_VALUE_DEPTH: usize = 128;
/// Longest output: far beyond any context, small beside a browser's heap.
pub(super) const MAX_OUTPUT: usize = 16 << 20;
/// Jinja's own limit of `range`.
const MAX_RANGE: i128 = 100_000;
/// Bytes of text, and values of a list, that cost a step.
const TEXT_PER_STEP: usize = 64;
const VALUES_PER_STEP: usize = 16;

/// What a call was given.
#[derive(Default)]
pub(super) struct Call {
    pub positional: Vec<Value>,
    pub named: Vec<(Name, Value)>,
}

impl Call {
    pub fn of(positional: Vec<Value>) -> Self {
        Self {
            positional,
            named: Vec::new(),
        }
    }

    pub fn named_value(&self, name: &str) -> Option<Value> {
        self.named
            .iter()
            .find(|(known, _)| &**known == name)
            .map(|(_, value)| value.clone())
    }

    /// The arguments in the order of their names; names that begin with `/` can be given by place only.
    pub fn bind<const N: usize>(self, what: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return fail(format!(
                "{what} takes at most {N} arguments, not {}",
                self.positional.len()
            ));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|known| **known == *name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                Some(_) => return fail(format!("{what} gets {name} twice")),
                None => return fail(format!("{what} takes no argument {name}")),
            }
        }
        Ok(bound)
    }
}

struct Scope {
    id: u64,
    parent: usize,
    variables: HashMap<Name, Value>,
}

/// Whether a body ran to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

pub(super) struct Run {
    scopes: Vec<Scope>,
    /// The scope of the statement that runs.
    scope: usize,
    next_id: u64,
    namespaces: Vec<Namespace>,
    out: String,
    steps_left: u64,
    /// Most values that one value may hold.
    most_values: usize,
    depth: usize,
    pub escapes: bool,
    now: Option<DateTime>,
    /// Line of the statement that runs.
    pub line: u32,
}

const FUNCTIONS: [&str; 8] = [
    "range",
    "dict",
    "namespace",
    "cycler",
    "joiner",
    "lipsum",
    "raise_exception",
    "strftime_now",
];

impl Run {
    pub fn new(
        variables: HashMap<Name, Value>,
        steps: u64,
        most_values: usize,
        now: Option<DateTime>,
    ) -> Self {
        Self {
            scopes: vec![Scope {
                id: 0,
                parent: 0,
                variables,
            }],
            scope: 0,
            next_id: 1,
            namespaces: Vec::new(),
            out: String::new(),
            steps_left: steps,
            most_values,
            depth: 0,
            escapes: false,
            now,
            line: 1,
        }
    }

    pub fn render(&mut self, body: &Body) -> Result<String> {
        self.body(body)?;
        Ok(std::mem::take(&mut self.out))
    }

    pub fn charge(&mut self, steps: usize) -> Result<()> {
        match self.steps_left.checked_sub(steps as u64) {
            Some(left) => {
                self.steps_left = left;
                Ok(())
            }
            None => {
                self.steps_left = 0;
                Err(Fault::Steps)
            }
        }
    }

    /// For `len` bytes of text that are read or made.
    pub fn charge_text(&mut self, len: usize) -> Result<()> {
        self.charge(len / TEXT_PER_STEP)
    }

    pub fn charge_values(&mut self, count: usize) -> Result<()> {
        self.charge(count / VALUES_PER_STEP)
    }

    /// A value that was put together, if it is small enough.
    pub fn bounded(&mut self, value: Value) -> Result<Value> {
        let size = value.size();
        if size.depth > MAX_VALUE_DEPTH {
            return fail("a list or mapping is nested too deep");
        }
        if size.values > self.most_values {
            return fail("a list or mapping holds too much");
        }
        Ok(value)
    }

    pub fn list(&mut self, items: Vec<Value>) -> Result<Value> {
        self.charge_values(items.len())?;
        self.bounded(Value::list(items))
    }

    pub fn dict(&mut self, entries: Vec<(Value, Value)>) -> Result<Value> {
        self.charge_values(2 * entries.len())?;
        entries.iter().try_for_each(|(key, _)| key.check_key())?;
        self.bounded(Value::Dict(Rc::new(Dict::new(entries))))
    }

    pub fn text(&mut self, text: String) -> Result<Value> {
        self.charge_text(text.len())?;
        Ok(text.into())
    }

    /// `str(value)`
    pub fn string(&mut self, value: &Value) -> Result<String> {
        let text = match value {
            Value::Object(object) => match &**object {
                Object::Namespace(_) => "<Namespace>".to_owned(),
                _ => python::string(value)?,
            },
            _ => python::string(value)?,
        };
        self.charge_text(text.len())?;
        Ok(text)
    }

    /// What a loop goes through.
    pub fn items(&mut self, value: &Value) -> Result<Vec<Value>> {
        let count = value.item_count();
        self.charge_values(count)?;
        if count > self.most_values.max(MAX_RANGE as usize) {
            return fail("a list or mapping holds too much");
        }
        value.items()
    }

    // Scopes

    fn push_scope(&mut self, parent: usize) -> usize {
        let outer = self.scope;
        self.scopes.push(Scope {
            id: self.next_id,
            parent,
            variables: HashMap::new(),
        });
        self.next_id += 1;
        self.scope = self.scopes.len() - 1;
        outer
    }

    fn pop_scope(&mut self, outer: usize) {
        self.scopes.pop();
        self.scope = outer;
    }

    fn scoped<T>(&mut self, parent: usize, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = self.push_scope(parent);
        let result = work(self)?;
        self.pop_scope(outer);
        Ok(result)
    }

    fn set(&mut self, name: Name, value: Value) {
        let scope = self.scope;
        self.scopes[scope].variables.insert(name, value);
    }

    fn lookup(&self, name: &str) -> Value {
        let mut at = self.scope;
        loop {
            let scope = &self.scopes[at];
            if let Some(value) = scope.variables.get(name) {
                return value.clone();
            }
            if at == 0 {
                break;
            }
            at = scope.parent;
        }
        match FUNCTIONS.iter().find(|known| **known == name) {
            Some(function) if *function != "strftime_now" || self.now.is_some() => {
                Value::function(function)
            }
            _ => Value::undefined(format!("'{name}' is undefined")),
        }
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.set(name.clone(), value),
            Target::Attribute(namespace, name) => {
                let Value::Object(object) = self.lookup(namespace) else {
                    return fail(format!(
                        "{namespace} is no namespace, so {namespace}.{name} cannot be set"
                    ));
                };
                let Object::Namespace(at) = *object else {
                    return fail(format!(
                        "{namespace} is no namespace, so {namespace}.{name} cannot be set"
                    ));
                };
                check_attribute(name)?;
                self.namespaces[at].set(name.clone(), value);
            }
            Target::Several(targets) => {
                let values = self.items(&value)?;
                if values.len() != targets.len() {
                    return fail(format!(
                        "{} names cannot take {} values",
                        targets.len(),
                        values.len()
                    ));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value)?;
                }
            }
        }
        Ok(())
    }

    // Statements

    /// Goes a level down.
    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return fail("the template calls itself too deep");
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.charge_text(text.len())?;
        if self.out.len() + text.len() > MAX_OUTPUT {
            return Err(Fault::Output);
        }
        self.out.push_str(text);
        Ok(())
    }

    /// What a body writes.
    fn captured(&mut self, work: impl FnOnce(&mut Self) -> Result<Flow>) -> Result<(Value, Flow)> {
        let outer = std::mem::take(&mut self.out);
        let flow = work(self)?;
        let text = std::mem::replace(&mut self.out, outer);
        self.charge_text(text.len())?;
        Ok((
            if self.escapes {
                Value::Safe(text.into())
            } else {
                text.into()
            },
            flow,
        ))
    }

    fn body(&mut self, body: &Body) -> Result<Flow> {
        self.deeper(|run| {
            for node in body {
                run.charge(1)?;
                run.line = node.line;
                let flow = run.statement(&node.kind)?;
                if flow != Flow::On {
                    return Ok(flow);
                }
            }
            Ok(Flow::On)
        })
    }

    #[expect(
        clippy::too_many_lines,
        reason = "a match of one arm per kind of statement"
    )]
    fn statement(&mut self, kind: &Kind) -> Result<Flow> {
        match kind {
            Kind::Text(text) => self.write(text)?,
            Kind::Output(expr) => self.output(expr)?,
            Kind::If {
                branches,
                otherwise,
            } => {
                for (test, body) in branches {
                    if self.eval(test)?.is_true() {
                        return self.body(body);
                    }
                }
                return self.body(otherwise);
            }
            Kind::For(node) => {
                let mut items = self.eval(&node.items)?;
                // A template that goes through its tools without asking whether there are any: none is no list, but
                // before Transformers passed none, the variable was not there.
                if let (Expr::Name(name), Value::None) = (&node.items, &items)
                    && matches!(&**name, "tools" | "documents")
                {
                    items = Value::undefined(format!("'{name}' is undefined"));
                }
                return self.run_loop(node, &items, 0);
            }
            Kind::Set(target, expr) => {
                let value = self.eval(expr)?;
                self.assign(target, value)?;
            }
            Kind::SetBlock(target, links, body) => {
                let scope = self.scope;
                let (text, flow) = self.captured(|run| run.scoped(scope, |run| run.body(body)))?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                let value = self.links(text, links)?;
                self.assign(target, value)?;
            }
            Kind::With(bindings, body) => {
                let values = bindings
                    .iter()
                    .map(|(_, expr)| self.eval(expr))
                    .collect::<Result<Vec<Value>>>()?;
                let scope = self.scope;
                return self.scoped(scope, |run| {
                    for ((target, _), value) in bindings.iter().zip(values) {
                        run.assign(target, value)?;
                    }
                    run.body(body)
                });
            }
            Kind::Macro(definition) => {
                let value = self.macro_value(definition);
                self.set(definition.name.clone(), value);
            }
            Kind::Call(expr, caller) => self.call_block(expr, caller)?,
            Kind::Filter(links, body) => {
                let scope = self.scope;
                let (text, flow) = self.captured(|run| run.scoped(scope, |run| run.body(body)))?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                let value = self.links(text, links)?;
                let text = self.string(&value)?;
                self.write(&text)?;
            }
            Kind::Scope(body) => {
                let scope = self.scope;
                return self.scoped(scope, |run| run.body(body));
            }
            Kind::Block(body) => return self.scoped(0, |run| run.body(body)),
            Kind::Autoescape(on, body) => {
                let on = self.eval(on)?.is_true();
                let before = std::mem::replace(&mut self.escapes, on);
                let scope = self.scope;
                let flow = self.scoped(scope, |run| run.body(body))?;
                self.escapes = before;
                return Ok(flow);
            }
            Kind::Do(expr) => drop(self.eval(expr)?),
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// `{{ expr }}`
    fn output(&mut self, expr: &Expr) -> Result<()> {
        let value = self.eval(expr)?;
        match &value {
            Value::Safe(text) => self.write(text)?,
            Value::Text(text) if !self.escapes => self.write(text)?,
            _ => {
                let text = self.string(&value)?;
                self.write(&if self.escapes {
                    python::escape(&text)
                } else {
                    text
                })?;
            }
        }
        Ok(())
    }

    /// `{% call %}`: a call that gets the block as the macro `caller`.
    fn call_block(&mut self, expr: &Expr, caller: &Rc<Macro>) -> Result<()> {
        let caller = self.macro_value(caller);
        if let Expr::Chain(base, links) = expr
            && let Some((Link::Call(arguments), before)) = links.split_last()
        {
            let base = self.eval(base)?;
            let function = self.links(base, before)?;
            let mut call = self.arguments(arguments)?;
            call.named.push(("caller".into(), caller));
            let value = self.call(&function, call)?;
            let text = self.string(&value)?;
            self.write(&text)?;
        }
        Ok(())
    }

    /// A loop, which sees the names of the scope that runs.
    fn run_loop(&mut self, node: &Rc<For>, items: &Value, depth: usize) -> Result<Flow> {
        let scope = self.scope;
        let mut items = self.items(items)?;
        if let Some(filter) = &node.filter {
            let mut kept = Vec::new();
            for item in items {
                self.charge(1)?;
                let is_kept = self.scoped(scope, |run| {
                    run.assign(&node.target, item.clone())?;
                    Ok(run.eval(filter)?.is_true())
                })?;
                if is_kept {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.scoped(scope, |run| run.body(&node.otherwise));
        }
        let count = items.len();
        let again = node.recursive.then(|| (node.clone(), scope));
        let size = total(items.iter());
        if size.depth > MAX_VALUE_DEPTH {
            return fail("a list or mapping is nested too deep");
        }
        let state = Rc::new(Object::Loop(LoopState {
            items,
            size,
            at: Cell::new(0),
            depth,
            changed: RefCell::new(None),
            again,
        }));
        let Object::Loop(inner) = &*state else {
            return Ok(Flow::On);
        };
        let result = self.loop_body(node, &state, inner, scope, count);
        // It may hold the loop itself.
        inner.changed.replace(None);
        result?;
        Ok(Flow::On)
    }

    fn loop_body(
        &mut self,
        node: &For,
        state: &Rc<Object>,
        inner: &LoopState,
        scope: usize,
        count: usize,
    ) -> Result<()> {
        for at in 0..count {
            self.charge(1)?;
            inner.at.set(at);
            let flow = self.scoped(scope, |run| {
                run.set("loop".into(), Value::Object(state.clone()));
                run.assign(&node.target, inner.items[at].clone())?;
                run.body(&node.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn macro_value(&self, definition: &Rc<Macro>) -> Value {
        let scope_id = self.scopes[self.scope].id;
        Value::Object(Rc::new(Object::Macro {
            definition: definition.clone(),
            scope: self.scope,
            scope_id,
        }))
    }

    // Expressions

    pub fn eval(&mut self, expr: &Expr) -> Result<Value> {
        self.charge(1)?;
        // What has no parts needs no level of its own.
        match expr {
            Expr::Constant(value) => return Ok(value.clone()),
            Expr::Name(name) => return Ok(self.lookup(name)),
            _ => {}
        }
        self.deeper(|run| run.compound(expr))
    }

    fn all(&mut self, exprs: &[Expr]) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    fn compound(&mut self, expr: &Expr) -> Result<Value> {
        match expr {
            Expr::Constant(_) | Expr::Name(_) => self.eval(expr),
            Expr::List(items) => {
                let items = self.all(items)?;
                self.list(items)
            }
            Expr::Tuple(items) => {
                let items = self.all(items)?;
                self.charge_values(items.len())?;
                self.bounded(Value::tuple(items))
            }
            Expr::Dict(items) => {
                let mut entries = Vec::with_capacity(items.len());
                for (key, value) in items {
                    entries.push((self.eval(key)?, self.eval(value)?));
                }
                self.dict(entries)
            }
            Expr::Chain(base, links) => {
                let base = self.eval(base)?;
                self.links(base, links)
            }
            Expr::Signs(signs, operand) => self.signed(signs, operand),
            Expr::Not(operand) => Ok(Value::Bool(!self.eval(operand)?.is_true())),
            Expr::Arithmetic(first, others) => {
                let mut value = self.eval(first)?;
                for (operator, other) in others {
                    let other = self.eval(other)?;
                    value = self.arithmetic(*operator, &value, &other)?;
                }
                Ok(value)
            }
            Expr::Concat(items) => self.concatenated(items),
            Expr::Compare(first, others) => {
                let mut left = self.eval(first)?;
                for (comparison, right) in others {
                    let right = self.eval(right)?;
                    if !self.compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::And(items) | Expr::Or(items) => {
                let until = matches!(expr, Expr::Or(_));
                let mut value = Value::None;
                for item in items {
                    value = self.eval(item)?;
                    if value.is_true() == until {
                        break;
                    }
                }
                Ok(value)
            }
            Expr::Condition(choices, otherwise) => {
                for (value, test) in choices {
                    if self.eval(test)?.is_true() {
                        return self.eval(value);
                    }
                }
                match otherwise {
                    Some(value) => self.eval(value),
                    None => Ok(Value::undefined(
                        "a condition was false, and there is no else",
                    )),
                }
            }
        }
    }

    /// Signs before a number, the innermost last.
    fn signed(&mut self, signs: &[bool], operand: &Expr) -> Result<Value> {
        let mut value = self.eval(operand)?;
        for negative in signs.iter().rev() {
            self.charge(1)?;
            value = match value.number() {
                Some(Number::Int(number)) if *negative => {
                    Value::Int(in_range(number.checked_neg())?)
                }
                Some(Number::Int(number)) => Value::Int(number),
                Some(Number::Float(number)) => {
                    Value::Float(if *negative { -number } else { number })
                }
                None => {
                    return fail(format!("a sign needs a number, not {}", value.described()));
                }
            };
        }
        Ok(value)
    }

    /// `a ~ b`
    fn concatenated(&mut self, items: &[Expr]) -> Result<Value> {
        let mut text = String::new();
        let values = self.all(items)?;
        let safe = self.escapes && values.iter().any(|value| matches!(value, Value::Safe(_)));
        for value in values {
            let part = self.string(&value)?;
            let escaped = safe && !matches!(value, Value::Safe(_));
            text.push_str(&if escaped { python::escape(&part) } else { part });
        }
        self.charge_text(text.len())?;
        Ok(if safe {
            Value::Safe(text.into())
        } else {
            text.into()
        })
    }

    fn arguments(&mut self, arguments: &Arguments) -> Result<Call> {
        let mut call = Call::of(self.all(&arguments.positional)?);
        for (name, expr) in &arguments.named {
            call.named.push((name.clone(), self.eval(expr)?));
        }
        if let Some(more) = &arguments.more {
            let more = self.eval(more)?;
            call.positional.extend(self.items(&more)?);
        }
        if let Some(more) = &arguments.more_named {
            let Value::Dict(dict) = self.eval(more)? else {
                return fail("** in a call needs a mapping");
            };
            self.charge_values(dict.entries.len())?;
            for (key, value) in &dict.entries {
                let Some(name) = key.text() else {
                    return fail("the keys of ** in a call are texts");
                };
                if call.named_value(name).is_some() {
                    return fail(format!("the argument {name} is there twice"));
                }
                call.named.push((name.into(), value.clone()));
                self.charge(call.named.len() / VALUES_PER_STEP)?;
            }
        }
        Ok(call)
    }

    fn links(&mut self, base: Value, links: &[Link]) -> Result<Value> {
        let mut value = base;
        for link in links {
            self.charge(1)?;
            value = match link {
                Link::Attribute(name) => self.attribute(&value, name)?,
                Link::Item(key) => {
                    let key = self.eval(key)?;
                    self.item(&value, &key)?
                }
                Link::Slice(parts) => {
                    let mut bounds = [None, None, None];
                    for (bound, part) in bounds.iter_mut().zip(parts) {
                        if let Some(part) = part {
                            let part = self.eval(part)?;
                            *bound = if matches!(part, Value::None) {
                                None
                            } else {
                                Some(part)
                            };
                        }
                    }
                    self.slice(&value, bounds)?
                }
                Link::Call(arguments) => {
                    let call = self.arguments(arguments)?;
                    self.call(&value, call)?
                }
                Link::Filter(name, arguments) => {
                    let call = self.arguments(arguments)?;
                    filters::apply(self, name, value, call)?
                }
                Link::Test {
                    name,
                    arguments,
                    negated,
                } => {
                    let call = self.arguments(arguments)?;
                    Value::Bool(tests::apply(self, name, &value, call)? != *negated)
                }
            };
        }
        Ok(value)
    }

    /// `value.name`: what Python calls an attribute goes first, an item with that name second.
    pub fn attribute(&mut self, value: &Value, name: &str) -> Result<Value> {
        if let Value::Undefined(what) = value {
            return fail(&**what);
        }
        if let Some(found) = self.own_attribute(value, name)? {
            return Ok(found);
        }
        let entry = if let Value::Dict(dict) = value {
            dict.get_text(name)
        } else {
            None
        };
        Ok(entry.cloned().unwrap_or_else(|| missing(value, name)))
    }

    /// What Python's `getattr` finds.
    pub fn own_attribute(&mut self, value: &Value, name: &str) -> Result<Option<Value>> {
        if let Some(method) = methods::find(value, name) {
            return Ok(Some(Value::Object(Rc::new(Object::Method(
                value.clone(),
                method,
            )))));
        }
        let number = |number: usize| Some(Value::from(number));
        Ok(match value {
            Value::Tuple(sequence) => sequence
                .names
                .iter()
                .position(|known| *known == name)
                .map(|at| sequence.items[at].clone()),
            Value::Range(range) => match name {
                "start" => Some(Value::Int(range.start)),
                "stop" => Some(Value::Int(range.stop)),
                "step" => Some(Value::Int(range.step)),
                _ => None,
            },
            Value::Object(object) => match &**object {
                Object::Namespace(at) => self.namespaces[*at].get(name).cloned(),
                Object::Macro { definition, .. } => match name {
                    "name" => Some((&*definition.name).into()),
                    "arguments" => {
                        let names = definition
                            .parameters
                            .iter()
                            .map(|(name, _)| (&**name).into())
                            .collect();
                        Some(Value::tuple(names))
                    }
                    "catch_kwargs" => Some(Value::Bool(definition.kwargs)),
                    "catch_varargs" => Some(Value::Bool(definition.varargs)),
                    "caller" => Some(Value::Bool(definition.caller)),
                    _ => None,
                },
                Object::Loop(state) => {
                    let (at, len) = (state.at.get(), state.items.len());
                    match name {
                        "index0" => number(at),
                        "index" => number(at + 1),
                        "revindex0" => number(len - at - 1),
                        "revindex" => number(len - at),
                        "first" => Some(Value::Bool(at == 0)),
                        "last" => Some(Value::Bool(at + 1 == len)),
                        "length" => number(len),
                        "depth0" => number(state.depth),
                        "depth" => number(state.depth + 1),
                        "previtem" => Some(match at.checked_sub(1) {
                            Some(before) => state.items[before].clone(),
                            None => Value::undefined("there is no previous item"),
                        }),
                        "nextitem" => Some(match state.items.get(at + 1) {
                            Some(next) => next.clone(),
                            None => Value::undefined("there is no next item"),
                        }),
                        _ => None,
                    }
                }
                Object::Cycler { items, at, .. } if name == "current" => {
                    items.get(at.get()).cloned()
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// `value[key]`: an item goes first, an attribute second.
    pub fn item(&mut self, value: &Value, key: &Value) -> Result<Value> {
        if let Value::Undefined(what) = value {
            return fail(&**what);
        }
        let place = |len: usize| {
            let Some(Number::Int(at)) = key.number() else {
                return None;
            };
            let at = if at < 0 { at + len as i128 } else { at };
            usize::try_from(at).ok().filter(|at| *at < len)
        };
        let found = match value {
            Value::Text(text) | Value::Safe(text) => {
                self.charge_text(text.len())?;
                match key.number() {
                    Some(Number::Int(at)) => {
                        let c = match usize::try_from(at) {
                            Ok(at) => text.chars().nth(at),
                            Err(_) => usize::try_from(-1 - at)
                                .ok()
                                .and_then(|back| text.chars().rev().nth(back)),
                        };
                        c.map(|c| Value::from(c.encode_utf8(&mut [0; 4]) as &str))
                    }
                    _ => None,
                }
            }
            Value::List(sequence) | Value::Tuple(sequence) => {
                place(sequence.items.len()).map(|at| sequence.items[at].clone())
            }
            Value::Range(range) => place(range.len).map(|at| range.get(at)),
            Value::Dict(dict) => {
                self.charge_text(key.text().map_or(0, str::len))?;
                dict.get(key).cloned()
            }
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        match key.text() {
            Some(name) => Ok(self
                .own_attribute(value, name)?
                .unwrap_or_else(|| missing(value, name))),
            None => Ok(missing(value, &python::repr(key).unwrap_or_default())),
        }
    }

    fn slice(&mut self, value: &Value, bounds: [Option<Value>; 3]) -> Result<Value> {
        let chars: Vec<char>;
        let len = match value {
            Value::Undefined(what) => return fail(&**what),
            Value::Text(text) | Value::Safe(text) => {
                self.charge_text(text.len())?;
                if let [start, end, None] = &bounds {
                    // Without a step it is a piece of the text itself.
                    let [start, end] =
                        [start, end].map(|bound| bound.as_ref().map(Value::int).transpose());
                    let Some((from, to)) = super::text::window(text, start?, end?) else {
                        return Ok("".into());
                    };
                    return Ok(text[from..to].into());
                }
                chars = text.chars().collect();
                chars.len()
            }
            Value::List(_) | Value::Tuple(_) | Value::Range(_) => {
                chars = Vec::new();
                value.item_count()
            }
            _ => return fail(format!("a {} has no slices", value.type_name())),
        } as i128;
        let [start, end, step] = bounds.map(|bound| bound.as_ref().map(Value::int).transpose());
        let step = step?.unwrap_or(1);
        if step == 0 {
            return fail("the step of a slice cannot be zero");
        }
        let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
        let place = |bound: Option<i128>, default: i128| match bound {
            Some(at) if at < 0 => (at.saturating_add(len)).clamp(lowest, highest),
            Some(at) => at.clamp(lowest, highest),
            None => default,
        };
        let (first, last) = if step > 0 { (0, len) } else { (len - 1, -1) };
        let (mut at, end) = (place(start?, first), place(end?, last));
        let mut places = Vec::new();
        while if step > 0 { at < end } else { at > end } {
            places.push(at as usize);
            at = at.saturating_add(step);
        }
        self.charge_values(places.len())?;
        Ok(match value {
            Value::List(sequence) => Value::list(
                places
                    .iter()
                    .map(|at| sequence.items[*at].clone())
                    .collect(),
            ),
            Value::Tuple(sequence) => Value::tuple(
                places
                    .iter()
                    .map(|at| sequence.items[*at].clone())
                    .collect(),
            ),
            Value::Range(range) => {
                let start = places
                    .first()
                    .map_or(0, |at| range.start + range.step * *at as i128);
                let step = range.step.saturating_mul(step);
                let stop = start.saturating_add(step.saturating_mul(places.len() as i128));
                Value::Range(Rc::new(Range {
                    start,
                    stop,
                    step,
                    len: places.len(),
                }))
            }
            _ => places
                .iter()
                .map(|at| chars[*at])
                .collect::<String>()
                .into(),
        })
    }

    pub fn compare(&mut self, comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
        self.charge(self.comparison_cost(left, right))?;
        let order = |symbol: &str| left.compare(right, symbol);
        Ok(match comparison {
            Comparison::Equal => left.equals(right),
            Comparison::NotEqual => !left.equals(right),
            Comparison::Less => order("<")? == Some(Ordering::Less),
            Comparison::LessEqual => matches!(order("<=")?, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => order(">")? == Some(Ordering::Greater),
            Comparison::GreaterEqual => {
                matches!(order(">=")?, Some(Ordering::Greater | Ordering::Equal))
            }
            Comparison::In => right.contains(left)?,
            Comparison::NotIn => !right.contains(left)?,
        })
    }

    pub fn comparison_cost(&self, left: &Value, right: &Value) -> usize {
        let cost = |value: &Value| {
            let size = value.size();
            size.values / VALUES_PER_STEP + size.bytes / TEXT_PER_STEP
        };
        cost(left).saturating_add(cost(right))
    }

    pub fn arithmetic(&mut self, operator: Operator, left: &Value, right: &Value) -> Result<Value> {
        if operator == Operator::Modulo
            && let Value::Text(text) | Value::Safe(text) = left
        {
            let formatted = format::percent(self, text, right)?;
            return self.text(formatted);
        }
        if let Value::Undefined(what) = left {
            return fail(&**what);
        }
        if let Value::Undefined(what) = right {
            return fail(&**what);
        }
        match (operator, left, right) {
            (Operator::Add, Value::Text(a), Value::Text(b)) => {
                self.charge_text(a.len() + b.len())?;
                return Ok([&**a, &**b].concat().into());
            }
            // A safe text stays safe: what is added to it is escaped.
            (Operator::Add, Value::Safe(a), Value::Text(b)) => {
                let text = format!("{a}{}", python::escape(b));
                self.charge_text(text.len())?;
                return Ok(Value::Safe(text.into()));
            }
            (Operator::Add, Value::Text(a), Value::Safe(b)) => {
                let text = format!("{}{b}", python::escape(a));
                self.charge_text(text.len())?;
                return Ok(Value::Safe(text.into()));
            }
            (Operator::Add, Value::Safe(a), Value::Safe(b)) => {
                self.charge_text(a.len() + b.len())?;
                return Ok(Value::Safe([&**a, &**b].concat().into()));
            }
            (Operator::Add, Value::List(a), Value::List(b)) => {
                return self.list(a.items.iter().chain(&b.items).cloned().collect());
            }
            (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => {
                self.charge_values(a.items.len() + b.items.len())?;
                return self.bounded(Value::tuple(
                    a.items.iter().chain(&b.items).cloned().collect(),
                ));
            }
            (Operator::Multiply, sequence, times)
                if times.number().is_some() && sequence.number().is_none() =>
            {
                return self.repeated(sequence, times);
            }
            (Operator::Multiply, times, sequence)
                if times.number().is_some() && sequence.number().is_none() =>
            {
                return self.repeated(sequence, times);
            }
            _ => {}
        }
        let (Some(a), Some(b)) = (left.number(), right.number()) else {
            let symbol = symbol(operator);
            return fail(format!(
                "{} {symbol} {} is not possible",
                left.type_name(),
                right.type_name()
            ));
        };
        match (a, b) {
            (Number::Int(a), Number::Int(b)) => whole_arithmetic(operator, a, b),
            (a, b) => float_arithmetic(operator, a.float(), b.float()),
        }
    }

    fn repeated(&mut self, value: &Value, times: &Value) -> Result<Value> {
        let times = usize::try_from(times.int()?.max(0)).unwrap_or(usize::MAX);
        match value {
            Value::Text(text) | Value::Safe(text) => {
                let len = text.len().saturating_mul(times);
                self.charge_text(len)?;
                let text = if len == 0 {
                    String::new()
                } else {
                    text.repeat(times)
                };
                Ok(if matches!(value, Value::Safe(_)) {
                    Value::Safe(text.into())
                } else {
                    text.into()
                })
            }
            Value::List(sequence) | Value::Tuple(sequence) => {
                let count = sequence.items.len().saturating_mul(times);
                if count > self.most_values {
                    return fail("a list holds too much");
                }
                self.charge_values(count)?;
                let items = sequence.items.iter().cycle().take(count).cloned().collect();
                self.bounded(if matches!(value, Value::List(_)) {
                    Value::list(items)
                } else {
                    Value::tuple(items)
                })
            }
            _ => fail(format!("{} cannot be multiplied", value.type_name())),
        }
    }

    // Calls

    pub fn call(&mut self, function: &Value, call: Call) -> Result<Value> {
        let object = match function {
            Value::Object(object) => object.clone(),
            Value::Undefined(what) => return fail(&**what),
            _ => return fail(format!("'{}' object is not callable", function.type_name())),
        };
        match &*object {
            Object::Method(receiver, name) => methods::call(self, receiver, name, call),
            Object::Macro {
                definition,
                scope,
                scope_id,
                ..
            } => {
                if self
                    .scopes
                    .get(*scope)
                    .is_none_or(|known| known.id != *scope_id)
                {
                    return fail(format!(
                        "the macro {} is called outside of the block that it belongs to",
                        definition.name
                    ));
                }
                self.deeper(|run| run.call_macro(definition, *scope, call))
            }
            Object::Function(name) => self.call_function(name, call),
            Object::Joiner { separator, used } => {
                let [] = call.bind("a joiner", [])?;
                Ok(if used.replace(true) {
                    separator.clone()
                } else {
                    "".into()
                })
            }
            Object::Loop(state) => {
                let Some((node, scope)) = state.again.clone() else {
                    return fail("only a loop that is said to be recursive can be called");
                };
                let [items] = call.bind("loop", ["iterable"])?;
                let items = required("loop", items)?;
                let depth = state.depth + 1;
                let line = self.line;
                let outer = std::mem::replace(&mut self.scope, scope);
                let (text, _) =
                    self.deeper(|run| run.captured(|run| run.run_loop(&node, &items, depth)))?;
                self.scope = outer;
                self.line = line;
                Ok(text)
            }
            _ => fail(format!("'{}' object is not callable", function.type_name())),
        }
    }

    fn call_macro(
        &mut self,
        definition: &Rc<Macro>,
        scope: usize,
        mut call: Call,
    ) -> Result<Value> {
        let name = &definition.name;
        let declared = definition.parameters.len();
        let rest = call
            .positional
            .split_off(call.positional.len().min(declared));
        if !rest.is_empty() && !definition.varargs {
            return fail(format!(
                "the macro {name} takes at most {declared} arguments"
            ));
        }
        let line = self.line;
        let outer = self.push_scope(scope);
        let mut given = call.positional.into_iter();
        for (parameter, default) in &definition.parameters {
            let named = call.named.iter().position(|(known, _)| known == parameter);
            let value = match (given.next(), named) {
                (Some(value), None) => value,
                (Some(_), Some(_)) if definition.kwargs => {
                    return fail(format!("the macro {name} gets {parameter} twice"));
                }
                (Some(_), Some(_)) => {
                    return fail(format!("the macro {name} gets {parameter} twice"));
                }
                (None, Some(at)) => call.named.remove(at).1,
                (None, None) => match default {
                    Some(default) => self.eval(default)?,
                    None => Value::undefined(format!("parameter '{parameter}' was not provided")),
                },
            };
            self.set(parameter.clone(), value);
        }
        if definition.caller {
            let at = call
                .named
                .iter()
                .position(|(known, _)| &**known == "caller");
            let caller = match at {
                Some(at) => call.named.remove(at).1,
                None => Value::undefined("No caller defined"),
            };
            self.set("caller".into(), caller);
        }
        if definition.kwargs {
            let entries = call
                .named
                .drain(..)
                .map(|(name, value)| ((&*name).into(), value))
                .collect();
            let kwargs = self.dict(entries)?;
            self.set("kwargs".into(), kwargs);
        }
        if let Some((unknown, _)) = call.named.first() {
            return fail(format!("the macro {name} takes no argument {unknown}"));
        }
        if definition.varargs {
            let varargs = self.bounded(Value::tuple(rest))?;
            self.set("varargs".into(), varargs);
        }
        let (text, _) = self.captured(|run| run.body(&definition.body))?;
        self.pop_scope(outer);
        self.line = line;
        Ok(text)
    }

    fn call_function(&mut self, name: &str, call: Call) -> Result<Value> {
        match name {
            "range" => range(name, call),
            "dict" => {
                let entries = self.entries(name, call)?;
                self.dict(entries)
            }
            "namespace" => self.new_namespace(name, call),
            "cycler" => {
                if call.positional.is_empty() || !call.named.is_empty() {
                    return fail("cycler needs at least one value");
                }
                let size = self.list(call.positional.clone())?.size();
                Ok(Value::Object(Rc::new(Object::Cycler {
                    items: call.positional,
                    size,
                    at: Cell::new(0),
                })))
            }
            "joiner" => {
                let [separator] = call.bind(name, ["sep"])?;
                let separator = separator.unwrap_or_else(|| ", ".into());
                self.bounded(Value::Object(Rc::new(Object::Joiner {
                    separator,
                    used: Cell::new(false),
                })))
            }
            "raise_exception" => {
                let [message] = call.bind(name, ["message"])?;
                let message = required(name, message)?;
                Err(Fault::Raised(self.string(&message)?))
            }
            "strftime_now" => {
                let [format] = call.bind(name, ["format"])?;
                let format = required(name, format)?;
                match (format.text(), self.now) {
                    (Some(format), Some(now)) => {
                        let text = now.format(format)?;
                        self.text(text)
                    }
                    _ => fail("strftime_now needs a text as its format"),
                }
            }
            _ => fail(format!(
                "the function {name} is not supported in a chat template"
            )),
        }
    }

    /// `namespace(…)`
    fn new_namespace(&mut self, name: &str, call: Call) -> Result<Value> {
        let entries = self.entries(name, call)?;
        let mut namespace = Namespace::default();
        for (key, value) in entries {
            let Some(key) = key.text() else {
                return fail("the attributes of a namespace have texts as names");
            };
            check_attribute(key)?;
            namespace.set(key.into(), value);
        }
        self.charge(1)?;
        self.namespaces.push(namespace);
        Ok(Value::Object(Rc::new(Object::Namespace(
            self.namespaces.len() - 1,
        ))))
    }

    /// The entries of `dict(…)`: of a mapping or of pairs, then those with names.
    fn entries(&mut self, what: &str, call: Call) -> Result<Vec<(Value, Value)>> {
        if call.positional.len() > 1 {
            return fail(format!("{what} takes one mapping at most"));
        }
        let mut entries = Vec::new();
        for from in call.positional {
            match &from {
                Value::Dict(dict) => {
                    self.charge_values(dict.entries.len())?;
                    entries.extend(dict.entries.iter().cloned());
                }
                _ => {
                    for pair in self.items(&from)? {
                        let pair = self.items(&pair)?;
                        let Ok([key, value]) = <[Value; 2]>::try_from(pair) else {
                            return fail(format!("{what} needs pairs of a key and a value"));
                        };
                        entries.push((key, value));
                    }
                }
            }
        }
        entries.extend(
            call.named
                .into_iter()
                .map(|(name, value)| ((&*name).into(), value)),
        );
        Ok(entries)
    }
}

/// An argument that has to be there.
pub(super) fn required(what: &str, value: Option<Value>) -> Result<Value> {
    value.ok_or_else(|| Fault::new(format!("{what} lacks an argument")))
}

/// Names with an underscore in front are Python's own.
fn check_attribute(name: &str) -> Result<()> {
    if name.starts_with('_') {
        fail(format!("a namespace cannot hold {name}"))
    } else {
        Ok(())
    }
}

pub(super) fn missing(value: &Value, name: &str) -> Value {
    let what = match value {
        Value::None => "None has no".to_owned(),
        _ => format!("'{} object' has no", value.type_name()),
    };
    Value::undefined(format!("{what} attribute or item {name}"))
}

/// A tuple whose items have names too.
pub(super) fn named_tuple(items: Vec<Value>, names: &'static [&'static str]) -> Value {
    let size = Value::tuple(items.clone()).size();
    Value::Tuple(Rc::new(Sequence { items, size, names }))
}

/// The entries of a mapping, as pairs.
pub(super) fn pairs(dict: &Dict) -> Vec<Value> {
    dict.view(View::Items)
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Modulo => "%",
        Operator::Power => "**",
    }
}

/// `range(start, stop, step)`
fn range(name: &str, call: Call) -> Result<Value> {
    let bounds = call.bind(name, ["/start", "/stop", "/step"])?;
    let [first, second, third] = bounds.map(|bound| bound.as_ref().map(Value::int).transpose());
    let first = first?.ok_or_else(|| Fault::new("range needs a number"))?;
    let (start, stop) = second?.map_or((0, first), |stop| (first, stop));
    let step = third?.unwrap_or(1);
    if step == 0 {
        return fail("the step of range cannot be zero");
    }
    let span = in_range(if step > 0 {
        stop.checked_sub(start)
    } else {
        start.checked_sub(stop)
    })?;
    let len = if span <= 0 {
        0
    } else {
        (span - 1) / in_range(step.checked_abs())? + 1
    };
    if len > MAX_RANGE {
        return fail(format!("range is longer than {MAX_RANGE}"));
    }
    Ok(Value::Range(Rc::new(Range {
        start,
        stop,
        step,
        len: len as usize,
    })))
}

fn in_range(number: Option<i128>) -> Result<i128> {
    number.ok_or_else(|| Fault::new("an integer is too large"))
}

fn whole_arithmetic(operator: Operator, a: i128, b: i128) -> Result<Value> {
    let divides = matches!(
        operator,
        Operator::Divide | Operator::FloorDivide | Operator::Modulo
    );
    if divides && b == 0 {
        return fail("division by zero");
    }
    // Python rounds down, and the remainder has the sign of the divisor.
    let floor = |a: i128, b: i128| {
        let quotient = a.checked_div(b)?;
        Some(if a % b != 0 && (a < 0) != (b < 0) {
            quotient - 1
        } else {
            quotient
        })
    };
    Ok(Value::Int(in_range(match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide => return Ok(Value::Float(a as f64 / b as f64)),
        Operator::FloorDivide => floor(a, b),
        Operator::Modulo => {
            floor(a, b).and_then(|quotient| a.checked_sub(quotient.checked_mul(b)?))
        }
        Operator::Power if b < 0 => return float_arithmetic(operator, a as f64, b as f64),
        Operator::Power => match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
            (_, Ok(power)) => a.checked_pow(power),
            (_, Err(_)) => None,
        },
    })?))
}

fn float_arithmetic(operator: Operator, a: f64, b: f64) -> Result<Value> {
    let divides = matches!(
        operator,
        Operator::Divide | Operator::FloorDivide | Operator::Modulo
    );
    if divides && b == 0.0 || operator == Operator::Power && a == 0.0 && b < 0.0 {
        return fail("division by zero");
    }
    let modulo = |a: f64, b: f64| {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
            rest + b
        } else if rest == 0.0 {
            0.0_f64.copysign(b)
        } else {
            rest
        }
    };
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::FloorDivide => {
            let quotient = (a - modulo(a, b)) / b;
            let floor = quotient.floor();
            if quotient - floor > 0.5 {
                floor + 1.0
            } else {
                floor
            }
        }
        Operator::Modulo => modulo(a, b),
        Operator::Power => {
            let power = a.powf(b);
            if power.is_nan() && !a.is_nan() && !b.is_nan() {
                return fail("a power of a negative number is complex");
            }
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return fail("a float is too large");
            }
            power
        }
    }))
}
