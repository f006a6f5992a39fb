//! The kernel table that build.rs makes from `shaders/`, and the choice among a family's variants.

pub use super::assemble::Recipe;
use super::lower::Slot;

/// Kernels that differ in what fills their slots: one line of shaders/permutations.
#[derive(Debug)]
pub struct Family {
    /// As in shaders/permutations.
    pub name: &'static str,
    /// Stem of the file with the entry point.
    pub source: &'static str,
    /// What may fill its slots.
    pub slots: &'static [Choices],
    /// Names that `#ifdef` knows in every variant.
    pub defines: &'static [&'static str],
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

/// A slot of a family.
#[derive(Debug)]
pub struct Choices {
    /// Name.
    pub slot: &'static str,
    /// Files are named `prefix_choice`.
    pub prefix: &'static str,
    /// What may fill it.
    pub choices: &'static [Choice],
}

/// One of the things that may fill a slot.
#[derive(Debug)]
pub struct Choice {
    /// Name.
    pub name: &'static str,
    /// Names that `#ifdef` then knows.
    pub defines: &'static [&'static str],
    /// A define without which it is no choice; empty: none.
    pub needs: &'static str,
}

/// A kernel: a family, and one choice for each slot that has several.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Family.
    pub family: &'static Family,
    /// One per slot with a choice.
    pub choices: Vec<&'static str>,
}

impl Variant {
    /// `family.choice.choice`
    pub fn name(&self) -> String {
        std::iter::once(self.family.name)
            .chain(self.choices.iter().copied())
            .collect::<Vec<_>>()
            .join(".")
    }

    /// Each slot with what fills it.
    fn chosen(&self) -> impl Iterator<Item = (&'static Choices, &'static Choice)> {
        let mut named = self.choices.iter();
        self.family.slots.iter().filter_map(move |slot| {
            let name = if slot.choices.len() > 1 {
                *named.next()?
            } else {
                slot.choices[0].name
            };
            slot.choices
                .iter()
                .find(|c| c.name == name)
                .map(|choice| (slot, choice))
        })
    }

    fn defines(&self) -> Vec<&'static str> {
        self.family
            .defines
            .iter()
            .chain(self.chosen().flat_map(|(_, choice)| choice.defines))
            .copied()
            .collect()
    }

    /// Whether it needs the device feature `subgroups`.
    pub fn subgroups(&self) -> bool {
        self.defines().contains(&"SUBGROUPS")
    }

    /// The WGSL text, without any preamble a platform wants.
    pub fn source(&self) -> Result<String, String> {
        let files: Vec<(&str, String)> = self
            .chosen()
            .map(|(slot, choice)| (slot.slot, format!("{}_{}", slot.prefix, choice.name)))
            .collect();
        let imports: Vec<(&str, &str)> = files
            .iter()
            .map(|(slot, file)| (*slot, file.as_str()))
            .collect();
        let recipe = Recipe {
            source: self.family.source,
            imports: &imports,
            defines: &self.defines(),
        };
        super::assemble::assemble(&recipe, &|stem| {
            FILES
                .iter()
                .find(|(s, _)| *s == stem)
                .map(|(_, text)| *text)
        })
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

/// The variant of a family with these choices, if there is one.
pub fn variant(family: &str, choices: &[&str]) -> Option<Variant> {
    let family = FAMILIES.iter().find(|f| f.name == family)?;
    let slots = family.slots.iter().filter(|slot| slot.choices.len() > 1);
    let names = slots
        .clone()
        .zip(choices)
        .map(|(slot, name)| slot.choices.iter().find(|c| c.name == *name));
    let names: Vec<&Choice> = names.collect::<Option<_>>()?;
    let variant = Variant {
        family,
        choices: names.iter().map(|c| c.name).collect(),
    };
    let defines = variant.defines();
    let complete = slots.count() == choices.len();
    let allowed = names
        .iter()
        .all(|choice| choice.needs.is_empty() || defines.contains(&choice.needs));
    (complete && allowed).then_some(variant)
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
