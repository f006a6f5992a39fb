//! Every kernel against its twin in the reference, over one list of cases.
//!
//! A case is a plan of one or a few operations with random weights. Both executors get the same activations, run it,
//! and are compared on what it writes. Each case runs with one row and with many (matvec and matmul), plain and with
//! subgroups.

use crate::support::adjustments;
use crate::support::case::{Attention, CONTEXT, Case, QkNorm, rows, run};
use crate::support::harness::{Random, assert_close, gpu, gpu_variants, rounding_variants};
use llamero::exec::gpu::{CacheType, GpuExecutor, GpuOptions};
use llamero::exec::{Executor, Inspect, Want};
use llamero::plan::{
    Experts, Gating, Heads, History, Linear, Mask, Norm, Op, Role, Row, Sampling, Temperature,
    TensorId,
};
use llamero::quant::DType;

/// Types for the cases in which a type is not what matters: floats, whole blocks of 32 and of 256.
const SOME: &[DType] = &[
    DType::F32,
    DType::F16,
    DType::Q8_0,
    DType::Q4_1,
    DType::Q6_K,
];

/// A software driver takes up to a second to compile a kernel, so types other than [`SOME`] run in the smallest and the
/// largest size alone, and with the plainest and the fastest kernels.
fn is_thorough(case: &Case) -> bool {
    case.plan
        .tensors
        .iter()
        .all(|t| t.rows == 1 || SOME.contains(&t.dtype))
}

/// Matrices of a block or a few run with the plainest and the fastest exact kernels alone: how sizes are cut into lanes and
/// tiles shows there, and what else differs shows in wider ones.
fn is_narrow(case: &Case) -> bool {
    let experts = case
        .plan
        .ops
        .iter()
        .any(|op| matches!(op, Op::MoeRoute { .. }));
    !experts
        && case
            .plan
            .tensors
            .iter()
            .all(|t| t.rows == 1 || t.cols < 256)
}

fn on_gpu(case: &Case, options: &GpuOptions) -> GpuExecutor {
    let options = GpuOptions {
        max_rows: Some(64),
        ..options.clone()
    };
    let executor = pollster::block_on(GpuExecutor::new(
        &gpu(),
        case.plan.clone(),
        CONTEXT,
        &options,
    ));
    let mut executor = executor.unwrap();
    pollster::block_on(executor.ready()).unwrap();
    case.load(&mut executor);
    executor
}

/// One row is matvec; 2, 32, 33 are matmul with a tile that is nearly empty, full, and overfull.
const ROWS: &[usize] = &[1, 2, 32, 33];
/// With kernels for 2, 4 and 8 rows: each of them full and not, both tiles of matmul full and not.
const COLUMN_ROWS: &[usize] = &[1, 2, 3, 8, 9, 33, 64];

