//! A tokenizer from Hugging Face's files: `tokenizer.json` (through the `tokenizers` crate) or the older
//! `tokenizer.model` (SentencePiece), with what `tokenizer_config.json` and `generation_config.json` add.

use std::sync::Arc;

use serde_json::Value;
use tokenizers::tokenizer::{AddedVocabulary, Model as _, OffsetType, PreTokenizer as _};

use super::chat_template::ChatTemplate;
use super::end_tokens::{self, end_ids};
use super::pre_tokenizers::check_white_space;
use super::special::SpecialTokens;
use super::spm::{Spacing, Spm, byte_of};
use super::stream::{Leading, Spelling};
use super::vocabulary::{Kind, Vocabulary};
use super::{Encoder, Inner, Tokenizer, sentencepiece};
use crate::error::{Error, Result};
use crate::format::StringArray;

/// Largest id that a `tokenizer.json` may use; ids index a table. The largest vocabularies have 262,144.
const MAX_ID: u32 = 1 << 22;

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
    /// `generation_config.json`
    pub generation_config: Option<&'a [u8]>,
    /// `chat_template.jinja` or `chat_template.json`
    pub chat_template: Option<&'a [u8]>,
}

/// A `tokenizer.json`'s pipeline.
pub(super) struct Pipeline {
    tokenizer: tokenizers::Tokenizer,
    /// Its added tokens when the text of special ones is to be taken literally.
    literal: AddedVocabulary,
    /// Its post-processor says where BOS and EOS go.
    post_process: bool,
}

impl Pipeline {
    /// Appends the ids of `text`.
    pub(super) fn encode(&self, text: &str, parse_special: bool, add_special: bool, ids: &mut Vec<u32>) -> Result<()> {
        check_white_space(text)?;
        let failed = |error| Error::invalid_input("tokenizer.json cannot encode this text").with_source(error);
        let added = if parse_special { self.tokenizer.get_added_vocabulary() } else { &self.literal };
        let mut words = added.extract_and_normalize(self.tokenizer.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut words).map_err(failed)?;
        }
        words.tokenize(|word| self.tokenizer.get_model().tokenize(word.get())).map_err(failed)?;
        let mut encoding = words.into_encoding(None, 0, OffsetType::None).map_err(failed)?;
        if self.post_process && add_special {
            encoding = self.tokenizer.post_process(encoding, None, true).map_err(failed)?;
        }
        ids.extend(encoding.get_ids());
        Ok(())
    }
}

/// What `tokenizer_config.json` and its neighbours say.
struct Config {
    tokenizer: Value,
    generation: Value,
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
            generation: json(files.generation_config, "generation_config.json")?,
        };
        let template = chat_template(&files, &config)?;
        match (files.tokenizer_json, files.tokenizer_model) {
            (Some(bytes), _) => from_json(bytes, &config, template),
            (None, Some(bytes)) => from_model(bytes, &config, template),
            (None, None) => Err(Error::invalid_input(
                "a tokenizer needs tokenizer.json or tokenizer.model; add one of them to the model's files",
            )),
        }
    }
}

fn json(bytes: Option<&[u8]>, name: &str) -> Result<Value> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    serde_json::from_slice(bytes).map_err(|error| Error::invalid_file(format!("{name} is not JSON")).with_source(error))
}

fn from_json(bytes: &[u8], config: &Config, template: Option<Templates>) -> Result<Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
        .map_err(|error| Error::invalid_file("tokenizer.json cannot be read").with_source(error))?;
    // Both are for batches of training text; here they would cut a prompt, or pad it.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| Error::internal("truncation can be switched off").with_source(error))?;
    let (spelling, leading) = spelling(&tokenizer)?;
    let vocabulary = vocabulary(&tokenizer, spelling)?;
    let mut literal = tokenizer.get_added_vocabulary().clone();
    literal.set_encode_special_tokens(true);
    let flags = config.flags();
    let pipeline = Pipeline { tokenizer, literal, post_process: flags.is_none() };
    // A bare tokenizer.json names BOS only by putting it before a text.
    let mut framed = Vec::new();
    pipeline.encode("", true, true, &mut framed)?;
    let bos = config.token(&vocabulary, "bos_token")?.or(framed.first().copied());
    finish(config, vocabulary, Encoder::Pipeline(Box::new(pipeline)), (spelling, leading), bos, flags, template)
}

