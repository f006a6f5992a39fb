//! Chat templates come out of files: whatever one does, it ends soon, in a text or in an error, and in little memory.

use std::time::{Duration, Instant};

use crate::support::counting::within_allowance;
use llamero::error::{Error, ErrorKind, Result};
use llamero::tokenizer::{ChatTemplate, TemplateInput};

/// Far above what the slowest takes (a second or two), for a machine that does other things beside; nothing here ends at
/// all without its limit.
const LONGEST: Duration = Duration::from_secs(60);

fn render(template: &str) -> Result<String> {
    let messages = serde_json::json!([{"role": "user", "content": "Hi"}]);
    let input = TemplateInput {
        messages: &messages,
        add_generation_prompt: true,
        ..TemplateInput::default()
    };
    ChatTemplate::new(template, "<s>", "</s>")?.render(&input)
}

/// Renders within the limits of time and memory.
#[track_caller]
fn bounded(template: &str) -> Result<String> {
    let shown: String = template.chars().take(100).collect();
    let start = Instant::now();
    let rendered = within_allowance(&shown, template.len() as u64, || render(template));
    assert!(start.elapsed() < LONGEST, "{shown}: {:?}", start.elapsed());
    if let Err(error) = &rendered {
        assert_eq!(error.kind(), ErrorKind::Template, "{shown}: {error:?}");
    }
    rendered
}

#[track_caller]
fn refused(template: &str) -> Error {
    bounded(template).expect_err("a template without end")
}

/// A template in which `ns.a` and `ns.b` begin as `start` and are replaced many times by `step`, whose `X` is the value so
/// far; then `then`.
fn doubled(start: &str, step: &str, then: &str) -> String {
    let (a, b) = (step.replace('X', "ns.a"), step.replace('X', "ns.b"));
    format!(
        "{{% set ns = namespace(a={start}, b={start}) %}}{{% for _ in range(40) %}}{{% set ns.a = {a} %}}\
         {{% set ns.b = {b} %}}{{% endfor %}}{then}"
    )
}

#[test]
fn loops_end() {
    for template in [
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% if i == j %}x{% endif %}{% endfor %}{% endfor %}",
        "{% for i in range(90000) %}{{ range(90000)|list|length }}{% endfor %}",
        "{% for i in range(90000) %}{{ range(90000)|sort|reverse|list|length }}{% endfor %}",
        "{% for i in range(90000) %}{% if 'x' in range(90000)|list %}{% endif %}{% endfor %}",
        "{% for i in [0] recursive %}{{ loop([0]) }}{% endfor %}",
        "{% for i in [[0]] * 99999 recursive %}{{ loop(i) if i is iterable }}{% for j in range(999) %}{% endfor %}{% endfor %}",
    ] {
        refused(template);
    }
}

#[test]
fn recursion_ends() {
    for template in [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{% for i in [0] %}{% if true %}{{ f(n)|upper|trim }}{% endif %}{% endfor %}{% endmacro %}{{ f(0) }}",
        "{% macro f() %}{% set x %}{{ f() }}{% endset %}{{ x }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}",
        "{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}",
        "{% include 'chat_template' %}",
        "{% import 'chat_template' as x %}",
        "{% extends 'chat_template' %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
    ] {
        refused(template);
    }
}

#[test]
fn a_template_may_not_be_nested_without_end() {
    for (open, close) in [
        ("{% if true %}", "{% endif %}"),
        ("{% for i in [0] %}", "{% endfor %}"),
        ("{% set x %}", "{% endset %}"),
        ("{% with %}", "{% endwith %}"),
        ("{% filter upper %}", "{% endfilter %}"),
        ("{% macro m() %}", "{% endmacro %}"),
    ] {
        let _ = bounded(&format!("{}x{}", open.repeat(10_000), close.repeat(10_000)));
    }
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{'a':", "}"),
        ("not ", ""),
        ("-", ""),
        ("+", ""),
        ("f(", ")"),
        ("a[", "]"),
    ] {
        let _ = bounded(&format!(
            "{{{{ {}1{} }}}}",
            open.repeat(50_000),
            close.repeat(50_000)
        ));
    }
    for part in [
        " + 1",
        ".a",
        "[0]",
        "()",
        "|upper",
        " if true else 1",
        " is defined",
        " ~ 1",
        " ** 1",
        " and 1",
        ", 1",
    ] {
        let _ = bounded(&format!("{{{{ a{} }}}}", part.repeat(50_000)));
    }
    let _ = bounded(&format!(
        "{{% if a %}}{}{{% endif %}}",
        "{% elif a %}".repeat(50_000)
    ));
}

