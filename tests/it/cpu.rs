//! The operations of the CPU executor against their twins in the reference.
//!
//! Products of quantised matrices are compared on activations that 8 bits hold exactly, so that only the order of
//! additions may differ; all else on random ones.

use crate::support::adjustments;
use crate::support::case::{Attention, CONTEXT, Case, QkNorm, rows, run};
use crate::support::harness::{Random, assert_close};
use llamero::error::ErrorKind;
use llamero::exec::cpu::{CpuExecutor, CpuOptions, Pool};
use llamero::exec::{Executor, Inspect, Want};
use llamero::plan::{
    Experts, Gating, Heads, History, Linear, Mask, Role, Row, Sampling, Temperature, TensorId,
};
use llamero::quant::DType;

const FLOATS: &[DType] = &[DType::F32, DType::F16, DType::BF16];
/// One row; fewer than a tile; a tile; several, the last not full.
const ROWS: &[usize] = &[1, 2, 4, 33];

fn new_case(hidden: u32, vocab: u32) -> Case {
    Case {
        lowest: true,
        ..Case::new(hidden, vocab, u64::from(hidden) << 20 | u64::from(vocab))
    }
}

fn on_cpu(case: &Case, threads: usize, cache_f16: bool) -> CpuExecutor {
    let pool = Pool::with_threads(threads);
    let options = CpuOptions {
        pool: Some(pool),
        cache_f16: Some(cache_f16),
        ..CpuOptions::default()
    };
    let mut executor = CpuExecutor::new(case.plan.clone(), CONTEXT, options).unwrap();
    case.load(&mut executor);
    executor
}

/// Values that 8 bits per block of 32 hold exactly.
fn exact_values(n: usize, random: &mut Random) -> Vec<f32> {
    let mut values = Vec::with_capacity(n);
    for block in 0..n.div_ceil(32) {
        let scale = 2_f32.powi(-7 - (block % 3) as i32);
        for i in 0..32.min(n - 32 * block) {
            let q = if i == block % 32 {
                127.0
            } else {
                (random.value() * 127.0).round()
            };
            values.push(q * scale);
        }
    }
    values
}

/// Runs a case on both executors, one and several threads, and compares an activation. The input is set exactly.
fn compare(name: &str, case: &Case, input: Option<(Role, usize)>, output: Role, tolerance: f32) {
    for threads in [1, 3] {
        let (mut cpu, mut reference) = (on_cpu(case, threads, false), case.reference());
        for n in ROWS {
            let mut random = Random(*n as u64);
            let rows = rows(*n, 0, case.plan.vocab_size, &mut random);
            if let Some((activation, width)) = input {
                let values = exact_values(n * width, &mut random);
                let x = random.values(n * case.plan.hidden_size as usize);
                for executor in [&mut cpu as &mut dyn Inspect, &mut reference] {
                    executor.poke(Role::Residual, &x, None).unwrap();
                    executor.poke(activation, &values, None).unwrap();
                }
            }
            let (heads, want) = match output {
                Role::Logits => ((0..*n as u32).collect(), Want::LOGITS),
                _ => (Vec::new(), Want::NOTHING),
            };
            for executor in [&mut cpu as &mut dyn Inspect, &mut reference] {
                run(executor, &rows, &heads, want);
            }
            let want = pollster::block_on(reference.peek(output, *n)).unwrap();
            let got = pollster::block_on(cpu.peek(output, *n)).unwrap();
            assert!(
                !want.is_empty() && want.iter().any(|v| v.abs() > 1e-6),
                "{name}: an output of zeros shows nothing"
            );
            assert_close(
                &format!("{name}, {threads} threads, {n} rows"),
                &got,
                &want,
                tolerance,
            );
        }
    }
}

/// One block, several, and for floats what divides by nothing.
fn widths(dtype: DType) -> &'static [u32] {
    match dtype.block_len() {
        1 => &[1, 32, 72, 331],
        32 => &[32, 96, 576],
        64 => &[64, 192],
        _ => &[256, 768],
    }
}

#[test]
fn every_type_is_multiplied() {
    for dtype in DType::ALL {
        for inner in widths(*dtype) {
            for (hidden, bias) in [(1, false), (4, true), (33, true), (100, false)] {
                let mut case = new_case(hidden, 10);
                let down = case.linear(*dtype, hidden, *inner, bias);
                let plan = case.plan.clone();
                case.residual(Role::FeedForward, down);
                let name = format!("{} {inner} -> {hidden}", dtype.name());
                let width = *inner as usize;
                compare(
                    &name,
                    &case,
                    Some((Role::FeedForward, width)),
                    Role::Residual,
                    5e-5,
                );
                case.plan = plan;
                case.residual(Role::Attention, down);
                compare(
                    &name,
                    &case,
                    Some((Role::Attention, width)),
                    Role::Residual,
                    5e-5,
                );
            }
        }
    }
}

