//! Embeddings: one vector for a text, from the final norm's output.

use super::super::{Model, RequestId};
use super::{Arrived, Event, Job, JobResult, Progress, SequenceSpec, TextOrIds, other_result};
use crate::error::{Error, Result};
use crate::exec::Want;
use serde::Deserialize;

/// Which positions make an embedding.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Pooling {
    /// The mean over all positions.
    #[default]
    Mean,
    /// The last position, which has seen the whole text.
    Last,
    /// The first position.
    Cls,
}

/// Which texts are embedded, and how.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct EmbedRequest {
    /// The texts; each has the model's prefix (BOS) before it.
    pub texts: Vec<TextOrIds>,
    /// Which positions count.
    #[cfg_attr(test, ts(as = "Option<_>", optional))]
    pub pooling: Pooling,
    /// Divide each vector by its Euclidean length; default: yes.
    pub normalize: Option<bool>,
}

/// A text under way.
struct Text {
    len: u32,
    done: u32,
    /// Sum of the positions that count.
    sum: Vec<f64>,
    count: u32,
}

struct Embedding {
    pooling: Pooling,
    normalize: bool,
    texts: Vec<Text>,
}

impl Job for Embedding {
    fn want(&self, index: u32, pos: u32) -> Want {
        let last = self.texts[index as usize].len - 1;
        match self.pooling {
            Pooling::Last if pos < last => Want::NOTHING,
            _ => Want::HIDDEN,
        }
    }

    fn arrived(&mut self, arrived: Arrived, _: &mut Vec<Event>) -> Result<Progress> {
        let text = &mut self.texts[arrived.index as usize];
        for (_, head) in &arrived.heads {
            text.sum.resize(head.hidden.len(), 0.0);
            for (sum, value) in text.sum.iter_mut().zip(&head.hidden) {
                *sum += f64::from(*value);
            }
            text.count += 1;
        }
        text.done = arrived.first + arrived.rows;
        Ok(if text.done == text.len {
            Progress::Ended
        } else {
            Progress::GoesOn
        })
    }

    fn finish(self: Box<Self>) -> Result<JobResult> {
        let vector = |text: &Text| -> Vec<f32> {
            let mean = text
                .sum
                .iter()
                .map(|sum| sum / f64::from(text.count.max(1)));
            let mean: Vec<f64> = mean.collect();
            let length = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
            let divisor = if self.normalize && length > 0.0 {
                length
            } else {
                1.0
            };
            mean.iter().map(|v| (v / divisor) as f32).collect()
        };
        Ok(JobResult::Embeddings(
            self.texts.iter().map(vector).collect(),
        ))
    }
}

impl Model {
    /// Queues the embedding of texts; [`JobResult::Embeddings`] comes of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for a text without tokens, and for tokens that the
    /// model does not have; [`ErrorKind::ContextOverflow`](crate::error::ErrorKind::ContextOverflow) for a text that exceeds
    /// the context.
    pub fn enqueue_embed(&mut self, request: &EmbedRequest) -> Result<RequestId> {
        let (mut texts, mut specs) = (Vec::new(), Vec::new());
        for (number, text) in request.texts.iter().enumerate() {
            let mut ids = self.ids_of(text, true)?;
            if ids.is_empty() {
                return Err(Error::invalid_input(format!(
                    "text {number} has no tokens to embed"
                )));
            }
            self.check_ids(&ids)?;
            let reusable = match request.pooling {
                Pooling::Last => ids.len() as u32 - 1,
                Pooling::Mean => 0,
                Pooling::Cls => {
                    // The first position does not see those after it.
                    ids.truncate(1);
                    0
                }
            };
            texts.push(Text {
                len: ids.len() as u32,
                done: 0,
                sum: Vec::new(),
                count: 0,
            });
            specs.push(SequenceSpec::given(ids.into(), reusable));
        }
        let job = Box::new(Embedding {
            pooling: request.pooling,
            normalize: request.normalize.unwrap_or(true),
            texts,
        });
        Ok(self.scheduler.enqueue(job, specs))
    }

    /// The embedding of each text, `[E]`; what is queued runs beside it.
    ///
    /// # Errors
    ///
    /// Those of [`Model::enqueue_embed`], and the device's.
    pub async fn embed(&mut self, request: &EmbedRequest) -> Result<Vec<Vec<f32>>> {
        let id = self.enqueue_embed(request)?;
        match self.finish(id, &mut ()).await? {
            JobResult::Embeddings(vectors) => Ok(vectors),
            _ => Err(other_result()),
        }
    }
}