#[test]
fn texts_do_not_grow_without_end() {
    for template in [
        "{{ 'x' * 10 ** 9 }}",
        "{{ 1000000000 * 'x' }}",
        "{{ ('x' * 90000000)|length }}{{ ('x' * 90000000)|length }}",
        "{% for i in range(1000) %}{{ ('x' * 90000000)|length }}{% endfor %}",
        "{{ [0] * 10 ** 9 }}",
        "{{ ([0] * 90000000)|list }}",
        "{{ 'x'.ljust(10 ** 9) }}",
        "{{ 'x'.ljust(65000, 'y' * 100000) }}",
        "{{ 'x'.center(65000, 'y' * 100000) }}",
        "{{ 'x'|center(10 ** 9) }}",
        "{% for i in range(90000) %}{{ 'x'.zfill(65000)|length }}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '{:.1000000000f}'.format(1) }}",
        "{{ ('%90000d' * 9000) % ((1,) * 9000) }}",
        "{{ ('x' * 30000)|replace('x', 'y' * 30000) }}",
        "{{ ('x' * 30000).replace('x', 'y' * 30000) }}",
        "{{ ('x' * 30000).replace('', 'y' * 30000) }}",
        "{{ ('x' * 30000).join(range(30000)) }}",
        "{{ range(30000)|join('x' * 30000) }}",
        "{{ ('x\\n' * 30000)|indent(30000) }}",
        "{{ ('x\\n' * 30000)|indent(10 ** 9) }}",
        "{{ 'x'|indent(10 ** 12, true) }}",
        "{{ ('\"' * 3000000)|tojson|tojson|tojson|tojson|tojson|tojson|tojson|tojson|length }}",
        "{{ range(99999)|batch(10 ** 12)|list }}{{ range(99999)|slice(10 ** 9)|list }}",
        "{% for i in range(30000) %}{{ 'x' * 30000 }}{% endfor %}",
        "{% for i in range(90000) %}{{ ('x' * 60000)|upper|lower|title|trim|length }}{% endfor %}",
        "{% for i in range(90000) %}{{ ('x ' * 60000)|wordcount }}{% endfor %}",
        "{% for i in range(90000) %}{{ ('x ' * 60000)|truncate(9)|length }}{% endfor %}",
        "{% for i in range(90000) %}{{ ('& ' * 60000)|escape|length }}{% endfor %}",
        "{% for i in range(90000) %}{{ ('x ' * 60000).rsplit()|length }}{% endfor %}",
        "{% for i in range(90000) %}{{ ('x' * 60000).rpartition('y')|length }}{% endfor %}",
    ] {
        refused(template);
    }
    for step in [
        "X ~ X",
        "X + X",
        "X * 2",
        "X|replace('x', X)",
        "X.replace('x', X)",
        "X.join([X, X])",
        "[X, X]|join",
    ] {
        refused(&doubled("'xxxxxxxx'", step, "{{ ns.a|length }}"));
    }
}

/// Values that hold themselves twice, many times over: small to keep, endless to write.
#[test]
fn values_are_not_written_without_end() {
    for then in [
        "{{ ns.a }}",
        "{{ ns.a|string|length }}",
        "{{ ns.a|tojson }}",
        "{{ ns.a|tojson(indent=100) }}",
        "{{ ns.a|escape }}",
        "{{ 'x'.join([ns.a]) }}",
        "{{ '%s' % [ns.a] }}",
        "{{ '{}'.format(ns.a) }}",
        "{{ raise_exception(ns.a) }}",
        "{{ ns.a == ns.b }}",
        "{{ ns.a ~ ns.b }}",
        "{{ ns.a|join }}",
        "{{ ns.a|upper }}",
        "{{ ns.a|length }}",
        "{{ ns.a|unique|list }}",
        "{{ 1 in ns.a }}",
    ] {
        for (start, step) in [
            ("[1]", "[X, X]"),
            ("{'k': 1}", "{'k': X, 'l': X}"),
            ("(1,)", "(X, X)"),
            ("[1]", "X + X"),
            ("[1]", "[0] + X + X"),
        ] {
            refused(&doubled(start, step, then));
        }
    }
}