/// Runs a case on both executors and compares an activation.
fn compare(name: &str, case: &Case, input: Option<(Role, usize, Option<TensorId>)>, output: Role) {
    let mut exact = gpu_variants();
    if (!is_thorough(case) || is_narrow(case)) && exact.len() > 2 {
        exact.drain(1..exact.len() - 1);
    }
    let exact = exact
        .into_iter()
        .map(|(variant, options)| (variant, options, 5e-5));
    // Inputs are within 1, and rows of weights have a norm of about 1.2: rounding to a 127th of the largest, or to 11 bits.
    let rounding = rounding_variants()
        .into_iter()
        .map(|(variant, options)| (variant, options, if variant == "f16" { 5e-3 } else { 0.05 }));
    // How a type is read shows in the exact ones.
    let some = case
        .plan
        .tensors
        .iter()
        .any(|t| t.rows > 1 && SOME.contains(&t.dtype));
    let shows = some && !is_narrow(case) && output != Role::Residual;
    let rounding = rounding.filter(|_| shows);
    for (variant, options, tolerance) in exact.chain(rounding) {
        let (mut on_gpu, mut reference) = (on_gpu(case, &options), case.reference());
        for n in if options.columns == Some(true) {
            COLUMN_ROWS
        } else {
            ROWS
        } {
            let mut random = Random(*n as u64);
            let rows = rows(*n, 0, case.plan.vocab_size, &mut random);
            if let Some((activation, width, norm)) = input {
                let values = random.values(n * width);
                reference.poke(activation, &values, norm).unwrap();
                on_gpu.poke(activation, &values, norm).unwrap();
                if activation != Role::Residual {
                    // These operations add to the residual stream.
                    let x = random.values(n * case.plan.hidden_size as usize);
                    let any_norm = case.plan.ops.iter().find_map(Op::norm).map(|n| n.weight);
                    reference.poke(Role::Residual, &x, any_norm).unwrap();
                    on_gpu.poke(Role::Residual, &x, any_norm).unwrap();
                }
            }
            let (heads, want) = if output == Role::Logits {
                ((0..*n as u32).collect(), Want::LOGITS)
            } else {
                (Vec::new(), Want::NOTHING)
            };
            run(&mut reference, &rows, &heads, want);
            run(&mut on_gpu, &rows, &heads, want);
            let want = pollster::block_on(reference.peek(output, *n)).unwrap();
            let got = pollster::block_on(on_gpu.peek(output, *n)).unwrap();
            assert!(
                !want.is_empty() && want.iter().any(|v| v.abs() > 1e-6),
                "{name}: an output of zeros shows nothing"
            );
            assert_close(
                &format!("{name}, {variant}, {n} rows"),
                &got,
                &want,
                tolerance,
            );
        }
    }
}

