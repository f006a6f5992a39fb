//! Chat templates: a conversation to the text that the model was trained on.
//!
//! The language is Jinja as Transformers sets it up (`utils/chat_template_utils.py`): blocks are trimmed, values
//! print as in Python, `tojson` keeps non-ASCII text and `<`, `raise_exception`, `strftime_now` and the
//! `generation` tag exist. Templates come out of files, so a render has a budget of work and of output.

mod ast;
mod clock;
mod fault;
mod filters;
mod format;
mod lexer;
mod methods;
mod parser;
mod python;
mod run;
mod tests;
mod text;
mod value;

use std::collections::HashMap;
use std::rc::Rc;

pub use clock::DateTime;

use crate::error::{Error, ErrorKind, Result};
use fault::Fault;
use run::{MAX_OUTPUT, Run};
use value::{Dict, Value};

/// Longest template. Published ones have up to 20 KB.
const MAX_TEMPLATE: usize = 1 << 20;
/// Steps of work that a render may take; a published template takes some 100 a message.
const BASE_STEPS: u64 = 1 << 18;
/// … and more per byte of the conversation.
const STEPS_PER_BYTE: u64 = 4;
/// Values that a list or mapping may hold, beside those of the conversation.
const MOST_VALUES: usize = 1 << 14;
/// Deepest nesting of a conversation or of a variable.
const MAX_DEPTH: usize = 120;

/// A model's chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    /// Name and source, at least one.
    templates: Vec<(String, String)>,
    /// Special tokens: `bos_token` and its kin.
    special: serde_json::Map<String, serde_json::Value>,
}

/// The template that is used without a reason for another.
pub(crate) const DEFAULT: &str = "default";
/// The template that is used when there are tools, where there is one.
const TOOL_USE: &str = "tool_use";

/// What a template is rendered with.
#[derive(Clone, Copy, Debug)]
pub struct TemplateInput<'a> {
    /// The conversation: an array of `{"role", "content", …}`.
    pub messages: &'a serde_json::Value,
    /// Tools as JSON schemas.
    pub tools: Option<&'a serde_json::Value>,
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The clock of `strftime_now`. Without one the function is not defined, and templates that want today's
    /// date use their own default.
    pub now: Option<DateTime>,
    /// More variables (`enable_thinking`, `date_string`), which also replace those above.
    pub extra: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

impl Default for TemplateInput<'_> {
    fn default() -> Self {
        static NO_MESSAGES: serde_json::Value = serde_json::Value::Array(Vec::new());
        TemplateInput {
            messages: &NO_MESSAGES,
            tools: None,
            add_generation_prompt: false,
            now: None,
            extra: None,
        }
    }
}

