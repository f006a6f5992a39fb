//! The steps of a `tokenizer.json`, run by the `tokenizers` crate.

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{
    Lowercase, NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence as Normalizers, Strip,
    StripAccents, replace,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::delimiter::CharDelimiterSplit;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};
use tokenizers::tokenizer::{
    AddedToken, AddedVocabulary, Model as _, NormalizedString, Normalizer as _, NormalizerWrapper,
    OffsetType, PreTokenizer as _, PreTokenizerWrapper,
};

use super::super::Added;
use super::file::{self, Pattern, Piece, PostProcessor};
use crate::error::{Error, Result};

/// Longest pattern. The longest published one has some 300 characters.
const MAX_PATTERN: usize = 1 << 12;
/// Most steps of both kinds; published files have up to six.
const MAX_STEPS: usize = 64;
/// How many times longer the steps together may make a text. A space that becomes a mark, or a byte that is spelled as a
/// character, is 3 or 2; steps after each other multiply.
const MAX_GROWTH: usize = 256;
/// Most special tokens around a text; LLaMAs have one or two.
const MAX_FRAME: usize = 64;

/// Longest run of white space that the patterns' engine takes: fancy-regex keeps one stack entry per character
/// of `\s+(?!\S)` and gives up at a million, and the `tokenizers` crate then goes on as if nothing more matched.
const MAX_WHITE_SPACE: usize = 900_000;

/// Fails where a run of white space is too long for the patterns' engine, rather than cut it wrongly.
fn check_white_space(text: &str) -> Result<()> {
    if text.len() <= MAX_WHITE_SPACE {
        return Ok(());
    }
    let mut run = 0;
    for c in text.chars() {
        run = if c.is_whitespace() { run + 1 } else { 0 };
        if run > MAX_WHITE_SPACE {
            return Err(Error::invalid_input(format!(
                "the text has more than {MAX_WHITE_SPACE} white-space characters in a row; remove some"
            )));
        }
    }
    Ok(())
}

/// What the steps of a file may still do.
struct Budget {
    steps: usize,
    growth: usize,
}

impl Budget {
    fn new() -> Self {
        Self {
            steps: MAX_STEPS,
            growth: MAX_GROWTH,
        }
    }

    /// Takes a step that makes a text at most `growth` times longer.
    fn take(&mut self, growth: usize) -> Result<()> {
        self.steps = self.steps.checked_sub(1).ok_or_else(|| {
            Error::invalid_file(format!("tokenizer.json has more than {MAX_STEPS} steps"))
        })?;
        self.growth /= growth.max(1);
        if self.growth == 0 {
            return Err(Error::invalid_file(format!(
                "the steps of tokenizer.json make a text more than {MAX_GROWTH} times longer"
            )));
        }
        Ok(())
    }
}

/// A `tokenizer.json`'s pipeline.
pub(crate) struct Pipeline {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    model: BPE,
    added: AddedVocabulary,
    /// The same when the text of special tokens is to be taken literally.
    literal: AddedVocabulary,
    /// What the post-processor puts before and after a text.
    frame: (Vec<u32>, Vec<u32>),
}

impl Pipeline {
    /// The pipeline of a file. `added`: its added tokens, and whatever other files add to them.
    ///
    /// # Errors
    /// `InvalidFile` for a step that cannot be made, or a merge rule that makes no token.
    pub(super) fn new(
        normalizer: Option<file::Normalizer>,
        pre_tokenizer: Option<file::PreTokenizer>,
        post_processor: Option<&PostProcessor>,
        model: file::Model,
        added: &[Added],
    ) -> Result<Self> {
        let mut budget = Budget::new();
        let normalizer = normalizer
            .map(|step| normalizer_of(step, &mut budget))
            .transpose()?;
        let pre_tokenizer = pre_tokenizer
            .map(|step| pre_tokenizer_of(step, &mut budget))
            .transpose()?;
        let mut frame = (Vec::new(), Vec::new());
        if let Some(processor) = post_processor {
            read_frame(processor, &mut frame)?;
        }
        let model = bpe(model)?;
        let added = added_vocabulary(added, &model, normalizer.as_ref())?;
        let mut literal = added.clone();
        literal.set_encode_special_tokens(true);
        Ok(Self {
            normalizer,
            pre_tokenizer,
            model,
            added,
            literal,
            frame,
        })
    }

    /// What the post-processor puts before and after a text.
    pub(super) fn frame(&self) -> (&[u32], &[u32]) {
        (&self.frame.0, &self.frame.1)
    }

    /// Lets somebody else put BOS and EOS around a text.
    pub(super) fn without_frame(mut self) -> Self {
        self.frame = (Vec::new(), Vec::new());
        self
    }