/// Widths that are 1 block, odd, not a multiple of a tile; quantised types have whole blocks only. Kernels are compiled for
/// each size, and that is what takes the time: heights vary at the first of these alone.
fn widths(dtype: DType) -> &'static [u32] {
    match dtype.block_len() {
        1 => &[32, 72, 256, 331],
        32 if SOME.contains(&dtype) => &[32, 96, 576],
        32 => &[32, 576],
        64 => &[64, 576],
        _ => &[256, 768],
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn embed() {
    for dtype in DType::ALL {
        for hidden in widths(*dtype) {
            let mut case = Case::new(*hidden, 131, 1);
            let table = case.tensor(*dtype, 131, *hidden);
            let norm = case.norm();
            let head = case.tensor(DType::F32, 5, *hidden);
            let x = case.plan.embed(table);
            let mut with_head = Case {
                plan: case.plan.clone(),
                weights: case.weights.clone(),
                ..Case::new(*hidden, 131, 2)
            };
            with_head.plan.vocab_size = 5;
            with_head.plan.lm_head(x.normed(norm), head);
            // The plan needs a norm to scale by; the stream itself must be right with any.
            let head = Linear {
                weight: head,
                bias: None,
            };
            case.plan.gate_up_silu(x.normed(norm), head, head);
            compare(
                &format!("embed {} {hidden}", dtype.name()),
                &case,
                None,
                Role::Residual,
            );
            // Scaled stream and sums of squares, as the head sees them.
            compare(
                &format!("embed and norm {} {hidden}", dtype.name()),
                &with_head,
                None,
                Role::Logits,
            );
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn lm_head() {
    for dtype in DType::ALL {
        for (at, hidden) in widths(*dtype).iter().enumerate() {
            let vocabs: &[u32] = match *dtype {
                DType::F32 if at == 0 => &[1, 3, 64, 331],
                dtype if at == 0 && SOME.contains(&dtype) => &[3, 331],
                _ => &[331],
            };
            for vocab in vocabs.iter().copied() {
                let mut case = Case::new(*hidden, vocab, 3);
                let norm = case.norm();
                let weight = case.tensor(*dtype, vocab, *hidden);
                let x = case.stream();
                case.plan.lm_head(x.normed(norm), weight);
                let input = (Role::Residual, *hidden as usize, Some(norm.weight));
                let name = format!("lm_head {} {hidden} {vocab}", dtype.name());
                compare(&name, &case, Some(input), Role::Logits);
            }
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn residual_and_the_norm_that_follows() {
    for dtype in SOME {
        for (at, inner) in widths(*dtype).iter().enumerate() {
            let sizes: &[_] = if at == 0 {
                &[(32, false), (100, true), (576, true)]
            } else {
                &[(100, true)]
            };
            for (hidden, bias) in sizes.iter().copied() {
                let mut case = Case::new(hidden, 10, 4);
                let down = case.linear(*dtype, hidden, *inner, bias);
                let norm = case.norm();
                let weight = case.tensor(DType::F32, 10, hidden);
                let plan = case.plan.clone();
                let x = case.residual(Role::FeedForward, down);
                case.plan.lm_head(x.normed(norm), weight);
                let name = format!("down_residual {} {inner} -> {hidden}", dtype.name());
                let input = (Role::FeedForward, *inner as usize, None);
                compare(&name, &case, Some(input), Role::Logits);
                case.plan = plan;
                let x = case.residual(Role::Attention, down);
                case.plan.lm_head(x.normed(norm), weight);
                let input = (Role::Attention, *inner as usize, None);
                compare(
                    &name.replace("down", "o"),
                    &case,
                    Some(input),
                    Role::Residual,
                );
            }
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn gate_up_silu() {
    for dtype in SOME {
        for (at, hidden) in widths(*dtype).iter().enumerate() {
            let sizes: &[_] = if at == 0 {
                &[(1, false), (33, true), (160, false)]
            } else {
                &[(33, true)]
            };
            for (inner, bias) in sizes.iter().copied() {
                // The last type: gate and up that share no kernel launch.
                let other = if *dtype == DType::F16 {
                    DType::F32
                } else {
                    DType::F16
                };
                for up_type in if at == 0 && bias {
                    vec![*dtype, other]
                } else {
                    vec![*dtype]
                } {
                    let mut case = Case::new(*hidden, 10, 5);
                    let norm = case.norm();
                    let gate = case.linear(*dtype, inner, *hidden, bias);
                    let up = case.linear(up_type, inner, *hidden, bias);
                    let x = case.stream();
                    case.plan.gate_up_silu(x.normed(norm), gate, up);
                    let name = format!(
                        "gate_up_silu {} {} {hidden} -> {inner}",
                        dtype.name(),
                        up_type.name()
                    );
                    let input = (Role::Residual, *hidden as usize, Some(norm.weight));
                    compare(&name, &case, Some(input), Role::FeedForward);
                }
            }
        }
    }
}

fn attention_case(
    dtype: DType,
    v_type: DType,
    heads: Heads,
    mask: Mask,
    bias: bool,
    rope_pairs: u32,
) -> Case {
    let mut case = Case::new(64, 50, 6);
    case.attention(Attention {
        types: [dtype, dtype, v_type],
        heads,
        mask,
        bias,
        rope_pairs,
        temperature: None,
        qk_norm: QkNorm::No,
    });
    case
}

/// f16 keeps 11 bits, `q8_0` a 254th of the largest of 32; keys and values here are up to about 4.
fn cache_tolerance(cache: CacheType) -> f32 {
    match cache {
        CacheType::F32 => 5e-5,
        CacheType::F16 => 5e-3,
        CacheType::Q8_0 => 3e-2,
    }
}

/// Sequences long enough for every number of splits, next to a short one in the same step.
#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn attention_split_among_workgroups() {
    let heads = |heads, kv_heads, head_dim| Heads {
        heads,
        kv_heads,
        head_dim,
    };
    for (heads, mask) in [
        (heads(4, 1, 32), Mask::Causal),
        (heads(5, 1, 80), Mask::Causal),
        (heads(2, 2, 64), Mask::Window(300)),
        (heads(6, 2, 16), Mask::Chunk(512)),
    ] {
        let temperature = Some(Temperature {
            floor_scale: 64.0,
            scale: 0.3,
        });
        let mut case = Case::new(64, 50, 6);
        case.attention(Attention {
            types: [DType::F32; 3],
            heads,
            mask,
            bias: false,
            rope_pairs: 4,
            temperature,
            qk_norm: QkNorm::No,
        });
        let norm = case.plan.ops[0].norm().map(|n| n.weight);
        for (variant, options) in gpu_variants()
            .into_iter()
            .filter(|(_, options)| options.splits == Some(true))
        {
            for cache in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
                let options = GpuOptions {
                    cache: Some(cache),
                    ..options.clone()
                };
                let (mut on_gpu, mut reference) = (on_gpu(&case, &options), case.reference());
                let mut random = Random(11);
                let mut step = |rows: &[Row], compared: bool| {
                    let x = random.values(rows.len() * 64);
                    for executor in [&mut on_gpu as &mut dyn Inspect, &mut reference] {
                        // Sequence 1 has the last page.
                        let mut pages: Vec<u32> = (0..executor.limits().num_pages).rev().collect();
                        let last = pages.pop().unwrap();
                        executor.set_pages(0, &pages).unwrap();
                        executor.set_pages(1, &[last]).unwrap();
                        executor.poke(Role::Residual, &x, norm).unwrap();
                        run(executor, rows, &[], Want::NOTHING);
                    }
                    if !compared {
                        return;
                    }
                    let want =
                        pollster::block_on(reference.peek(Role::Attention, rows.len())).unwrap();
                    let got = pollster::block_on(on_gpu.peek(Role::Attention, rows.len())).unwrap();
                    let name = format!("{heads:?} {mask:?} {variant} {cache:?}, {rows:?}");
                    assert_close(&name, &got, &want, cache_tolerance(cache));
                };
                let row = |seq, pos| Row { token: 0, seq, pos };
                step(&[row(1, 0), row(1, 1)], false);
                for first in (0..960).step_by(64) {
                    let rows: Vec<Row> = (first..first + 64).map(|pos| row(0, pos)).collect();
                    step(&rows, first == 512);
                    if [256, 320, 512, 640].contains(&first) {
                        // Written again in the next round.
                        step(&[row(0, first + 64)], true);
                        step(&[row(0, first + 64), row(1, 2), row(0, first + 65)], true);
                    }
                }
                step(&[row(0, 960)], true);
                // Rows of two sequences in one tile.
                let mut next = [961, 2];
                let mixed: Vec<Row> = (0..24)
                    .map(|i| {
                        let seq = u32::from(i % 7 == 3);
                        next[seq as usize] += 1;
                        row(seq, next[seq as usize] - 1)
                    })
                    .collect();
                step(&mixed, true);
            }
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn qkv_rope_and_attention_over_a_growing_cache() {
    let heads = |heads, kv_heads, head_dim| Heads {
        heads,
        kv_heads,
        head_dim,
    };
    let cases = [
        // MHA, GQA of 2 and 3 and 8, one key/value head, groups too wide for one workgroup, head dims that are odd
        // multiples of 2.
        (heads(4, 4, 16), Mask::Causal, false, 8),
        (heads(4, 2, 16), Mask::Causal, true, 8),
        (heads(9, 3, 64), Mask::Causal, false, 32),
        (heads(8, 1, 128), Mask::Causal, false, 64),
        (heads(32, 1, 64), Mask::Causal, false, 32),
        (heads(3, 1, 24), Mask::Causal, true, 12),
        (heads(2, 1, 6), Mask::Causal, false, 3),
        (heads(2, 2, 18), Mask::Causal, false, 4),
        (heads(2, 1, 256), Mask::Causal, false, 128),
        (heads(4, 2, 32), Mask::Window(10), false, 16),
        (heads(4, 2, 32), Mask::Chunk(16), false, 16),
        (heads(4, 2, 32), Mask::Causal, false, 0),
    ];
    for (heads, mask, bias, rope_pairs) in cases {
        // Values of another type have a product of their own; once is enough.
        let types = [(DType::Q8_0, DType::Q8_0), (DType::Q4_0, DType::F32)];
        let types = if bias { &types[..] } else { &types[..1] };
        for (dtype, v_type) in types.iter().copied() {
            let case = attention_case(dtype, v_type, heads, mask, bias, rope_pairs);
            let norm = case.plan.ops[0].norm().map(|n| n.weight);
            let variants = gpu_variants();
            let fastest = variants.len() - 1;
            for (index, (variant, options)) in variants.into_iter().enumerate() {
                for cache in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
                    // Caches that round differ in how they are read and written; with every kernel in two cases.
                    if cache != CacheType::F32 && index != fastest && !bias {
                        continue;
                    }
                    let options = GpuOptions {
                        cache: Some(cache),
                        ..options.clone()
                    };
                    let (mut on_gpu, mut reference) = (on_gpu(&case, &options), case.reference());
                    let mut random = Random(7);
                    let mut pos = 0;
                    // Steps that end inside a page, at its end, and beyond it.
                    for n in [1, 5, 26, 1, 33, 1] {
                        let rows = rows(n, pos, 50, &mut random);
                        pos += n as u32;
                        let x = random.values(n * 64);
                        for executor in [&mut on_gpu as &mut dyn Inspect, &mut reference] {
                            executor.poke(Role::Residual, &x, norm).unwrap();
                            run(executor, &rows, &[], Want::NOTHING);
                        }
                        let name = format!(
                            "{heads:?} {mask:?} {} {variant} {cache:?}, {n} rows to {pos}",
                            v_type.name()
                        );
                        let tolerance = cache_tolerance(cache);
                        for activation in [Role::Query, Role::Attention] {
                            let want = pollster::block_on(reference.peek(activation, n)).unwrap();
                            let got = pollster::block_on(on_gpu.peek(activation, n)).unwrap();
                            let tolerance = if activation == Role::Query {
                                5e-5
                            } else {
                                tolerance
                            };
                            assert_close(&format!("{activation:?} {name}"), &got, &want, tolerance);
                        }
                    }
                    for which in [0, 1] {
                        let page = on_gpu.limits().num_pages - 1;
                        let want =
                            pollster::block_on(reference.peek_cache(0, page, which)).unwrap();
                        let got = pollster::block_on(on_gpu.peek_cache(0, page, which)).unwrap();
                        let tolerance = cache_tolerance(cache);
                        assert_close(
                            &format!("cache {which} {heads:?} {variant}"),
                            &got,
                            &want,
                            tolerance,
                        );
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn qk_norm_and_scores_scaled_by_position() {
    check_qk_norm(QkNorm::Plain);
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn qk_norm_with_weights_before_the_rotation() {
    check_qk_norm(QkNorm::Weighed);
}

fn check_qk_norm(qk_norm: QkNorm) {
    for (heads, mask) in [
        (
            Heads {
                heads: 4,
                kv_heads: 2,
                head_dim: 16,
            },
            Mask::Causal,
        ),
        (
            Heads {
                heads: 3,
                kv_heads: 1,
                head_dim: 18,
            },
            Mask::Chunk(8),
        ),
        (
            Heads {
                heads: 2,
                kv_heads: 2,
                head_dim: 128,
            },
            Mask::Causal,
        ),
    ] {
        let temperature = Some(Temperature {
            floor_scale: 8.0,
            scale: 0.5,
        });
        let mut case = Case::new(64, 50, 6);
        case.attention(Attention {
            types: [DType::F32; 3],
            heads,
            mask,
            bias: false,
            rope_pairs: 4,
            temperature,
            qk_norm,
        });
        case.plan.ropes[0].magnitude = 1.0;
        let norm = case.plan.ops[0].norm().map(|n| n.weight);
        for (variant, options) in gpu_variants() {
            for cache in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
                let options = GpuOptions {
                    cache: Some(cache),
                    ..options.clone()
                };
                let (mut on_gpu, mut reference) = (on_gpu(&case, &options), case.reference());
                let mut random = Random(8);
                let mut pos = 0;
                for n in [1, 30, 1, 9] {
                    let rows = rows(n, pos, 50, &mut random);
                    pos += n as u32;
                    let x = random.values(n * 64);
                    for executor in [&mut on_gpu as &mut dyn Inspect, &mut reference] {
                        executor.poke(Role::Residual, &x, norm).unwrap();
                        run(executor, &rows, &[], Want::NOTHING);
                    }
                    let tolerance = 2.0 * cache_tolerance(cache);
                    for activation in [Role::Query, Role::Attention] {
                        let want = pollster::block_on(reference.peek(activation, n)).unwrap();
                        let got = pollster::block_on(on_gpu.peek(activation, n)).unwrap();
                        let name = format!(
                            "{activation:?} {heads:?} {variant} {cache:?}, {n} rows to {pos}"
                        );
                        assert_close(&name, &got, &want, tolerance);
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn mixtures_of_experts() {
    let softmax = |count, used| Experts {
        count,
        used,
        gating: Gating::Softmax,
    };
    let sigmoid = |count, used| Experts {
        count,
        used,
        gating: Gating::Sigmoid,
    };
    let cases = [
        (DType::F32, 72, 40, softmax(4, 2)),
        (DType::F32, 331, 33, sigmoid(3, 1)),
        (DType::F16, 64, 96, softmax(1, 1)),
        (DType::Q8_0, 96, 64, softmax(8, 2)),
        (DType::Q4_0, 64, 160, sigmoid(17, 3)),
        (DType::Q4_K, 256, 256, softmax(128, 8)),
        (DType::IQ2_XS, 256, 256, sigmoid(5, 5)),
    ];
    for (dtype, hidden, inner, experts) in cases {
        let mut case = Case::new(hidden, 10, 9);
        let norm = case.norm();
        let router = case.tensor(DType::F32, experts.count, hidden);
        let [gate, up] = [0; 2].map(|_| case.tensor(dtype, experts.count * inner, hidden));
        let down = case.tensor(dtype, experts.count * hidden, inner);
        let head = case.tensor(DType::F32, 10, hidden);
        // A shared expert that reads the same input, as in LLaMA 4; then what the next norm makes of the sum.
        let shared = [0; 2].map(|_| case.linear(DType::F32, 32, hidden, false));
        let shared_down = case.linear(DType::F32, hidden, 32, false);
        // With the shared expert, and without it, so that the experts' own sums of squares are what the head uses.
        let mixture = |case: &mut Case, with_shared: bool| {
            case.plan = case.plan.without_ops();
            let x = case.stream();
            let input = x.normed(norm);
            let routes = case.plan.moe_route(input, router, experts);
            let given = case
                .plan
                .moe_gate_up_silu(input, routes, [gate, up], experts);
            let beside = with_shared.then(|| case.plan.gate_up_silu(input, shared[0], shared[1]));
            let mut x = case.plan.moe_down_residual(given, routes, down, experts, x);
            if let Some(beside) = beside {
                x = case.plan.residual(beside, shared_down, x);
            }
            case.plan.lm_head(x.normed(norm), head);
        };
        mixture(&mut case, true);
        let name = format!("{experts:?} {} {hidden} -> {inner}", dtype.name());
        let input = Some((Role::Residual, hidden as usize, Some(norm.weight)));
        compare(&name, &case, input, Role::Logits);
        compare(&name, &case, input, Role::Residual);
        mixture(&mut case, false);
        compare(&format!("{name}, alone"), &case, input, Role::Logits);
        compare_in_parts(&name, &case, experts, norm);
    }
}

/// Compares logits with experts cut into parts, as where they are larger than a binding.
fn compare_in_parts(name: &str, case: &Case, experts: Experts, norm: Norm) {
    let whole = on_gpu(case, &GpuOptions::default());
    let largest = whole
        .lowered()
        .parts
        .iter()
        .map(|part| part.weights_bytes())
        .max()
        .unwrap();
    let most = if experts.count < 8 {
        largest + 64
    } else {
        largest / 3
    };
    let options = GpuOptions {
        max_binding: Some(most),
        ..GpuOptions::default()
    };
    let (mut on_gpu, mut reference) = (on_gpu(case, &options), case.reference());
    let mut random = Random(10);
    let x = random.values(9 * case.plan.hidden_size as usize);
    let rows = rows(9, 0, 10, &mut random);
    let heads: Vec<u32> = (0..9).collect();
    for executor in [&mut on_gpu as &mut dyn Inspect, &mut reference] {
        executor
            .poke(Role::Residual, &x, Some(norm.weight))
            .unwrap();
        run(executor, &rows, &heads, Want::LOGITS);
    }
    let parts = on_gpu.lowered().parts.len();
    assert!(experts.count < 8 || parts > 5, "{name}: {parts} parts");
    let want = pollster::block_on(reference.peek(Role::Logits, 9)).unwrap();
    let got = pollster::block_on(on_gpu.peek(Role::Logits, 9)).unwrap();
    assert_close(&format!("{name} in {parts} parts"), &got, &want, 5e-5);
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn rope_is_exact_at_large_positions() {
    let heads = Heads {
        heads: 2,
        kv_heads: 1,
        head_dim: 64,
    };
    let case = attention_case(DType::F32, DType::F32, heads, Mask::Causal, false, 32);
    let norm = case.plan.ops[0].norm().map(|n| n.weight);
    let (mut on_gpu, mut reference) = (on_gpu(&case, &gpu_variants()[0].1), case.reference());
    let mut random = Random(8);
    let x = random.values(64);
    for pos in [0, 1, 255, 256, 257, 511, 1000, 1023] {
        let row = [Row {
            token: 0,
            seq: 0,
            pos,
        }];
        for executor in [&mut on_gpu as &mut dyn Inspect, &mut reference] {
            executor.poke(Role::Residual, &x, norm).unwrap();
            run(executor, &row, &[], Want::NOTHING);
        }
        let want = pollster::block_on(reference.peek(Role::Query, 1)).unwrap();
        let got = pollster::block_on(on_gpu.peek(Role::Query, 1)).unwrap();
        assert_close(&format!("query at {pos}"), &got, &want, 5e-6);
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn sampling_picks_the_same_tokens() {
    let settings = |temperature, top_k, top_p, min_p| Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        ..Sampling::GREEDY
    };
    let list = [
        Sampling::GREEDY,
        settings(1.0, 0, 1.0, 0.0),
        settings(0.7, 40, 1.0, 0.0),
        settings(1.3, 0, 0.9, 0.0),
        settings(0.8, 50, 0.95, 0.0),
        settings(1.0, 0, 1.0, 0.05),
        settings(2.0, 1, 1.0, 0.0),
        settings(1.0, 0, 0.0, 0.0),
        settings(1.0, 100_000, 0.5, 0.01),
        settings(1e-3, 0, 1.0, 0.0),
        settings(1e-30, 0, 1.0, 0.0),
    ];
    for vocab in [1_u32, 2, 255, 1000, 5003] {
        let mut case = Case::new(32, vocab, 9);
        let logits = case.plan.value(Role::Logits, vocab);
        case.plan.sample(logits);
        let (mut on_gpu, mut reference) = (on_gpu(&case, &gpu_variants()[0].1), case.reference());
        let mut random = Random(u64::from(vocab));
        let mut different = std::collections::BTreeSet::new();
        for (i, sampling) in list.iter().enumerate() {
            for seed in 0..20 {
                let sampling = Sampling {
                    seed: seed << 30 | seed,
                    ..sampling.clone()
                };
                let row = [Row {
                    token: 0,
                    seq: 0,
                    pos: 3 * seed as u32,
                }];
                // Peaked like a model's, with equal values among them.
                let logits: Vec<f32> = (0..vocab)
                    .map(|_| ((random.value() * 8.0).powi(3) / 64.0 * 16.0).round() / 16.0)
                    .collect();
                let mut ids = Vec::new();
                for executor in [&mut on_gpu as &mut dyn Inspect, &mut reference] {
                    executor.poke(Role::Logits, &logits, None).unwrap();
                    executor
                        .set_sampling(0, &sampling, History::default())
                        .unwrap();
                    ids.push(run(executor, &row, &[0], Want::ID));
                }
                assert_eq!(ids[0], ids[1], "vocabulary {vocab}, {sampling:?}");
                if i == 1 {
                    different.insert(ids[0].ids()[0]);
                }
            }
        }
        assert!(
            vocab < 255 || different.len() > 5,
            "sampling must vary: {different:?}"
        );
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn adjusted_logits_give_the_same_tokens() {
    for vocab in [1_u32, 2, 255, 1000, 5003] {
        let mut case = Case::new(32, vocab, 9);
        let logits = case.plan.value(Role::Logits, vocab);
        case.plan.sample(logits);
        let (mut on_gpu, mut reference) = (on_gpu(&case, &gpu_variants()[0].1), case.reference());
        adjustments::compare(vocab, [&mut on_gpu, &mut reference]);
    }
}
