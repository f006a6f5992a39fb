//! Three things that Transformers' Jinja reads otherwise than minijinja, turned into what both read alike:
//! `{% generation %}` (which marks the assistant's text for training and prints nothing), `"%s" % value`, and
//! `text|safe + more` (adding to a safe text escapes what is added). And wherever lists and mappings are put together
//! (`[a, b]`, `{"a": b}`, `(a, b)`, `a + b`), what counts their values (`bounds.rs`).

/// The filter that stands for the `%` operator after a text.
pub(super) const PERCENT_FILTER: &str = "_percent";
/// The filter that gives a value back if it is small enough.
pub(super) const BOUNDED_FILTER: &str = "_bounded";

/// `source` with all of that rewritten; comments and raw blocks are left as they are.
pub(super) fn rewrite(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = next_opener(rest) {
        out.push_str(&rest[..at + 2]);
        let kind = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match kind {
            b'#' => rest = copy(rest, rest.find("#}").map_or(rest.len(), |at| at + 2), &mut out),
            b'%' => rest = tag(rest, &mut out),
            _ => rest = expression(rest, "}}", &mut out),
        }
    }
    out.push_str(rest);
    out
}

/// Most operators in one expression. Each nests the ones before it a level deeper, and the engine, which limits brackets
/// and blocks itself, goes down all of them on its stack. Published templates have up to some fifty.
const MAX_OPERATORS: usize = 500;
/// Most `elif` in a template, which nest alike.
const MAX_ELIFS: usize = 500;

/// Whether the engine can read `source` without running out of its stack; else what there is too much of.
pub(super) fn check_nesting(source: &str) -> Result<(), &'static str> {
    let mut rest = source;
    let mut elifs = 0;
    while let Some(at) = next_opener(rest) {
        let close = match rest.as_bytes()[at + 1] {
            b'#' => {
                rest = &rest[at + 2..];
                rest = rest.find("#}").map_or("", |at| &rest[at + 2..]);
                continue;
            }
            b'%' => "%}",
            _ => "}}",
        };
        rest = &rest[at + 2..];
        let (mut operators, mut depth) = (0, 0usize);
        while let Some(c) = rest.chars().next() {
            if depth == 0 && rest.starts_with(close) {
                break;
            }
            let len = match c {
                '\'' | '"' => string(rest),
                c if c.is_alphanumeric() || c == '_' => name(rest),
                c => c.len_utf8(),
            };
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            match &rest[..len] {
                "elif" => elifs += 1,
                "(" | "[" | "{" | "+" | "-" | "*" | "/" | "%" | "~" | "|" | "." | "<" | ">" | "=" | "!" | "not"
                | "and" | "or" | "if" | "else" | "is" | "in" => operators += 1,
                _ => {}
            }
            rest = &rest[len..];
        }
        if operators > MAX_OPERATORS {
            return Err("operators in one expression");
        }
    }
    if elifs > MAX_ELIFS { Err("elif") } else { Ok(()) }
}

fn next_opener(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, [b'{', b'{' | b'%' | b'#']))
}

/// Copies `len` bytes and gives the rest.
fn copy<'a>(text: &'a str, len: usize, out: &mut String) -> &'a str {
    let (copied, rest) = text.split_at(len);
    out.push_str(copied);
    rest
}

/// The length of white space at the beginning.
fn blank(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// The length of a name at the beginning.
fn name(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// A tag after its `{%`.
fn tag<'a>(text: &'a str, out: &mut String) -> &'a str {
    let text = copy(text, text.len() - text.trim_start_matches(['-', '+']).len(), out);
    let text = copy(text, blank(text), out);
    let after = &text[name(text)..];
    match &text[..name(text)] {
        "generation" => out.push_str("if true"),
        "endgeneration" => out.push_str("endif"),
        "raw" => return copy(text, raw_end(text), out),
        _ => return expression(text, "%}", out),
    }
    expression(after, "%}", out)
}

