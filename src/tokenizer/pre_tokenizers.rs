//! How text is cut into words before byte-level BPE: the patterns behind the names in a GGUF's
//! `tokenizer.ggml.pre`.
//!
//! Patterns are those of each model's own `tokenizer.json` (for the Mistral Nemo and GPT-4o families that is
//! stricter than llama.cpp, which approximates letter case by ASCII). Several patterns are applied one after
//! the other, each to the pieces the one before left, matches and the gaps between them alike.

use std::sync::OnceLock;

use super::pattern::Pattern;
use crate::error::{Error, Result};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";
const UP_TO_THREE_DIGITS: &str = r"\p{N}{1,3}";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+",
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+",
);
/// QWEN2 without the English contractions.
const UFAKZEKA: &str =
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// LLAMA3 whose digits come in runs, which an earlier pattern has cut by threes.
const MINICPM5: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+",
);
/// LLAMA3 whose white space comes in powers of two.
const JAIS2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)",
    r"|\s{1,2}(?!\S)|\s{1}",
);
const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+",
);
const BAILING: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]",
    r"|\s+(?!\S)|\s+",
);
/// Korean words stay together over spaces.
const EXAONE_MOE: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
);
const YOUTU_ASIAN: &str = concat!(
    r"[\u{ac00}-\u{d7a3}\u{3131}-\u{318e}]+",
    r"|[\u{ff01}\u{2026}\u{201c}\u{201d}\u{2018}\u{2019}\u{2014}\u{ff1a}\u{ff1b}\u{ff0c}\u{3001}-\u{303f}\u{fe30}-\u{fe4f}]+",
    r"|[\u{3105}-\u{312f}]+|[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
);
/// GPT4O with single digits.
const YOUTU: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const FALCON_PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|`]+";
const DEFAULT_PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";
const THREE_ASCII_DIGITS: &str = "[0-9][0-9][0-9]";
const NEWLINE: &str = r"[\r\n]";
/// Han, Kana, Hangul and their neighbours, as DeepSeek's first tokenizers write it.
const DEEPSEEK_CJK: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}",
    r"\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}",
    r"\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}",
    r"\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}",
    r"\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}",
    r"\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}",
    r"\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}",
    r"\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}",
    r"\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}",
    r"\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}",
    r"\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}",
    r"\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}",
    r"\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+",
);
const DEEPSEEK_PUNCTUATION: &str =
    r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";
const DEEPSEEK3_CJK: &str = r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r##"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
);
/// DEEPSEEK3 with line ends apart from punctuation.
const SPARK25: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r##"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"##,
);
const CHAMELEON_IMAGE: &str = r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z";
const CHAMELEON_PUNCTUATION: &str = r"[\p{P}!-/:-@\[-`{-~]";
const BLOOM: &str = r" ?[^(\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+";

/// Names, patterns, and what else the name implies.
struct Recipe {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// A word that is a token is taken whole, before any merge.
    ignore_merges: bool,
    /// BOS is added where the metadata does not say.
    add_bos: bool,
}

