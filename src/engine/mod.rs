//! Sequences, prefill, decoding, stop rules: from a prompt to a stream of [`Event`]s, over any executor.
//!
//! The engine assigns cache pages, cuts prompts into steps, runs any number of requests together, keeps steps in
//! flight, and decides when a sequence ends. It knows no device and no file format beyond a checkpoint to load from.

mod capture;
mod generate;
mod open;
mod pages;
mod prefix;
mod recommended;
mod request;
mod scheduler;
mod text;

pub use capture::Captured;
pub use generate::{Event, Generation, Host, Sequence, Timings, Update, Usage};
pub use recommended::GenerationConfig;
pub use request::{Options, Request, Stop};
pub use scheduler::RequestId;

use crate::error::{Error, ErrorKind, Result, Warnings};
use crate::exec::{Executor, Output, Step, Want};
use crate::format::{Checkpoint, FileFormat};
use crate::model::{Config, LoadProgress, ModelPlan, load_weights, plan, quantize_type};
use crate::plan::{Plan, Row};
use crate::tokenizer::{ChatTemplate, DateTime, HfFiles, TemplateInput, Tokenizer};
use scheduler::Scheduler;
use web_time::SystemTime;

/// Context allocated when the caller names none: the model's own, but no more than this.
pub const DEFAULT_MAX_CONTEXT: u32 = 4096;

/// A model's file, opened and understood, its weights not yet loaded.
pub struct Opened {
    /// The open file or files.
    pub checkpoint: Checkpoint,
    /// Hyperparameters.
    pub config: Config,
    /// What to run.
    pub model: ModelPlan,
    /// Vocabulary, merges, chat template; `None` where the model's files hold none.
    pub tokenizer: Option<Tokenizer>,
    /// What its files recommend for sampling.
    pub generation_config: GenerationConfig,
    /// What was wrong with the files and was left out.
    pub warnings: Warnings,
}

impl Opened {
    /// Reads config and vocabulary, and checks every weight's shape. `files`: what lies beside safetensors (a GGUF
    /// holds its vocabulary itself); `quantize`: see [`quantize_type`].
    ///
    /// # Errors
    ///
    /// Those of [`quantize_type`], [`Config::read`], [`plan`], [`Tokenizer::from_gguf`] and [`Tokenizer::open_hf`].
    pub async fn new(
        checkpoint: Checkpoint,
        files: HfFiles<'_>,
        quantize: Option<&str>,
    ) -> Result<Opened> {
        let quantize = quantize.map(quantize_type).transpose()?;
        // Names the file at fault.
        let weights = checkpoint.name();
        let in_weights = |error: Error| at_fault(error, &weights);
        let config =
            Config::read(&checkpoint)
                .await
                .map_err(|error| match checkpoint.format() {
                    FileFormat::Gguf => in_weights(error),
                    FileFormat::Safetensors => at_fault(error, "config.json"),
                })?;
        let model = plan(&config, &checkpoint, quantize).map_err(in_weights)?;
        let tokenizer = match checkpoint.format() {
            FileFormat::Gguf if !checkpoint.metadata().contains("tokenizer.ggml.model") => None,
            FileFormat::Gguf => {
                Some(Tokenizer::from_gguf(checkpoint.metadata()).map_err(in_weights)?)
            }
            FileFormat::Safetensors if files.tokenizer_json.or(files.tokenizer_model).is_none() => {
                None
            }
            FileFormat::Safetensors => Some(Tokenizer::open_hf(files).await?),
        };
        // Transformers lets a vocabulary have more tokens than the table has rows; llama.cpp does not.
        if let Some(tokenizer) = &tokenizer
            && checkpoint.format() == FileFormat::Gguf
            && tokenizer.vocab_size() > config.vocab_size as usize
        {
            return Err(in_weights(Error::invalid_file(format!(
                "the vocabulary has {} tokens and the embedding table {} rows",
                tokenizer.vocab_size(),
                config.vocab_size
            ))));
        }
        let generation_config = match files.generation_config {
            Some(bytes) => GenerationConfig::from_json(bytes),
            None => GenerationConfig::from_gguf(checkpoint.metadata()),
        };
        let mut warnings = checkpoint.warnings().clone();
        if let Some(tokenizer) = &tokenizer {
            let found = tokenizer.warnings().clone();
            warnings.append(match checkpoint.format() {
                FileFormat::Gguf => found.at(&weights),
                FileFormat::Safetensors => found,
            });
        }
        Ok(Opened {
            checkpoint,
            config,
            model,
            tokenizer,
            generation_config,
            warnings,
        })
    }

    /// The context to allocate, from what the caller asked for.
    pub fn context(&self, asked: Option<u32>) -> Result<u32> {
        let most = self.config.max_position_embeddings;
        match asked {
            None => Ok(most.min(DEFAULT_MAX_CONTEXT)),
            Some(0) => Err(Error::invalid_input("max_context must be at least 1")),
            Some(n) if n > most => Err(Error::invalid_input(format!(
                "max_context is {n}; this model was made for at most {most} positions"
            ))),
            Some(n) => Ok(n),
        }
    }
}

/// The error with the file's name, and with what to do about a broken file.
fn at_fault(error: Error, file: &str) -> Error {
    let broken = error.kind() == ErrorKind::InvalidFile;
    let error = error.at(file);
    if broken {
        error.advise("get another copy or conversion of this model")
    } else {
        error
    }
}