#[test]
fn values_are_not_nested_without_end() {
    for step in ["[ns.a]", "{'k': ns.a}", "(ns.a,)", "[1, ns.a][1:]"] {
        refused(&format!(
            "{{% set ns = namespace(a=[]) %}}{{% for i in range(60000) %}}{{% set ns.a = {step} %}}{{% endfor %}}"
        ));
    }
    refused("{% macro f(a) %}{{ f([a, a]) }}{% endmacro %}{{ f([1]) }}");
}

#[test]
fn keys_of_formats_may_be_anything() {
    for template in [
        "{{ '%(é)s' % 1 }}",
        "{{ 'a%%b%(c)s%(x¤' % 1 }}",
        "{{ '{a.b[c][¤'.format(1) }}",
    ] {
        refused(template);
    }
    assert_eq!(
        render("{{ 'é%% %s(é)' % 1 }}{{ '{{é[é]}} {0}{0[é]}'.format(2) }}").unwrap(),
        "é% 1(é){é[é]} 2"
    );
}

#[test]
fn what_templates_do_put_together_is_small_enough() {
    let listed = "{% set ns = namespace(list=[]) %}{% for i in range(1000) %}{% set ns.list = ns.list + [{'n': i}] %}\
                  {% endfor %}{{ ns.list|length }} {{ (ns.list[1:] + messages)[-1].content }} {{ 1 + 2 * (3 + 4) }}";
    assert_eq!(render(listed).unwrap(), "1000 Hi 15");
}

#[test]
fn what_a_template_raises_reaches_the_caller() {
    let error =
        render("{{ raise_exception('Roles must alternate: ' ~ messages[0].role) }}").unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Template, "Roles must alternate: user")
    );
    let deep = "{% macro check(m) %}{% for x in m %}{{ raise_exception('no ' ~ x.role) }}{% endfor %}{% endmacro %}\
                {% set text %}{{ check(messages) }}{% endset %}{{ text|trim }}";
    assert_eq!(render(deep).unwrap_err().to_string(), "no user");
}

/// Keys that have no total order: an error, as in Python, or some order; no crash, however many there are.
#[test]
fn lists_without_a_total_order_are_sorted_or_refused() {
    refused("{{ ([1, 's'] * 40)|sort }}");
    refused(
        "{% set ns = namespace(l=[]) %}{% for i in range(60) %}{% set ns.l = ns.l + [i if i % 3 else 's'] %}{% endfor %}{{ ns.l|sort }}",
    );
    let numbers = "{% set ns = namespace(l=[]) %}{% for i in range(60) %}{% set ns.l = ns.l + [('nan'|float) if i % 7 == 3 \
                   else (60 - i)] %}{% endfor %}{{ ns.l|sort|length }}";
    assert_eq!(render(numbers).unwrap(), "60");
    let sorted = "{{ (range(50)|list + range(50)|list)|sort(reverse=true)|first }} {{ [3, 1, 2]|sort|join }}";
    assert_eq!(render(sorted).unwrap(), "49 123");
    let pairs =
        "{% for a, b in {'b': 1, 'a': 2, 'c': 0}|dictsort(by='value') %}{{ a }}{% endfor %}";
    assert_eq!(render(pairs).unwrap(), "cba");
}

#[test]
fn entities_and_digits_are_written_out() {
    assert_eq!(
        render("{{ ('&amp;&#65;&#x42;&' * 2)|striptags }}").unwrap(),
        "&AB&&AB&"
    );
    assert_eq!(
        render("{{ '%.8d' % 5 }} {{ '{:012,}'.format(-1234) }}").unwrap(),
        "00000005 -000,001,234"
    );
    refused("{{ ('\n' * 7000000).splitlines()|length }}");
}
