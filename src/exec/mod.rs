//! The contract between the engine and whoever runs a plan, and the three that do.

mod cache_type;
#[cfg(feature = "cpu")]
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "no_gpu.rs"]
pub mod gpu;
pub mod host;
pub mod reference;

use crate::error::{Error, Result};
use crate::plan::{History, Logprobs, Role, Row, Sampling, Tap, TensorId, TokenMask, Trace};
pub use cache_type::CacheType;
pub use futures_core::future::LocalBoxFuture;

/// Positions per cache page: small enough that a forked sequence recomputes little, large enough that page tables
/// stay short.
pub const PAGE_SIZE: u32 = 32;

/// Sequence slots; decoding more than these at once would not fit a step.
const MAX_SEQS: u32 = 16;

/// Whether a head's token is drawn, and who runs it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Draw {
    /// No token is drawn.
    #[default]
    No,
    /// A token is drawn; the caller runs it, in a step of rows.
    Id,
    /// A token is drawn, and [`Step::Next`] runs it.
    Next,
}

/// Log-probabilities of a head: the logarithm of softmax over its logits, before sampling changes them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WantLogprobs {
    /// How many of the most likely tokens.
    pub top: u32,
    /// One token more; `None`: the one that is drawn, if one is.
    pub of: Option<u32>,
}

/// What a step is to return for one of its heads.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// A token.
    pub draw: Draw,
    /// Log-probabilities.
    pub logprobs: Option<WantLogprobs>,
    /// Logits `[V]`, before sampling changes them.
    pub logits: bool,
    /// The final norm's output `[E]`.
    pub hidden: bool,
}

impl Want {
    /// Nothing.
    pub const NOTHING: Self = Self {
        draw: Draw::No,
        logprobs: None,
        logits: false,
        hidden: false,
    };
    /// A drawn token, which [`Step::Next`] runs.
    pub const ID: Self = Self {
        draw: Draw::Next,
        ..Self::NOTHING
    };
    /// Logits.
    pub const LOGITS: Self = Self {
        logits: true,
        ..Self::NOTHING
    };
    /// The final norm's output.
    pub const HIDDEN: Self = Self {
        hidden: true,
        ..Self::NOTHING
    };

    /// Whether logits are read back, as they are or for log-probabilities.
    pub fn reads_logits(&self) -> bool {
        self.logits || self.logprobs.is_some()
    }

    /// Where such a head stands among a step's heads: those that [`Step::Next`] runs come first, then others that draw a
    /// token, then others whose logits are read, then the rest.
    pub fn rank(&self) -> u32 {
        match self.draw {
            Draw::Next => 0,
            Draw::Id => 1,
            Draw::No if self.reads_logits() => 2,
            Draw::No => 3,
        }
    }
}

/// A row of a step of which something is wanted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Index into the step's rows.
    pub row: u32,
    /// What is wanted.
    pub want: Want,
}

impl Head {
    /// Heads at these rows that all want the same.
    pub fn all(rows: &[u32], want: Want) -> Vec<Self> {
        rows.iter().map(|row| Self { row: *row, want }).collect()
    }
}

/// How many of a step's heads are of which kind: they lie in this order.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadCounts {
    /// Heads whose tokens [`Step::Next`] runs.
    pub next: u32,
    /// Heads that draw a token, these included.
    pub drawn: u32,
    /// Heads that need logits, these included.
    pub logits: u32,
}

impl HeadCounts {
    /// Of these heads.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for heads out of the order of [`Want::rank`].
    pub fn of(heads: &[Head]) -> Result<Self> {
        if !heads.is_sorted_by_key(|head| head.want.rank()) {
            return Err(Error::internal("a step's heads are out of order"));
        }
        let up_to = |rank| heads.partition_point(|head| head.want.rank() <= rank) as u32;
        Ok(Self {
            next: up_to(0),
            drawn: up_to(1),
            logits: up_to(2),
        })
    }
}

