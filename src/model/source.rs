//! Where the rows of a plan's tensor lie in a checkpoint, and reading them in the plan's order and type.
//!
//! A plan wants matrices by output rows, with the values that rope rotates together side by side, as GGUF has them.
//! Hugging Face's files have them otherwise; rows are put in order as they stream by, a bounded piece at a time.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, TensorInfo};
use crate::plan::TensorSpec;

/// Bytes read at once. With the copy that the device upload makes, it bounds what weights take of the wasm heap.
pub const PIECE_BYTES: u64 = 4 << 20;

/// How stored rows become the plan's.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// As they are.
    Rows,
    /// The first half of each head's rows pairs with the second half, where the plan wants pairs side by side.
    RotaryHalves {
        /// `D`
        head_dim: u64,
        /// Rotated values per head; the others stay where they are.
        rotary: u64,
    },
    /// As `RotaryHalves`, of a vector's values.
    RotaryHalfValues {
        /// `D`
        head_dim: u64,
        /// As of `RotaryHalves`.
        rotary: u64,
    },
    /// The plan's rows are columns `first..first + rows` of matrix `matrix` of a stored `[matrices, in, out]`.
    Columns {
        /// Which of the stacked matrices.
        matrix: u64,
        /// First column.
        first: u64,
    },
}

/// Stored rows that follow each other in a tensor of the plan.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file's entry.
    pub info: TensorInfo,
    /// Rows of the plan's tensor that come from here.
    pub rows: u64,
    /// In which order.
    pub arrangement: Arrangement,
}

impl Source {
    /// All rows of a stored tensor, as they are.
    pub fn whole(info: TensorInfo) -> Self {
        Self {
            rows: info.rows(),
            info,
            arrangement: Arrangement::Rows,
        }
    }

    /// Where reading begins, for an order that goes through files once.
    pub(super) fn position(&self) -> (usize, u64, u64) {
        match self.arrangement {
            Arrangement::Columns { matrix, first } => {
                (self.info.file, self.info.offset, matrix << 32 | first)
            }
            _ => (self.info.file, self.info.offset, 0),
        }
    }

    /// Bytes of the file that belong to it.
    pub(super) fn bytes(&self) -> u64 {
        match self.arrangement {
            Arrangement::Columns { .. } => self.rows * self.column_bytes(),
            _ => self.info.bytes,
        }
    }

    /// Rows to read at once.
    pub(super) fn rows_per_piece(&self) -> u64 {
        match self.arrangement {
            Arrangement::Rows | Arrangement::RotaryHalfValues { .. } => {
                (PIECE_BYTES / self.info.row_bytes().max(1)).max(1)
            }
            Arrangement::RotaryHalves { head_dim, .. } => {
                (PIECE_BYTES / (self.info.row_bytes() * head_dim).max(1)).max(1) * head_dim
            }
            Arrangement::Columns { .. } => (PIECE_BYTES / self.column_bytes().max(1)).max(1),
        }
    }

    /// `in` of a stored `[matrices, in, out]`.
    fn stored_in(&self) -> u64 {
        self.info.shape.iter().rev().nth(1).copied().unwrap_or(1)
    }

    /// Bytes of a stored value, where they are plain floats.
    fn value_bytes(&self) -> u64 {
        self.info.dtype.block_bytes() as u64
    }

    fn column_bytes(&self) -> u64 {
        self.stored_in() * self.value_bytes()
    }

