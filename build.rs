//! Reads shaders/, assembles and validates every variant that shaders/permutations lists, and writes the typed kernel
//! table `kernels.rs`: parameter structs, binding lists, workgroup sizes. A renamed binding or a moved parameter is
//! then a compile error in `src/exec/gpu/`.
//!
//! Also tells tests what this machine has: cfg `default_model` (models/…), `npm_vocabularies` (node_modules), `gpu` (a
//! Vulkan driver). What needs one that is absent is reported as ignored.

#[path = "src/exec/gpu/assemble.rs"]
mod assemble;

use assemble::{Recipe, assemble};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What WebGPU guarantees: a kernel may not need more.
const MAX_WORKGROUP_BYTES: u32 = 16 << 10;
const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_INVOCATIONS: u32 = 256;

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/exec/gpu/assemble.rs");
    println!("cargo:rerun-if-changed=shaders");
    // Cargo runs this script each time while a path that it is told to watch is absent. What comes later is noticed
    // once this file is touched; `build.sh test` does it.
    for (name, path) in [
        ("default_model", "models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("npm_vocabularies", "node_modules/llama-tokenizer-js"),
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
    let files = read_shaders(&root.join("shaders"));
    let families = match read_permutations(&root.join("shaders/permutations")) {
        Ok(families) => families,
        Err(message) => fail(&[message]),
    };
    let mut errors = Vec::new();
    let mut code = String::from("// Written by build.rs from shaders/. Do not edit.\n\n");
    write_files(&files, &mut code);
    let mut table = String::new();
    let mut layouts: BTreeMap<String, Layout> = BTreeMap::new();
    // Two threads: there are well over a thousand variants.
    let checked: Vec<Vec<Result<Found, String>>> = std::thread::scope(|scope| {
        let (files, families) = (&files, &families);
        let check_family = |family: &Family| {
            family
                .variants()
                .iter()
                .map(|v| check(files, v))
                .collect::<Vec<_>>()
        };
        let half = |odd: usize| {
            move || {
                families
                    .iter()
                    .skip(odd)
                    .step_by(2)
                    .map(check_family)
                    .collect::<Vec<_>>()
            }
        };
        let (even, odd) = (scope.spawn(half(0)), scope.spawn(half(1)));
        let mut odd = odd.join().expect("a check does not panic").into_iter();
        let even = even.join().expect("a check does not panic").into_iter();
        even.flat_map(|even| std::iter::once(even).chain(odd.next()))
            .collect()
    });
    for (family, variants) in families.iter().zip(checked) {
        let mut whole: Option<Found> = None;
        for (variant, found) in family.variants().iter().zip(variants) {
            match (found, &mut whole) {
                (Err(message), _) => errors.push(message),
                (Ok(found), None) => whole = Some(found),
                (Ok(found), Some(whole)) => {
                    if found.layout != whole.layout || found.workgroup_size != whole.workgroup_size
                    {
                        errors.push(format!(
                            "{}: parameters, bindings or workgroup size differ from those of the family's first variant",
                            variant.name
                        ));
                    }
                    whole.workgroup_bytes = whole.workgroup_bytes.max(found.workgroup_bytes);
                    whole.narrow_loads = whole.narrow_loads.max(found.narrow_loads);
                }
            }
        }
        if let Some(whole) = whole {
            write_family_entry(family, &whole, &mut table);
            write_family(family, &whole.layout, &mut code);
            layouts.insert(family.name.clone(), whole.layout);
        }
    }
    // The host describes a matrix product once, for both of its kernels.
    for (name, layout) in &layouts {
        let twin = name
            .strip_prefix("matmul_")
            .and_then(|epilogue| layouts.get(&format!("matvec_{epilogue}")));
        if twin.is_some_and(|twin| twin != layout) {
            errors.push(format!(
                "{name}: parameters or bindings differ from its matvec twin"
            ));
        }
    }
    if !errors.is_empty() {
        fail(&errors);
    }
    let _ = write!(
        code,
        "/// Every family.\npub static FAMILIES: &[Family] = &[\n{table}];\n"
    );
    fs::write(out.join("kernels.rs"), code).expect("OUT_DIR is writable");
}

fn fail(errors: &[String]) -> ! {
    for error in errors {
        eprintln!("{error}\n");
    }
    panic!("{} shader error(s), see above", errors.len());
}

/// Stem -> text without comments and indentation (line numbers are kept).
type Files = BTreeMap<String, String>;

fn read_shaders(folder: &Path) -> Files {
    let mut files = Files::new();
    for folder in [folder.to_owned(), folder.join("shared")] {
        for entry in fs::read_dir(&folder).expect("shaders/ is there") {
            let path = entry.expect("readable folder").path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                let stem = path
                    .file_stem()
                    .expect("has a name")
                    .to_string_lossy()
                    .into_owned();
                let text = fs::read_to_string(&path).expect("readable shader");
                let bare: Vec<&str> = text
                    .lines()
                    .map(|l| l.split("//").next().unwrap_or("").trim())
                    .collect();
                assert!(
                    files.insert(stem.clone(), bare.join("\n")).is_none(),
                    "two shader files are named {stem}"
                );
            }
        }
    }
    files
}

