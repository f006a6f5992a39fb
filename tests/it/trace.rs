//! Looking inside a step: taps and edits on every executor.

use crate::support::harness;
use crate::support::harness::{
    assert_close, assign_pages, logits, on_cpu, on_gpu, open_model, reference,
};
use crate::support::references;
use llamero::exec::gpu::{CacheType, GpuOptions};
use llamero::exec::{Executor, Head, Step, Want};
use llamero::plan::{Edit, EditKind, Hook, Plan, Point, Row, Tap, Trace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CONTEXT: u32 = 64;

fn rows(ids: &[u32]) -> Vec<Row> {
    ids.iter()
        .enumerate()
        .map(|(pos, token)| Row {
            token: *token,
            seq: 0,
            pos: pos as u32,
        })
        .collect()
}

/// Logits of every position and the taps of one step.
fn traced(executor: &mut dyn Executor, ids: &[u32], trace: &Trace) -> (Vec<f32>, Vec<Tap>) {
    assign_pages(executor);
    let heads: Vec<u32> = (0..ids.len() as u32).collect();
    let step = Step::Rows {
        rows: &rows(ids),
        heads: &Head::all(&heads, Want::LOGITS),
        trace: Some(trace),
    };
    let output = pollster::block_on(executor.submit(step).unwrap()).unwrap();
    (output.logits(), output.taps)
}

/// Logits of every position with an edit.
fn edited(executor: &mut dyn Executor, ids: &[u32], edit: Edit) -> Vec<f32> {
    let trace = Trace {
        taps: Vec::new(),
        edits: vec![edit],
    };
    traced(executor, ids, &trace).0
}

/// Values that can be compared: minus infinity is a large negative number.
fn finite(values: &[f32]) -> Vec<f32> {
    values
        .iter()
        .map(|v| if *v == f32::NEG_INFINITY { -1e6 } else { *v })
        .collect()
}

/// Every executor of this machine, over a model, with exact caches.
fn executors(path: &Path) -> Vec<(&'static str, Box<dyn Executor>)> {
    let model = open_model(path, None).unwrap();
    let mut all: Vec<(&str, Box<dyn Executor>)> = vec![
        ("reference", Box::new(reference(&model, CONTEXT))),
        ("cpu", Box::new(on_cpu(&model, CONTEXT, 2, false))),
    ];
    if cfg!(gpu) {
        let options = GpuOptions {
            cache: Some(CacheType::F32),
            int8: Some(false),
            ..GpuOptions::default()
        };
        all.push(("gpu", Box::new(on_gpu(&model, CONTEXT, &options))));
    }
    all
}

fn point(name: &str) -> Point {
    Point::parse(name).unwrap()
}

fn edit(name: &str, kind: EditKind, positions: Option<Vec<u32>>, values: Vec<f32>) -> Edit {
    Edit {
        point: point(name),
        kind,
        seq: None,
        positions,
        width: values.len(),
        values,
    }
}

/// Models: a dense one, mixtures without and with a shared expert, and Qwen's.
fn models() -> Vec<(&'static str, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf");
    let mut models: Vec<_> = ["mistral-window", "mixtral", "llama4"]
        .map(|name| (name, folder.join(name)))
        .into();
    for references in references::all() {
        let folder = references.path("models");
        models.push(("qwen2", folder.join("qwen2/hf")));
        models.push(("qwen3", folder.join("qwen3-head-dim/model.gguf")));
        models.push(("qwen3 mixture", folder.join("qwen3moe/hf")));
    }
    models
}

const IDS: &[u32] = &[1, 7, 30, 7, 12, 60, 3, 5, 44];

#[test]
fn names_are_read_and_written() {
    for name in [
        "hook_embed",
        "blocks.3.attn.hook_pattern",
        "blocks.10.hook_resid_post",
        "ln_final.hook_scale",
        "logits",
    ] {
        assert_eq!(point(name).to_string(), name);
    }
    for name in [
        "blocks.3.hook_embed",
        "hook_resid_pre",
        "blocks.x.hook_resid_pre",
        "blocks.1.attn.hook_result",
        "",
    ] {
        let error = Point::parse(name).unwrap_err().to_string();
        assert!(
            error.contains("blocks.N.attn.hook_pattern"),
            "{name}: {error}"
        );
    }
}

/// Every point of a model at once: the logits stay, and the executors agree on each value.
#[test]
fn every_value_is_the_same_on_every_executor() {
    for (model, path) in models() {
        let plan = open_model(&path, None).unwrap().model.plan;
        let points = Point::all(&plan).unwrap();
        let layers = plan.caches.len();
        assert!(
            points.len() > 18 * layers,
            "{model}: {} points of {layers} layers",
            points.len()
        );
        let mut first: Option<Vec<Tap>> = None;
        for (name, mut executor) in executors(&path) {
            let plain = logits(executor.as_mut(), IDS, IDS.len());
            let trace = Trace {
                taps: points.clone(),
                edits: Vec::new(),
            };
            let (with_taps, taps) = traced(executor.as_mut(), IDS, &trace);
            assert_close(
                &format!("{model}, {name}: logits with taps"),
                &with_taps,
                &plain,
                1e-4,
            );
            for (point, tap) in points.iter().zip(&taps) {
                assert_eq!(tap.point, *point);
                assert_eq!(
                    tap.shape.iter().product::<usize>(),
                    tap.values.len(),
                    "{name} {point}"
                );
                assert_eq!(tap.shape[0], IDS.len(), "{name} {point}");
                // One at a time a coarse operation may give it.
                let (_, alone) = traced(
                    executor.as_mut(),
                    IDS,
                    &Trace {
                        taps: vec![*point],
                        edits: Vec::new(),
                    },
                );
                close(&format!("{model}, {name}: {point} alone"), &alone[0], tap);
            }
            match &first {
                None => first = Some(taps),
                Some(want) => {
                    for (got, want) in taps.iter().zip(want) {
                        close(&format!("{model}, {name}: {}", got.point), got, want);
                    }
                }
            }
        }
    }
}

#[track_caller]
fn close(what: &str, got: &Tap, want: &Tap) {
    assert_eq!(got.shape, want.shape, "{what}");
    assert_close(what, &finite(&got.values), &finite(&want.values), 2e-4);
}

/// What edits may change, of the second layer and of none.
fn editable(plan: &Plan) -> Vec<Point> {
    let read_only = [
        Hook::Ln1Scale,
        Hook::Ln2Scale,
        Hook::FinalScale,
        Hook::ExpertIndices,
        Hook::Logits,
    ];
    let mut points = Point::all(plan).unwrap();
    points.retain(|point| {
        !read_only.contains(&point.hook) && point.layer.is_none_or(|layer| layer == 1)
    });
    points
}

/// A value replaced by itself changes nothing; replaced by another run's, it gives what that run gives.
#[test]
fn edits_change_what_is_computed_from_them() {
    for (model, path) in models() {
        let plan = open_model(&path, None).unwrap().model.plan;
        let editable = editable(&plan);
        let mut changed: BTreeMap<Point, Vec<f32>> = BTreeMap::new();
        for (name, mut executor) in executors(&path) {
            let plain = logits(executor.as_mut(), IDS, IDS.len());
            let trace = Trace {
                taps: editable.clone(),
                edits: Vec::new(),
            };
            let (_, taps) = traced(executor.as_mut(), IDS, &trace);
            for (point, tap) in editable.iter().zip(taps) {
                let what = format!("{model}, {name}: {point}");
                let width = tap.values.len() / IDS.len();
                let own = Edit {
                    point: *point,
                    kind: EditKind::Replace,
                    seq: Some(0),
                    positions: None,
                    values: tap.values.clone(),
                    width,
                };
                let same = edited(executor.as_mut(), IDS, own);
                assert_close(&format!("{what} by itself"), &same, &plain, 1e-4);
                // Changed at one position, all before it stays.
                // Not all by the same factor, which a norm would take out again.
                let own_row = tap.values[5 * width..6 * width].iter().enumerate();
                let half: Vec<f32> = own_row
                    .map(|(i, v)| v.max(-10.0) * (0.4 + 0.1 * (i % 3) as f32))
                    .collect();
                let other = Edit {
                    point: *point,
                    kind: EditKind::Replace,
                    seq: None,
                    positions: Some(vec![5]),
                    values: half.clone(),
                    width,
                };
                let trace = Trace {
                    taps: vec![*point],
                    edits: vec![other],
                };
                let (got, after) = traced(executor.as_mut(), IDS, &trace);
                assert_close(
                    &format!("{what}: the tap"),
                    &after[0].values[5 * width..6 * width],
                    &half,
                    1e-6,
                );
                let vocab = plan.vocab_size as usize;
                assert_close(
                    &format!("{what}: before"),
                    &got[..5 * vocab],
                    &plain[..5 * vocab],
                    1e-4,
                );
                let difference = got[5 * vocab..]
                    .iter()
                    .zip(&plain[5 * vocab..])
                    .map(|(a, b)| (a - b).abs());
                assert!(
                    difference.fold(0.0, f32::max) > 1e-5,
                    "{what} changed nothing"
                );
                match changed.get(point) {
                    None => drop(changed.insert(*point, got)),
                    Some(want) => assert_close(&what, &got, want, 5e-4),
                }
            }
            // The executor goes on as before.
            assert_close(
                &format!("{model}, {name}: after"),
                &logits(executor.as_mut(), IDS, 4),
                &plain,
                1e-4,
            );
        }
    }
}

#[test]
fn edits_that_do_not_fit_are_refused() {
    let path = models()[0].1.clone();
    for (name, mut executor) in executors(&path) {
        let hidden = open_model(&path, None).unwrap().model.plan.hidden_size as usize;
        for (edit, word) in [
            (
                edit(
                    "blocks.0.hook_resid_pre",
                    EditKind::Add,
                    None,
                    vec![0.0; hidden + 1],
                ),
                "values in rows of",
            ),
            (
                edit(
                    "blocks.99.hook_resid_pre",
                    EditKind::Add,
                    None,
                    vec![0.0; hidden],
                ),
                "blocks.99",
            ),
            (
                edit("logits", EditKind::Add, None, vec![0.0; 4]),
                "not edited",
            ),
            (
                edit(
                    "blocks.0.hook_resid_pre",
                    EditKind::Add,
                    None,
                    vec![f32::NAN; hidden],
                ),
                "no number",
            ),
            (
                edit(
                    "blocks.0.mlp.hook_router_logits",
                    EditKind::Add,
                    None,
                    vec![0.0; 4],
                ),
                "router",
            ),
        ] {
            assign_pages(executor.as_mut());
            let trace = Trace {
                taps: Vec::new(),
                edits: vec![edit],
            };
            let step = Step::Rows {
                rows: &rows(&[1, 2]),
                heads: &Head::all(&[1], Want::LOGITS),
                trace: Some(&trace),
            };
            let error = executor.submit(step).err().unwrap().to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
    }
}

/// The numbers of a safetensors file, by name.
fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .map(|(name, entry)| {
            let number = |v: &serde_json::Value| v.as_u64().unwrap() as usize;
            let at: Vec<usize> = entry["data_offsets"]
                .as_array()
                .unwrap()
                .iter()
                .map(number)
                .collect();
            let shape = entry["shape"]
                .as_array()
                .unwrap()
                .iter()
                .map(number)
                .collect();
            let words = bytes[8 + len..][at[0]..at[1]]
                .chunks_exact(4)
                .map(|b| b.try_into().unwrap());
            let values = match entry["dtype"].as_str() {
                Some("I32") => words.map(|b| i32::from_le_bytes(b) as f32).collect(),
                _ => words.map(f32::from_le_bytes).collect(),
            };
            (name, (shape, values))
        })
        .collect()
}

/// A tap as the oracle has it: heads first, and the halves of a head's rows instead of pairs.
fn as_oracle(tap: &Tap) -> (Vec<usize>, Vec<f32>) {
    let [t, h, d] = tap.shape[..] else {
        return (tap.shape.clone(), tap.values.clone());
    };
    match tap.point.hook {
        Hook::Scores | Hook::Pattern => {
            let value = |i: usize| tap.values[(i / d % t * h + i / (t * d)) * d + i % d];
            (vec![h, t, d], (0..h * t * d).map(value).collect())
        }
        Hook::Query | Hook::Key | Hook::RotQuery | Hook::RotKey => {
            let from = |i: usize| {
                if i < d / 2 {
                    2 * i
                } else {
                    2 * (i - d / 2) + 1
                }
            };
            (
                tap.shape.clone(),
                (0..t * h * d)
                    .map(|i| tap.values[i / d * d + from(i % d)])
                    .collect(),
            )
        }
        _ => (tap.shape.clone(), tap.values.clone()),
    }
}

#[test]
fn values_and_edits_are_those_of_the_oracle() {
    let names = ["llama2-gqa", "llama32-tied", "moe-mixtral"];
    for (references, name) in references::all()
        .into_iter()
        .flat_map(|references| names.map(|name| (references.clone(), name)))
    {
        let folder = references.path("train/inspect").join(name);
        let cache = tensors(&folder.join("cache.safetensors"));
        let edits = tensors(&folder.join("edits.safetensors"));
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ids = harness::ids(&expected["tokens"]);
        let names: Vec<&String> = cache
            .keys()
            .filter(|name| !name.starts_with("logit_lens"))
            .collect();
        let taps: Vec<Point> = names.iter().map(|name| point(name)).collect();
        for (executor_name, mut executor) in
            executors(&references.path(format!("models/{name}/model.gguf")))
        {
            let (_, got) = traced(
                executor.as_mut(),
                &ids,
                &Trace {
                    taps: taps.clone(),
                    edits: Vec::new(),
                },
            );
            for (name, tap) in names.iter().zip(&got) {
                let (shape, values) = as_oracle(tap);
                let (want_shape, want) = &cache[*name];
                assert_eq!(shape, *want_shape, "{name}");
                assert_close(
                    &format!("{executor_name}: {name}"),
                    &finite(&values),
                    &finite(want),
                    2e-3,
                );
            }
            let steer = edit(
                "blocks.1.hook_resid_post",
                EditKind::Add,
                None,
                edits["steer.vector"].1.clone(),
            );
            let got = edited(executor.as_mut(), &ids, steer);
            assert_close(
                &format!("{executor_name}: steered"),
                &got,
                &edits["steer.logits"].1,
                2e-3,
            );
            // Patched with what another text has at that position.
            let place = point("blocks.0.hook_resid_post");
            let source = harness::ids(&expected["patch"]["source_tokens"]);
            let (_, taken) = traced(
                executor.as_mut(),
                &source,
                &Trace {
                    taps: vec![place],
                    edits: Vec::new(),
                },
            );
            let width = *taken[0].shape.last().unwrap();
            let row = taken[0].values[5 * width..6 * width].to_vec();
            let patch = edit(
                "blocks.0.hook_resid_post",
                EditKind::Replace,
                Some(vec![5]),
                row,
            );
            let got = edited(executor.as_mut(), &ids, patch);
            assert_close(
                &format!("{executor_name}: patched"),
                &got,
                &edits["patch.logits"].1,
                2e-3,
            );
        }
    }
}
