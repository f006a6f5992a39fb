//! The arguments: the list of commands, and the groups of options that several commands share.

use crate::commands::{
    bench, capture, detokenize, generate, inspect, logits, make, perplexity, requantize, score,
    template, tokenize,
};
use crate::files::from_json;
use crate::output::invalid;
use clap::{Args, Parser, Subcommand, ValueEnum};
use llamero::error::Result;
use llamero::tokenizer::DateTime;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    name = "llamero",
    version,
    about = "LLaMA on WebGPU, natively: inspect, tokenize, generate, measure"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Architecture, config, tensors by type, bytes, parameters.
    Inspect(inspect::Args),
    /// Text to token ids.
    Tokenize(tokenize::Args),
    /// Token ids to text.
    Detokenize(detokenize::Args),
    /// A conversation as the chat template renders it.
    Template(template::Args),
    /// Logits of every position, float32 [tokens, vocab].
    Logits(logits::Args),
    /// Log-probability of each token given those before it.
    Score(score::Args),
    /// Inner values over a text, float32, into a file of safetensors. Caches are f32 unless --kv-cache-type says otherwise.
    Capture(capture::Args),
    /// Text from a prompt, ids, or a conversation.
    Generate(Box<generate::Args>),
    /// exp of the mean negative log-likelihood of a text's tokens.
    Perplexity(perplexity::Args),
    /// Speed of prefill and decode, as JSON lines; the output is checked against the reference first.
    Bench(bench::Args),
    /// Writes a model with random weights, for tests and benches.
    Make(make::Args),
    /// Writes a GGUF's matrices in another weight type, to measure speed: it rounds once more, and keeps less quality
    /// than a conversion tool.
    Requantize(requantize::Args),
}

#[derive(Copy, Clone, Debug, PartialEq, ValueEnum)]
pub(crate) enum Backend {
    /// The GPU, or the CPU where there is none, or only a software one.
    Auto,
    Gpu,
    Cpu,
    Reference,
}

#[derive(Clone, Args)]
pub(crate) struct Device {
    /// What runs the model.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) backend: Backend,
    /// Threads on the CPU (default: one per core).
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Positions to make room for (default: the model's own, at most 4096).
    #[arg(long)]
    pub(crate) max_context: Option<u32>,
    /// How keys and values are stored: f16 (default), f32 or, on the GPU, `q8_0`.
    #[arg(long)]
    pub(crate) kv_cache_type: Option<String>,
    /// Leave subgroup kernels out.
    #[arg(long)]
    pub(crate) no_subgroups: bool,
    /// Use integer dot products (true) or not (false); default: as the adapter's vendor suggests.
    #[arg(long)]
    pub int8: Option<bool>,
    /// Use f16 in matrix products of prompts, where the adapter has it.
    #[arg(long)]
    pub f16: Option<bool>,
    /// Use kernels for several rows at a time, and split attention.
    #[arg(long)]
    pub(crate) columns: Option<bool>,
    /// Lanes that share a row of a matrix while decoding: 4, 8, 16, 32 or 64; default: by its size.
    #[arg(long)]
    pub(crate) lanes: Option<u32>,
    /// Measure at load which kernels the GPU runs fastest (some seconds).
    #[arg(long)]
    pub(crate) tune: bool,
    /// Time each kernel (slower throughout); `bench` prints the times.
    #[arg(long)]
    pub(crate) profile: bool,
    /// Quantise F32, F16 and BF16 matrices to this type while loading (`q8_0`, `q4_0`, `q4_1`, `q5_0`, `q5_1`).
    #[arg(long)]
    pub(crate) quantize: Option<String>,
}

impl Device {
    /// With caches that round nothing, unless others are asked for.
    pub(crate) fn exact(mut self) -> Self {
        self.kv_cache_type.get_or_insert_with(|| "f32".to_owned());
        self
    }

    /// Threads that the CPU executor uses.
    pub(crate) fn threads(&self) -> usize {
        self.threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
            .max(1)
    }
}

/// How a chat template writes out a conversation.
#[derive(Args)]
pub(crate) struct ChatArgs {
    /// A JSON file with a list of tools.
    #[arg(long)]
    pub(crate) tools: Option<PathBuf>,
    // An attribute, since rustdoc and the terminal mark names in different ways.
    #[arg(
        long,
        help = r#"Variables of the template's own, a JSON object: '{"enable_thinking": false}'"#
    )]
    pub(crate) chat_template_kwargs: Option<String>,
    /// The name of one of the model's templates (default: `tool_use` where there are tools, else default).
    #[arg(long)]
    pub(crate) chat_template: Option<String>,
    /// The time that the template sees, as ISO 8601 (default: now, local time).
    #[arg(long)]
    pub(crate) now: Option<String>,
}

/// [`ChatArgs`] as the engine takes them.
pub(crate) struct ChatOptions {
    pub(crate) tools: Option<Value>,
    pub(crate) kwargs: Option<serde_json::Map<String, Value>>,
    pub(crate) template: Option<String>,
    pub(crate) now: DateTime,
}

impl ChatArgs {
    pub(crate) fn read(self) -> Result<ChatOptions> {
        let kwargs = self.chat_template_kwargs.map(|text| {
            serde_json::from_str(&text).map_err(|error| {
                invalid(&format!("--chat-template-kwargs {text}: {error}; give a JSON object, such as {{\"a\": true}}"))
            })
        });
        Ok(ChatOptions {
            tools: self.tools.map(|file| from_json(&file)).transpose()?,
            kwargs: kwargs.transpose()?,
            template: self.chat_template,
            now: self
                .now
                .as_deref()
                .map_or_else(|| Ok(local_now()), date_time)?,
        })
    }
}

/// What the clock on the wall shows; UTC where nobody knows the zone.
fn local_now() -> DateTime {
    let now = jiff::ZonedDateTime::now();
    DateTime::from_unix(
        now.timestamp().as_second(),
        now.offset().seconds().div_euclid(60),
    )
}

fn date_time(text: &str) -> Result<DateTime> {
    DateTime::from_iso(text).ok_or_else(|| {
        invalid(&format!(
            "--now {text}: give a time such as 2024-07-26T10:00:00"
        ))
    })
}