impl ChatTemplate {
    /// A template with the texts of `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// `Template` for a syntax error.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        parsed(source)?;
        let special = [("bos_token", bos), ("eos_token", eos)]
            .map(|(name, text)| (name.to_owned(), text.into()));
        Ok(Self::unchecked(
            vec![(DEFAULT.to_owned(), source.to_owned())],
            special.into_iter().collect(),
        ))
    }

    /// Named templates whose faults come out when they are used: a model with a broken one is still good for text.
    pub(crate) fn unchecked(
        templates: Vec<(String, String)>,
        special: serde_json::Map<String, serde_json::Value>,
    ) -> Self {
        Self { templates, special }
    }

    /// The template's text; of several, that of the default.
    pub fn source(&self) -> &str {
        self.named(DEFAULT)
            .or(self.templates.first().map(|(_, source)| source.as_str()))
            .unwrap_or_default()
    }

    /// The template called `name` alone, whatever is given; or, as in Transformers, where `name` is no name but a template's
    /// text, that one with this model's special tokens.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is not there.
    pub fn select(&self, name: &str) -> Result<Self> {
        let source = match self.named(name) {
            Some(source) => source,
            None if name.contains(['{', '\n']) => name,
            None => {
                let names: Vec<&str> = self
                    .templates
                    .iter()
                    .map(|(name, _)| name.as_str())
                    .collect();
                return Err(Error::invalid_input(format!(
                    "the model has no chat template called {name:?}; it has {}",
                    names.join(", ")
                )));
            }
        };
        let templates = vec![(DEFAULT.to_owned(), source.to_owned())];
        Ok(Self {
            templates,
            special: self.special.clone(),
        })
    }

    fn named(&self, name: &str) -> Option<&str> {
        self.templates
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, source)| source.as_str())
    }

    /// The template for a conversation, chosen as Transformers does.
    fn chosen(&self, tools: bool) -> Result<&str> {
        let tool_use = if tools { self.named(TOOL_USE) } else { None };
        tool_use.or(self.named(DEFAULT)).ok_or_else(|| {
            let names: Vec<&str> = self
                .templates
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            Error::new(
                ErrorKind::Template,
                format!(
                    "the model has several chat templates and none is the default: {}",
                    names.join(", ")
                ),
            )
        })
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// `Template`: a fault in the template, its own `raise_exception` (whose message is in the error), or more
    /// work or output than a template may need.
    pub fn render(&self, input: &TemplateInput<'_>) -> Result<String> {
        let body = parsed(self.chosen(input.tools.is_some())?)?;
        let mut size = weight(input.messages) + input.tools.map_or(0, weight);
        let mut variables: HashMap<Rc<str>, Value> = HashMap::from([
            ("messages".into(), json(input.messages)?),
            ("tools".into(), input.tools.map_or(Ok(Value::None), json)?),
            ("documents".into(), Value::None),
            (
                "add_generation_prompt".into(),
                Value::Bool(input.add_generation_prompt),
            ),
        ]);
        for (name, value) in &self.special {
            variables.insert(name.as_str().into(), json(value)?);
        }
        for (name, value) in input.extra.into_iter().flatten() {
            size += weight(value);
            variables.insert(name.as_str().into(), json(value)?);
        }
        let mut run = Run::new(
            variables,
            BASE_STEPS + STEPS_PER_BYTE * size as u64,
            MOST_VALUES + size,
            input.now,
        );
        run.render(&body)
            .map_err(|fault| failure(fault, Some(run.line)))
    }
}

fn json(value: &serde_json::Value) -> Result<Value> {
    converted(value, 0)
}

fn converted(value: &serde_json::Value, depth: usize) -> Result<Value> {
    use serde_json::Value as Json;
    if depth > MAX_DEPTH {
        return Err(Error::new(
            ErrorKind::Template,
            format!("the conversation is nested deeper than {MAX_DEPTH} levels"),
        ));
    }
    Ok(match value {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number.into()),
            (None, Some(number)) => Value::Int(number.into()),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => Value::list(
            items
                .iter()
                .map(|item| converted(item, depth + 1))
                .collect::<Result<Vec<Value>>>()?,
        ),
        Json::Object(map) => {
            let entry = |(key, value): (&String, _)| {
                Ok((key.as_str().into(), converted(value, depth + 1)?))
            };
            Value::Dict(Rc::new(Dict::new(
                map.iter().map(entry).collect::<Result<Vec<_>>>()?,
            )))
        }
    })
}

/// About how many bytes of text a value is.
fn weight(value: &serde_json::Value) -> usize {
    use serde_json::Value::*;
    match value {
        Null | Bool(_) | Number(_) => 8,
        String(text) => text.len() + 8,
        Array(items) => items.iter().map(weight).sum(),
        Object(map) => map
            .iter()
            .map(|(key, value)| key.len() + weight(value))
            .sum(),
    }
}

/// The template as a tree.
fn parsed(source: &str) -> Result<ast::Body> {
    if source.len() > MAX_TEMPLATE {
        return Err(Error::new(
            ErrorKind::Template,
            format!(
                "the chat template has {} bytes; at most {MAX_TEMPLATE} are supported",
                source.len()
            ),
        ));
    }
    parser::parse(source).map_err(|fault| failure(fault, None))
}

fn failure(fault: Fault, line: Option<u32>) -> Error {
    let at = |line: Option<u32>| {
        line.map_or(String::new(), |line| {
            format!(" (line {line} of the template)")
        })
    };
    let message = match fault {
        Fault::Raised(message) => message,
        Fault::Syntax(what, line) => format!("the chat template is malformed: {what}{}", at(Some(line))),
        Fault::Value(what) => format!("the chat template failed: {what}{}", at(line)),
        Fault::Steps => {
            "the chat template takes more steps than any conversation of this size needs; the model file may \
                         be broken"
                .to_owned()
        }
        Fault::Output => {
            format!("the chat template writes more than {} MiB; the model file may be broken", MAX_OUTPUT >> 20)
        }
    };
    Error::new(ErrorKind::Template, message)
}
