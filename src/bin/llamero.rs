//! The native command line: results as JSON on stdout; warnings, progress and streamed text on stderr; exit 0, or 1 with a
//! one-line error.

#[path = "llamero/bench.rs"]
mod bench;
#[path = "llamero/capture.rs"]
mod capture;
#[path = "llamero/gguf_writer.rs"]
mod gguf_writer;
#[path = "llamero/make.rs"]
mod make;
#[path = "llamero/npy.rs"]
mod npy;
#[path = "llamero/requantize.rs"]
mod requantize;

use clap::{Args, Parser, Subcommand, ValueEnum};
use llamero::engine::{
    self, Chat, Event, Host, Kernels, LoadHost, LoadOptions, LoadPhase, Model, Opened, Request,
    Stop, apply_chat_template, render_chat,
};
use llamero::error::{Error, ErrorKind, Result, Warnings};
use llamero::exec::LocalBoxFuture;
use llamero::format::{ByteSource, Checkpoint, FileSource, split_names};
use llamero::plan::Trace;
use llamero::tokenizer::{ChatTemplate, DateTime, EncodeOptions, HfFolder, Tokenizer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "llamero",
    version,
    about = "LLaMA on WebGPU, natively: inspect, tokenize, generate, measure"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Copy, Clone, Debug, PartialEq, ValueEnum)]
enum Backend {
    /// The GPU, or the CPU where there is none, or only a software one.
    Auto,
    Gpu,
    Cpu,
    Reference,
}

#[derive(Clone, Args)]
struct Device {
    /// What runs the model.
    #[arg(long, value_enum, default_value = "auto")]
    backend: Backend,
    /// Threads on the CPU (default: one per core).
    #[arg(long)]
    threads: Option<usize>,
    /// Positions to make room for (default: the model's own, at most 4096).
    #[arg(long)]
    max_context: Option<u32>,
    /// How keys and values are stored: f16 (default), f32 or, on the GPU, q8_0.
    #[arg(long)]
    kv_cache_type: Option<String>,
    /// Leave subgroup kernels out.
    #[arg(long)]
    no_subgroups: bool,
    /// Use integer dot products (true) or not (false); default: as the adapter's vendor suggests.
    #[arg(long)]
    int8: Option<bool>,
    /// Use f16 in matrix products of prompts, where the adapter has it.
    #[arg(long)]
    f16: Option<bool>,
    /// Use kernels for several rows at a time, and split attention.
    #[arg(long)]
    columns: Option<bool>,
    /// Lanes that share a row of a matrix while decoding: 4, 8, 16, 32 or 64; default: by its size.
    #[arg(long)]
    lanes: Option<u32>,
    /// Measure at load which kernels the GPU runs fastest (some seconds).
    #[arg(long)]
    tune: bool,
    /// Time each kernel (slower throughout); `bench` prints the times.
    #[arg(long)]
    profile: bool,
    /// Quantise F32, F16 and BF16 matrices to this type while loading (q8_0, q4_0, q4_1, q5_0, q5_1).
    #[arg(long)]
    quantize: Option<String>,
}

impl Device {
    /// As the engine takes them.
    fn options(&self) -> LoadOptions {
        let device = match self.backend {
            Backend::Auto => engine::Device::Auto,
            Backend::Gpu => engine::Device::WebGpu,
            Backend::Cpu => engine::Device::Cpu,
            Backend::Reference => engine::Device::Reference,
        };
        LoadOptions {
            device,
            max_context: self.max_context,
            kv_cache_type: self.kv_cache_type.clone(),
            threads: self.threads.map(|n| n.max(1) as u32),
            quantize: self.quantize.clone(),
            kernels: Kernels {
                subgroups: self.no_subgroups.then_some(false),
                int8: self.int8,
                f16: self.f16,
                columns: self.columns,
                splits: self.columns,
                lanes: self.lanes,
            },
            tune: self.tune,
            profile: self.profile,
        }
    }

    /// With caches that round nothing, unless others are asked for.
    fn exact(mut self) -> Device {
        self.kv_cache_type.get_or_insert_with(|| "f32".to_owned());
        self
    }

