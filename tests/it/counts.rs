//! What a decode step costs, counted: from the lowered plan for models of real sizes (no device needed), and by a
//! device that counts.

use crate::support::harness::{Random, assign_pages, gpu};
use llamero::exec::gpu::kernels::{FACTS, FAMILIES, FamilyId};
use llamero::exec::gpu::lower::{
    Buffer, CacheType, Lowered, Recording, Region, RowBucket, Rows, Settings, Tuning,
};
use llamero::exec::gpu::{GpuExecutor, GpuOptions};
use llamero::exec::{Executor, Head, Limits, Step, Want};
use llamero::plan::{
    AttentionSpec, CacheSpec, Heads, History, Linear, Mask, Norm, Penalties, Plan, Rope, Row,
    Sampling, TensorId, TokenMask,
};
use llamero::quant::DType;

struct Dims {
    hidden: u32,
    ffn: u32,
    blocks: u32,
    heads: Heads,
    vocab: u32,
    tied: bool,
}

const fn heads(heads: u32, kv_heads: u32, head_dim: u32) -> Heads {
    Heads {
        heads,
        kv_heads,
        head_dim,
    }
}

const LLAMA_32_1B: Dims = Dims {
    hidden: 2048,
    ffn: 8192,
    blocks: 16,
    heads: heads(32, 8, 64),
    vocab: 128_256,
    tied: true,
};
const LLAMA_31_8B: Dims = Dims {
    hidden: 4096,
    ffn: 14_336,
    blocks: 32,
    heads: heads(32, 8, 128),
    vocab: 128_256,
    tied: false,
};
const LLAMA_2_7B: Dims = Dims {
    hidden: 4096,
    ffn: 11_008,
    blocks: 32,
    heads: heads(32, 32, 128),
    vocab: 32_000,
    tied: false,
};
const SMALL: Dims = Dims {
    hidden: 64,
    ffn: 160,
    blocks: 3,
    heads: heads(4, 2, 16),
    vocab: 331,
    tied: true,
};

fn plan(dims: &Dims, dtype: DType) -> Plan {
    let (e, f, h) = (dims.hidden, dims.ffn, dims.heads);
    let (q_rows, kv_rows) = (h.heads * h.head_dim, h.kv_heads * h.head_dim);
    let mut plan = Plan::new(e, dims.vocab, 4096);
    plan.ropes = vec![Rope {
        inv_freq: vec![0.5; h.head_dim as usize / 2],
        magnitude: 1.0,
    }];
    plan.caches = vec![
        CacheSpec {
            kv_heads: h.kv_heads,
            head_dim: h.head_dim
        };
        dims.blocks as usize
    ];
    let tensor = |plan: &mut Plan, dtype, rows: u32, cols: u32| {
        let name = format!("tensor {}", plan.tensors.len());
        plan.tensor_spec(name, dtype, rows.into(), cols.into())
    };
    let linear = |plan: &mut Plan, rows, cols| Linear {
        weight: tensor(plan, dtype, rows, cols),
        bias: None,
    };
    let norm = |plan: &mut Plan| Norm {
        weight: tensor(plan, DType::F32, 1, e),
        eps: 1e-5,
    };
    let table = tensor(&mut plan, dtype, dims.vocab, e);
    let mut x = plan.embed(table);
    for cache in 0..dims.blocks as usize {
        plan.enter_layer(Some(cache as u32));
        let first = norm(&mut plan);
        let qkv = [q_rows, kv_rows, kv_rows].map(|rows| linear(&mut plan, rows, e));
        let query = plan.qkv_rope(x.normed(first), qkv, h, Some(0), cache);
        let spec = AttentionSpec {
            heads: h,
            cache,
            scale: 0.125,
            mask: Mask::Causal,
            temperature: None,
        };
        let z = plan.attention(query, spec);
        let o = linear(&mut plan, e, q_rows);
        x = plan.residual(z, o, x);
        let second = norm(&mut plan);
        let [gate, up] = [f, f].map(|rows| linear(&mut plan, rows, e));
        let inner = plan.gate_up_silu(x.normed(second), gate, up);
        let down = linear(&mut plan, e, f);
        x = plan.residual(inner, down, x);
    }
    let head = if dims.tied {
        table
    } else {
        tensor(&mut plan, dtype, dims.vocab, e)
    };
    let last = norm(&mut plan);
    let logits = plan.lm_head(x.normed(last), head);
    plan.sample(logits);
    plan
}

