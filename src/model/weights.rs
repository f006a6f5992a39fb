//! Weights from a checkpoint to an executor, in file order, one bounded piece at a time.

use super::llama::ModelPlan;
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::plan::{Executor, TensorId};

/// Bytes read at once. With the copy that the device upload makes, it bounds what weights take of the wasm heap.
pub const PIECE_BYTES: u64 = 4 << 20;

/// Bytes of weights loaded so far.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Loaded.
    pub loaded: u64,
    /// Of these.
    pub total: u64,
}

/// Streams every tensor of the plan into the executor. `progress` is called after each piece and may stop the
/// load by returning an error.
pub async fn load_weights(
    model: &ModelPlan,
    checkpoint: &Checkpoint,
    executor: &mut dyn Executor,
    mut progress: impl FnMut(LoadProgress) -> Result<()>,
) -> Result<()> {
    // Each stored tensor, with the plan's tensor and the row of it that it starts at.
    let mut order = Vec::new();
    for (i, (sources, spec)) in model.sources.iter().zip(&model.plan.tensors).enumerate() {
        let mut first_row = 0;
        for info in sources {
            order.push((info, i, first_row));
            first_row += info.rows();
        }
        if first_row != spec.rows || spec.row_bytes() == 0 {
            return Err(Error::internal(format!("{}: {first_row} rows stored of {}", spec.name, spec.rows)));
        }
    }
    order.sort_by_key(|(info, ..)| (info.file, info.offset));
    let total = order.iter().map(|(info, ..)| info.bytes).sum();
    let mut loaded = 0;
    progress(LoadProgress { loaded, total })?;
    for (info, i, first_row) in order {
        let (rows_stored, row_bytes) = (info.rows(), model.plan.tensors[i].row_bytes());
        let rows_per_piece = (PIECE_BYTES / row_bytes).max(1);
        let mut row = 0;
        while row < rows_stored {
            let rows = rows_per_piece.min(rows_stored - row);
            let len = usize::try_from(rows * row_bytes)
                .map_err(|_| Error::internal(format!("{}: a row of {row_bytes} bytes", info.name)))?;
            let bytes = checkpoint.read(info, row * row_bytes, len).await?;
            executor.load_rows(TensorId(i), first_row + row, &bytes).map_err(|e| e.at(&info.name))?;
            drop(bytes);
            executor.flush_loads().await?;
            row += rows;
            loaded += rows * row_bytes;
            progress(LoadProgress { loaded, total })?;
        }
    }
    Ok(())
}