    /// Threads that the CPU executor uses.
    fn threads(&self) -> usize {
        self.threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
            .max(1)
    }
}

#[derive(Args)]
struct Sampling {
    /// Tokens to generate at most.
    #[arg(long)]
    max_new_tokens: Option<u32>,
    /// Tokens of prompt and output together at most.
    #[arg(long)]
    max_length: Option<u32>,
    /// 0 is greedy.
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the k most likely tokens.
    #[arg(long)]
    top_k: Option<u32>,
    /// Keep the most likely tokens up to this probability.
    #[arg(long, allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Drop tokens less likely than this times the most likely.
    #[arg(long, allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Same seed, same text.
    #[arg(long)]
    seed: Option<u64>,
    /// Makes tokens of prompt and output less likely; 1: none.
    #[arg(long, allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Taken from the logits of tokens in the output.
    #[arg(long, allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Taken from the logits of tokens in the output, as often as they are there.
    #[arg(long, allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Adds a value to a token's logit, as ID=VALUE; may be repeated, or several with commas.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    logit_bias: Vec<String>,
    /// Ids of tokens that are never drawn, with commas.
    #[arg(long, value_delimiter = ',')]
    suppress_tokens: Option<Vec<u32>>,
    /// Ids of the only tokens that may be drawn, with commas.
    #[arg(long, value_delimiter = ',')]
    allowed_tokens: Option<Vec<u32>>,
    /// Text that ends the output; may be repeated.
    #[arg(long)]
    stop: Vec<String>,
    /// Go on past the model's end-of-text tokens.
    #[arg(long)]
    ignore_eos: bool,
    /// Sequences to generate.
    #[arg(short = 'n', long = "num-return-sequences")]
    n: Option<u32>,
}

/// How a chat template writes out a conversation.
#[derive(Args)]
struct ChatArgs {
    /// A JSON file with a list of tools.
    #[arg(long)]
    tools: Option<PathBuf>,
    /// Variables of the template's own, a JSON object: '{"enable_thinking": false}'.
    #[arg(long)]
    chat_template_kwargs: Option<String>,
    /// The name of one of the model's templates (default: tool_use where there are tools, else default).
    #[arg(long)]
    chat_template: Option<String>,
    /// The time that the template sees, as ISO 8601 (default: now, local time).
    #[arg(long)]
    now: Option<String>,
}

/// [`ChatArgs`] as the engine takes them.
struct ChatOptions {
    tools: Option<Value>,
    kwargs: Option<serde_json::Map<String, Value>>,
    template: Option<String>,
    now: DateTime,
}