#[test]
fn every_type_is_looked_up() {
    for dtype in DType::ALL {
        for hidden in widths(*dtype) {
            let mut case = new_case(*hidden, 131);
            let table = case.tensor(*dtype, 131, *hidden);
            let norm = case.norm();
            let x = case.plan.embed(table);
            compare(
                &format!("table of {}", dtype.name()),
                &case,
                None,
                Role::Residual,
                1e-6,
            );
            // As a head the same table is a matrix.
            case.plan.lm_head(x.normed(norm), table);
            compare(
                &format!("tied table of {}", dtype.name()),
                &case,
                None,
                Role::Residual,
                1e-6,
            );
            // Activations are rounded here: 1 part in 65,000 of the largest of a block, over all products.
            let tolerance = if FLOATS.contains(dtype) { 5e-5 } else { 2e-4 };
            compare(
                &format!("head of {}", dtype.name()),
                &case,
                None,
                Role::Logits,
                tolerance,
            );
        }
    }
}

#[test]
fn gate_up_silu() {
    for dtype in FLOATS {
        for hidden in widths(*dtype) {
            for (inner, bias) in [(1, false), (33, true), (160, false)] {
                // The second type: inputs in two forms at once.
                for up_type in [*dtype, DType::Q8_0] {
                    if up_type == DType::Q8_0 && hidden % 32 != 0 {
                        continue;
                    }
                    let mut case = new_case(*hidden, 10);
                    let norm = case.norm();
                    let gate = case.linear(*dtype, inner, *hidden, bias);
                    let up = case.linear(up_type, inner, *hidden, bias);
                    let x = case.stream();
                    case.plan.gate_up_silu(x.normed(norm), gate, up);
                    let tolerance = if up_type == DType::Q8_0 { 2e-4 } else { 5e-5 };
                    let name = format!("gate {dtype} up {up_type} {hidden} -> {inner}");
                    let input = Some((Role::Residual, *hidden as usize));
                    compare(&name, &case, input, Role::FeedForward, tolerance);
                }
            }
        }
    }
}

/// Of queries, keys and values.
const ATTENTION_TYPES: [DType; 3] = [DType::F32, DType::F16, DType::F32];

fn attention_case(heads: Heads, mask: Mask, bias: bool, rope_pairs: u32) -> Case {
    let mut case = new_case(64, 50);
    case.attention(Attention {
        types: ATTENTION_TYPES,
        heads,
        mask,
        bias,
        rope_pairs,
        temperature: None,
        qk_norm: QkNorm::No,
    });
    case
}

/// Steps of a growing sequence on both executors.
fn compare_attention(name: &str, case: &Case, steps: &[usize]) {
    for (threads, cache_f16) in [(1, false), (3, false), (1, true)] {
        let (mut cpu, mut reference) = (on_cpu(case, threads, cache_f16), case.reference());
        let name = format!("{name}, {threads} threads, f16 {cache_f16}");
        let mut random = Random(7);
        let mut pos = 0;
        for n in steps {
            let rows = rows(*n, pos, 50, &mut random);
            pos += *n as u32;
            let x = random.values(n * 64);
            for executor in [&mut cpu as &mut dyn Inspect, &mut reference] {
                executor.poke(Role::Residual, &x, None).unwrap();
                run(executor, &rows, &[], Want::NOTHING);
            }
            // f16 keeps 11 bits.
            let tolerance = if cache_f16 { 1e-2 } else { 5e-5 };
            for (activation, tolerance) in [(Role::Query, 5e-5), (Role::Attention, tolerance)] {
                let want = pollster::block_on(reference.peek(activation, *n)).unwrap();
                let got = pollster::block_on(cpu.peek(activation, *n)).unwrap();
                assert_close(
                    &format!("{activation:?} {name}, {n} rows to {pos}"),
                    &got,
                    &want,
                    tolerance,
                );
            }
        }
        for which in [0, 1] {
            let page = cpu.limits().num_pages - 1;
            let want = pollster::block_on(reference.peek_cache(0, page, which)).unwrap();
            let got = pollster::block_on(cpu.peek_cache(0, page, which)).unwrap();
            assert_close(
                &format!("cache {which} {name}"),
                &got,
                &want,
                if cache_f16 { 1e-2 } else { 5e-5 },
            );
        }
    }
}

