//! Writes a float32 `.npy` (NumPy format 1.0), row by row.

use llamero::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

pub(crate) struct NpyWriter(BufWriter<File>);

impl NpyWriter {
    pub(crate) fn create(path: &Path, shape: &[usize]) -> Result<Self> {
        let mut file =
            BufWriter::new(File::create(path).map_err(|e| Error::from(e).at(path.display()))?);
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        let mut header = format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}",
            shape.join(", ")
        );
        // Magic, version and length are 10 bytes; the whole header ends in a newline at a multiple of 64.
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&(header.len() as u16).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        Ok(Self(file))
    }

    pub(crate) fn write(&mut self, values: &[f32]) -> Result<()> {
        for value in values {
            self.0.write_all(&value.to_le_bytes())?;
        }
        self.0.flush()?;
        Ok(())
    }
}
