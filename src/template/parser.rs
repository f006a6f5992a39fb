//! Jinja's grammar, with the precedences of its own parser: `+ -` bind less than `~`, which binds less than `* / // %`;
//! powers go from the left; comparisons chain.

use std::rc::Rc;

use super::ast::{
    Arguments, Body, Comparison, Expr, For, Kind, Link, Macro, Name, Node, Operator, Target,
};
use super::fault::{Fault, Result};
use super::lexer::Token;
use super::value::Value;
use super::{filters, tests};

/// Deepest nesting of brackets and blocks. Published templates have up to some fifteen.
const MAX_NESTING: usize = 64;

/// The tree of a template.
pub(super) fn parse(source: &str) -> Result<Body> {
    let tokens = super::lexer::tokens(source)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
        soft: false,
        loops: 0,
        special: [false; 3],
    };
    let body = parser.body(&[])?;
    match parser.peek() {
        Token::End => Ok(body),
        _ => parser.unexpected("the end"),
    }
}

/// What a macro's body may speak of without having declared it.
const SPECIAL: [&str; 3] = ["varargs", "kwargs", "caller"];

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: usize,
    /// Within `if`, unknown filters are a fault only when they are reached.
    soft: bool,
    /// Loops around, within the same macro.
    loops: usize,
    /// Which of [`SPECIAL`] the macro has used so far.
    special: [bool; 3],
}

