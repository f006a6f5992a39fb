//! What a caller may ask of `generate`, and its validation. Option names are those of Transformers and `OpenAI`; an
//! unknown option is an error, never ignored.

use crate::error::{Error, Result};
use crate::plan::{MAX_BIASES, Penalties, Sampling, TokenMask};
use crate::tokenizer::DateTime;
use serde::{Deserialize, Deserializer, de};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

/// Tokens generated when neither `max_new_tokens` nor `max_length` is given.
const DEFAULT_MAX_NEW_TOKENS: u32 = 256;

/// Most likely tokens whose log-probabilities a request may ask for, as in `OpenAI`'s API.
const MAX_TOP_LOGPROBS: u32 = 20;

/// A generation request. Exactly one of `prompt`, `ids` and `messages` is given.
// With feature `cli` each option is a flag of `generate`, which fills in the conversation itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(
    test,
    derive(ts_rs::TS),
    ts(rename = "GenerationRequest", optional_fields)
)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct Request {
    /// Text to continue.
    #[cfg_attr(feature = "cli", arg(long))]
    pub prompt: Option<String>,
    /// Token ids to continue.
    #[cfg_attr(test, ts(type = "Uint32Array", optional))]
    #[cfg_attr(feature = "cli", arg(long, value_name = "ID,…", value_delimiter = ','))]
    pub ids: Option<Vec<u32>>,
    /// A conversation for the model's chat template: `[{role, content}, ...]`.
    #[cfg_attr(test, ts(type = "readonly unknown[]", optional))]
    #[cfg_attr(feature = "cli", arg(skip))]
    pub messages: Option<serde_json::Value>,
    /// Tool definitions for the chat template. Only for `chat`, as are the next two.
    #[cfg_attr(test, ts(type = "readonly unknown[]", optional))]
    #[cfg_attr(feature = "cli", arg(skip))]
    pub tools: Option<serde_json::Value>,
    /// Variables of the chat template's own, such as `{ enable_thinking: false }` for Qwen3: plain data, as in JSON. They
    /// replace the variables that a template has anyway, special tokens for instance.
    #[cfg_attr(test, ts(type = "Record<string, unknown>", optional))]
    #[cfg_attr(feature = "cli", arg(skip))]
    pub chat_template_kwargs: Option<serde_json::Map<String, serde_json::Value>>,
    /// The name of one of the model's chat templates, or a template's text; default: `tool_use` where there are tools and
    /// the model has it, else `default`.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub chat_template: Option<String>,
    /// The time that a chat template sees; default: now, in UTC. Who knows the local time sets it.
    #[serde(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    pub now: Option<DateTime>,
    /// Whether a text prompt gets the model's special prefix (BOS); default true. Only for `generate`.
    #[cfg_attr(feature = "cli", arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub add_special: Option<bool>,
    /// Tokens to generate at most; default 256.
    #[cfg_attr(feature = "cli", arg(long))]
    pub max_new_tokens: Option<u32>,
    /// Tokens of prompt and output together, as in Transformers; instead of `max_new_tokens`.
    #[cfg_attr(feature = "cli", arg(long))]
    pub max_length: Option<u32>,
    /// Draw at random; default: only if a sampling option is given or several sequences are asked for.
    #[cfg_attr(feature = "cli", arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub do_sample: Option<bool>,
    /// 0 is greedy; default 1 when sampling.
    #[cfg_attr(feature = "cli", arg(long, allow_negative_numbers = true))]
    pub temperature: Option<f32>,
    /// Keep the `k` most likely tokens; 0 (default): all.
    #[cfg_attr(feature = "cli", arg(long))]
    pub top_k: Option<u32>,
    /// Keep the most likely tokens up to this probability; 1 (default): all.
    #[cfg_attr(feature = "cli", arg(long, allow_negative_numbers = true))]
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this times the most likely; 0 (default): none.
    #[cfg_attr(feature = "cli", arg(long, allow_negative_numbers = true))]
    pub min_p: Option<f32>,
    /// Same seed, same text; a whole number below 2^64. Default: a random one.
    #[cfg_attr(test, ts(type = "number | bigint", optional))]
    #[cfg_attr(feature = "cli", arg(long))]
    pub seed: Option<u64>,
    /// Makes tokens of the prompt and of the output less likely: logits above 0 are divided by it, others multiplied.
    /// Above 0; 1 (default): none.
    #[cfg_attr(feature = "cli", arg(long, allow_negative_numbers = true))]
    pub repetition_penalty: Option<f32>,
    /// Taken from the logits of tokens in the output, -2 to 2; as in `OpenAI`, like the next two. Default 0.
    #[cfg_attr(feature = "cli", arg(long, allow_negative_numbers = true))]
    pub presence_penalty: Option<f32>,
    /// Taken from the logits of tokens in the output, times how often they are there, -2 to 2. Default 0.
    #[cfg_attr(feature = "cli", arg(long, allow_negative_numbers = true))]
    pub frequency_penalty: Option<f32>,
    /// What is added to the logits of tokens, by token id (in JSON a text): -100 to 100, for at most 1024 tokens.
    #[cfg_attr(test, ts(type = "Record<number, number>", optional))]
    #[cfg_attr(feature = "cli", arg(long, value_name = "ID=VALUE", value_delimiter = ',', allow_hyphen_values = true, value_parser = bias_of_text))]
    #[serde(deserialize_with = "biases")]
    pub logit_bias: Option<Vec<(u32, f32)>>,
    /// Ids of tokens that are never drawn.
    #[cfg_attr(test, ts(type = "readonly number[]", optional))]
    #[cfg_attr(feature = "cli", arg(long, value_name = "ID,…", value_delimiter = ','))]
    pub suppress_tokens: Option<Vec<u32>>,
    /// Ids of the only tokens that may be drawn.
    #[cfg_attr(test, ts(type = "readonly number[]", optional))]
    #[cfg_attr(feature = "cli", arg(long, value_name = "ID,…", value_delimiter = ','))]
    pub allowed_tokens: Option<Vec<u32>>,
    /// Texts that end the output; they are not part of it.
    #[cfg_attr(test, ts(type = "string | Array<string>", optional))]
    #[serde(deserialize_with = "one_or_several")]
    #[cfg_attr(feature = "cli", arg(long))]
    pub stop: Option<Vec<String>>,
    /// Go on past the model's end-of-text tokens; default false.
    #[cfg_attr(feature = "cli", arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub ignore_eos: Option<bool>,
    /// Sequences to generate from the same prompt, 1 to 1000; default 1.
    #[cfg_attr(feature = "cli", arg(short = 'n', long))]
    pub num_return_sequences: Option<u32>,
    /// Give each token's log-probability, before penalties, temperature and the like.
    #[cfg_attr(feature = "cli", arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub logprobs: Option<bool>,
    /// Give the log-probabilities of so many most likely tokens too, at most 20.
    #[cfg_attr(feature = "cli", arg(long))]
    pub top_logprobs: Option<u32>,
}

