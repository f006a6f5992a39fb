//! `bench`: prefill and decode speed as JSON lines. The output is checked against the reference before anything is
//! timed.

use super::{Backend, Device, invalid, load_opened, print};
use llamero::engine::{Engine, Opened, Request};
use llamero::error::Result;
use serde_json::json;
use std::path::Path;

pub struct Sizes {
    pub prompt: u32,
    pub r#gen: u32,
    pub batch: u32,
    pub trials: u32,
}

/// Logits may differ from the reference by this much: by a 16-bit cache; where activations are rounded to 8 bits, by more.
const TOLERANCE: f32 = 0.1;
const TOLERANCE_ROUNDED: f32 = 2.0;

pub async fn run(model: &Path, device: &Device, sizes: &Sizes) -> Result<()> {
    let total = sizes.prompt + sizes.r#gen;
    let opened = Opened::open_path(model, device.quantize.as_deref()).await?;
    let context = device.max_context.unwrap_or(total.next_multiple_of(32).max(64) * sizes.batch.max(1));
    let device = Device { max_context: Some(context.min(opened.config.max_position_embeddings)), ..device.clone() };
    let vocab = opened.config.vocab_size;
    let ids = |salt: u32, n: u32| -> Vec<u32> { (0..n).map(|i| (i * 7919 + 13 + salt * 104_729) % vocab).collect() };
    let mut engine = load_opened(opened, &device).await?;

    let largest = check(model, &device, &mut engine, &ids(0, sizes.prompt.min(8))).await?;
    let info = engine.executor().info();
    let request = |salt: u32, new: u32| Request {
        ids: Some(ids(salt, sizes.prompt)),
        max_new_tokens: Some(new),
        ignore_eos: Some(true),
        num_return_sequences: Some(sizes.batch),
        temperature: (sizes.batch > 1).then_some(1.0),
        seed: Some(1),
        ..Request::default()
    };
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for trial in 0..=sizes.trials {
        // Another prompt each time: the engine keeps the last one's cache.
        let result = engine.generate(&request(trial, sizes.r#gen), 0, &mut Quiet).await?;
        if trial > 0 {
            prefill.push(result.timings.prefill_tokens_per_second);
            decode.push(result.timings.decode_tokens_per_second);
        }
    }
    let costs = engine.executor().costs();
    for (kernel, count, seconds) in &costs.kernels {
        let each = seconds / *count as f64 * 1e6;
        print(
            &json!({ "bench": "kernel", "kernel": kernel, "count": count, "seconds": seconds, "microseconds": each }),
        )?;
    }
    let per_step = |n: f64| if costs.steps == 0 { 0.0 } else { n / costs.steps as f64 };
    print(&json!({
        "bench": "prefill_decode",
        "model": model.file_name().map(|n| n.to_string_lossy()),
        "backend": info.kind, "device": info.name, "software": info.software, "features": info.features,
        "prompt": sizes.prompt, "gen": sizes.r#gen, "batch": sizes.batch, "trials": sizes.trials,
        "prefill_tps": median(&mut prefill), "decode_tps": median(&mut decode),
        "weight_bytes_per_token": engine.plan().bytes_per_token(),
        "cache_type": info.cache_type,
        "dispatches_per_step": per_step(costs.dispatches as f64),
        "encode_ms": per_step(costs.encode_seconds * 1e3),
        "self_test": info.self_test,
        "max_logit_difference_from_reference": largest,
    }))
}

/// Largest difference of the logits of a few tokens from the reference; more than the tolerance is an error.
async fn check(model: &Path, device: &Device, engine: &mut Engine, ids: &[u32]) -> Result<f32> {
    let mut ours = Vec::new();
    engine
        .logits(ids, |_, values| {
            ours.extend_from_slice(values);
            Ok(())
        })
        .await?;
    let reference = Device { backend: Backend::Reference, max_context: Some(ids.len() as u32), ..device.clone() };
    let mut reference = load_opened(Opened::open_path(model, device.quantize.as_deref()).await?, &reference).await?;
    let mut largest = 0f32;
    let mut at = 0;
    reference
        .logits(ids, |_, values| {
            for (a, b) in values.iter().zip(&ours[at..]) {
                // A NaN must not pass for equal.
                let d = (a - b).abs();
                largest = if d.is_nan() { f32::INFINITY } else { largest.max(d) };
            }
            at += values.len();
            Ok(())
        })
        .await?;
    if largest > if engine.executor().info().kind == "cpu" { TOLERANCE_ROUNDED } else { TOLERANCE } {
        return Err(invalid(&format!("the logits are {largest} off the reference: nothing was timed")));
    }
    Ok(largest)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

struct Quiet;

impl llamero::engine::Host for Quiet {
    fn event(&mut self, _: llamero::engine::Event) -> Result<()> {
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }

    fn pause(&mut self) -> llamero::plan::LocalBoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
