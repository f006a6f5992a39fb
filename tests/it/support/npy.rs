//! A reader for the one kind of `.npy` file that the fixtures have: version 1, little-endian float32, C order.

use std::path::Path;

/// The shape and the values of the array in `path`.
///
/// # Panics
///
/// Panics with the path when the file is absent or is another kind of array.
pub fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse_npy(&bytes).unwrap_or_else(|| panic!("{}: not a float32 .npy file", path.display()))
}

fn parse_npy(bytes: &[u8]) -> Option<(Vec<usize>, Vec<f32>)> {
    let rest = bytes.strip_prefix(b"\x93NUMPY\x01\x00")?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (header, data) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    let header = std::str::from_utf8(header).ok()?;
    if !header.contains("'descr': '<f4'") || !header.contains("'fortran_order': False") {
        return None;
    }
    let (_, shape) = header.split_once("'shape': (")?;
    let (shape, _) = shape.split_once(')')?;
    let dims = shape
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty());
    let shape = dims
        .map(|dim| dim.parse().ok())
        .collect::<Option<Vec<usize>>>()?;
    let values: Vec<f32> = data
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&value| f32::from_le_bytes(value))
        .collect();
    (values.len() == shape.iter().product::<usize>()).then_some((shape, values))
}
