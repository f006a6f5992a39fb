//! The kernel table that build.rs makes from `shaders/`, and the choice among a family's variants.

pub use super::assemble::Recipe;
use super::lower::Slot;

/// One entry of the table: what a pipeline needs to know about a shader.
#[derive(Debug)]
pub struct Variant {
    /// `family.choice.choice`
    pub name: &'static str,
    /// The family, as in shaders/permutations.
    pub family: &'static str,
    /// One per slot with a choice.
    pub choices: &'static [&'static str],
    /// How to assemble the source.
    pub recipe: Recipe<'static>,
    /// Invocations per workgroup.
    pub workgroup_size: u32,
    /// Workgroup memory.
    pub workgroup_bytes: u32,
    /// Size of the uniform at binding 0.
    pub params_bytes: u32,
    /// For bindings 1..: whether the shader writes it.
    pub written: &'static [bool],
}

impl Variant {
    /// Whether it needs the device feature `subgroups`.
    pub fn subgroups(&self) -> bool {
        self.recipe.defines.contains(&"SUBGROUPS")
    }

    /// The WGSL text, without any preamble a platform wants.
    pub fn source(&self) -> Result<String, String> {
        super::assemble::assemble(&self.recipe, &|stem| FILES.iter().find(|(s, _)| *s == stem).map(|(_, text)| *text))
    }
}

/// A family of kernels with typed parameters and bindings; implemented by the generated `Bindings` structs.
pub trait Kernel {
    /// The uniform at binding 0.
    type Params: bytemuck::Pod;
    /// Name in shaders/permutations.
    const FAMILY: &'static str;
    /// What is bound at 1, 2, 3 …
    fn slots(&self) -> Vec<Slot>;
}

/// The variant of a family with these choices.
pub fn variant(family: &str, choices: &[&str]) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.family == family && v.choices == choices)
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