const TUNING: Tuning = Tuning {
    subgroups: true,
    columns: true,
    splits: true,
    ..Tuning::PLAIN
};

fn settings(max_binding: u64) -> Settings {
    Settings::new(
        TUNING,
        CacheType::F16,
        max_binding,
        Limits::for_context(4096, 256, 3),
    )
}

/// The head for one row.
fn head(step: &Recording) -> &[llamero::exec::gpu::lower::Dispatch] {
    let (_, head) = step
        .heads
        .iter()
        .find(|(bucket, _)| *bucket == RowBucket::Few(1))
        .unwrap();
    head
}

/// Each variant of the decode step that the table bounds.
#[test]
fn a_decode_step_reads_each_weight_once_in_few_dispatches() {
    for (name, dims) in [
        ("3.2 1B", LLAMA_32_1B),
        ("3.1 8B", LLAMA_31_8B),
        ("2 7B", LLAMA_2_7B),
    ] {
        for dtype in [DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q6_K] {
            let plan = plan(&dims, dtype);
            let stored = plan.bytes_per_token();
            for int8 in [false, true] {
                let tuning = Tuning { int8, ..TUNING };
                let lowered = Lowered::new(
                    plan.clone(),
                    Settings {
                        tuning,
                        ..settings(1 << 30)
                    },
                )
                .unwrap();
                let step = lowered
                    .record(RowBucket::Few(1), Region::Sampled, false)
                    .unwrap();
                let all: Vec<_> = step
                    .body
                    .iter()
                    .chain(head(&step))
                    .chain(&step.sample)
                    .collect();
                assert!(
                    all.len() as u32 <= 5 * dims.blocks + 5,
                    "{name}: {} dispatches",
                    all.len()
                );

                let mut bytes = 0;
                for dispatch in &all {
                    let slot = |slot: &Buffer| matches!(slot, Buffer::Weights(_));
                    let Some(Buffer::Weights(part)) = dispatch.buffers.iter().find(|s| slot(s))
                    else {
                        continue;
                    };
                    let part = &lowered.parts[*part];
                    let row = part.layout.quant_row_bytes() + part.layout.scale_row_bytes();
                    let is_embed = dispatch.variant.family == FamilyId::Embed;
                    bytes += if is_embed { row } else { row * part.rows };
                    let name = dispatch.variant.name();
                    assert!(
                        is_embed || name.contains(if int8 { ".int8." } else { ".f32." }),
                        "{name}"
                    );
                }
                let ratio = bytes as f64 / stored as f64;
                assert!(
                    (0.999..=1.03).contains(&ratio),
                    "{name} {}: reads {ratio} of the stored bytes",
                    dtype.name()
                );
                for dispatch in all {
                    assert!(matches!(dispatch.rows, Rows::Tokens(1) | Rows::Heads(1)));
                }
            }
        }
    }
}

/// What WebGPU guarantees, and that weights are loaded 16 bytes at a time: of every variant, counted by build.rs in
/// what naga made of its source.
#[test]
fn every_kernel_loads_weights_in_16_bytes_and_keeps_to_the_guaranteed_limits() {
    let mut with_weights = 0;
    for (family, facts) in FAMILIES.iter().zip(FACTS) {
        assert_eq!(facts.narrow_loads, 0, "{}", family.name);
        assert!(
            facts.written.len() <= 8,
            "{}: {} storage buffers",
            family.name,
            facts.written.len()
        );
        assert!(
            facts.workgroup_bytes <= 16 << 10,
            "{}: {} bytes",
            family.name,
            facts.workgroup_bytes
        );
        assert!(facts.workgroup_size <= 256, "{}", family.name);
        with_weights += usize::from(family.holes.iter().any(|hole| hole.name == "weights"));
    }
    assert!(with_weights >= 14, "{with_weights} families read weights");
}

