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
    "<|calls|>",
    "<|flush|>",
    "<end_of_utterance>",
    "<|EOT|>",
    "<EOT>",
    "_<EOT>",
    "▁<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "[e~[",
    // Code models: what comes after the end of a file.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Makes every token with a well-known text a control token, whatever the file calls it: some conversions leave them
/// ordinary, and a user's text could then end a turn (llama.cpp does the same).
pub(super) fn mark_ends(vocabulary: &mut Vocabulary) {
    for text in END_TEXTS {
        if let Some(id) = vocabulary.id(text) {
            vocabulary.make_control(id);
        }
    }
}

/// `named` and every control or user-defined token with a well-known text, ascending, each once.
pub(super) fn end_ids(vocabulary: &Vocabulary, named: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let known = END_TEXTS.iter().filter_map(|text| vocabulary.id(text));
    let known =
        known.filter(|&id| matches!(vocabulary.kind(id), Kind::Control | Kind::UserDefined));
    let mut ids: Vec<u32> = known.chain(named).collect();
    ids.sort_unstable();
    ids.dedup();
    // Where calls and returns have ends of their own, `<|end|>` only ends a part of the answer.
    if ["<|return|>", "<|call|>"]
        .iter()
        .all(|text| vocabulary.id(text).is_some_and(|id| ids.contains(&id)))
    {
        ids.retain(|&id| vocabulary.text(id) != Some("<|end|>"));
    }
    ids
}

/// The end of text of a vocabulary whose files do not name it.
pub(super) fn likely_eos(vocabulary: &Vocabulary) -> Option<u32> {
    let mut known = END_TEXTS.iter().filter_map(|text| vocabulary.id(text));
    known.find(|&id| matches!(vocabulary.kind(id), Kind::Control | Kind::UserDefined))
}