/// One text or several.
fn one_or_several<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        Several(Vec<String>),
    }
    Ok(Option::deserialize(deserializer)?.map(|texts| match texts {
        Texts::One(text) => vec![text],
        Texts::Several(texts) => texts,
    }))
}

/// Values by token id. In JSON and in JavaScript a key is a text.
fn biases<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Vec<(u32, f32)>>, D::Error> {
    let Some(biases) = Option::<BTreeMap<String, f32>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let pair = |(text, bias): (String, f32)| match text.parse() {
        Ok(id) => Ok((id, bias)),
        Err(_) => Err(de::Error::custom(format!(
            "logit_bias: {text:?} is no token id; ids are numbers"
        ))),
    };
    biases
        .into_iter()
        .map(pair)
        .collect::<std::result::Result<_, _>>()
        .map(Some)
}

/// A token id and its value, as the command line has them.
#[cfg(feature = "cli")]
fn bias_of_text(text: &str) -> std::result::Result<(u32, f32), &'static str> {
    text.split_once('=')
        .and_then(|(id, value)| Some((id.trim().parse().ok()?, value.trim().parse().ok()?)))
        .ok_or("it must be ID=VALUE, such as 40=-1.5")
}

/// A validated request.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Tokens to generate at most.
    pub max_new_tokens: u32,
    /// Settings of each sequence.
    pub sampling: Vec<Sampling>,
    /// Non-empty stop texts.
    pub stop: Vec<String>,
    /// Go on past end-of-text tokens.
    pub ignore_eos: bool,
    /// Give log-probabilities, and of so many most likely tokens.
    pub logprobs: Option<u32>,
}

