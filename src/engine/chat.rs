//! Conversations, and how a model's chat template writes them out.

use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::{ChatTemplate, DateTime, TemplateInput, Tokenizer};
use web_time::SystemTime;

/// A conversation, and how the model's chat template is to write it out.
#[derive(Clone, Copy, Debug)]
pub struct Chat<'a> {
    /// An array of `{"role", "content", …}`.
    pub messages: &'a serde_json::Value,
    /// Tools as JSON schemas.
    pub tools: Option<&'a serde_json::Value>,
    /// Variables of the template's own (`enable_thinking`), an object. They replace special tokens, `documents`,
    /// `add_generation_prompt` and, where `tools` is `None`, the tools.
    pub kwargs: Option<&'a serde_json::Map<String, serde_json::Value>>,
    /// The name of one of the model's templates, or a template's text.
    pub template: Option<&'a str>,
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The time that a template sees; `None`: now, in UTC.
    pub now: Option<DateTime>,
}

/// The conversation as the model's chat template renders it.
///
/// # Errors
///
/// [`ErrorKind::Template`] for a model without one and for faults of the template; [`ErrorKind::InvalidInput`] for a
/// template's name that is not there, and for variables that are arguments of their own.
pub fn apply_chat_template(tokenizer: &Tokenizer, chat: &Chat<'_>) -> Result<String> {
    let own = tokenizer.chat_template();
    let template = match (chat.template, own) {
        (Some(name), Some(own)) => Some(own.select(name)?),
        (Some(text), None) => {
            let token = |id: Option<u32>| {
                id.and_then(|id| tokenizer.token_text(id))
                    .unwrap_or_default()
            };
            Some(ChatTemplate::new(
                text,
                token(tokenizer.bos()),
                token(tokenizer.eos()),
            )?)
        }
        (None, _) => None,
    };
    let template = template.as_ref().or(own).ok_or_else(|| {
        Error::new(
            ErrorKind::Template,
            "this model has no chat template; give it a plain prompt instead, or a template of your own",
        )
    })?;
    render_chat(template, chat)
}

/// The conversation as a template renders it; `chat.template` is left aside.
///
/// # Errors
///
/// As [`apply_chat_template`].
pub fn render_chat(template: &ChatTemplate, chat: &Chat<'_>) -> Result<String> {
    let own = [
        "messages",
        "chat_template",
        "tokenize",
        "continue_final_message",
    ];
    if let Some(name) = own
        .into_iter()
        .find(|name| chat.kwargs.is_some_and(|kwargs| kwargs.contains_key(*name)))
    {
        return Err(Error::invalid_input(format!(
            "chat_template_kwargs may not hold {name:?}: these are variables of the template's own, such as enable_thinking"
        )));
    }
    let given = chat
        .kwargs
        .and_then(|kwargs| kwargs.get("tools"))
        .filter(|tools| !tools.is_null());
    if chat.tools.is_some() && given.is_some() {
        return Err(Error::invalid_input(
            "tools are given twice: as tools and in chat_template_kwargs",
        ));
    }
    template.render(&TemplateInput {
        messages: chat.messages,
        tools: chat.tools.or(given),
        add_generation_prompt: chat.add_generation_prompt,
        now: Some(chat.now.unwrap_or_else(utc_now)),
        extra: chat.kwargs,
    })
}

/// What a clock shows in UTC.
fn utc_now() -> DateTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    DateTime::from_unix(since.map_or(0, |since| since.as_secs() as i64), 0)
}
