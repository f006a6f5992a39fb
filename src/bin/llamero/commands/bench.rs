//! `bench`: prefill and decode speed as JSON lines. The output is checked against the reference before anything is
//! timed.

use crate::args::{Backend, Device};
use crate::load::load;
use crate::output::{invalid, print};
use llamero::engine::{Model, Opened, Request};
use llamero::error::Result;
use llamero::exec::Costs;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    device: Device,
}

/// What is measured: each prompt length, and each context with each batch.
#[derive(clap::Args)]
struct Sizes {
    /// Prompt tokens to prefill; a list with commas.
    #[arg(long, default_value = "128", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    prompt: Vec<u32>,
    /// Tokens to generate.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    r#gen: u32,
    /// Positions in the cache when decoding starts; a list with commas.
    #[arg(long, default_value = "128", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    context: Vec<u32>,
    /// Sequences decoded together, from the same prompt; a list with commas.
    #[arg(long, default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    batch: Vec<u32>,
    /// Repetitions, of which the median is printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
}

/// Logits may differ from the reference by this much: by a 16-bit cache; where activations are rounded to 8 bits, by more.
const TOLERANCE: f32 = 0.1;
const TOLERANCE_ROUNDED: f32 = 2.0;
/// Tokens whose logits are compared: the reference is slow.
const CHECKED_TOKENS: u32 = 4;
/// Positions that a sequence may waste at the end of its last cache page.
const PAGE: u32 = 32;

pub(crate) async fn run(args: Args) -> Result<()> {
    let Args {
        model,
        sizes,
        device,
    } = &args;
    let opened = Opened::open_path(model, device.quantize.as_deref()).await?;
    let most = opened.config.max_position_embeddings;
    let wanted = sizes
        .prompt
        .iter()
        .map(|prompt| prompt + 1)
        .chain(sizes.decodes().map(|(c, b)| sizes.room(c, b)));
    let context = device
        .max_context
        .unwrap_or_else(|| wanted.max().unwrap_or(1).next_multiple_of(PAGE))
        .min(most);
    let device = Device {
        max_context: Some(context),
        ..device.clone()
    };
    let vocab = opened.config.vocab_size;
    let ids = |salt: u32, n: u32| -> Vec<u32> {
        (0..n)
            .map(|i| (i * 7919 + 13 + salt * 104_729) % vocab)
            .collect()
    };
    drop(opened);
    let mut bench = Bench {
        engine: load(model, &device).await?,
        trials: sizes.trials,
    };

    let checked = ids(0, CHECKED_TOKENS.min(context));
    let largest = check(model, &device, &mut bench.engine, &checked).await?;
    let info = bench.engine.executor().info();
    let bandwidth = match bench.engine.gpu() {
        Some(gpu) => gpu.copy_bandwidth().await?,
        None => memory_bandwidth(device.threads()),
    };
    let weight_bytes = bench.engine.plan().bytes_per_token();
    print(&json!({
        "bench": "device",
        "model": model.file_name().map(|n| n.to_string_lossy()),
        "backend": info.kind, "device": info.name, "software": info.software, "features": info.features,
        "cache_type": info.cache_type, "max_context": context, "self_test": info.self_test,
        "lanes": info.lanes, "tuned": info.tuned,
        "max_logit_difference_from_reference": largest,
        "weight_bytes": info.weight_bytes, "weight_bytes_per_token": weight_bytes,
        "copy_bytes_per_second": bandwidth,
    }))?;

    bench.prefills(sizes, context, ids).await?;
    bench.decodes(sizes, context, bandwidth, ids).await?;
    for (kernel, count, seconds) in &bench.engine.executor().costs().kernels {
        let each = seconds / *count as f64 * 1e6;
        print(
            &json!({ "bench": "kernel", "kernel": kernel, "count": count, "seconds": seconds, "microseconds": each }),
        )?;
    }
    Ok(())
}

impl Sizes {
    /// Each context with each batch.
    fn decodes(&self) -> impl Iterator<Item = (u32, u32)> {
        self.context
            .iter()
            .flat_map(|context| self.batch.iter().map(|batch| (*context, *batch)))
    }

