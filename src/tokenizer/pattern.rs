//! Split patterns: the part of regular expressions that the pre-tokenizers of byte-level BPE are written in, matched by
//! backtracking. A regular expression engine would weigh more than the rest of the tokenizers together.
//!
//! A pattern may hold literals, classes (`[…]`, `[^…]`, `\s`, `\S`, `\d` and `\p{…}` of a general category), groups,
//! `(?i:…)`, alternatives, greedy and possessive repetition, look-ahead, and `$` for the end of the text. Alternatives are
//! tried from left to right, and text is Unicode 16, as in the crate `fancy-regex`.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// A compiled pattern.
pub(super) struct Pattern {
    ops: Vec<Op>,
    classes: Vec<Class>,
}

/// One instruction of the matcher.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    /// `min` to `max` characters of a class, as many as there are; a greedy run gives back what the rest needs.
    Run {
        class: usize,
        min: u32,
        max: u32,
        greedy: bool,
    },
    /// The next instruction, and if that leads nowhere, this one.
    Or(usize),
    Jump(usize),
    /// The instructions up to [`Op::Match`] match here (or do not, if `not`); then on at `next`.
    Ahead {
        not: bool,
        next: usize,
    },
    /// The end of the text.
    End,
    Match,
}

/// A set of characters.
#[derive(Clone, Debug, Default, PartialEq)]
struct Class {
    negated: bool,
    white_space: bool,
    /// A bit for each general category.
    categories: u32,
    ranges: Vec<(char, char)>,
    /// A bit for each ASCII character, once the class is complete.
    ascii: u128,
}

impl Class {
    fn of(c: char) -> Self {
        Self {
            ranges: vec![(c, c)],
            ..Self::default()
        }
    }

    /// Looks the character up in what the class was made of.
    fn look_up(&self, c: char) -> bool {
        let inside = self.ranges.iter().any(|&(from, to)| from <= c && c <= to)
            || (self.white_space && c.is_whitespace())
            || (self.categories != 0 && self.categories & bit(get_general_category(c)) != 0);
        inside != self.negated
    }

    fn contains(&self, c: char) -> bool {
        match u32::from(c) {
            ascii @ ..128 => self.ascii >> ascii & 1 == 1,
            _ => self.look_up(c),
        }
    }

    /// Fills in `ascii`.
    fn complete(mut self) -> Self {
        for code in 0..128_u8 {
            self.ascii |= u128::from(self.look_up(char::from(code))) << code;
        }
        self
    }

    /// Adds the other case of each letter: what Unicode's simple case folding makes equal to an ASCII letter.
    fn fold(&mut self) -> Result<(), String> {
        let single = |&(from, to): &(char, char)| from == to && from.is_ascii();
        if self.negated || self.categories != 0 || !self.ranges.iter().all(single) {
            return Err("only ASCII characters may match in either case".into());
        }
        let folded = |c: char| match c {
            'k' | 'K' => Some('\u{212a}'),
            's' | 'S' => Some('\u{17f}'),
            _ => None,
        };
        for at in 0..self.ranges.len() {
            let (c, _) = self.ranges[at];
            for other in [
                Some(c.to_ascii_lowercase()),
                Some(c.to_ascii_uppercase()),
                folded(c),
            ] {
                self.ranges.extend(other.map(|c| (c, c)));
            }
        }
        Ok(())
    }
}

fn bit(category: Category) -> u32 {
    1 << category as u32
}

