//! What a caller may ask of `generate`, and its validation. Option names are those of Transformers and OpenAI; an
//! unknown option is an error, never ignored.

use crate::error::{Error, Result};
use crate::plan::Sampling;
use serde::Deserialize;

/// Tokens generated when neither `max_new_tokens` nor `max_length` is given.
const DEFAULT_MAX_NEW_TOKENS: u32 = 256;

/// A generation request. Exactly one of `prompt`, `ids` and `messages` is given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// Text to continue.
    pub prompt: Option<String>,
    /// Token ids to continue.
    pub ids: Option<Vec<u32>>,
    /// A conversation for the model's chat template: `[{role, content}, ...]`.
    pub messages: Option<serde_json::Value>,
    /// Tools for the chat template.
    pub tools: Option<serde_json::Value>,
    /// Whether a `prompt` gets the model's special prefix (BOS); default yes.
    pub add_special: Option<bool>,
    /// Tokens to generate at most.
    pub max_new_tokens: Option<u32>,
    /// Tokens of prompt and output together, as in Transformers.
    pub max_length: Option<u32>,
    /// Draw at random. Default: yes if a sampling option is given or more than one sequence is asked for.
    pub do_sample: Option<bool>,
    /// 0 is greedy; default 1 when sampling.
    pub temperature: Option<f32>,
    /// Keep the `k` most likely tokens; 0: all.
    pub top_k: Option<u32>,
    /// Keep the most likely tokens up to this probability.
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this times the most likely.
    pub min_p: Option<f32>,
    /// Same seed, same text.
    pub seed: Option<u64>,
    /// Texts that end the output; they are not part of it.
    pub stop: Option<Stop>,
    /// Go on past the model's end-of-text tokens.
    pub ignore_eos: Option<bool>,
    /// Sequences to generate from the same prompt.
    pub num_return_sequences: Option<u32>,
}

/// One stop text or several.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
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
}

impl Request {
    /// Checks the options against a prompt of `prompt_tokens` and a context of `context` positions. `random_seed` is
    /// used where the caller gave none.
    pub fn options(&self, prompt_tokens: u32, context: u32, random_seed: u64) -> Result<Options> {
        let room = context.saturating_sub(prompt_tokens);
        let max_new_tokens = match (self.max_new_tokens, self.max_length) {
            (Some(_), Some(_)) => return Err(Error::invalid_input("give max_new_tokens or max_length, not both")),
            (Some(0), None) => return Err(Error::invalid_input("max_new_tokens must be at least 1")),
            (Some(n), None) => n,
            (None, Some(n)) if n <= prompt_tokens => {
                return Err(Error::invalid_input(format!(
                    "max_length {n} leaves no room: the prompt alone has {prompt_tokens} tokens; set max_new_tokens"
                )));
            }
            (None, Some(n)) => n - prompt_tokens,
            (None, None) => DEFAULT_MAX_NEW_TOKENS,
        }
        .min(room);

        let sequences = self.num_return_sequences.unwrap_or(1);
        if sequences == 0 || sequences > 1000 {
            return Err(Error::invalid_input(format!(
                "num_return_sequences is {sequences}; it must be between 1 and 1000"
            )));
        }
        let any_option =
            self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        let do_sample = self.do_sample.unwrap_or(any_option || sequences > 1);
        let temperature = if do_sample { self.temperature.unwrap_or(1.0) } else { 0.0 };
        let sampling = Sampling {
            temperature: number("temperature", temperature, 0.0, 100.0)?,
            top_k: self.top_k.unwrap_or(0),
            top_p: number("top_p", self.top_p.unwrap_or(1.0), 0.0, 1.0)?,
            min_p: number("min_p", self.min_p.unwrap_or(0.0), 0.0, 1.0)?,
            seed: self.seed.unwrap_or(random_seed),
        };
        if sequences > 1 && sampling.temperature == 0.0 {
            return Err(Error::invalid_input(format!(
                "{sequences} greedy sequences would all be the same: set temperature above 0, or num_return_sequences \
                 to 1"
            )));
        }
        // Each sequence has its own noise: a fixed odd stride keeps neighbouring seeds apart.
        let sampling = (0..u64::from(sequences))
            .map(|i| Sampling { seed: sampling.seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15)), ..sampling })
            .collect();
        let stop = match &self.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text.clone()],
            Some(Stop::Many(texts)) => texts.clone(),
        };
        if stop.iter().any(String::is_empty) {
            return Err(Error::invalid_input("a stop text is empty"));
        }
        Ok(Options { max_new_tokens, sampling, stop, ignore_eos: self.ignore_eos.unwrap_or(false) })
    }
}

fn number(name: &str, value: f32, low: f32, high: f32) -> Result<f32> {
    if value.is_finite() && value >= low && value <= high {
        return Ok(value);
    }
    Err(Error::invalid_input(format!("{name} is {value}; it must be between {low} and {high}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Request {
        serde_json::from_str(json).expect("valid request")
    }

    #[test]
    fn greedy_unless_asked() {
        let options = parse(r#"{"prompt":"a"}"#).options(3, 100, 7).expect("valid");
        assert_eq!(options.sampling, [Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7 }]);
        assert_eq!(options.max_new_tokens, 97);
        let options = parse(r#"{"prompt":"a","top_p":0.9}"#).options(3, 100, 7).expect("valid");
        assert_eq!((options.sampling[0].temperature, options.sampling[0].top_p), (1.0, 0.9));
    }

    #[test]
    fn several_sequences_sample_with_different_seeds() {
        let options = parse(r#"{"prompt":"a","num_return_sequences":5,"seed":1}"#).options(1, 100, 7).expect("valid");
        assert_eq!(options.sampling.len(), 5);
        assert_eq!(options.sampling[0].seed, 1);
        assert_ne!(options.sampling[0].seed, options.sampling[1].seed);
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
        ] {
            let error = parse(json).options(5, 100, 0).expect_err(json);
            assert!(error.to_string().contains(word), "{json}: {error}");
        }
        assert!(serde_json::from_str::<Request>(r#"{"beams":2}"#).is_err());
    }
}
