//! How a token is chosen from logits: one definition, which executors share ([`Sampler`]) or implement, so that the
//! same logits and seed give the same token everywhere.
//!
//! First, where the settings say so, logits are adjusted, in this order, which is that of Transformers and vLLM: biases
//! are added ([`Sampling::bias`]), tokens that the sequence holds are penalised ([`Penalties`]), and what the mask
//! forbids is out ([`Sampling::mask`]). Where it forbids everything, token 0 comes. All that follows sees the adjusted
//! logits.
//!
//! With `temperature == 0` the largest logit wins, the lowest id among equals. Otherwise, with
//! `s_i = (logit_i - max) / temperature`: keep the `top_k` largest (ties with the k-th are kept, as Transformers
//! does); of those keep the smallest set of most likely tokens whose probability reaches `top_p`; drop tokens less
//! likely than `min_p` times the most likely one; and among the kept draw by the Gumbel-max trick: the token with the
//! largest `s_i - ln(e_i)`, where `e_i` is exponentially distributed noise, a hash of (seed, position, token id). The
//! draw therefore needs no state besides the position and, with penalties, counts of the sequence's tokens: a rewound
//! sequence whose sampling is set again with the tokens it still holds draws the same again.

use super::{Penalties, SequenceSampling, TokenMask};
use std::rc::Rc;

/// Entries that [`Sampling::bias`] may have.
pub const MAX_BIASES: usize = 1024;

/// Sampling settings of one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: greedy.
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0: all.
    pub top_k: u32,
    /// Keep the most likely tokens that together reach this probability; 1: all.
    pub top_p: f32,
    /// Drop tokens less likely than this times the most likely; 0: none.
    pub min_p: f32,
    /// Random seed.
    pub seed: u64,
    /// For tokens that the sequence holds.
    pub penalties: Penalties,
    /// Added to the logits of these tokens: ids, each once, and finite numbers; at most [`MAX_BIASES`].
    pub bias: Option<Rc<[(u32, f32)]>>,
    /// Tokens that may be drawn; `None`: all.
    pub mask: Option<Rc<TokenMask>>,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 0,
        penalties: Penalties::NONE,
        bias: None,
        mask: None,
    };

    /// Whether the tokens of a sequence have to be counted.
    pub fn penalises(&self) -> bool {
        self.penalties != Penalties::NONE
    }

    /// Whether logits are adjusted at all.
    fn adjusts(&self) -> bool {
        self.penalises() || self.bias.is_some() || self.mask.is_some()
    }
}

/// pcg4d, a counter-based hash (Jarzynski & Olano, "Hash Functions for GPU Rendering", JCGT 2020).
fn pcg4d(mut v: [u32; 4]) -> [u32; 4] {
    for x in &mut v {
        *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    }
    for _ in 0..2 {
        v[0] = v[0].wrapping_add(v[1].wrapping_mul(v[3]));
        v[1] = v[1].wrapping_add(v[2].wrapping_mul(v[0]));
        v[2] = v[2].wrapping_add(v[0].wrapping_mul(v[1]));
        v[3] = v[3].wrapping_add(v[1].wrapping_mul(v[2]));
        for x in &mut v {
            *x ^= *x >> 16;
        }
    }
    v
}

/// The exponential noise `e = -ln(1 - u)` of token `id` at `pos`, `u` uniform in (0, 1). The small values, which
/// decide draws, come from a series: `ln` of a number near 1 is inaccurate on GPUs (WGSL allows 2^-21 absolute).
pub fn exponential(seed: u64, pos: u32, id: u32) -> f32 {
    let h = pcg4d([seed as u32, (seed >> 32) as u32, pos, id])[0];
    let u = ((h as f32 + 0.5) * (1.0 / 4_294_967_296.0)).min(1.0 - 1.0 / 16_777_216.0);
    if u < 0.015_625 {
        u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * 0.25)))
    } else {
        -(1.0 - u).ln()
    }
}

