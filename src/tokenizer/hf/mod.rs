//! A tokenizer from Hugging Face's files: `tokenizer.json` (through the `tokenizers` crate) or the older
//! `tokenizer.model` (SentencePiece), with what `tokenizer_config.json` and `generation_config.json` add.

#[cfg(feature = "tokenizer-json")]
pub(crate) mod json;
#[cfg(not(feature = "tokenizer-json"))]
pub mod remote;

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bpe::Bpe;
use super::end_tokens::{self, end_ids};
use super::pre_tokenizers::PreTokenizer;
use super::special::SpecialTokens;
use super::spm::{Spacing, Spm};
use super::stream::{Leading, Spelling};
use super::vocabulary::{Kind, Vocabulary};
use super::{Encoder, Inner, Tokenizer, sentencepiece, tiktoken};
use crate::error::{Error, Result, Warnings};
use crate::format::{StringArray, check_small, json_text};
use crate::template::{ChatTemplate, DEFAULT};
#[cfg(feature = "tokenizer-json")]
pub(crate) use json::Pipeline;
#[cfg(not(feature = "tokenizer-json"))]
pub(super) use remote::Pipeline;

/// Names of special tokens: keys of `tokenizer_config.json`, and variables of chat templates.
const SPECIAL_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// A list.
const MORE_SPECIAL_TOKENS: &str = "additional_special_tokens";
/// A mapping from names to tokens, or a list.
const EXTRA_SPECIAL_TOKENS: &str = "extra_special_tokens";

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
    /// `chat_template.jinja`
    pub chat_template: Option<&'a [u8]>,
    /// `additional_chat_templates/NAME.jinja`: NAME and contents, in order of the names
    pub additional_templates: &'a [(String, Vec<u8>)],
    /// `chat_template.json`, of older folders of models that also see
    pub chat_template_json: Option<&'a [u8]>,
}

/// What `tokenizer_config.json` and its neighbours say.
struct Config {
    tokenizer: Value,
    special_tokens_map: Value,
    added_tokens: Value,
    generation: Value,
    model: Value,
    warnings: RefCell<Warnings>,
}

/// A token that is found in the text before anything else looks at it: an entry of `added_tokens` in `tokenizer.json` or of
/// `added_tokens_decoder` in `tokenizer_config.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Added {
    #[serde(default)]
    pub id: u32,
    pub content: String,
    #[serde(default)]
    pub single_word: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    /// Looked for in normalised text.
    #[serde(default)]
    pub normalized: Option<bool>,
    #[serde(default)]
    pub special: bool,
}

#[cfg(feature = "tokenizer-json")]
impl Added {
    /// A special token that other files only name.
    pub(super) fn special(text: &str) -> Self {
        Self {
            id: 0,
            content: text.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: Some(false),
            special: true,
        }
    }
}

/// What the files beside a `tokenizer.json` say about it.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Adjustments {
    /// Tokens with ids, which win over those of the file.
    pub added: Vec<Added>,
    /// The texts of special tokens, in order.
    pub special: Vec<String>,
    /// Whether a byte-level pre-tokenizer puts a space before a text.
    pub add_prefix_space: Option<bool>,
    /// The post-processor is left aside: BOS and EOS are put around a text by flags.
    pub without_frame: bool,
}

/// What a `tokenizer.json` gives to a [`Tokenizer`].
pub(in crate::tokenizer) struct Parts {
    /// Texts by id.
    pub texts: StringArray,
    pub kinds: Vec<Kind>,
    pub spelling: Spelling,
    pub leading: Leading,
    /// The token that the post-processor puts first.
    pub first: Option<u32>,
    pub pipeline: Pipeline,
}

/// [`Parts`] on the way from one module to another, but for the pipeline.
#[cfg(any(target_arch = "wasm32", not(feature = "tokenizer-json")))]
#[derive(Deserialize, Serialize)]
struct Description<'a> {
    #[serde(borrow)]
    texts: Vec<std::borrow::Cow<'a, str>>,
    kinds: Vec<Kind>,
    spelling: Spelling,
    leading: Leading,
    first: Option<u32>,
}