const RECIPES: &[Recipe] = &[
    Recipe {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    Recipe {
        names: &["smaug-bpe", "dbrx", "chatglm-bpe"],
        patterns: &[LLAMA3],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["glm4", "glm5"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: false,
    },
    Recipe {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        patterns: &[DIGIT, GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "mellum",
            "exaone4",
            "modern-bert",
            "a.x-4.0",
        ],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["default"],
        patterns: &[DEFAULT_PUNCTUATION, GPT2, r"\p{N}+", THREE_ASCII_DIGITS],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["falcon"],
        patterns: &[FALCON_PUNCTUATION, GPT2, THREE_ASCII_DIGITS],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "megrez",
            "hunyuan",
            "solar-open",
            "grok-2",
            "kormo",
            "f2llmv2",
        ],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["tekken"],
        patterns: &[TEKKEN],
        ignore_merges: true,
        add_bos: true,
    },
    Recipe {
        names: &["gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"],
        patterns: &[GPT4O],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["deepseek-llm"],
        patterns: &[
            NEWLINE,
            DEEPSEEK_LETTERS,
            DEEPSEEK_PUNCTUATION,
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["deepseek-coder"],
        patterns: &[NEWLINE, r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        patterns: &[UP_TO_THREE_DIGITS, DEEPSEEK3_CJK, DEEPSEEK3],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["chameleon"],
        patterns: &[
            "<sentinel:[0-9]+>",
            CHAMELEON_IMAGE,
            r"([\t\n]|    |  )",
            DIGIT,
            CHAMELEON_PUNCTUATION,
            GPT2,
        ],
        ignore_merges: false,
        add_bos: true,
    },
    Recipe {
        names: &["poro-chat", "bloom", "gpt3-finnish"],
        patterns: &[BLOOM],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["qwen35"],
        patterns: &[QWEN35],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["ufakzeka"],
        patterns: &[UFAKZEKA],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["laguna"],
        patterns: &[r"[^\n]+|[\n]+", QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["minicpm5"],
        patterns: &[UP_TO_THREE_DIGITS, MINICPM5],
        ignore_merges: true,
        add_bos: false,
    },
    Recipe {
        names: &["jais-2"],
        patterns: &[JAIS2],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["seed-coder"],
        patterns: &[SEED_CODER],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        patterns: &[BAILING],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["exaone-moe"],
        patterns: &[EXAONE_MOE],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["youtu"],
        patterns: &[YOUTU_ASIAN, YOUTU],
        ignore_merges: true,
        add_bos: false,
    },
    Recipe {
        names: &["superbpe"],
        patterns: &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["spark2_5"],
        patterns: &[UP_TO_THREE_DIGITS, DEEPSEEK3_CJK, SPARK25, DIGIT],
        ignore_merges: false,
        add_bos: false,
    },
    Recipe {
        names: &["viking"],
        patterns: &[BLOOM, DIGIT],
        ignore_merges: false,
        add_bos: false,
    },
];

/// The patterns of each recipe, compiled when first asked for.
static COMPILED: [OnceLock<Vec<Pattern>>; RECIPES.len()] =
    [const { OnceLock::new() }; RECIPES.len()];

/// A compiled pre-tokenizer.
pub(super) struct PreTokenizer {
    patterns: &'static [Pattern],
    /// A word that is a token is taken whole, before any merge.
    pub ignore_merges: bool,
    /// BOS is added where the metadata does not say.
    pub add_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer that a GGUF calls `name`.
    ///
    /// # Errors
    /// `Unsupported` if there is none of that name.
    pub(super) fn named(name: &str) -> Result<Self> {
        let at = RECIPES
            .iter()
            .position(|recipe| recipe.names.contains(&name))
            .ok_or_else(|| {
                let known: Vec<&str> = RECIPES
                    .iter()
                    .flat_map(|recipe| recipe.names)
                    .copied()
                    .collect();
                Error::unsupported(format!(
                    "unknown pre-tokenizer {name:?} (tokenizer.ggml.pre); supported: {}",
                    known.join(", ")
                ))
            })?;
        let (recipe, compiled) = (&RECIPES[at], &COMPILED[at]);
        let patterns = match compiled.get() {
            Some(patterns) => patterns,
            None => {
                let patterns = recipe
                    .patterns
                    .iter()
                    .map(|text| Pattern::new(text))
                    .collect::<Result<_, _>>();
                let patterns = patterns.map_err(|error| {
                    Error::internal(format!(
                        "a pattern of pre-tokenizer {name:?} does not compile: {error}"
                    ))
                })?;
                compiled.get_or_init(|| patterns)
            }
        };
        Ok(Self {
            patterns,
            ignore_merges: recipe.ignore_merges,
            add_bos: recipe.add_bos,
        })
    }

    /// The words of `text` as byte ranges, in order, without gaps.
    pub(super) fn split(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        let mut pieces: Vec<std::ops::Range<usize>> = std::iter::once(0..text.len()).collect();
        for pattern in self.patterns {
            let mut cut = Vec::with_capacity(pieces.len());
            for piece in pieces {
                let mut at = piece.start;
                for (start, end) in pattern.find_iter(&text[piece.clone()]) {
                    let (start, end) = (piece.start + start, piece.start + end);
                    cut.extend(
                        [at..start, start..end]
                            .into_iter()
                            .filter(|range| !range.is_empty()),
                    );
                    at = end;
                }
                if at < piece.end {
                    cut.push(at..piece.end);
                }
            }
            pieces = cut;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::{PreTokenizer, RECIPES};
    use crate::tokenizer::pattern::Pattern;
    use proptest::prelude::*;
    use std::sync::OnceLock;
    use tokenizers::utils::SysRegex;

    /// Every pattern, once, by our own matcher and by the regular expressions of `tokenizers`.
    fn patterns() -> &'static [(&'static str, Pattern, SysRegex)] {
        static PATTERNS: OnceLock<Vec<(&str, Pattern, SysRegex)>> = OnceLock::new();
        PATTERNS.get_or_init(|| {
            let mut texts: Vec<&str> = RECIPES.iter().flat_map(|r| r.patterns).copied().collect();
            texts.sort_unstable();
            texts.dedup();
            texts
                .into_iter()
                .map(|text| {
                    let own = Pattern::new(text).expect(text);
                    (text, own, SysRegex::new(text).expect(text))
                })
                .collect()
        })
    }

    fn compare(text: &str) -> Result<(), TestCaseError> {
        for (pattern, own, regex) in patterns() {
            let found: Vec<_> = own.find_iter(text).collect();
            let expected: Vec<_> = regex.find_iter(text).collect();
            let different = (0..found.len().max(expected.len()))
                .find(|&at| found.get(at) != expected.get(at))
                .map(|at| (pattern, found.get(at), expected.get(at)));
            prop_assert_eq!(different, None);
        }
        Ok(())
    }

    #[test]
    fn every_pattern_compiles_and_loses_no_text() {
        let text = "I'm 12345 years-old.\r\n\n  \tÉtude naïve, 世界 ½ ✓ ﬀ IMGIMGAZ    don'T\u{301} <sentinel:1> \u{a0} ";
        for name in RECIPES.iter().flat_map(|recipe| recipe.names) {
            let words = PreTokenizer::named(name).expect("known").split(text);
            let joined: String = words.into_iter().map(|word| &text[word]).collect();
            assert_eq!(joined, text, "{name}");
        }
        compare(text).expect("as the regular expressions");
    }

    #[test]
    fn every_character_is_of_the_class_that_the_regular_expressions_give_it() {
        let all: String = (0..=u32::from(char::MAX))
            .filter_map(char::from_u32)
            .collect();
        for class in [
            r"\p{L}", r"\p{Lu}", r"\p{Ll}", r"\p{Lt}", r"\p{Lm}", r"\p{Lo}", r"\p{M}", r"\p{N}",
            r"\p{P}", r"\p{S}", r"\s", r"\S", r"\d",
        ] {
            let pattern = format!("{class}+");
            let own = Pattern::new(&pattern).expect(class);
            let regex = SysRegex::new(&pattern).expect(class);
            let found: Vec<_> = own.find_iter(&all).collect();
            let expected: Vec<_> = regex.find_iter(&all).collect();
            assert!(found == expected, "{class}");
        }
    }

    /// What the patterns tell apart, far more often than chance would have it.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[ \t\r\n]{1,4}",
            3 => "[a-zA-Z]{1,4}",
            2 => "[0-9]{1,8}",
            2 => "['!.,/$+<=>^~|`_(-]{1,3}",
            2 => "'(?i:s|t|re|ve|m|ll|d|ſ)",
            1 => "\\p{L}\\p{M}?",
            1 => "(\\p{Lu}|\\p{Lt}|\\p{Lm}|\\p{Ll}|\\p{Lo}){1,3}",
            1 => "\\p{N}{1,3}",
            1 => "(\\p{M}|\\p{P}|\\p{S}|\\p{Z}|\\p{C}){1,2}",
            1 => "[\u{4e00}-\u{9fa5}\u{3040}-\u{30ff}\u{ac00}-\u{d7a3}\u{ff01}-\u{ff5e}]{1,3}",
            1 => "[\u{a0}\u{85}\u{2028}\u{3000}\u{200b}]",
            1 => "(IMGIMG)?[A-I]{1,5}Z|<sentinel:[0-9]{0,2}>",
            1 => any::<char>().prop_map(String::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn words_are_those_of_the_regular_expressions(
            pieces in prop::collection::vec(piece(), 0..40)
        ) {
            compare(&pieces.concat())?;
        }
    }

    #[test]
    fn runs_of_white_space_as_long_as_powers_of_two() {
        for length in (0..=10).flat_map(|power| [1 << power, (1 << power) + 1]) {
            for end in ["", "a", "\n", "\na"] {
                compare(&format!("a{}{end}", " ".repeat(length))).expect("as regex");
            }
        }
    }

    #[test]
    fn an_unknown_name_is_named_beside_the_known_ones() {
        let error = PreTokenizer::named("klingon")
            .err()
            .expect("unknown")
            .to_string();
        assert!(
            error.contains("klingon") && error.contains("smollm"),
            "{error}"
        );
    }

    #[test]
    fn a_million_spaces_are_one_word() {
        let text = " ".repeat(1 << 20);
        let words = PreTokenizer::named("llama-bpe")
            .expect("known")
            .split(&text);
        assert_eq!(words, std::iter::once(0..text.len()).collect::<Vec<_>>());
    }
}