    /// Positions of the cache that a batch needs: the shared context, and for each sequence what it generates.
    fn room(&self, context: u32, batch: u32) -> u32 {
        let own = (self.r#gen + 1 + context % PAGE).next_multiple_of(PAGE);
        context.saturating_add(own.saturating_mul(batch))
    }
}

struct Bench {
    engine: Model,
    trials: u32,
}

struct Decoded {
    /// Over all sequences.
    tokens_per_second: f64,
    /// Of the steps that decode.
    costs: Costs,
}

impl Bench {
    /// Each prompt alone. `ids(salt, n)`: a prompt of `n` tokens.
    async fn prefills(
        &mut self,
        sizes: &Sizes,
        context: u32,
        ids: impl Fn(u32, u32) -> Vec<u32>,
    ) -> Result<()> {
        for (at, &prompt) in sizes.prompt.iter().enumerate() {
            if prompt >= context {
                skipped("prefill", json!({ "prompt": prompt }), prompt + 1, context)?;
                continue;
            }
            // Another prompt each time: the engine keeps the last one's cache.
            let mut salt = 1000 * at as u32;
            let prompts = std::iter::repeat_with(|| {
                salt += 1;
                ids(salt, prompt)
            });
            print(&self.prefill(prompt, prompts).await?)?;
        }
        Ok(())
    }

