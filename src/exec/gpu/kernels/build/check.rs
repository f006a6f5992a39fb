//! Assembles and validates variants, and finds what their hosts must know.

use super::super::table::{Choice, Facts, Family};
use super::Files;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Handle, Module, ScalarKind, StorageAccess, Type, TypeInner, VectorSize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What WebGPU guarantees: a kernel may not need more.
const MAX_WORKGROUP_BYTES: u32 = 16 << 10;
const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_INVOCATIONS: u32 = 256;

/// A struct that host and shader share: fields with their Rust types.
pub type Struct = Vec<(String, String)>;

/// What the variants of a family have in common.
pub struct Reflection {
    /// Sizes and counts; the largest of any variant.
    pub facts: Facts,
    /// Type of the uniform at binding 0: `Params`, or a struct that families share.
    pub params: String,
    /// `Params`, what it contains, and the structs that storage buffers hold.
    pub structs: BTreeMap<String, Struct>,
    /// Names of bindings 1, 2, 3 …
    pub bindings: Vec<String>,
    /// Named constants that are the same in every variant, as Rust type and value.
    pub constants: BTreeMap<String, (&'static str, String)>,
}

impl Reflection {
    /// Whether a host's parameters and bindings for one serve the other.
    pub fn same_host_side(&self, other: &Self) -> bool {
        self.params == other.params
            && self.structs == other.structs
            && self.bindings == other.bindings
            && self.facts.written == other.facts.written
    }
}

/// Checks every variant of each family, on all processors: there are well over two thousand.
pub fn families(files: &Files, families: &[Family]) -> Vec<Result<Reflection, Vec<String>>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(at) =
            Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < families.len())
        {
            done.push((at, family(files, &families[at])));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut checked: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let results = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"));
        results.collect()
    });
    checked.sort_by_key(|(at, _)| *at);
    checked.into_iter().map(|(_, result)| result).collect()
}

fn family(files: &Files, family: &Family) -> Result<Reflection, Vec<String>> {
    let mut whole: Option<Reflection> = None;
    let mut errors = Vec::new();
    for choices in combinations(family) {
        let name = family.name_of(&choices);
        match (variant(files, family, &choices), &mut whole) {
            (Err(message), _) => errors.push(message),
            (Ok(found), None) => whole = Some(found),
            (Ok(found), Some(whole)) => {
                let facts = &mut whole.facts;
                let size = facts.workgroup_size;
                facts.workgroup_bytes = facts.workgroup_bytes.max(found.facts.workgroup_bytes);
                facts.narrow_loads = facts.narrow_loads.max(found.facts.narrow_loads);
                if !whole.same_host_side(&found) || found.facts.workgroup_size != size {
                    errors.push(format!(
                        "{name}: parameters, bindings or workgroup size differ from those of the family's first variant"
                    ));
                }
                whole
                    .constants
                    .retain(|name, value| found.constants.get(name) == Some(value));
            }
        }
    }
    match whole {
        Some(whole) if errors.is_empty() => Ok(whole),
        Some(_) => Err(errors),
        None if errors.is_empty() => Err(vec![format!("{}: no variant", family.name)]),
        None => Err(errors),
    }
}

/// Every allowed combination: a choice for each hole.
fn combinations(family: &Family) -> Vec<Vec<&'static Choice>> {
    let mut all = vec![Vec::new()];
    for hole in family.holes {
        all = all
            .into_iter()
            .flat_map(|begun: Vec<&Choice>| {
                hole.choices.iter().map(move |choice| {
                    let mut begun = begun.clone();
                    begun.push(choice);
                    begun
                })
            })
            .collect();
    }
    all.retain(|choices| family.allows(choices));
    all
}

fn variant(files: &Files, family: &Family, choices: &[&Choice]) -> Result<Reflection, String> {
    let name = family.name_of(choices);
    let source = family
        .source_of(choices, &|path| files.get(path).map(String::as_str))
        .map_err(|e| format!("{name}: {e}"))?;
    let module = naga::front::wgsl::parse_str(&source)
        .map_err(|e| format!("{name}:\n{}", e.emit_to_string_with_path(&source, &name)))?;
    let capabilities = Capabilities::SUBGROUP
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| format!("{name}:\n{}", e.emit_to_string_with_path(&source, &name)))?;
    reflect(&module).map_err(|e| format!("{name}: {e}"))
}

