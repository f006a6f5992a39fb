//! The self-test at load: it finds nothing wrong where nothing is, and kernels that were broken on purpose.

use crate::support::harness::{
    Model, assert_close, fill, gpu, gpu_variants, logits, open, reference, rounding_variants, tiny,
};
use crate::support::references;
use llamero::error::{Error, ErrorKind};
use llamero::exec::gpu::{CacheType, Gpu, GpuExecutor, GpuOptions};
use llamero::exec::reference::ReferenceExecutor;
use llamero::exec::{Executor, SelfTest};

const CONTEXT: u32 = 512;

fn load(gpu: &Gpu, model: &Model, options: &GpuOptions) -> Result<(GpuExecutor, SelfTest), Error> {
    let options = GpuOptions {
        reference: Some(|plan, limits| Ok(Box::new(ReferenceExecutor::new(plan, limits)?))),
        ..options.clone()
    };
    let mut executor = pollster::block_on(GpuExecutor::new(
        gpu,
        model.model.plan.clone(),
        CONTEXT,
        &options,
    ))?;
    fill(model, &mut executor);
    pollster::block_on(executor.ready())?;
    let report = executor.info().self_test.expect("a report");
    Ok((executor, report))
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn all_is_well_on_a_device_that_works() {
    for dtype in ["Q8_0", "F16"] {
        let model = open(&tiny(dtype));
        for (variant, options) in gpu_variants().into_iter().chain(rounding_variants()) {
            for cache in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
                let options = GpuOptions {
                    cache: Some(cache),
                    ..options.clone()
                };
                let (_, report) = load(&gpu(), &model, &options).unwrap();
                assert_eq!(
                    report.replaced,
                    Vec::<String>::new(),
                    "{dtype} {variant} {cache:?}"
                );
                // One row and many: qkv, residual, gate_up and store in each shape, attention twice, embed, sample.
                let most = if options.columns == Some(true) {
                    28
                } else {
                    12
                };
                assert!(
                    report.kernels >= most,
                    "{dtype} {variant} {cache:?}: {} kernels",
                    report.kernels
                );
            }
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn all_is_well_with_every_kind_of_operation() {
    for references in references::all() {
        for name in ["llama4-moe", "moe-mixtral", "odd-dims", "attn-mlp-bias"] {
            let model = open(&references.path(format!("models/{name}/model.gguf")));
            for (variant, options) in gpu_variants() {
                let (_, report) = load(&gpu(), &model, &options).unwrap();
                assert_eq!(report.replaced, Vec::<String>::new(), "{name} {variant}");
            }
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn broken_kernels_are_replaced_and_named() {
    let model = open(&tiny("Q8_0"));
    let (_, columns) = gpu_variants().pop().unwrap();
    let int8 = GpuOptions {
        int8: Some(true),
        ..columns.clone()
    };
    let tokens: Vec<u32> = (0..300).map(|i| i * 31 % 300).collect();
    let exact = logits(&mut reference(&model, CONTEXT), &tokens, 64);
    for (broken, options, tolerance) in [
        ("matvec_residual.q8_0.subgroups.f32.1", &columns, 2e-3),
        ("matvec_qkv.q8_0.subgroups.f32.4", &columns, 2e-3),
        ("matvec_gate_up.q8_0.subgroups.int8", &int8, 1.0),
        ("matmul_store.q8_0.int8.8", &int8, 1.0),
        ("attention_tile.f32", &columns, 2e-3),
        ("attention_split.f32", &columns, 2e-3),
        ("attention_combine", &columns, 2e-3),
    ] {
        if broken.contains("subgroups") && !gpu().capabilities().subgroups {
            continue;
        }
        let device = pollster::block_on(Gpu::request()).unwrap();
        device.break_kernels(broken);
        let (mut executor, report) = load(&device, &model, options).unwrap();
        assert!(!report.replaced.is_empty(), "{broken} was not found");
        // The two halves of split attention are tried, and given up, together.
        let halves = broken.starts_with("attention_split") || broken == "attention_combine";
        let named = |name: &String| {
            name.starts_with(broken)
                || halves && ["attention_split.f32.1", "attention_combine"].contains(&name.as_str())
        };
        assert!(
            report.replaced.iter().all(named),
            "{broken}: {:?}",
            report.replaced
        );
        for step in [64, 7, 1] {
            let n = if step == 1 { 20 } else { tokens.len() };
            let vocab = exact.len() / tokens.len();
            let got = logits(&mut executor, &tokens[..n], step);
            assert_close(
                &format!("{broken} replaced, by {step}"),
                &got,
                &exact[..n * vocab],
                tolerance,
            );
        }
        std::mem::forget(device);
        std::mem::forget(executor);
    }
}

/// Whatever kernels the tuning run takes, they are tested, and right.
#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn tuned_kernels_are_tested_and_right() {
    let model = open(&tiny("Q8_0"));
    let tokens: Vec<u32> = (0..40).map(|i| i * 31 % 300).collect();
    let exact = logits(&mut reference(&model, CONTEXT), &tokens, 64);
    let options = GpuOptions {
        cache: Some(CacheType::F32),
        int8: Some(false),
        ..GpuOptions::default()
    };
    for (lanes, least) in [(None, 2), (Some(8), 1)] {
        let options = GpuOptions {
            tune: true,
            lanes,
            ..options.clone()
        };
        let (mut executor, report) = load(&gpu(), &model, &options).unwrap();
        let info = executor.info();
        let tuned = info.tuned.clone().expect("it was asked for");
        assert!(tuned.tried >= least && tuned.tried <= 7, "{tuned:?}");
        assert!(
            tuned.after_ms > 0.0 && tuned.after_ms <= tuned.before_ms,
            "{tuned:?}"
        );
        // What the caller chose stays.
        assert!(lanes.is_none() || info.lanes == lanes, "{info:?}");
        assert!(!info.features.contains(&"int8".to_owned()));
        assert!(
            report.kernels >= 12 && report.replaced.is_empty(),
            "{report:?}"
        );
        for step in [64, 1] {
            assert_close(
                &format!("tuned, by {step}"),
                &logits(&mut executor, &tokens, step),
                &exact,
                2e-3,
            );
        }
    }
    let error = load(
        &gpu(),
        &model,
        &GpuOptions {
            lanes: Some(12),
            ..options
        },
    )
    .err()
    .unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn a_device_that_is_wrong_throughout_is_refused() {
    let model = open(&tiny("Q8_0"));
    for broken in ["matvec_store", "embed", "sample"] {
        let device = pollster::block_on(Gpu::request()).unwrap();
        device.break_kernels(broken);
        let error = load(&device, &model, &gpu_variants()[0].1)
            .err()
            .unwrap_or_else(|| panic!("{broken} was not found"));
        assert_eq!(error.kind(), ErrorKind::WebGpuUnavailable);
        assert!(error.to_string().contains(broken), "{error}");
        std::mem::forget(device);
    }
}