/// Tokens, and what is added to their logits.
type Biases = Rc<[(u32, f32)]>;

impl Request {
    /// Checks the options against a prompt of `prompt_tokens`, a context of `context` positions and a vocabulary of
    /// `vocab` tokens. `random_seed` is used where the caller gave none.
    ///
    /// # Errors
    ///
    /// [`crate::error::ErrorKind::InvalidInput`], which names the option that is out of its range.
    pub fn options(
        &self,
        prompt_tokens: u32,
        context: u32,
        vocab: u32,
        random_seed: u64,
    ) -> Result<Options> {
        let room = context.saturating_sub(prompt_tokens);
        let max_new_tokens = self.max_new_tokens(prompt_tokens)?.min(room);
        let sequences = self.num_return_sequences.unwrap_or(1);
        if sequences == 0 || sequences > 1000 {
            return Err(Error::invalid_input(format!(
                "num_return_sequences is {sequences}; it must be between 1 and 1000"
            )));
        }
        let any_option = self.temperature.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some()
            || self.min_p.is_some();
        let do_sample = self.do_sample.unwrap_or(any_option || sequences > 1);
        let temperature = if do_sample {
            self.temperature.unwrap_or(1.0)
        } else {
            0.0
        };
        let sampling = Sampling {
            temperature: number("temperature", temperature, 0.0, 100.0)?,
            top_k: self.top_k.unwrap_or(0),
            top_p: number("top_p", self.top_p.unwrap_or(1.0), 0.0, 1.0)?,
            min_p: number("min_p", self.min_p.unwrap_or(0.0), 0.0, 1.0)?,
            seed: self.seed.unwrap_or(random_seed),
            penalties: self.penalties()?,
            bias: self.bias(vocab)?,
            mask: self.mask(vocab)?,
        };
        if sequences > 1 && sampling.temperature == 0.0 {
            return Err(Error::invalid_input(format!(
                "{sequences} greedy sequences would all be the same: set temperature above 0, or num_return_sequences \
                 to 1"
            )));
        }
        // Each sequence has its own noise: a fixed odd stride keeps neighbouring seeds apart.
        let sampling = (0..u64::from(sequences))
            .map(|i| Sampling {
                seed: sampling
                    .seed
                    .wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                ..sampling.clone()
            })
            .collect();
        let stop = self.stop.clone().unwrap_or_default();
        if stop.iter().any(String::is_empty) {
            return Err(Error::invalid_input("a stop text is empty"));
        }
        Ok(Options {
            max_new_tokens,
            sampling,
            stop,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            logprobs: self.logprobs()?,
        })
    }

    /// Tokens to generate after a prompt of `prompt_tokens`, whatever the context has room for.
    fn max_new_tokens(&self, prompt_tokens: u32) -> Result<u32> {
        match (self.max_new_tokens, self.max_length) {
            (Some(_), Some(_)) => Err(Error::invalid_input(
                "give max_new_tokens or max_length, not both",
            )),
            (Some(0), None) => Err(Error::invalid_input("max_new_tokens must be at least 1")),
            (Some(n), None) => Ok(n),
            (None, Some(n)) if n <= prompt_tokens => Err(Error::invalid_input(format!(
                "max_length {n} leaves no room: the prompt alone has {prompt_tokens} tokens; set max_new_tokens"
            ))),
            (None, Some(n)) => Ok(n - prompt_tokens),
            (None, None) => Ok(DEFAULT_MAX_NEW_TOKENS),
        }
    }