struct Slot {
    name: String,
    prefix: String,
    choices: Vec<Choice>,
}

/// `name:DEFINE+DEFINE@NEEDED`
#[derive(Clone)]
struct Choice {
    name: String,
    defines: Vec<String>,
    /// A choice only together with another that defines this; empty: always.
    needs: String,
}

fn parse_choice(text: &str) -> Choice {
    let (text, needs) = text.split_once('@').unwrap_or((text, ""));
    let (name, defines) = text.split_once(':').unwrap_or((text, ""));
    let defines = defines
        .split('+')
        .filter(|d| !d.is_empty())
        .map(str::to_owned)
        .collect();
    Choice {
        name: name.to_owned(),
        defines,
        needs: needs.to_owned(),
    }
}

struct Family {
    name: String,
    source: String,
    slots: Vec<Slot>,
    defines: Vec<String>,
}

struct Variant {
    name: String,
    source: String,
    imports: Vec<(String, String)>,
    defines: Vec<String>,
    needs: Vec<String>,
}

impl Family {
    fn variants(&self) -> Vec<Variant> {
        let mut variants = vec![Variant {
            name: self.name.clone(),
            source: self.source.clone(),
            imports: Vec::new(),
            defines: self.defines.clone(),
            needs: Vec::new(),
        }];
        for slot in &self.slots {
            let mut next = Vec::new();
            for variant in &variants {
                for choice in &slot.choices {
                    let mut new = Variant {
                        name: variant.name.clone(),
                        source: variant.source.clone(),
                        imports: variant.imports.clone(),
                        defines: variant.defines.clone(),
                        needs: variant.needs.clone(),
                    };
                    if slot.choices.len() > 1 {
                        new.name = format!("{}.{}", new.name, choice.name);
                    }
                    new.imports.push((
                        slot.name.clone(),
                        format!("{}_{}", slot.prefix, choice.name),
                    ));
                    new.defines.extend(choice.defines.clone());
                    new.needs
                        .extend((!choice.needs.is_empty()).then(|| choice.needs.clone()));
                    next.push(new);
                }
            }
            variants = next;
        }
        variants.retain(|variant| {
            variant
                .needs
                .iter()
                .all(|needed| variant.defines.contains(needed))
        });
        variants
    }
}

fn read_permutations(path: &Path) -> Result<Vec<Family>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut families = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let (name, rest) = line
            .split_once(" = ")
            .ok_or_else(|| format!("permutations: no ` = ` in {line:?}"))?;
        let (name, words) = (
            name.trim().to_owned(),
            rest.split_whitespace().collect::<Vec<_>>(),
        );
        // A list names no file that could have an entry point.
        if !path.with_file_name(format!("{}.wgsl", words[0])).exists() {
            lists.insert(name, words.iter().map(|w| (*w).to_owned()).collect());
            continue;
        }
        let mut family = Family {
            name,
            source: words[0].to_owned(),
            slots: Vec::new(),
            defines: Vec::new(),
        };
        for word in &words[1..] {
            let Some((slot, choices)) = word.split_once('=') else {
                family.defines.push((*word).to_owned());
                continue;
            };
            let (slot, prefix) = slot.split_once(':').unwrap_or((slot, slot));
            let mut parsed = Vec::new();
            for choice in choices.split('|') {
                match choice.strip_prefix('$') {
                    Some(list) => {
                        let list = lists
                            .get(list)
                            .ok_or_else(|| format!("permutations: no list {list:?}"))?;
                        parsed.extend(list.iter().map(|c| parse_choice(c)));
                    }
                    None => parsed.push(parse_choice(choice)),
                }
            }
            family.slots.push(Slot {
                name: slot.to_owned(),
                prefix: prefix.to_owned(),
                choices: parsed,
            });
        }
        families.push(family);
    }
    Ok(families)
}