    /// Appends the ids of `text`.
    ///
    /// # Errors
    /// `InvalidInput` for text that a pattern or the vocabulary cannot handle.
    pub(crate) fn encode(
        &self,
        text: &str,
        parse_special: bool,
        add_special: bool,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        check_white_space(text)?;
        let failed = |error| {
            Error::invalid_input("tokenizer.json cannot encode this text").with_source(error)
        };
        let added = if parse_special {
            &self.added
        } else {
            &self.literal
        };
        let mut words = added.extract_and_normalize(self.normalizer.as_ref(), text);
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut words).map_err(failed)?;
        }
        words
            .tokenize(|word| self.model.tokenize(word.get()))
            .map_err(failed)?;
        let encoding = words
            .into_encoding(None, 0, OffsetType::None)
            .map_err(failed)?;
        let (before, after) = if add_special {
            self.frame()
        } else {
            (&[][..], &[][..])
        };
        ids.extend(before);
        ids.extend(encoding.get_ids());
        ids.extend(after);
        Ok(())
    }
}

fn unusable(what: &str, error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::invalid_file(format!("{what} of tokenizer.json cannot be used: {error}"))
}

fn checked(pattern: Pattern) -> Result<Pattern> {
    let (Pattern::String(text) | Pattern::Regex(text)) = &pattern;
    if text.is_empty() || text.len() > MAX_PATTERN {
        return Err(Error::invalid_file(format!(
            "a pattern of tokenizer.json has {} bytes; it must have 1 to {MAX_PATTERN}",
            text.len()
        )));
    }
    Ok(pattern)
}

fn normalizer_of(step: file::Normalizer, budget: &mut Budget) -> Result<NormalizerWrapper> {
    use file::Normalizer::*;
    budget.take(match &step {
        Replace {
            pattern: Pattern::String(text),
            content,
        } => content.len().div_ceil(text.len().max(1)),
        // A pattern may match nothing, between any two characters.
        Replace {
            pattern: Pattern::Regex(_),
            content,
        } => 1 + content.len(),
        // Of a text of one byte.
        Prepend { prepend } => 1 + prepend.len(),
        // U+FDFA becomes 18 characters.
        Nfkc | Nfkd => 11,
        Nfc | Nfd => 3,
        Lowercase => 2,
        Sequence { .. } | Strip { .. } | StripAccents => 1,
    })?;
    Ok(match step {
        Sequence { normalizers } => {
            let steps: Result<_> = normalizers
                .into_iter()
                .map(|step| normalizer_of(step, budget))
                .collect();
            Normalizers::new(steps?).into()
        }
        Prepend { prepend } => self::Prepend::new(prepend).into(),
        Replace { pattern, content } => {
            let pattern = match checked(pattern)? {
                Pattern::String(text) => replace::ReplacePattern::String(text),
                Pattern::Regex(text) => replace::ReplacePattern::Regex(text),
            };
            self::Replace::new(pattern, content)
                .map_err(|error| unusable("a pattern", error))?
                .into()
        }
        Strip {
            strip_left,
            strip_right,
        } => self::Strip::new(strip_left, strip_right).into(),
        StripAccents => self::StripAccents.into(),
        Lowercase => self::Lowercase.into(),
        Nfc => NFC.into(),
        Nfd => NFD.into(),
        Nfkc => NFKC.into(),
        Nfkd => NFKD.into(),
    })
}

fn pre_tokenizer_of(step: file::PreTokenizer, budget: &mut Budget) -> Result<PreTokenizerWrapper> {
    use file::PreTokenizer::*;
    budget.take(match &step {
        ByteLevel { .. } => 2,
        Metaspace(metaspace) => 2 * metaspace.replacement.len_utf8(),
        _ => 1,
    })?;
    Ok(match step {
        Sequence { pretokenizers } => {
            let steps: Result<_> = pretokenizers
                .into_iter()
                .map(|step| pre_tokenizer_of(step, budget))
                .collect();
            PreTokenizers::new(steps?).into()
        }
        ByteLevel {
            add_prefix_space,
            use_regex,
        } => self::ByteLevel::new(add_prefix_space, true, use_regex).into(),
        Split {
            pattern,
            behavior,
            invert,
        } => {
            let pattern = match checked(pattern)? {
                Pattern::String(text) => SplitPattern::String(text),
                Pattern::Regex(text) => SplitPattern::Regex(text),
            };
            self::Split::new(pattern, behavior, invert)
                .map_err(|error| unusable("a pattern", error))?
                .into()
        }
        Metaspace(metaspace) => {
            let scheme = match metaspace.scheme() {
                file::Prepend::First => PrependScheme::First,
                file::Prepend::Never => PrependScheme::Never,
                file::Prepend::Always => PrependScheme::Always,
            };
            self::Metaspace::new(metaspace.replacement, scheme, metaspace.split).into()
        }
        Digits { individual_digits } => self::Digits::new(individual_digits).into(),
        Punctuation { behavior } => self::Punctuation::new(behavior).into(),
        Whitespace => self::Whitespace {}.into(),
        WhitespaceSplit => self::WhitespaceSplit.into(),
        CharDelimiterSplit { delimiter } => self::CharDelimiterSplit::new(delimiter).into(),
    })
}

