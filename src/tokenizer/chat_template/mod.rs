//! Chat templates: a conversation to the text that the model was trained on.
//!
//! The language is Jinja as Transformers sets it up (`utils/chat_template_utils.py`): blocks are trimmed, values
//! print as in Python, `tojson` keeps non-ASCII text and `<`, `raise_exception`, `strftime_now` and the
//! `generation` tag exist. Templates come out of files, so a render has a budget of work and of output.

mod bounds;
mod clock;
mod methods;
mod python;
mod rewrite;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{self, Kwargs, Rest};
use minijinja::{Environment, Value};

pub use clock::DateTime;

use crate::error::{Error, ErrorKind, Result};
use bounds::Bounds;

/// What minijinja calls the template in its messages.
const NAME: &str = "chat_template";
/// Longest template. Published ones have up to 20 KB.
const MAX_TEMPLATE: usize = 1 << 20;
/// Longest output: far beyond any context, small beside a browser's heap.
const MAX_OUTPUT: usize = 16 << 20;
/// Instructions, and 64-byte units of text, that a render may use; a published template spends some 50 a message.
const BASE_FUEL: u64 = 1 << 18;
/// … and more per byte of the conversation.
const FUEL_PER_BYTE: u64 = 4;

/// A model's chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    /// Name and source, at least one.
    templates: Vec<(String, String)>,
    /// Special tokens: `bos_token` and its kin.
    special: serde_json::Map<String, serde_json::Value>,
}

/// The template that is used without a reason for another.
pub(super) const DEFAULT: &str = "default";
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
        TemplateInput { messages: &NO_MESSAGES, tools: None, add_generation_prompt: false, now: None, extra: None }
    }
}

impl ChatTemplate {
    /// A template with the texts of `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// `Template` for a syntax error.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        environment(None, 0)?.template_from_named_str(NAME, &prepared(source)?).map_err(|error| failure(&error))?;
        let special = [("bos_token", bos), ("eos_token", eos)].map(|(name, text)| (name.to_owned(), text.into()));
        Ok(ChatTemplate::unchecked(vec![(DEFAULT.to_owned(), source.to_owned())], special.into_iter().collect()))
    }

    /// Named templates whose faults come out when they are used: a model with a broken one is still good for text.
    pub(super) fn unchecked(
        templates: Vec<(String, String)>,
        special: serde_json::Map<String, serde_json::Value>,
    ) -> ChatTemplate {
        ChatTemplate { templates, special }
    }

    /// The template's text; of several, that of the default.
    pub fn source(&self) -> &str {
        self.named(DEFAULT).or(self.templates.first().map(|(_, source)| source.as_str())).unwrap_or_default()
    }

    /// The template called `name` alone, whatever is given; or, as in Transformers, where `name` is no name but a template's
    /// text, that one with this model's special tokens.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is not there.
    pub fn select(&self, name: &str) -> Result<ChatTemplate> {
        let source = match self.named(name) {
            Some(source) => source,
            None if name.contains(['{', '\n']) => name,
            None => {
                let names: Vec<&str> = self.templates.iter().map(|(name, _)| name.as_str()).collect();
                return Err(Error::invalid_input(format!(
                    "the model has no chat template called {name:?}; it has {}",
                    names.join(", ")
                )));
            }
        };
        let templates = vec![(DEFAULT.to_owned(), source.to_owned())];
        Ok(ChatTemplate { templates, special: self.special.clone() })
    }

    fn named(&self, name: &str) -> Option<&str> {
        self.templates.iter().find(|(known, _)| known == name).map(|(_, source)| source.as_str())
    }

    /// The template for a conversation, chosen as Transformers does.
    fn chosen(&self, tools: bool) -> Result<&str> {
        let tool_use = if tools { self.named(TOOL_USE) } else { None };
        tool_use.or(self.named(DEFAULT)).ok_or_else(|| {
            let names: Vec<&str> = self.templates.iter().map(|(name, _)| name.as_str()).collect();
            Error::new(
                ErrorKind::Template,
                format!("the model has several chat templates and none is the default: {}", names.join(", ")),
            )
        })
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// `Template`: a fault in the template, its own `raise_exception` (whose message is in the error), or more
    /// work or output than a template may need.
    pub fn render(&self, input: &TemplateInput<'_>) -> Result<String> {
        let source = prepared(self.chosen(input.tools.is_some())?)?;
        let mut size = weight(input.messages) + input.tools.map_or(0, weight);
        let mut variables: BTreeMap<&str, Value> = BTreeMap::from([
            ("messages", json(input.messages)),
            ("tools", input.tools.map_or(Value::from(()), json)),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(input.add_generation_prompt)),
        ]);
        variables.extend(self.special.iter().map(|(name, value)| (name.as_str(), json(value))));
        for (name, value) in input.extra.into_iter().flatten() {
            size += weight(value);
            variables.insert(name, json(value));
        }
        let mut environment = environment(input.now, size)?;
        environment.set_fuel(Some(BASE_FUEL + FUEL_PER_BYTE * size as u64));
        let template = environment.template_from_named_str(NAME, &source).map_err(|error| failure(&error))?;
        let mut output = Bounded::default();
        let rendered = template.render_captured_to(Value::from(variables), &mut output).map(drop);
        if output.full {
            return Err(Error::new(
                ErrorKind::Template,
                format!("the chat template writes more than {} MiB; the model file may be broken", MAX_OUTPUT >> 20),
            ));
        }
        rendered.map_err(|error| failure(&error))?;
        String::from_utf8(output.bytes)
            .map_err(|error| Error::internal("a template's text is UTF-8").with_source(error))
    }
}

