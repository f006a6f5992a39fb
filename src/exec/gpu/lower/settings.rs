//! What is decided before a plan is lowered: which kernels, how keys and values are stored, and the buckets of matrix
//! products.

use super::super::kernels::{Kv, Variant};
pub use crate::exec::CacheType;
use crate::exec::Limits;
use crate::plan::TensorId;

/// The choice of shader files.
pub(super) fn kv(cache: CacheType) -> Kv {
    match cache {
        CacheType::F32 => Kv::F32,
        CacheType::F16 => Kv::F16,
        CacheType::Q8_0 => Kv::Q8_0,
    }
}

/// Which kernels to use where there is a choice. All give the same values but for rounding.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Reduce by subgroup shuffles.
    pub subgroups: bool,
    /// Integer dot products: activations are rounded to 8 bits, block by block, as llama.cpp does.
    pub int8: bool,
    /// f16 tiles in matmul.
    pub f16: bool,
    /// matvec kernels for 2, 4 and 8 rows at a time, and matmul with two sizes of tile.
    pub columns: bool,
    /// Divide long sequences among workgroups in attention.
    pub splits: bool,
    /// Lanes that share a row in matvec: 4, 8, 16, 32 or 64, but no more than the row has blocks. `None`: by the size of
    /// the matrix.
    pub lanes: Option<u32>,
}

impl Tuning {
    /// Every fast variant off: the kernels that run anywhere, and that others are checked against.
    pub const PLAIN: Self = Self {
        subgroups: false,
        int8: false,
        f16: false,
        columns: false,
        splits: false,
        lanes: None,
    };

    /// What [`Tuning::lanes`] may be.
    pub const LANES: [u32; 5] = [4, 8, 16, 32, 64];

    /// The buckets of matrix products, for ever more rows.
    pub fn buckets(self) -> &'static [RowBucket] {
        if self.columns {
            &[
                RowBucket::Few(1),
                RowBucket::Few(2),
                RowBucket::Few(4),
                RowBucket::Few(8),
                RowBucket::Many(4),
                RowBucket::Many(8),
            ]
        } else {
            &[RowBucket::Few(1), RowBucket::Many(4)]
        }
    }

    /// The bucket for this many rows of x.
    pub fn bucket(self, rows: u32) -> RowBucket {
        let buckets = self.buckets();
        buckets
            .iter()
            .copied()
            .find(|s| rows <= s.rows())
            .unwrap_or(buckets[buckets.len() - 1])
    }
}

/// What lowering may assume about the device, and what was decided for this executor.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Kernels.
    pub tuning: Tuning,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Largest buffer that can be bound.
    pub max_binding: u64,
    /// Capacities.
    pub limits: Limits,
    /// Variants that the self-test found wrong: their plain twins are used.
    pub wrong: Vec<Variant>,
    /// Only what one trial of the self-test needs.
    pub trial: Option<Trial>,
}

/// Makes an executor for the self-test: the kernels of one bucket, with the override constants that a model's have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// Instead of all.
    pub bucket: Option<RowBucket>,
    /// Lanes of a variant, where they are not what the matrix's size would ask for.
    pub lanes: Vec<(Variant, u32)>,
    /// Attention split whatever the length.
    pub split: bool,
    /// A norm weight, where no operation has one.
    pub norm: Option<TensorId>,
}

impl Settings {
    /// With nothing known to be wrong.
    pub fn new(tuning: Tuning, cache: CacheType, max_binding: u64, limits: Limits) -> Self {
        Self {
            tuning,
            cache,
            max_binding,
            limits,
            wrong: Vec::new(),
            trial: None,
        }
    }

    /// The buckets of matrix products, for ever more rows.
    pub fn buckets(&self) -> Vec<RowBucket> {
        match self.trial.as_ref().and_then(|trial| trial.bucket) {
            Some(bucket) => vec![bucket],
            None => self.tuning.buckets().to_vec(),
        }
    }

    /// The bucket for this many rows of x.
    pub fn bucket(&self, rows: u32) -> RowBucket {
        self.trial
            .as_ref()
            .and_then(|trial| trial.bucket)
            .unwrap_or_else(|| self.tuning.bucket(rows))
    }
}

/// Kernels for few rows of x per pass over the weights, or for tiles of rows.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowBucket {
    /// matvec, this many rows of x at a time: 1, 2, 4 or 8.
    Few(u32),
    /// matmul, this many rows of x per invocation, 8 times as many in a tile: 4 or 8.
    Many(u32),
}

impl RowBucket {
    /// Rows of x that one workgroup covers.
    pub fn rows(self) -> u32 {
        match self {
            Self::Few(cols) => cols,
            Self::Many(each) => 8 * each,
        }
    }
}
