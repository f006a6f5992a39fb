//! The part of build.rs that makes the kernel table from shaders/. It runs at build time and is no part of the crate.

mod check;
mod codegen;
mod permutations;

use super::table::Family;
use check::Reflection;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Shader files by their path below shaders/, without `.wgsl`; their text without comments and indentation, in which
/// line numbers are kept.
pub type Files = BTreeMap<String, String>;

/// Reads the shaders of `folder`, checks every variant that its `permutations` lists, and returns the Rust code of the
/// kernel table.
///
/// # Errors
/// One message for each variant that is wrong.
pub fn kernel_table(folder: &Path) -> Result<String, Vec<String>> {
    let mut files = Files::new();
    read_shaders(folder, "", &mut files);
    let families = permutations::read(&folder.join("permutations"), &files)
        .map_err(|message| vec![message])?;
    let mut errors = Vec::new();
    let reflections: Vec<Option<Reflection>> = check::families(&files, &families)
        .into_iter()
        .map(|checked| match checked {
            Ok(reflection) => Some(reflection),
            Err(messages) => {
                errors.extend(messages);
                None
            }
        })
        .collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    let reflections: Vec<Reflection> = reflections.into_iter().flatten().collect();
    let twins: Vec<Option<usize>> = (0..families.len())
        .map(|index| tiled_twin(&families, index))
        .collect();
    for (index, twin) in twins.iter().enumerate() {
        // The host describes a matrix product once, for both of its kernels.
        if let Some(twin) = *twin
            && !reflections[index].same_host_side(&reflections[twin])
        {
            errors.push(format!(
                "{}: parameters or bindings differ from those of {}",
                families[twin].name, families[index].name
            ));
        }
    }
    if errors.is_empty() {
        codegen::table(&files, &families, &reflections, &twins).map_err(|message| vec![message])
    } else {
        Err(errors)
    }
}

fn read_shaders(folder: &Path, prefix: &str, files: &mut Files) {
    for entry in fs::read_dir(folder).expect("shaders/ is readable") {
        let path = entry.expect("a readable folder").path();
        let stem = path.file_stem().expect("has a name").to_string_lossy();
        if path.is_dir() {
            read_shaders(&path, &format!("{prefix}{stem}/"), files);
        } else if path.extension().is_some_and(|e| e == "wgsl") {
            let text = fs::read_to_string(&path).expect("a readable shader");
            let bare: Vec<&str> = text
                .lines()
                .map(|line| line.split("//").next().unwrap_or("").trim())
                .collect();
            files.insert(format!("{prefix}{stem}"), bare.join("\n"));
        }
    }
}

/// The family for many rows with the epilogue of a family for few.
fn tiled_twin(families: &[Family], index: usize) -> Option<usize> {
    let epilogue = |family: &Family| -> Option<&'static str> {
        let mut holes = family.holes.iter();
        let hole = holes.find(|hole| hole.name == "epilogue")?;
        hole.choices.first().map(|choice| choice.name)
    };
    let own = &families[index];
    (own.source == "kernels/matvec").then_some(())?;
    families
        .iter()
        .position(|other| other.source == "kernels/matmul" && epilogue(other) == epilogue(own))
}
