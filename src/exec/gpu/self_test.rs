//! At load, each kernel in use is run on small inputs and compared with the reference: drivers and browsers have bugs,
//! and a wrong answer without an error is the worst defect. A variant that is wrong gives way to its plain twin.
//!
//! A trial is a plan of one operation or a few with random weights, in an executor whose settings make it use the very
//! pipeline in question. All trials are submitted before the first result is awaited, for in some browsers every wait
//! takes 100 ms.

use super::executor::GpuExecutor;
use super::lower::{Dispatch, Settings, Shape, Slot, Trial, Tuning};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Executor, Head, Inspect, Limits, LocalBoxFuture, Output, SelfTest, Step, Want};
use crate::plan::{
    AttentionSpec, CacheSpec, Experts, Heads, History, Input, Linear, Norm, Op, Penalties, Plan,
    Role, Row, Sampling, TensorId, TokenMask, ValueId,
};
use crate::quant::{DType, sample_rows};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Makes an executor of the reference.
pub type Reference = fn(Plan, Limits) -> Result<Box<dyn Inspect>>;

/// Values per row of the trials' matrices: two blocks of any type.
const WIDTH: u32 = 512;
/// Experts of a trial.
const EXPERTS: u32 = 4;
/// Positions of a trial's sequence; more than attention takes in one split.
const CONTEXT: u32 = 160;

/// A variant's name and override constants.
type Key = (String, Vec<(&'static str, u32)>);

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
            .find(|(_, _, d)| wrong.contains(&d.variant.name()))
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
        report.replaced.extend(wrong);
    }
}

/// Names of the variants that are wrong; all that were judged right or wrong are added to `tested`.
async fn round(
    executor: &mut GpuExecutor,
    reference: Reference,
    tested: &mut Vec<Key>,
) -> Result<Vec<String>> {
    let mut items: BTreeMap<Key, (Shape, bool, Dispatch)> = BTreeMap::new();
    for (shape, split, dispatch) in executor.dispatches() {
        let key = (dispatch.variant.name(), dispatch.constants.clone());
        let item = items
            .entry(key)
            .or_insert_with(|| (shape, split, dispatch.clone()));
        if (shape, split) < (item.0, item.1) {
            *item = (shape, split, dispatch.clone());
        }
    }
    // The lanes that other kernels of a trial have in the model, so that no pipeline is made for the trial alone.
    let lanes: Vec<(String, u32)> = items
        .keys()
        .filter_map(|(name, constants)| Some((name.clone(), constants.first()?.1)))
        .collect();
    let mut trials = Vec::new();
    for (key, (shape, split, dispatch)) in items {
        if tested.contains(&key) {
            continue;
        }
        let mut own: Vec<(String, u32)> = key
            .1
            .iter()
            .map(|(_, lanes)| (key.0.clone(), *lanes))
            .collect();
        own.extend(lanes.iter().cloned());
        let trial = Trial {
            shape: Some(shape),
            lanes: own,
            split,
            norm: None,
        };
        trials.push((
            key,
            dispatch.variant.family.name,
            start(executor, reference, &dispatch, trial).await?,
        ));
    }
    let mut wrong: Vec<(Key, &str)> = Vec::new();
    let mut right = Vec::new();
    for (key, family, trial) in trials {
        if trial.passes().await? {
            right.push(key)
        } else {
            wrong.push((key, family))
        }
    }
    // A trial of one kernel runs others before it: it is blamed only if they are right.
    let families: Vec<&str> = wrong.iter().map(|(_, family)| *family).collect();
    wrong.retain(|(_, family)| !families.iter().any(|other| comes_before(other, family)));
    tested.extend(right);
    tested.extend(wrong.iter().map(|(key, _)| key.clone()));
    let mut names: Vec<String> = wrong.into_iter().map(|((name, _), _)| name).collect();
    names.dedup();
    Ok(names)
}

/// Whether a trial of `family` runs `other` first.
fn comes_before(other: &str, family: &str) -> bool {
    let (_, product) = other.split_once('_').unwrap_or((other, ""));
    match family {
        "qk_norm" | "cache_store" => product == "qkv",
        "attention" | "attention_tile" | "attention_split" | "attention_combine" => {
            product == "qkv" || matches!(other, "qk_norm" | "cache_store")
        }
        "matvec_silu_mul" | "matmul_silu_mul" => product == "store",
        "route" | "moe_group" | "moe_combine" => {
            product.starts_with("moe_") || other.starts_with("grouped_")
        }
        _ => false,
    }
}

