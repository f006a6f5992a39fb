//! Chat templates against Transformers' own renderings, and against hostile templates.

use crate::support::gguf::{GgufBuilder, strings};
use llamero::error::{ErrorKind, Result};
use llamero::format::Checkpoint;
use llamero::quant::DType;
use llamero::tokenizer::{ChatTemplate, DateTime, HfFiles, TemplateInput, Tokenizer};
use serde_json::{Value, json};

fn render(template: &str, variables: &Value) -> Result<String> {
    let input = TemplateInput {
        now: DateTime::from_iso("2025-03-14T15:09:26"),
        extra: variables.as_object(),
        ..TemplateInput::default()
    };
    ChatTemplate::new(template, "<s>", "</s>")?.render(&input)
}

const TOKENIZER: &str = r#"{
    "added_tokens": [{"id": 2, "content": "</s>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
}"#;

/// A tokenizer of Hugging Face's files, with `tokenizer_config.json` and a file of the template's own.
fn from_hf(config: &Value, chat_template: Option<&str>) -> Result<Tokenizer> {
    let config = config.to_string();
    Tokenizer::from_hf(HfFiles {
        tokenizer_json: Some(TOKENIZER.as_bytes()),
        tokenizer_config: Some(config.as_bytes()),
        chat_template: chat_template.map(str::as_bytes),
        ..HfFiles::default()
    })
}

/// The same with its template in `chat_template.json`.
fn from_json_file(text: &str) -> Result<Tokenizer> {
    let config = json!({"eos_token": "</s>"}).to_string();
    Tokenizer::from_hf(HfFiles {
        tokenizer_json: Some(TOKENIZER.as_bytes()),
        tokenizer_config: Some(config.as_bytes()),
        chat_template_json: Some(text.as_bytes()),
        ..HfFiles::default()
    })
}

/// The text of a conversation of one message, without tools and with one.
fn both(tokenizer: &Tokenizer) -> [Result<String>; 2] {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let tools = json!([{"type": "function", "function": {"name": "clock", "parameters": {}}}]);
    [None, Some(&tools)].map(|tools| {
        let input = TemplateInput {
            messages: &messages,
            tools,
            ..TemplateInput::default()
        };
        tokenizer
            .chat_template()
            .expect("a template")
            .render(&input)
    })
}

#[test]
fn templates_are_found_in_every_kind_of_file() {
    let plain = "{{ messages[0].content }}{{ eos_token }}{% if tools %} {{ tools[0].function.name }}{% endif %}";
    let with_tools = "tools: {{ tools|map(attribute='function.name')|join }}";
    let named = json!([{"name": "tool_use", "template": with_tools}, {"name": "default", "template": plain}]);
    let object = json!({"tool_use": with_tools, "default": plain});
    let config = |template: Value| json!({"eos_token": "</s>", "chat_template": template});
    let in_json = json!({"chat_template": plain}).to_string();
    let cases: [(&str, Tokenizer, [&str; 2]); 6] = [
        (
            "text",
            from_hf(&config(plain.into()), None).unwrap(),
            ["Hi</s>", "Hi</s> clock"],
        ),
        (
            "list",
            from_hf(&config(named), None).unwrap(),
            ["Hi</s>", "tools: clock"],
        ),
        (
            "object",
            from_hf(&config(object), None).unwrap(),
            ["Hi</s>", "tools: clock"],
        ),
        (
            "file",
            from_hf(&config(Value::Null), Some(plain)).unwrap(),
            ["Hi</s>", "Hi</s> clock"],
        ),
        (
            "file wins",
            from_hf(&config("other".into()), Some(plain)).unwrap(),
            ["Hi</s>", "Hi</s> clock"],
        ),
        (
            "JSON file",
            from_json_file(&in_json).unwrap(),
            ["Hi</s>", "Hi</s> clock"],
        ),
    ];
    for (what, tokenizer, want) in cases {
        assert_eq!(both(&tokenizer).map(|text| text.unwrap()), want, "{what}");
    }
    assert!(
        from_hf(&config(Value::Null), None)
            .unwrap()
            .chat_template()
            .is_none()
    );
}

#[test]
fn gguf_keys_hold_templates_by_name() {
    let sources = GgufBuilder::new()
        .meta("general.architecture", "llama")
        .meta("tokenizer.ggml.model", "llama")
        .meta("tokenizer.ggml.tokens", strings(["<unk>", "<s>", "</s>"]))
        .meta("tokenizer.ggml.scores", vec![0.0_f32; 3])
        .meta("tokenizer.ggml.token_type", vec![2_i32, 3, 3])
        .meta(
            "tokenizer.chat_template",
            "{{ bos_token }}{{ messages[0].content }}",
        )
        .meta(
            "tokenizer.chat_template.tool_use",
            "{{ tools|length }} tools",
        )
        .values("w", &[1], DType::F32, &[1.0])
        .sources();
    let checkpoint = pollster::block_on(Checkpoint::open_gguf(sources)).unwrap();
    let tokenizer = Tokenizer::from_gguf(checkpoint.metadata()).unwrap();
    assert_eq!(
        both(&tokenizer).map(|text| text.unwrap()),
        ["<s>Hi", "1 tools"]
    );
}

#[test]
fn of_several_templates_one_must_be_the_default() {
    let named = json!({"chat_template": [{"name": "rag", "template": "x"}, {"name": "tool_use", "template": "y"}]});
    let [plain, with_tools] = both(&from_hf(&named, None).unwrap());
    let error = plain.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Template && error.to_string().contains("rag, tool_use"),
        "{error}"
    );
    assert_eq!(with_tools.unwrap(), "y");
}