#[cfg(any(target_arch = "wasm32", not(feature = "tokenizer-json")))]
impl Description<'_> {
    #[cfg(feature = "tokenizer-json")]
    fn of(parts: &Parts) -> Description<'_> {
        Description {
            texts: parts.texts.iter().map(Into::into).collect(),
            kinds: parts.kinds.clone(),
            spelling: parts.spelling,
            leading: parts.leading,
            first: parts.first,
        }
    }

    #[cfg(not(feature = "tokenizer-json"))]
    fn parts(self, pipeline: Pipeline) -> Result<Parts> {
        let mut texts = StringArray::with_capacity(self.texts.len());
        if !self.texts.iter().all(|text| texts.push(text)) {
            return Err(Error::internal("a tokenizer's description is too long"));
        }
        Ok(Parts {
            texts,
            kinds: self.kinds,
            spelling: self.spelling,
            leading: self.leading,
            first: self.first,
            pipeline,
        })
    }
}

/// A folder's tokenizer as far as it goes without reading `tokenizer.json`.
enum Begun<'a> {
    Whole(Tokenizer),
    Json {
        bytes: &'a [u8],
        adjustments: Adjustments,
        config: Box<Config>,
        templates: Templates,
    },
}

impl Tokenizer {
    /// The tokenizer of a folder of Hugging Face's files.
    ///
    /// # Errors
    /// `InvalidInput` without `tokenizer.json` and `tokenizer.model`, `InvalidFile` for broken files,
    /// `Unsupported` for pipelines that no LLaMA uses.
    #[cfg(feature = "tokenizer-json")]
    pub fn from_hf(files: HfFiles<'_>) -> Result<Self> {
        match begin(files)? {
            Begun::Whole(tokenizer) => Ok(tokenizer),
            Begun::Json {
                bytes,
                adjustments,
                config,
                templates,
            } => from_parts(json::open(bytes, &adjustments)?, &config, templates),
        }
    }

    /// As [`Tokenizer::from_hf`]; where the `tokenizers` crate is not linked in, this loads the module that has it.
    ///
    /// # Errors
    /// As [`Tokenizer::from_hf`], and those of that module's loading.
    pub async fn open_hf(files: HfFiles<'_>) -> Result<Self> {
        #[cfg(feature = "tokenizer-json")]
        return Self::from_hf(files);
        #[cfg(not(feature = "tokenizer-json"))]
        match begin(files)? {
            Begun::Whole(tokenizer) => Ok(tokenizer),
            Begun::Json {
                bytes,
                adjustments,
                config,
                templates,
            } => from_parts(remote::open(bytes, &adjustments).await?, &config, templates),
        }
    }
}

fn begin(files: HfFiles<'_>) -> Result<Begun<'_>> {
    let mut config = Config {
        tokenizer: json(files.tokenizer_config, "tokenizer_config.json")?,
        special_tokens_map: json(files.special_tokens_map, "special_tokens_map.json")?,
        added_tokens: json(files.added_tokens, "added_tokens.json")?,
        generation: json(files.generation_config, "generation_config.json")?,
        model: json(files.config, "config.json")?,
        warnings: RefCell::default(),
    };
    let templates = chat_templates(&files, &config)?;
    match (files.tokenizer_json, files.tokenizer_model) {
        (Some(bytes), _) => Ok(Begun::Json {
            bytes,
            adjustments: config.adjustments()?,
            config: Box::new(config),
            templates,
        }),
        (None, Some(bytes)) if tiktoken::is_ranks(bytes) => {
            config.name_ends(("<|begin_of_text|>", "<|end_of_text|>"));
            from_ranks(bytes, &config, templates).map(Begun::Whole)
        }
        (None, Some(bytes)) => from_model(bytes, &config, templates).map(Begun::Whole),
        (None, None) => Err(Error::invalid_input(
            "a tokenizer needs tokenizer.json or tokenizer.model; add one of them to the model's files",
        )),
    }
}

fn json(bytes: Option<&[u8]>, name: &str) -> Result<Value> {
    let Some(bytes) = bytes else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&json_text(name, bytes)?).map_err(|error| {
        Error::invalid_file(format!("{name} is not JSON ({error}); download it again"))
    })
}

/// The tokenizer of a `tokenizer.json`.
fn from_parts(parts: Parts, config: &Config, templates: Templates) -> Result<Tokenizer> {
    let vocabulary = Vocabulary::new(parts.texts, parts.kinds)?;
    // A bare tokenizer.json names BOS only by putting it before a text.
    let bos = config.token(&vocabulary, "bos_token").or(parts.first);
    finish(
        config,
        vocabulary,
        Encoder::Pipeline(Box::new(parts.pipeline)),
        (parts.spelling, parts.leading),
        bos,
        config.flags(),
        templates,
    )
}

