//! Broken, hostile and odd models of the references, through all that opens and runs a model: the way of the command line
//! (a path) and the way of the browser (files by name).

use crate::support::npy;
use crate::support::references::{self, References};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::support::counting::within_allowance;
use llamero::engine::{Model, Opened, Request};
use llamero::error::{Error, ErrorKind, Result};
use llamero::exec::Limits;
use llamero::exec::reference::ReferenceExecutor;
use llamero::format::{ByteSource, FileSource};
use pollster::block_on;
use serde_json::Value;

/// The tolerance for logits of models that are odd but valid.
const TOLERANCE: f32 = 2e-3;
/// Positions to make room for.
const CONTEXT: u32 = 64;

/// Cases that are no broken files, but files that this build does not run, as far as one can tell.
const UNSUPPORTED: &[&str] = &[
    "gguf/arch-not-utf8.gguf",
    "gguf/arch-unknown.gguf",
    "gguf/array-nested-1.gguf",
    "gguf/array-nested-deep.gguf",
    // What is read as a tensor's type is a part of the key left out.
    "gguf/kv-count-minus-1.gguf",
    "gguf/magic-ggml.gguf",
    "gguf/magic-zip.gguf",
    "gguf/rope-scaling-unknown.gguf",
    "gguf/tensor-type-int.gguf",
    "gguf/tensor-type-removed.gguf",
    "gguf/tensor-type-unknown.gguf",
    "gguf/tokenizer-unknown.gguf",
    "gguf/version-1.gguf",
    "gguf/version-99.gguf",
    "gguf/version-big-endian.gguf",
    "hf/config-act",
    "hf/config-arch",
    "hf/config-rope",
    "hf/dtype-int",
    "hf/dtype-unknown",
    "hf/pickle",
];

/// Cases in which a file is missing: not found at the path, not among what a page was given.
const INCOMPLETE: &[&str] = &["hf/config-missing", "hf/index-missing-shard"];

/// Who brings the files.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Way {
    /// The command line, by a path.
    Path,
    /// A page, each file by its name.
    Sources,
}

struct Case {
    name: String,
    path: PathBuf,
    expect: String,
    why: String,
}

/// The cases of a kind (`gguf`: files, `safetensors`: folders).
fn cases(folder: &Path, index: &Value, kind: &str, key: &str) -> Vec<Case> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = index[kind].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let name = text(entry, key);
            Case {
                path: folder.join(&name),
                name,
                expect: text(entry, "expect"),
                why: text(entry, "why"),
            }
        })
        .collect()
}

/// The file, or all files of the folder.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// As a page gives them: every file, by its name.
fn sources(path: &Path) -> Vec<Rc<dyn ByteSource>> {
    files(path)
        .iter()
        .map(|path| Rc::new(FileSource::open(path).unwrap()) as Rc<dyn ByteSource>)
        .collect()
}

fn load(opened: Opened) -> Result<Model> {
    let context = opened.context(Some(CONTEXT.min(opened.config.max_position_embeddings)))?;
    let executor = ReferenceExecutor::new(
        opened.model.plan.clone(),
        Limits::for_context(context, 16, 1),
    )?;
    block_on(Model::with_executor(
        opened,
        Box::new(executor),
        context,
        |_| Ok(()),
    ))
}

/// Does with a model what a person does: writes greedily and by chance, from ids, from text and from a conversation.
/// Every request ends; gives the errors of those that end in one.
fn use_it(engine: &mut Model) -> Vec<Error> {
    let messages = serde_json::json!([{"role": "user", "content": "Hi"}]);
    let requests = [
        Request {
            ids: Some(vec![1, 2, 3]),
            ..Request::default()
        },
        Request {
            prompt: Some("Hello, world".to_owned()),
            ..Request::default()
        },
        Request {
            messages: Some(messages),
            ..Request::default()
        },
    ];
    let mut errors = Vec::new();
    for request in requests {
        for temperature in [0.0, 1.0] {
            let request = Request {
                max_new_tokens: Some(8),
                temperature: Some(temperature),
                ..request.clone()
            };
            errors.extend(block_on(engine.generate(&request, 1, &mut ())).err());
        }
    }
    errors
}

