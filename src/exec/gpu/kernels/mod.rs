//! The kernel table that build.rs makes from `shaders/`, and the choice among a family's variants.

pub mod assemble;
mod table;

pub use table::{Choice, Facts, Family, Hole};

use super::lower::Buffer;

/// A kernel: a family, and one choice for each of its holes that has several.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// Family.
    pub family: FamilyId,
    /// What fills the holes that have several choices; `None` for all other holes.
    pub choices: Choices,
}

impl Variant {
    /// The variant of a family with these choices, if there is one. A wish for a hole that the family does not have
    /// changes nothing.
    pub fn new(family: FamilyId, wanted: Choices) -> Option<Self> {
        let free = |hole: &str| family.family().free_holes().any(|free| free.name == hole);
        let variant = Self {
            family,
            choices: wanted.only(free),
        };
        // A hole with one choice takes no other.
        let fits = |hole: &Hole| match wanted.name(hole.name) {
            Some(name) => hole.choices.iter().any(|choice| choice.name == name),
            None => true,
        };
        let chosen = variant.chosen();
        let complete = chosen.len() == family.family().holes.len();
        (complete && family.family().holes.iter().all(fits) && family.family().allows(&chosen))
            .then_some(variant)
    }

    /// `family.choice.choice`
    pub fn name(&self) -> String {
        self.family.family().name_of(&self.chosen())
    }

    /// What fills each hole.
    fn chosen(&self) -> Vec<&'static Choice> {
        let choice = |hole: &'static Hole| match hole.choices {
            [only] => Some(only),
            several => {
                let name = self.choices.name(hole.name)?;
                several.iter().find(|choice| choice.name == name)
            }
        };
        self.family
            .family()
            .holes
            .iter()
            .filter_map(choice)
            .collect()
    }

    /// Whether it needs the device feature `subgroups`.
    pub fn subgroups(&self) -> bool {
        let defines = self.family.family().defines(&self.chosen());
        defines.contains(&"SUBGROUPS")
    }

    /// The WGSL text, without any preamble that a platform wants.
    ///
    /// # Errors
    /// None for the variants of the table: build.rs assembled each.
    pub fn source(&self) -> Result<String, String> {
        self.family.family().source_of(&self.chosen(), &|path| {
            FILES
                .iter()
                .find(|(stored, _)| *stored == path)
                .map(|(_, text)| *text)
        })
    }
}

impl FamilyId {
    /// The family's files and holes.
    pub fn family(self) -> &'static Family {
        &FAMILIES[self as usize]
    }

    /// What naga found in its variants.
    pub fn facts(self) -> &'static Facts {
        &FACTS[self as usize]
    }
}

/// A family of kernels with typed parameters and bindings; implemented by the generated `Bindings` structs.
pub trait Kernel {
    /// The uniform at binding 0.
    type Params: bytemuck::Pod;
    /// Which family.
    const FAMILY: FamilyId;
    /// What is bound at 1, 2, 3 …
    fn buffers(&self) -> Vec<Buffer>;
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
