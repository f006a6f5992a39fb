//! Finding special tokens in text, before the text between them is encoded.

use std::ops::Range;

use super::vocabulary::{Kind, Vocabulary};

/// A stretch of text, or a token that was spelled out in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    Text(Range<usize>),
    Token(u32),
}

/// For each first byte, the lengths that special tokens beginning with it have, longest first.
pub(super) struct SpecialTokens {
    lengths: Box<[Vec<u32>; 256]>,
}

impl SpecialTokens {
    /// The control, unknown and user-defined tokens of a vocabulary.
    pub(super) fn of(vocabulary: &Vocabulary) -> Self {
        let mut lengths = Box::new([const { Vec::new() }; 256]);
        for (_, text, kind) in vocabulary.iter() {
            if let (Some(&first), Kind::Control | Kind::Unknown | Kind::UserDefined) =
                (text.as_bytes().first(), kind)
            {
                lengths[first as usize].push(text.len() as u32);
            }
        }
        for lengths in lengths.iter_mut() {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        Self { lengths }
    }

    /// Cuts `text` at special tokens, leftmost first and of those at one place the longest. User-defined tokens
    /// are always found; control and unknown tokens only if `parse_special`.
    pub(super) fn split(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        parse_special: bool,
    ) -> Vec<Fragment> {
        let mut fragments = Vec::new();
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            let found = self.lengths[text.as_bytes()[at] as usize]
                .iter()
                .find_map(|&len| {
                    let id = vocabulary.id(text.get(at..at + len as usize)?)?;
                    let wanted = match vocabulary.kind(id) {
                        Kind::UserDefined => true,
                        Kind::Control | Kind::Unknown => parse_special,
                        Kind::Normal | Kind::Unused | Kind::Byte => false,
                    };
                    wanted.then_some((id, len as usize))
                });
            let Some((id, len)) = found else {
                at += 1;
                continue;
            };
            if done < at {
                fragments.push(Fragment::Text(done..at));
            }
            fragments.push(Fragment::Token(id));
            at += len;
            done = at;
        }
        if done < text.len() {
            fragments.push(Fragment::Text(done..text.len()));
        }
        fragments
    }
}
