//! A template as a tree. What may be written in a row without brackets (operators, filters, `elif`) is a list and no
//! deep tree, so depth comes from brackets and blocks alone, which the parser limits.

use std::rc::Rc;

use super::value::Value;

pub(super) type Name = Rc<str>;
pub(super) type Body = Vec<Node>;

pub(super) struct Node {
    /// Line of the template, from 1.
    pub line: u32,
    pub kind: Kind,
}

pub(super) enum Kind {
    Text(String),
    Output(Expr),
    If {
        branches: Vec<(Expr, Body)>,
        otherwise: Body,
    },
    For(Rc<For>),
    Set(Target, Expr),
    SetBlock(Target, Vec<Link>, Body),
    With(Vec<(Target, Expr)>, Body),
    Macro(Rc<Macro>),
    /// The expression ends in a call, which gets the macro as `caller`.
    Call(Expr, Rc<Macro>),
    Filter(Vec<Link>, Body),
    /// Names that are set inside stay inside.
    Scope(Body),
    /// Sees the names of the outermost scope only.
    Block(Body),
    Autoescape(Expr, Body),
    Do(Expr),
    Break,
    Continue,
}

pub(super) struct For {
    pub target: Target,
    pub items: Expr,
    pub filter: Option<Expr>,
    pub body: Body,
    pub otherwise: Body,
    pub recursive: bool,
}

pub(super) struct Macro {
    pub name: Name,
    pub parameters: Vec<(Name, Option<Expr>)>,
    pub body: Body,
    /// Whether the body speaks of `varargs`, `kwargs` and `caller`: only then may a call bring more than was declared.
    pub varargs: bool,
    pub kwargs: bool,
    pub caller: bool,
}

pub(super) enum Target {
    Name(Name),
    /// `namespace.attribute`
    Attribute(Name, Name),
    Several(Vec<Self>),
}

pub(super) enum Expr {
    Constant(Value),
    Name(Name),
    List(Vec<Self>),
    Tuple(Vec<Self>),
    Dict(Vec<(Self, Self)>),
    /// A value and what follows it: `.a`, `[0]`, `(x)`, `|filter`, `is test`.
    Chain(Box<Self>, Vec<Link>),
    /// True for `-`, false for `+`; the last is applied first.
    Signs(Vec<bool>, Box<Self>),
    Not(Box<Self>),
    Arithmetic(Box<Self>, Vec<(Operator, Self)>),
    Concat(Vec<Self>),
    Compare(Box<Self>, Vec<(Comparison, Self)>),
    And(Vec<Self>),
    Or(Vec<Self>),
    /// Value and condition, one after the other, then the last `else`.
    Condition(Vec<(Self, Self)>, Option<Box<Self>>),
}

pub(super) enum Link {
    Attribute(Name),
    Item(Expr),
    Slice([Option<Expr>; 3]),
    Call(Arguments),
    Filter(Name, Arguments),
    Test {
        name: Name,
        arguments: Arguments,
        negated: bool,
    },
}

#[derive(Default)]
pub(super) struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Name, Expr)>,
    /// `*list` and `**mapping`
    pub more: Option<Expr>,
    pub more_named: Option<Expr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}