/// What every variant of a family shares: parameter fields and binding names.
#[derive(PartialEq)]
struct Layout {
    params: Vec<(String, &'static str)>,
    /// Names of bindings 1.. with whether they are written.
    bindings: Vec<(String, bool)>,
}

struct Found {
    layout: Layout,
    workgroup_size: u32,
    workgroup_bytes: u32,
    narrow_loads: u32,
}

fn check(files: &Files, variant: &Variant) -> Result<Found, String> {
    let imports: Vec<(&str, &str)> = variant
        .imports
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let defines: Vec<&str> = variant.defines.iter().map(String::as_str).collect();
    let recipe = Recipe {
        source: &variant.source,
        imports: &imports,
        defines: &defines,
    };
    let source = assemble(&recipe, &|stem| files.get(stem).map(String::as_str))
        .map_err(|e| format!("{}: {e}", variant.name))?;
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| {
        format!(
            "{}:\n{}",
            variant.name,
            e.emit_to_string_with_path(&source, &variant.name)
        )
    })?;
    let info = validate(&module).map_err(|e| {
        format!(
            "{}:\n{}",
            variant.name,
            e.emit_to_string_with_path(&source, &variant.name)
        )
    })?;
    let _ = info;
    layout(&module).map_err(|e| format!("{}: {e}", variant.name))
}

fn validate(
    module: &naga::Module,
) -> Result<ModuleInfo, Box<naga::WithSpan<naga::valid::ValidationError>>> {
    let capabilities = Capabilities::SUBGROUP
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(module)
        .map_err(Box::new)
}

fn layout(module: &naga::Module) -> Result<Found, String> {
    use naga::{AddressSpace, ScalarKind, StorageAccess, TypeInner};
    let mut sizes = naga::proc::Layouter::default();
    sizes.update(module.to_ctx()).map_err(|e| format!("{e}"))?;
    let mut params = None;
    let mut bindings: BTreeMap<u32, (String, bool)> = BTreeMap::new();
    let mut workgroup_bytes = 0;
    for (_, var) in module.global_variables.iter() {
        let name = var.name.clone().unwrap_or_default();
        match (var.space, var.binding) {
            (AddressSpace::Uniform, Some(at)) if at.group == 0 && at.binding == 0 => {
                let TypeInner::Struct { members, .. } = &module.types[var.ty].inner else {
                    return Err("binding 0 is not a struct".into());
                };
                let mut fields = Vec::new();
                for (i, member) in members.iter().enumerate() {
                    let kind = match module.types[member.ty].inner {
                        TypeInner::Scalar(s) if s.width == 4 && s.kind == ScalarKind::Uint => "u32",
                        TypeInner::Scalar(s) if s.width == 4 && s.kind == ScalarKind::Float => {
                            "f32"
                        }
                        _ => {
                            return Err(format!(
                                "parameter {:?} is neither u32 nor f32",
                                member.name
                            ));
                        }
                    };
                    if member.offset != i as u32 * 4 {
                        return Err(format!(
                            "parameter {:?} is at {}",
                            member.name, member.offset
                        ));
                    }
                    fields.push((member.name.clone().unwrap_or_default(), kind));
                }
                params = Some(fields);
            }
            (AddressSpace::Storage { access }, Some(at)) if at.group == 0 => {
                let written = access.contains(StorageAccess::STORE);
                if bindings
                    .insert(at.binding, (name.clone(), written))
                    .is_some()
                {
                    return Err(format!("binding {} is used twice ({name})", at.binding));
                }
            }
            (AddressSpace::WorkGroup, _) => workgroup_bytes += sizes[var.ty].size,
            (AddressSpace::Private, _) => {}
            other => return Err(format!("global {name}: {other:?} is not foreseen")),
        }
    }
    if !bindings.keys().copied().eq(1..=bindings.len() as u32) {
        return Err(format!(
            "bindings {:?} are not 1, 2, 3 …",
            bindings.keys().collect::<Vec<_>>()
        ));
    }
    if bindings.len() > MAX_STORAGE_BUFFERS {
        return Err(format!(
            "{} storage buffers; WebGPU guarantees {MAX_STORAGE_BUFFERS}",
            bindings.len()
        ));
    }
    if workgroup_bytes > MAX_WORKGROUP_BYTES {
        return Err(format!(
            "{workgroup_bytes} bytes of workgroup memory; WebGPU guarantees {MAX_WORKGROUP_BYTES}"
        ));
    }
    let [entry] = module.entry_points.as_slice() else {
        return Err("not one entry point".into());
    };
    let [x, 1, 1] = entry.workgroup_size else {
        return Err("workgroups are one-dimensional here".into());
    };
    if entry.name != "main" || x > MAX_INVOCATIONS {
        return Err(format!("entry point {:?} with {x} invocations", entry.name));
    }
    Ok(Found {
        layout: Layout {
            params: params.ok_or("no uniform at binding 0")?,
            bindings: bindings.into_values().collect(),
        },
        workgroup_size: x,
        workgroup_bytes,
        narrow_loads: narrow_loads(module),
    })
}