fn from_model(bytes: &[u8], config: &Config, template: Option<Templates>) -> Result<Tokenizer> {
    let mut model = sentencepiece::read(bytes)?;
    config.add_tokens(&mut model)?;
    let vocabulary = Vocabulary::new(model.texts, model.kinds)?;
    let unknown = vocabulary.iter().find(|(_, _, kind)| *kind == Kind::Unknown).map(|(id, _, _)| id);
    let spacing = Spacing {
        add_prefix: model.add_dummy_prefix,
        prefix_after_special: config.tokenizer["legacy"] != Value::Bool(false),
        remove_extra: model.remove_extra_whitespaces,
    };
    let leading = if spacing.add_prefix { Leading::OneSpace } else { Leading::Keep };
    let spm = Spm::new(&vocabulary, &model.scores, unknown, spacing)?;
    let encoder = Encoder::Spm(SpecialTokens::of(&vocabulary), spm);
    let control = |text: &str| vocabulary.id(text).filter(|&id| vocabulary.kind(id) == Kind::Control);
    let bos = config.token(&vocabulary, "bos_token")?.or_else(|| control("<s>"));
    let flags = Some(config.flags().unwrap_or((true, false)));
    finish(config, vocabulary, encoder, (Spelling::SentencePiece, leading), bos, flags, template)
}

