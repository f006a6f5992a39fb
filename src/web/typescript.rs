//! The TypeScript of what crosses the border, out of the structs that serde reads and writes there.
//!
//! One file, tracked in git: `www/lib/generated/engine.ts`. A test here fails where the file is not what the structs say;
//! `LLAMERO_WRITE=1 cargo test --lib typescript` writes it anew. Nothing of this is in a build: the derives of `ts_rs` are
//! `cfg(test)`.

use crate::engine::{
    Costs, DecodeOptions, EmbedRequest, Event, Generation, LoadOptions, ModelInfo, Pooling,
    Progress, Request, Score, ScoreRequest, TemplateOptions,
};
use crate::error::ErrorKind;
use crate::exec::{CacheType, gpu::lower::Tuning};
use crate::quant::DType;
use crate::tokenizer::EncodeOptions;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use std::collections::BTreeMap;
use std::fmt::Write;
use ts_rs::{Config, TS, TypeVisitor};

const FILE: &str = "www/lib/generated/engine.ts";
const COMMAND: &str = "LLAMERO_WRITE=1 cargo test --lib typescript";

/// Declarations by name: of each type that is asked for, and of all types that it is made of.
struct Declarations<'a> {
    config: &'a Config,
    texts: BTreeMap<String, String>,
}

impl Declarations<'_> {
    fn add<T: TS + 'static + ?Sized>(&mut self) {
        // What has no file of its own is not a type of ours.
        if T::output_path().is_none() {
            return T::visit_dependencies(self);
        }
        let name = T::ident(self.config);
        if self.texts.contains_key(&name) {
            return;
        }
        let docs = T::docs().unwrap_or_default();
        let text = pretty(&format!("{docs}export {}", T::decl(self.config)));
        self.texts.insert(name, text);
        T::visit_dependencies(self);
    }
}

impl TypeVisitor for Declarations<'_> {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        self.add::<T>();
    }
}

/// A declaration as a reader expects it: an object type as an interface, a field a line, its documentation above it.
fn pretty(declaration: &str) -> String {
    let is_object = declaration.contains(" = {") && !declaration.contains("} | {");
    let mut out = String::new();
    let mut docs: Vec<String> = Vec::new();
    let mut depth = 0;
    for line in declaration.lines() {
        match line.trim_end() {
            "/**" => docs.clear(),
            " */" => {
                let indent = "  ".repeat(depth);
                if let [one] = &docs[..] {
                    writeln!(out, "{indent}/** {one} */").expect("a String takes all");
                    continue;
                }
                writeln!(out, "{indent}/**").expect("a String takes all");
                for doc in &docs {
                    writeln!(out, "{}", format!("{indent} * {doc}").trim_end())
                        .expect("a String takes all");
                }
                writeln!(out, "{indent} */").expect("a String takes all");
            }
            doc if doc.starts_with(" *") => docs.push(without_links(doc[2..].trim_start())),
            code => {
                let code = code.replace("{ ", "{\n").replace(", }", ",\n}");
                for part in code.lines() {
                    depth -= usize::from(part.starts_with('}'));
                    let mut part = format!("{}{}", "  ".repeat(depth), part.trim_end());
                    depth += usize::from(part.ends_with('{'));
                    if part.ends_with(',') {
                        part.pop();
                        part.push(';');
                    }
                    writeln!(out, "{}", part.replace('"', "'")).expect("a String takes all");
                }
            }
        }
    }
    if is_object {
        out = out
            .replacen("export type ", "export interface ", 1)
            .replacen(" = {", " {", 1);
        out.truncate(out.trim_end().trim_end_matches(';').len());
        out.push('\n');
    }
    out
}

/// Documentation without rustdoc's links: `[`a`](b)` is `a`, and `[``b::a``]` too.
fn without_links(doc: &str) -> String {
    let mut out = String::new();
    let mut rest = doc;
    while let Some(at) = rest.find("[`") {
        let Some(end) = rest[at..].find("`]").map(|end| at + end) else {
            break;
        };
        let name = &rest[at + 2..end];
        let name = name.rsplit_once("::").map_or(name, |(_, name)| name);
        write!(out, "{}`{name}`", &rest[..at]).expect("a String takes all");
        rest = &rest[end + 2..];
        if let Some(close) = rest.starts_with('(').then(|| rest.find(')')).flatten() {
            rest = &rest[close + 1..];
        }
    }
    out + rest
}

/// The names of a struct's fields, as serde reads them.
fn names<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("only names are wanted"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }
        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = variants;
            self.deserialize_any(visitor)
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    let read = T::deserialize(Names(&mut names));
    assert!(
        read.is_err() && !names.is_empty(),
        "serde names no fields: {names:?}"
    );
    names
}

/// `export const NAME = ['a', 'b'] as const;`
fn list(out: &mut String, doc: &str, name: &str, items: &[impl std::fmt::Debug]) {
    let items: Vec<String> = items
        .iter()
        .map(|item| format!("  {},\n", format!("{item:?}").replace('"', "'")))
        .collect();
    writeln!(
        out,
        "/** {doc} */\nexport const {name} = [\n{}] as const;\n",
        items.concat()
    )
    .expect("a String takes all");
}

