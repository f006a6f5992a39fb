//! A loaded model.

use super::capture;
use super::scheduler::Scheduler;
use super::{Chat, GenerationConfig, Opened, apply_chat_template, log_softmax, overflow};
use crate::error::{Error, Result, Warnings};
use crate::exec::gpu::Gpu;
use crate::exec::{Executor, Output, Step, Want};
use crate::model::{Config, LoadProgress, load_weights};
use crate::plan::{Plan, Row};
use crate::tokenizer::Tokenizer;

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
    /// Queries and keys lie in halves in the file.
    pub(super) halves: bool,
    pub(super) generation_config: GenerationConfig,
    pub(super) warnings: Warnings,
    /// Where the executor runs on one.
    pub(super) gpu: Option<Gpu>,
    pub(super) fallback_reason: Option<Error>,
}

impl Model {
    /// Loads the weights of an opened model into an executor made for its plan, with room for `context` positions.
    pub async fn with_executor(
        opened: Opened,
        mut executor: Box<dyn Executor>,
        context: u32,
        progress: impl FnMut(LoadProgress) -> Result<()>,
    ) -> Result<Model> {
        load_weights(
            &opened.model,
            &opened.checkpoint,
            executor.as_mut(),
            progress,
        )
        .await?;
        executor.ready().await?;
        let limits = executor.limits();
        Ok(Model {
            file_bytes: opened.checkpoint.total_bytes(),
            halves: capture::rope_halves(&opened.model),
            generation_config: opened.generation_config,
            warnings: opened.warnings,
            config: opened.config,
            plan: opened.model.plan,
            scheduler: Scheduler::new(limits, opened.tokenizer.clone()),
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

    /// Logits of every position, `[ids, V]`, one call of `rows` per step with the first row's index. For this the
    /// engine must have no requests to run.
    pub async fn logits(
        &mut self,
        ids: &[u32],
        mut rows: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.check_ids(ids)?;
        if ids.is_empty() {
            return Err(Error::invalid_input("no tokens to compute logits of"));
        }
        if ids.len() > self.context as usize {
            return Err(overflow(
                ids.len(),
                self.context,
                self.config.max_position_embeddings,
            ));
        }
        if self.scheduler.is_busy() {
            return Err(Error::invalid_input(
                "this model is generating: await or cancel its requests before",
            ));
        }
        let pages = self.scheduler.lend(ids.len() as u32)?;
        let result = self.logits_with(ids, &pages, &mut rows).await;
        self.scheduler.give_back(&pages);
        result
    }

    async fn logits_with(
        &mut self,
        ids: &[u32],
        pages: &[u32],
        rows: &mut impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.executor.set_pages(0, pages)?;
        let limits = self.executor.limits();
        let step = limits.max_rows.min(limits.max_heads) as usize;
        for (chunk, tokens) in ids.chunks(step).enumerate() {
            let batch: Vec<Row> = tokens
                .iter()
                .enumerate()
                .map(|(i, token)| Row {
                    token: *token,
                    seq: 0,
                    pos: (chunk * step + i) as u32,
                })
                .collect();
            let heads: Vec<u32> = (0..tokens.len() as u32).collect();
            let pending = self.executor.submit(Step::Rows {
                rows: &batch,
                heads: &heads,
                want: Want::Logits,
            })?;
            match pending.await? {
                Output::Logits(values) => rows(chunk * step, &values)?,
                other => return Err(Error::internal(format!("asked for logits, got {other:?}"))),
            }
        }
        Ok(())
    }

    /// `exp` of the mean of `-ln p(token | all before)` over `ids[1..]`, in one context of at most `window` tokens.
    /// Returns the perplexity and the tokens scored.
    pub async fn perplexity(&mut self, ids: &[u32], window: u32) -> Result<(f64, usize)> {
        if window < 2 {
            return Err(Error::invalid_input(
                "perplexity needs a context of at least 2 tokens",
            ));
        }
        let window = window.min(self.context) as usize;
        let vocab = self.plan.vocab_size as usize;
        let (mut sum, mut count) = (0.0, 0);
        for part in ids.chunks(window) {
            if part.len() < 2 {
                continue;
            }
            self.logits(part, |first, values| {
                for (i, logits) in values.chunks_exact(vocab).enumerate() {
                    if let Some(target) = part.get(first + i + 1) {
                        sum -= log_softmax(logits, *target as usize);
                        count += 1;
                    }
                }
                Ok(())
            })
            .await?;
        }
        if count == 0 {
            return Err(Error::invalid_input("perplexity needs at least two tokens"));
        }
        Ok((f64::exp(sum / count as f64), count))
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
