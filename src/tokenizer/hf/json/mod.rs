//! `tokenizer.json`: any pipeline of normalizers, pre-tokenizers and BPE, through the `tokenizers` crate. That crate and its
//! regular expressions weigh as much as an engine, so in a browser they are a WebAssembly module of their own
//! (`web::tokenizer_json`).

mod file;
mod pipeline;

use std::collections::{HashMap, HashSet};

use super::{Added, Adjustments, Parts};
use crate::error::{Error, Result};
use crate::format::StringArray;
use crate::tokenizer::spm::byte_of;
use crate::tokenizer::stream::{Leading, Spelling};
use crate::tokenizer::vocabulary::{Kind, empty};
use file::{Decoder, Pattern, Prepend};
pub(crate) use pipeline::Pipeline;

/// Largest id that a `tokenizer.json` may use; ids index a table. The largest vocabularies have 262,144.
const MAX_ID: u32 = 1 << 22;
/// How many ids may go unused in a small vocabulary.
const MAX_GAPS: usize = 1 << 12;

/// Reads a `tokenizer.json`, and heeds what other files say about it.
///
/// # Errors
///
/// `InvalidFile` for a broken file, or one that the other files contradict; `Unsupported` for pipelines that no LLaMA uses.
pub(in crate::tokenizer) fn open(bytes: &[u8], adjustments: &Adjustments) -> Result<Parts> {
    let mut file = file::read(bytes)?;
    let (spelling, leading) = spelling(file.decoder.as_ref())?;
    if let (
        Some(file::PreTokenizer::ByteLevel {
            add_prefix_space, ..
        }),
        Some(add),
    ) = (&mut file.pre_tokenizer, adjustments.add_prefix_space)
    {
        *add_prefix_space = add;
    }
    let own = std::mem::take(&mut file.added_tokens);
    let added = all_added(own, &file.model, adjustments)?;
    let (texts, kinds) = tokens(&file.model, &added, spelling)?;
    let mut pipeline = Pipeline::new(
        file.normalizer,
        file.pre_tokenizer,
        file.post_processor.as_ref(),
        file.model,
        &added,
    )?;
    if adjustments.without_frame {
        pipeline = pipeline.without_frame();
    }
    let (before, after) = pipeline.frame();
    // Unlike an id that only names a token, this one would go into every prompt.
    if let Some(id) = before
        .iter()
        .chain(after)
        .find(|id| **id as usize >= texts.len())
    {
        return Err(Error::invalid_file(format!(
            "a token of the post-processor of tokenizer.json is {id}, but the vocabulary has {} tokens",
            texts.len()
        )));
    }
    Ok(Parts {
        texts,
        kinds,
        spelling,
        leading,
        first: before.first().copied(),
        pipeline,
    })
}

/// [`open`] for another module: `adjustments` are [`Adjustments`] as JSON. Beside the pipeline, what that module needs to
/// know of the file.
///
/// # Errors
///
/// Those of [`open`].
#[cfg(target_arch = "wasm32")]
pub(crate) fn open_for_another(bytes: &[u8], adjustments: &str) -> Result<(Pipeline, Vec<u8>)> {
    let adjustments = serde_json::from_str(adjustments)
        .map_err(|error| Error::internal("adjustments").with_source(error))?;
    let parts = open(bytes, &adjustments)?;
    let description = serde_json::to_vec(&super::Description::of(&parts))
        .map_err(|error| Error::internal("a description").with_source(error))?;
    Ok((parts.pipeline, description))
}

/// The added tokens of `tokenizer.json` with those of the other files, which win.
fn all_added(own: Vec<Added>, model: &file::Model, others: &Adjustments) -> Result<Vec<Added>> {
    let mut added = own;
    // Of two with one text the first counts.
    let mut known = HashMap::new();
    for (at, token) in added.iter().enumerate() {
        known.entry(token.content.clone()).or_insert(at);
    }
    for token in &others.added {
        match known.get(&token.content).copied() {
            Some(at) if added[at].id == token.id => added[at] = token.clone(),
            Some(at) => {
                return Err(Error::invalid_file(format!(
                    "token {:?} has id {} in tokenizer.json and {} in tokenizer_config.json",
                    token.content, added[at].id, token.id
                )));
            }
            None => {
                known.insert(token.content.clone(), added.len());
                added.push(token.clone());
            }
        }
    }
    // What another file calls special is so, though it be an ordinary token in this one.
    let special: HashSet<&str> = others.special.iter().map(String::as_str).collect();
    for (text, id) in &model.vocab.0 {
        if special.contains(text.as_str()) && !known.contains_key(text) {
            added.push(Added {
                id: *id,
                ..Added::special(text)
            });
        }
    }
    // Ids index a table, which a few tokens with large ids would make long.
    let count = model.vocab.0.len() + added.len();
    let most = (MAX_GAPS + 4 * count).min(MAX_ID as usize);
    let largest = model
        .vocab
        .0
        .iter()
        .map(|(_, id)| *id)
        .chain(added.iter().map(|token| token.id))
        .max();
    if let Some(id) = largest.filter(|id| *id as usize >= most) {
        return Err(Error::invalid_file(format!(
            "a token of tokenizer.json has the id {id}, which is far beyond its {count} tokens"
        )));
    }
    Ok(added)
}

