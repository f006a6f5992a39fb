//! Writes the kernel table as Rust: shader files, families, the types of their holes, parameters, bindings, constants.

use super::super::table::{Facts, Family, Hole};
use super::Files;
use super::check::{Reflection, Struct};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const DERIVES: &str = "#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n";
const HOST_STRUCT: &str = "#[repr(C)]\n#[derive(Copy, Clone, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]\n\
                           #[allow(missing_docs, reason = \"the shader says what each field is\")]\n";

/// The code of the table. `twins`: for each family, the index of its family for many rows.
///
/// # Errors
/// A struct or constant that two families share a name for and declare differently.
pub fn table(
    files: &Files,
    families: &[Family],
    reflections: &[Reflection],
    twins: &[Option<usize>],
) -> Result<String, String> {
    let mut code = String::from("// Written by build.rs from shaders/. Do not edit.\n\n");
    write_files(files, &mut code);
    write_family_ids(families, twins, &mut code);
    write_choices(families, &mut code);
    let mut shared: BTreeMap<&str, &Struct> = BTreeMap::new();
    for (family, reflection) in families.iter().zip(reflections) {
        write_module(family, reflection, &mut code);
        for (name, fields) in reflection
            .structs
            .iter()
            .filter(|(name, _)| *name != "Params")
        {
            if *shared.entry(name).or_insert(fields) != fields {
                return Err(format!("{}: another struct is named {name}", family.name));
            }
        }
    }
    for (name, fields) in shared {
        let _ = writeln!(
            code,
            "/// `{name}`, as the shaders declare it.\n{HOST_STRUCT}pub struct {name} {{"
        );
        write_fields(fields, "    ", &mut code);
        code.push_str("}\n\n");
    }
    write_statics(families, reflections, &mut code);
    Ok(code)
}

fn write_files(files: &Files, code: &mut String) {
    code.push_str(
        "/// Shader files by path, without comments.\npub static FILES: &[(&str, &str)] = &[\n",
    );
    for (path, text) in files {
        // Blank lines are dropped here; naga's messages at build time keep the real line numbers.
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let _ = writeln!(code, "    ({path:?}, {:?}),", lines.join("\n"));
    }
    code.push_str("];\n\n");
}

/// `matvec_qkv` as `MatvecQkv`, `q8_0` as `Q8_0`.
fn camel(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split('_') {
        let (first, rest) = word.split_at(word.len().min(1));
        if !camel.is_empty() && first.starts_with(|c: char| c.is_ascii_digit()) {
            camel.push('_');
        }
        camel += &first.to_uppercase();
        camel += rest;
    }
    camel
}

fn write_family_ids(families: &[Family], twins: &[Option<usize>], code: &mut String) {
    let _ = writeln!(
        code,
        "/// Every family, in the order of [`FAMILIES`].\n{DERIVES}pub enum FamilyId {{"
    );
    for family in families {
        let _ = writeln!(
            code,
            "    /// `{}`\n    {},",
            family.name,
            camel(family.name)
        );
    }
    code.push_str(
        "}\n\nimpl FamilyId {\n    /// Every family.\n    pub const ALL: &'static [Self] = &[",
    );
    for family in families {
        let _ = write!(code, "Self::{}, ", camel(family.name));
    }
    code.push_str("];\n\n    /// The product of many rows with the same epilogue, of a product of few; others themselves.\n");
    code.push_str("    #[must_use]\n    pub fn tiled(self) -> Self {\n        match self {\n");
    for (family, twin) in families.iter().zip(twins) {
        if let Some(twin) = twin {
            let (few, many) = (camel(family.name), camel(families[*twin].name));
            let _ = writeln!(code, "            Self::{few} => Self::{many},");
        }
    }
    code.push_str("            other => other,\n        }\n    }\n}\n\n");
}

/// A hole that has several choices in some family, and all that may fill it in any.
struct FreeHole {
    name: &'static str,
    choices: Vec<&'static str>,
    /// Its choices are numbers.
    number: bool,
}

