//! Python's texts: which characters are space, digits, letters; cases; lines; cuts.

/// `str.isspace` of a character, which is also what patterns call white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// What the zeros of the world's decimal digits are; nine more follow each.
const ZEROS: [u32; 37] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

/// The value of a decimal digit of any script.
pub(super) fn decimal(c: char) -> Option<u32> {
    ZEROS
        .iter()
        .find_map(|zero| (c as u32).checked_sub(*zero).filter(|digit| *digit < 10))
}

fn is_digit(c: char) -> bool {
    decimal(c).is_some() || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨')
}

fn is_title(text: &str) -> bool {
    let (mut found, mut inside) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() && inside || c.is_lowercase() && !inside {
            return false;
        }
        inside = c.is_uppercase() || c.is_lowercase();
        found |= inside;
    }
    found
}

/// The tests that are methods of a text.
pub(super) fn is(text: &str, method: &str) -> Option<bool> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    let cased = |test: fn(char) -> bool, not: fn(char) -> bool| {
        text.chars().any(test) && !text.chars().any(not)
    };
    Some(match method {
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(|c| decimal(c).is_some()),
        "isdigit" => all(is_digit),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "isprintable" => text.chars().all(is_printable),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "istitle" => is_title(text),
        "isidentifier" => {
            text.chars()
                .next()
                .is_some_and(|c| c == '_' || c.is_alphabetic())
                && text.chars().all(|c| c == '_' || c.is_alphanumeric())
        }
        _ => return None,
    })
}

/// What `repr` writes as it is.
pub(super) fn is_printable(c: char) -> bool {
    let hidden = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
        | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..='\u{10ffff}');
    c == ' ' || !(c.is_control() || is_space(c) || hidden)
}

/// The first letter upper, as at the head of a title; the rest lower.
pub(super) fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    let Some(first) = chars.next() else {
        return String::new();
    };
    let mut upper = first.to_uppercase();
    let mut out: String = upper.next().into_iter().collect();
    out.extend(upper.flat_map(char::to_lowercase));
    out.push_str(&chars.as_str().to_lowercase());
    out
}

/// `str.title`: every run of letters.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if c.is_uppercase() || c.is_lowercase() {
            word.push(c);
            continue;
        }
        out.push_str(&capitalized(&std::mem::take(&mut word)));
        out.push(c);
    }
    out.push_str(&capitalized(&word));
    out
}

pub(super) fn swap_case(text: &str) -> String {
    let swap = |c: char| -> String {
        if c.is_uppercase() {
            c.to_lowercase().collect()
        } else {
            c.to_uppercase().collect()
        }
    };
    text.chars().map(swap).collect()
}

/// `str.splitlines`
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let ends = |c| {
            matches!(
                c,
                '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'
                    ..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        };
        let Some(end) = rest.find(ends) else {
            lines.push(rest);
            break;
        };
        let after = match rest[end..].starts_with("\r\n") {
            true => end + 2,
            false => end + rest[end..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep_ends { after } else { end }]);
        rest = &rest[after..];
    }
    lines
}

/// `str.split`, at most `most` times; at runs of white space without a separator.
pub(super) fn split<'a>(text: &'a str, separator: Option<&str>, most: usize) -> Vec<&'a str> {
    if let Some(separator) = separator {
        return text.splitn(most.saturating_add(1), separator).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            // It keeps the white space inside and at its end.
            parts.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

/// `str.rsplit`
pub(super) fn rsplit<'a>(text: &'a str, separator: Option<&str>, most: usize) -> Vec<&'a str> {
    let mut parts: Vec<&str> = match separator {
        Some(separator) => text.rsplitn(most.saturating_add(1), separator).collect(),
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end_matches(is_space);
            while !rest.is_empty() {
                if parts.len() == most {
                    parts.push(rest);
                    break;
                }
                let start = rest
                    .char_indices()
                    .rev()
                    .find(|(_, c)| is_space(*c))
                    .map_or(0, |(at, c)| at + c.len_utf8());
                parts.push(&rest[start..]);
                rest = rest[..start].trim_end_matches(is_space);
            }
            parts
        }
    };
    parts.reverse();
    parts
}