    fn penalties(&self) -> Result<Penalties> {
        Ok(Penalties {
            repetition: number(
                "repetition_penalty",
                self.repetition_penalty.unwrap_or(1.0),
                0.01,
                100.0,
            )?,
            presence: number(
                "presence_penalty",
                self.presence_penalty.unwrap_or(0.0),
                -2.0,
                2.0,
            )?,
            frequency: number(
                "frequency_penalty",
                self.frequency_penalty.unwrap_or(0.0),
                -2.0,
                2.0,
            )?,
        })
    }

    fn logprobs(&self) -> Result<Option<u32>> {
        match (self.logprobs, self.top_logprobs) {
            (_, Some(top)) if top > MAX_TOP_LOGPROBS => Err(Error::invalid_input(format!(
                "top_logprobs is {top}; it must be between 0 and {MAX_TOP_LOGPROBS}"
            ))),
            (Some(false), Some(1..)) => Err(Error::invalid_input(
                "top_logprobs needs logprobs: leave logprobs out, or set it to true",
            )),
            (Some(false) | None, None) | (Some(false), Some(_)) => Ok(None),
            (_, top) => Ok(Some(top.unwrap_or(0))),
        }
    }

    fn bias(&self, vocab: u32) -> Result<Option<Biases>> {
        let Some(biases) = self.logit_bias.as_ref().filter(|biases| !biases.is_empty()) else {
            return Ok(None);
        };
        if biases.len() > MAX_BIASES {
            return Err(Error::invalid_input(format!(
                "logit_bias has {} tokens; it may have {MAX_BIASES}",
                biases.len()
            )));
        }
        let mut seen = HashSet::new();
        let mut list = Vec::with_capacity(biases.len());
        for &(id, bias) in biases {
            let bias = number(&format!("logit_bias of token {id}"), bias, -100.0, 100.0)?;
            list.push((token("logit_bias", id, vocab)?, bias));
            if !seen.insert(id) {
                return Err(Error::invalid_input(format!(
                    "logit_bias names token {id} twice"
                )));
            }
        }
        list.sort_unstable_by_key(|(id, _)| *id);
        Ok(Some(list.into()))
    }

    /// The tokens that may be drawn, unless all may.
    fn mask(&self, vocab: u32) -> Result<Option<Rc<TokenMask>>> {
        let suppressed = self.suppress_tokens.as_deref().unwrap_or_default();
        if self.allowed_tokens.is_none() && suppressed.is_empty() {
            return Ok(None);
        }
        let mut mask = TokenMask::new(vocab, self.allowed_tokens.is_none());
        for id in self.allowed_tokens.iter().flatten() {
            mask.set(token("allowed_tokens", *id, vocab)?, true);
        }
        for id in suppressed {
            mask.set(token("suppress_tokens", *id, vocab)?, false);
        }
        if mask.count() == 0 {
            return Err(Error::invalid_input(
                "allowed_tokens and suppress_tokens leave no token to draw",
            ));
        }
        Ok(Some(Rc::new(mask)))
    }
}

/// A token id of an option, checked.
fn token(option: &str, id: u32, vocab: u32) -> Result<u32> {
    if id < vocab {
        return Ok(id);
    }
    Err(Error::invalid_input(format!(
        "{option}: token id {id} is not below the vocabulary size {vocab}"
    )))
}

