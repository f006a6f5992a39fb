//! The sampling settings that a model's makers recommend, where its files hold them.

use crate::format::Metadata;
use serde::Serialize;

/// Settings that were found; names and ranges are those of a request. What is no number, or out of its range, is
/// left out: a model runs without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct GenerationConfig {
    /// Whether to draw at random; a GGUF has no such key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub do_sample: Option<bool>,
    /// 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// 0: all tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// 1: all tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// 0: all tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// 1: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// From the keys `general.sampling.*` of a GGUF.
    pub fn from_gguf(metadata: &Metadata) -> Self {
        let number = |name: &str| {
            metadata
                .f64(&format!("general.sampling.{name}"))
                .ok()
                .flatten()
                .map(shortest)
        };
        Self {
            do_sample: None,
            temperature: number("temp"),
            top_k: number("top_k").and_then(whole),
            top_p: number("top_p"),
            min_p: number("min_p"),
            repetition_penalty: number("penalty_repeat"),
        }
        .checked()
    }

    /// From a `generation_config.json`; whatever is wrong with it, what it says of anything else is read elsewhere.
    pub fn from_json(bytes: &[u8]) -> Self {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes) else {
            return Self::default();
        };
        let number = |name: &str| json.get(name).and_then(serde_json::Value::as_f64);
        Self {
            do_sample: json.get("do_sample").and_then(serde_json::Value::as_bool),
            temperature: number("temperature"),
            top_k: number("top_k").and_then(whole),
            top_p: number("top_p"),
            min_p: number("min_p"),
            repetition_penalty: number("repetition_penalty"),
        }
        .checked()
    }

    fn checked(self) -> Self {
        let within = |value: Option<f64>, low: f64, high: f64| {
            value.filter(|value| (low..=high).contains(value))
        };
        Self {
            temperature: within(self.temperature, 0.0, 100.0),
            top_p: within(self.top_p, 0.0, 1.0),
            min_p: within(self.min_p, 0.0, 1.0),
            repetition_penalty: within(self.repetition_penalty, 0.01, 100.0),
            ..self
        }
    }
}

/// The number that someone wrote and an `f32` rounded: 0.95 instead of 0.949999988079071.
fn shortest(number: f64) -> f64 {
    (number as f32).to_string().parse().unwrap_or(number)
}

fn whole(number: f64) -> Option<u32> {
    (number >= 0.0 && number <= f64::from(u32::MAX)).then_some(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gguf_keys_under_the_names_of_requests() {
        let mut metadata = Metadata::default();
        assert_eq!(
            GenerationConfig::from_gguf(&metadata),
            GenerationConfig::default()
        );
        metadata.insert("general.sampling.temp", 0.6_f32.into());
        metadata.insert("general.sampling.top_k", 20_i32.into());
        metadata.insert("general.sampling.top_p", 0.95_f32.into());
        metadata.insert("general.sampling.min_p", 0_i32.into());
        metadata.insert("general.sampling.penalty_repeat", 1.05_f32.into());
        let config = GenerationConfig::from_gguf(&metadata);
        let json =
            r#"{"temperature":0.6,"top_k":20,"top_p":0.95,"min_p":0.0,"repetition_penalty":1.05}"#;
        assert_eq!(serde_json::to_string(&config).expect("plain data"), json);
        // Nothing that a request would refuse.
        metadata.insert("general.sampling.temp", f32::NAN.into());
        metadata.insert("general.sampling.top_k", (-1_i32).into());
        metadata.insert("general.sampling.top_p", 1.5_f32.into());
        metadata.insert("general.sampling.min_p", "low".into());
        metadata.insert("general.sampling.penalty_repeat", 0.0_f32.into());
        assert_eq!(
            GenerationConfig::from_gguf(&metadata),
            GenerationConfig::default()
        );
    }

    #[test]
    fn generation_config_json() {
        let config = GenerationConfig::from_json(
            br#"{"do_sample":true,"temperature":0.6,"top_p":0.9,"top_k":null,"eos_token_id":[1,2],"min_p":"x"}"#,
        );
        let wanted = GenerationConfig {
            do_sample: Some(true),
            temperature: Some(0.6),
            top_p: Some(0.9),
            ..GenerationConfig::default()
        };
        assert_eq!(config, wanted);
        assert_eq!(
            GenerationConfig::from_json(b"[1]"),
            GenerationConfig::default()
        );
        assert_eq!(
            GenerationConfig::from_json(b"{"),
            GenerationConfig::default()
        );
    }
}