fn free_holes(families: &[Family]) -> Vec<FreeHole> {
    let mut all: Vec<FreeHole> = Vec::new();
    let names: BTreeSet<&str> = families
        .iter()
        .flat_map(Family::free_holes)
        .map(|hole| hole.name)
        .collect();
    let holes = || families.iter().flat_map(|family| family.holes);
    for hole in holes().filter(|hole: &&Hole| names.contains(hole.name)) {
        let at = all
            .iter()
            .position(|free| free.name == hole.name)
            .unwrap_or_else(|| {
                all.push(FreeHole {
                    name: hole.name,
                    choices: Vec::new(),
                    number: hole
                        .choices
                        .iter()
                        .all(|choice| choice.name.parse::<u32>().is_ok()),
                });
                all.len() - 1
            });
        for choice in hole.choices {
            if !all[at].choices.contains(&choice.name) {
                all[at].choices.push(choice.name);
            }
        }
    }
    all
}

fn write_choices(families: &[Family], code: &mut String) {
    let holes = free_holes(families);
    for FreeHole { name, choices, .. } in holes.iter().filter(|hole| !hole.number) {
        let ty = camel(name);
        let _ = writeln!(
            code,
            "/// What fills the hole `{name}`.\n{DERIVES}pub enum {ty} {{"
        );
        for choice in choices {
            let _ = writeln!(code, "    /// `{choice}`\n    {},", camel(choice));
        }
        let _ = writeln!(
            code,
            "}}\n\nimpl {ty} {{\n    /// As shaders/permutations has it.\n    pub fn name(self) -> &'static str {{\n        match self {{"
        );
        for choice in choices {
            let _ = writeln!(code, "            Self::{} => {choice:?},", camel(choice));
        }
        code.push_str("        }\n    }\n\n    /// The choice of that name.\n");
        let _ = writeln!(
            code,
            "    pub fn from_name(name: &str) -> Option<Self> {{\n        match name {{"
        );
        for choice in choices {
            let _ = writeln!(
                code,
                "            {choice:?} => Some(Self::{}),",
                camel(choice)
            );
        }
        code.push_str("            _ => None,\n        }\n    }\n}\n\n");
    }
    let _ = writeln!(
        code,
        "/// A choice for each hole that has several in some family; `None` where a family has no such hole.\n\
         #[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]\npub struct Choices {{"
    );
    for FreeHole { name, number, .. } in &holes {
        let ty = if *number {
            "u32".to_owned()
        } else {
            camel(name)
        };
        let _ = writeln!(code, "    /// `{name}`\n    pub {name}: Option<{ty}>,");
    }
    code.push_str("}\n\nimpl Choices {\n    /// The name of what fills a hole.\n");
    code.push_str(
        "    pub fn name(&self, hole: &str) -> Option<&'static str> {\n        match hole {\n",
    );
    for FreeHole {
        name,
        choices,
        number,
    } in &holes
    {
        if !number {
            let _ = writeln!(
                code,
                "            {name:?} => self.{name}.map({}::name),",
                camel(name)
            );
            continue;
        }
        let _ = writeln!(code, "            {name:?} => match self.{name}? {{");
        for choice in choices {
            let _ = writeln!(code, "                {choice} => Some({choice:?}),");
        }
        code.push_str("                _ => None,\n            },\n");
    }
    code.push_str("            _ => None,\n        }\n    }\n\n    /// The choices for the holes that `keep` names.\n");
    code.push_str(
        "    #[must_use]\n    pub fn only(self, keep: impl Fn(&str) -> bool) -> Self {\n        Self {\n",
    );
    for FreeHole { name, .. } in &holes {
        let _ = writeln!(
            code,
            "            {name}: self.{name}.filter(|_| keep({name:?})),"
        );
    }
    code.push_str("        }\n    }\n}\n\n");
}

fn write_fields(fields: &Struct, indent: &str, code: &mut String) {
    for (field, ty) in fields {
        let _ = writeln!(code, "{indent}pub {field}: {ty},");
    }
}

