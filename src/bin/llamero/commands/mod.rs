//! The commands, a file each: its arguments (`Args`) and what it does with them (`run`).

pub(crate) mod bench;
pub(crate) mod capture;
pub(crate) mod detokenize;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod logits;
pub(crate) mod make;
pub(crate) mod perplexity;
pub(crate) mod requantize;
pub(crate) mod score;
pub(crate) mod template;
pub(crate) mod tokenize;
