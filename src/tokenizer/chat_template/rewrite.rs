//! Three things that Transformers' Jinja reads otherwise than minijinja, turned into what both read alike:
//! `{% generation %}` (which marks the assistant's text for training and prints nothing), `"%s" % value`, and
//! `text|safe + more` (adding to a safe text escapes what is added).

/// The filter that stands for the `%` operator after a text.
pub(super) const PERCENT_FILTER: &str = "_percent";

/// `source` with both rewritten; comments and raw blocks are left as they are.
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
                "(" | "[" | "+" | "-" | "*" | "/" | "%" | "~" | "|" | "." | "<" | ">" | "=" | "!" | "not" | "and"
                | "or" | "if" | "else" | "is" | "in" => operators += 1,
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
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
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
            ("{{ '%s' % x.y[1]('}}')|trim + 1 }}", "{{ '%s'|_percent(x.y[1]('}}')|trim) + 1 }}"),
            ("{{ f({'a': '%d %d' % (1, ')')}) }}", "{{ f({'a': '%d %d'|_percent((1, ')'))}) }}"),
            ("{% if x == 'a' %}%s{% endif %}", "{% if x == 'a' %}%s{% endif %}"),
            ("{% if x == 'a'-%}", "{% if x == 'a'-%}"),
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