/// The general categories that `\p{NAME}` stands for; 0 for a name that no pattern here has.
fn categories(name: &str) -> u32 {
    use Category::*;
    let all = |categories: &[Category]| categories.iter().fold(0, |all, one| all | bit(*one));
    match name {
        "L" => all(&[
            UppercaseLetter,
            LowercaseLetter,
            TitlecaseLetter,
            ModifierLetter,
            OtherLetter,
        ]),
        "Lu" => bit(UppercaseLetter),
        "Ll" => bit(LowercaseLetter),
        "Lt" => bit(TitlecaseLetter),
        "Lm" => bit(ModifierLetter),
        "Lo" => bit(OtherLetter),
        "M" => all(&[NonspacingMark, SpacingMark, EnclosingMark]),
        "N" => all(&[DecimalNumber, LetterNumber, OtherNumber]),
        "Nd" => bit(DecimalNumber),
        "P" => all(&[
            ConnectorPunctuation,
            DashPunctuation,
            OpenPunctuation,
            ClosePunctuation,
            InitialPunctuation,
            FinalPunctuation,
            OtherPunctuation,
        ]),
        "S" => all(&[MathSymbol, CurrencySymbol, ModifierSymbol, OtherSymbol]),
        _ => 0,
    }
}

/// A place to go on from where the way taken leads nowhere.
struct Retry {
    op: usize,
    at: usize,
    /// Text may be given back as far as here, a character at a time.
    floor: usize,
}

impl Pattern {
    /// Compiles a pattern; what it may hold is said above. The message of an error is for whoever wrote the pattern.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            rest: text,
            fold: false,
            pattern: Self {
                ops: Vec::new(),
                classes: Vec::new(),
            },
        };
        parser.alternatives()?;
        if !parser.rest.is_empty() {
            return Err(format!("nothing may follow before {:?}", parser.rest));
        }
        parser.pattern.ops.push(Op::Match);
        Ok(parser.pattern)
    }

    /// The matches in `text` from left to right, as byte ranges.
    pub(super) fn find_iter<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        let mut at = 0;
        let mut stack = Vec::new();
        // What begins with a run and fails in it fails further into that run too.
        let lead = match self.ops[0] {
            Op::Run {
                class,
                min: 1,
                max: u32::MAX,
                greedy: true,
            } => Some(&self.classes[class]),
            _ => None,
        };
        std::iter::from_fn(move || {
            while let Some(c) = text[at..].chars().next() {
                let (start, next) = (at, at + c.len_utf8());
                if let Some(end) = self.run(0, text, start, &mut stack) {
                    // After a match of nothing, the next one is looked for a character further on.
                    at = if end > start { end } else { next };
                    return Some((start, end));
                }
                at = next;
                if let Some(lead) = lead.filter(|lead| lead.contains(c)) {
                    let run = text[at..].find(|c| !lead.contains(c));
                    at = run.map_or(text.len(), |run| at + run);
                }
            }
            None
        })
    }

    /// Where a match of the instructions from `op` on ends that begins at `at`. Uses `stack` above what it holds.
    fn run(
        &self,
        mut op: usize,
        text: &str,
        mut at: usize,
        stack: &mut Vec<Retry>,
    ) -> Option<usize> {
        let bottom = stack.len();
        loop {
            let goes_on = match self.ops[op] {
                Op::Match => {
                    stack.truncate(bottom);
                    return Some(at);
                }
                Op::End => at == text.len(),
                Op::Jump(to) => {
                    op = to;
                    continue;
                }
                Op::Or(other) => {
                    stack.push(Retry {
                        op: other,
                        at,
                        floor: at,
                    });
                    true
                }
                Op::Ahead { not, next } => {
                    let found = self.run(op + 1, text, at, stack).is_some();
                    if found != not {
                        op = next;
                        continue;
                    }
                    false
                }
                Op::Run {
                    class,
                    min,
                    max,
                    greedy,
                } => {
                    let class = &self.classes[class];
                    let (mut count, mut end, mut floor) = (0, at, at);
                    for c in text[at..].chars() {
                        if count == max || !class.contains(c) {
                            break;
                        }
                        count += 1;
                        end += c.len_utf8();
                        if count == min {
                            floor = end;
                        }
                    }
                    if greedy && count > min {
                        stack.push(Retry {
                            op: op + 1,
                            at: before(text, end),
                            floor,
                        });
                    }
                    at = end;
                    count >= min
                }
            };
            if goes_on {
                op += 1;
                continue;
            }
            if stack.len() == bottom {
                return None;
            }
            let retry = stack.last_mut()?;
            (op, at) = (retry.op, retry.at);
            if retry.at > retry.floor {
                retry.at = before(text, retry.at);
            } else {
                stack.pop();
            }
        }
    }
}

