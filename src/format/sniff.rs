//! What a file seems to be when it is not what was asked for, and what to do about it.

use super::FileFormat;
use crate::error::{Error, ErrorKind};

/// How many bytes from the start of a file [`not_gguf`] and [`not_safetensors`] look at.
pub(super) const SNIFF_BYTES: usize = 512;

/// First bytes, kind of error, and what to say. Files from before GGUF store their magic as a little-endian number, so
/// it reads backwards.
const SIGNATURES: &[(&[u8], ErrorKind, &str)] = &[
    (b"PK\x03\x04", ErrorKind::Unsupported, "a zip archive or a PyTorch checkpoint; get the GGUF or safetensors file"),
    (b"\x80\x02", ErrorKind::Unsupported, "a Python pickle (PyTorch); get the GGUF or safetensors file"),
    (b"\x80\x03", ErrorKind::Unsupported, "a Python pickle (PyTorch); get the GGUF or safetensors file"),
    (b"\x80\x04", ErrorKind::Unsupported, "a Python pickle (PyTorch); get the GGUF or safetensors file"),
    (b"lmgg", ErrorKind::Unsupported, "an old GGML file of 2023; get the model as GGUF"),
    (b"fmgg", ErrorKind::Unsupported, "an old GGMF file of 2023; get the model as GGUF"),
    (b"tjgg", ErrorKind::Unsupported, "an old GGJT file of 2023; get the model as GGUF"),
    (b"algg", ErrorKind::Unsupported, "a GGLA adapter, not a model; get the model as GGUF"),
    (b"FUGG", ErrorKind::Unsupported, "a byte-swapped GGUF file; get the little-endian one"),
    (b"\x1f\x8b", ErrorKind::Unsupported, "gzip-compressed; unpack it first"),
    (b"\x28\xb5\x2f\xfd", ErrorKind::Unsupported, "zstd-compressed; unpack it first"),
    (b"\xfd7zXZ", ErrorKind::Unsupported, "xz-compressed; unpack it first"),
    (b"7z\xbc\xaf", ErrorKind::Unsupported, "a 7z archive; unpack it first"),
    (
        b"version https://git-lfs",
        ErrorKind::InvalidFile,
        "a git LFS pointer, not the model; run `git lfs pull`, or download the file itself",
    ),
];

/// The error for a file that was expected to be GGUF and does not start like one.
pub(super) fn not_gguf(start: &[u8], len: u64) -> Error {
    describe("a GGUF file", FileFormat::Gguf, start, len)
}

/// The error for a file that was expected to be safetensors and does not start like one; `None` when nothing else was
/// recognised, so that the caller can say what is wrong with the header.
pub(super) fn not_safetensors(start: &[u8], len: u64) -> Option<Error> {
    recognise(FileFormat::Safetensors, start, len).map(|(kind, what)| complain(kind, "a safetensors file", &what))
}

/// Whether a file starts like safetensors: a plausible header length, then a JSON object.
fn looks_like_safetensors(start: &[u8], len: u64) -> bool {
    let Some((length, rest)) = start.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) < len && rest.first() == Some(&b'{')
}

fn describe(wanted: &str, format: FileFormat, start: &[u8], len: u64) -> Error {
    match recognise(format, start, len) {
        Some((kind, what)) => complain(kind, wanted, &what),
        None => Error::invalid_file(format!(
            "this is not {wanted}: it starts with {:02x?}; check that the right file was chosen",
            &start[..start.len().min(4)]
        )),
    }
}

fn complain(kind: ErrorKind, wanted: &str, what: &str) -> Error {
    Error::new(kind, format!("this is not {wanted} but seems to be {what}"))
}

fn recognise(wanted: FileFormat, start: &[u8], len: u64) -> Option<(ErrorKind, String)> {
    if len == 0 {
        return Some((ErrorKind::InvalidFile, "an empty file; download it again".to_owned()));
    }
    for (signature, kind, what) in SIGNATURES {
        if start.starts_with(signature) {
            return Some((*kind, (*what).to_owned()));
        }
    }
    let found = |what: &str| Some((ErrorKind::InvalidFile, what.to_owned()));
    if wanted != FileFormat::Gguf && start.starts_with(super::gguf::MAGIC) {
        return found("a GGUF file; open it as one");
    }
    if wanted != FileFormat::Safetensors && looks_like_safetensors(start, len) {
        return found("a safetensors file; open its folder, with config.json and tokenizer.json");
    }
    let text = start.trim_ascii_start();
    if text.starts_with(b"<") {
        return found("a web page, perhaps an error page of the server; check the address and download again");
    }
    if text.starts_with(b"{") {
        return found("JSON text, perhaps an error message of the server; check the address and download again");
    }
    if start.len() >= 8 && start.iter().all(|&byte| byte == 0) {
        return found("a download that did not finish (it starts with zeros); download it again");
    }
    None
}
