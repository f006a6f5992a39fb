//! Rope frequencies and the ways in which models stretch them to longer contexts.

use crate::error::{Error, Result};
use std::f64::consts::PI;

/// How rope frequencies are changed for contexts longer than the training's.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "rope_type")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum RopeScaling {
    /// Positions divided by `factor`.
    Linear {
        /// Context multiple.
        factor: f64,
    },
    /// LLaMA 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Context multiple.
        factor: f64,
        /// Wavelengths over `original_max_position_embeddings / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths under `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the training.
        original_max_position_embeddings: f64,
    },
    /// YaRN (Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", section 3).
    Yarn {
        /// Context multiple.
        factor: f64,
        /// Multiplies cos and sin.
        attention_factor: f64,
        /// Rotations over the training's context from which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is divided.
        beta_slow: f64,
        /// Context of the training.
        original_max_position_embeddings: f64,
        /// Whether the ends of the ramp are whole pairs.
        truncate: bool,
    },
    /// A divisor for each frequency, as the GGUF tensor `rope_freqs.weight` gives (LLaMA 3.1 and later).
    Divisors {
        /// One per rotated pair.
        divisors: Vec<f32>,
    },
}

impl RopeScaling {
    /// The attention factor of YaRN where a file names none (section 3.4 of the paper).
    pub fn yarn_attention_factor(factor: f64) -> f64 {
        yarn_mscale(factor, 1.0)
    }

    /// Every number must be usable: finite, positive, in order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidFile`](crate::error::ErrorKind::InvalidFile) otherwise.
    pub fn checked(self) -> Result<Self> {
        let numbers: Vec<(&str, f64)> = match &self {
            Self::Linear { factor } => vec![("factor", *factor)],
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original,
            } => {
                if high_freq_factor <= low_freq_factor {
                    return Err(Error::invalid_file(format!(
                        "rope scaling: high_freq_factor {high_freq_factor} must be over low_freq_factor \
                         {low_freq_factor}"
                    )));
                }
                vec![
                    ("factor", *factor),
                    ("low_freq_factor", *low_freq_factor),
                    ("high_freq_factor", *high_freq_factor),
                    ("original_max_position_embeddings", *original),
                ]
            }
            Self::Yarn {
                factor,
                attention_factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings: original,
                ..
            } => vec![
                ("factor", *factor),
                ("attention_factor", *attention_factor),
                ("beta_fast", *beta_fast),
                ("beta_slow", *beta_slow),
                ("original_max_position_embeddings", *original),
            ],
            Self::Divisors { divisors } => divisors
                .iter()
                .map(|d| ("rope_freqs.weight", f64::from(*d)))
                .collect(),
        };
        match numbers
            .iter()
            .find(|(_, value)| !(value.is_finite() && *value > 0.0))
        {
            None => Ok(self),
            Some((name, value)) => Err(Error::invalid_file(format!(
                "rope scaling: {name} is {value}, not a positive number"
            ))),
        }
    }

    /// What cos and sin are multiplied by.
    pub fn magnitude(&self) -> f64 {
        match self {
            Self::Yarn {
                attention_factor, ..
            } => *attention_factor,
            _ => 1.0,
        }
    }
}

/// `0.1 mscale ln(scale) + 1` for contexts that grow, 1 otherwise.
pub(super) fn yarn_mscale(scale: f64, mscale: f64) -> f64 {
    if scale <= 1.0 {
        1.0
    } else {
        0.1 * mscale * scale.ln() + 1.0
    }
}

/// Angles per position of the pairs of `dim` rotated values, all scaling applied.
pub(super) fn inv_freq(theta: f64, dim: u32, scaling: Option<&RopeScaling>) -> Vec<f64> {
    let d = f64::from(dim);
    let plain = (0..dim / 2).map(|j| theta.powf(-2.0 * f64::from(j) / d));
    match scaling {
        None => plain.collect(),
        Some(RopeScaling::Linear { factor }) => plain.map(|freq| freq / factor).collect(),
        Some(RopeScaling::Divisors { divisors }) => plain
            .zip(divisors)
            .map(|(freq, divisor)| freq / f64::from(*divisor))
            .collect(),
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        }) => plain
            .map(|freq| {
                let wavelength = 2.0 * PI / freq;
                if wavelength < original / high {
                    freq
                } else if wavelength > original / low {
                    freq / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * freq / factor + smooth * freq
                }
            })
            .collect(),
        Some(RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_max_position_embeddings: original,
            truncate,
            ..
        }) => {
            // The pair that turns `rotations` times over the training's context.
            let pair_of =
                |rotations: f64| d * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
            let (mut low, mut high) = (pair_of(*beta_fast), pair_of(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(d - 1.0));
            if low == high {
                high += 0.001;
            }
            plain
                .enumerate()
                .map(|(j, freq)| {
                    let divided = ((j as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    freq / factor * divided + freq * (1.0 - divided)
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yarn_keeps_fast_pairs_and_divides_slow_ones() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            attention_factor: RopeScaling::yarn_attention_factor(4.0),
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_max_position_embeddings: 4096.0,
            truncate: true,
        };
        let plain = inv_freq(10_000.0, 128, None);
        let scaled = inv_freq(10_000.0, 128, Some(&scaling));
        // 32 turns in 4096 positions: pair 64 ln(4096 / 64 pi) / ln 10000 = 20.9; one turn: 45.03.
        for (j, (a, b)) in plain.iter().zip(&scaled).enumerate() {
            let divided = ((j as f64 - 20.0) / 26.0).clamp(0.0, 1.0);
            let want = a * (1.0 - divided) + a / 4.0 * divided;
            assert!((b - want).abs() < 1e-12 * a, "pair {j}: {b} {want}");
        }
        assert!((scaling.magnitude() - 1.138_629_436_111_989).abs() < 1e-12);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for scaling in [
            RopeScaling::Linear { factor: 0.0 },
            RopeScaling::Linear { factor: f64::NAN },
            RopeScaling::Divisors {
                divisors: vec![1.0, -1.0],
            },
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 4.0,
                high_freq_factor: 1.0,
                original_max_position_embeddings: 8192.0,
            },
        ] {
            assert!(scaling.clone().checked().is_err(), "{scaling:?}");
        }
    }
}
