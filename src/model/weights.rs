//! Weights from a checkpoint to an executor, in file order, one bounded piece at a time.

use super::llama::ModelPlan;
use crate::error::{Error, Result};
use crate::exec::Executor;
use crate::format::Checkpoint;
use crate::plan::TensorId;

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
///
/// # Errors
///
/// Those of the source's reads and of the executor, and that of `progress`.
pub async fn load_weights(
    model: &ModelPlan,
    checkpoint: &Checkpoint,
    executor: &mut dyn Executor,
    mut progress: impl FnMut(LoadProgress) -> Result<()>,
) -> Result<()> {
    // Each source, with the plan's tensor and the row of it that it starts at.
    let mut order = Vec::new();
    for (i, (sources, spec)) in model.sources.iter().zip(&model.plan.tensors).enumerate() {
        let mut first_row = 0;
        for source in sources {
            order.push((source, i, first_row));
            first_row += source.rows;
        }
        if first_row != spec.rows || spec.row_bytes() == 0 {
            return Err(Error::internal(format!(
                "{}: {first_row} rows stored of {}",
                spec.name, spec.rows
            )));
        }
    }
    order.sort_by_key(|(source, ..)| source.position());
    let total = order.iter().map(|(source, ..)| source.bytes()).sum();
    let mut loaded = 0;
    progress(LoadProgress { loaded, total })?;
    for (source, i, first_row) in order {
        let spec = &model.plan.tensors[i];
        let per_piece = source.rows_per_piece();
        let mut row = 0;
        while row < source.rows {
            let rows = per_piece.min(source.rows - row);
            let bytes = source.read(checkpoint, spec, row, rows).await?;
            executor
                .load_rows(TensorId(i), first_row + row, &bytes)
                .map_err(|e| e.at(&source.info.name))?;
            drop(bytes);
            executor.flush_loads().await?;
            row += rows;
            loaded += source.bytes() / source.rows * rows;
            progress(LoadProgress { loaded, total })?;
        }
    }
    Ok(())
}