/// What both kinds have in common. `flags`: whether BOS and EOS are added, unless the post-processor decides.
fn finish(
    config: &Config,
    vocabulary: Vocabulary,
    encoder: Encoder,
    (spelling, leading): (Spelling, Leading),
    bos: Option<u32>,
    flags: Option<(bool, bool)>,
    template: Option<Templates>,
) -> Result<Tokenizer> {
    let eos = config.token(&vocabulary, "eos_token")?.or_else(|| end_tokens::likely_eos(&vocabulary));
    let end_ids = match config.generation_ends(&vocabulary)? {
        // Transformers stops at these and no others.
        Some(mut ids) => {
            ids.extend(eos);
            ids.sort_unstable();
            ids.dedup();
            ids
        }
        None => end_ids(&vocabulary, eos),
    };
    let text = |id: Option<u32>| id.and_then(|id| vocabulary.text(id)).unwrap_or_default();
    let chat_template =
        template.map(|(source, tool_use)| ChatTemplate::unchecked(&source, tool_use.as_deref(), text(bos), text(eos)));
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

impl Config {
    /// The id of `bos_token` or `eos_token`, given as a text or as an object with `content`.
    fn token(&self, vocabulary: &Vocabulary, key: &str) -> Result<Option<u32>> {
        let token = &self.tokenizer[key];
        let Some(text) = token.as_str().or_else(|| token["content"].as_str()) else { return Ok(None) };
        let id = vocabulary.id(text).ok_or_else(|| {
            Error::invalid_file(format!("{key} of tokenizer_config.json, {text:?}, is not in the vocabulary"))
        })?;
        Ok(Some(id))
    }

    /// `add_bos_token` and `add_eos_token` where Transformers heeds them: its LLaMA classes replace the
    /// post-processor of `tokenizer.json` by them.
    fn flags(&self) -> Option<(bool, bool)> {
        let class = self.tokenizer["tokenizer_class"].as_str()?;
        let llama = ["LlamaTokenizer", "CodeLlamaTokenizer"].contains(&class.trim_end_matches("Fast"));
        let flag = |key: &str, default| self.tokenizer[key].as_bool().unwrap_or(default);
        llama.then(|| (flag("add_bos_token", true), flag("add_eos_token", false)))
    }

    /// `eos_token_id` of `generation_config.json`, a number or a list.
    fn generation_ends(&self, vocabulary: &Vocabulary) -> Result<Option<Vec<u32>>> {
        let ids = match &self.generation["eos_token_id"] {
            Value::Null => return Ok(None),
            Value::Array(ids) => ids.as_slice(),
            id => std::slice::from_ref(id),
        };
        let key = "eos_token_id of generation_config.json";
        let number = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let checked = ids.iter().map(|id| match number(id) {
            Some(id) => vocabulary.checked(id, key),
            None => Err(Error::invalid_file(format!("{key} is {id}, which is no token id"))),
        });
        checked.collect::<Result<_>>().map(Some)
    }

    /// Appends the `added_tokens_decoder` entries beyond the pieces of a `tokenizer.model`.
    fn add_tokens(&self, model: &mut sentencepiece::Model) -> Result<()> {
        let Some(added) = self.tokenizer["added_tokens_decoder"].as_object() else { return Ok(()) };
        let mut added: Vec<(usize, &Value)> =
            added.iter().filter_map(|(id, token)| Some((id.parse().ok()?, token))).collect();
        added.sort_by_key(|(id, _)| *id);
        for (id, token) in added {
            if id < model.texts.len() {
                continue;
            }
            let text = token["content"].as_str().unwrap_or_default();
            if id > model.texts.len() || text.is_empty() || !model.texts.push(text) {
                return Err(Error::invalid_file(format!(
                    "added token {id} of tokenizer_config.json does not follow the {} pieces of tokenizer.model",
                    model.texts.len()
                )));
            }
            let special = token["special"].as_bool().unwrap_or(false);
            model.kinds.push(if special { Kind::Control } else { Kind::UserDefined });
            model.scores.push(0.0);
        }
        Ok(())
    }
}

/// How a `tokenizer.json` spells bytes, from its decoder.
fn spelling(tokenizer: &tokenizers::Tokenizer) -> Result<(Spelling, Leading)> {
    let unsupported = |what: &str| {
        Error::unsupported(format!(
            "the decoder of tokenizer.json is {what}; supported: ByteLevel, Metaspace, and the sequence that LLaMA uses"
        ))
    };
    let decoder = tokenizer.get_decoder().ok_or_else(|| unsupported("missing"))?;
    let decoder = serde_json::to_value(decoder)
        .map_err(|error| Error::internal("a decoder can be written as JSON").with_source(error))?;
    let steps = match &decoder["decoders"] {
        Value::Array(steps) => steps.as_slice(),
        _ => std::slice::from_ref(&decoder),
    };
    let (mut spelling, mut leading) = (None, Leading::Keep);
    for step in steps {
        match step["type"].as_str().unwrap_or_default() {
            "ByteLevel" => spelling = Some(Spelling::ByteLevel),
            "Replace" if step["content"] == " " => spelling = Some(Spelling::SentencePiece),
            "Metaspace" => {
                spelling = Some(Spelling::SentencePiece);
                if step["prepend_scheme"] != "never" {
                    leading = Leading::MarksOfFirstToken;
                }
            }
            "Strip" if step["content"] == " " && step["start"] == 1 && step["stop"] == 0 => leading = Leading::OneSpace,
            "ByteFallback" | "Fuse" => {}
            other => return Err(unsupported(other)),
        }
    }
    Ok((spelling.ok_or_else(|| unsupported("neither byte-level nor SentencePiece"))?, leading))
}

/// Texts and kinds by id. Ids without a token become unused tokens without text.
fn vocabulary(tokenizer: &tokenizers::Tokenizer, spelling: Spelling) -> Result<Vocabulary> {
    let added = tokenizer.get_added_tokens_decoder();
    let tokens = tokenizer.get_vocab_size(true);
    let mut texts = StringArray::with_capacity(tokens);
    let mut kinds = Vec::with_capacity(tokens);
    let (mut id, mut found) = (0, 0);
    while found < tokens {
        if id >= MAX_ID {
            return Err(Error::invalid_file(format!("a token of tokenizer.json has an id over {MAX_ID}")));
        }
        let text = tokenizer.id_to_token(id);
        found += usize::from(text.is_some());
        let kind = match (added.get(&id), &text) {
            (Some(token), _) if token.special => Kind::Control,
            (Some(_), _) => Kind::UserDefined,
            (None, Some(text)) if spelling == Spelling::SentencePiece && byte_of(text).is_some() => Kind::Byte,
            (None, Some(_)) => Kind::Normal,
            (None, None) => Kind::Unused,
        };
        if !texts.push(text.as_deref().unwrap_or_default()) {
            return Err(Error::invalid_file("the tokens of tokenizer.json are too long"));
        }
        kinds.push(kind);
        id += 1;
    }
    Vocabulary::new(texts, kinds)
}

/// A template's source, and that of the one for tools.
type Templates = (String, Option<String>);

/// The chat template: its own file, or in `tokenizer_config.json`, there maybe one of several by name.
fn chat_template(files: &HfFiles<'_>, config: &Config) -> Result<Option<Templates>> {
    if let Some(bytes) = files.chat_template {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::invalid_file("the chat template is not UTF-8").with_source(error))?;
        let inside = serde_json::from_str::<Value>(text).ok();
        let inside = inside.as_ref().and_then(|json| json["chat_template"].as_str());
        return Ok(Some((inside.unwrap_or(text).to_owned(), None)));
    }
    Ok(match &config.tokenizer["chat_template"] {
        Value::String(source) => Some((source.clone(), None)),
        Value::Array(named) => {
            let find = |name: &str| named.iter().find(|entry| entry["name"] == name)?["template"].as_str();
            find("default").map(|source| (source.to_owned(), find("tool_use").map(str::to_owned)))
        }
        _ => None,
    })
}
