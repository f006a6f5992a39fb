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
    let mut order: Vec<usize> = (0..model.sources.len()).collect();
    order.sort_by_key(|i| (model.sources[*i].file, model.sources[*i].offset));
    let total = model.sources.iter().map(|t| t.bytes).sum();
    let mut loaded = 0;
    progress(LoadProgress { loaded, total })?;
    for i in order {
        let (info, spec) = (&model.sources[i], &model.plan.tensors[i]);
        let row_bytes = spec.row_bytes();
        if row_bytes == 0 || row_bytes * spec.rows != info.bytes {
            return Err(Error::internal(format!("{}: {} rows of {row_bytes} bytes", info.name, spec.rows)));
        }
        let rows_per_piece = (PIECE_BYTES / row_bytes).max(1);
        let mut row = 0;
        while row < spec.rows {
            let rows = rows_per_piece.min(spec.rows - row);
            let len = usize::try_from(rows * row_bytes)
                .map_err(|_| Error::internal(format!("{}: a row of {row_bytes} bytes", info.name)))?;
            let bytes = checkpoint.read(info, row * row_bytes, len).await?;
            executor.load_rows(TensorId(i), row, &bytes).map_err(|e| e.at(&info.name))?;
            drop(bytes);
            executor.flush_loads().await?;
            row += rows;
            loaded += rows * row_bytes;
            progress(LoadProgress { loaded, total })?;
        }
    }
    Ok(())
}
