//! A loaded model.

use super::jobs::capture::FileOrder;
use super::scheduler::Scheduler;
use super::{
    Chat, GenerationConfig, Host, JobResult, Opened, RequestId, TextOrIds, Update,
    apply_chat_template, overflow,
};
use crate::error::{Error, Result, Warnings};
use crate::exec::gpu::Gpu;
use crate::exec::{Executor, Output, Pending};
use crate::model::{Config, LoadProgress, load_weights};
use crate::plan::Plan;
use crate::tokenizer::Tokenizer;
use std::fmt;

/// A prompt before it is encoded.
pub(super) enum Prompt<'a> {
    Text { text: &'a str, add_special: bool },
    Ids(&'a [u32]),
    Chat(Chat<'a>),
}

/// A loaded model, ready to generate.
pub struct Model {
    pub(super) config: Config,
    pub(super) plan: Plan,
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) executor: Box<dyn Executor>,
    pub(super) context: u32,
    pub(super) scheduler: Scheduler,
    pub(super) file_bytes: u64,
    pub(super) file_order: FileOrder,
    pub(super) generation_config: GenerationConfig,
    pub(super) warnings: Warnings,
    /// Where the executor runs on one.
    pub(super) gpu: Option<Gpu>,
    pub(super) fallback_reason: Option<Error>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("config", &self.config)
            .field("context", &self.context)
            .field("executor", &self.executor.info())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Loads the weights of an opened model into an executor made for its plan, with room for `context` positions.
    ///
    /// # Errors
    ///
    /// Those of the checkpoint's reads, of the executor, and of `progress`.
    pub async fn with_executor(
        opened: Opened,
        mut executor: Box<dyn Executor>,
        context: u32,
        progress: impl FnMut(LoadProgress) -> Result<()>,
    ) -> Result<Self> {
        load_weights(
            &opened.model,
            &opened.checkpoint,
            executor.as_mut(),
            progress,
        )
        .await?;
        executor.ready().await?;
        let limits = executor.limits();
        Ok(Self {
            file_bytes: opened.checkpoint.total_bytes(),
            file_order: FileOrder::new(
                &opened.model,
                opened.config.head_dim,
                opened.config.rope_dim,
            ),
            generation_config: opened.generation_config,
            warnings: opened.warnings,
            config: opened.config,
            plan: opened.model.plan,
            scheduler: Scheduler::new(limits),
            tokenizer: opened.tokenizer,
            executor,
            context,
            gpu: None,
            fallback_reason: None,
        })
    }

    /// Hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The plan that the executor runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Vocabulary and chat template.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) where the model's files hold none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::invalid_input(
                "this model came without a tokenizer, so that it knows token ids only; add its tokenizer.json (or \
                 tokenizer.model) to its files",
            )
        })
    }

    /// The executor that runs this model's plan.
    pub fn executor(&self) -> &dyn Executor {
        self.executor.as_ref()
    }

    /// Positions that a sequence may use.
    pub fn context(&self) -> u32 {
        self.context
    }

    /// What was wrong with the model's files and was left out.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// Bytes of the model's files.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// What the model's files recommend for sampling. Requests do not take it by themselves: they are greedy unless asked.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation_config
    }

    /// The GPU that runs the model, if one does.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// Why the GPU does not run the model, where [`Device::Auto`](super::Device::Auto) left that open.
    pub fn fallback_reason(&self) -> Option<&Error> {
        self.fallback_reason.as_ref()
    }

    /// Ends a request: a generation is done with what it has, the finish reason of sequences that had not ended being
    /// `aborted`; others end with [`ErrorKind::Aborted`](crate::error::ErrorKind::Aborted). What it computed stays in the cache; the
    /// others go on. Its last update is there at once.
    pub fn cancel(&mut self, id: RequestId) {
        self.scheduler.cancel(id);
    }

    /// What happened since the last call, in order.
    pub fn updates(&mut self) -> Vec<(RequestId, Update)> {
        self.scheduler.take_updates(None)
    }

    /// Runs all requests on by one step. False if nothing is left to run; there may be updates all the same.
    pub async fn step(&mut self) -> bool {
        let Some(pending) = self.advance() else {
            return false;
        };
        let output = pending.await;
        self.arrived(output);
        true
    }

    /// Runs a request to its end, and with it all that is queued. A host that cancels gets what the request has by then.
    ///
    /// # Errors
    ///
    /// The request's, the host's, and the device's.
    pub async fn finish(&mut self, id: RequestId, host: &mut dyn Host) -> Result<JobResult> {
        let mut cancelled = false;
        loop {
            let goes_on = cancelled || self.step().await;
            for (_, update) in self.scheduler.take_updates(Some(id)) {
                match update {
                    Update::Done(result) => return result,
                    Update::Event(event) => {
                        if let Err(error) = host.event(event) {
                            self.cancel(id);
                            self.scheduler.take_updates(Some(id));
                            return Err(error);
                        }
                    }
                }
            }
            if !goes_on {
                return Err(Error::internal("a request was not answered"));
            }
            if host.cancelled() {
                self.cancel(id);
                // Its answer is there already: no step is made for it.
                cancelled = true;
            }
        }
    }

    /// The first half of [`Model::step`], for callers that cannot lend the model while they wait: submits what can be
    /// submitted. What the step gives is due at [`Model::arrived`] before the next call.
    pub fn advance(&mut self) -> Option<Pending> {
        self.scheduler.advance(self.executor.as_mut())
    }

    /// The second half of [`Model::step`].
    pub fn arrived(&mut self, output: Result<Output>) {
        self.scheduler.arrived(output);
    }

    /// Token ids of a text; `add_special`: with the model's prefix (BOS).
    pub(super) fn ids_of(&self, text: &TextOrIds, add_special: bool) -> Result<Vec<u32>> {
        self.encode(&match text {
            TextOrIds::Text(text) => Prompt::Text { text, add_special },
            TextOrIds::Ids(ids) => Prompt::Ids(ids),
        })
    }

    pub(super) fn encode(&self, prompt: &Prompt<'_>) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Text { text, add_special } => {
                self.tokenizer()?.encode_prompt(text, *add_special)
            }
            Prompt::Ids(ids) => Ok(ids.to_vec()),
            Prompt::Chat(chat) => {
                let text = apply_chat_template(self.tokenizer()?, chat)?;
                self.tokenizer()?.encode_chat(&text)
            }
        }
    }

    pub(super) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        if let Some(id) = ids.iter().find(|id| **id >= self.plan.vocab_size) {
            return Err(Error::invalid_input(format!(
                "token id {id} is not below the vocabulary size {}",
                self.plan.vocab_size
            )));
        }
        if ids.len() > self.context as usize {
            return Err(overflow(
                ids.len(),
                self.context,
                self.config.max_position_embeddings,
            ));
        }
        Ok(())
    }
}