/// The start of the character that ends at `at`, which is not 0.
fn before(text: &str, mut at: usize) -> usize {
    at -= 1;
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

struct Parser<'a> {
    rest: &'a str,
    /// Whether letters match in either case.
    fold: bool,
    pattern: Pattern,
}

impl Parser<'_> {
    fn ops(&mut self) -> &mut Vec<Op> {
        &mut self.pattern.ops
    }

    fn take(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn next(&mut self) -> Result<char, String> {
        let mut chars = self.rest.chars();
        let c = chars.next().ok_or("the pattern ends too early")?;
        self.rest = chars.as_str();
        Ok(c)
    }

    /// `a|b|c`, up to a closing bracket or the end.
    fn alternatives(&mut self) -> Result<(), String> {
        let mut jumps = Vec::new();
        loop {
            let start = self.ops().len();
            self.sequence()?;
            if !self.take("|") {
                break;
            }
            self.insert(start, 1);
            jumps.push(self.ops().len());
            self.ops().push(Op::Jump(0));
            self.pattern.ops[start] = Op::Or(self.pattern.ops.len());
        }
        let end = self.ops().len();
        for jump in jumps {
            self.pattern.ops[jump] = Op::Jump(end);
        }
        Ok(())
    }

    /// Makes room for instructions at `start`, which whatever pointed behind it then points behind.
    fn insert(&mut self, start: usize, count: usize) {
        for _ in 0..count {
            self.ops().insert(start, Op::Match);
        }
        for op in &mut self.pattern.ops[start + count..] {
            shift(op, count as isize);
        }
    }

    fn sequence(&mut self) -> Result<(), String> {
        while !self.rest.is_empty() && !self.rest.starts_with(['|', ')']) {
            let start = self.ops().len();
            self.atom()?;
            self.repetition(start)?;
        }
        Ok(())
    }

    fn atom(&mut self) -> Result<(), String> {
        if self.take("(") {
            return self.group();
        }
        if self.take("$") {
            self.ops().push(Op::End);
            return Ok(());
        }
        let mut class = if self.take("[") {
            self.brackets()?
        } else {
            self.single()?
        };
        if self.fold {
            class.fold()?;
        }
        let class = class.complete();
        let classes = &mut self.pattern.classes;
        let at = classes.iter().position(|known| *known == class);
        let class = at.unwrap_or_else(|| {
            classes.push(class);
            classes.len() - 1
        });
        self.ops().push(Op::Run {
            class,
            min: 1,
            max: 1,
            greedy: true,
        });
        Ok(())
    }

    /// What follows an opening bracket, with the closing one.
    fn group(&mut self) -> Result<(), String> {
        let (fold, start) = (self.fold, self.ops().len());
        let ahead = if self.take("?=") {
            Some(false)
        } else if self.take("?!") {
            Some(true)
        } else {
            None
        };
        if ahead.is_some() {
            self.ops().push(Op::Match);
        } else if self.take("?i:") {
            self.fold = true;
        } else if self.rest.starts_with('?') && !self.take("?:") {
            return Err(format!("an unknown kind of group before {:?}", self.rest));
        }
        self.alternatives()?;
        if !self.take(")") {
            return Err("a group is not closed".into());
        }
        self.fold = fold;
        if let Some(not) = ahead {
            self.ops().push(Op::Match);
            let next = self.ops().len();
            self.pattern.ops[start] = Op::Ahead { not, next };
        }
        Ok(())
    }

    /// A character outside of square brackets.
    fn single(&mut self) -> Result<Class, String> {
        match self.next()? {
            '\\' => self.escape(),
            c @ ('*' | '+' | '?' | '{' | '.' | '^') => Err(format!("{c:?} is not known here")),
            c => Ok(Class::of(c)),
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<Class, String> {
        let mut class = Class::default();
        match self.next()? {
            's' => class.white_space = true,
            'S' => (class.white_space, class.negated) = (true, true),
            'd' => class.categories = categories("Nd"),
            'p' => {
                let name = self
                    .rest
                    .strip_prefix('{')
                    .and_then(|rest| rest.split_once('}'));
                let (name, rest) = name.ok_or("\\p is followed by {NAME}")?;
                class.categories = categories(name);
                if class.categories == 0 {
                    return Err(format!("{name} is no category known here"));
                }
                self.rest = rest;
            }
            'u' => {
                let code = self
                    .rest
                    .strip_prefix('{')
                    .and_then(|rest| rest.split_once('}'));
                let (code, rest) = code.ok_or("\\u is followed by {CODE}")?;
                let code = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
                self.rest = rest;
                return Ok(Class::of(code.ok_or("\\u is followed by {CODE}")?));
            }
            'n' => return Ok(Class::of('\n')),
            'r' => return Ok(Class::of('\r')),
            't' => return Ok(Class::of('\t')),
            c if c.is_ascii_punctuation() => return Ok(Class::of(c)),
            c => return Err(format!("\\{c} is not known")),
        }
        Ok(class)
    }

    /// What follows `[`, with the closing bracket.
    fn brackets(&mut self) -> Result<Class, String> {
        let mut class = Class {
            negated: self.take("^"),
            ..Class::default()
        };
        while !self.take("]") {
            let item = self.item()?;
            if item.negated {
                return Err("a class in a class is negated".into());
            }
            class.white_space |= item.white_space;
            class.categories |= item.categories;
            // A minus that ends the class is one itself.
            let range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
            match item.ranges.first() {
                Some(&(from, _)) if range && self.take("-") => match self.item()?.ranges.first() {
                    Some(&(to, _)) if from <= to => class.ranges.push((from, to)),
                    _ => return Err(format!("a range from {from:?} has no end")),
                },
                _ => class.ranges.extend(item.ranges),
            }
        }
        Ok(class)
    }

    /// A character, or a class by its name, inside of square brackets.
    fn item(&mut self) -> Result<Class, String> {
        match self.next()? {
            '\\' => self.escape(),
            '[' => Err("a class in a class is not known".into()),
            c => Ok(Class::of(c)),
        }
    }

    /// `*`, `+`, `?`, `{2}` and `{1,3}`, each possessive with `+` behind it, of what was made from `start` on.
    fn repetition(&mut self, start: usize) -> Result<(), String> {
        let (min, max) = if self.take("*") {
            (0, u32::MAX)
        } else if self.take("+") {
            (1, u32::MAX)
        } else if self.take("?") {
            (0, 1)
        } else if self.take("{") {
            let (numbers, rest) = self
                .rest
                .split_once('}')
                .ok_or("a repetition is not closed")?;
            let (min, max) = numbers.split_once(',').unwrap_or((numbers, numbers));
            self.rest = rest;
            match (min.parse(), max.parse()) {
                (Ok(min), Ok(max)) if min <= max && max > 0 => (min, max),
                _ => return Err(format!("{{{numbers}}} is no repetition known here")),
            }
        } else {
            return Ok(());
        };
        if self.rest.starts_with('?') {
            return Err("lazy repetition is not known".into());
        }
        let possessive = self.take("+");
        let body = self.pattern.ops[start..].to_vec();
        if let [
            Op::Run {
                class,
                min: 1,
                max: 1,
                ..
            },
        ] = body[..]
        {
            self.pattern.ops[start] = Op::Run {
                class,
                min,
                max,
                greedy: !possessive,
            };
            return Ok(());
        }
        if possessive {
            return Err("possessive repetition of a group is not known".into());
        }
        self.ops().truncate(start);
        for _ in 0..min {
            self.append(&body, start);
        }
        if max == u32::MAX {
            let again = self.ops().len();
            self.ops().push(Op::Match);
            self.append(&body, start);
            self.ops().push(Op::Jump(again));
            self.pattern.ops[again] = Op::Or(self.pattern.ops.len());
            return Ok(());
        }
        let optional: Vec<usize> = (min..max)
            .map(|_| {
                let at = self.ops().len();
                self.ops().push(Op::Match);
                self.append(&body, start);
                at
            })
            .collect();
        let end = self.ops().len();
        for at in optional {
            self.pattern.ops[at] = Op::Or(end);
        }
        Ok(())
    }

    /// Appends instructions that were made for `start`.
    fn append(&mut self, body: &[Op], start: usize) {
        let by = self.ops().len() as isize - start as isize;
        for op in body {
            let mut op = op.clone();
            shift(&mut op, by);
            self.ops().push(op);
        }
    }
}

/// Moves where an instruction leads to.
fn shift(op: &mut Op, by: isize) {
    if let Op::Or(to) | Op::Jump(to) | Op::Ahead { next: to, .. } = op {
        *to = to.wrapping_add_signed(by);
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn found<'a>(pattern: &str, text: &'a str) -> Vec<&'a str> {
        let pattern = Pattern::new(pattern).expect("compiles");
        pattern.find_iter(text).map(|(a, b)| &text[a..b]).collect()
    }

    #[test]
    fn alternatives_are_tried_from_left_to_right() {
        assert_eq!(found("a|ab|b", "abab"), ["a", "b", "a", "b"]);
        assert_eq!(found("(?:ab|a)c|b", "abcacb"), ["abc", "ac", "b"]);
    }

    #[test]
    fn greedy_runs_give_back_and_possessive_ones_do_not() {
        assert_eq!(found(r"\s+(?!\S)|\s", "a  b  "), [" ", " ", "  "]);
        assert_eq!(found("a*ab", "aaab"), ["aaab"]);
        assert_eq!(found("a*+ab", "aaab"), [""; 0]);
    }

    #[test]
    fn groups_repeat() {
        assert_eq!(found("(ab){2}c", "ababc abc"), ["ababc"]);
        assert_eq!(found("(a|b){1,2}c", "abc c bbbc"), ["abc", "bbc"]);
        assert_eq!(found("(?:ab?)+", "aababb"), ["aabab"]);
        assert_eq!(found("(?:ab)*c", "ababc c"), ["ababc", "c"]);
        assert_eq!(found("(a{2})+", "aaaaa"), ["aaaa"]);
    }

    #[test]
    fn case_folds_as_unicode_has_it() {
        assert_eq!(
            found("(?i:'s|'k)x?", "'S 'ſ 'K 's"),
            ["'S", "'ſ", "'K", "'s"]
        );
    }

    #[test]
    fn long_runs_take_linear_time() {
        let text = " ".repeat(1 << 20) + "a";
        assert!(found(r"\s+$", &text).is_empty());
        assert_eq!(found(r"\s+(?!\S)|\s+", &text).len(), 2);
        let words = "a ".repeat(1 << 19);
        assert_eq!(found("(?:a(?: a)*)+", &words), [words.trim_end()]);
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (pattern, named) in [
            ("a+?", "lazy"),
            ("(?<n>a)", "group"),
            ("(a", "closed"),
            ("[a", "early"),
            (r"\w", r"\w"),
            (r"\p{Greek}", "Greek"),
            ("a{2,1}", "{2,1}"),
            ("a)", ")"),
            (".", "'.'"),
        ] {
            let error = Pattern::new(pattern).err().expect(pattern);
            assert!(error.contains(named), "{pattern}: {error}");
        }
    }
}