/// A model with a broken template is still good for text; who uses the template hears of it.
#[test]
fn a_broken_template_fails_when_it_is_used() {
    let tokenizer = from_hf(&json!({"chat_template": "{% if %}"}), None).unwrap();
    for text in both(&tokenizer) {
        assert_eq!(text.unwrap_err().kind(), ErrorKind::Template);
    }
}

/// One-construct templates of `tests/data/templates/make_templates.py`, or those of the file that `LLAMERO_SNIPPETS` names.
#[test]
fn every_snippet_renders_as_in_transformers() {
    let own = format!(
        "{}/tests/data/templates/snippets.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let path = std::env::var("LLAMERO_SNIPPETS").unwrap_or(own);
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 400, "only {} snippets", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| difference(case, &file["contexts"]))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// How a case comes out otherwise than it should.
fn difference(case: &Value, contexts: &Value) -> Option<String> {
    let template = case["template"].as_str().unwrap();
    let variables = case["context"]
        .as_str()
        .map_or(&case["variables"], |name| &contexts[name]);
    let got = render(template, variables);
    match (case["ok"].as_str(), &got) {
        (Some(want), Ok(text)) if want == text => None,
        (None, Err(error)) if error.kind() == ErrorKind::Template => None,
        (want, _) => Some(format!(
            "{template:?}\n  want {:?} {}\n   got {got:?}",
            want, case["error"]
        )),
    }
}

/// A fault names the line and what is wrong there.
#[test]
fn faults_name_their_line() {
    for (template, part) in [
        ("a\n{{ 1 + 'x' }}", "line 2"),
        ("{% if true %}\n\n{{ x.y }}{% endif %}", "line 3"),
        ("a\nb\n{% foo %}", "line 3"),
        ("{{ 1|nofilter }}", "nofilter"),
        ("{% include 'x' %}", "include"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ lipsum() }}", "lipsum"),
        ("{{ 2 ** 200 }}", "too large"),
    ] {
        let error = render(template, &json!({})).unwrap_err().to_string();
        assert!(error.contains(part), "{template:?}: {error}");
    }
}

