//! `capture`: values of a model over a text into a file of safetensors, and edits from one.

use crate::args::Device;
use crate::files::from_json;
use crate::load::load;
use crate::output::{invalid, print};
use llamero::error::{Error, Result};
use llamero::plan::{Edit, EditKind, Hook, Point, Tap, Trace};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    model: PathBuf,
    #[arg(long, value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// Names such as `blocks.0.hook_resid_post`, with commas; * stands for any characters.
    #[arg(long, value_delimiter = ',', required = true)]
    hooks: Vec<String>,
    /// A JSON file with changes, as of logits.
    #[arg(long)]
    edits: Option<PathBuf>,
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    device: Device,
}

/// Captures the values that `--hooks` names and writes them to `--out`.
///
/// # Errors
///
/// Those of [`Model::trace`](llamero::engine::Model::trace), and `Io` for a file that cannot be written.
pub(crate) async fn run(args: Args) -> Result<()> {
    let edits = args
        .edits
        .map_or_else(|| Ok(Vec::new()), |path| edits(&path))?;
    let mut engine = load(&args.model, &args.device.exact()).await?;
    let mut taps: Vec<Point> = Vec::new();
    for pattern in &args.hooks {
        for point in engine.points(pattern)? {
            if !taps.contains(&point) {
                taps.push(point);
            }
        }
    }
    let (ids, out) = (&args.ids, &args.out);
    let captured = engine.trace(ids, &Trace { taps, edits }, false).await?;
    let named: Vec<(String, Vec<usize>, Vec<u8>)> = captured.taps.into_iter().map(tensor).collect();
    let shapes: HashMap<&str, &[usize]> = named
        .iter()
        .map(|(name, shape, _)| (name.as_str(), &shape[..]))
        .collect();
    let views = named.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        view.map(|view| (name, view))
            .map_err(|error| invalid(&error.to_string()))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    safetensors::serialize_to_file(views, None, out)
        .map_err(|error| invalid(&format!("{} cannot be written: {error}", out.display())))?;
    print(&json!({ "tokens": ids.len(), "out": out, "shapes": shapes }))
}

/// One entry of an edits file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hook: String,
    op: String,
    #[serde(default)]
    positions: Option<Vec<u32>>,
    file: PathBuf,
    tensor: String,
}

/// The edits of a JSON file: `[{"hook", "op": "add" | "replace", "positions": […] | null, "file", "tensor"}]`. Files are
/// looked for beside it.
///
/// # Errors
///
/// `InvalidInput` for an entry that is not understood, `Io` for a file that cannot be read.
pub(crate) fn edits(path: &Path) -> Result<Vec<Edit>> {
    let entries: Vec<Entry> = from_json(path)?;
    entries.into_iter().map(|entry| edit(path, entry)).collect()
}

fn edit(path: &Path, entry: Entry) -> Result<Edit> {
    let Entry {
        hook,
        op,
        positions,
        file,
        tensor,
    } = entry;
    let point = Point::parse(&hook)?;
    let kind = match op.as_str() {
        "add" => EditKind::Add,
        "replace" => EditKind::Replace,
        other => {
            return Err(invalid(&format!(
                "{}: op {other:?}; it is add or replace",
                path.display()
            )));
        }
    };
    let beside = path.parent().unwrap_or(Path::new(".")).join(&file);
    let file = if beside.exists() { beside } else { file };
    let bytes = std::fs::read(&file).map_err(|error| Error::from(error).at(file.display()))?;
    let broken = |error: &dyn std::fmt::Display| invalid(&format!("{}: {error}", file.display()));
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| broken(&error))?;
    let view = tensors.tensor(&tensor).map_err(|error| broken(&error))?;
    if view.dtype() != Dtype::F32 {
        return Err(invalid(&format!(
            "{}: {tensor} is {:?}; edits are F32",
            file.display(),
            view.dtype()
        )));
    }
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let shape = view.shape();
    // Of attention, heads come first, as they are captured.
    let (values, shape) = match (point.hook, shape) {
        (Hook::Scores | Hook::Pattern, [h, t, s]) => {
            (swapped(&values, *h, *t, *s), vec![*t, *h, *s])
        }
        _ => (values, shape.to_vec()),
    };
    // A value of one row has one axis, or as many as the hook has beside the rows; more rows come first.
    let axes = match point.hook {
        Hook::Query | Hook::Key | Hook::Value | Hook::RotQuery | Hook::RotKey | Hook::Z => 2,
        Hook::Scores | Hook::Pattern => 2,
        _ => 1,
    };
    let rows = if shape.len() > axes { shape[0] } else { 1 };
    let width = values.len().checked_div(rows).unwrap_or(0);
    Ok(Edit {
        point,
        kind,
        seq: None,
        positions,
        values,
        width,
    })
}

/// `[a, b, c]` as `[b, a, c]`.
fn swapped(values: &[f32], a: usize, b: usize, c: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for j in 0..b {
        for i in 0..a {
            out.extend_from_slice(&values[(i * b + j) * c..][..c]);
        }
    }
    out
}

/// A tap's name, shape and bytes in the file: heads of attention come first.
fn tensor(tap: Tap) -> (String, Vec<usize>, Vec<u8>) {
    let (values, shape) = match (tap.point.hook, &tap.shape[..]) {
        (Hook::Scores | Hook::Pattern, [t, h, s]) => {
            (swapped(&tap.values, *t, *h, *s), vec![*h, *t, *s])
        }
        _ => (tap.values, tap.shape),
    };
    (
        tap.point.to_string(),
        shape,
        values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    )
}