/// 2 to 8 sequences read the weights once, more by tiles; a prompt reads them once per tile of 64 rows.
#[test]
fn more_rows_do_not_read_the_weights_more_often() {
    let lowered = Lowered::new(plan(&LLAMA_31_8B, DType::Q4_K), settings(1 << 30)).unwrap();
    for (rows, passes) in [
        (1, 1),
        (2, 1),
        (3, 1),
        (8, 1),
        (9, 1),
        (32, 1),
        (33, 1),
        (64, 1),
        (65, 2),
        (256, 4),
    ] {
        let bucket = TUNING.bucket(rows);
        let step = lowered.record(bucket, Region::Host, false).unwrap();
        let products = step
            .body
            .iter()
            .filter(|d| d.buffers.iter().any(|s| matches!(s, Buffer::Weights(_))));
        for dispatch in products.filter(|d| d.variant.family != FamilyId::Embed) {
            assert_eq!(
                dispatch.grid(rows, 1, 1).1,
                passes,
                "{rows} rows: {}",
                dispatch.variant.name()
            );
        }
        // Only the rows asked for go to the head.
        assert_eq!(head(&step)[0].grid(rows, 1, 1).1, 1);
    }
}

#[test]
fn tensors_beyond_the_guaranteed_binding_are_split() {
    let lowered = Lowered::new(plan(&LLAMA_31_8B, DType::Q8_0), settings(128 << 20)).unwrap();
    assert!(
        lowered
            .parts
            .iter()
            .all(|p| p.weights_bytes() <= 128 << 20 && p.scales_bytes() <= 128 << 20)
    );
    let step = lowered
        .record(RowBucket::Few(1), Region::Sampled, false)
        .unwrap();
    // Only the head and the embedding table are that large: 128256 rows of 4096 bytes are 4 parts.
    assert_eq!(head(&step).len(), 4);
    assert_eq!(
        step.body
            .iter()
            .filter(|d| d.variant.family == FamilyId::Embed)
            .count(),
        4
    );
}

/// An executor of the plan with random weights, its pages assigned.
fn with_random_weights(plan: &Plan, options: &GpuOptions) -> GpuExecutor {
    let mut executor =
        pollster::block_on(GpuExecutor::new(&gpu(), plan.clone(), 64, options)).unwrap();
    let mut random = Random(1);
    for (i, spec) in plan.tensors.iter().enumerate() {
        let mut bytes = Vec::new();
        spec.dtype
            .quantize(&random.values((spec.rows * spec.cols) as usize), &mut bytes)
            .unwrap();
        executor.load_rows(TensorId(i), 0, &bytes).unwrap();
    }
    assign_pages(&mut executor);
    executor
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn a_decode_step_makes_nothing_and_is_one_submit() {
    let plan = plan(&SMALL, DType::Q8_0);
    let options = GpuOptions {
        run_ahead: Some(1),
        ..GpuOptions::default()
    };
    let mut executor = with_random_weights(&plan, &options);
    let row = [Row {
        token: 1,
        seq: 0,
        pos: 0,
    }];
    pollster::block_on(
        executor
            .submit(Step::Rows {
                rows: &row,
                heads: &Head::all(&[0], Want::ID),
                trace: None,
            })
            .unwrap(),
    )
    .unwrap();

    let device = gpu();
    let counters = device.counters();
    let read = || {
        [
            counters.dispatches.get(),
            counters.passes.get(),
            counters.submits.get(),
            counters.bind_groups.get(),
            counters.pipelines.get(),
            counters.buffers.get(),
            counters.writes.get(),
            counters.read_bytes.get(),
        ]
    };
    // A step costs the same whatever the sampler is asked.
    let mut mask = TokenMask::new(SMALL.vocab, true);
    mask.set(3, false);
    let adjusted = Sampling {
        temperature: 1.0,
        penalties: Penalties {
            repetition: 1.2,
            presence: 0.5,
            frequency: 0.5,
        },
        bias: Some([(5, 2.0)].into()),
        mask: Some(mask.into()),
        ..Sampling::GREEDY
    };
    for sampling in [Sampling::GREEDY, adjusted] {
        executor
            .set_sampling(
                0,
                &sampling,
                History {
                    prompt: &[1],
                    generated: &[],
                },
            )
            .unwrap();
        let before = read();
        const STEPS: u64 = 5;
        for _ in 0..STEPS {
            pollster::block_on(executor.submit(Step::Next).unwrap()).unwrap();
        }
        let spent: Vec<u64> = read()
            .iter()
            .zip(before)
            .map(|(after, before)| after - before)
            .collect();
        let dispatches = 5 * u64::from(SMALL.blocks) + 3;
        assert_eq!(
            spent,
            [dispatches, 1, 1, 0, 0, 0, 0, 4].map(|n| n * STEPS),
            "dispatches, passes, submits, bind groups, pipelines, buffers, writes, bytes read back"
        );
    }
}