    /// The stored bytes of rows `first..first + rows`, in the plan's order.
    async fn stored(&self, checkpoint: &Checkpoint, first: u64, rows: u64) -> Result<Vec<u8>> {
        let size = |bytes: u64| {
            usize::try_from(bytes)
                .map_err(|_| Error::internal(format!("{}: {bytes} bytes at once", self.info.name)))
        };
        let row = self.info.row_bytes();
        match self.arrangement {
            Arrangement::Rows => {
                checkpoint
                    .read(&self.info, first * row, size(rows * row)?)
                    .await
            }
            Arrangement::RotaryHalves { head_dim, rotary } => {
                let stored = checkpoint
                    .read(&self.info, first * row, size(rows * row)?)
                    .await?;
                Ok(pair_halves(
                    &stored,
                    size(row)?,
                    size(head_dim)?,
                    size(rotary)?,
                ))
            }
            Arrangement::RotaryHalfValues { head_dim, rotary } => {
                let stored = checkpoint
                    .read(&self.info, first * row, size(rows * row)?)
                    .await?;
                Ok(pair_halves(
                    &stored,
                    size(self.value_bytes())?,
                    size(head_dim)?,
                    size(rotary)?,
                ))
            }
            Arrangement::Columns {
                matrix,
                first: column,
            } => {
                let (inputs, value) = (self.stored_in(), self.value_bytes());
                let mut out = vec![0; size(rows * inputs * value)?];
                // Whole stored rows, as many as a piece holds, of which a part is used.
                let batch = (PIECE_BYTES / row.max(1)).max(1);
                let from = size((column + first) * value)?;
                let (row_size, value, out_row) = (size(row)?, size(value)?, size(inputs * value)?);
                for at in (0..inputs).step_by(size(batch)?) {
                    let count = batch.min(inputs - at);
                    let stored = checkpoint
                        .read(&self.info, (matrix * inputs + at) * row, size(count * row)?)
                        .await?;
                    for (i, line) in stored.chunks_exact(row_size).enumerate() {
                        let place = (size(at)? + i) * value;
                        for (r, bytes) in line[from..]
                            .chunks_exact(value)
                            .take(size(rows)?)
                            .enumerate()
                        {
                            out[r * out_row + place..][..value].copy_from_slice(bytes);
                        }
                    }
                }
                Ok(out)
            }
        }
    }

    /// Rows `first..first + rows` as the plan's tensor has them.
    pub(super) async fn read(
        &self,
        checkpoint: &Checkpoint,
        spec: &TensorSpec,
        first: u64,
        rows: u64,
    ) -> Result<Vec<u8>> {
        let stored = self.stored(checkpoint, first, rows).await?;
        if spec.dtype == self.info.dtype {
            return Ok(stored);
        }
        let cols =
            usize::try_from(spec.cols).map_err(|_| Error::internal("a row longer than memory"))?;
        let mut values = vec![0.0; cols];
        let mut out = Vec::new();
        for row in
            stored.chunks_exact(cols * self.info.dtype.block_bytes() / self.info.dtype.block_len())
        {
            self.info.dtype.dequantize(row, &mut values)?;
            spec.dtype.quantize(&values, &mut out)?;
        }
        Ok(out)
    }
}

/// Items of `size` bytes, `per_head` to a head: of its first `rotary`, item `j` of their first half, then item `j` of their
/// second; the rest as it is.
fn pair_halves(stored: &[u8], size: usize, per_head: usize, rotary: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored.len());
    for head in stored.chunks_exact(size * per_head) {
        let (rotated, rest) = head.split_at(size * rotary);
        let (low, high) = rotated.split_at(rotated.len() / 2);
        for (a, b) in low.chunks_exact(size).zip(high.chunks_exact(size)) {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
        out.extend_from_slice(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::pair_halves;

    #[test]
    fn halves_of_each_head_are_put_in_pairs() {
        let rows: Vec<u8> = (0..8).flat_map(|r| [r, 100 + r]).collect();
        let paired = pair_halves(&rows, 2, 4, 4);
        assert_eq!(
            paired.iter().step_by(2).copied().collect::<Vec<u8>>(),
            [0, 2, 1, 3, 4, 6, 5, 7]
        );
        assert_eq!(
            paired
                .iter()
                .skip(1)
                .step_by(2)
                .copied()
                .collect::<Vec<u8>>(),
            [100, 102, 101, 103, 104, 106, 105, 107]
        );
        // Four of six are rotated.
        let rows: Vec<u8> = (0..12).collect();
        assert_eq!(
            pair_halves(&rows, 1, 6, 4),
            [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]
        );
    }
}
