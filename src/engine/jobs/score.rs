//! Scoring: how likely texts are after a prompt.

use super::super::{Model, RequestId};
use super::{Arrived, Event, Job, JobResult, Progress, SequenceSpec, TextOrIds, other_result};
use crate::error::{Error, Result};
use crate::exec::{Want, WantLogprobs};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// What is scored. The prompt is computed once for all continuations.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ScoreRequest {
    /// What comes before each continuation; a text has the model's prefix (BOS) before it.
    pub prompt: TextOrIds,
    /// What is scored, each by itself; a text is encoded by itself, without a prefix.
    pub continuations: Vec<TextOrIds>,
}

/// The score of a continuation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Score {
    /// Natural logarithm of the probability of all its tokens, after the prompt. 0 for none.
    pub logprob: f64,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Log-probability of each token, given the prompt and those before it.
    pub logprobs: Vec<f32>,
}

/// A sequence's tokens, of which those from `from` on are scored.
struct Scored {
    tokens: Rc<[u32]>,
    from: usize,
    score: Score,
}

struct Scoring {
    sequences: Vec<Scored>,
    /// By sequence that runs, the entry of `sequences`.
    running: Vec<usize>,
}

impl Job for Scoring {
    fn want(&self, index: u32, pos: u32) -> Want {
        let scored = &self.sequences[self.running[index as usize]];
        let next = pos as usize + 1;
        match scored.tokens.get(next) {
            Some(id) if next >= scored.from => Want {
                logprobs: Some(WantLogprobs {
                    top: 0,
                    of: Some(*id),
                }),
                ..Want::NOTHING
            },
            _ => Want::NOTHING,
        }
    }

    fn arrived(&mut self, arrived: Arrived, _: &mut Vec<Event>) -> Result<Progress> {
        let scored = &mut self.sequences[self.running[arrived.index as usize]];
        for (_, head) in arrived.heads {
            let token = head.logprobs.and_then(|logprobs| logprobs.token);
            let token = token.ok_or_else(|| Error::internal("a step gave no log-probability"))?;
            if token.logprob.is_nan() {
                return Err(Error::invalid_file(
                    "the model's logits are not numbers: its weights are broken; get another copy or conversion of it",
                ));
            }
            scored.score.logprob += f64::from(token.logprob);
            scored.score.logprobs.push(token.logprob);
        }
        let left = scored.tokens.len() - scored.from - scored.score.logprobs.len();
        Ok(if left == 0 {
            Progress::Ended
        } else {
            Progress::GoesOn
        })
    }

    fn finish(self: Box<Self>) -> Result<JobResult> {
        let scores = self.sequences.into_iter().map(|scored| scored.score);
        Ok(JobResult::Scores(scores.collect()))
    }
}

impl Model {
    /// Queues the scoring of continuations; [`JobResult::Scores`] comes of it.
    ///
    /// # Errors
    ///
    /// What is wrong with the request: tokens that the model does not have, and texts that exceed the context.
    pub fn enqueue_score(&mut self, request: &ScoreRequest) -> Result<RequestId> {
        let prompt = self.ids_of(&request.prompt, true)?;
        let mut sequences = Vec::new();
        for continuation in &request.continuations {
            let ids = self.ids_of(continuation, false)?;
            sequences.push((prompt.clone(), ids));
        }
        self.enqueue_scored(sequences)
    }

    /// Pairs of what comes before and what is scored. Where nothing comes before, the first token has no score.
    fn enqueue_scored(&mut self, pairs: Vec<(Vec<u32>, Vec<u32>)>) -> Result<RequestId> {
        let (mut sequences, mut running, mut specs) = (Vec::new(), Vec::new(), Vec::new());
        for (mut tokens, ids) in pairs {
            if tokens.is_empty() && !ids.is_empty() {
                return Err(Error::invalid_input(
                    "the prompt is empty and the model has no beginning-of-text token: its first token cannot be scored",
                ));
            }
            let from = tokens.len();
            tokens.extend(&ids);
            self.check_ids(&tokens)?;
            let tokens: Rc<[u32]> = tokens.into();
            if !ids.is_empty() {
                running.push(sequences.len());
                // The last token's row is not needed.
                let run: Rc<[u32]> = tokens[..tokens.len() - 1].into();
                specs.push(SequenceSpec::given(run, from as u32 - 1));
            }
            let score = Score {
                ids,
                ..Score::default()
            };
            sequences.push(Scored {
                tokens,
                from,
                score,
            });
        }
        let job = Box::new(Scoring { sequences, running });
        Ok(self.scheduler.enqueue(job, specs))
    }

    /// Runs [`Model::enqueue_score`] to its end, and with it all that is queued.
    ///
    /// # Errors
    ///
    /// Those of [`Model::enqueue_score`], and the device's.
    pub async fn score(&mut self, request: &ScoreRequest) -> Result<Vec<Score>> {
        let id = self.enqueue_score(request)?;
        self.scores(id).await
    }

    async fn scores(&mut self, id: RequestId) -> Result<Vec<Score>> {
        match self.finish(id, &mut ()).await? {
            JobResult::Scores(scores) => Ok(scores),
            _ => Err(other_result()),
        }
    }

    /// Log-probability of each token given those before it; the first has none.
    ///
    /// # Errors
    ///
    /// Those of [`Model::score`].
    pub async fn score_ids(&mut self, ids: &[u32]) -> Result<Vec<Option<f64>>> {
        let Some((first, rest)) = ids.split_first() else {
            return Err(Error::invalid_input("no tokens to score"));
        };
        let id = self.enqueue_scored(vec![(vec![*first], rest.to_vec())])?;
        let scores = self.scores(id).await?;
        let logprobs = scores.into_iter().flat_map(|score| score.logprobs);
        Ok(std::iter::once(None)
            .chain(logprobs.map(|logprob| Some(f64::from(logprob))))
            .collect())
    }

    /// `exp` of the mean of `-ln p(token | all before)` over `ids[1..]`, in contexts of at most `window` tokens, of which the
    /// first is not scored. Returns the perplexity and the tokens scored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for fewer than two tokens, and those of [`Model::score`].
    pub async fn perplexity(&mut self, ids: &[u32], window: u32) -> Result<(f64, usize)> {
        if window < 2 {
            return Err(Error::invalid_input(
                "perplexity needs a context of at least 2 tokens",
            ));
        }
        let window = window.min(self.context()) as usize;
        let (mut sum, mut count) = (0.0, 0);
        for part in ids.chunks(window).filter(|part| part.len() > 1) {
            let pair = (vec![part[0]], part[1..].to_vec());
            let id = self.enqueue_scored(vec![pair])?;
            for score in self.scores(id).await? {
                sum -= score.logprob;
                count += score.logprobs.len();
            }
        }
        if count == 0 {
            return Err(Error::invalid_input("perplexity needs at least two tokens"));
        }
        Ok((f64::exp(sum / count as f64), count))
    }
}