fn json(value: &serde_json::Value) -> Value {
    Value::from(value::Serde(value))
}

/// About how many bytes of text a value is.
fn weight(value: &serde_json::Value) -> usize {
    use serde_json::Value::*;
    match value {
        Null | Bool(_) | Number(_) => 8,
        String(text) => text.len() + 8,
        Array(items) => items.iter().map(weight).sum(),
        Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
    }
}

/// Jinja as Transformers sets it up, for a conversation of about `size` bytes.
fn environment(now: Option<DateTime>, size: usize) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| Error::internal("Jinja's own syntax").with_source(error))?);
    environment.set_unknown_method_callback(methods::call_method);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(python::print);
    environment.add_filter("tojson", python::to_json);
    environment.add_filter("string", python::string);
    environment.add_filter("escape", python::escape);
    environment.add_filter("e", python::escape);
    environment.add_filter(rewrite::PERCENT_FILTER, methods::percent);
    let bounds = Bounds::new(size);
    environment.add_filter(rewrite::BOUNDED_FILTER, move |value: &Value| bounds.check(value));
    environment.add_filter("wordcount", methods::word_count);
    environment.add_filter("truncate", methods::truncate);
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, minijinja::Error> {
        let error = minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, "raise_exception");
        Err(error.with_source(Raised(python::string(message)?)))
    });
    if let Some(now) = now {
        environment.add_function("strftime_now", move |format: &str, _: Rest<Value>, _: Kwargs| now.format(format));
    }
    Ok(environment)
}

/// What a template said through `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn failure(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Error::new(ErrorKind::Template, message.clone());
        }
        cause = error.source();
    }
    if error.kind() == minijinja::ErrorKind::OutOfFuel {
        return Error::new(
            ErrorKind::Template,
            "the chat template takes more steps than any conversation of this size needs; the model file may be broken",
        );
    }
    Error::new(ErrorKind::Template, format!("the chat template failed: {error}"))
}

/// The template as minijinja reads it.
fn prepared(source: &str) -> Result<String> {
    if source.len() > MAX_TEMPLATE {
        return Err(Error::new(
            ErrorKind::Template,
            format!("the chat template has {} bytes; at most {MAX_TEMPLATE} are supported", source.len()),
        ));
    }
    let too_many = |what| {
        Error::new(ErrorKind::Template, format!("the chat template has too many {what}; the model file may be broken"))
    };
    // Before, for what rewrites it goes down brackets too; and after, for that adds operators.
    rewrite::check_nesting(source).map_err(too_many)?;
    let rewritten = rewrite::rewrite(source);
    rewrite::check_nesting(&rewritten).map_err(too_many)?;
    Ok(rewritten)
}

/// A writer that takes so much and no more.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