fn from_model(bytes: &[u8], config: &Config, templates: Templates) -> Result<Tokenizer> {
    let mut model = sentencepiece::read(bytes)?;
    config.add_tokens(&mut model)?;
    let vocabulary = Vocabulary::new(model.texts, model.kinds)?;
    let unknown = vocabulary
        .iter()
        .find(|(_, _, kind)| *kind == Kind::Unknown)
        .map(|(id, _, _)| id);
    let legacy = config.tokenizer["legacy"] != Value::Bool(false);
    let spacing = Spacing {
        add_prefix: model.add_dummy_prefix
            && (legacy || config.tokenizer["add_prefix_space"] != Value::Bool(false)),
        prefix_after_special: legacy,
        remove_extra: model.remove_extra_whitespaces,
    };
    let leading = if spacing.add_prefix {
        Leading::OneSpace
    } else {
        Leading::Keep
    };
    let spm = Spm::new(&vocabulary, &model.scores, unknown, spacing)?;
    let encoder = Encoder::Spm(SpecialTokens::of(&vocabulary), spm);
    let control = |text: &str| {
        vocabulary
            .id(text)
            .filter(|&id| vocabulary.kind(id) == Kind::Control)
    };
    let bos = config
        .token(&vocabulary, "bos_token")
        .or_else(|| control("<s>"));
    let flags = Some(config.flags().unwrap_or((true, false)));
    finish(
        config,
        vocabulary,
        encoder,
        (Spelling::SentencePiece, leading),
        bos,
        flags,
        templates,
    )
}

/// The tokenizer of tiktoken's ranks, LLaMA 3's and 4's.
fn from_ranks(bytes: &[u8], config: &Config, templates: Templates) -> Result<Tokenizer> {
    let mut texts = tiktoken::read(bytes)?;
    let ranks = texts.len();
    let family = tiktoken::Family::of(ranks, config.is_llama31(ranks as u64));
    let mut special = family.special_tokens();
    match config.vocab_size() {
        Some(size) if size < (ranks + special.len()) as u64 => {
            return Err(Error::invalid_file(format!(
                "tokenizer.model has {ranks} ranks and {} special tokens follow them, but vocab_size of config.json is \
                 {size}: they are not of one model; give its tokenizer.json",
                special.len()
            )));
        }
        None if ranks != tiktoken::LLAMA3_RANKS && family != tiktoken::Family::Llama4 => config
            .warnings
            .borrow_mut()
            .add(format!("tokenizer.model has {ranks} ranks, as no LLaMA has; it is read as one of LLaMA 3's kind")),
        _ => {}
    }
    let mut added = Vec::new();
    for token in config.more_tokens()? {
        let Some(at) = (token.id as usize).checked_sub(ranks) else {
            continue;
        };
        if at > special.len() || token.content.is_empty() {
            return Err(Error::invalid_file(format!(
                "added token {} of tokenizer_config.json does not follow the {} tokens of tokenizer.model",
                token.id,
                ranks + special.len()
            )));
        }
        match special.get_mut(at) {
            Some(name) => *name = token.content,
            None => special.push(token.content),
        }
        if !token.special {
            added.push(token.id);
        }
    }
    if !special.iter().all(|name| texts.push(name)) {
        return Err(Error::invalid_file(
            "the tokens of tokenizer.model are too long",
        ));
    }
    let mut kinds = vec![Kind::Normal; ranks];
    kinds.resize(texts.len(), Kind::Control);
    for id in added {
        kinds[id as usize] = Kind::UserDefined;
    }
    let vocabulary = Vocabulary::new(texts, kinds)?;
    let bpe = Bpe::of_ranks(
        &vocabulary,
        ranks,
        PreTokenizer::named(family.pre_tokenizer())?,
    )?;
    let encoder = Encoder::Bpe(SpecialTokens::of(&vocabulary), bpe);
    let bos = config.token(&vocabulary, "bos_token");
    let flag = |key: &str, default| config.tokenizer[key].as_bool().unwrap_or(default);
    let flags = Some((flag("add_bos_token", true), flag("add_eos_token", false)));
    let spelling = (Spelling::ByteLevel, Leading::Keep);
    finish(config, vocabulary, encoder, spelling, bos, flags, templates)
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
    let eos = config
        .token(&vocabulary, "eos_token")
        .or_else(|| end_tokens::likely_eos(&vocabulary));
    let end_ids = match config.ends(&config.generation, "generation_config.json", &vocabulary) {
        // Transformers stops at these and no others.
        Some(mut ids) => {
            ids.extend(eos);
            ids.sort_unstable();
            ids.dedup();
            ids
        }
        None => {
            let ends = config.ends(&config.model, "config.json", &vocabulary);
            end_ids(&vocabulary, ends.into_iter().flatten().chain(eos))
        }
    };
    let chat_template = (!templates.is_empty()).then(|| {
        let mut variables = config.special_variables();
        for (name, id) in [("bos_token", bos), ("eos_token", eos)] {
            if let (None, Some(text)) = (variables.get(name), id.and_then(|id| vocabulary.text(id)))
            {
                variables.insert(name.to_owned(), text.into());
            }
        }
        ChatTemplate::unchecked(templates, variables)
    });
    config.warn_of_special(&vocabulary);
    let (add_bos, add_eos) = flags.unwrap_or((false, false));
    Ok(Tokenizer(Arc::new(Inner {
        encoder,
        spelling,
        leading,
        bos,
        eos,
        add_bos,
        add_eos,
        chat_bos: false,
        end_ids,
        chat_template,
        warnings: config.warnings.take(),
        vocabulary,
    })))
}