/// How a `tokenizer.json` spells bytes, from its decoder.
fn spelling(decoder: Option<&Decoder>) -> Result<(Spelling, Leading)> {
    let decoder = decoder.ok_or_else(|| Error::unsupported("tokenizer.json has no decoder"))?;
    let (mut spelling, mut leading) = (None, Leading::Keep);
    read_decoder(decoder, &mut spelling, &mut leading)?;
    let spelling = spelling.ok_or_else(|| {
        Error::unsupported(
            "the decoder of tokenizer.json is neither byte-level nor that of SentencePiece",
        )
    })?;
    Ok((spelling, leading))
}

fn read_decoder(
    decoder: &Decoder,
    spelling: &mut Option<Spelling>,
    leading: &mut Leading,
) -> Result<()> {
    match decoder {
        Decoder::Sequence { decoders } => {
            decoders
                .iter()
                .try_for_each(|decoder| read_decoder(decoder, spelling, leading))?;
        }
        Decoder::ByteLevel {} => *spelling = Some(Spelling::ByteLevel),
        Decoder::Replace {
            pattern: Pattern::String(mark),
            content,
        } if mark == "▁" && content == " " => {
            *spelling = Some(Spelling::SentencePiece);
        }
        Decoder::Metaspace(metaspace) if metaspace.replacement == '▁' => {
            *spelling = Some(Spelling::SentencePiece);
            if metaspace.scheme() != Prepend::Never {
                *leading = Leading::MarksOfFirstToken;
            }
        }
        Decoder::Strip {
            content: ' ',
            start: 1,
            stop: 0,
        } => *leading = Leading::OneSpace,
        Decoder::ByteFallback {} | Decoder::Fuse {} => {}
        _ => {
            return Err(Error::unsupported(
                "a step of tokenizer.json's decoder is none that a LLaMA has",
            ));
        }
    }
    Ok(())
}

/// Texts and kinds by id. Ids without a token become unused tokens without text.
fn tokens(
    model: &file::Model,
    added: &[Added],
    spelling: Spelling,
) -> Result<(StringArray, Vec<Kind>)> {
    let kind = |text: &str| match spelling {
        Spelling::SentencePiece if byte_of(text).is_some() => Kind::Byte,
        _ => Kind::Normal,
    };
    let own = model
        .vocab
        .0
        .iter()
        .map(|(text, id)| (*id, text.as_str(), kind(text)));
    let more = added.iter().map(|token| {
        (
            token.id,
            token.content.as_str(),
            if token.special {
                Kind::Control
            } else {
                Kind::UserDefined
            },
        )
    });
    let mut tokens: Vec<(u32, &str, Kind)> = own.chain(more).collect();
    // Stable: of two tokens with one id the added one is last, and counts.
    tokens.sort_by_key(|(id, _, _)| *id);
    let mut texts = StringArray::with_capacity(tokens.len());
    let mut kinds = Vec::with_capacity(tokens.len());
    for (at, &(id, text, kind)) in tokens.iter().enumerate() {
        if tokens.get(at + 1).is_some_and(|(next, _, _)| *next == id) {
            continue;
        }
        let mut fits = true;
        while (texts.len() as u32) < id {
            fits &= texts.push("");
            kinds.push(Kind::Unused);
        }
        if !(fits && texts.push(text)) {
            return Err(Error::invalid_file(
                "the tokens of tokenizer.json are too long",
            ));
        }
        kinds.push(kind);
    }
    if texts.is_empty() {
        return Err(empty());
    }
    Ok((texts, kinds))
}