/// An error of the right kind, that says in one line which file is at fault, what is wrong, and what to do about it.
#[track_caller]
fn assert_clear(case: &Case, way: Way, error: &Error) {
    let name = &case.name;
    let is_in = |list: &[&str]| list.contains(&name.as_str());
    let kind = match way {
        _ if is_in(UNSUPPORTED) => ErrorKind::Unsupported,
        Way::Path if is_in(INCOMPLETE) => ErrorKind::Io,
        Way::Sources if is_in(INCOMPLETE) => ErrorKind::InvalidInput,
        _ => ErrorKind::InvalidFile,
    };
    assert_eq!(error.kind(), kind, "{name}: {error:?}");
    let says = error.to_string();
    // Those that may be missing, and those that are there.
    let missing = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
    ];
    let mut names: Vec<String> = missing.map(str::to_owned).into();
    names.extend(
        files(&case.path)
            .iter()
            .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()),
    );
    assert!(
        names.iter().any(|name| says.contains(name)),
        "{name}: no file is named: {says}"
    );
    assert!(
        says.lines().count() == 1 && says.len() < 400,
        "{name}: {says}"
    );
    // Advice comes last; what is not supported is said with what is, what is not found needs none.
    let advised = [
        "download", "get ", "choose ", "give ", "add ", "check ", "support", "runs ",
    ];
    assert!(
        kind == ErrorKind::Io || advised.iter().any(|word| says.contains(word)),
        "{name}: no advice: {says}"
    );
}

fn check(case: &Case, way: Way, opened: Result<Opened>, tokens: &[u32], logits: &[f32]) {
    let Case {
        name, expect, why, ..
    } = case;
    match (opened.and_then(load), expect.as_str()) {
        (Ok(_), "error") => panic!("{name} was loaded, though {why}"),
        (Err(error), "error" | "either") => assert_clear(case, way, &error),
        (Err(error), "ok") => panic!("{name} is valid ({why}), but {error:?}"),
        (Ok(mut engine), "ok" | "either") => {
            for error in use_it(&mut engine) {
                // No or a broken chat template; no tokenizer.
                let own = matches!(error.kind(), ErrorKind::Template | ErrorKind::InvalidInput);
                assert!(own, "{name}: {error:?}");
            }
            if expect == "ok" {
                let got = all_logits(&mut engine, tokens);
                assert_eq!(got.len(), logits.len(), "{name}");
                let worst = got
                    .iter()
                    .zip(logits)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                let finite = got.iter().all(|value| value.is_finite());
                assert!(
                    finite && worst <= TOLERANCE,
                    "{name}: logits are off by {worst}"
                );
            }
        }
        (_, other) => panic!("{name}: unknown expectation {other}"),
    }
}

fn all_logits(engine: &mut Model, tokens: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    let take = |_, rows: &[f32]| {
        all.extend_from_slice(rows);
        Ok(())
    };
    block_on(engine.logits(tokens, take)).unwrap();
    all
}

fn check_all(references: &References, kind: &str, key: &str) -> usize {
    let folder = references.path("malformed");
    let index = references.json("malformed/index.json");
    let tokens: Vec<u32> = index["tokens_ok"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect();
    let (_, logits) = npy::read_npy(&folder.join("logits_ok.npy"));
    let cases = cases(&folder, &index, kind, key);
    for case in &cases {
        let len = files(&case.path)
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        within_allowance(&case.name, len, || {
            check(
                case,
                Way::Path,
                block_on(Opened::open_path(&case.path, None)),
                &tokens,
                &logits,
            );
        });
        within_allowance(&case.name, len, || {
            check(
                case,
                Way::Sources,
                block_on(Opened::from_sources(sources(&case.path), None)),
                &tokens,
                &logits,
            );
        });
    }
    cases.len()
}

#[test]
fn every_gguf_case_is_refused_clearly_or_runs() {
    for references in references::all() {
        let count = check_all(&references, "gguf", "file");
        assert_eq!(count, if references.own { 77 } else { 152 });
    }
}

#[test]
fn every_safetensors_case_is_refused_clearly_or_runs() {
    for references in references::all() {
        let count = check_all(&references, "safetensors", "dir");
        assert_eq!(count, if references.own { 25 } else { 47 });
    }
}