/// A `u32` that orders as the float does (negatives reversed, sign flipped): radix selection works on it.
pub fn ordered_key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits & 0x8000_0000 != 0 {
        !bits
    } else {
        bits | 0x8000_0000
    }
}

/// Draws tokens on the processor. Keeps its working memory.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    /// Token ids, the likeliest first as far as that is needed.
    order: Vec<u32>,
    /// Adjusted logits.
    adjusted: Vec<f32>,
}

impl Sampler {
    /// The token that follows a row of a sequence at position `pos` with these logits; it is counted.
    pub fn draw(&mut self, logits: &[f32], sequence: &mut SequenceSampling, pos: u32) -> u32 {
        let token = if sequence.settings.adjusts() {
            let mut adjusted = std::mem::take(&mut self.adjusted);
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            sequence.adjust(&mut adjusted);
            let token = self.pick(&adjusted, &sequence.settings, pos);
            self.adjusted = adjusted;
            token
        } else {
            self.pick(logits, &sequence.settings, pos)
        };
        sequence.count(token);
        token
    }

    /// The token for logits that are adjusted already.
    fn pick(&mut self, logits: &[f32], sampling: &Sampling, pos: u32) -> u32 {
        if sampling.temperature <= 0.0 {
            return best(logits.len(), |i| logits[i]);
        }
        let inv_t = 1.0 / sampling.temperature;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if max == f32::NEG_INFINITY {
            return 0;
        }
        let p = |i: usize| ((logits[i] - max) * inv_t).exp();
        let key = |i: &u32| ordered_key(logits[*i as usize]);

        // The smallest key that is kept; raised by each filter in turn.
        let mut floor = 0_u32;
        let top_k = sampling.top_k as usize;
        if top_k > 0 && top_k < logits.len() {
            self.all(logits.len());
            let (_, nth, _) = self
                .order
                .select_nth_unstable_by_key(top_k - 1, |i| std::cmp::Reverse(key(i)));
            floor = key(nth);
        }
        if sampling.top_p < 1.0 {
            self.all(logits.len());
            self.order.retain(|i| key(i) >= floor);
            let total: f64 = self.order.iter().map(|i| f64::from(p(*i as usize))).sum();
            let mut mass = 0.0;
            let (mut from, mut to) = (0, 128);
            // Few tokens hold most of the mass: sort no more of them than it takes.
            while from < self.order.len() {
                to = (8 * to).min(self.order.len());
                let rest = &mut self.order[from..];
                if to - from < rest.len() {
                    rest.select_nth_unstable_by_key(to - from, |i| std::cmp::Reverse(key(i)));
                }
                let sorted = &mut self.order[from..to];
                sorted.sort_unstable_by_key(|i| (std::cmp::Reverse(key(i)), *i));
                for i in sorted {
                    mass += f64::from(p(*i as usize));
                    floor = key(i);
                    if mass >= f64::from(sampling.top_p) * total {
                        from = usize::MAX;
                        break;
                    }
                }
                from = from.max(to);
            }
        }
        best(logits.len(), |i| {
            if ordered_key(logits[i]) >= floor && p(i) >= sampling.min_p {
                (logits[i] - max) * inv_t - exponential(sampling.seed, pos, i as u32).ln()
            } else {
                f32::NEG_INFINITY
            }
        })
    }

    fn all(&mut self, len: usize) {
        self.order.clear();
        self.order.extend(0..len as u32);
    }
}

