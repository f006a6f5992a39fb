//! One small model in every weight type, and in mixtures as quantisers make them, against exact logits.

use crate::support::harness::{
    Model, assert_close, greedy, ids, logits, on_cpu, on_gpu, open, reference,
};
use crate::support::{cases, harness, npy, references};
use llamero::exec::Executor;
use llamero::exec::cpu::rounds_activations;
use llamero::exec::gpu::{CacheType, GpuOptions};
use serde_json::Value;

/// Stated with the references, for f32 activations.
const TOLERANCE: f32 = 2e-3;
/// Greedy ids agree up to the first step whose margin is smaller.
const MARGIN: f64 = 0.02;
const CONTEXT: u32 = 64;

struct Case {
    name: String,
    model: Model,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

impl Case {
    fn check(&self, on: &str, executor: &mut dyn Executor) {
        let name = format!("{} on {on}", self.name);
        assert_close(
            &name,
            &logits(executor, &self.tokens, 64),
            &self.logits,
            TOLERANCE,
        );
        assert_close(
            &format!("{name}, by one"),
            &logits(executor, &self.tokens, 1),
            &self.logits,
            TOLERANCE,
        );
        let sure = self.greedy.len();
        assert_eq!(
            greedy(executor, &self.tokens, sure)[..sure],
            self.greedy,
            "{name}"
        );
    }
}

/// Calls `each` for every model of the references.
fn for_each_case(mut each: impl FnMut(Case)) {
    for references in references::all() {
        let expected = references.json("quants/expected.json");
        let models = expected["models"].as_object().unwrap();
        let (mut count, mut sure) = (0, 0);
        for (name, entry) in models {
            let exact = |entry: &Value| {
                let sure = entry["greedy_margins"].as_array().unwrap().iter();
                let sure = sure
                    .take_while(|margin| margin.as_f64().unwrap() >= MARGIN)
                    .count();
                ids(&entry["greedy_numpy"])[..sure].to_vec()
            };
            let greedy = exact(entry);
            sure += greedy.len();
            let file = entry["file"].as_str().unwrap();
            let logits = references.path(format!("quants/{name}.numpy.npy"));
            each(Case {
                name: name.clone(),
                model: open(&references.path("quants").join(file)),
                tokens: ids(&expected["tokens"]),
                logits: npy::read_npy(&logits).1,
                greedy,
            });
            count += 1;
        }
        for dtype in cases::cases().types {
            assert!(
                models.contains_key(&dtype),
                "{dtype} is said to run and has no file"
            );
        }
        // 26 types, six of them also in other widths, experts in two, and the mixtures.
        assert!(
            count >= 26 + 6 + 2 + 4 && sure >= 5 * count,
            "{count} cases, {sure} greedy ids"
        );
        eprintln!("{count} models of the {}", references.name());
    }
}

#[test]
fn every_type_on_the_reference() {
    for_each_case(|case| case.check("reference", &mut reference(&case.model, CONTEXT)));
}

/// What rounding activations to 16 bits may cost.
const ROUNDED_RMS: f64 = 1e-3;

#[test]
fn every_type_on_the_cpu() {
    let mut worst = (0.0, String::new());
    for_each_case(|case| {
        for threads in [1, 2] {
            let mut executor = on_cpu(&case.model, CONTEXT, threads, false);
            let name = format!("{} on {threads} threads", case.name);
            if !case
                .model
                .model
                .plan
                .tensors
                .iter()
                .any(|t| t.rows > 1 && rounds_activations(t.dtype))
            {
                case.check(&name, &mut executor);
                continue;
            }
            let whole = logits(&mut executor, &case.tokens, 64);
            let squares = whole
                .iter()
                .zip(&case.logits)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum::<f64>();
            let rms = (squares / whole.len() as f64).sqrt();
            assert!(rms <= ROUNDED_RMS, "{name}: rms {rms}");
            if rms > worst.0 {
                worst = (rms, name.clone());
            }
            let by_one = logits(&mut executor, &case.tokens, 1);
            assert_close(&format!("{name}, by one"), &by_one, &whole, 1e-3);
        }
    });
    eprintln!("largest rms {} ({})", worst.0, worst.1);
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn every_type_on_the_gpu() {
    every_type_with(&harness::everyday_variants());
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
#[cfg_attr(gpu, ignore = "left out of the everyday tests: ./build.sh test --all")]
fn every_type_on_the_gpu_with_other_kernels() {
    every_type_with(&harness::other_variants());
}

fn every_type_with(variants: &[(&str, GpuOptions)]) {
    for_each_case(|case| {
        for (variant, options) in variants {
            case.check(variant, &mut on_gpu(&case.model, CONTEXT, options));
        }
    });
}

/// Kernels that round activations to 8 bits (llama.cpp does: 0.06 to 0.1 away) or to f16.
#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn every_type_with_rounded_activations() {
    for_each_case(|case| {
        // In this one an expert choice flips, in llama.cpp as here.
        let rounding = harness::rounding_variants()
            .into_iter()
            .filter(|(v, _)| case.name != "moe-Q8_0" || *v != "int8");
        for (variant, options) in rounding {
            let name = format!("{} with {variant}", case.name);
            let allowed = if variant == "f16" { 0.02 } else { 0.15 };
            let mut executor = on_gpu(&case.model, CONTEXT, &options);
            for step in [64, 1] {
                let got = logits(&mut executor, &case.tokens, step);
                let squares: f64 = got
                    .iter()
                    .zip(&case.logits)
                    .map(|(a, b)| f64::from(a - b).powi(2))
                    .sum();
                let rms = (squares / got.len() as f64).sqrt();
                assert!(rms <= allowed, "{name}, by {step}: rms {rms}");
                // A kernel that did not round would not be the one in question.
                let rounds = variant == "int8"
                    && ["Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K"].contains(&case.name.as_str());
                assert!(
                    !rounds || rms > 1e-3,
                    "{name}, by {step}: rms {rms} is as good as exact"
                );
            }
        }
    });
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
#[cfg_attr(gpu, ignore = "left out of the everyday tests: ./build.sh test --all")]
fn every_type_split_to_small_bindings() {
    for_each_case(|case| {
        let mut options = GpuOptions {
            cache: Some(CacheType::F32),
            ..GpuOptions::default()
        };
        let whole = on_gpu(&case.model, CONTEXT, &options);
        let parts = &whole.lowered().parts;
        let max_binding = parts.iter().map(|part| part.weights_bytes()).max().unwrap() / 3;
        options.max_binding = Some(max_binding);
        let mut executor = on_gpu(&case.model, CONTEXT, &options);
        assert!(
            executor.lowered().parts.len() >= parts.len() + 3,
            "{}: nothing was split",
            case.name
        );
        assert!(
            executor
                .lowered()
                .parts
                .iter()
                .all(|part| part.weights_bytes() <= max_binding)
        );
        let got = logits(&mut executor, &case.tokens, 64);
        assert_close(
            &format!("{} in parts", case.name),
            &got,
            &case.logits,
            TOLERANCE,
        );
    });
}