/// A trial that was submitted.
struct Started {
    /// What the GPU found, what the reference found.
    values: Vec<(LocalBoxFuture<'static, Result<Vec<f32>>>, Vec<f32>)>,
    /// As a share of the largest value.
    tolerance: f32,
    /// Kept until the results are there.
    _gpu: GpuExecutor,
}

impl Started {
    async fn passes(self) -> Result<bool> {
        let mut passes = true;
        for (got, want) in self.values {
            let got = got.await?;
            let largest = want.iter().fold(0f32, |most, v| most.max(v.abs()));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= self.tolerance * largest;
            passes &= largest > 0.0 && got.len() == want.len() && got.iter().zip(&want).all(close);
        }
        Ok(passes)
    }
}

struct Random(u64);

impl Random {
    /// SplitMix64 (Steele et al. 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }
}

/// A plan in the making.
struct Builder {
    plan: Plan,
    weights: Vec<Vec<u8>>,
    random: Random,
}

impl Builder {
    fn tensor(&mut self, dtype: DType, rows: u32, cols: u32) -> Result<TensorId> {
        let (rows, cols) = (u64::from(rows), u64::from(cols));
        let random = &mut self.random;
        self.weights.push(sample_rows(
            dtype,
            rows,
            cols,
            2.0 / (cols as f32).sqrt(),
            &mut || random.next(),
        )?);
        Ok(self.plan.tensor_spec("trial", dtype, rows, cols))
    }

    fn linear(&mut self, dtype: DType, rows: u32, cols: u32) -> Result<Linear> {
        Ok(Linear {
            weight: self.tensor(dtype, rows, cols)?,
            bias: None,
        })
    }

    /// The residual stream that the trial begins with.
    fn stream(&mut self) -> ValueId {
        self.plan.value(Role::Residual, WIDTH)
    }

    fn load(&self, executor: &mut dyn Executor) -> Result<()> {
        for (i, bytes) in self.weights.iter().enumerate() {
            executor.load_rows(TensorId(i), 0, bytes)?;
        }
        let pages: Vec<u32> = (0..executor.limits().num_pages).rev().collect();
        executor.set_pages(0, &pages)?;
        // All that the sampler can do at once.
        let vocab = self.plan.vocab_size;
        let mut mask = TokenMask::new(vocab, true);
        (0..vocab).step_by(3).for_each(|id| mask.set(id, false));
        let sampling = Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.01,
            seed: 7,
            penalties: Penalties {
                repetition: 1.2,
                presence: 0.5,
                frequency: 0.25,
            },
            bias: Some(Rc::new([(1, 2.0), (5, -3.0)])),
            mask: Some(Rc::new(mask)),
        };
        executor.set_sampling(
            0,
            &sampling,
            History {
                prompt: &[1, 2, 4],
                generated: &[7, 8, 7],
            },
        )
    }
}