fn render() -> String {
    let config = Config::default().with_large_int("number");
    let mut out = String::new();
    writeln!(out, "// Written by `{COMMAND}`, from the structs of src/ that serde reads and writes. Do not edit.\n").expect("a String takes all");

    let doc: Vec<String> = ErrorKind::ALL
        .iter()
        .map(|kind| {
            format!(
                " * - `{}`: {}\n",
                kind.code(),
                kind.doc().replace('\n', "\n *   ")
            )
        })
        .collect();
    let codes: Vec<&str> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
    list(&mut out, "Every `ErrorCode`.", "ERROR_CODES", &codes);
    writeln!(out, "/**\n * What went wrong, to match on.\n *\n{} */\nexport type ErrorCode = (typeof ERROR_CODES)[number];\n", doc.concat())
        .expect("a String takes all");

    write_lists(&mut out);
    out + &declarations(&config)
}

/// The names of options and of what they may be.
fn write_lists(out: &mut String) {
    list(
        out,
        "Names of `EngineOptions`.",
        "ENGINE_OPTIONS",
        names::<LoadOptions>(),
    );
    list(
        out,
        "Names of `Kernels`.",
        "KERNELS",
        names::<crate::engine::Kernels>(),
    );
    list(out, "What `Kernels.lanes` may be.", "LANES", &Tuning::LANES);
    list(
        out,
        "Every `Device`.",
        "DEVICES",
        names::<crate::engine::Device>(),
    );
    list(
        out,
        "Names of `GenerationRequest`.",
        "REQUEST",
        names::<Request>(),
    );
    list(
        out,
        "Names of `ChatTemplateOptions`.",
        "TEMPLATE_OPTIONS",
        names::<TemplateOptions>(),
    );
    list(
        out,
        "Names of `EncodeOptions`.",
        "ENCODE_OPTIONS",
        names::<EncodeOptions>(),
    );
    list(
        out,
        "Names of `DecodeOptions`.",
        "DECODE_OPTIONS",
        names::<DecodeOptions>(),
    );
    list(
        out,
        "Names of `EmbedRequest`.",
        "EMBED_REQUEST",
        names::<EmbedRequest>(),
    );
    list(out, "Every `Pooling`.", "POOLINGS", names::<Pooling>());
    let cache = CacheType::ALL.map(CacheType::name);
    list(out, "Every `CacheType`.", "CACHE_TYPES", &cache);
    *out += "/** How cached keys and values are stored. */\nexport type CacheType = (typeof CACHE_TYPES)[number];\n\n";
    let quantize: Vec<String> = DType::quantizable()
        .map(|dtype| dtype.name().to_lowercase())
        .collect();
    list(out, "Every `Quantize`.", "QUANTIZE", &quantize);
    *out += "/** Weight types that matrices can be quantised to while they load. */\nexport type Quantize = (typeof QUANTIZE)[number];\n\n";
}

/// The declarations of the structs, in the order of their names.
fn declarations(config: &Config) -> String {
    let mut declarations = Declarations {
        config,
        texts: BTreeMap::new(),
    };
    declarations.add::<LoadOptions>();
    declarations.add::<Request>();
    declarations.add::<TemplateOptions>();
    declarations.add::<EncodeOptions>();
    declarations.add::<DecodeOptions>();
    declarations.add::<Progress>();
    declarations.add::<ScoreRequest>();
    declarations.add::<Score>();
    declarations.add::<EmbedRequest>();
    declarations.add::<Event>();
    declarations.add::<Generation>();
    declarations.add::<ModelInfo>();
    declarations.add::<Costs>();
    let texts: Vec<&str> = declarations.texts.values().map(String::as_str).collect();
    texts.join("\n")
}

#[test]
fn typescript_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let text = render();
    if std::env::var_os("LLAMERO_WRITE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        std::fs::write(&path, &text).expect("the file can be written");
    }
    let tracked = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        tracked == text,
        "{FILE} is not what the structs say; run `{COMMAND}`"
    );
}

/// What a field becomes that is added to a struct: nothing but the struct is touched.
#[test]
fn a_new_option_is_declared_and_named() {
    /// Settings of [`crate::engine::Model`].
    #[derive(Default, Deserialize, TS)]
    #[serde(default, deny_unknown_fields)]
    #[ts(optional_fields)]
    struct Grown {
        /// Keep tokens that are typical,
        /// up to this probability.
        typical_p: Option<f32>,
        /// How.
        mode: Option<Mode>,
    }
    #[derive(Clone, Copy, Deserialize, TS)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        Quick,
        VerySlow,
    }
    let read: Grown = serde_json::from_str(r#"{"typical_p":0.5,"mode":"quick"}"#).expect("valid");
    assert!(read.typical_p.is_some() && matches!(read.mode, Some(Mode::Quick)));

    assert_eq!(names::<Grown>(), ["typical_p", "mode"]);
    assert_eq!(names::<Mode>(), ["quick", "very_slow"]);
    let config = Config::default();
    let mut declarations = Declarations {
        config: &config,
        texts: BTreeMap::new(),
    };
    declarations.add::<Grown>();
    let wanted = "/** Settings of `Model`. */\nexport interface Grown {\n  /**\n   * Keep tokens that are typical,\n   \
                  * up to this probability.\n   */\n  typical_p?: number;\n  /** How. */\n  mode?: Mode;\n}\n";
    assert_eq!(declarations.texts["Grown"], wanted);
    assert_eq!(
        declarations.texts["Mode"],
        "export type Mode = 'quick' | 'very_slow';\n"
    );
}