/// Where the body of a raw block ends.
fn raw_end(text: &str) -> usize {
    let tags = text.match_indices("{%");
    let mut ends =
        tags.filter(|(at, _)| text[at + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw"));
    ends.next().map_or(text.len(), |(at, _)| at)
}

/// Up to and with the closing mark.
fn expression<'a>(mut text: &'a str, close: &str, out: &mut String) -> &'a str {
    let mut depth = 0usize;
    while let Some(c) = text.chars().next() {
        if depth == 0 && text.starts_with(close) {
            return copy(text, close.len(), out);
        }
        match c {
            '(' | '[' | '{' if !after_operand(out) => {
                text = literal(text, c, out);
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '+' if after_operand(out) && !text[1..].starts_with(close) => {
                text = sum(text, out);
                continue;
            }
            '\'' | '"' => {
                text = copy(text, string(text), out);
                let percent = text.trim_start();
                if let Some(operand) = percent.strip_prefix('%').filter(|after| !after.starts_with('}')) {
                    let operand = operand.trim_start();
                    let len = operand_len(operand);
                    out.push('|');
                    out.push_str(PERCENT_FILTER);
                    out.push('(');
                    out.push_str(&operand[..len]);
                    out.push(')');
                    text = &operand[len..];
                }
                continue;
            }
            '|' => {
                text = after_filter(text, out);
                continue;
            }
            _ => {}
        }
        text = copy(text, c.len_utf8(), out);
    }
    text
}

/// Whether what was written last is a value, so that a bracket calls it or takes an item of it, and `+` adds to it.
fn after_operand(out: &str) -> bool {
    let before = out.trim_end();
    match before.chars().next_back() {
        Some(')' | ']' | '}' | '\'' | '"') => true,
        Some(c) if c.is_alphanumeric() || c == '_' => {
            let start = before.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
            !matches!(&before[start..], "in" | "is" | "not" | "and" | "or" | "if" | "elif" | "else")
        }
        _ => false,
    }
}

/// A list, a mapping, or brackets around an expression, in brackets of its own with the filter that bounds it.
fn literal<'a>(text: &'a str, open: char, out: &mut String) -> &'a str {
    let close = match open {
        '(' => ")",
        '[' => "]",
        _ => "}",
    };
    out.push('(');
    let rest = expression(copy(text, 1, out), close, out);
    // One that is never closed is a syntax error either way.
    out.push('|');
    out.push_str(BOUNDED_FILTER);
    out.push(')');
    rest
}

/// A `+` and what it adds, both sides bounded.
fn sum<'a>(text: &'a str, out: &mut String) -> &'a str {
    let space = out.len() - out.trim_end().len();
    out.truncate(out.len() - space);
    out.push('|');
    out.push_str(BOUNDED_FILTER);
    out.push_str(" +");
    let text = &text[1..];
    let text = copy(text, blank(text), out);
    let len = operand_len(text);
    let (operand, rest) = text.split_at(len);
    let after = rest.trim_start();
    // A sign comes before a number, and `%` makes a text: nothing to bound.
    if len == 0 || after.starts_with('%') && !after.starts_with("%}") {
        return text;
    }
    // An expression of its own: no closing mark can be in it.
    expression(operand, "\0", out);
    out.push('|');
    out.push_str(BOUNDED_FILTER);
    rest
}

/// A filter's bar and, for `safe`, everything that is added to the safe text.
fn after_filter<'a>(text: &'a str, out: &mut String) -> &'a str {
    let text = copy(text, 1, out);
    let mut end = blank(text);
    let filter = &text[end..];
    if &filter[..name(filter)] != "safe" {
        return text;
    }
    end += "safe".len();
    let mut text = copy(text, end, out);
    loop {
        let space = blank(text);
        let Some(operand) = text[space..].strip_prefix('+').map(str::trim_start) else { return text };
        let len = operand_len(operand);
        if len == 0 {
            return text;
        }
        text = copy(text, text.len() - operand.len() + len, out);
        out.push_str("|e");
    }
}