/// What a tokenizer may be asked to encode.
enum Prompt<'a> {
    Text { text: &'a str, add_special: bool },
    Ids(&'a [u32]),
    Chat(Chat<'a>),
}

/// A conversation, and how the model's chat template is to write it out.
#[derive(Clone, Copy, Debug)]
pub struct Chat<'a> {
    /// An array of `{"role", "content", …}`.
    pub messages: &'a serde_json::Value,
    /// Tools as JSON schemas.
    pub tools: Option<&'a serde_json::Value>,
    /// Variables of the template's own (`enable_thinking`), an object. They replace special tokens, `documents`,
    /// `add_generation_prompt` and, where `tools` is `None`, the tools.
    pub kwargs: Option<&'a serde_json::Map<String, serde_json::Value>>,
    /// The name of one of the model's templates, or a template's text.
    pub template: Option<&'a str>,
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The time that a template sees; `None`: now, in UTC.
    pub now: Option<DateTime>,
}

/// A loaded model, ready to generate.
pub struct Engine {
    config: Config,
    plan: Plan,
    tokenizer: Option<Tokenizer>,
    executor: Box<dyn Executor>,
    context: u32,
    scheduler: Scheduler,
    file_bytes: u64,
    /// Queries and keys lie in halves in the file.
    halves: bool,
    generation_config: GenerationConfig,
    warnings: Warnings,
}

impl Engine {
    /// Loads the weights of an opened model into an executor made for its plan, with room for `context` positions.
    pub async fn load(
        opened: Opened,
        mut executor: Box<dyn Executor>,
        context: u32,
        progress: impl FnMut(LoadProgress) -> Result<()>,
    ) -> Result<Engine> {
        load_weights(
            &opened.model,
            &opened.checkpoint,
            executor.as_mut(),
            progress,
        )
        .await?;
        executor.ready().await?;
        let limits = executor.limits();
        Ok(Engine {
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
    /// [`ErrorKind::InvalidInput`] where the model's files hold none.
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

    fn encode(&self, prompt: &Prompt<'_>) -> Result<Vec<u32>> {
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

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
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

/// The conversation as the model's chat template renders it.
///
/// # Errors
///
/// [`ErrorKind::Template`] for a model without one and for faults of the template; [`ErrorKind::InvalidInput`] for a
/// template's name that is not there, and for variables that are arguments of their own.
pub fn apply_chat_template(tokenizer: &Tokenizer, chat: &Chat<'_>) -> Result<String> {
    let own = tokenizer.chat_template();
    let template = match (chat.template, own) {
        (Some(name), Some(own)) => Some(own.select(name)?),
        (Some(text), None) => {
            let token = |id: Option<u32>| {
                id.and_then(|id| tokenizer.token_text(id))
                    .unwrap_or_default()
            };
            Some(ChatTemplate::new(
                text,
                token(tokenizer.bos()),
                token(tokenizer.eos()),
            )?)
        }
        (None, _) => None,
    };
    let template = template.as_ref().or(own).ok_or_else(|| {
        Error::new(
            ErrorKind::Template,
            "this model has no chat template; give it a plain prompt instead, or a template of your own",
        )
    })?;
    render_chat(template, chat)
}

/// The conversation as a template renders it; `chat.template` is left aside.
///
/// # Errors
///
/// As [`apply_chat_template`].
pub fn render_chat(template: &ChatTemplate, chat: &Chat<'_>) -> Result<String> {
    let own = [
        "messages",
        "chat_template",
        "tokenize",
        "continue_final_message",
    ];
    if let Some(name) = own
        .into_iter()
        .find(|name| chat.kwargs.is_some_and(|kwargs| kwargs.contains_key(*name)))
    {
        return Err(Error::invalid_input(format!(
            "chat_template_kwargs may not hold {name:?}: these are variables of the template's own, such as enable_thinking"
        )));
    }
    let given = chat
        .kwargs
        .and_then(|kwargs| kwargs.get("tools"))
        .filter(|tools| !tools.is_null());
    if chat.tools.is_some() && given.is_some() {
        return Err(Error::invalid_input(
            "tools are given twice: as tools and in chat_template_kwargs",
        ));
    }
    template.render(&TemplateInput {
        messages: chat.messages,
        tools: chat.tools.or(given),
        add_generation_prompt: chat.add_generation_prompt,
        now: Some(chat.now.unwrap_or_else(utc_now)),
        extra: chat.kwargs,
    })
}

/// What a clock shows in UTC.
fn utc_now() -> DateTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    DateTime::from_unix(since.map_or(0, |since| since.as_secs() as i64), 0)
}

/// The error for a prompt of `tokens` that leaves no room in `context`.
fn overflow(tokens: usize, context: u32, model: u32) -> Error {
    let advice = if context < model {
        format!(
            "shorten it, or load the model with a larger max_context (this model goes up to {model})"
        )
    } else {
        "shorten it: this is as far as the model goes".to_owned()
    };
    Error::new(
        ErrorKind::ContextOverflow,
        format!("the prompt has {tokens} tokens and the context {context} positions; {advice}"),
    )
}

/// `ln softmax(logits)[target]`
fn log_softmax(logits: &[f32], target: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - max).exp()).sum();
    f64::from(logits[target] - max) - total.ln()
}