/// Byte positions `from..to` of Python's `text[start:end]`; `None` where `start` is beyond the end, where not even nothing
/// is found.
pub(super) fn window(text: &str, start: Option<i128>, end: Option<i128>) -> Option<(usize, usize)> {
    if start.is_none() && end.is_none() {
        return Some((0, text.len()));
    }
    let len = text.chars().count() as i128;
    let place = |at: i128| if at < 0 { (at + len).max(0) } else { at };
    let (start, end) = (
        place(start.unwrap_or(0)),
        place(end.unwrap_or(len)).min(len),
    );
    if start > len || end < start {
        return None;
    }
    let byte = |at: i128| {
        text.char_indices()
            .nth(at as usize)
            .map_or(text.len(), |(byte, _)| byte)
    };
    Some((byte(start), byte(end)))
}

/// The pieces of a line between which it may be broken (`textwrap`'s).
fn wrap_pieces(line: &str, at_hyphens: bool) -> Vec<String> {
    let blank = |c: char| matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ');
    let word = |c: char| c == '_' || c.is_alphanumeric();
    let letter = |c: char| word(c) && !c.is_numeric();
    let punctuated = |c: char| word(c) || matches!(c, '!' | '"' | '\'' | '&' | '.' | ',' | '?');
    let chars: Vec<char> = line.chars().collect();
    let at = |i: usize, test: &dyn Fn(char) -> bool| chars.get(i).is_some_and(|c| test(*c));
    let dashes = |i: usize| chars[i..].iter().take_while(|c| **c == '-').count();
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < chars.len() {
        let mut end = start + 1;
        if blank(chars[start]) {
            while at(end, &blank) {
                end += 1;
            }
        } else if !at_hyphens {
            while end < chars.len() && !blank(chars[end]) {
                end += 1;
            }
        } else if start > 0
            && punctuated(chars[start - 1])
            && dashes(start) >= 2
            && at(start + dashes(start), &word)
        {
            end = start + dashes(start);
        } else {
            loop {
                if end == chars.len() || blank(chars[end]) {
                    break;
                }
                // A hyphen after two letters, or after a letter, a hyphen and a letter, before two letters.
                if chars[end] == '-' {
                    let behind = |back: usize| end >= back && letter(chars[end - back]);
                    let before =
                        behind(1) && (behind(2) || end >= 3 && chars[end - 2] == '-' && behind(3));
                    let next = end + 1;
                    let follows = at(next, &letter)
                        && (at(next + 1, &letter)
                            || at(next + 1, &|c| c == '-') && at(next + 2, &letter));
                    if before && follows {
                        end += 1;
                        break;
                    }
                }
                if punctuated(chars[end - 1]) && dashes(end) >= 2 && at(end + dashes(end), &word) {
                    break;
                }
                end += 1;
            }
        }
        pieces.push(chars[start..end].iter().collect());
        start = end;
    }
    pieces
}

/// `textwrap.wrap` of one line.
pub(super) fn wrap(line: &str, width: usize, break_words: bool, at_hyphens: bool) -> Vec<String> {
    let is_blank = |piece: &str| piece.trim_matches(is_space).is_empty();
    let mut pieces: Vec<String> = wrap_pieces(line, at_hyphens);
    pieces.reverse();
    let mut lines: Vec<String> = Vec::new();
    while let Some(first) = pieces.last() {
        if is_blank(first) && !lines.is_empty() {
            pieces.pop();
            if pieces.is_empty() {
                break;
            }
        }
        let mut parts: Vec<String> = Vec::new();
        let mut len = 0;
        while let Some(piece) = pieces.last() {
            let piece_len = piece.chars().count();
            if len + piece_len > width {
                break;
            }
            len += piece_len;
            parts.extend(pieces.pop());
        }
        if pieces
            .last()
            .is_some_and(|piece| piece.chars().count() > width)
        {
            if break_words {
                let space = if width < 1 { 1 } else { width - len };
                if let Some(piece) = pieces.pop() {
                    let chars: Vec<char> = piece.chars().collect();
                    let mut end = space;
                    if at_hyphens && chars.len() > space {
                        // A break after a hyphen, if there is more than hyphens before it.
                        let hyphen = chars[..space].iter().rposition(|c| *c == '-');
                        if let Some(hyphen) =
                            hyphen.filter(|at| *at > 0 && chars[..*at].iter().any(|c| *c != '-'))
                        {
                            end = hyphen + 1;
                        }
                    }
                    parts.push(chars[..end].iter().collect());
                    pieces.push(chars[end..].iter().collect());
                }
            } else if parts.is_empty() {
                parts.extend(pieces.pop());
            }
        }
        if parts.last().is_some_and(|part| is_blank(part)) {
            parts.pop();
        }
        if !parts.is_empty() {
            lines.push(parts.concat());
        }
    }
    lines
}
