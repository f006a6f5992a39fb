//! A tokenizer from Hugging Face's files: `tokenizer.json` (through the `tokenizers` crate) or the older
//! `tokenizer.model` (SentencePiece), with what `tokenizer_config.json` and `generation_config.json` add.

mod file;
mod pipeline;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::end_tokens::{self, end_ids};
use super::special::SpecialTokens;
use super::spm::{Spacing, Spm, byte_of};
use super::stream::{Leading, Spelling};
use super::vocabulary::{Kind, Vocabulary};
use super::{Encoder, Inner, Tokenizer, sentencepiece};
use crate::error::{Error, Result};
use crate::format::StringArray;
use crate::template::ChatTemplate;
use file::{Added, Decoder, Pattern, Prepend};
pub(super) use pipeline::Pipeline;

/// Largest id that a `tokenizer.json` may use; ids index a table. The largest vocabularies have 262,144.
const MAX_ID: u32 = 1 << 22;
/// How many ids may go unused in a small vocabulary.
const MAX_GAPS: usize = 1 << 12;

/// Names of special tokens: keys of `tokenizer_config.json`, and variables of chat templates.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const MORE_SPECIAL_TOKENS: &str = "additional_special_tokens";

/// The files of a model's folder, as far as there are any. Either `tokenizer_json` or `tokenizer_model` is needed;
/// the former wins.
#[derive(Copy, Clone, Debug, Default)]
pub struct HfFiles<'a> {
    /// `tokenizer.json`
    pub tokenizer_json: Option<&'a [u8]>,
    /// `tokenizer.model`
    pub tokenizer_model: Option<&'a [u8]>,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`, of folders older than `tokenizer_config.json`'s own list
    pub special_tokens_map: Option<&'a [u8]>,
    /// `added_tokens.json`, likewise
    pub added_tokens: Option<&'a [u8]>,
    /// `generation_config.json`
    pub generation_config: Option<&'a [u8]>,
    /// `config.json`, whose `eos_token_id` counts where there is no `generation_config.json`
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja` or `chat_template.json`
    pub chat_template: Option<&'a [u8]>,
}

/// What `tokenizer_config.json` and its neighbours say.
struct Config {
    tokenizer: Value,
    special_tokens_map: Value,
    added_tokens: Value,
    generation: Value,
    model: Value,
}

impl Tokenizer {
    /// The tokenizer of a folder of Hugging Face's files.
    ///
    /// # Errors
    /// `InvalidInput` without `tokenizer.json` and `tokenizer.model`, `InvalidFile` for broken files,
    /// `Unsupported` for pipelines that no LLaMA uses.
    pub fn from_hf(files: HfFiles<'_>) -> Result<Tokenizer> {
        let config = Config {
            tokenizer: json(files.tokenizer_config, "tokenizer_config.json")?,
            special_tokens_map: json(files.special_tokens_map, "special_tokens_map.json")?,
            added_tokens: json(files.added_tokens, "added_tokens.json")?,
            generation: json(files.generation_config, "generation_config.json")?,
            model: json(files.config, "config.json")?,
        };
        let templates = chat_templates(&files, &config)?;
        match (files.tokenizer_json, files.tokenizer_model) {
            (Some(bytes), _) => from_json(bytes, &config, templates),
            (None, Some(bytes)) => from_model(bytes, &config, templates),
            (None, None) => Err(Error::invalid_input(
                "a tokenizer needs tokenizer.json or tokenizer.model; add one of them to the model's files",
            )),
        }
    }
}

fn json(bytes: Option<&[u8]>, name: &str) -> Result<Value> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    serde_json::from_slice(bytes).map_err(|error| Error::invalid_file(format!("{name} is not JSON: {error}")))
}

fn from_json(bytes: &[u8], config: &Config, templates: Templates) -> Result<Tokenizer> {
    let mut file = file::read(bytes)?;
    let (spelling, leading) = spelling(file.decoder.as_ref())?;
    config.adjust(&mut file.pre_tokenizer);
    let added = config.added(std::mem::take(&mut file.added_tokens), &file.model)?;
    let vocabulary = vocabulary(&file.model, &added, spelling)?;
    let mut pipeline =
        Pipeline::new(file.normalizer, file.pre_tokenizer, file.post_processor.as_ref(), file.model, &added)?;
    let flags = config.flags();
    if flags.is_some() {
        pipeline = pipeline.without_frame();
    }
    let (before, after) = pipeline.frame();
    for &id in before.iter().chain(after) {
        vocabulary.checked(id, "a token of the post-processor of tokenizer.json")?;
    }
    // A bare tokenizer.json names BOS only by putting it before a text.
    let bos = config.token(&vocabulary, "bos_token")?.or(before.first().copied());
    finish(config, vocabulary, Encoder::Pipeline(Box::new(pipeline)), (spelling, leading), bos, flags, templates)
}

fn from_model(bytes: &[u8], config: &Config, templates: Templates) -> Result<Tokenizer> {
    let mut model = sentencepiece::read(bytes)?;
    config.add_tokens(&mut model)?;
    let vocabulary = Vocabulary::new(model.texts, model.kinds)?;
    let unknown = vocabulary.iter().find(|(_, _, kind)| *kind == Kind::Unknown).map(|(id, _, _)| id);
    let legacy = config.tokenizer["legacy"] != Value::Bool(false);
    let spacing = Spacing {
        add_prefix: model.add_dummy_prefix && (legacy || config.tokenizer["add_prefix_space"] != Value::Bool(false)),
        prefix_after_special: legacy,
        remove_extra: model.remove_extra_whitespaces,
    };
    let leading = if spacing.add_prefix { Leading::OneSpace } else { Leading::Keep };
    let spm = Spm::new(&vocabulary, &model.scores, unknown, spacing)?;
    let encoder = Encoder::Spm(SpecialTokens::of(&vocabulary), spm);
    let control = |text: &str| vocabulary.id(text).filter(|&id| vocabulary.kind(id) == Kind::Control);
    let bos = config.token(&vocabulary, "bos_token")?.or_else(|| control("<s>"));
    let flags = Some(config.flags().unwrap_or((true, false)));
    finish(config, vocabulary, encoder, (Spelling::SentencePiece, leading), bos, flags, templates)
}

/// What both kinds have in common. `flags`: whether BOS and EOS are added, unless the post-processor decides.
fn finish(
    config: &Config,
    vocabulary: Vocabulary,
    encoder: Encoder,
    (spelling, leading): (Spelling, Leading),
    bos: Option<u32>,
    flags: Option<(bool, bool)>,
    templates: Templates,
) -> Result<Tokenizer> {
    let eos = config.token(&vocabulary, "eos_token")?.or_else(|| end_tokens::likely_eos(&vocabulary));
    let end_ids = match config.ends(&config.generation, "generation_config.json", &vocabulary)? {
        // Transformers stops at these and no others.
        Some(mut ids) => {
            ids.extend(eos);
            ids.sort_unstable();
            ids.dedup();
            ids
        }
        None => {
            let ends = config.ends(&config.model, "config.json", &vocabulary)?;
            end_ids(&vocabulary, ends.into_iter().flatten().chain(eos))
        }
    };
    let chat_template = (!templates.is_empty()).then(|| {
        let mut variables = config.special_variables();
        for (name, id) in [("bos_token", bos), ("eos_token", eos)] {
            if let (None, Some(text)) = (variables.get(name), id.and_then(|id| vocabulary.text(id))) {
                variables.insert(name.to_owned(), text.into());
            }
        }
        ChatTemplate::unchecked(templates, variables)
    });
    let (add_bos, add_eos) = flags.unwrap_or((false, false));
    Ok(Tokenizer(Arc::new(Inner {
        encoder,
        spelling,
        leading,
        bos,
        eos,
        add_bos,
        add_eos,
        end_ids,
        chat_template,
        vocabulary,
    })))
}

/// The text of a token that is given as a text or as an object with `content`.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

impl Config {
    /// What the files say under the key of a special token.
    fn special(&self, key: &str) -> &Value {
        match &self.tokenizer[key] {
            Value::Null => &self.special_tokens_map[key],
            token => token,
        }
    }

    /// The id of `bos_token` or `eos_token`.
    fn token(&self, vocabulary: &Vocabulary, key: &str) -> Result<Option<u32>> {
        let Some(text) = content(self.special(key)) else { return Ok(None) };
        let id = vocabulary.id(text).ok_or_else(|| {
            Error::invalid_file(format!("{key} of tokenizer_config.json, {text:?}, is not in the vocabulary"))
        })?;
        Ok(Some(id))
    }

    /// Special tokens as variables of a chat template (`special_tokens_map` in Transformers).
    fn special_variables(&self) -> serde_json::Map<String, Value> {
        let single = SPECIAL_TOKENS.into_iter().filter_map(|key| Some((key, content(self.special(key))?.into())));
        let list = self.special(MORE_SPECIAL_TOKENS).as_array().filter(|list| !list.is_empty());
        let list = list.map(|list| list.iter().filter_map(content).collect());
        single.chain(list.map(|list| (MORE_SPECIAL_TOKENS, list))).map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The texts of special tokens of any name.
    fn special_texts(&self) -> HashSet<&str> {
        let named = SPECIAL_TOKENS.into_iter().map(|key| self.special(key));
        let list = self.special(MORE_SPECIAL_TOKENS).as_array();
        named.chain(list.into_iter().flatten()).filter_map(content).collect()
    }

    /// `add_bos_token` and `add_eos_token` where Transformers heeds them: its LLaMA classes replace the
    /// post-processor of `tokenizer.json` by them.
    fn flags(&self) -> Option<(bool, bool)> {
        let class = self.tokenizer["tokenizer_class"].as_str()?;
        let llama = ["LlamaTokenizer", "CodeLlamaTokenizer"].contains(&class.trim_end_matches("Fast"));
        let flag = |key: &str, default| self.tokenizer[key].as_bool().unwrap_or(default);
        llama.then(|| (flag("add_bos_token", true), flag("add_eos_token", false)))
    }

    /// A byte-level pre-tokenizer's `add_prefix_space`, which Transformers replaces by that of `tokenizer_config.json`.
    fn adjust(&self, pre_tokenizer: &mut Option<file::PreTokenizer>) {
        if let (Some(file::PreTokenizer::ByteLevel { add_prefix_space, .. }), true, None) =
            (pre_tokenizer, self.tokenizer.is_object(), self.flags())
        {
            *add_prefix_space = self.tokenizer["add_prefix_space"].as_bool().unwrap_or(false);
        }
    }

    /// `eos_token_id` of a file, a number or a list.
    fn ends(&self, file: &Value, name: &str, vocabulary: &Vocabulary) -> Result<Option<Vec<u32>>> {
        let ids = match &file["eos_token_id"] {
            Value::Null => return Ok(None),
            Value::Array(ids) => ids.as_slice(),
            id => std::slice::from_ref(id),
        };
        let key = format!("eos_token_id of {name}");
        let number = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let checked = ids.iter().map(|id| match number(id) {
            Some(id) => vocabulary.checked(id, &key),
            None => Err(Error::invalid_file(format!("{key} is {id}, which is no token id"))),
        });
        checked.collect::<Result<_>>().map(Some)
    }

    /// The tokens of `added_tokens_decoder`, or where that is absent of `added_tokens.json`, by id.
    fn more_tokens(&self) -> Result<Vec<Added>> {
        let broken = |id: &str, file: &str| Error::invalid_file(format!("added token {id} of {file} is malformed"));
        let mut tokens = Vec::new();
        if let Some(entries) = self.tokenizer["added_tokens_decoder"].as_object() {
            for (id, token) in entries {
                let broken = || broken(id, "tokenizer_config.json");
                let number = id.parse().map_err(|_| broken())?;
                let token: Added = serde_json::from_value(token.clone()).map_err(|_| broken())?;
                tokens.push(Added { id: number, ..token });
            }
        } else if let Some(entries) = self.added_tokens.as_object() {
            for (text, id) in entries {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                tokens.push(Added {
                    id: id.ok_or_else(|| broken(text, "added_tokens.json"))?,
                    content: text.clone(),
                    single_word: false,
                    lstrip: false,
                    rstrip: false,
                    normalized: None,
                    special: false,
                });
            }
        }
        let special = self.special_texts();
        for token in &mut tokens {
            token.special |= special.contains(token.content.as_str());
        }
        tokens.sort_by_key(|token| token.id);
        Ok(tokens)
    }

    /// The added tokens of `tokenizer.json` with those of the other files, which win.
    fn added(&self, own: Vec<Added>, model: &file::Model) -> Result<Vec<Added>> {
        let mut added = own;
        // Of two with one text the first counts.
        let mut known = HashMap::new();
        for (at, token) in added.iter().enumerate() {
            known.entry(token.content.clone()).or_insert(at);
        }
        for token in self.more_tokens()? {
            match known.get(&token.content).copied() {
                Some(at) if added[at].id == token.id => added[at] = token,
                Some(at) => {
                    return Err(Error::invalid_file(format!(
                        "token {:?} has id {} in tokenizer.json and {} in tokenizer_config.json",
                        token.content, added[at].id, token.id
                    )));
                }
                None => {
                    known.insert(token.content.clone(), added.len());
                    added.push(token);
                }
            }
        }
        // Ids index a table, which a few tokens with large ids would make long.
        let count = model.vocab.0.len() + added.len();
        let most = (MAX_GAPS + 4 * count).min(MAX_ID as usize);
        let largest = model.vocab.0.iter().map(|(_, id)| *id).chain(added.iter().map(|token| token.id)).max();
        if let Some(id) = largest.filter(|id| *id as usize >= most) {
            return Err(Error::invalid_file(format!(
                "a token of tokenizer.json has the id {id}, which is far beyond its {count} tokens"
            )));
        }
        Ok(added)
    }

    /// Adds the tokens that other files have to the pieces of a `tokenizer.model`.
    fn add_tokens(&self, model: &mut sentencepiece::Model) -> Result<()> {
        for token in self.more_tokens()? {
            let (id, text) = (token.id as usize, &token.content);
            let kind = if token.special { Kind::Control } else { Kind::UserDefined };
            if id < model.texts.len() {
                // What a piece is already, it stays: unknown, a byte.
                if model.texts.get(id) == Some(text) && matches!(model.kinds[id], Kind::Normal | Kind::UserDefined) {
                    model.kinds[id] = kind;
                }
                continue;
            }
            if id > model.texts.len() || text.is_empty() || !model.texts.push(text) {
                return Err(Error::invalid_file(format!(
                    "added token {id} of tokenizer_config.json does not follow the {} pieces of tokenizer.model",
                    model.texts.len()
                )));
            }
            model.kinds.push(kind);
            model.scores.push(0.0);
        }
        Ok(())
    }
}

/// How a `tokenizer.json` spells bytes, from its decoder.
fn spelling(decoder: Option<&Decoder>) -> Result<(Spelling, Leading)> {
    let decoder = decoder.ok_or_else(|| Error::unsupported("tokenizer.json has no decoder"))?;
    let (mut spelling, mut leading) = (None, Leading::Keep);
    read_decoder(decoder, &mut spelling, &mut leading)?;
    let spelling = spelling.ok_or_else(|| {
        Error::unsupported("the decoder of tokenizer.json is neither byte-level nor that of SentencePiece")
    })?;
    Ok((spelling, leading))
}

fn read_decoder(decoder: &Decoder, spelling: &mut Option<Spelling>, leading: &mut Leading) -> Result<()> {
    match decoder {
        Decoder::Sequence { decoders } => {
            decoders.iter().try_for_each(|decoder| read_decoder(decoder, spelling, leading))?;
        }
        Decoder::ByteLevel {} => *spelling = Some(Spelling::ByteLevel),
        Decoder::Replace { pattern: Pattern::String(mark), content } if mark == "▁" && content == " " => {
            *spelling = Some(Spelling::SentencePiece);
        }
        Decoder::Metaspace(metaspace) if metaspace.replacement == '▁' => {
            *spelling = Some(Spelling::SentencePiece);
            if metaspace.scheme() != Prepend::Never {
                *leading = Leading::MarksOfFirstToken;
            }
        }
        Decoder::Strip { content: ' ', start: 1, stop: 0 } => *leading = Leading::OneSpace,
        Decoder::ByteFallback {} | Decoder::Fuse {} => {}
        _ => return Err(Error::unsupported("a step of tokenizer.json's decoder is none that a LLaMA has")),
    }
    Ok(())
}

/// Texts and kinds by id. Ids without a token become unused tokens without text.
fn vocabulary(model: &file::Model, added: &[Added], spelling: Spelling) -> Result<Vocabulary> {
    let kind = |text: &str| match spelling {
        Spelling::SentencePiece if byte_of(text).is_some() => Kind::Byte,
        _ => Kind::Normal,
    };
    let own = model.vocab.0.iter().map(|(text, id)| (*id, text.as_str(), kind(text)));
    let more = added
        .iter()
        .map(|token| (token.id, token.content.as_str(), if token.special { Kind::Control } else { Kind::UserDefined }));
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
            return Err(Error::invalid_file("the tokens of tokenizer.json are too long"));
        }
        kinds.push(kind);
    }
    Vocabulary::new(texts, kinds)
}

/// Chat templates by name; one without a name is `default`.
type Templates = Vec<(String, String)>;

/// The chat templates: a file of their own, or in `tokenizer_config.json`, there maybe several by name.
fn chat_templates(files: &HfFiles<'_>, config: &Config) -> Result<Templates> {
    let mut value = Cow::Borrowed(&config.tokenizer["chat_template"]);
    if let Some(bytes) = files.chat_template {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::invalid_file("the chat template is not UTF-8").with_source(error))?;
        let inside = serde_json::from_str::<Value>(text).ok();
        let inside = inside.and_then(|mut json| Some(json.get_mut("chat_template")?.take()));
        value = Cow::Owned(inside.unwrap_or_else(|| text.into()));
    }
    Ok(match &*value {
        Value::String(source) => vec![("default".to_owned(), source.clone())],
        Value::Array(named) => {
            let entry = |entry: &Value| Some((entry["name"].as_str()?.into(), entry["template"].as_str()?.into()));
            named.iter().filter_map(entry).collect()
        }
        Value::Object(named) => {
            named.iter().filter_map(|(name, source)| Some((name.clone(), source.as_str()?.to_owned()))).collect()
        }
        _ => Templates::new(),
    })
}
