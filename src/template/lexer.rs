//! A template as tokens, by Jinja's rules: white space around tags, raw blocks, and literals as Python reads them.

use super::fault::{Fault, Result};
use super::text::is_space;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Text(String),
    Integer(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longer ones first.
const OPERATORS: [&str; 25] = [
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",",
];

/// The tokens of a template and the line of each, ending in [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>> {
    let mut text = with_plain_line_ends(source);
    if text.ends_with('\n') {
        text.pop();
    }
    let mut lexer = Lexer {
        text: &text,
        at: 0,
        counted: 0,
        line: 1,
        line_starts: true,
        tokens: Vec::new(),
    };
    lexer.run()?;
    Ok(lexer.tokens)
}

fn with_plain_line_ends(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Line ends before here are in `line`.
    counted: usize,
    line: u32,
    /// Whether the last tag took a line end with it, so that what follows is the beginning of a line.
    line_starts: bool,
    tokens: Vec<(Token, u32)>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push(&mut self, token: Token) {
        self.line += self.text[self.counted..self.at].matches('\n').count() as u32;
        self.counted = self.at;
        self.tokens.push((token, self.line));
    }

    fn fault<T>(&mut self, what: impl Into<String>) -> Result<T> {
        self.line += self.text[self.counted..self.at].matches('\n').count() as u32;
        Err(Fault::syntax(what, self.line))
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_space).len();
    }

    fn run(&mut self) -> Result<()> {
        while let Some(opener) = self.next_opener() {
            let data = &self.text[self.at..opener];
            let kind = self.text.as_bytes()[opener + 1];
            let mut begun = opener + 2;
            let sign = self
                .text
                .as_bytes()
                .get(begun)
                .copied()
                .filter(|c| matches!(c, b'-' | b'+'));
            begun += usize::from(sign.is_some());
            self.data(data, sign, kind == b'{');
            self.at = begun;
            match kind {
                b'#' => self.comment()?,
                b'{' => {
                    self.push(Token::VariableBegin);
                    self.inside("}}")?;
                }
                _ => match self.raw_begin() {
                    Some(at) => {
                        self.at = at;
                        self.raw()?;
                    }
                    None => {
                        self.push(Token::BlockBegin);
                        self.inside("%}")?;
                    }
                },
            }
        }
        let rest = self.rest();
        if !rest.is_empty() {
            self.push(Token::Data(rest.to_owned()));
        }
        self.at = self.text.len();
        self.push(Token::End);
        Ok(())
    }

    fn next_opener(&self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        while let Some(found) = self.text[at..].find('{') {
            at += found;
            if matches!(bytes.get(at + 1), Some(b'{' | b'%' | b'#')) {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// Text before a tag, less the white space that the tag takes away.
    fn data(&mut self, data: &str, sign: Option<u8>, is_variable: bool) {
        let mut kept = data;
        if sign == Some(b'-') {
            kept = data.trim_end_matches(is_space);
        } else if sign.is_none() && !is_variable {
            let line = data.rfind('\n').map_or(0, |at| at + 1);
            if (line > 0 || self.line_starts) && data[line..].chars().all(is_space) {
                kept = &data[..line];
            }
        }
        if !kept.is_empty() {
            self.push(Token::Data(kept.to_owned()));
        }
    }

    /// Past the end of a tag, of which `sign` is the character before.
    fn close(&mut self, len: usize, sign: Option<u8>, is_variable: bool) {
        let start = self.at;
        self.at += len;
        if sign == Some(b'-') {
            self.skip_spaces();
        } else if sign.is_none() && !is_variable && self.rest().starts_with('\n') {
            self.at += 1;
        }
        self.line_starts = self.text[start..self.at].ends_with('\n');
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest().find("#}") else {
            return self.fault("a comment has no end: #} is missing");
        };
        let sign = self.rest()[..end]
            .bytes()
            .last()
            .filter(|c| matches!(c, b'-' | b'+'));
        self.at += end;
        self.close(2, sign, false);
        Ok(())
    }

    /// Where the text of a raw block begins, if that is what comes.
    fn raw_begin(&self) -> Option<usize> {
        let rest = self
            .rest()
            .trim_start_matches(is_space)
            .strip_prefix("raw")?
            .trim_start_matches(is_space);
        let rest = match rest.strip_prefix("-%}") {
            Some(rest) => rest.trim_start_matches(is_space),
            None => rest.strip_prefix("%}")?,
        };
        Some(self.text.len() - rest.len())
    }

    fn raw(&mut self) -> Result<()> {
        self.line_starts = self.text[..self.at].ends_with('\n');
        let mut from = self.at;
        while let Some(found) = self.text[from..].find("{%") {
            let tag = from + found;
            let mut rest = &self.text[tag + 2..];
            let sign = rest.bytes().next().filter(|c| matches!(c, b'-' | b'+'));
            rest = &rest[usize::from(sign.is_some())..];
            if let Some(rest) = rest.trim_start_matches(is_space).strip_prefix("endraw") {
                let rest = rest.trim_start_matches(is_space);
                let end = rest.bytes().next().filter(|c| matches!(c, b'-' | b'+'));
                if rest[usize::from(end.is_some())..].starts_with("%}") {
                    let data = &self.text[self.at..tag];
                    self.data(data, sign, false);
                    self.at = self.text.len() - rest.len();
                    self.close(2 + usize::from(end.is_some()), end, false);
                    return Ok(());
                }
            }
            from = tag + 2;
        }
        self.fault("a raw block has no end: {% endraw %} is missing")
    }

    /// The tokens of a tag, up to `end`.
    fn inside(&mut self, end: &str) -> Result<()> {
        let is_variable = end == "}}";
        let mut open: Vec<char> = Vec::new();
        loop {
            self.skip_spaces();
            let rest = self.rest();
            if open.is_empty() {
                let sign = rest
                    .bytes()
                    .next()
                    .filter(|c| *c == b'-' || (*c == b'+' && !is_variable));
                let len = usize::from(sign.is_some());
                let sign = if rest.starts_with(end) {
                    Some(None)
                } else {
                    sign.filter(|_| rest[len..].starts_with(end)).map(Some)
                };
                if let Some(sign) = sign {
                    self.push(if is_variable {
                        Token::VariableEnd
                    } else {
                        Token::BlockEnd
                    });
                    self.close(2 + usize::from(sign.is_some()), sign, is_variable);
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else {
                return self.fault(format!("a tag has no end: {end} is missing"));
            };
            if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphanumeric() {
                let name = &rest[..rest
                    .find(|c: char| c != '_' && !c.is_alphanumeric())
                    .unwrap_or(rest.len())];
                if !(first == '_' || first.is_alphabetic()) {
                    return self.fault(format!("{name} is no name"));
                }
                self.push(Token::Name(name.to_owned()));
                self.at += name.len();
            } else if first == '\'' || first == '"' {
                self.quoted(first)?;
            } else if let Some(operator) = OPERATORS
                .iter()
                .find(|operator| rest.starts_with(**operator))
            {
                match first {
                    '(' | '[' | '{' => open.push(first),
                    ')' | ']' | '}' => match (open.pop(), first) {
                        (Some('('), ')') | (Some('['), ']') | (Some('{'), '}') => {}
                        _ => return self.fault(format!("{first} closes nothing")),
                    },
                    _ => {}
                }
                self.push(Token::Operator(operator));
                self.at += operator.len();
            } else {
                return self.fault(format!("{first:?} has no meaning in a tag"));
            }
        }
    }

    /// A number. Digits may be grouped by single underscores.
    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let digits = |from: usize, radix: u32| {
            let is_digit = |at: usize| bytes.get(at).is_some_and(|c| (*c as char).is_digit(radix));
            let mut at = from;
            while is_digit(at) || (at > from && bytes.get(at) == Some(&b'_') && is_digit(at + 1)) {
                at += 1;
            }
            at
        };
        let whole = digits(0, 10);
        let mut end = whole;
        if bytes.get(end) == Some(&b'.') && digits(end + 1, 10) > end + 1 {
            end = digits(end + 1, 10);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if digits(exponent, 10) > exponent {
                end = digits(exponent, 10);
            }
        }
        let after_dot = self.at > 0 && self.text.as_bytes()[self.at - 1] == b'.';
        if end > whole && !after_dot {
            let number = rest[..end]
                .replace('_', "")
                .parse()
                .or_else(|_| self.fault("a number is malformed"))?;
            self.push(Token::Float(number));
            self.at += end;
            return Ok(());
        }
        let radix = match (bytes[0], bytes.get(1).map(u8::to_ascii_lowercase)) {
            (b'0', Some(b'b')) => 2,
            (b'0', Some(b'o')) => 8,
            (b'0', Some(b'x')) => 16,
            _ => 10,
        };
        // `0x_ff` is a number too.
        let from = if radix == 10 {
            0
        } else {
            2 + usize::from(bytes.get(2) == Some(&b'_'))
        };
        let prefixed = radix != 10 && digits(from, radix) > from;
        let (from, end, radix) = match prefixed {
            true => (from, digits(from, radix), radix),
            // Digits after a leading zero are another token, which fits nowhere.
            false if bytes[0] == b'0' => {
                let zeros = bytes.iter().enumerate().take_while(|(i, c)| {
                    **c == b'0' || (**c == b'_' && bytes.get(i + 1) == Some(&b'0'))
                });
                (0, zeros.count(), 10)
            }
            false => (0, whole, 10),
        };
        match i128::from_str_radix(&rest[from..end].replace('_', ""), radix) {
            Ok(number) => self.push(Token::Integer(number)),
            Err(_) => return self.fault("an integer is too large"),
        }
        self.at += end;
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<()> {
        let body = &self.rest()[1..];
        let mut escaped = false;
        let end = body.find(|c: char| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some(end) = end else {
            return self.fault("a quoted text has no end");
        };
        match unescaped(&body[..end]) {
            Ok(text) => self.push(Token::Text(text)),
            Err(what) => return self.fault(what),
        }
        self.at += end + 2;
        Ok(())
    }
}

/// A quoted text as Python's `unicode-escape` reads it.
fn unescaped(text: &str) -> std::result::Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    // The first half of a surrogate pair, `\ud83d\ude00`.
    let mut high: Option<u32> = None;
    while let Some(c) = chars.next() {
        let mut code = None;
        if c != '\\' {
            out.push(c);
        } else {
            match chars.next() {
                None => out.push('\\'),
                Some('\n') => {}
                Some(c @ ('\\' | '\'' | '"')) => out.push(c),
                Some('a') => out.push('\x07'),
                Some('b') => out.push('\x08'),
                Some('f') => out.push('\x0c'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('v') => out.push('\x0b'),
                Some(c @ '0'..='7') => {
                    let mut value = c.to_digit(8).unwrap_or(0);
                    for _ in 0..2 {
                        if let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) {
                            value = value * 8 + digit;
                            chars.next();
                        }
                    }
                    code = Some(value);
                }
                Some(c @ ('x' | 'u' | 'U')) => {
                    let mut value = 0;
                    for _ in 0..(match c {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    }) {
                        let digit = chars.next().and_then(|c| c.to_digit(16));
                        value = value * 16
                            + digit
                                .ok_or_else(|| format!("\\{c} in a quoted text lacks digits"))?;
                        if value > 0x10_ffff {
                            return Err(
                                "a quoted text names a character that does not exist".to_owned()
                            );
                        }
                    }
                    code = Some(value);
                }
                Some('N') => out.push(named(&mut chars)?),
                // Python takes the two apart before it knows that they stand together.
                Some(c) if !c.is_ascii() => {
                    out.push('\\');
                    out.push_str(&super::python::ascii_escape(c));
                }
                Some(c) => out.extend(['\\', c]),
            }
        }
        if let Some(first) = high.take() {
            match code {
                Some(second @ 0xdc00..=0xdfff) => {
                    code = Some(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                }
                _ => return Err("a quoted text has half a surrogate pair".to_owned()),
            }
        }
        match code {
            None => {}
            Some(first @ 0xd800..=0xdbff) => high = Some(first),
            Some(code) => {
                out.push(char::from_u32(code).ok_or("a quoted text has half a surrogate pair")?);
            }
        }
    }
    if high.is_some() {
        Err("a quoted text has half a surrogate pair".to_owned())
    } else {
        Ok(out)
    }
}

/// `\N{NAME}`, for the few that are likely to be there: the whole list has a megabyte.
fn named(chars: &mut impl Iterator<Item = char>) -> std::result::Result<char, String> {
    const NAMES: [(&str, char); 16] = [
        ("BULLET", '•'),
        ("EM DASH", '—'),
        ("EN DASH", '–'),
        ("HORIZONTAL ELLIPSIS", '…'),
        ("NO-BREAK SPACE", '\u{a0}'),
        ("ZERO WIDTH SPACE", '\u{200b}'),
        ("LEFT SINGLE QUOTATION MARK", '‘'),
        ("RIGHT SINGLE QUOTATION MARK", '’'),
        ("LEFT DOUBLE QUOTATION MARK", '“'),
        ("RIGHT DOUBLE QUOTATION MARK", '”'),
        ("FULLWIDTH VERTICAL LINE", '｜'),
        ("LOWER ONE EIGHTH BLOCK", '▁'),
        ("LINE FEED", '\n'),
        ("SPACE", ' '),
        ("DEGREE SIGN", '°'),
        ("EURO SIGN", '€'),
    ];
    let mut name = String::new();
    if chars.next() == Some('{') {
        name.extend(chars.take_while(|c| *c != '}'));
    }
    let upper = name.to_uppercase();
    let found = NAMES.iter().find(|(known, _)| *known == upper);
    found.map(|(_, c)| *c).ok_or_else(|| {
        format!("\\N{{{name}}}: this name of a character is not known; write it as \\u")
    })
}