fn number(name: &str, value: f32, low: f32, high: f32) -> Result<f32> {
    if value.is_finite() && value >= low && value <= high {
        return Ok(value);
    }
    Err(Error::invalid_input(format!(
        "{name} is {value}; it must be between {low} and {high}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Request {
        serde_json::from_str(json).expect("valid request")
    }

    #[test]
    fn greedy_unless_asked() {
        let options = parse(r#"{"prompt":"a"}"#)
            .options(3, 100, 320, 7)
            .expect("valid");
        assert_eq!(
            options.sampling,
            [Sampling {
                seed: 7,
                ..Sampling::GREEDY
            }]
        );
        assert_eq!(options.max_new_tokens, 97);
        let options = parse(r#"{"prompt":"a","top_p":0.9}"#)
            .options(3, 100, 320, 7)
            .expect("valid");
        assert_eq!(
            (options.sampling[0].temperature, options.sampling[0].top_p),
            (1.0, 0.9)
        );
    }

    #[test]
    fn several_sequences_sample_with_different_seeds() {
        let options = parse(r#"{"prompt":"a","num_return_sequences":5,"seed":1}"#)
            .options(1, 100, 320, 7)
            .expect("valid");
        assert_eq!(options.sampling.len(), 5);
        assert_eq!(options.sampling[0].seed, 1);
        assert_ne!(options.sampling[0].seed, options.sampling[1].seed);
    }

    #[test]
    fn penalties_alone_stay_greedy() {
        let json = r#"{"prompt":"a","repetition_penalty":1.3,"presence_penalty":0.5,"frequency_penalty":-0.25,
            "logit_bias":{"7":-100,"31":2.5},"suppress_tokens":[3],"allowed_tokens":[3,4,319]}"#;
        let options = parse(json).options(3, 100, 320, 7).expect("valid");
        let [sampling] = &options.sampling[..] else {
            panic!("one sequence")
        };
        assert_eq!(sampling.temperature, 0.0);
        assert_eq!(
            sampling.penalties,
            Penalties {
                repetition: 1.3,
                presence: 0.5,
                frequency: -0.25
            }
        );
        assert_eq!(
            sampling.bias.as_deref(),
            Some(&[(7, -100.0), (31, 2.5)][..])
        );
        let mask = sampling.mask.as_ref().expect("a mask");
        let allowed: Vec<u32> = (0..320).filter(|id| mask.allows(*id)).collect();
        assert_eq!(allowed, [4, 319]);
        let none =
            parse(r#"{"prompt":"a","repetition_penalty":1,"logit_bias":{},"suppress_tokens":[]}"#);
        let none = none.options(3, 100, 320, 7).expect("valid");
        assert_eq!(
            none.sampling,
            [Sampling {
                seed: 7,
                ..Sampling::GREEDY
            }]
        );
    }

    #[test]
    fn bad_options_are_named() {
        for (json, word) in [
            (r#"{"temperature":-1}"#, "temperature"),
            (r#"{"top_p":1.5}"#, "top_p"),
            (r#"{"min_p":-0.1}"#, "min_p"),
            (r#"{"max_new_tokens":0}"#, "max_new_tokens"),
            (r#"{"max_length":3}"#, "max_length"),
            (r#"{"max_length":30,"max_new_tokens":3}"#, "not both"),
            (r#"{"num_return_sequences":5,"do_sample":false}"#, "greedy"),
            (r#"{"num_return_sequences":0}"#, "num_return_sequences"),
            (r#"{"stop":""}"#, "stop"),
            (r#"{"repetition_penalty":0}"#, "repetition_penalty"),
            (r#"{"presence_penalty":2.5}"#, "presence_penalty"),
            (r#"{"frequency_penalty":-3}"#, "frequency_penalty"),
            (r#"{"logit_bias":{"5":101}}"#, "logit_bias of token 5"),
            (r#"{"logit_bias":{"320":1}}"#, "logit_bias: token id 320"),
            (r#"{"logit_bias":{"five":1}}"#, "\"five\" is no token id"),
            (r#"{"logit_bias":{"5":1,"05":1}}"#, "token 5 twice"),
            (r#"{"suppress_tokens":[320]}"#, "suppress_tokens"),
            (r#"{"allowed_tokens":[1,320]}"#, "allowed_tokens"),
            (r#"{"allowed_tokens":[]}"#, "allowed_tokens"),
            (r#"{"top_logprobs":21}"#, "top_logprobs"),
            (r#"{"logprobs":false,"top_logprobs":2}"#, "top_logprobs"),
            (
                r#"{"allowed_tokens":[5],"suppress_tokens":[5]}"#,
                "no token",
            ),
        ] {
            let error = match serde_json::from_str::<Request>(json) {
                Ok(request) => request.options(5, 100, 320, 0).expect_err(json).to_string(),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(word), "{json}: {error}");
        }
        assert!(serde_json::from_str::<Request>(r#"{"beams":2}"#).is_err());
    }
}
