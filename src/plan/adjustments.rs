//! What changes logits before a token is drawn from them: biases, penalties for tokens that the sequence holds, and a
//! mask of the tokens that may be drawn at all.

use super::Sampling;
use crate::error::{Error, Result};

/// Penalties for tokens that a sequence holds already.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Penalties {
    /// Positive logits of tokens in the prompt or the output are divided by this, negative ones multiplied (CTRL,
    /// Keskar et al. 2019, section 4.1; `repetition_penalty` of Transformers). 1: none.
    pub repetition: f32,
    /// Taken from the logit of every token in the output, once. 0: none.
    pub presence: f32,
    /// Taken from the logit of a token in the output, as often as it is there. 0: none.
    pub frequency: f32,
}

impl Penalties {
    /// No penalty.
    pub const NONE: Self = Self {
        repetition: 1.0,
        presence: 0.0,
        frequency: 0.0,
    };
}

/// Which tokens may be drawn: a bit for each, token `i` in bit `i % 32` of word `i / 32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
    vocab: u32,
}

impl TokenMask {
    /// Every token, or none, of a vocabulary of `vocab`.
    pub fn new(vocab: u32, allowed: bool) -> Self {
        let mut mask = Self {
            words: vec![0; vocab.div_ceil(32) as usize],
            vocab,
        };
        if allowed {
            (0..vocab).for_each(|id| mask.set(id, true));
        }
        mask
    }

    /// Allows or forbids a token; one beyond the vocabulary is none.
    pub fn set(&mut self, id: u32, allowed: bool) {
        if id >= self.vocab {
            return;
        }
        let word = &mut self.words[id as usize / 32];
        *word = if allowed {
            *word | 1 << (id % 32)
        } else {
            *word & !(1 << (id % 32))
        };
    }

    /// Whether a token may be drawn.
    pub fn allows(&self, id: u32) -> bool {
        self.words
            .get(id as usize / 32)
            .is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// How many tokens may be drawn.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The bits, `[ceil(V / 32)]`.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

/// What a sequence holds when its sampling is set: what penalties count.
#[derive(Copy, Clone, Debug, Default)]
pub struct History<'a> {
    /// Tokens of the prompt.
    pub prompt: &'a [u32],
    /// Tokens drawn since.
    pub generated: &'a [u32],
}

/// How often a sequence holds each token, `[V]`: in the low bits how often it was drawn, and [`TokenCounts::PROMPT`]
/// where the prompt has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts(Vec<u32>);

impl TokenCounts {
    /// The bit that tells of the prompt.
    pub const PROMPT: u32 = 1 << 31;

    /// The counts of what a sequence holds; tokens beyond the vocabulary of `vocab` are an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a token beyond the vocabulary.
    pub fn new(vocab: u32, history: History<'_>) -> Result<Self> {
        let mut counts = Self(vec![0; vocab as usize]);
        let beyond = |id: &u32| Error::internal(format!("token {id} of {vocab} in a history"));
        for id in history.prompt {
            *counts.0.get_mut(*id as usize).ok_or_else(|| beyond(id))? |= Self::PROMPT;
        }
        for id in history.generated {
            *counts.0.get_mut(*id as usize).ok_or_else(|| beyond(id))? += 1;
        }
        Ok(counts)
    }

    /// The words, `[V]`.
    pub fn words(&self) -> &[u32] {
        &self.0
    }
}

/// The settings of a sequence and what they need to know of it, for executors that sample on the processor.
#[derive(Clone, Debug)]
pub struct SequenceSampling {
    pub(super) settings: Sampling,
    counts: Option<TokenCounts>,
}

impl SequenceSampling {
    /// For a sequence that holds `history`, over a vocabulary of `vocab`.
    ///
    /// # Errors
    ///
    /// With penalties, those of [`TokenCounts::new`].
    pub fn new(settings: &Sampling, vocab: u32, history: History<'_>) -> Result<Self> {
        let counts = settings
            .penalises()
            .then(|| TokenCounts::new(vocab, history))
            .transpose()?;
        Ok(Self {
            settings: settings.clone(),
            counts,
        })
    }

