//! At load, each kernel in use is run on small inputs and compared with the reference: drivers and browsers have bugs,
//! and a wrong answer without an error is the worst defect. A variant that is wrong gives way to its plain twin.
//!
//! A trial is a plan of one operation or a few with random weights, in an executor whose settings make it use the very
//! pipeline in question. All trials are submitted before the first result is awaited, for in some browsers every wait
//! takes 100 ms.

use super::executor::GpuExecutor;
use super::kernels::{Choices, Dot, Reduce, Variant};
use super::lower::{Dispatch, RowBucket, Settings, Trial, TrialPlan, Tuning};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Executor, Head, Inspect, Limits, LocalBoxFuture, Output, SelfTest, Step, Want};
use crate::plan::{Plan, Role, Row};
use std::collections::{BTreeMap, BTreeSet};

/// Makes an executor of the reference.
pub type Reference = fn(Plan, Limits) -> Result<Box<dyn Inspect>>;

/// A variant and its override constants.
type Key = (Variant, Vec<(&'static str, u32)>);

/// Tests what the executor may run, and replaces what is wrong.
pub(super) async fn run(executor: &mut GpuExecutor, reference: Reference) -> Result<SelfTest> {
    let mut report = SelfTest::default();
    let mut tested: Vec<Key> = Vec::new();
    loop {
        let wrong = round(executor, reference, &mut tested).await?;
        report.kernels = tested.len() as u32;
        if wrong.is_empty() {
            return Ok(report);
        }
        executor.replace(wrong.clone())?;
        executor.compiled().await?;
        if let Some((_, _, dispatch)) = executor
            .dispatches()
            .find(|(_, _, d)| wrong.contains(&d.variant))
        {
            return Err(Error::new(
                ErrorKind::WebGpuUnavailable,
                format!(
                    "this GPU, its driver or this browser computes wrong values (kernel {}); update them, or use \
                     another device",
                    dispatch.variant.name()
                ),
            ));
        }
        // What depends on them has not been judged: it is tested again.
        report.replaced.extend(wrong.iter().map(Variant::name));
    }
}

/// The variants that are wrong; all that were judged right or wrong are added to `tested`.
async fn round(
    executor: &mut GpuExecutor,
    reference: Reference,
    tested: &mut Vec<Key>,
) -> Result<Vec<Variant>> {
    let mut items: BTreeMap<Key, (RowBucket, bool, Dispatch)> = BTreeMap::new();
    for (bucket, split, dispatch) in executor.dispatches() {
        let key = (dispatch.variant, dispatch.constants.clone());
        let item = items
            .entry(key)
            .or_insert_with(|| (bucket, split, dispatch.clone()));
        if (bucket, split) < (item.0, item.1) {
            *item = (bucket, split, dispatch.clone());
        }
    }
    // The lanes that other kernels of a trial have in the model, so that no pipeline is made for the trial alone.
    let lanes: Vec<(Variant, u32)> = items
        .keys()
        .filter_map(|(variant, constants)| Some((*variant, constants.first()?.1)))
        .collect();
    let mut trials = Vec::new();
    for (key, (bucket, split, dispatch)) in items {
        if tested.contains(&key) {
            continue;
        }
        let mut own: Vec<(Variant, u32)> = key.1.iter().map(|(_, lanes)| (key.0, *lanes)).collect();
        own.extend(lanes.iter().cloned());
        let trial = Trial {
            bucket: Some(bucket),
            lanes: own,
            split,
            norm: None,
        };
        trials.push((key, start(executor, reference, &dispatch, trial).await?));
    }
    let mut failed: Vec<(Key, BTreeSet<Variant>)> = Vec::new();
    for (key, trial) in trials {
        let runs = trial.runs.clone();
        if trial.passes().await? {
            tested.push(key);
        } else {
            failed.push((key, runs));
        }
    }
    let wrong: Vec<&Key> = failed
        .iter()
        .filter(|own| !failed.iter().any(|other| is_blamed_first(other, own)))
        .map(|(key, _)| key)
        .collect();
    let variants: BTreeSet<Variant> = wrong.iter().map(|(variant, _)| *variant).collect();
    tested.extend(wrong.into_iter().cloned());
    Ok(variants.into_iter().collect())
}

/// Whether the failed trial of one kernel explains that of another, which runs it too. Where each runs the other, the one
/// that can be replaced is blamed.
fn is_blamed_first(other: &(Key, BTreeSet<Variant>), own: &(Key, BTreeSet<Variant>)) -> bool {
    let ((other, other_runs), (own, own_runs)) = ((other.0.0, &other.1), (own.0.0, &own.1));
    let replaceable = |variant: Variant| {
        let choices = variant.choices;
        choices.dot.is_some_and(|dot| dot != Dot::F32) || choices.reduce == Some(Reduce::Subgroups)
    };
    other != own
        && own_runs.contains(&other)
        && (!other_runs.contains(&own) || replaceable(other) && !replaceable(own))
}

/// Values on their way from the GPU.
type Found = LocalBoxFuture<'static, Result<Vec<f32>>>;

/// A trial that was submitted.
struct Started {
    /// What the GPU found, what the reference found.
    values: Vec<(Found, Vec<f32>)>,
    /// As a share of the largest value.
    tolerance: f32,
    /// Every kernel that ran.
    runs: BTreeSet<Variant>,
    /// Kept until the results are there.
    _gpu: GpuExecutor,
}

impl Started {
    async fn passes(self) -> Result<bool> {
        let mut passes = true;
        for (got, want) in self.values {
            let got = got.await?;
            let largest = want.iter().fold(0_f32, |most, v| most.max(v.abs()));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= self.tolerance * largest;
            passes &= largest > 0.0 && got.len() == want.len() && got.iter().zip(&want).all(close);
        }
        Ok(passes)
    }
}

/// The tuning under which a kernel of these choices runs.
fn tuning_for(choices: &Choices, splits: bool) -> Tuning {
    Tuning {
        subgroups: choices.reduce == Some(Reduce::Subgroups),
        int8: choices.dot == Some(Dot::Int8),
        f16: choices.dot == Some(Dot::F16),
        columns: true,
        splits,
        ..Tuning::PLAIN
    }
}

/// Sets what a trial reads, of `n` rows.
fn set_inputs(b: &mut TrialPlan, n: usize, executors: [&mut dyn Inspect; 2]) -> Result<()> {
    let width = b.plan.hidden_size;
    let x = b.values(n * width as usize);
    let input = b.input.map(|input| {
        let width = if input == Role::Logits {
            b.plan.vocab_size
        } else {
            width
        };
        (input, b.values(n * width as usize))
    });
    for executor in executors {
        if b.plan.first(Role::Residual).is_some() {
            executor.poke(Role::Residual, &x, Some(b.norm.weight))?;
        }
        if let Some((input, values)) = &input {
            executor.poke(*input, values, None)?;
        }
    }
    Ok(())
}

/// Submits the trial of one pipeline.
async fn start(
    model: &GpuExecutor,
    reference: Reference,
    dispatch: &Dispatch,
    mut trial: Trial,
) -> Result<Started> {
    let lowered = model.lowered();
    let settings = &lowered.settings;
    let mut b = lowered.trial(dispatch)?;
    trial.norm = Some(b.norm.weight);
    let cached = b.steps.len() > 1;
    let splits = trial.split;
    let tuning = if b.as_model {
        // As in the model: kernels that exist anyway.
        Tuning {
            splits,
            ..settings.tuning
        }
    } else {
        tuning_for(&dispatch.variant.choices, splits)
    };
    let rounding = tuning.int8 || tuning.f16 || (cached && settings.cache != super::CacheType::F32);
    let rows = match trial.bucket {
        Some(RowBucket::Few(cols)) => cols,
        Some(RowBucket::Many(4)) => 9,
        _ => 33,
    };
    let limits = Limits::for_context(b.plan.context_length, 34, 1);
    let mut own = Settings::new(tuning, settings.cache, settings.max_binding, limits);
    own.wrong = settings.wrong.clone();
    own.trial = Some(trial);
    let mut on_gpu = GpuExecutor::with_settings(model.gpu(), b.plan.clone(), own).await?;
    on_gpu.compiled().await?;
    let mut exact = reference(b.plan.clone(), limits)?;
    b.load(&mut on_gpu)?;
    b.load(exact.as_mut())?;

    let mut values: Vec<(Found, Vec<f32>)> = Vec::new();
    for first in b.steps.clone() {
        let rows: Vec<Row> = (first..first + rows)
            .map(|pos| Row {
                token: pos * 7 % b.plan.vocab_size,
                seq: 0,
                pos,
            })
            .collect();
        let n = rows.len();
        set_inputs(&mut b, n, [&mut on_gpu, exact.as_mut()])?;
        let heads: Vec<u32> = if b.want == Want::NOTHING {
            Vec::new()
        } else {
            (0..n as u32).collect()
        };
        let step = Step::Rows {
            rows: &rows,
            heads: &Head::all(&heads, b.want),
            trace: None,
        };
        let (pending, done) = (on_gpu.submit(step)?, exact.submit(step)?.await?);
        if b.want == Want::ID {
            // One more than the ids, so that an id of 0 is seen.
            let ids = |output: Output| output.ids().iter().map(|id| *id as f32 + 1.0).collect();
            values.push((Box::pin(async move { Ok(ids(pending.await?)) }), ids(done)));
        }
        if first + rows.len() as u32 <= 125 && cached {
            continue;
        }
        for output in &b.outputs {
            values.push((on_gpu.peek(*output, n), exact.peek(*output, n).await?));
        }
        if b.outputs == [Role::Residual] && !cached {
            let x = exact.peek(Role::Residual, n).await?;
            values.extend(on_gpu.peek_norm(b.norm.weight, &x)?);
        }
    }
    Ok(Started {
        values,
        tolerance: if rounding { 0.06 } else { 2e-3 },
        runs: on_gpu
            .dispatches()
            .filter(|(_, split, _)| *split == splits)
            .map(|(_, _, dispatch)| dispatch.variant)
            .collect(),
        _gpu: on_gpu,
    })
}