/// The text of a token that is given as a text or as an object with `content`.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

impl Config {
    /// The files that name special tokens, the one that counts first: `special_tokens_map.json` where
    /// `tokenizer_config.json` has no `added_tokens_decoder`, as in Transformers.
    fn special_files(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let map = (!self.tokenizer["added_tokens_decoder"].is_object())
            .then_some(("special_tokens_map.json", &self.special_tokens_map));
        map.into_iter()
            .chain([("tokenizer_config.json", &self.tokenizer)])
            .filter(|(_, file)| file.is_object())
    }

    /// Names BOS and EOS where no file does.
    fn name_ends(&mut self, (bos, eos): (&str, &str)) {
        for (key, text) in [("bos_token", bos), ("eos_token", eos)] {
            if content(self.special(key).1).is_none() {
                if !self.tokenizer.is_object() {
                    self.tokenizer = Value::Object(serde_json::Map::new());
                }
                self.tokenizer[key] = text.into();
            }
        }
    }

    /// config.json's text model: models that also see keep it apart.
    fn text_model(&self) -> &Value {
        match &self.model["text_config"] {
            text if text.is_object() => text,
            _ => &self.model,
        }
    }

    /// Rows of the embedding table.
    fn vocab_size(&self) -> Option<u64> {
        self.text_model()["vocab_size"].as_u64()
    }

    /// Whether the model is of LLaMA 3.1 or later, by its rope scaling or its end of a message.
    fn is_llama31(&self, ranks: u64) -> bool {
        let model = self.text_model();
        let scaled = [&model["rope_scaling"], &model["rope_parameters"]]
            .iter()
            .any(|rope| {
                [&rope["rope_type"], &rope["type"]]
                    .iter()
                    .any(|kind| kind.as_str() == Some("llama3"))
            });
        // `<|eom_id|>`
        let end = Value::from(ranks + 8);
        let ends = |file: &Value| {
            file["eos_token_id"]
                .as_array()
                .is_some_and(|ids| ids.contains(&end))
        };
        scaled || ends(&self.generation) || ends(&self.model)
    }

    /// What the files say under the key of a special token, and which file does.
    fn special(&self, key: &str) -> (&'static str, &Value) {
        let found = self
            .special_files()
            .find_map(|(name, file)| file.get(key).map(|value| (name, value)));
        found.unwrap_or(("tokenizer_config.json", &Value::Null))
    }

