//! The one error type. Every fallible function in the crate returns it; nothing a file, an option or a
//! network reply contains may panic instead.
//!
//! An [`Error`] has a kind to match on, a detail to read (which says what to do next), and optionally the
//! error that caused it. In JavaScript it becomes a `LlameroError` whose `code` is [`ErrorKind::code`].

use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident = $code:literal,)*) => {
        /// What went wrong, to match on.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[doc = $doc])* $kind,)*
        }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The stable string for JavaScript (`LlameroError.code`) and for JSON.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$kind => $code,)*
                }
            }

            /// What the documentation says of it, for the generated TypeScript.
            #[cfg(test)]
            pub(crate) fn doc(self) -> String {
                match self {
                    $(Self::$kind => [$($doc),*].concat().trim().to_owned(),)*
                }
            }
        }
    };
}

kinds! {
    /// The bytes are not a model, or a broken one.
    InvalidFile = "invalid_file",
    /// A well-formed file or request that this build does not run (architecture, tensor type, device feature).
    Unsupported = "unsupported",
    /// Not of the engine but of JavaScript: the engine cannot run in this place (no workers, no WebAssembly, a policy that
    /// forbids them). The message says what would work.
    UnsupportedEnvironment = "unsupported_environment",
    /// An option or argument that cannot be used.
    InvalidInput = "invalid_input",
    /// Prompt plus output do not fit the context.
    ContextOverflow = "context_overflow",
    /// A model or a cache that does not fit the memory or the device's limits.
    ModelTooLarge = "model_too_large",
    /// Reading or writing a local file failed.
    Io = "io",
    /// A network request failed.
    Network = "network",
    /// WebGPU (or a usable adapter) is absent.
    WebGpuUnavailable = "webgpu_unavailable",
    /// The GPU device was lost or reported an error.
    DeviceLost = "device_lost",
    /// A chat template is broken, or raised an exception of its own.
    Template = "template",
    /// The caller cancelled.
    Aborted = "aborted",
    /// A bug in Llamero: an internal invariant was violated. Please report it.
    Internal = "internal",
}

impl ErrorKind {
    /// The kind of a [`ErrorKind::code`] string; used for errors that come back from JavaScript.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }
}

/// Kind, detail and cause. One pointer wide.
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    detail: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `detail` is one or two sentences and says what to do next.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Repr {
            kind,
            detail: detail.into(),
            source: None,
        }))
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says where it happened: `"{place}: {detail}"`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.detail = format!("{place}: {}", self.0.detail);
        self
    }

    /// Says what to do about it: `"{detail}; {advice}"`.
    #[must_use]
    pub fn advise(mut self, advice: &str) -> Self {
        self.0.detail = format!("{}; {advice}", self.0.detail);
        self
    }

    /// The kind to match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The text to read, without the cause.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    pub(crate) fn invalid_file(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidFile, detail)
    }

    pub(crate) fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, detail)
    }

    pub(crate) fn invalid_input(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, detail)
    }

    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)?;
        match &self.0.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn std::error::Error + 'static))
    }
}

/// Faults of a model's files that cost no answer: what was wrong was left out, and the rest is as it would be.
///
/// Plain sentences, each of which names the file and the key or tensor; for people, not for programs. In JavaScript they
/// are `info.warnings`; the command line prints them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    texts: Vec<String>,
    /// Beyond [`MAX_WARNINGS`].
    more: usize,
}

/// Warnings that are kept; a broken file may have one for each of a million tokens.
const MAX_WARNINGS: usize = 64;

impl Warnings {
    /// Adds a sentence, unless it is there.
    pub fn add(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.texts.contains(&text) {
            return;
        }
        match self.texts.len() < MAX_WARNINGS {
            true => self.texts.push(text),
            false => self.more += 1,
        }
    }

    /// Adds what `others` holds.
    pub fn append(&mut self, others: Self) {
        self.more += others.more;
        others.texts.into_iter().for_each(|text| self.add(text));
    }

    /// Says of each where it happened: `"{place}: {text}"`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.texts
            .iter_mut()
            .for_each(|text| *text = format!("{place}: {text}"));
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The sentences; where there were more than are kept, the last one says how many.
    pub fn to_vec(&self) -> Vec<String> {
        let mut texts = self.texts.clone();
        if self.more > 0 {
            texts.push(format!("there are {} more warnings", self.more));
        }
        texts
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, "reading or writing a file failed").with_source(error)
    }
}