fn write_module(family: &Family, reflection: &Reflection, code: &mut String) {
    let (name, source) = (family.name, family.source);
    let _ = writeln!(
        code,
        "/// `{name}`, from `shaders/{source}.wgsl`.\npub mod {name} {{"
    );
    // Structs that the families share lie beside the modules.
    let named = |ty: &str| {
        let params = reflection.structs.get("Params");
        params.map_or(reflection.params == ty, |fields| {
            fields.iter().any(|(_, field)| field.contains(ty))
        })
    };
    let shared: String = reflection
        .structs
        .keys()
        .filter(|ty| *ty != "Params" && named(ty))
        .map(|ty| format!(", {ty}"))
        .collect();
    let _ = writeln!(
        code,
        "    use super::{{Buffer, FamilyId, Kernel{shared}}};\n"
    );
    match reflection.structs.get("Params") {
        Some(fields) => {
            let _ = writeln!(
                code,
                "    /// `params`, as the shader declares it.\n{HOST_STRUCT}    pub struct Params {{"
            );
            write_fields(fields, "        ", code);
            code.push_str("    }\n");
        }
        None => {
            let _ = writeln!(
                code,
                "    /// `params`, as the shader declares it.\n    pub type Params = {};",
                reflection.params
            );
        }
    }
    let bytes = reflection.facts.params_bytes;
    let _ = writeln!(
        code,
        "    const _: () = assert!(size_of::<Params>() == {bytes}, \"the host lays out the parameters as the shader does\");\n"
    );
    for (constant, (ty, value)) in &reflection.constants {
        let _ = writeln!(
            code,
            "    /// As the shader has it.\n    pub const {constant}: {ty} = {value};"
        );
    }
    code.push_str("\n    /// Storage bindings, in order.\n    #[derive(Copy, Clone, Debug)]\n");
    code.push_str("    #[allow(missing_docs, reason = \"the shader says what each binding is\")]\n    pub struct Bindings {\n");
    for binding in &reflection.bindings {
        let _ = writeln!(code, "        pub {binding}: Buffer,");
    }
    code.push_str("    }\n\n    impl Kernel for Bindings {\n        type Params = Params;\n");
    let _ = writeln!(
        code,
        "        const FAMILY: FamilyId = FamilyId::{};",
        camel(name)
    );
    code.push_str("        fn buffers(&self) -> Vec<Buffer> {\n            vec![");
    for binding in &reflection.bindings {
        let _ = write!(code, "self.{binding}, ");
    }
    code.push_str("]\n        }\n    }\n}\n\n");
}

fn write_statics(families: &[Family], reflections: &[Reflection], code: &mut String) {
    code.push_str("/// What naga found in each family.\npub static FACTS: &[Facts] = &[\n");
    for reflection in reflections {
        let Facts {
            workgroup_size,
            workgroup_bytes,
            narrow_loads,
            params_bytes,
            written,
        } = &reflection.facts;
        let _ = writeln!(
            code,
            "    Facts {{ workgroup_size: {workgroup_size}, workgroup_bytes: {workgroup_bytes}, \
             narrow_loads: {narrow_loads}, params_bytes: {params_bytes}, written: &{written:?} }},"
        );
    }
    code.push_str("];\n\n/// Every family.\npub static FAMILIES: &[Family] = &[\n");
    for family in families {
        let _ = writeln!(
            code,
            "    Family {{ name: {:?}, source: {:?}, defines: &{:?}, holes: &[",
            family.name, family.source, family.defines
        );
        for hole in family.holes {
            let _ = writeln!(
                code,
                "        Hole {{ name: {:?}, files: {:?}, choices: &[",
                hole.name, hole.files
            );
            for choice in hole.choices {
                let _ = writeln!(
                    code,
                    "            Choice {{ name: {:?}, defines: &{:?}, needs: {:?} }},",
                    choice.name, choice.defines, choice.needs
                );
            }
            code.push_str("        ] },\n");
        }
        code.push_str("    ] },\n");
    }
    code.push_str("];\n");
}
