//! The default model, SmolLM2-135M-Instruct in Q4_1, against the fixtures.

use crate::support::harness::{
    DEFAULT_MODEL, FIXTURES, assert_close, everyday_variants, executors, expected, greedy, ids,
    logits, on_cpu, on_gpu, open, other_variants, reference,
};
use crate::support::{harness, npy};
use llamero::exec::Executor;
use llamero::exec::gpu::GpuOptions;
use serde_json::Value;
use std::path::Path;

/// Stated in the fixture for f32 compute.
const TOLERANCE: f32 = 5e-3;
/// Greedy ids must agree up to the first step whose margin is smaller.
const MARGIN: f64 = 0.05;

fn check(name: &str, executor: &mut dyn Executor, cases: &Value, prompts: usize, tokens: usize) {
    for case in cases["logits"].as_array().unwrap().iter().take(prompts) {
        let want = npy::read_npy(Path::new(&format!(
            "{FIXTURES}/smollm2/{}",
            case["logits"].as_str().unwrap()
        )))
        .1;
        let got = logits(executor, &ids(&case["ids"]), 64);
        let last = &got[got.len() - want.len()..];
        assert_close(
            &format!("{name}: {}", case["prompt"]),
            last,
            &want,
            TOLERANCE,
        );
    }
    for case in cases["greedy"].as_array().unwrap().iter().take(prompts) {
        let margins = case["exact_margins"].as_array().unwrap();
        let sure = margins
            .iter()
            .take_while(|m| m.as_f64().unwrap() >= MARGIN)
            .count()
            .min(tokens);
        assert!(sure >= 1, "a case that checks nothing");
        let got = greedy(executor, &ids(&case["ids"]), sure);
        assert_eq!(
            got,
            ids(&case["exact"])[..sure],
            "{name}: {}",
            case["prompt"]
        );
    }
}

#[test]
#[cfg_attr(
    not(all(fixtures, default_model)),
    ignore = "needs ../shared/fixtures and ./build.sh model"
)]
fn logits_and_greedy_text_on_the_reference() {
    let model = open(Path::new(DEFAULT_MODEL));
    check(
        "reference",
        &mut reference(&model, 128),
        &expected("smollm2"),
        5,
        8,
    );
}

/// Activations are rounded to 16 bits.
#[test]
#[cfg_attr(
    not(all(fixtures, default_model)),
    ignore = "needs ../shared/fixtures and ./build.sh model"
)]
fn logits_and_greedy_text_on_the_cpu() {
    let model = open(Path::new(DEFAULT_MODEL));
    let cases = expected("smollm2");
    let mut executor = on_cpu(&model, 128, 2, true);
    for case in cases["logits"].as_array().unwrap() {
        let exact = npy::read_npy(Path::new(&format!(
            "{FIXTURES}/smollm2/{}",
            case["logits"].as_str().unwrap()
        )))
        .1;
        let got = logits(&mut executor, &ids(&case["ids"]), 64);
        let last = &got[got.len() - exact.len()..];
        let squares: f64 = last
            .iter()
            .zip(&exact)
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum();
        let rms = (squares / exact.len() as f64).sqrt();
        let most = harness::worst(last, &exact).0;
        eprintln!("{}: rms {rms}, largest difference {most}", case["prompt"]);
        assert!(rms <= ROUNDED_RMS, "{}: rms {rms}", case["prompt"]);
    }
    for case in cases["greedy"].as_array().unwrap() {
        // As far as the exact choice is by more than rounding can turn.
        let margins = case["exact_margins"].as_array().unwrap();
        let sure = margins
            .iter()
            .take_while(|m| m.as_f64().unwrap() >= 4.0 * ROUNDED_RMS)
            .count();
        let got = greedy(&mut executor, &ids(&case["ids"]), sure.max(1));
        assert_eq!(
            got[..sure],
            ids(&case["exact"])[..sure],
            "{}",
            case["prompt"]
        );
    }
}

/// What 16-bit activations may cost.
const ROUNDED_RMS: f64 = 0.01;

#[test]
#[cfg_attr(
    not(all(gpu, fixtures, default_model)),
    ignore = "needs Vulkan, ../shared/fixtures and ./build.sh model"
)]
fn logits_and_greedy_text_on_the_gpu() {
    // A software driver takes a third of a second for a token with its fastest kernels, and some for a prompt.
    on_the_gpu_with(&everyday_variants(), 3, 12);
}

#[test]
#[cfg_attr(
    not(all(gpu, fixtures, default_model)),
    ignore = "needs Vulkan, ../shared/fixtures and ./build.sh model"
)]
#[cfg_attr(
    all(gpu, fixtures, default_model),
    ignore = "left out of the everyday tests: ./build.sh test --all"
)]
fn logits_and_greedy_text_on_the_gpu_with_other_kernels() {
    on_the_gpu_with(&other_variants(), 1, 4);
}

fn on_the_gpu_with(variants: &[(&str, GpuOptions)], prompts: usize, tokens: usize) {
    let model = open(Path::new(DEFAULT_MODEL));
    for (variant, options) in variants {
        let mut executor = on_gpu(&model, 128, options);
        check(
            variant,
            &mut executor,
            &expected("smollm2"),
            prompts,
            tokens,
        );
    }
}

/// The beginning of a text on every executor, beside the reference; what the CPU does in a browser is measured over whole
/// texts (tests/browser/cpu.test.mjs). Keys and values are in f16, as the page has them.
#[test]
#[cfg_attr(
    not(all(fixtures, default_model)),
    ignore = "needs ../shared/fixtures and ./build.sh model"
)]
fn perplexity_on_every_executor() {
    const BEGINNING: usize = 128;
    let case = &expected("smollm2")["perplexity"][0];
    let text = &ids(&case["ids"])[..BEGINNING];
    let mut exact = f64::NAN;
    for (name, mut engine) in executors(Path::new(DEFAULT_MODEL), 600, &GpuOptions::default()) {
        let (found, counted) = pollster::block_on(engine.perplexity(text, 600)).unwrap();
        assert_eq!(counted, text.len() - 1);
        if name == "reference" {
            exact = found;
        }
        let ratio = found / exact;
        eprintln!(
            "{name}, {}: {ratio} of the reference's perplexity",
            case["source"]
        );
        assert!(
            (ratio - 1.0).abs() < 0.005,
            "{name}: {ratio} of the reference's perplexity"
        );
    }
}

#[test]
#[cfg_attr(
    not(all(fixtures, default_model)),
    ignore = "needs ../shared/fixtures and ./build.sh model"
)]
#[cfg_attr(
    all(fixtures, default_model),
    ignore = "left out of the everyday tests: ./build.sh test --all"
)]
fn perplexity_of_a_whole_text_on_the_reference() {
    let case = &expected("smollm2")["perplexity"][0];
    let text = ids(&case["ids"]);
    let engines = executors(Path::new(DEFAULT_MODEL), 600, &GpuOptions::default());
    let (_, mut engine) = engines
        .into_iter()
        .find(|(name, _)| *name == "reference")
        .unwrap();
    let (found, counted) = pollster::block_on(engine.perplexity(&text, 600)).unwrap();
    assert_eq!(counted, text.len() - 1);
    let ratio = found / case["ppl_exact"].as_f64().unwrap();
    assert!(
        (ratio - 1.0).abs() < 0.005,
        "{ratio} of the exact perplexity"
    );
}