#[test]
fn without_a_clock_there_is_no_strftime_now() {
    let template = "{{ strftime_now is defined }}{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}";
    let template = ChatTemplate::new(template, "", "").unwrap();
    assert_eq!(template.render(&TemplateInput::default()).unwrap(), "False");
    let now = DateTime::from_iso("2025-03-14");
    assert_eq!(
        template
            .render(&TemplateInput {
                now,
                ..TemplateInput::default()
            })
            .unwrap(),
        "True2025"
    );
}

mod random {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that templates are made of, in any order.
    #[expect(clippy::too_many_lines, reason = "a list of pieces")]
    fn piece() -> impl Strategy<Value = String> {
        let fixed = prop::sample::select(vec![
            "{{",
            "}}",
            "{%",
            "%}",
            "{%-",
            "-%}",
            "{%+",
            "+%}",
            "{#",
            "#}",
            "{{-",
            "-}}",
            " ",
            "\n",
            "\r\n",
            "if",
            "elif",
            "else",
            "endif",
            "for",
            "in",
            "endfor",
            "set",
            "endset",
            "macro",
            "endmacro",
            "call",
            "endcall",
            "filter",
            "endfilter",
            "raw",
            "endraw",
            "generation",
            "endgeneration",
            "with",
            "endwith",
            "break",
            "continue",
            "x",
            "loop",
            "messages",
            "caller",
            "namespace(a=1)",
            "ns.a",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "'",
            "\"",
            "\\",
            "'a'",
            "'\\x41'",
            "'%s'",
            "0",
            "1",
            "2.5",
            "1e999",
            "-",
            "+",
            "*",
            "**",
            "/",
            "//",
            "%",
            "~",
            "|",
            ".",
            ",",
            ":",
            "=",
            "==",
            "<",
            ">=",
            "!",
            "not",
            "and",
            "or",
            "is",
            "defined",
            "string",
            "upper",
            "indent(2)",
            "tojson",
            "join",
            "map('upper')",
            "batch(2)",
            "list",
            "int",
            "range(3)",
            "none",
            "true",
            "é",
            "世",
            "\u{0}",
            "endraw %}",
            "autoescape",
            "block",
        ])
        .prop_map(str::to_owned);
        prop_oneof![8 => fixed, 1 => any::<char>().prop_map(String::from)]
    }

    /// At least 4,000 cases; `PROPTEST_CASES` asks for more.
    fn config() -> ProptestConfig {
        let config = ProptestConfig::default();
        ProptestConfig {
            failure_persistence: None,
            cases: config.cases.max(4000),
            ..config
        }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn any_text_is_read_and_rendered_or_refused(pieces in prop::collection::vec(piece(), 0..40)) {
            let template = pieces.concat();
            let outcome = render(&template, &json!({"x": [1, "b", null, {"k": 2.5}], "messages": []}));
            if let Err(error) = outcome {
                prop_assert_eq!(error.kind(), ErrorKind::Template, "{}", template);
            }
        }

        #[test]
        fn any_expression_is_evaluated_or_refused(pieces in prop::collection::vec(piece(), 1..14)) {
            let template = format!("{{{{ {} }}}}", pieces.join(" "));
            if let Err(error) = render(&template, &json!({"x": "text"})) {
                prop_assert_eq!(error.kind(), ErrorKind::Template, "{}", template);
            }
        }
    }
}

mod fixtures {
    use super::*;
    use crate::support::references;

    #[test]
    fn every_construct_of_jinja_renders_as_in_python() {
        for references in references::all() {
            let file = references.json("templates/jinja_mini.json");
            let mut wrong = Vec::new();
            let cases = file["cases"].as_array().unwrap();
            for case in cases {
                let template = case["template"].as_str().unwrap();
                let got = render(template, &file["context"]);
                match (case["ok"].as_str(), &got) {
                    (Some(want), Ok(text)) if want == text => {}
                    (None, Err(error)) if error.kind() == ErrorKind::Template => {}
                    (want, _) => {
                        wrong.push(format!("{template:?}\n  want {want:?}\n   got {got:?}"));
                    }
                }
            }
            assert!(
                wrong.is_empty(),
                "{} of {} wrong:\n{}",
                wrong.len(),
                cases.len(),
                wrong.join("\n")
            );
        }
    }

