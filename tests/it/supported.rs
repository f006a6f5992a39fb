//! tests/SUPPORTED.md is made from the list that the tests run. `LLAMERO_WRITE=1 cargo test --test it supported` writes it anew.

use crate::support::cases;
use llamero::exec::cpu::rounds_activations;
use llamero::quant::DType;
use llamero::quant::planes::PlaneLayout;
use std::fmt::Write as _;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/SUPPORTED.md");

fn table() -> String {
    let cases = cases::cases();
    let mut out = "# What runs where\n\nMade from the tests' list of cases (tests/data/cases.json) by tests/it/supported.rs: what is \
                   marked is run by a test and\nheld to exact logits.\n\n## Variants\n\n| | files | reference | CPU | GPU | \
                   Chromium, WebGPU | Chromium, CPU |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let mark = |runs: bool| if runs { "yes" } else { "" };
    for variant in &cases.variants {
        let has = |wanted: &dyn Fn(&str) -> bool| variant.files.iter().any(|file| wanted(file));
        let safetensors = variant.own.is_some() || has(&|file| file.starts_with("hf"));
        let files: Vec<&str> = [
            ("GGUF", has(&|file| file.ends_with(".gguf"))),
            ("safetensors", safetensors),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect();
        // The native tests run the whole list on every executor.
        let (webgpu, cpu) = (mark(variant.webgpu.runs()), mark(variant.cpu.runs()));
        let _ = writeln!(
            out,
            "| {} | {} | yes | yes | yes | {webgpu} | {cpu} |",
            variant.what,
            files.join(", ")
        );
    }
    out += "\n## Weight types\n\nEach runs on all three executors, natively and in Chromium. There, on WebGPU, all are \
            together in one model, held to the\nreference, and some alone, held to exact logits.\n\n| | bits a weight | on the CPU, \
            activations are | on the GPU, weights are |\n| --- | --- | --- | --- |\n";
    for name in &cases.types {
        let dtype = DType::from_name(name).unwrap();
        let bits = dtype.block_bytes() as f64 * 8.0 / dtype.block_len() as f64;
        let cpu = if rounds_activations(dtype) {
            "16 bits"
        } else {
            "f32"
        };
        let gpu = match PlaneLayout::new(dtype, 256).format {
            "int8" => "re-expressed exactly, 10 bits",
            _ => "read packed",
        };
        let _ = writeln!(out, "| {name} | {bits:.4} | {cpu} | {gpu} |");
    }
    out
}

#[test]
fn the_table_is_what_the_tests_run() {
    assert_eq!(
        cases::cases().types.len(),
        DType::ALL.len(),
        "a weight type is not in the list"
    );
    if std::env::var_os("LLAMERO_WRITE").is_some() {
        std::fs::write(FILE, table()).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        written == table(),
        "tests/SUPPORTED.md is not what the tests run: LLAMERO_WRITE=1 cargo test --test it supported"
    );
}