/// Loads from `weights` of less than a whole `vec4<u32>`.
fn narrow_loads(module: &naga::Module) -> u32 {
    use naga::Expression;
    let functions = module
        .functions
        .iter()
        .map(|(_, f)| f)
        .chain(module.entry_points.iter().map(|e| &e.function));
    let mut narrow = 0;
    for function in functions {
        for (_, expression) in function.expressions.iter() {
            let Expression::Load { mut pointer } = *expression else {
                continue;
            };
            let mut steps = 0;
            loop {
                match function.expressions[pointer] {
                    Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                        pointer = base;
                        steps += 1;
                    }
                    Expression::GlobalVariable(global) => {
                        let weights =
                            module.global_variables[global].name.as_deref() == Some("weights");
                        narrow += u32::from(weights && steps != 1);
                        break;
                    }
                    _ => break,
                }
            }
        }
    }
    narrow
}

fn write_files(files: &Files, code: &mut String) {
    code.push_str(
        "/// Shader files by stem, without comments.\npub static FILES: &[(&str, &str)] = &[\n",
    );
    for (stem, text) in files {
        // Blank lines are dropped here; naga's messages at build time keep the real line numbers.
        let lines: Vec<&str> = text.lines().filter(|l| !l.is_empty()).collect();
        let _ = writeln!(code, "    ({stem:?}, {:?}),", lines.join("\n"));
    }
    code.push_str("];\n\n");
}

fn write_family(family: &Family, layout: &Layout, code: &mut String) {
    let name = &family.name;
    let _ = writeln!(
        code,
        "/// `{name}`, from shaders/{}.wgsl.\npub mod {name} {{",
        family.source
    );
    code.push_str(
        "    use super::{Kernel, Slot};\n\n    /// `params`, as the shader declares it.\n",
    );
    code.push_str(
        "    #[repr(C)]\n    #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]\n",
    );
    code.push_str("    #[allow(missing_docs)]\n    pub struct Params {\n");
    for (field, kind) in &layout.params {
        let _ = writeln!(code, "        pub {field}: {kind},");
    }
    let _ = writeln!(
        code,
        "    }}\n    const _: () = assert!(size_of::<Params>() == {});\n",
        layout.params.len() * 4
    );
    code.push_str("    /// Storage bindings, in order.\n    #[derive(Clone, Copy, Debug)]\n    #[allow(missing_docs)]\n    pub struct Bindings {\n");
    for (field, _) in &layout.bindings {
        let _ = writeln!(code, "        pub {field}: Slot,");
    }
    code.push_str("    }\n\n    impl Kernel for Bindings {\n        type Params = Params;\n");
    let _ = writeln!(code, "        const FAMILY: &'static str = {name:?};");
    code.push_str("        fn slots(&self) -> Vec<Slot> {\n            vec![");
    for (field, _) in &layout.bindings {
        let _ = write!(code, "self.{field}, ");
    }
    code.push_str("]\n        }\n    }\n}\n\n");
}

fn write_family_entry(family: &Family, found: &Found, table: &mut String) {
    let written: Vec<bool> = found
        .layout
        .bindings
        .iter()
        .map(|(_, written)| *written)
        .collect();
    let _ = writeln!(
        table,
        "    Family {{ name: {:?}, source: {:?}, defines: &{:?}, workgroup_size: {}, workgroup_bytes: {}, narrow_loads: {}, \
         params_bytes: {}, written: &{written:?}, slots: &[",
        family.name,
        family.source,
        family.defines,
        found.workgroup_size,
        found.workgroup_bytes,
        found.narrow_loads,
        found.layout.params.len() * 4,
    );
    for slot in &family.slots {
        let _ = writeln!(
            table,
            "        Choices {{ slot: {:?}, prefix: {:?}, choices: &[",
            slot.name, slot.prefix
        );
        for Choice {
            name,
            defines,
            needs,
        } in &slot.choices
        {
            let _ = writeln!(
                table,
                "            Choice {{ name: {name:?}, defines: &{defines:?}, needs: {needs:?} }},"
            );
        }
        table.push_str("        ] },\n");
    }
    table.push_str("    ] },\n");
}
