//! The default model, SmolLM2-135M-Instruct in `Q4_1`, against references (`tests/data/make_smollm2.py`).

use crate::support::harness::{
    DEFAULT_MODEL, assert_close, everyday_variants, executors, greedy, ids, logits, on_cpu, on_gpu,
    open, other_variants, reference,
};
use crate::support::references::{self, References};
use crate::support::{harness, npy};
use llamero::exec::Executor;
use llamero::exec::gpu::GpuOptions;
use std::path::Path;

/// Stated with the references, for f32 compute.
const TOLERANCE: f32 = 5e-3;
/// Greedy ids must agree up to the first step whose margin is smaller.
const MARGIN: f64 = 0.05;

fn check(
    name: &str,
    executor: &mut dyn Executor,
    references: &References,
    prompts: usize,
    tokens: usize,
) {
    let cases = references.json("smollm2/expected.json");
    for case in cases["logits"].as_array().unwrap().iter().take(prompts) {
        let want = npy::read_npy(
            &references
                .path("smollm2")
                .join(case["logits"].as_str().unwrap()),
        )
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
#[cfg_attr(not(default_model), ignore = "needs ./build.sh model")]
fn logits_and_greedy_text_on_the_reference() {
    let model = open(Path::new(DEFAULT_MODEL));
    for references in references::all() {
        check("reference", &mut reference(&model, 128), &references, 5, 8);
    }
}

/// Activations are rounded to 16 bits.
#[test]
#[cfg_attr(not(default_model), ignore = "needs ./build.sh model")]
fn logits_and_greedy_text_on_the_cpu() {
    let model = open(Path::new(DEFAULT_MODEL));
    let mut executor = on_cpu(&model, 128, 2, true);
    for references in references::all() {
        held_to(&mut executor, &references);
    }
}

fn held_to(executor: &mut dyn Executor, references: &References) {
    let cases = references.json("smollm2/expected.json");
    for case in cases["logits"].as_array().unwrap() {
        let exact = npy::read_npy(
            &references
                .path("smollm2")
                .join(case["logits"].as_str().unwrap()),
        )
        .1;
        let got = logits(executor, &ids(&case["ids"]), 64);
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
        let got = greedy(executor, &ids(&case["ids"]), sure.max(1));
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
    not(all(gpu, default_model)),
    ignore = "needs a Vulkan driver and ./build.sh model"
)]
fn logits_and_greedy_text_on_the_gpu() {
    // A software driver takes a third of a second for a token with its fastest kernels, and some for a prompt.
    on_the_gpu_with(&everyday_variants(), 3, 12);
}

#[test]
#[cfg_attr(
    not(all(gpu, default_model)),
    ignore = "needs a Vulkan driver and ./build.sh model"
)]
#[cfg_attr(
    all(gpu, default_model),
    ignore = "left out of the everyday tests: ./build.sh test --all"
)]
fn logits_and_greedy_text_on_the_gpu_with_other_kernels() {
    on_the_gpu_with(&other_variants(), 1, 4);
}

fn on_the_gpu_with(variants: &[(&str, GpuOptions)], prompts: usize, tokens: usize) {
    let model = open(Path::new(DEFAULT_MODEL));
    for (variant, options) in variants {
        let mut executor = on_gpu(&model, 128, options);
        for references in references::all() {
            check(variant, &mut executor, &references, prompts, tokens);
        }
    }
}

/// The beginning of a text on every executor, beside the reference; what the CPU does in a browser is measured over whole
/// texts (tests/browser/cpu.test.mjs). Keys and values are in f16, as the page has them.
#[test]
#[cfg_attr(not(default_model), ignore = "needs ./build.sh model")]
fn perplexity_on_every_executor() {
    const BEGINNING: usize = 128;
    let case = &references::own().json("smollm2/expected.json")["perplexity"][0];
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
#[cfg_attr(not(default_model), ignore = "needs ./build.sh model")]
#[cfg_attr(
    default_model,
    ignore = "left out of the everyday tests: ./build.sh test --all"
)]
fn perplexity_of_a_whole_text_on_the_reference() {
    let engines = executors(Path::new(DEFAULT_MODEL), 600, &GpuOptions::default());
    let (_, mut engine) = engines
        .into_iter()
        .find(|(name, _)| *name == "reference")
        .unwrap();
    for references in references::all() {
        let case = &references.json("smollm2/expected.json")["perplexity"][0];
        let text = ids(&case["ids"]);
        let (found, counted) = pollster::block_on(engine.perplexity(&text, 600)).unwrap();
        assert_eq!(counted, text.len() - 1);
        let ratio = found / case["ppl_exact"].as_f64().unwrap();
        assert!(
            (ratio - 1.0).abs() < 0.005,
            "{ratio} of the exact perplexity"
        );
    }
}