    /// Greedy.
    pub fn greedy() -> Self {
        Self {
            settings: Sampling::GREEDY,
            counts: None,
        }
    }

    /// Changes which tokens may be drawn; false where the settings have no mask.
    pub fn set_mask(&mut self, mask: &TokenMask) -> bool {
        if let Some(own) = &mut self.settings.mask {
            *own = std::rc::Rc::new(mask.clone());
            return true;
        }
        false
    }

    /// Counts a token that was drawn.
    pub(super) fn count(&mut self, token: u32) {
        if let Some(count) = self
            .counts
            .as_mut()
            .and_then(|counts| counts.0.get_mut(token as usize))
        {
            *count += 1;
        }
    }

    /// Adjusts logits `[V]` as [`Sampling`] says. A token that may not be drawn gets minus infinity.
    pub(super) fn adjust(&self, logits: &mut [f32]) {
        let Sampling {
            penalties,
            bias,
            mask,
            ..
        } = &self.settings;
        for (id, bias) in bias.iter().flat_map(|bias| bias.iter()) {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if let Some(counts) = &self.counts {
            // The inverse, as on a GPU, where a quotient need not be the nearest number.
            let inverse = 1.0 / penalties.repetition;
            for (logit, count) in logits
                .iter_mut()
                .zip(&counts.0)
                .filter(|(_, count)| **count != 0)
            {
                *logit *= if *logit > 0.0 {
                    inverse
                } else {
                    penalties.repetition
                };
                let drawn = count & !TokenCounts::PROMPT;
                if drawn > 0 {
                    *logit -= penalties.frequency * drawn as f32 + penalties.presence;
                }
            }
        }
        if let Some(mask) = mask {
            for (id, logit) in logits.iter_mut().enumerate() {
                if !mask.allows(id as u32) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_mask_keeps_to_its_vocabulary() {
        let mut mask = TokenMask::new(33, true);
        assert_eq!((mask.count(), mask.words()), (33, &[u32::MAX, 1][..]));
        mask.set(32, false);
        mask.set(33, true);
        assert_eq!(
            (
                mask.count(),
                mask.allows(32),
                mask.allows(33),
                mask.allows(0)
            ),
            (32, false, false, true)
        );
        assert_eq!(TokenMask::new(40, false).count(), 0);
    }

    /// Worked by hand: repetition 2 over prompt and output, frequency 0.5 and presence 0.25 over the output.
    #[test]
    fn adjustments_are_applied_in_their_order() {
        let mut mask = TokenMask::new(6, true);
        mask.set(5, false);
        let settings = Sampling {
            penalties: Penalties {
                repetition: 2.0,
                presence: 0.25,
                frequency: 0.5,
            },
            bias: Some(Rc::new([(0, 1.0), (4, -3.0)])),
            mask: Some(Rc::new(mask)),
            ..Sampling::GREEDY
        };
        let history = History {
            prompt: &[0, 1],
            generated: &[2, 4, 2],
        };
        let sequence = SequenceSampling::new(&settings, 6, history).expect("in the vocabulary");
        let mut logits = [3.0, -1.0, 4.0, 5.0, 1.0, 9.0];
        sequence.adjust(&mut logits);
        // (3 + 1) / 2; -1 * 2; 4 / 2 - 2 * 0.5 - 0.25; untouched; (1 - 3) * 2 - 0.5 - 0.25; forbidden.
        assert_eq!(logits, [2.0, -2.0, 0.75, 5.0, -4.75, f32::NEG_INFINITY]);
        assert!(
            SequenceSampling::new(
                &settings,
                6,
                History {
                    prompt: &[6],
                    generated: &[]
                }
            )
            .is_err()
        );
    }
}
