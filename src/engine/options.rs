//! What a caller may ask of the tokenizer and the chat template: plain data, of which `www/lib/generated` is the TypeScript.
//!
//! An unknown option is an error, never ignored.

use serde::Deserialize;

/// Options of decoding: token ids to text.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct DecodeOptions {
    /// Leave special tokens out; default false.
    pub skip_special: Option<bool>,
}

/// How the chat template writes out a conversation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(
    test,
    derive(ts_rs::TS),
    ts(rename = "ChatTemplateOptions", optional_fields)
)]
pub struct TemplateOptions {
    /// End with the beginning of the assistant's turn; default true.
    pub add_generation_prompt: Option<bool>,
    /// Tool definitions for the chat template.
    #[cfg_attr(test, ts(type = "readonly unknown[]", optional))]
    pub tools: Option<serde_json::Value>,
    /// Variables of the chat template's own, such as `{ enable_thinking: false }` for Qwen3: plain data, as in JSON. They
    /// replace the variables that a template has anyway, special tokens for instance.
    #[cfg_attr(test, ts(type = "Record<string, unknown>", optional))]
    pub chat_template_kwargs: Option<serde_json::Map<String, serde_json::Value>>,
    /// The name of one of the model's chat templates, or a template's text; default: `tool_use` where there are tools and
    /// the model has it, else `default`.
    pub chat_template: Option<String>,
}