/// One pass over the plan.
#[derive(Copy, Clone, Debug)]
pub enum Step<'a> {
    /// Run these rows.
    Rows {
        /// At most [`Limits::max_rows`].
        rows: &'a [Row],
        /// Rows of which something is wanted, in the order of [`Want::rank`]; at most [`Limits::max_heads`].
        heads: &'a [Head],
        /// Values to read back and to change. Such a step is slower: operations are taken apart where that is needed. Taps of
        /// the logits are of the heads; those of the final norm need a head that needs logits.
        trace: Option<&'a Trace>,
    },
    /// Run the tokens that the last step with [`Draw::Next`] drew for such heads, each at its sequence's next position, and
    /// want the same of them again. The tokens need not have been read back: several of these may be in flight, and
    /// steps without such heads may lie between.
    Next,
}

/// What a step returned for one of its heads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadOutput {
    /// The drawn token.
    pub id: Option<u32>,
    /// Log-probabilities.
    pub logprobs: Option<Logprobs>,
    /// `[V]`, or empty.
    pub logits: Vec<f32>,
    /// `[E]`, or empty.
    pub hidden: Vec<f32>,
}

/// What a step returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// One per head, in their order.
    pub heads: Vec<HeadOutput>,
    /// One per tap, in their order.
    pub taps: Vec<Tap>,
}

impl Output {
    /// The drawn tokens, in the order of the heads.
    pub fn ids(&self) -> Vec<u32> {
        self.heads.iter().filter_map(|head| head.id).collect()
    }

    /// Logits of all heads that have them, `[heads, V]`.
    pub fn logits(&self) -> Vec<f32> {
        let logits = self.heads.iter().map(|head| &head.logits[..]);
        logits.collect::<Vec<_>>().concat()
    }
}

/// A submitted step; resolves when its output is readable. Independent of the executor's borrow.
pub type Pending = LocalBoxFuture<'static, Result<Output>>;

/// Capacities fixed when the executor was made.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows per step.
    pub max_rows: u32,
    /// Heads per step.
    pub max_heads: u32,
    /// Sequence slots.
    pub max_seqs: u32,
    /// Positions per cache page.
    pub page_size: u32,
    /// Pages in the cache, shared by all sequences.
    pub num_pages: u32,
    /// Pages that one sequence may hold.
    pub max_pages_per_seq: u32,
    /// Steps that may usefully be in flight: 1 where a step is computed when it is submitted.
    pub run_ahead: u32,
}

impl Limits {
    /// Positions that one sequence may hold.
    pub fn max_context(&self) -> u32 {
        self.max_pages_per_seq * self.page_size
    }

    /// Limits for contexts of `context` positions. The cache holds one sequence of full length, and as many
    /// shorter ones as fit.
    pub fn for_context(context: u32, max_rows: u32, run_ahead: u32) -> Self {
        let pages = context.div_ceil(PAGE_SIZE);
        Self {
            max_rows,
            max_heads: max_rows.min(64),
            max_seqs: MAX_SEQS,
            page_size: PAGE_SIZE,
            num_pages: pages,
            max_pages_per_seq: pages,
            run_ahead,
        }
    }
}

/// What runs the plan, for people.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ExecutorInfo {
    /// `webgpu`, `cpu` or `reference`.
    #[cfg_attr(test, ts(type = "'webgpu' | 'cpu' | 'reference'"))]
    pub kind: String,
    /// What the platform tells of the adapter, empty where it hides it; on the CPU, how many threads.
    pub name: String,
    /// Vendor as the platform names it; empty where it is not known.
    pub vendor: String,
    /// GPU architecture as the platform names it; empty where it is not known.
    pub architecture: String,
    /// Whether WebGPU itself runs on the CPU (`SwiftShader`, lavapipe): right, and slow.
    pub software: bool,
    /// On a GPU the kernels in use where there is a choice: `subgroups`, `int8` (integer dot products on activations of 8
    /// bits), `shader-f16`, `columns` (several rows at a time), `splits` (long sequences divided in attention); on the CPU
    /// `simd128`, `relaxed-simd`, `threads`.
    pub features: Vec<String>,
    /// Bytes held for weights.
    pub weight_bytes: u64,
    /// Bytes held for the key/value cache.
    pub cache_bytes: u64,
    /// How cached keys and values are stored.
    pub cache_type: String,
    /// Lanes that share a row of a matrix, where `kernels` or `tune` chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lanes: Option<u32>,
    /// What measuring kernels at load (`tune`) found, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuned: Option<Tuned>,
    /// What checking the kernels at load found, where that is done.
    #[serde(skip)]
    pub self_test: Option<SelfTest>,
}