#[test]
fn qkv_rope_and_attention_over_a_growing_cache() {
    let heads = |heads, kv_heads, head_dim| Heads {
        heads,
        kv_heads,
        head_dim,
    };
    let cases = [
        (heads(4, 4, 16), Mask::Causal, false, 8),
        (heads(4, 2, 16), Mask::Causal, true, 8),
        (heads(9, 3, 64), Mask::Causal, false, 32),
        (heads(8, 1, 128), Mask::Causal, false, 64),
        (heads(3, 1, 24), Mask::Causal, true, 12),
        (heads(2, 1, 6), Mask::Causal, false, 3),
        (heads(2, 2, 18), Mask::Causal, false, 4),
        (heads(4, 2, 32), Mask::Window(10), false, 16),
        (heads(4, 2, 32), Mask::Window(40), false, 16),
        (heads(4, 2, 32), Mask::Chunk(16), false, 16),
        (heads(4, 2, 32), Mask::Causal, false, 0),
    ];
    for (heads, mask, bias, rope_pairs) in cases {
        let case = attention_case(heads, mask, bias, rope_pairs);
        // Steps that end inside a page, at its end, and beyond it.
        compare_attention(
            &format!("{heads:?} {mask:?}"),
            &case,
            &[1, 5, 26, 1, 33, 1, 64],
        );
    }
}

#[test]
fn qk_norm_and_scores_scaled_by_position() {
    check_qk_norm(QkNorm::Plain);
}

#[test]
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
    ] {
        let temperature = Some(Temperature {
            floor_scale: 8.0,
            scale: 0.5,
        });
        let mut case = new_case(64, 50);
        case.attention(Attention {
            types: ATTENTION_TYPES,
            heads,
            mask,
            bias: false,
            rope_pairs: 4,
            temperature,
            qk_norm,
        });
        case.plan.ropes[0].magnitude = 1.0;
        compare_attention(&format!("{heads:?} {mask:?}"), &case, &[1, 30, 1, 9]);
    }
}

#[test]
fn sequences_do_not_see_each_other() {
    let heads = Heads {
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
    };
    let case = attention_case(heads, Mask::Causal, false, 8);
    let (mut cpu, mut reference) = (on_cpu(&case, 2, false), case.reference());
    let mut random = Random(11);
    for executor in [&mut cpu as &mut dyn Inspect, &mut reference] {
        executor.set_pages(0, &[3, 1]).unwrap();
        executor.set_pages(1, &[0, 2]).unwrap();
    }
    for (from, count) in [(0, 20), (20, 1), (21, 15)] {
        // Rows of both in turn, and one of the second ahead.
        let rows: Vec<Row> = (from..from + count)
            .flat_map(|pos| [0, 1].map(|seq| Row { token: 0, seq, pos }))
            .collect();
        let x = random.values(rows.len() * 64);
        for executor in [&mut cpu as &mut dyn Inspect, &mut reference] {
            executor.poke(Role::Residual, &x, None).unwrap();
            run(executor, &rows, &[], Want::NOTHING);
        }
        let want = pollster::block_on(reference.peek(Role::Attention, rows.len())).unwrap();
        let got = pollster::block_on(cpu.peek(Role::Attention, rows.len())).unwrap();
        assert_close(
            &format!("{count} rows of two sequences from {from}"),
            &got,
            &want,
            5e-5,
        );
    }
}

#[test]
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
        (DType::BF16, 64, 18, sigmoid(17, 3)),
        (DType::Q4_K, 256, 256, softmax(16, 4)),
        (DType::IQ2_XS, 256, 256, sigmoid(5, 5)),
    ];
    for (dtype, hidden, inner, experts) in cases {
        let mut case = new_case(hidden, 10);
        let norm = case.norm();
        let router = case.tensor(DType::F32, experts.count, hidden);
        let [gate, up] = [0; 2].map(|_| case.tensor(dtype, experts.count * inner, hidden));
        let down = case.tensor(dtype, experts.count * hidden, inner);
        // A shared expert that reads the same input, as in LLaMA 4.
        let shared = [0; 2].map(|_| case.linear(DType::F32, 32, hidden, false));
        let shared_down = case.linear(DType::F32, hidden, 32, false);
        let x = case.stream();
        let routes = case.plan.moe_route(x.normed(norm), router, experts);
        let given = case
            .plan
            .moe_gate_up_silu(x.normed(norm), routes, [gate, up], experts);
        let beside = case.plan.gate_up_silu(x.normed(norm), shared[0], shared[1]);
        let x = case.plan.moe_down_residual(given, routes, down, experts, x);
        case.plan.residual(beside, shared_down, x);
        let tolerance = if FLOATS.contains(&dtype) { 5e-5 } else { 0.1 };
        let name = format!("{experts:?} {dtype} {hidden} -> {inner}");
        let input = Some((Role::Residual, hidden as usize));
        compare(&name, &case, input, Role::Residual, tolerance);
    }
}