    /// Renders every conversation with every template of a file; a key of a conversation other than its messages and tools is
    /// one more variable.
    fn renders_of(name: &str, counts: [usize; 2]) {
        for (references, count) in references::all().into_iter().zip(counts) {
            let file = references.json(format!("templates/{name}"));
            let now = DateTime::from_iso(file["now"].as_str().unwrap()).unwrap();
            let mut wrong = Vec::new();
            let mut renders = 0;
            for (name, template) in file["templates"].as_object().unwrap() {
                let (bos, eos) = (
                    template["bos_token"].as_str().unwrap_or(""),
                    template["eos_token"].as_str().unwrap_or(""),
                );
                let compiled =
                    ChatTemplate::new(template["template"].as_str().unwrap(), bos, eos).unwrap();
                for case in template["renders"].as_array().unwrap() {
                    let conversation = file["conversations"]
                        [case["conversation"].as_str().unwrap()]
                    .as_object()
                    .unwrap();
                    let mut extra = conversation.clone();
                    extra.retain(|key, _| key != "messages" && key != "tools");
                    let got = compiled.render(&TemplateInput {
                        messages: &conversation["messages"],
                        tools: conversation.get("tools").filter(|tools| !tools.is_null()),
                        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
                        now: Some(now),
                        extra: Some(&extra),
                    });
                    renders += 1;
                    match (case["ok"].as_str(), &got) {
                        (Some(want), Ok(text)) if want == text => {}
                        (None, Err(error)) if error.kind() == ErrorKind::Template => {}
                        (want, _) => wrong.push(format!(
                            "{name} {}\n  want {want:?}\n   got {got:?}",
                            case["conversation"]
                        )),
                    }
                }
            }
            assert_eq!(renders, count, "renders of the references");
            assert!(
                wrong.is_empty(),
                "{} of {renders} wrong:\n{}",
                wrong.len(),
                wrong.join("\n")
            );
        }
    }

    #[test]
    fn published_templates_render_as_in_transformers() {
        renders_of("chat.json", [80, 720]);
    }

    #[test]
    fn published_templates_of_qwen_render_as_in_transformers() {
        renders_of("qwen.json", [32, 210]);
    }

    /// Templates of public bug reports.
    #[test]
    fn templates_of_bug_reports_render_as_in_transformers() {
        let named = [
            "none-is-no-iterable",
            "crlf-template",
            "indent-keeps-last-newline",
            "default-by-keyword",
            "backslash-before-newline",
            "python-method-arguments",
            "percent-on-a-variable",
            "text-is-a-sequence",
        ];
        let own = ["windows-line-ends", "joined-lines", "lists-of-messages"];
        let own = own.map(|case| references::own().path("cases").join(case));
        let theirs = references::fixtures()
            .into_iter()
            .flat_map(|references| named.map(|case| references.path("cases-2").join(case)));
        for folder in own.into_iter().chain(theirs) {
            let case = folder.display();
            let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
            let expected: Value = serde_json::from_str(&text("case.json")).unwrap();
            let messages: Value = serde_json::from_str(&text("messages.json")).unwrap();
            let command: Vec<&str> = expected["command"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let input = TemplateInput {
                messages: &messages,
                add_generation_prompt: command.contains(&"--add-generation-prompt"),
                now: DateTime::from_iso("2025-03-14T15:09:26"),
                ..TemplateInput::default()
            };
            let rendered = ChatTemplate::new(&text("template.jinja"), "<s>", "</s>")
                .unwrap()
                .render(&input);
            let want = expected["expected"]["json"]["text"].as_str().unwrap();
            assert_eq!(rendered.unwrap(), want, "{case}");
        }
    }
}