impl Parser {
    fn peek(&self) -> &Token {
        // The last token is the end, which nothing takes.
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    fn after(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn line(&self) -> u32 {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn fault<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Fault::syntax(what, self.line()))
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = match self.peek() {
            Token::Data(_) => "text".to_owned(),
            Token::BlockBegin => "{%".to_owned(),
            Token::BlockEnd => "%}".to_owned(),
            Token::VariableBegin => "{{".to_owned(),
            Token::VariableEnd => "}}".to_owned(),
            Token::Name(name) => name.clone(),
            Token::Text(_) => "a quoted text".to_owned(),
            Token::Integer(_) | Token::Float(_) => "a number".to_owned(),
            Token::Operator(operator) => (*operator).to_owned(),
            Token::End => "the end".to_owned(),
        };
        self.fault(format!("{expected} should be where {found} is"))
    }

    fn is(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    fn skip(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, operator: &str) -> Result<()> {
        if self.skip(operator) {
            Ok(())
        } else {
            self.unexpected(operator)
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == word)
    }

    fn skip_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Result<String> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    fn block_end(&mut self) -> Result<()> {
        match self.peek() {
            Token::BlockEnd => {
                self.at += 1;
                Ok(())
            }
            _ => self.unexpected("%}"),
        }
    }

    /// Goes a level down.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_NESTING {
            return self.fault("brackets or blocks are nested too deep");
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Statements up to a tag that begins with one of `ends`, whose name is not taken; without any, up to the end.
    fn body(&mut self, ends: &[&str]) -> Result<Body> {
        let mut body = Body::new();
        loop {
            let line = self.line();
            match self.peek() {
                Token::End if ends.is_empty() => return Ok(body),
                Token::End => {
                    return self.fault(format!("{{% {} %}} is missing", ends[ends.len() - 1]));
                }
                Token::Data(_) => {
                    if let Token::Data(text) = self.next() {
                        body.push(Node {
                            line,
                            kind: Kind::Text(text),
                        });
                    }
                }
                Token::VariableBegin => {
                    self.at += 1;
                    let expr = self.tuple(true, false)?;
                    if *self.peek() != Token::VariableEnd {
                        return self.unexpected("}}");
                    }
                    self.at += 1;
                    body.push(Node {
                        line,
                        kind: Kind::Output(expr),
                    });
                }
                _ => {
                    self.at += 1;
                    if ends.iter().any(|end| self.is_word(end)) {
                        return Ok(body);
                    }
                    let kind = self.nested(Self::statement)?;
                    body.push(Node { line, kind });
                }
            }
        }
    }

    /// The rest of a tag, the statements after it, and the tag with the name `end`.
    fn enclosed(&mut self, end: &str) -> Result<Body> {
        self.block_end()?;
        let body = self.body(&[end])?;
        self.at += 1;
        self.block_end()?;
        Ok(body)
    }

    fn statement(&mut self) -> Result<Kind> {
        let tag = match self.peek() {
            Token::Name(name) => name.clone(),
            _ => return self.unexpected("the name of a tag"),
        };
        self.at += 1;
        let kind = match tag.as_str() {
            "if" => self.if_tag()?,
            "for" => self.for_tag()?,
            "set" => self.set_tag()?,
            "with" => self.with_tag()?,
            "macro" => {
                let name = self.name_to_set()?;
                self.expect("(")?;
                let parameters = self.parameters()?;
                Kind::Macro(Rc::new(self.macro_body(name, parameters, "endmacro")?))
            }
            "call" => self.call_tag()?,
            "filter" => {
                let filters = self.filters(true)?;
                Kind::Filter(filters, self.enclosed("endfilter")?)
            }
            "generation" => {
                Kind::Scope(self.outside_of_loops(|parser| parser.enclosed("endgeneration"))?)
            }
            "autoescape" => {
                let on = self.expression(true)?;
                Kind::Autoescape(on, self.enclosed("endautoescape")?)
            }
            "block" => self.block_tag()?,
            "print" => {
                let expr = self.tuple(true, false)?;
                self.block_end()?;
                Kind::Output(expr)
            }
            "do" => {
                let expr = self.tuple(true, false)?;
                self.block_end()?;
                Kind::Do(expr)
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.fault(format!("{tag} is outside of any loop"));
                }
                self.block_end()?;
                if tag == "break" {
                    Kind::Break
                } else {
                    Kind::Continue
                }
            }
            "include" | "import" | "from" | "extends" => {
                return self.fault(format!(
                    "{{% {tag} %}} needs other templates, and a model has none"
                ));
            }
            _ => return self.fault(format!("the tag {tag} is unknown here")),
        };
        Ok(kind)
    }

    /// `{% with a = b, … %}`, after the name.
    fn with_tag(&mut self) -> Result<Kind> {
        let mut bindings = Vec::new();
        while *self.peek() != Token::BlockEnd {
            if !bindings.is_empty() {
                self.expect(",")?;
            }
            let target = self.target(false)?;
            self.expect("=")?;
            bindings.push((target, self.expression(true)?));
        }
        Ok(Kind::With(bindings, self.enclosed("endwith")?))
    }

    /// `{% call(…) f(…) %}`, after the name.
    fn call_tag(&mut self) -> Result<Kind> {
        let parameters = if self.skip("(") {
            self.parameters()?
        } else {
            Vec::new()
        };
        let call = self.expression(true)?;
        if !matches!(&call, Expr::Chain(_, links) if matches!(links.last(), Some(Link::Call(_)))) {
            return self.fault("{% call %} needs a call");
        }
        Ok(Kind::Call(
            call,
            Rc::new(self.macro_body("caller".into(), parameters, "endcall")?),
        ))
    }

    /// `{% block name %}`, after the name: a model has no other template that could fill it anew.
    fn block_tag(&mut self) -> Result<Kind> {
        let name = self.name()?;
        let scoped = self.skip_word("scoped");
        self.skip_word("required");
        self.block_end()?;
        let body = self.outside_of_loops(|parser| parser.body(&["endblock"]))?;
        self.at += 1;
        self.skip_word(&name);
        self.block_end()?;
        Ok(if scoped {
            Kind::Scope(body)
        } else {
            Kind::Block(body)
        })
    }

    fn outside_of_loops<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let loops = std::mem::take(&mut self.loops);
        let soft = std::mem::take(&mut self.soft);
        let parsed = parse(self);
        self.loops = loops;
        self.soft = soft;
        parsed
    }

