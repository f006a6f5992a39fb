//! The rules of ARCHITECTURE.md about who may import whom, read from the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Module -> the modules that it may use. `error` is used by all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("quant", &[]),
    ("format", &["quant"]),
    ("plan", &["quant"]),
    ("template", &[]),
    ("tokenizer", &["format", "template"]),
    ("model", &["plan", "exec", "format", "quant"]),
    ("exec", &["plan", "quant"]),
    (
        "engine",
        &["model", "exec", "plan", "tokenizer", "format", "quant"],
    ),
    (
        "web",
        &["engine", "model", "exec", "tokenizer", "format", "quant"],
    ),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

/// Code lines, without comments.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| l.split("//").next().unwrap_or("").to_owned())
        .collect()
}

fn modules() -> Vec<(String, Vec<PathBuf>)> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name != "lib" && name != "bin" {
            modules.push((
                name,
                if path.is_dir() {
                    sources(&path)
                } else {
                    vec![path]
                },
            ));
        }
    }
    modules
}

#[test]
fn modules_import_only_what_they_may() {
    let mut found = 0;
    for (module, files) in modules() {
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(m, _)| *m == module)
            .unwrap_or_else(|| panic!("unknown module {module}"));
        for file in files {
            for line in code(&file) {
                for used in line.split("crate::").skip(1) {
                    let used: String = used
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .collect();
                    found += 1;
                    assert!(
                        used == "error" || used == module || allowed.contains(&used.as_str()),
                        "{}: {module} may not use {used}: {line}",
                        file.display()
                    );
                }
            }
        }
    }
    assert!(
        found > 50,
        "only {found} imports seen: does this test still read the sources?"
    );
}

#[test]
fn outside_worlds_are_met_in_one_place_each() {
    for (module, files) in modules() {
        for file in files {
            let is_gpu_web = file.ends_with("exec/gpu/web.rs");
            let is_gpu = file.starts_with(root().join("exec/gpu"));
            for line in code(&file) {
                for word in ["wasm_bindgen", "js_sys", "web_sys", "JsValue"] {
                    assert!(
                        module == "web" || is_gpu_web || !line.contains(word),
                        "{}: {line}",
                        file.display()
                    );
                }
                assert!(
                    is_gpu || !line.contains("wgpu::"),
                    "{}: {line}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn executors_know_no_model() {
    for (module, files) in modules() {
        if !["exec", "quant", "format"].contains(&module.as_str()) {
            continue;
        }
        for file in files {
            for line in code(&file) {
                let line = line.to_lowercase().replace("llamero", "");
                {
                    let word = "llama";
                    // GGUF files say which program splits them, and errors may name it.
                    let found = line
                        .split(|c: char| !c.is_alphanumeric())
                        .any(|w| w == word || w == format!("{word}s"));
                    assert!(!found, "{}: {line}", file.display());
                }
            }
        }
    }
}

#[test]
fn every_shader_binding_states_its_shape() {
    let shaders = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders"));
    let mut bindings = 0;
    for folder in ["kernels", "weights", "epilogues", "kv", "shared"].map(|f| shaders.join(f)) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "wgsl") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("//") || text.starts_with("@group"),
                "{}: no header",
                path.display()
            );
            let mut above = "";
            for line in text.lines() {
                if line.contains("var<storage") && !line.contains("state: array<u32>") {
                    bindings += 1;
                    let comment = line.split_once("//").map_or(above, |(_, c)| c);
                    assert!(
                        comment.contains('['),
                        "{}: no shape beside {line}",
                        path.display()
                    );
                }
                above = if line.trim_start().starts_with("//") {
                    line
                } else {
                    ""
                };
            }
        }
    }
    assert!(bindings > 20, "only {bindings} bindings seen");
}