/// Submits the trial of one pipeline.
async fn start(
    model: &GpuExecutor,
    reference: Reference,
    dispatch: &Dispatch,
    mut trial: Trial,
) -> Result<Started> {
    let lowered = model.lowered();
    let real = &lowered.plan;
    let settings = &lowered.settings;
    let op = &real.ops[dispatch.op];
    let weights = dispatch.slots.iter().find_map(|slot| match slot {
        Slot::Weights(part) => Some(lowered.parts[*part].layout.dtype),
        _ => None,
    });
    let dtype = weights.unwrap_or(DType::F32);
    let dtype_of = |id: TensorId| real.tensor(id).dtype;

    let mut b = Builder {
        plan: Plan::new(WIDTH, 72, CONTEXT),
        weights: Vec::new(),
        random: Random(1),
    };
    b.plan.ropes = real.ropes.clone();
    let norm = Norm {
        weight: b.tensor(DType::F32, 1, WIDTH)?,
        eps: 1e-5,
    };
    trial.norm = Some(norm.weight);
    let family = dispatch.variant.family.name;
    let (_, product) = family.split_once('_').unwrap_or((family, ""));
    let mut outputs = vec![Role::Residual];
    let (mut want, mut input, mut steps) = (Want::NOTHING, None, vec![0]);
    match (family, product, op) {
        ("embed", ..) => {
            let table = b.tensor(dtype, 72, WIDTH)?;
            b.plan.embed(table);
        }
        (_, "qkv", Op::QkvRope { heads, rope, .. }) => {
            let x = b.stream();
            qkv(&mut b, x.normed(norm), dtype, *heads, *rope)?;
            outputs = vec![Role::Query];
        }
        (_, "residual", _) => {
            let down = b.linear(dtype, WIDTH, WIDTH)?;
            let (x, inner) = (b.stream(), b.plan.value(Role::FeedForward, WIDTH));
            b.plan.residual(inner, down, x);
            input = Some(Role::FeedForward);
        }
        (_, "gate_up", _) => {
            let (gate, up) = (b.linear(dtype, 136, WIDTH)?, b.linear(dtype, 136, WIDTH)?);
            let x = b.stream();
            b.plan.gate_up_silu(x.normed(norm), gate, up);
            outputs = vec![Role::FeedForward];
        }
        (_, "silu_mul", Op::GateUpSilu { gate, .. }) => {
            let (gate, up) = (
                b.linear(dtype_of(gate.weight), 136, WIDTH)?,
                b.linear(dtype, 136, WIDTH)?,
            );
            let x = b.stream();
            b.plan.gate_up_silu(x.normed(norm), gate, up);
            outputs = vec![Role::FeedForward];
        }
        (_, "store", _) => {
            let weight = b.tensor(dtype, 72, WIDTH)?;
            let x = b.stream();
            b.plan.lm_head(x.normed(norm), weight);
            outputs = vec![Role::Logits];
            want = Want::LOGITS;
        }
        ("sample", ..) => {
            b.plan.vocab_size = 1000;
            let logits = b.plan.value(Role::Logits, 1000);
            b.plan.sample(logits);
            input = Some(Role::Logits);
            outputs = Vec::new();
            want = Want::ID;
        }
        ("route" | "moe_group" | "moe_combine" | "grouped_gate_up" | "grouped_down", ..)
        | (_, "moe_gate_up" | "moe_down", _) => experts(&mut b, norm, real, dispatch.op)?,
        // All that has to do with the cache.
        _ => {
            let mut before = real.ops[..=dispatch.op].iter().rev();
            let Some(Op::QkvRope { q, heads, rope, .. }) =
                before.find(|op| matches!(op, Op::QkvRope { .. }))
            else {
                return Err(Error::internal(format!("no trial for {family}")));
            };
            let x = b.stream();
            let mut query = qkv(&mut b, x.normed(norm), dtype_of(q.weight), *heads, *rope)?;
            let small = Heads {
                heads: heads.heads / heads.kv_heads,
                kv_heads: 1,
                head_dim: heads.head_dim,
            };
            if family == "qk_norm" {
                let Op::QkNorm { weights, rope, .. } = op else {
                    return Err(Error::internal("a kernel of another operation"));
                };
                let weights = match weights {
                    Some(_) => Some([
                        b.tensor(DType::F32, 1, small.head_dim)?,
                        b.tensor(DType::F32, 1, small.head_dim)?,
                    ]),
                    None => None,
                };
                query = b.plan.qk_norm(query, small, 0, 1e-5, weights, *rope);
            }
            let attention = real.ops[dispatch.op..]
                .iter()
                .find(|op| matches!(op, Op::Attention { .. }));
            let Some(Op::Attention { spec, .. }) = attention else {
                return Err(Error::internal(format!("no attention after {family}")));
            };
            b.plan.attention(
                query,
                AttentionSpec {
                    heads: small,
                    cache: 0,
                    ..*spec
                },
            );
            outputs = vec![Role::Attention];
            steps = vec![0, 37, 70, 101, 125];
        }
    }

    let choices = &dispatch.variant.choices;
    let few = family.starts_with("matvec");
    let dot = choices.get(if few { 2 } else { 1 }).copied();
    let cached = steps.len() > 1;
    let splits = trial.split;
    let mixture = matches!(
        op,
        Op::MoeRoute { .. } | Op::MoeGateUpSilu { .. } | Op::MoeDownResidual { .. }
    );
    let tuning = if cached || mixture {
        // As in the model: kernels that exist anyway.
        Tuning {
            splits,
            ..settings.tuning
        }
    } else {
        let subgroups = few && choices.get(1) == Some(&"subgroups");
        let (int8, f16) = (dot == Some("int8"), dot == Some("f16"));
        Tuning {
            subgroups,
            int8,
            f16,
            columns: true,
            splits,
            ..Tuning::PLAIN
        }
    };
    let rounding = tuning.int8 || tuning.f16 || (cached && settings.cache != super::CacheType::F32);
    let rows = match trial.shape {
        Some(Shape::Few(cols)) => cols,
        Some(Shape::Many(4)) => 9,
        _ => 33,
    };
    let limits = Limits::for_context(CONTEXT, 34, 1);
    let mut own = Settings::new(tuning, settings.cache, settings.max_binding, limits);
    own.wrong = settings.wrong.clone();
    own.trial = Some(trial);
    let mut on_gpu = GpuExecutor::with_settings(model.gpu(), b.plan.clone(), own).await?;
    on_gpu.compiled().await?;
    let mut exact = reference(b.plan.clone(), limits)?;
    b.load(&mut on_gpu)?;
    b.load(exact.as_mut())?;

    let mut values: Vec<(LocalBoxFuture<'static, Result<Vec<f32>>>, Vec<f32>)> = Vec::new();
    for first in steps {
        let rows: Vec<Row> = (first..first + rows)
            .map(|pos| Row {
                token: pos * 7 % 72,
                seq: 0,
                pos,
            })
            .collect();
        let n = rows.len();
        let x = b.random.values(n * WIDTH as usize);
        let inputs = input.map(|input| {
            let width = if input == Role::Logits {
                b.plan.vocab_size
            } else {
                WIDTH
            };
            (input, b.random.values(n * width as usize))
        });
        for executor in [&mut on_gpu as &mut dyn Inspect, exact.as_mut()] {
            if b.plan.first(Role::Residual).is_some() {
                executor.poke(Role::Residual, &x, Some(norm.weight))?;
            }
            if let Some((input, values)) = &inputs {
                executor.poke(*input, values, None)?;
            }
        }
        let heads: Vec<u32> = if want == Want::NOTHING {
            Vec::new()
        } else {
            (0..n as u32).collect()
        };
        let step = Step::Rows {
            rows: &rows,
            heads: &Head::all(&heads, want),
            trace: None,
        };
        let (pending, done) = (on_gpu.submit(step)?, exact.submit(step)?.await?);
        if want == Want::ID {
            // One more than the ids, so that an id of 0 is seen.
            let ids = |output: Output| output.ids().iter().map(|id| *id as f32 + 1.0).collect();
            values.push((Box::pin(async move { Ok(ids(pending.await?)) }), ids(done)));
        }
        if first + rows.len() as u32 <= 125 && cached {
            continue;
        }
        for output in &outputs {
            values.push((on_gpu.peek(*output, n), exact.peek(*output, n).await?));
        }
        if outputs == [Role::Residual] && !cached {
            let x = exact.peek(Role::Residual, n).await?;
            values.extend(on_gpu.peek_norm(norm.weight, &x)?);
        }
    }
    Ok(Started {
        values,
        tolerance: if rounding { 0.06 } else { 2e-3 },
        _gpu: on_gpu,
    })
}

/// One group of the model's heads.
fn qkv(
    b: &mut Builder,
    input: Input,
    dtype: DType,
    heads: Heads,
    rope: Option<usize>,
) -> Result<ValueId> {
    let heads = Heads {
        heads: heads.heads / heads.kv_heads,
        kv_heads: 1,
        head_dim: heads.head_dim,
    };
    b.plan.caches = vec![CacheSpec {
        kv_heads: 1,
        head_dim: heads.head_dim,
    }];
    let q = b.linear(dtype, heads.heads * heads.head_dim, WIDTH)?;
    let [k, v] = [
        b.linear(dtype, heads.head_dim, WIDTH)?,
        b.linear(dtype, heads.head_dim, WIDTH)?,
    ];
    Ok(b.plan.qkv_rope(input, [q, k, v], heads, rope, 0))
}

/// The mixture of which operation `at` is a part, with few experts.
fn experts(b: &mut Builder, norm: Norm, real: &Plan, at: usize) -> Result<()> {
    let first = real.ops[..=at]
        .iter()
        .rposition(|op| matches!(op, Op::MoeRoute { .. }))
        .unwrap_or(at);
    let small = |e: &Experts| Experts {
        count: EXPERTS.max(e.used),
        ..*e
    };
    let x = b.stream();
    let input = x.normed(norm);
    let (mut routes, mut inner) = (None, None);
    for op in &real.ops[first..] {
        let dtype = |id: &TensorId| real.tensor(*id).dtype;
        match op {
            Op::MoeRoute {
                router, experts, ..
            } => {
                let experts = small(experts);
                let router = b.tensor(dtype(router), experts.count, WIDTH)?;
                routes = Some(b.plan.moe_route(input, router, experts));
            }
            Op::MoeGateUpSilu {
                gate, up, experts, ..
            } => {
                let experts = small(experts);
                let gate = b.tensor(dtype(gate), experts.count * WIDTH, WIDTH)?;
                let up = b.tensor(dtype(up), experts.count * WIDTH, WIDTH)?;
                inner = routes
                    .map(|routes| b.plan.moe_gate_up_silu(input, routes, [gate, up], experts));
            }
            Op::MoeDownResidual { down, experts, .. } => {
                let experts = small(experts);
                let down = b.tensor(dtype(down), experts.count * WIDTH, WIDTH)?;
                if let (Some(routes), Some(inner)) = (routes, inner) {
                    b.plan.moe_down_residual(inner, routes, down, experts, x);
                }
                break;
            }
            _ => {}
        }
    }
    Ok(())
}
