//! Where bytes come from: memory, a local file, and (in `web/`) a `Blob` or a URL.
//!
//! A source is read by ranges and never as a whole, so that a model of many gigabytes costs no more memory than the
//! piece in hand. Offsets are 64 bits even where `usize` is 32.

use crate::error::{Error, ErrorKind, Result};

/// A future that need not be `Send`: in a browser everything stays on its thread.
pub type LocalBoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + 'a>>;

/// Bytes that can be read by ranges.
pub trait ByteSource {
    /// A name to show: the file's name, or its URL.
    fn name(&self) -> &str;

    /// Bytes in the whole source.
    fn len(&self) -> u64;

    /// Whether the source holds no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exactly `len` bytes from `offset` on. Fewer is an error.
    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>>;
}

/// Bytes that are already in memory.
#[derive(Debug)]
pub struct MemorySource {
    name: String,
    bytes: Vec<u8>,
}

impl MemorySource {
    /// A source named `name` over `bytes`.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            bytes,
        }
    }

    fn slice(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        check_range(self, offset, len)?;
        let start = in_memory(offset);
        Ok(self.bytes[start..start + len].to_vec())
    }
}

impl ByteSource for MemorySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let bytes = self.slice(offset, len);
        Box::pin(std::future::ready(bytes))
    }
}

/// A local file, read on demand.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
pub struct FileSource {
    name: String,
    len: u64,
    file: std::fs::File,
}

#[cfg(not(target_arch = "wasm32"))]
impl FileSource {
    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when there is no such file, it is a folder, or it may not be read.
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Io, format!("cannot open {}", path.display())).with_source(error)
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{} is a folder; name a file in it", path.display()),
            ));
        }
        let name = path
            .file_name()
            .map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
        Ok(Self {
            name: name.into_owned(),
            len: metadata.len(),
            file,
        })
    }

    fn read_now(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        check_range(self, offset, len)?;
        let failed = |error: std::io::Error| {
            Error::new(
                ErrorKind::Io,
                format!("{}: reading {len} bytes at {offset} failed", self.name),
            )
            .with_source(error)
        };
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| out_of_memory(&self.name, len))?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        // `take` and not a zeroed buffer: the bytes are written once.
        let read = file
            .take(len as u64)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if read != len {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{}: the file became shorter while open", self.name),
            ));
        }
        Ok(bytes)
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl ByteSource for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let bytes = self.read_now(offset, len);
        Box::pin(std::future::ready(bytes))
    }
}

/// [`ByteSource::read`], with a check that the source kept its promise about the length.
pub(super) async fn read_exactly(
    source: &dyn ByteSource,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>> {
    check_range(source, offset, len)?;
    let bytes = source.read(offset, len).await?;
    if bytes.len() != len {
        return Err(Error::new(
            ErrorKind::Io,
            format!(
                "{}: asked for {len} bytes at {offset}, got {}; try again",
                source.name(),
                bytes.len()
            ),
        ));
    }
    Ok(bytes)
}

/// The last part of a path or URL, without a query.
pub(super) fn file_name(name: &str) -> &str {
    let name = name.split(['?', '#']).next().unwrap_or(name);
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

fn check_range(source: &(impl ByteSource + ?Sized), offset: u64, len: usize) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= source.len() => Ok(()),
        _ => Err(Error::internal(format!(
            "{}: a read of {len} bytes at {offset} leaves the {} bytes of the file",
            source.name(),
            source.len()
        ))),
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn out_of_memory(name: &str, len: usize) -> Error {
    Error::new(
        ErrorKind::ModelTooLarge,
        format!("{name}: no memory for {len} bytes; close other programs"),
    )
}

/// A count of bytes that are in memory, or fit it as a cap has made sure, as an index.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is in memory has addresses"
)]
pub(super) fn in_memory(bytes: u64) -> usize {
    bytes as usize
}
