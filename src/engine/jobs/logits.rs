//! Logits of every position of a text.

use super::super::{Host, Model, RequestId};
use super::{Arrived, Event, Job, JobResult, Progress, SequenceSpec, TextOrIds};
use crate::error::{Error, Result};
use crate::exec::Want;

struct Logits {
    /// Given tokens.
    len: u32,
    /// Positions that were told.
    done: u32,
}

impl Job for Logits {
    fn want(&self, _: u32, _: u32) -> Want {
        Want::LOGITS
    }

    fn arrived(&mut self, arrived: Arrived, events: &mut Vec<Event>) -> Result<Progress> {
        let mut values = Vec::new();
        for (_, head) in &arrived.heads {
            values.extend_from_slice(&head.logits);
        }
        events.push(Event::Logits {
            first: arrived.first,
            values,
        });
        self.done += arrived.rows;
        Ok(if self.done == self.len {
            Progress::Ended
        } else {
            Progress::GoesOn
        })
    }

    fn finish(self: Box<Self>) -> Result<JobResult> {
        Ok(JobResult::Logits(self.done))
    }
}

impl Model {
    /// Queues the logits of every position of a text or of ids. [`Event::Logits`] tells them as they come, in order of their
    /// positions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for no tokens, and for those that the model does not
    /// have; [`ErrorKind::ContextOverflow`](crate::error::ErrorKind::ContextOverflow) for more than the context holds.
    pub fn enqueue_logits(&mut self, text: &TextOrIds) -> Result<RequestId> {
        let ids = self.ids_of(text, true)?;
        if ids.is_empty() {
            return Err(Error::invalid_input("no tokens to compute logits of"));
        }
        self.check_ids(&ids)?;
        let job = Box::new(Logits {
            len: ids.len() as u32,
            done: 0,
        });
        let spec = SequenceSpec::given(ids.into(), 0);
        Ok(self.scheduler.enqueue(job, vec![spec]))
    }

    /// Logits of every position, `[ids, V]`: a call of `rows` per step, with the first position and `[positions, V]`. What is
    /// queued runs beside it.
    ///
    /// # Errors
    ///
    /// Those of [`Model::enqueue_logits`], of `rows` and of the device.
    pub async fn logits(
        &mut self,
        ids: &[u32],
        rows: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        struct Rows<F>(F);
        impl<F: FnMut(usize, &[f32]) -> Result<()>> Host for Rows<F> {
            fn event(&mut self, event: Event) -> Result<()> {
                match event {
                    Event::Logits { first, values } => (self.0)(first as usize, &values),
                    _ => Ok(()),
                }
            }
        }
        let id = self.enqueue_logits(&TextOrIds::Ids(ids.to_vec()))?;
        self.finish(id, &mut Rows(rows)).await.map(drop)
    }
}