    fn softly<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let soft = std::mem::replace(&mut self.soft, true);
        let parsed = parse(self);
        self.soft = soft;
        parsed
    }

    fn if_tag(&mut self) -> Result<Kind> {
        let mut branches = Vec::new();
        let mut otherwise = Body::new();
        loop {
            let (test, body) = self.softly(|parser| {
                let test = parser.tuple(false, false)?;
                parser.block_end()?;
                Ok((test, parser.body(&["elif", "else", "endif"])?))
            })?;
            branches.push((test, body));
            if self.skip_word("elif") {
                continue;
            }
            if self.skip_word("else") {
                otherwise = self.softly(|parser| {
                    parser.block_end()?;
                    parser.body(&["endif"])
                })?;
            }
            self.at += 1;
            self.block_end()?;
            return Ok(Kind::If {
                branches,
                otherwise,
            });
        }
    }

    fn for_tag(&mut self) -> Result<Kind> {
        let target = self.target(false)?;
        if !self.skip_word("in") {
            return self.unexpected("in");
        }
        let items = self.tuple(false, false)?;
        let filter = if self.skip_word("if") {
            Some(self.expression(true)?)
        } else {
            None
        };
        let recursive = self.skip_word("recursive");
        self.block_end()?;
        let soft = std::mem::take(&mut self.soft);
        self.loops += 1;
        let body = self.body(&["else", "endfor"])?;
        self.loops -= 1;
        let mut otherwise = Body::new();
        if self.skip_word("else") {
            self.block_end()?;
            otherwise = self.body(&["endfor"])?;
        }
        self.soft = soft;
        self.at += 1;
        self.block_end()?;
        Ok(Kind::For(Rc::new(For {
            target,
            items,
            filter,
            body,
            otherwise,
            recursive,
        })))
    }

    fn set_tag(&mut self) -> Result<Kind> {
        let target = self.target(true)?;
        if self.skip("=") {
            let value = self.tuple(true, false)?;
            self.block_end()?;
            return Ok(Kind::Set(target, value));
        }
        let filters = self.filters(false)?;
        Ok(Kind::SetBlock(target, filters, self.enclosed("endset")?))
    }

    /// Filters in a row; the first without a bar if `begun`.
    fn filters(&mut self, begun: bool) -> Result<Vec<Link>> {
        let mut filters = Vec::new();
        if begun {
            filters.push(self.filter()?);
        }
        while self.skip("|") {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    fn parameters(&mut self) -> Result<Vec<(Name, Option<Expr>)>> {
        let mut parameters: Vec<(Name, Option<Expr>)> = Vec::new();
        while !self.is(")") {
            if !parameters.is_empty() {
                self.expect(",")?;
            }
            let name = self.name_to_set()?;
            if parameters.iter().any(|(known, _)| *known == name) {
                return self.fault(format!("the parameter {name} is there twice"));
            }
            let default = if self.skip("=") {
                Some(self.expression(true)?)
            } else {
                None
            };
            if default.is_none() && matches!(parameters.last(), Some((_, Some(_)))) {
                return self.fault("a parameter without a default follows one with a default");
            }
            parameters.push((name, default));
        }
        self.expect(")")?;
        Ok(parameters)
    }

    fn macro_body(
        &mut self,
        name: Name,
        parameters: Vec<(Name, Option<Expr>)>,
        end: &str,
    ) -> Result<Macro> {
        let outer = std::mem::take(&mut self.special);
        let body = self.outside_of_loops(|parser| parser.enclosed(end))?;
        let used = self.special;
        // What an inner macro speaks of, the outer one catches too, as in Jinja.
        self.special = [0, 1, 2].map(|i| outer[i] || used[i]);
        let declared = |i: usize| parameters.iter().any(|(name, _)| &**name == SPECIAL[i]);
        if parameters
            .iter()
            .any(|(name, default)| &**name == "caller" && default.is_none())
        {
            return self.fault("the parameter caller needs a default");
        }
        let [varargs, kwargs, caller] = [0, 1, 2].map(|i| used[i] && !declared(i));
        Ok(Macro {
            name,
            parameters,
            body,
            varargs,
            kwargs,
            caller,
        })
    }

    fn name_to_set(&mut self) -> Result<Name> {
        let name = self.name()?;
        match name.as_str() {
            "true" | "false" | "none" | "True" | "False" | "None" => {
                self.fault(format!("{name} cannot be set"))
            }
            _ => Ok(name.into()),
        }
    }

    /// What is set: a name, a namespace's attribute, or several in a row, in brackets or not.
    fn target(&mut self, with_attributes: bool) -> Result<Target> {
        self.nested(|parser| {
            let mut targets = Vec::new();
            let mut several = false;
            loop {
                if parser.is_end() {
                    break;
                }
                let target = if parser.skip("(") {
                    let inner = parser.target(with_attributes)?;
                    parser.expect(")")?;
                    inner
                } else if with_attributes && matches!(parser.after(), Token::Operator(".")) {
                    let namespace = parser.name()?;
                    parser.at += 1;
                    Target::Attribute(namespace.into(), parser.name()?.into())
                } else {
                    Target::Name(parser.name_to_set()?)
                };
                targets.push(target);
                if !parser.skip(",") {
                    break;
                }
                several = true;
            }
            match targets.pop() {
                Some(target) if !several => Ok(target),
                Some(target) => {
                    targets.push(target);
                    Ok(Target::Several(targets))
                }
                None => parser.unexpected("a name"),
            }
        })
    }

    /// Where a list without brackets ends.
    fn is_end(&self) -> bool {
        matches!(
            self.peek(),
            Token::BlockEnd | Token::VariableEnd | Token::Operator(")")
        )
    }

    /// One expression, or several with commas between them.
    fn tuple(&mut self, conditions: bool, in_brackets: bool) -> Result<Expr> {
        let mut items = Vec::new();
        let mut several = false;
        loop {
            if self.is_end() {
                break;
            }
            items.push(self.expression(conditions)?);
            if !self.skip(",") {
                break;
            }
            several = true;
        }
        match items.pop() {
            Some(item) if !several => Ok(item),
            None if !in_brackets => self.unexpected("an expression"),
            last => {
                items.extend(last);
                Ok(Expr::Tuple(items))
            }
        }
    }

    fn expression(&mut self, conditions: bool) -> Result<Expr> {
        self.nested(|parser| {
            if conditions {
                parser.condition()
            } else {
                parser.or()
            }
        })
    }

    /// `a if b else c if d else e`
    fn condition(&mut self) -> Result<Expr> {
        let mut value = self.or()?;
        if !self.is_word("if") {
            return Ok(value);
        }
        let mut choices = Vec::new();
        let mut wrapped = 0;
        while self.skip_word("if") {
            let test = self.softly(Self::or)?;
            if self.skip_word("else") {
                choices.push((value, test));
                value = self.softly(Self::or)?;
                if !self.is_word("if") {
                    return Ok(Expr::Condition(choices, Some(Box::new(value))));
                }
            } else {
                // No `else`: the value so far is what a further `if` would choose.
                wrapped += 1;
                if wrapped + self.depth > MAX_NESTING {
                    return self.fault("conditions are nested too deep");
                }
                value = Expr::Condition(vec![(value, test)], None);
            }
        }
        Ok(if choices.is_empty() {
            value
        } else {
            Expr::Condition(choices, Some(Box::new(value)))
        })
    }

    fn or(&mut self) -> Result<Expr> {
        let mut items = vec![self.and()?];
        while self.skip_word("or") {
            items.push(self.and()?);
        }
        Ok(single(items, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr> {
        let mut items = vec![self.not()?];
        while self.skip_word("and") {
            items.push(self.not()?);
        }
        Ok(single(items, Expr::And))
    }

    fn not(&mut self) -> Result<Expr> {
        let mut count = 0;
        while self.skip_word("not") {
            count += 1;
        }
        let value = self.comparison()?;
        Ok(match count {
            0 => value,
            count if count % 2 == 1 => Expr::Not(Box::new(value)),
            _ => Expr::Not(Box::new(Expr::Not(Box::new(value)))),
        })
    }

    fn comparison(&mut self) -> Result<Expr> {
        let first = self.arithmetic(0)?;
        let mut others = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Operator("==") => Comparison::Equal,
                Token::Operator("!=") => Comparison::NotEqual,
                Token::Operator("<") => Comparison::Less,
                Token::Operator("<=") => Comparison::LessEqual,
                Token::Operator(">") => Comparison::Greater,
                Token::Operator(">=") => Comparison::GreaterEqual,
                Token::Name(name) if name == "in" => Comparison::In,
                Token::Name(name)
                    if name == "not"
                        && matches!(self.after(), Token::Name(next) if next == "in") =>
                {
                    self.at += 1;
                    Comparison::NotIn
                }
                _ => break,
            };
            self.at += 1;
            others.push((comparison, self.arithmetic(0)?));
        }
        Ok(if others.is_empty() {
            first
        } else {
            Expr::Compare(Box::new(first), others)
        })
    }

    /// Operators of a level and above: 0 is `+ -`, 1 `* / // %`, 2 `**`. Between the first two stands `~`.
    fn arithmetic(&mut self, level: usize) -> Result<Expr> {
        const LEVELS: [&[(&str, Operator)]; 3] = [
            &[("+", Operator::Add), ("-", Operator::Subtract)],
            &[
                ("*", Operator::Multiply),
                ("/", Operator::Divide),
                ("//", Operator::FloorDivide),
                ("%", Operator::Modulo),
            ],
            &[("**", Operator::Power)],
        ];
        let operand = |parser: &mut Self| match level {
            0 => parser.concat(),
            1 => parser.arithmetic(2),
            _ => parser.unary(),
        };
        let first = operand(self)?;
        let mut others = Vec::new();
        while let Token::Operator(found) = self.peek() {
            let Some((_, operator)) = LEVELS[level].iter().find(|(text, _)| text == found) else {
                break;
            };
            self.at += 1;
            others.push((*operator, operand(self)?));
        }
        Ok(if others.is_empty() {
            first
        } else {
            Expr::Arithmetic(Box::new(first), others)
        })
    }

    fn concat(&mut self) -> Result<Expr> {
        let mut items = vec![self.arithmetic(1)?];
        while self.skip("~") {
            items.push(self.arithmetic(1)?);
        }
        Ok(single(items, Expr::Concat))
    }

    fn unary(&mut self) -> Result<Expr> {
        let mut signs = Vec::new();
        while let Token::Operator(sign @ ("+" | "-")) = self.peek() {
            signs.push(*sign == "-");
            self.at += 1;
        }
        let mut value = self.primary()?;
        let mut links = Vec::new();
        self.postfix(&mut links)?;
        if !signs.is_empty() {
            value = Expr::Signs(signs, Box::new(chain(value, std::mem::take(&mut links))));
        }
        loop {
            match self.peek() {
                Token::Operator("|") => {
                    self.at += 1;
                    links.push(self.filter()?);
                }
                Token::Operator("(") => {
                    self.at += 1;
                    links.push(Link::Call(self.arguments()?));
                }
                Token::Name(name) if name == "is" => {
                    self.at += 1;
                    links.push(self.test()?);
                }
                _ => return Ok(chain(value, links)),
            }
        }
    }

    fn postfix(&mut self, links: &mut Vec<Link>) -> Result<()> {
        loop {
            if self.skip(".") {
                links.push(match self.next() {
                    Token::Name(name) => Link::Attribute(name.into()),
                    Token::Integer(index) => Link::Item(Expr::Constant(Value::Int(index))),
                    _ => {
                        self.at -= 1;
                        return self.unexpected("a name");
                    }
                });
            } else if self.skip("[") {
                links.push(self.subscript()?);
            } else if self.skip("(") {
                links.push(Link::Call(self.arguments()?));
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Result<Link> {
        let mut items = Vec::new();
        while !self.is("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            let first = if self.is(":") {
                None
            } else {
                Some(self.expression(true)?)
            };
            if !self.skip(":") {
                items.extend(first);
                continue;
            }
            let mut parts = [first, None, None];
            if !matches!(self.peek(), Token::Operator(":" | "]" | ",")) {
                parts[1] = Some(self.expression(true)?);
            }
            if self.skip(":") && !matches!(self.peek(), Token::Operator("]" | ",")) {
                parts[2] = Some(self.expression(true)?);
            }
            if !items.is_empty() || !self.skip("]") {
                return self.fault("a slice stands alone in its brackets");
            }
            return Ok(Link::Slice(parts));
        }
        self.expect("]")?;
        Ok(Link::Item(match items.len() {
            1 => items.remove(0),
            _ => Expr::Tuple(items),
        }))
    }

    /// The arguments of a call, after the opening bracket.
    fn arguments(&mut self) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is(")") {
            if !std::mem::take(&mut first) {
                self.expect(",")?;
                if self.is(")") {
                    break;
                }
            }
            if arguments.more_named.is_some() {
                return self.fault("nothing may follow ** in a call");
            }
            if self.skip("**") {
                arguments.more_named = Some(self.expression(true)?);
            } else if self.skip("*") {
                if arguments.more.is_some() {
                    return self.fault("a call may have one * only");
                }
                arguments.more = Some(self.expression(true)?);
            } else if let (Token::Name(name), Token::Operator("=")) = (self.peek(), self.after()) {
                let name: Name = name.as_str().into();
                self.at += 2;
                if arguments.named.iter().any(|(known, _)| *known == name) {
                    return self.fault(format!("the argument {name} is there twice"));
                }
                arguments.named.push((name, self.expression(true)?));
            } else if arguments.named.is_empty() && arguments.more.is_none() {
                arguments.positional.push(self.expression(true)?);
            } else {
                return self.fault("an argument without a name follows one with a name");
            }
        }
        self.expect(")")?;
        Ok(arguments)
    }

    fn dotted(&mut self) -> Result<Name> {
        let mut name = self.name()?;
        while self.skip(".") {
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name.into())
    }

    fn filter(&mut self) -> Result<Link> {
        let name = self.dotted()?;
        if !self.soft && !filters::exists(&name) {
            return self.fault(filters::unknown(&name));
        }
        let arguments = if self.skip("(") {
            self.arguments()?
        } else {
            Arguments::default()
        };
        Ok(Link::Filter(name, arguments))
    }

    fn test(&mut self) -> Result<Link> {
        let negated = self.skip_word("not");
        let name = self.dotted()?;
        if !self.soft && !tests::exists(&name) {
            return self.fault(tests::unknown(&name));
        }
        let mut arguments = Arguments::default();
        if self.skip("(") {
            arguments = self.arguments()?;
        } else if match self.peek() {
            Token::Name(word) => !matches!(word.as_str(), "else" | "or" | "and"),
            Token::Text(_) | Token::Integer(_) | Token::Float(_) | Token::Operator("[" | "{") => {
                true
            }
            _ => false,
        } {
            if self.is_word("is") {
                return self.fault("tests cannot be chained with is");
            }
            let value = self.nested(Self::primary)?;
            let mut links = Vec::new();
            self.postfix(&mut links)?;
            arguments.positional.push(chain(value, links));
        }
        Ok(Link::Test {
            name,
            arguments,
            negated,
        })
    }

    fn primary(&mut self) -> Result<Expr> {
        Ok(match self.peek() {
            Token::Name(name) => {
                let value = match name.as_str() {
                    "true" | "True" => Expr::Constant(Value::Bool(true)),
                    "false" | "False" => Expr::Constant(Value::Bool(false)),
                    "none" | "None" => Expr::Constant(Value::None),
                    name => {
                        let special = SPECIAL.iter().position(|known| *known == name);
                        let name = Expr::Name(name.into());
                        if let Some(special) = special {
                            self.special[special] = true;
                        }
                        name
                    }
                };
                self.at += 1;
                value
            }
            Token::Text(_) => {
                let mut text = String::new();
                while let Token::Text(part) = self.peek() {
                    text.push_str(part);
                    self.at += 1;
                }
                Expr::Constant(text.into())
            }
            Token::Integer(number) => {
                let value = Expr::Constant(Value::Int(*number));
                self.at += 1;
                value
            }
            Token::Float(number) => {
                let value = Expr::Constant(Value::Float(*number));
                self.at += 1;
                value
            }
            Token::Operator("(") => {
                self.at += 1;
                let value = self.tuple(true, true)?;
                self.expect(")")?;
                value
            }
            Token::Operator("[") => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.is("]") {
                    if !items.is_empty() {
                        self.expect(",")?;
                        if self.is("]") {
                            break;
                        }
                    }
                    items.push(self.expression(true)?);
                }
                self.expect("]")?;
                Expr::List(items)
            }
            Token::Operator("{") => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.is("}") {
                    if !items.is_empty() {
                        self.expect(",")?;
                        if self.is("}") {
                            break;
                        }
                    }
                    let key = self.expression(true)?;
                    self.expect(":")?;
                    items.push((key, self.expression(true)?));
                }
                self.expect("}")?;
                Expr::Dict(items)
            }
            _ => return self.unexpected("an expression"),
        })
    }
}

fn single(mut items: Vec<Expr>, several: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    if items.len() == 1 {
        items.remove(0)
    } else {
        several(items)
    }
}

fn chain(value: Expr, links: Vec<Link>) -> Expr {
    if links.is_empty() {
        value
    } else {
        Expr::Chain(Box::new(value), links)
    }
}
