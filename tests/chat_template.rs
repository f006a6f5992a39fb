//! Chat templates against Transformers' own renderings, and against hostile templates.

#![allow(clippy::unwrap_used)]

use llamero::error::ErrorKind;
use llamero::tokenizer::{ChatTemplate, DateTime, TemplateInput};
use serde_json::Value;

fn render(template: &str, variables: &Value) -> Result<String, llamero::error::Error> {
    let input = TemplateInput {
        now: DateTime::from_iso("2025-03-14T15:09:26"),
        extra: variables.as_object(),
        ..TemplateInput::default()
    };
    ChatTemplate::new(template, "<s>", "</s>")?.render(&input)
}

#[cfg(fixtures)]
mod fixtures {
    use super::*;

    fn read(name: &str) -> Value {
        let path = format!("{}/../shared/fixtures/templates/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn every_construct_of_jinja_renders_as_in_python() {
        let file = read("jinja_mini.json");
        let mut wrong = Vec::new();
        let cases = file["cases"].as_array().unwrap();
        for case in cases {
            let template = case["template"].as_str().unwrap();
            let got = render(template, &file["context"]);
            match (case["ok"].as_str(), &got) {
                (Some(want), Ok(text)) if want == text => {}
                (None, Err(error)) if error.kind() == ErrorKind::Template => {}
                (want, _) => wrong.push(format!("{template:?}\n  want {want:?}\n   got {got:?}")),
            }
        }
        assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }

    #[test]
    fn published_templates_render_as_in_transformers() {
        let file = read("chat.json");
        let now = DateTime::from_iso(file["now"].as_str().unwrap()).unwrap();
        let mut wrong = Vec::new();
        let mut renders = 0;
        for (name, template) in file["templates"].as_object().unwrap() {
            let (bos, eos) =
                (template["bos_token"].as_str().unwrap_or(""), template["eos_token"].as_str().unwrap_or(""));
            let compiled = ChatTemplate::new(template["template"].as_str().unwrap(), bos, eos).unwrap();
            for case in template["renders"].as_array().unwrap() {
                let conversation = &file["conversations"][case["conversation"].as_str().unwrap()];
                let got = compiled.render(&TemplateInput {
                    messages: &conversation["messages"],
                    tools: conversation.get("tools").filter(|tools| !tools.is_null()),
                    add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
                    now: Some(now),
                    extra: None,
                });
                renders += 1;
                match (case["ok"].as_str(), &got) {
                    (Some(want), Ok(text)) if want == text => {}
                    (None, Err(error)) if error.kind() == ErrorKind::Template => {}
                    (want, _) => {
                        wrong.push(format!("{name} {}\n  want {want:?}\n   got {got:?}", case["conversation"]))
                    }
                }
            }
        }
        assert_eq!(renders, 720);
        assert!(wrong.is_empty(), "{} of {renders} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}
