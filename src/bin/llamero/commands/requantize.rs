//! Writes a model's weights in another type: to measure the speed of types on one model. A conversion tool searches for
//! better scales; this rounds what the file has, once more.

use crate::gguf_writer::{Entry, GgufWriter};
use crate::output::{invalid, print};
use llamero::error::{Error, ErrorKind, Result};
use llamero::format::{Checkpoint, FileFormat, TensorInfo};
use llamero::quant::DType;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    out: PathBuf,
    /// Weight type of the matrices, ggml's name.
    #[arg(long)]
    r#type: String,
}

/// Weights per block of the K types.
const K: usize = 256;
/// Weights of a `Q4_K` block that share a scale and a minimum.
const GROUP: usize = 32;
/// Bytes read at once.
const PIECE_BYTES: u64 = 4 << 20;

/// Rewrites every matrix in `type_name`. Rows that are no whole number of its blocks get the type that llama.cpp falls
/// back to; the embedding table and the head get `Q8_0`, unless plain floats are asked for.
pub(crate) async fn run(args: Args) -> Result<()> {
    let (out, type_name) = (&args.out, &args.r#type);
    let dtype = DType::from_name(type_name).ok_or_else(|| {
        invalid(&format!(
            "{type_name} is no weight type; try Q4_0, Q8_0 or Q4_K"
        ))
    })?;
    let checkpoint = Checkpoint::open_path(&args.model).await?;
    if checkpoint.format() != FileFormat::Gguf {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "only a GGUF can be requantised so far",
        ));
    }
    let mut metadata = llamero::format::Metadata::default();
    for (key, value) in checkpoint.metadata().iter() {
        // True of the other file only.
        if !key.starts_with("split.") && !["general.file_type", "general.alignment"].contains(&key)
        {
            metadata.insert(key, value.clone());
        }
    }
    let entries: Vec<Entry> = checkpoint
        .tensors()
        .iter()
        .map(|t| Entry {
            name: t.name.clone(),
            dtype: target(t, dtype),
            shape: t.shape.clone(),
        })
        .collect();
    let mut writer = GgufWriter::create(out, &metadata, &entries)?;
    let mut types: BTreeMap<&str, u64> = BTreeMap::new();
    for (from, to) in checkpoint.tensors().iter().zip(&entries) {
        *types.entry(to.dtype.name()).or_default() += from.elements();
        rewrite(&checkpoint, from, to.dtype, &mut writer).await?;
        writer.end_tensor()?;
    }
    print(&json!({ "out": out, "bytes": writer.finish()?, "weights_by_type": types }))
}

fn target(tensor: &TensorInfo, asked: DType) -> DType {
    if tensor.shape.len() < 2 {
        return tensor.dtype;
    }
    let floats = matches!(asked, DType::F32 | DType::F16 | DType::BF16);
    if !floats && ["token_embd.weight", "output.weight"].contains(&tensor.name.as_str()) {
        return DType::Q8_0;
    }
    match asked {
        _ if asked.row_bytes(tensor.cols()).is_some() => asked,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        _ => DType::Q8_0,
    }
}

async fn rewrite(
    checkpoint: &Checkpoint,
    from: &TensorInfo,
    to: DType,
    writer: &mut GgufWriter,
) -> Result<()> {
    let row_bytes = from.row_bytes();
    let rows_at_once = (PIECE_BYTES / row_bytes.max(1)).max(1);
    let (mut values, mut blocks) = (Vec::new(), Vec::new());
    for first in (0..from.rows()).step_by(rows_at_once as usize) {
        let rows = rows_at_once.min(from.rows() - first);
        let bytes = checkpoint
            .read(from, first * row_bytes, (rows * row_bytes) as usize)
            .await?;
        if to == from.dtype {
            writer.put(&bytes)?;
            continue;
        }
        values.resize((rows * from.cols()) as usize, 0.0);
        from.dtype.dequantize(&bytes, &mut values)?;
        blocks.clear();
        match to {
            DType::Q4_K => values
                .as_chunks::<K>()
                .0
                .iter()
                .for_each(|block| q4_k(block, &mut blocks)),
            _ => to.quantize(&values, &mut blocks)?,
        }
        writer.put(&blocks)?;
    }
    Ok(())
}

/// `Q4_K` without a search: each group of 32 from its smallest value (at most 0) to its largest.
fn q4_k(block: &[f32; K], out: &mut Vec<u8>) {
    let groups: [(f32, f32); K / GROUP] = std::array::from_fn(|g| {
        let group = &block[GROUP * g..GROUP * (g + 1)];
        let min = group.iter().copied().fold(0.0, f32::min);
        let max = group.iter().copied().fold(0.0, f32::max);
        ((max - min) / 15.0, -min)
    });
    let largest = |of: fn(&(f32, f32)) -> f32| groups.iter().map(of).fold(0.0, f32::max);
    let (d, d_min) = (
        half::f16::from_f32(largest(|g| g.0) / 63.0),
        half::f16::from_f32(largest(|g| g.1) / 63.0),
    );
    let level = |value: f32, unit: f32, most: f32| {
        if unit == 0.0 {
            0
        } else {
            (value / unit).round().clamp(0.0, most) as u8
        }
    };
    let scales = groups.map(|(scale, _)| level(scale, d.to_f32(), 63.0));
    let mins = groups.map(|(_, min)| level(min, d_min.to_f32(), 63.0));

    out.extend(d.to_le_bytes());
    out.extend(d_min.to_le_bytes());
    // Six bits each: the first four scales and minima lie in the low bits of a byte; of the other four, the low nibbles
    // share a byte and the upper two bits are put on top of the first ones.
    for list in [&scales, &mins] {
        out.extend((0..4).map(|i| list[i] | list[i + 4] >> 4 << 6));
    }
    out.extend((4..8).map(|i| scales[i] & 15 | mins[i] << 4));
    let quant = |i: usize| {
        let g = i / GROUP;
        let (scale, min) = (
            d.to_f32() * f32::from(scales[g]),
            d_min.to_f32() * f32::from(mins[g]),
        );
        level(block[i] + min, scale, 15.0)
    };
    // Two groups share 32 bytes: one in the low, one in the high nibbles.
    for pair in 0..K / (2 * GROUP) {
        out.extend(
            (0..GROUP)
                .map(|i| quant(2 * GROUP * pair + i) | quant(2 * GROUP * pair + GROUP + i) << 4),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q4_k_blocks_are_within_half_a_step_of_the_values() {
        let block: [f32; K] = std::array::from_fn(|i| {
            ((i * 37 % 101) as f32 - 50.0) * (1.0 + (i / GROUP) as f32) / 100.0
        });
        let mut bytes = Vec::new();
        q4_k(&block, &mut bytes);
        assert_eq!(bytes.len(), DType::Q4_K.block_bytes());
        let mut values = [0.0; K];
        DType::Q4_K.dequantize(&bytes, &mut values).unwrap();
        for (i, (value, want)) in values.iter().zip(&block).enumerate() {
            // A step of the group, plus what scale and minimum lose by their six bits.
            let step = (1.0 + (i / GROUP) as f32) / 15.0;
            assert!(
                (value - want).abs() < 0.5 * step + 8.0 / 63.0,
                "weight {i}: {value}, not {want}"
            );
        }
    }
}
