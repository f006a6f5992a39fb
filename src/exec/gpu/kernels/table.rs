//! Kernel families as data: which files make one, and which choices may fill its holes.
//!
//! build.rs reads families from shaders/permutations, checks every variant and writes them out again as the table that
//! the crate includes. Both sides have these types.

use super::assemble::{Recipe, assemble};

/// Kernels that differ in what fills their holes: one line of shaders/permutations.
#[derive(Debug)]
pub struct Family {
    /// As in shaders/permutations.
    pub name: &'static str,
    /// The file with the entry point: a path below shaders/, without `.wgsl`.
    pub source: &'static str,
    /// What may fill its holes.
    pub holes: &'static [Hole],
    /// Names that `#ifdef` knows in every variant.
    pub defines: &'static [&'static str],
}

/// An `#import @name` of a family.
#[derive(Debug)]
pub struct Hole {
    /// Name.
    pub name: &'static str,
    /// A choice is the file at this path and its name.
    pub files: &'static str,
    /// What may fill it. A hole with one choice is no part of a variant's name.
    pub choices: &'static [Choice],
}

/// One of the things that may fill a hole.
#[derive(Copy, Clone, Debug)]
pub struct Choice {
    /// Name.
    pub name: &'static str,
    /// Names that `#ifdef` then knows.
    pub defines: &'static [&'static str],
    /// A define without which it is no choice; empty: none.
    pub needs: &'static str,
}

/// What naga found in the variants of a family.
#[derive(Debug)]
pub struct Facts {
    /// Invocations per workgroup.
    pub workgroup_size: u32,
    /// Workgroup memory of the variant that has most.
    pub workgroup_bytes: u32,
    /// Loads of quantised weights narrower than 16 bytes, in the variant that has most.
    pub narrow_loads: u32,
    /// Size of the uniform at binding 0.
    pub params_bytes: u32,
    /// For bindings 1..: whether the shader writes it.
    pub written: &'static [bool],
}

impl Family {
    /// The holes that have several choices.
    pub fn free_holes(&self) -> impl Iterator<Item = &'static Hole> {
        self.holes.iter().filter(|hole| hole.choices.len() > 1)
    }

    /// Whether these choices, one for each hole, may stand together.
    pub fn allows(&self, choices: &[&Choice]) -> bool {
        let defines = self.defines(choices);
        let mut needs = choices.iter().map(|choice| choice.needs);
        needs.all(|needed| needed.is_empty() || defines.contains(&needed))
    }

    /// Names that `#ifdef` knows in the variant of these choices.
    pub fn defines(&self, choices: &[&Choice]) -> Vec<&'static str> {
        let own = choices.iter().flat_map(|choice| choice.defines);
        self.defines.iter().chain(own).copied().collect()
    }

    /// `family.choice.choice`: the choices of the holes that have several.
    pub fn name_of(&self, choices: &[&Choice]) -> String {
        let mut name = self.name.to_owned();
        for (hole, choice) in self.holes.iter().zip(choices) {
            if hole.choices.len() > 1 {
                name = format!("{name}.{}", choice.name);
            }
        }
        name
    }

    /// The WGSL of the variant of these choices; `file` gives the text of a file by its path.
    ///
    /// # Errors
    /// What [`assemble`] finds wrong, with file and line.
    pub fn source_of<'f>(
        &self,
        choices: &[&Choice],
        file: &dyn Fn(&str) -> Option<&'f str>,
    ) -> Result<String, String> {
        let files: Vec<(&str, String)> = self
            .holes
            .iter()
            .zip(choices)
            .map(|(hole, choice)| (hole.name, format!("{}{}", hole.files, choice.name)))
            .collect();
        let imports: Vec<(&str, &str)> = files.iter().map(|(h, f)| (*h, f.as_str())).collect();
        let recipe = Recipe {
            source: self.source,
            imports: &imports,
            defines: &self.defines(choices),
        };
        assemble(&recipe, file)
    }
}