fn reflect(module: &Module) -> Result<Reflection, String> {
    let mut sizes = naga::proc::Layouter::default();
    sizes.update(module.to_ctx()).map_err(|e| format!("{e}"))?;
    let mut params = None;
    let mut structs = BTreeMap::new();
    let mut bindings: BTreeMap<u32, (String, bool)> = BTreeMap::new();
    let mut workgroup_bytes = 0;
    for (_, var) in module.global_variables.iter() {
        let name = var.name.clone().unwrap_or_default();
        match (var.space, var.binding) {
            (AddressSpace::Uniform, Some(at)) if at.group == 0 && at.binding == 0 => {
                params = Some((host_type(module, var.ty, &mut structs)?, sizes[var.ty].size));
            }
            (AddressSpace::Storage { access }, Some(at)) if at.group == 0 => {
                if let TypeInner::Array { base, .. } = module.types[var.ty].inner
                    && let TypeInner::Struct { .. } = module.types[base].inner
                {
                    host_type(module, base, &mut structs)?;
                }
                let written = access.contains(StorageAccess::STORE);
                let binding = (name.clone(), written);
                if bindings.insert(at.binding, binding).is_some() {
                    return Err(format!("binding {} is used twice ({name})", at.binding));
                }
            }
            (AddressSpace::WorkGroup, _) => workgroup_bytes += sizes[var.ty].size,
            (AddressSpace::Private, _) => {}
            other => return Err(format!("global {name}: {other:?} is not foreseen")),
        }
    }
    if !bindings.keys().copied().eq(1..=bindings.len() as u32) {
        let found: Vec<&u32> = bindings.keys().collect();
        return Err(format!("bindings {found:?} are not 1, 2, 3 …"));
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
    let (params, params_bytes) = params.ok_or("no uniform at binding 0")?;
    let (bindings, written): (Vec<String>, Vec<bool>) = bindings.into_values().unzip();
    Ok(Reflection {
        facts: Facts {
            workgroup_size: x,
            workgroup_bytes,
            narrow_loads: narrow_loads(module),
            params_bytes,
            written: written.leak(),
        },
        params,
        structs,
        bindings,
        constants: constants(module),
    })
}

/// The Rust type of what a buffer holds; structs are added to `structs`. Fields lie without gaps, as `repr(C)` has them.
fn host_type(
    module: &Module,
    ty: Handle<Type>,
    structs: &mut BTreeMap<String, Struct>,
) -> Result<String, String> {
    let word = |kind: ScalarKind, width: u8| match (kind, width) {
        (ScalarKind::Uint, 4) => Ok("u32"),
        (ScalarKind::Float, 4) => Ok("f32"),
        _ => Err(format!("a field is a {kind:?} of {width} bytes")),
    };
    let ty = &module.types[ty];
    match &ty.inner {
        TypeInner::Scalar(scalar) => Ok(word(scalar.kind, scalar.width)?.to_owned()),
        TypeInner::Vector {
            size: VectorSize::Bi,
            scalar,
        } => Ok(format!("[{}; 2]", word(scalar.kind, scalar.width)?)),
        TypeInner::Struct { members, span } => {
            let name = ty.name.clone().unwrap_or_default();
            let (mut fields, mut end) = (Vec::new(), 0);
            for member in members {
                let field = member.name.clone().unwrap_or_default();
                if member.offset != end {
                    return Err(format!(
                        "{name}.{field} is at {}, not at {end}",
                        member.offset
                    ));
                }
                end += module.types[member.ty].inner.size(module.to_ctx());
                fields.push((field, host_type(module, member.ty, structs)?));
            }
            if end != *span {
                return Err(format!("{name} has {span} bytes, its fields {end}"));
            }
            structs.insert(name.clone(), fields);
            Ok(name)
        }
        other => Err(format!("{other:?} is no type of a host")),
    }
}

/// Named scalar constants.
fn constants(module: &Module) -> BTreeMap<String, (&'static str, String)> {
    let mut found = BTreeMap::new();
    for (_, constant) in module.constants.iter() {
        let naga::Expression::Literal(literal) = module.global_expressions[constant.init] else {
            continue;
        };
        let value = match literal {
            naga::Literal::U32(value) => ("u32", value.to_string()),
            naga::Literal::I32(value) => ("i32", value.to_string()),
            naga::Literal::F32(value) => ("f32", format!("{value:?}")),
            _ => continue,
        };
        if let Some(name) = &constant.name {
            found.insert(name.clone(), value);
        }
    }
    found
}

/// Loads from `weights` of less than a whole `vec4<u32>`.
fn narrow_loads(module: &Module) -> u32 {
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
