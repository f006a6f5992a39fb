//! Which tokens end a turn, where the file does not list them all.

use super::vocabulary::{Kind, Vocabulary};

/// Texts under which model families end a text, a turn or a message (llama.cpp keeps the same kind of list:
/// many files name only one of the ends that their model uses).
const END_TEXTS: &[&str] = &[
    "</s>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|eot|>",
    "<|eom|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<|end_of_sentence|>",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
    "<|call|>",
    "<end_of_utterance>",
    "<|EOT|>",
    "<EOT>",
    "<eos>",
];

/// `named` and every control or user-defined token with a well-known text, ascending, each once.
pub(super) fn end_ids(vocabulary: &Vocabulary, named: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let known = END_TEXTS.iter().filter_map(|text| vocabulary.id(text));
    let known = known.filter(|&id| matches!(vocabulary.kind(id), Kind::Control | Kind::UserDefined));
    let mut ids: Vec<u32> = known.chain(named).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The end of text of a vocabulary whose files do not name it.
pub(super) fn likely_eos(vocabulary: &Vocabulary) -> Option<u32> {
    let mut known = END_TEXTS.iter().filter_map(|text| vocabulary.id(text));
    known.find(|&id| matches!(vocabulary.kind(id), Kind::Control | Kind::UserDefined))
}