impl ChatArgs {
    fn read(self) -> Result<ChatOptions> {
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

#[derive(Subcommand)]
enum Command {
    /// Architecture, config, tensors by type, bytes, parameters.
    Inspect { model: PathBuf },
    /// Text to token ids.
    Tokenize {
        model: PathBuf,
        #[arg(long)]
        text: Option<String>,
        #[arg(long)]
        file: Option<PathBuf>,
        /// A JSON array of strings.
        #[arg(long)]
        texts: Option<PathBuf>,
        /// Prepend BOS (and append EOS) as the model wants.
        #[arg(long)]
        add_special: bool,
        /// Take special-token text literally.
        #[arg(long)]
        plain: bool,
    },
    /// Token ids to text.
    Detokenize {
        model: PathBuf,
        /// Comma-separated.
        #[arg(long, value_delimiter = ',', required = true)]
        ids: Vec<u32>,
        #[arg(long)]
        skip_special: bool,
    },
    /// A conversation as the chat template renders it.
    Template {
        model: PathBuf,
        /// A JSON file with [{"role": …, "content": …}, …].
        #[arg(long)]
        messages: PathBuf,
        #[command(flatten)]
        chat: ChatArgs,
        /// A Jinja file instead of the model's template.
        #[arg(long, conflicts_with = "chat_template")]
        template: Option<PathBuf>,
        #[arg(long)]
        bos: Option<String>,
        #[arg(long)]
        eos: Option<String>,
        #[arg(long)]
        add_generation_prompt: bool,
    },
    /// Logits of every position, float32 [tokens, vocab].
    Logits {
        model: PathBuf,
        #[arg(long, value_delimiter = ',', required = true)]
        ids: Vec<u32>,
        #[arg(long)]
        out: PathBuf,
        /// A JSON file with changes of inner values: [{"hook", "op": "add" | "replace", "positions", "file", "tensor"}].
        #[arg(long)]
        edits: Option<PathBuf>,
        #[command(flatten)]
        device: Device,
    },
    /// Log-probability of each token given those before it.
    Score {
        model: PathBuf,
        #[arg(long, value_delimiter = ',', required = true)]
        ids: Vec<u32>,
        #[command(flatten)]
        device: Device,
    },
    /// Inner values over a text, float32, into a file of safetensors. Caches are f32 unless --kv-cache-type says otherwise.
    Capture {
        model: PathBuf,
        #[arg(long, value_delimiter = ',', required = true)]
        ids: Vec<u32>,
        /// Names such as blocks.0.hook_resid_post, with commas; * stands for any characters.
        #[arg(long, value_delimiter = ',', required = true)]
        hooks: Vec<String>,
        /// A JSON file with changes, as of logits.
        #[arg(long)]
        edits: Option<PathBuf>,
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        device: Device,
    },
    /// Text from a prompt, ids, or a conversation.
    Generate {
        model: PathBuf,
        #[arg(long)]
        prompt: Option<String>,
        #[arg(long, value_delimiter = ',')]
        ids: Option<Vec<u32>>,
        /// A JSON file with [{"role": …, "content": …}, …].
        #[arg(long)]
        messages: Option<PathBuf>,
        #[command(flatten)]
        chat: ChatArgs,
        #[command(flatten)]
        sampling: Sampling,
        #[command(flatten)]
        device: Device,
    },
    /// exp of the mean negative log-likelihood of a text's tokens.
    Perplexity {
        model: PathBuf,
        #[arg(long)]
        file: PathBuf,
        /// Tokens per context (default: the context length).
        #[arg(long)]
        context: Option<u32>,
        #[command(flatten)]
        device: Device,
    },
    /// Speed of prefill and decode, as JSON lines; the output is checked against the reference first.
    Bench {
        model: PathBuf,
        #[command(flatten)]
        sizes: bench::Sizes,
        #[command(flatten)]
        device: Device,
    },
    /// Writes a model with random weights, for tests and benches.
    Make {
        out: PathBuf,
        #[arg(long, value_enum, default_value = "tiny")]
        shape: make::Shape,
        /// Weight type of the matrices, ggml's name; several with commas take turns.
        #[arg(long, default_value = "Q8_0", value_delimiter = ',')]
        r#type: Vec<String>,
        /// Blocks (default: the shape's own).
        #[arg(long)]
        blocks: Option<u32>,
    },
    /// Writes a GGUF's matrices in another weight type, to measure speed: it rounds once more, and keeps less quality
    /// than a conversion tool.
    Requantize {
        model: PathBuf,
        out: PathBuf,
        /// Weight type of the matrices, ggml's name.
        #[arg(long)]
        r#type: String,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) if !told.use_stderr() => {
            // --help
            print!("{told}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let words = error.to_string();
            let lines: Vec<&str> = words
                .lines()
                .map(str::trim)
                .take_while(|line| !line.starts_with("Usage:"))
                .collect();
            eprintln!("{}; see --help", lines.join(" ").trim());
            return ExitCode::FAILURE;
        }
    };
    match pollster::block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Inspect { model } => inspect(&model).await,
        Command::Tokenize {
            model,
            text,
            file,
            texts,
            add_special,
            plain,
        } => {
            let tokenizer = tokenizer(&model).await?;
            let options = EncodeOptions {
                add_special,
                parse_special: !plain,
            };
            let out = match (text, file, texts) {
                (Some(text), None, None) => json!({ "ids": tokenizer.encode(&text, options)? }),
                (None, Some(file), None) => {
                    json!({ "ids": tokenizer.encode(&read_text(&file)?, options)? })
                }
                (None, None, Some(file)) => {
                    let texts: Vec<String> = from_json(&file)?;
                    let ids: Result<Vec<_>> =
                        texts.iter().map(|t| tokenizer.encode(t, options)).collect();
                    json!({ "ids": ids? })
                }
                _ => return Err(invalid("give exactly one of --text, --file and --texts")),
            };
            print(&out)
        }
        Command::Detokenize {
            model,
            ids,
            skip_special,
        } => print(&json!({ "text": tokenizer(&model).await?.decode(&ids, skip_special)? })),
        Command::Template {
            model,
            messages,
            chat,
            template,
            bos,
            eos,
            add_generation_prompt,
        } => {
            let messages: Value = from_json(&messages)?;
            let options = chat.read()?;
            let chat = Chat {
                messages: &messages,
                tools: options.tools.as_ref(),
                kwargs: options.kwargs.as_ref(),
                template: options.template.as_deref(),
                add_generation_prompt,
                now: Some(options.now),
            };
            let text = match template {
                Some(file) => {
                    let text = read_text(&file)?;
                    let template = ChatTemplate::new(
                        &text,
                        &bos.unwrap_or_default(),
                        &eos.unwrap_or_default(),
                    )?;
                    render_chat(&template, &chat)?
                }
                None => {
                    let tokenizer = tokenizer(&model).await?;
                    if tokenizer.chat_template().is_none() && chat.template.is_none() {
                        return Err(Error::new(
                            ErrorKind::Template,
                            "the model has no chat template; give --template",
                        ));
                    }
                    apply_chat_template(&tokenizer, &chat)?
                }
            };
            print(&json!({ "text": text }))
        }
        Command::Score { model, ids, device } => {
            let logprobs = load(&model, &device).await?.score(&ids).await?;
            print(&json!({ "logprobs": logprobs }))
        }
        Command::Capture {
            model,
            ids,
            hooks,
            edits,
            out,
            device,
        } => {
            let edits = edits.map_or_else(|| Ok(Vec::new()), |path| capture::edits(&path))?;
            let mut engine = load(&model, &device.exact()).await?;
            capture::run(&mut engine, &ids, &hooks, edits, &out).await
        }
        Command::Logits {
            model,
            ids,
            out,
            edits,
            device,
        } => {
            let edits = edits.map(|path| capture::edits(&path)).transpose()?;
            let device = if edits.is_some() {
                device.exact()
            } else {
                device
            };
            let mut engine = load(&model, &device).await?;
            let vocab = engine.plan().vocab_size as usize;
            let mut file = npy::NpyWriter::create(&out, &[ids.len(), vocab])?;
            let mut top = Vec::new();
            let mut write = |values: &[f32]| {
                top = values
                    .chunks_exact(vocab)
                    .last()
                    .map(top_tokens)
                    .unwrap_or_default();
                file.write(values)
            };
            match edits {
                Some(edits) => write(
                    &engine
                        .trace(
                            &ids,
                            &Trace {
                                taps: Vec::new(),
                                edits,
                            },
                            true,
                        )
                        .await?
                        .logits,
                )?,
                None => engine.logits(&ids, |_, values| write(values)).await?,
            }
            print(&json!({ "tokens": ids.len(), "vocab": vocab, "out": out, "top_of_last": top }))
        }
        Command::Generate {
            model,
            prompt,
            ids,
            messages,
            chat,
            sampling,
            device,
        } => {
            let messages = messages.map(|m| from_json(&m)).transpose()?;
            let chat = chat.read()?;
            let request = Request {
                prompt,
                ids,
                messages,
                tools: chat.tools,
                chat_template_kwargs: chat.kwargs,
                chat_template: chat.template,
                now: Some(chat.now),
                max_new_tokens: sampling.max_new_tokens,
                max_length: sampling.max_length,
                temperature: sampling.temperature,
                top_k: sampling.top_k,
                top_p: sampling.top_p,
                min_p: sampling.min_p,
                seed: sampling.seed,
                repetition_penalty: sampling.repetition_penalty,
                presence_penalty: sampling.presence_penalty,
                frequency_penalty: sampling.frequency_penalty,
                logit_bias: biases(&sampling.logit_bias)?,
                suppress_tokens: sampling.suppress_tokens,
                allowed_tokens: sampling.allowed_tokens,
                stop: (!sampling.stop.is_empty()).then_some(Stop::Many(sampling.stop)),
                ignore_eos: Some(sampling.ignore_eos),
                num_return_sequences: sampling.n,
                ..Request::default()
            };
            let mut engine = load(&model, &device).await?;
            let mut terminal = Terminal {
                many: sampling.n.unwrap_or(1) > 1,
            };
            let seed = getrandom::u64()
                .map_err(|e| invalid(&format!("no random numbers ({e}): give --seed")))?;
            let result = engine.generate(&request, seed, &mut terminal).await?;
            eprintln!();
            print(&serde_json::to_value(&result).map_err(|e| invalid(&e.to_string()))?)
        }
        Command::Perplexity {
            model,
            file,
            context,
            device,
        } => {
            let text = read_text(&file)?;
            let mut engine = load(&model, &device).await?;
            let options = EncodeOptions {
                add_special: false,
                parse_special: false,
            };
            let ids = engine.tokenizer()?.encode(&text, options)?;
            let (perplexity, tokens) = engine.perplexity(&ids, context.unwrap_or(u32::MAX)).await?;
            print(&json!({ "perplexity": perplexity, "tokens": tokens }))
        }
        Command::Bench {
            model,
            sizes,
            device,
        } => bench::run(&model, &device, &sizes).await,
        Command::Make {
            out,
            shape,
            r#type,
            blocks,
        } => make::run(&out, shape, &r#type, blocks),
        Command::Requantize { model, out, r#type } => requantize::run(&model, &out, &r#type).await,
    }
}

/// Loads the model at a path; warnings and progress go to stderr.
async fn load(model: &Path, device: &Device) -> Result<Model> {
    let mut host = Loading {
        shows: std::io::stderr().is_terminal(),
    };
    Model::load_path(model, &device.options(), &mut host).await
}

/// What a person sees of a load.
struct Loading {
    shows: bool,
}

impl LoadHost for Loading {
    fn progress(&mut self, phase: LoadPhase, loaded: u64, total: u64) -> Result<()> {
        match phase {
            LoadPhase::Weights if self.shows => {
                eprint!("\rloading {} of {} MB", loaded >> 20, total >> 20);
            }
            LoadPhase::Ready if self.shows => eprint!("\r\x1b[K"),
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, opened: &Opened) -> LocalBoxFuture<'_, Result<()>> {
        warn(&opened.warnings);
        Box::pin(std::future::ready(Ok(())))
    }

    fn without_gpu(&mut self, reason: &Error) {
        say(&format!(
            "running on the CPU: {reason} (--backend gpu insists)"
        ));
    }
}

/// The tokenizer of a GGUF (of a split one, the first part is enough), of a `tokenizer.json` or `tokenizer.model`, or of a
/// Hugging Face folder.
async fn tokenizer(model: &Path) -> Result<Tokenizer> {
    let has_extension = |extension: &str| {
        model
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(extension))
    };
    let (is_json, is_pieces) = (has_extension("json"), has_extension("model"));
    if !model.is_dir() && !is_json && !is_pieces {
        return gguf_tokenizer(model).await;
    }
    let mut files = HfFolder::read(if model.is_dir() {
        model
    } else {
        model.parent().unwrap_or(Path::new("."))
    })?;
    if is_json || is_pieces {
        let name = if is_json {
            "tokenizer.json"
        } else {
            "tokenizer.model"
        };
        files.insert(
            name,
            std::fs::read(model).map_err(|e| Error::from(e).at(model.display()))?,
        );
    }
    let mut files = files.files();
    if is_pieces {
        // It was asked for, so the newer form beside it does not count.
        files.tokenizer_json = None;
    }
    let tokenizer = Tokenizer::from_hf(files)?;
    warn(tokenizer.warnings());
    Ok(tokenizer)
}

/// The tokenizer of a GGUF. That of a split set lies in the first part, beside whichever is given.
async fn gguf_tokenizer(model: &Path) -> Result<Tokenizer> {
    let parts = model
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(split_names);
    let first = parts
        .and_then(|parts| parts.into_iter().next())
        .map(|name| model.with_file_name(name));
    let path = first
        .as_deref()
        .filter(|path| path.exists())
        .unwrap_or(model);
    let source = FileSource::open(path)?;
    let (metadata, warnings) = Checkpoint::read_gguf_metadata(&source).await?;
    let tokenizer = Tokenizer::from_gguf(&metadata).map_err(|error| error.at(source.name()))?;
    warn(&warnings);
    warn(&tokenizer.warnings().clone().at(source.name()));
    Ok(tokenizer)
}

async fn inspect(model: &Path) -> Result<()> {
    let opened = Opened::open_path(model, None).await?;
    let mut types: std::collections::BTreeMap<&str, (u64, u64)> = std::collections::BTreeMap::new();
    for tensor in opened.checkpoint.tensors() {
        let entry = types.entry(tensor.dtype.name()).or_default();
        entry.0 += 1;
        entry.1 += tensor.bytes;
    }
    let types: serde_json::Map<String, Value> = types
        .into_iter()
        .map(|(name, (count, bytes))| (name.to_owned(), json!({ "count": count, "bytes": bytes })))
        .collect();
    warn(&opened.warnings);
    let plan = &opened.model.plan;
    print(&json!({
        "architecture": opened.config.architecture,
        "config": opened.config,
        "tensors": types,
        "bytes": opened.checkpoint.total_bytes(),
        "weight_bytes": plan.weight_bytes(),
        "bytes_per_token": plan.bytes_per_token(),
        "cache_bytes_per_token_f16": plan.cache_bytes_per_position(2),
        "parameters": plan.tensors.iter().map(|t| t.rows * t.cols).sum::<u64>(),
        "vocabulary": opened.tokenizer.as_ref().map(Tokenizer::vocab_size),
        "chat_template": opened.tokenizer.as_ref().is_some_and(|t| t.chat_template().is_some()),
        "operations": plan.ops.len(),
        "warnings": opened.warnings.to_vec(),
    }))
}

/// Streams text to stderr.
struct Terminal {
    many: bool,
}

impl Host for Terminal {
    fn event(&mut self, event: Event) -> Result<()> {
        if let Event::Token { index, text, .. } = event {
            // Several sequences interleave: show the first.
            if !self.many || index == 0 {
                eprint!("{text}");
                std::io::stderr().flush()?;
            }
        }
        Ok(())
    }
}

/// Says what was wrong with a model's files and was left out.
fn warn(warnings: &Warnings) {
    for text in warnings.to_vec() {
        eprintln!("warning: {text}");
    }
}

/// Tells a person something; a program gets an error's line and nothing else on stderr.
fn say(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{text}");
    }
}

fn top_tokens(logits: &[f32]) -> Vec<(usize, f32)> {
    let mut order: Vec<(usize, f32)> = logits.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(5);
    order
}

fn print(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(())
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::from(e).at(path.display()))?;
    String::from_utf8(bytes).map_err(|_| invalid(&format!("{}: not UTF-8 text", path.display())))
}

fn from_json<T: for<'de> serde::Deserialize<'de>>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_text(path)?)
        .map_err(|e| invalid(&format!("{}: {e}", path.display())))
}

/// Biases as `--logit-bias` gives them, ID=VALUE each.
fn biases(texts: &[String]) -> Result<Option<BTreeMap<String, f32>>> {
    let mut biases = BTreeMap::new();
    for text in texts {
        let pair = text
            .split_once('=')
            .and_then(|(id, value)| Some((id.trim(), value.trim().parse().ok()?)));
        let (id, value) =
            pair.ok_or_else(|| invalid(&format!("--logit-bias is {text:?}; it must be ID=VALUE")))?;
        if biases.insert(id.to_owned(), value).is_some() {
            return Err(invalid(&format!("--logit-bias names token {id} twice")));
        }
    }
    Ok((!biases.is_empty()).then_some(biases))
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

fn invalid(detail: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, detail)
}