/// The length of a quoted text with its quotes.
fn string(text: &str) -> usize {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if Some(c) == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The length of a bracketed stretch with its brackets.
fn brackets(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0usize);
    while let Some(c) = text[at..].chars().next() {
        match c {
            '\'' | '"' => {
                at += string(&text[at..]);
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        at += c.len_utf8();
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The length of what binds tighter than `%`: a value, then attributes, items, calls and filters.
fn operand_len(text: &str) -> usize {
    let mut at = match text.chars().next() {
        Some('\'' | '"') => string(text),
        Some('(' | '[' | '{') => brackets(text),
        _ => name(text),
    };
    loop {
        let space = blank(&text[at..]);
        let after = &text[at + space..];
        match after.chars().next() {
            Some('(' | '[') => at += space + brackets(after),
            Some('.' | '|') => {
                let skip = 1 + blank(&after[1..]);
                at += space + skip + name(&after[skip..]);
            }
            _ => return at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn generation_becomes_a_plain_block() {
        let got = rewrite("a{%- generation -%}b{%+endgeneration%}{% generation_x %}");
        assert_eq!(got, "a{%- if true -%}b{%+endif%}{% generation_x %}");
    }

    #[test]
    fn percent_takes_what_binds_tighter() {
        let cases = [
            ("{{ '%s' % x }}", "{{ '%s'|_percent(x) }}"),
            ("{{ '%s' % x.y[1]('}}')|trim ~ 1 }}", "{{ '%s'|_percent(x.y[1]('}}')|trim) ~ 1 }}"),
            ("{{ f('%d %d' % (1, ')')) }}", "{{ f('%d %d'|_percent((1, ')'))) }}"),
            ("{{ a + '%s' % b }}", "{{ a|_bounded + '%s'|_percent(b) }}"),
            ("{% if x == 'a' %}%s{% endif %}", "{% if x == 'a' %}%s{% endif %}"),
            ("{% if x == 'a'-%}", "{% if x == 'a'-%}"),
        ];
        for (source, want) in cases {
            assert_eq!(rewrite(source), want);
        }
    }

    #[test]
    fn what_is_put_together_is_bounded() {
        let cases = [
            ("{% set x = [a, [b]] %}", "{% set x = ([a, ([b]|_bounded)]|_bounded) %}"),
            ("{{ {'a': (b, c)}['a'][0] }}", "{{ ({'a': ((b, c)|_bounded)}|_bounded)['a'][0] }}"),
            ("{{ {'a': 1}}}", "{{ ({'a': 1}|_bounded)}}"),
            (
                "{{ a.b(c) + d[1:]|trim('x') + [e] }}",
                "{{ a.b(c)|_bounded + d[1:]|trim('x')|_bounded|_bounded + ([e]|_bounded)|_bounded }}",
            ),
            ("{{ f(a + b) }}", "{{ f(a|_bounded + b|_bounded) }}"),
            (
                "{{ a + -1 if b in ['c'] else (d) }}",
                "{{ a|_bounded + -1 if b in (['c']|_bounded) else ((d)|_bounded) }}",
            ),
            ("{%+ for (a, b) in c -%}{{ x +}}", "{%+ for (a, b) in c -%}{{ x +}}"),
            ("{% macro f(a=[]) %}{% call(x) f() %}", "{% macro f(a=([]|_bounded)) %}{% call(x) f() %}"),
        ];
        for (source, want) in cases {
            assert_eq!(rewrite(source), want);
        }
    }

    #[test]
    fn what_is_added_to_safe_text_is_escaped() {
        let got = rewrite("{{ 'a'|safe + t['x'] + 'b' | safe + t | tojson() }}{{ x | safe }}{{ y|safe -}}");
        assert_eq!(got, "{{ 'a'|safe + t['x']|e + 'b' | safe|e + t | tojson()|e }}{{ x | safe }}{{ y|safe -}}");
    }

    #[test]
    fn text_comments_and_raw_blocks_stay() {
        for source in [
            "100 % 'x' % y",
            "{# {% generation %} '%' % x #}{{ 'é' }}",
            "{% raw %}{% generation %}{{ '%' % x }}{% endraw %}",
            "{{ '",
            "{% '\\",
            "{{ '%s' %",
            "{{ '%s' % (",
            "{{",
            "{",
            "{% raw %}",
        ] {
            assert!(rewrite(source).len() >= source.len() && !rewrite(source).contains("if true"), "{source}");
        }
    }
}