#[test]
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
    ];
    for vocab in [1_u32, 255, 5003] {
        let mut case = new_case(32, vocab);
        let logits = case.plan.value(Role::Logits, vocab);
        case.plan.sample(logits);
        let (mut cpu, mut reference) = (on_cpu(&case, 2, true), case.reference());
        let mut random = Random(u64::from(vocab));
        for sampling in &list {
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
                let logits: Vec<f32> = (0..vocab)
                    .map(|_| ((random.value() * 8.0).powi(3) / 64.0 * 16.0).round() / 16.0)
                    .collect();
                let ids = [&mut cpu as &mut dyn Inspect, &mut reference].map(|executor| {
                    executor.poke(Role::Logits, &logits, None).unwrap();
                    executor
                        .set_sampling(0, &sampling, History::default())
                        .unwrap();
                    run(executor, &row, &[0], Want::ID)
                });
                assert_eq!(ids[0], ids[1], "vocabulary {vocab}, {sampling:?}");
            }
        }
    }
}

#[test]
fn adjusted_logits_give_the_same_tokens() {
    for vocab in [1_u32, 2, 255, 5003] {
        let mut case = new_case(32, vocab);
        let logits = case.plan.value(Role::Logits, vocab);
        case.plan.sample(logits);
        let (mut cpu, mut reference) = (on_cpu(&case, 2, true), case.reference());
        adjustments::compare(vocab, [&mut cpu, &mut reference]);
    }
}

#[test]
fn activations_that_are_no_numbers_stay_so() {
    for dtype in [DType::F32, DType::Q4_0, DType::Q8_0, DType::Q6_K] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut case = new_case(8, 10);
            let down = case.linear(dtype, 8, 256, false);
            case.residual(Role::FeedForward, down);
            let mut cpu = on_cpu(&case, 1, true);
            let mut values = vec![0.5; 256];
            values[77] = bad;
            cpu.poke(Role::Residual, &[0.0; 8], None).unwrap();
            cpu.poke(Role::FeedForward, &values, None).unwrap();
            run(
                &mut cpu,
                &[Row {
                    token: 0,
                    seq: 0,
                    pos: 0,
                }],
                &[],
                Want::NOTHING,
            );
            let got = pollster::block_on(cpu.peek(Role::Residual, 1)).unwrap();
            assert!(
                got.iter().all(|x| !x.is_finite()),
                "{dtype}: {bad} became {got:?}"
            );
        }
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    // Where a block has its f16 scales.
    for (dtype, at) in [
        (DType::F16, &[0][..]),
        (DType::Q4_0, &[0]),
        (DType::Q4_1, &[0, 2]),
        (DType::Q5_1, &[2]),
        (DType::Q8_0, &[0]),
        (DType::Q2_K, &[80, 82]),
        (DType::Q3_K, &[108]),
        (DType::Q4_K, &[0, 2]),
        (DType::Q6_K, &[208]),
        (DType::IQ4_XS, &[0]),
    ] {
        for at in at {
            let mut case = new_case(8, 10);
            let down = case.linear(dtype, 8, 256, false);
            case.residual(Role::FeedForward, down);
            let mut executor =
                CpuExecutor::new(case.plan.clone(), CONTEXT, CpuOptions::default()).unwrap();
            let mut bytes = case.weights[0].clone();
            bytes[at + 1] = 0x7c;
            let error = executor.load_rows(TensorId(0), 0, &bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidFile, "{dtype}");
        }
    }
}

#[test]
fn a_model_beyond_all_memory_is_refused_with_the_numbers() {
    let mut case = new_case(1 << 20, 10);
    let weight = case.plan.tensor_spec("huge", DType::F32, 1 << 40, 1 << 20);
    case.residual(Role::FeedForward, Linear { weight, bias: None });
    let error = CpuExecutor::new(case.plan, CONTEXT, CpuOptions::default())
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::ModelTooLarge);
}