    /// The tokens with names: the usual ones, every other key that ends in `_token`, and what a mapping
    /// `extra_special_tokens` names. File, name and text.
    fn named_tokens(&self) -> Vec<(&'static str, &str, &str)> {
        let others = self
            .special_files()
            .flat_map(|(_, file)| file.as_object().into_iter().flatten());
        let others = others
            .map(|(key, _)| key.as_str())
            .filter(|key| key.ends_with("_token"));
        let mut keys: Vec<&str> = SPECIAL_TOKENS.to_vec();
        for key in others {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let (file, extra) = self.special(EXTRA_SPECIAL_TOKENS);
        let extra: Vec<_> = extra.as_object().into_iter().flatten().collect();
        keys.retain(|key| !extra.iter().any(|(name, _)| name == key));
        let keyed = keys
            .into_iter()
            .map(|key| (self.special(key), key))
            .map(|((file, value), key)| (file, key, value));
        let all = keyed.chain(
            extra
                .into_iter()
                .map(|(name, value)| (file, name.as_str(), value)),
        );
        all.filter_map(|(file, key, value)| Some((file, key, content(value)?)))
            .collect()
    }

    /// Special tokens in lists, without names.
    fn nameless_tokens(&self) -> impl Iterator<Item = &str> {
        let lists =
            [MORE_SPECIAL_TOKENS, EXTRA_SPECIAL_TOKENS].map(|key| self.special(key).1.as_array());
        lists.into_iter().flatten().flatten().filter_map(content)
    }

    /// The id of `bos_token` or `eos_token`; see [`Config::warn_of_special`] for a text that is no token.
    fn token(&self, vocabulary: &Vocabulary, key: &str) -> Option<u32> {
        vocabulary.id(content(self.special(key).1)?)
    }

    /// Warns of special tokens that are not in the vocabulary. Transformers gives them ids behind its end, for which no
    /// model has weights.
    fn warn_of_special(&self, vocabulary: &Vocabulary) {
        for (file, key, text) in self.named_tokens() {
            if !text.is_empty() && vocabulary.id(text).is_none() {
                let what = format!(
                    "{file}: {key} is {text:?}, which is no token of the vocabulary; it is ignored"
                );
                self.warnings.borrow_mut().add(what);
            }
        }
    }

    /// Special tokens as variables of a chat template (`special_tokens_map` in Transformers).
    fn special_variables(&self) -> serde_json::Map<String, Value> {
        let mut variables = serde_json::Map::new();
        for (_, key, text) in self.named_tokens() {
            variables.insert(key.to_owned(), text.into());
        }
        if let Some(list) = self
            .special(MORE_SPECIAL_TOKENS)
            .1
            .as_array()
            .filter(|list| !list.is_empty())
        {
            variables.insert(
                MORE_SPECIAL_TOKENS.to_owned(),
                list.iter().filter_map(content).collect(),
            );
        }
        variables
    }

    /// The texts of special tokens of any name.
    fn special_texts(&self) -> HashSet<&str> {
        self.named_tokens()
            .into_iter()
            .map(|(_, _, text)| text)
            .chain(self.nameless_tokens())
            .collect()
    }

    /// `add_bos_token` and `add_eos_token` where Transformers heeds them: its LLaMA classes replace the
    /// post-processor of `tokenizer.json` by them.
    fn flags(&self) -> Option<(bool, bool)> {
        let class = self.tokenizer["tokenizer_class"].as_str()?;
        let llama =
            ["LlamaTokenizer", "CodeLlamaTokenizer"].contains(&class.trim_end_matches("Fast"));
        let flag = |key: &str, default| self.tokenizer[key].as_bool().unwrap_or(default);
        llama.then(|| (flag("add_bos_token", true), flag("add_eos_token", false)))
    }

    /// What these files say about a `tokenizer.json`.
    fn adjustments(&self) -> Result<Adjustments> {
        let mut special: Vec<String> = self.special_texts().into_iter().map(Into::into).collect();
        special.sort_unstable();
        let flags = self.flags();
        let space = &self.tokenizer["add_prefix_space"];
        Ok(Adjustments {
            added: self.more_tokens()?,
            special,
            // Transformers replaces that of `tokenizer.json` by this one.
            add_prefix_space: (self.tokenizer.is_object() && flags.is_none())
                .then(|| space.as_bool().unwrap_or(false)),
            without_frame: flags.is_some(),
        })
    }

    /// `eos_token_id` of a file, a number or a list; `None` if there is none that the model could write. What is no id of
    /// the vocabulary, nor of a row of the embedding table beyond it, is a warning.
    fn ends(&self, file: &Value, name: &str, vocabulary: &Vocabulary) -> Option<Vec<u32>> {
        let ids = match &file["eos_token_id"] {
            Value::Null => return None,
            Value::Array(ids) => ids.as_slice(),
            id => std::slice::from_ref(id),
        };
        let rows = [
            &self.model["vocab_size"],
            &self.model["text_config"]["vocab_size"],
        ]
        .map(Value::as_u64);
        let most = rows
            .into_iter()
            .flatten()
            .chain([vocabulary.len() as u64])
            .max()
            .unwrap_or(0);
        let mut known = Vec::new();
        for id in ids {
            match id
                .as_u64()
                .filter(|id| *id < most)
                .and_then(|id| u32::try_from(id).ok())
            {
                Some(id) => known.push(id),
                None => self.warnings.borrow_mut().add(format!(
                    "{name}: eos_token_id is {id}, which is none of the {} tokens; it is ignored",
                    vocabulary.len()
                )),
            }
        }
        (!known.is_empty()).then_some(known)
    }

    /// The tokens of `added_tokens_decoder`, or where that is absent of `added_tokens.json`, by id.
    fn more_tokens(&self) -> Result<Vec<Added>> {
        let broken = |id: &str, file: &str| {
            Error::invalid_file(format!("added token {id} of {file} is malformed"))
        };
        let mut tokens = Vec::new();
        if let Some(entries) = self.tokenizer["added_tokens_decoder"].as_object() {
            for (id, token) in entries {
                let broken = || broken(id, "tokenizer_config.json");
                let number = id.parse().map_err(|_| broken())?;
                let token: Added = serde_json::from_value(token.clone()).map_err(|_| broken())?;
                tokens.push(Added {
                    id: number,
                    ..token
                });
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

    /// Adds the tokens that other files have to the pieces of a `tokenizer.model`.
    fn add_tokens(&self, model: &mut sentencepiece::Model) -> Result<()> {
        for token in self.more_tokens()? {
            let (id, text) = (token.id as usize, &token.content);
            let kind = if token.special {
                Kind::Control
            } else {
                Kind::UserDefined
            };
            if id < model.texts.len() {
                // What a piece is already, it stays: unknown, a byte.
                if model.texts.get(id) == Some(text)
                    && matches!(model.kinds[id], Kind::Normal | Kind::UserDefined)
                {
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

/// Chat templates by name; one without a name is `default`.
type Templates = Vec<(String, String)>;

/// The chat templates, from where Transformers takes them: `chat_template.jinja` and `additional_chat_templates/`, and
/// nothing else where there is one of these; else `chat_template` of `tokenizer_config.json`, there maybe several by name.
/// `chat_template.json`, which Transformers reads for models that also see, comes last.
fn chat_templates(files: &HfFiles<'_>, config: &Config) -> Result<Templates> {
    let text = |bytes: &[u8], name: &str| {
        check_small(name, bytes)?;
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|error| {
            Error::invalid_file(format!("{name} is not UTF-8; save it as UTF-8")).with_source(error)
        })
    };
    let mut templates = Templates::new();
    if let Some(bytes) = files.chat_template {
        templates.push((DEFAULT.to_owned(), text(bytes, "chat_template.jinja")?));
    }
    for (name, bytes) in files.additional_templates {
        // A file of this name is the default's own, and wins.
        templates.retain(|(known, _)| known != name);
        templates.push((
            name.clone(),
            text(bytes, &format!("additional_chat_templates/{name}.jinja"))?,
        ));
    }
    if !templates.is_empty() {
        return Ok(templates);
    }
    templates = named_templates(
        &config.tokenizer["chat_template"],
        "tokenizer_config.json",
        config,
    );
    if let (true, Some(bytes)) = (templates.is_empty(), files.chat_template_json) {
        let file = "chat_template.json";
        match serde_json::from_slice::<Value>(&json_text(file, bytes)?) {
            Ok(json) => templates = named_templates(&json["chat_template"], file, config),
            Err(error) => config
                .warnings
                .borrow_mut()
                .add(format!("{file} is not JSON ({error}); it is ignored")),
        }
    }
    Ok(templates)
}

/// Templates out of JSON: one, a list of `{name, template}`, or a mapping from names.
fn named_templates(value: &Value, file: &str, config: &Config) -> Templates {
    let no_text = |what: &str| {
        config
            .warnings
            .borrow_mut()
            .add(format!("{file}: {what} is no text; it is ignored"));
        None
    };
    let entry = |name: &str, source: &Value| match source.as_str() {
        Some(source) => Some((name.to_owned(), source.to_owned())),
        None => no_text(&format!("chat_template {name:?}")),
    };
    match value {
        Value::Null => Templates::new(),
        Value::Array(list) => list
            .iter()
            .filter_map(|item| match item["name"].as_str() {
                Some(name) => entry(name, &item["template"]),
                None => no_text("the name of a chat_template"),
            })
            .collect(),
        Value::Object(named) => named
            .iter()
            .filter_map(|(name, source)| entry(name, source))
            .collect(),
        source => match source.as_str() {
            Some(source) => vec![(DEFAULT.to_owned(), source.to_owned())],
            None => no_text("chat_template").into_iter().collect(),
        },
    }
}