/// The index of the largest score, the first among equals.
fn best(len: usize, score: impl Fn(usize) -> f32) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for i in 0..len {
        let s = score(i);
        if s > best.0 {
            best = (s, i as u32);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_floats_do() {
        let values = [
            f32::NEG_INFINITY,
            -1e30,
            -2.5,
            -1e-30,
            -0.0,
            0.0,
            1e-30,
            2.5,
            1e30,
            f32::INFINITY,
        ];
        for pair in values.windows(2) {
            assert!(ordered_key(pair[0]) <= ordered_key(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn noise_is_exponentially_distributed() {
        // Mean 1, variance 1, median ln 2; 200,000 draws: standard error of the mean 0.0022.
        let n = 200_000;
        let draws: Vec<f64> = (0..n).map(|i| f64::from(exponential(42, 7, i))).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / f64::from(n);
        let below = draws
            .iter()
            .filter(|d| **d < std::f64::consts::LN_2)
            .count() as f64
            / f64::from(n);
        assert!((mean - 1.0).abs() < 0.01, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.03, "variance {variance}");
        assert!((below - 0.5).abs() < 0.005, "median {below}");
        assert!(draws.iter().all(|d| *d > 0.0 && d.is_finite()));
    }

    #[test]
    fn noise_depends_on_every_input() {
        let base = exponential(1, 2, 3);
        assert_ne!(base, exponential(2, 2, 3));
        assert_ne!(base, exponential(1 << 32 | 1, 2, 3));
        assert_ne!(base, exponential(1, 3, 3));
        assert_ne!(base, exponential(1, 2, 4));
    }

    /// The module's text, word for word: everything sorted.
    fn by_definition(logits: &[f32], sampling: &Sampling, pos: u32) -> u32 {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let inv_t = 1.0 / sampling.temperature;
        let p = |i: usize| ((logits[i] - max) * inv_t).exp();
        let mut kept: Vec<usize> = (0..logits.len()).collect();
        kept.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        if sampling.top_k > 0 && (sampling.top_k as usize) < kept.len() {
            let least = logits[kept[sampling.top_k as usize - 1]];
            kept.retain(|i| logits[*i] >= least);
        }
        let total: f64 = kept.iter().map(|i| f64::from(p(*i))).sum();
        let mut mass = 0.0;
        let mut least = f32::NEG_INFINITY;
        for i in &kept {
            mass += f64::from(p(*i));
            least = logits[*i];
            if sampling.top_p < 1.0 && mass >= f64::from(sampling.top_p) * total {
                break;
            }
        }
        kept.retain(|i| logits[*i] >= least && p(*i) >= sampling.min_p);
        kept.sort_unstable();
        let score =
            |i: usize| (logits[i] - max) * inv_t - exponential(sampling.seed, pos, i as u32).ln();
        best(kept.len(), |i| score(kept[i]))
            .try_into()
            .map(|i: usize| kept[i] as u32)
            .unwrap_or(0)
    }

    #[test]
    fn the_sampler_is_the_definition() {
        let mut sampler = Sampler::default();
        let mut different = std::collections::BTreeSet::new();
        for (len, spread) in [
            (1_usize, 1.0_f32),
            (7, 2.0),
            (500, 8.0),
            (5000, 0.1),
            (5000, 12.0),
        ] {
            for seed in 0..40 {
                let logits: Vec<f32> = (0..len as u32)
                    .map(|i| (exponential(seed, 1, i) * spread * 8.0).round() / 8.0)
                    .collect();
                for (temperature, top_k, top_p, min_p) in [
                    (1.0, 0, 1.0, 0.0),
                    (0.7, 40, 1.0, 0.0),
                    (1.5, 0, 0.9, 0.0),
                    (1.0, 0, 0.999, 0.0),
                    (0.8, 2000, 0.95, 0.02),
                    (1.0, 1, 0.5, 0.0),
                    (1.0, 0, 0.0, 0.0),
                ] {
                    let sampling = Sampling {
                        temperature,
                        top_k,
                        top_p,
                        min_p,
                        seed,
                        ..Sampling::GREEDY
                    };
                    let got = sampler.pick(&logits, &sampling, 3);
                    assert_eq!(
                        got,
                        by_definition(&logits, &sampling, 3),
                        "{len} {sampling:?}"
                    );
                    different.insert(got);
                }
            }
        }
        assert!(different.len() > 100);
    }
}