    /// Each context with each batch. `bandwidth`: bytes per second of copies.
    async fn decodes(
        &mut self,
        sizes: &Sizes,
        context: u32,
        bandwidth: f64,
        ids: impl Fn(u32, u32) -> Vec<u32>,
    ) -> Result<()> {
        let position_bytes = self.engine.executor().cache_bytes_per_position();
        for (positions, batch) in sizes.decodes() {
            let room = sizes.room(positions, batch);
            if room > context {
                skipped(
                    "decode",
                    json!({ "context": positions, "batch": batch }),
                    room,
                    context,
                )?;
                continue;
            }
            let decoded = self
                .decode(ids(positions, positions + 1), sizes.r#gen, batch)
                .await?;
            // Half of what is generated is in the cache on average.
            let cached = f64::from(positions) + f64::from(sizes.r#gen) / 2.0;
            let bytes = self.engine.plan().bytes_per_token() as f64
                + f64::from(batch) * cached * position_bytes;
            let mut line = json!({
                "bench": "decode", "context": positions, "batch": batch, "gen": sizes.r#gen, "trials": sizes.trials,
                "decode_tps": decoded.tokens_per_second, "bytes_per_step": bytes,
                "share_of_copy_bandwidth": bytes * decoded.tokens_per_second / f64::from(batch) / bandwidth,
            });
            add_costs(&mut line, &decoded.costs);
            print(&line)?;
        }
        Ok(())
    }

    async fn prefill(
        &mut self,
        prompt: u32,
        mut prompts: impl Iterator<Item = Vec<u32>>,
    ) -> Result<Value> {
        let mut rates = Vec::new();
        let mut before = Costs::default();
        for trial in 0..=self.trials {
            if trial == 1 {
                before = self.engine.executor().costs();
            }
            let request = Request {
                ids: prompts.next(),
                max_new_tokens: Some(1),
                ..Request::default()
            };
            let result = self.engine.generate(&request, 0, &mut ()).await?;
            if trial > 0 {
                rates.push(result.timings.prefill_tokens_per_second);
            }
        }
        let mut line = json!({
            "bench": "prefill", "prompt": prompt, "trials": self.trials, "prefill_tps": median(&mut rates),
        });
        add_costs(
            &mut line,
            &difference(&self.engine.executor().costs(), &before),
        );
        Ok(line)
    }

    async fn decode(&mut self, ids: Vec<u32>, new: u32, batch: u32) -> Result<Decoded> {
        let request = |new: u32| Request {
            ids: Some(ids.clone()),
            max_new_tokens: Some(new),
            ignore_eos: Some(true),
            num_return_sequences: Some(batch),
            temperature: (batch > 1).then_some(1.0),
            seed: Some(1),
            ..Request::default()
        };
        // Fills the cache, which the requests after it find filled, and warms up.
        self.engine.generate(&request(new), 0, &mut ()).await?;
        let mut rates = Vec::new();
        let mut costs = Costs::default();
        for _ in 0..self.trials {
            let start = self.engine.executor().costs();
            self.engine.generate(&request(1), 0, &mut ()).await?;
            let middle = self.engine.executor().costs();
            let result = self.engine.generate(&request(new), 0, &mut ()).await?;
            // What generating one token costs is prefill.
            let all = difference(&self.engine.executor().costs(), &middle);
            costs = difference(&all, &difference(&middle, &start));
            // But a difference of so small times is mostly noise: on average over every step.
            costs.encode_seconds =
                all.encode_seconds * costs.steps as f64 / all.steps.max(1) as f64;
            rates.push(result.timings.decode_tokens_per_second);
        }
        Ok(Decoded {
            tokens_per_second: median(&mut rates),
            costs,
        })
    }
}

fn difference(a: &Costs, b: &Costs) -> Costs {
    Costs {
        steps: a.steps.saturating_sub(b.steps),
        dispatches: a.dispatches.saturating_sub(b.dispatches),
        encode_seconds: a.encode_seconds - b.encode_seconds,
        kernels: Vec::new(),
    }
}

/// Adds what a step cost, where the executor counts it.
fn add_costs(line: &mut Value, costs: &Costs) {
    if costs.steps > 0 {
        line["dispatches_per_step"] = json!(costs.dispatches as f64 / costs.steps as f64);
        line["encode_ms_per_step"] = json!(costs.encode_seconds * 1e3 / costs.steps as f64);
    }
}

/// A measurement that the context has no room for is named, not left out in silence.
fn skipped(bench: &str, mut line: Value, room: u32, context: u32) -> Result<()> {
    line["bench"] = json!(bench);
    line["skipped"] = json!(format!(
        "it needs {room} positions; the model and --max-context allow {context}"
    ));
    print(&line)
}

/// Bytes read and written per second by `threads` threads that copy memory, at best.
fn memory_bandwidth(threads: usize) -> f64 {
    /// Larger than caches, all threads together.
    const BYTES: usize = 256 << 20;
    let mut buffers: Vec<_> = (0..threads)
        .map(|_| (vec![1_u8; BYTES / threads], vec![0_u8; BYTES / threads]))
        .collect();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (from, to) in &mut buffers {
                scope.spawn(|| to.copy_from_slice(std::hint::black_box(from)));
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * BYTES as f64 / best
}

/// Largest difference of the logits of a few tokens from the reference; more than the tolerance is an error.
async fn check(model: &Path, device: &Device, engine: &mut Model, ids: &[u32]) -> Result<f32> {
    let mut ours = Vec::new();
    engine
        .logits(ids, |_, values| {
            ours.extend_from_slice(values);
            Ok(())
        })
        .await?;
    let reference = Device {
        backend: Backend::Reference,
        max_context: Some(ids.len() as u32),
        ..device.clone()
    };
    let mut reference = load(model, &reference).await?;
    let mut largest = 0_f32;
    let mut at = 0;
    reference
        .logits(ids, |_, values| {
            for (a, b) in values.iter().zip(&ours[at..]) {
                // A NaN must not pass for equal.
                let d = (a - b).abs();
                largest = if d.is_nan() {
                    f32::INFINITY
                } else {
                    largest.max(d)
                };
            }
            at += values.len();
            Ok(())
        })
        .await?;
    let info = engine.executor().info();
    let rounded = info.features.iter().any(|feature| feature == "int8");
    if largest
        > if rounded {
            TOLERANCE_ROUNDED
        } else {
            TOLERANCE
        }
    {
        return Err(invalid(&format!(
            "the logits are {largest} off the reference: nothing was timed"
        )));
    }
    Ok(largest)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