/// What steps cost so far, where the executor counts it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// Steps.
    pub steps: u64,
    /// Kernel launches.
    pub dispatches: u64,
    /// Seconds of the calling thread spent on encoding and submitting steps.
    pub encode_seconds: f64,
    /// By kernel: how often, and seconds in all. Only while profiling.
    pub kernels: Vec<(String, u64, f64)>,
}

/// What the tuning run at load found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Tuned {
    /// Choices of kernels that were measured.
    pub tried: u32,
    /// Milliseconds of a decode step with the kernels that the table names for such a device.
    pub before_ms: f64,
    /// Milliseconds with those that were chosen.
    pub after_ms: f64,
}

/// What the self-test at load found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct SelfTest {
    /// Kernels that were run on small inputs and compared with the reference.
    pub kernels: u32,
    /// Those that gave wrong values, and were replaced.
    pub replaced: Vec<String>,
}

/// Runs a [`crate::plan::Plan`]. Weights are loaded once by rows; the cache is paged, its pages assigned by the engine.
pub trait Executor {
    /// What this is.
    fn info(&self) -> ExecutorInfo;

    /// Capacities.
    fn limits(&self) -> Limits;

    /// What steps cost so far.
    fn costs(&self) -> Costs {
        Costs::default()
    }

    /// Bytes of keys and values that a position has, over all caches, as they are stored.
    fn cache_bytes_per_position(&self) -> f64 {
        let Limits {
            num_pages,
            page_size,
            ..
        } = self.limits();
        self.info().cache_bytes as f64 / (f64::from(num_pages) * f64::from(page_size))
    }

    /// Stores whole rows of a tensor, in the type that the plan states: `bytes` holds
    /// `bytes.len() / row_bytes` rows from `first_row` on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for rows that the tensor does not have.
    fn load_rows(&mut self, tensor: TensorId, first_row: u64, bytes: &[u8]) -> Result<()>;

    /// Resolves when everything loaded so far has left the caller's memory (back-pressure while loading).
    fn flush_loads(&mut self) -> LocalBoxFuture<'static, Result<()>>;

    /// Resolves when all is ready for the first step: after the weights are loaded, before any step.
    fn ready(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Assigns cache pages to a sequence: position `p` lives in `pages[p / page_size]`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a sequence beyond the limits.
    fn set_pages(&mut self, seq: u32, pages: &[u32]) -> Result<()>;

    /// How tokens of a sequence are chosen from now on. With penalties, `history` is what the sequence holds now; what
    /// steps draw for it is counted as it is drawn (one head of such a sequence per step), so that this is called again
    /// only where drawn tokens are given up.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a history with tokens beyond the vocabulary.
    fn set_sampling(&mut self, seq: u32, sampling: &Sampling, history: History<'_>) -> Result<()>;

    /// The tokens that may be drawn for a sequence from now on, in the place of [`Sampling::mask`]. Its sampling was set with
    /// a mask before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a sequence without a mask, and for a mask of another
    /// vocabulary.
    fn set_mask(&mut self, seq: u32, mask: &TokenMask) -> Result<()>;

    /// Starts a step. The engine guarantees rows within limits and pages assigned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DeviceLost`](crate::error::ErrorKind::DeviceLost) where the device failed before,
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for a trace that the plan or the device has no room for, and
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for rows beyond the limits. What the device meets later is an error of the [`Pending`].
    fn submit(&mut self, step: Step<'_>) -> Result<Pending>;
}

/// Reads and writes the values between operations. Slow: it waits for the device.
pub trait Inspect: Executor {
    /// Sets the first value of a role before a step. For [`Role::Residual`], `norm` is the norm weight of the operation
    /// that reads it next (an executor may keep the scaled stream beside the stream).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a role that the plan does not have.
    fn poke(&mut self, role: Role, values: &[f32], norm: Option<TensorId>) -> Result<()>;

    /// The last value of a role, as the last step left it; `rows` as in that step (heads for logits).
    fn peek(&mut self, role: Role, rows: usize) -> LocalBoxFuture<'static, Result<Vec<f32>>>;

    /// Cached keys (`which == 0`) or values (`which == 1`) of one page, `[KV, page_size, D]`.
    fn peek_cache(
        &mut self,
        cache: usize,
        page: u32,
        which: u32,
    ) -> LocalBoxFuture<'static, Result<Vec<f32>>>;
}