/// Collects the special tokens around the text.
fn read_frame(processor: &PostProcessor, frame: &mut (Vec<u32>, Vec<u32>)) -> Result<()> {
    match processor {
        PostProcessor::Sequence { processors } => processors
            .iter()
            .try_for_each(|step| read_frame(step, frame))?,
        PostProcessor::ByteLevel {} => {}
        PostProcessor::BertProcessing { sep, cls }
        | PostProcessor::RobertaProcessing { sep, cls } => {
            frame.0.insert(0, cls.1);
            frame.1.push(sep.1);
        }
        PostProcessor::TemplateProcessing {
            single,
            special_tokens,
        } => {
            let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
            for piece in single {
                match piece {
                    Piece::Sequence {} if seen => {
                        return Err(Error::unsupported(
                            "the post-processor of tokenizer.json repeats the text",
                        ));
                    }
                    Piece::Sequence {} => seen = true,
                    Piece::SpecialToken { id } => {
                        let token = special_tokens.get(id).ok_or_else(|| {
                            Error::invalid_file(format!(
                                "the post-processor of tokenizer.json has no token {id:?}"
                            ))
                        })?;
                        // One more than may be is enough to be refused.
                        let side = if seen { &mut after } else { &mut before };
                        side.extend(
                            token
                                .ids
                                .iter()
                                .take(MAX_FRAME + 1 - side.len().min(MAX_FRAME + 1)),
                        );
                    }
                }
            }
            if !seen {
                return Err(Error::unsupported(
                    "the post-processor of tokenizer.json leaves out the text",
                ));
            }
            // A later step is put around what an earlier one made.
            before.append(&mut frame.0);
            frame.0 = before;
            frame.1.append(&mut after);
        }
    }
    if frame.0.len() + frame.1.len() > MAX_FRAME {
        return Err(Error::unsupported(format!(
            "the post-processor of tokenizer.json puts more than {MAX_FRAME} tokens around a text"
        )));
    }
    Ok(())
}

fn bpe(model: file::Model) -> Result<BPE> {
    let merges = model.merges.map(|merges| merges.0).unwrap_or_default();
    let vocab: tokenizers::models::bpe::Vocab = model.vocab.0.into_iter().collect();
    // The crate's own check comes after it has joined the texts into a buffer that only tokens are sure to fit.
    let mut joined = String::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if let Some(missing) = [left, right, &joined]
            .into_iter()
            .find(|text| !vocab.contains_key(*text))
        {
            return Err(Error::invalid_file(format!(
                "merge rule {rank} of tokenizer.json, {left:?} {right:?}, needs {missing:?}, which is no token"
            )));
        }
    }
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(model.fuse_unk)
        .byte_fallback(model.byte_fallback)
        .ignore_merges(model.ignore_merges);
    if let Some(unknown) = model.unk_token {
        builder = builder.unk_token(unknown);
    }
    builder
        .build()
        .map_err(|error| unusable("the model", error))
}

fn added_vocabulary(
    added: &[Added],
    model: &BPE,
    normalizer: Option<&NormalizerWrapper>,
) -> Result<AddedVocabulary> {
    let mut vocabulary = AddedVocabulary::new();
    let mut tokens = Vec::with_capacity(added.len());
    for token in added {
        let normalized = token.normalized.unwrap_or(!token.special);
        if let (true, Some(normalizer)) = (normalized, normalizer) {
            let mut text = NormalizedString::from(token.content.as_str());
            normalizer
                .normalize(&mut text)
                .map_err(|error| unusable("a normalizer", error))?;
            if text.get().is_empty() {
                return Err(Error::invalid_file(format!(
                    "added token {:?} of tokenizer.json is nothing once it is normalised",
                    token.content
                )));
            }
        }
        tokens.push(
            AddedToken::from(token.content.clone(), token.special)
                .single_word(token.single_word)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .normalized(normalized),
        );
    }
    vocabulary
        .add_tokens(tokens, model, normalizer)
        .map_err(|error| unusable("the added tokens", error))?;
    for token in added.iter().filter(|token| !token.content.is_empty()) {
        let id = vocabulary.token_to_id(&token.content, model);
        if id != Some(token.id) {
            return Err(Error::invalid_file(format!(
                "added token {:?} has id {}, but the vocabulary before it makes it {}",
                token.content,
                token.id,
                id.unwrap_or_default()
            )));
        }
    }
    Ok(vocabulary)
}

#[cfg(test)]
mod tests {
    use super::check_white_space;

    #[test]
    fn a_million_spaces_are_refused_and_fewer_are_not() {
        assert!(check_white_space(&" ".repeat(1_000_000)).is_err());
        assert!(check_white_space(&"a b".repeat(1_000_000)).is_ok());
    }
}
