//! What a file seems to be when it is not what was asked for, and what to do about it.

use std::borrow::Cow;

use super::FileFormat;
use crate::error::{Error, ErrorKind, Result};

/// How many bytes from the start of a file are looked at.
pub(super) const SNIFF_BYTES: usize = 512;

/// What to do about a file of another kind.
#[derive(Copy, Clone)]
enum Advice {
    /// Get the right file; for weights this says which.
    Instead(&'static str),
    /// The same for every file.
    Always(&'static str),
}

use Advice::{Always, Instead};

/// First bytes, kind of error, what the file is, and what to do. Files from before GGUF store their magic as a
/// little-endian number, so it reads backwards.
const SIGNATURES: &[(&[u8], ErrorKind, &str, Advice)] = &[
    (
        b"PK\x03\x04",
        ErrorKind::Unsupported,
        "a zip archive or a PyTorch checkpoint",
        Instead("get the GGUF or safetensors file"),
    ),
    (
        b"\x80\x02",
        ErrorKind::Unsupported,
        PICKLE,
        Instead("get the GGUF or safetensors file"),
    ),
    (
        b"\x80\x03",
        ErrorKind::Unsupported,
        PICKLE,
        Instead("get the GGUF or safetensors file"),
    ),
    (
        b"\x80\x04",
        ErrorKind::Unsupported,
        PICKLE,
        Instead("get the GGUF or safetensors file"),
    ),
    (
        b"\x80\x05",
        ErrorKind::Unsupported,
        PICKLE,
        Instead("get the GGUF or safetensors file"),
    ),
    (
        b"lmgg",
        ErrorKind::Unsupported,
        "an old GGML file of 2023",
        Instead("get the model as GGUF"),
    ),
    (
        b"fmgg",
        ErrorKind::Unsupported,
        "an old GGMF file of 2023",
        Instead("get the model as GGUF"),
    ),
    (
        b"tjgg",
        ErrorKind::Unsupported,
        "an old GGJT file of 2023",
        Instead("get the model as GGUF"),
    ),
    (
        b"algg",
        ErrorKind::Unsupported,
        "a GGLA adapter, not a model",
        Instead("get the model as GGUF"),
    ),
    (
        b"FUGG",
        ErrorKind::Unsupported,
        "a byte-swapped GGUF file",
        Instead("get the little-endian one"),
    ),
    (
        b"\x89HDF",
        ErrorKind::Unsupported,
        "an HDF5 file (Keras)",
        Instead("get the GGUF or safetensors file"),
    ),
    (
        b"\x1f\x8b",
        ErrorKind::Unsupported,
        "gzip-compressed",
        Always("unpack it first"),
    ),
    (
        b"\x28\xb5\x2f\xfd",
        ErrorKind::Unsupported,
        "zstd-compressed",
        Always("unpack it first"),
    ),
    (
        b"BZh",
        ErrorKind::Unsupported,
        "bzip2-compressed",
        Always("unpack it first"),
    ),
    (
        b"\xfd7zXZ",
        ErrorKind::Unsupported,
        "xz-compressed",
        Always("unpack it first"),
    ),
    (
        b"7z\xbc\xaf",
        ErrorKind::Unsupported,
        "a 7z archive",
        Always("unpack it first"),
    ),
    (
        b"version https://git-lfs",
        ErrorKind::InvalidFile,
        "a git LFS pointer, which stands for a file that was not downloaded",
        Always("run `git lfs pull`, or download the file itself"),
    ),
];

const PICKLE: &str = "a Python pickle (PyTorch)";

/// Checks that a small file of a model's folder, JSON or pieces of a vocabulary, is not a file of another kind.
///
/// # Errors
///
/// `InvalidFile` or `Unsupported`, which names the file, what it seems to be, and what to do.
pub(crate) fn check_small(name: &str, bytes: &[u8]) -> Result<()> {
    let start = &bytes[..bytes.len().min(SNIFF_BYTES)];
    let complain = |kind, what: &str, advice: &str| {
        Err(Error::new(
            kind,
            format!("{name} seems to be {what}; {advice}"),
        ))
    };
    if bytes.is_empty() {
        return complain(ErrorKind::InvalidFile, "an empty file", "download it again");
    }
    if let Some((kind, what, advice)) = signature(start) {
        return match advice {
            Instead(_) => complain(kind, what, "download the file itself"),
            Always(advice) => complain(kind, what, advice),
        };
    }
    if start.starts_with(super::gguf::MAGIC) {
        return complain(
            ErrorKind::InvalidFile,
            "a GGUF file",
            "download the file itself",
        );
    }
    if is_page(start) {
        return complain(ErrorKind::InvalidFile, PAGE.0, PAGE.1);
    }
    if start.len() >= 8 && start.iter().all(|&byte| byte == 0) {
        return complain(
            ErrorKind::InvalidFile,
            "a download that did not finish (it starts with zeros)",
            "download it again",
        );
    }
    Ok(())
}

/// The text of a JSON file without its byte order mark, from UTF-16 where it is that.
///
/// # Errors
///
/// As [`check_small`]; `InvalidFile` for UTF-16 that is broken.
pub(crate) fn json_text<'a>(name: &str, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    check_small(name, bytes)?;
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        // Without a mark: JSON begins with a character of ASCII.
        [first, 0, ..] if first.is_ascii() && *first != 0 => u16::from_le_bytes,
        [0, second, ..] if second.is_ascii() && *second != 0 => u16::from_be_bytes,
        _ => {
            return Ok(Cow::Borrowed(
                bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes),
            ));
        }
    };
    let (units, rest) = bytes.as_chunks::<2>();
    let broken = || {
        Error::invalid_file(format!(
            "{name} is broken UTF-16 text; save it as UTF-8, or download it again"
        ))
    };
    if !rest.is_empty() {
        return Err(broken());
    }
    let units: Vec<u16> = units.iter().map(|&bytes| unit(bytes)).collect();
    let text = String::from_utf16(&units).map_err(|_| broken())?;
    let text = text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text);
    Ok(Cow::Owned(text.into_bytes()))
}

/// Endings of weights that are not read, and what they are.
const OTHER_WEIGHTS: &[(&str, &str)] = &[
    (".bin", "a PyTorch checkpoint"),
    (".pth", "a PyTorch checkpoint"),
    (".pt", "a PyTorch checkpoint"),
    (".ckpt", "a PyTorch checkpoint"),
    (".h5", "a TensorFlow checkpoint"),
    (".msgpack", "a Flax checkpoint"),
    (".onnx", "an ONNX model"),
    (".npz", "an MLX or NumPy checkpoint"),
];

/// Says what a folder without safetensors holds instead; `None` where that is nothing known. `names`: its files.
pub(crate) fn no_weights<S: AsRef<str>>(names: &[S]) -> Option<Error> {
    let ends = |name: &str, ending: &str| name.to_ascii_lowercase().ends_with(ending);
    let mut names = names.iter().map(AsRef::as_ref);
    if let Some(gguf) = names.clone().find(|name| ends(name, ".gguf")) {
        return Some(Error::invalid_input(format!(
            "the folder holds no safetensors; it holds {gguf:.80}: give that file itself"
        )));
    }
    names.find_map(|name| {
        let (_, what) = OTHER_WEIGHTS.iter().find(|(ending, _)| ends(name, ending))?;
        // Python's settings of a training run, for one.
        (name != "training_args.bin").then(|| {
            Error::unsupported(format!(
                "the folder holds no safetensors but {name:.80}, {what}; convert the model to safetensors (Transformers: \
                 save_pretrained), or get it as safetensors or GGUF"
            ))
        })
    })
}

fn signature(start: &[u8]) -> Option<(ErrorKind, &'static str, Advice)> {
    let known = SIGNATURES
        .iter()
        .find(|(signature, ..)| start.starts_with(signature));
    known.map(|(_, kind, what, advice)| (*kind, *what, *advice))
}

/// What a web page is, and what to do.
const PAGE: (&str, &str) = (
    "a web page, perhaps an error page of the server",
    "check the address and download again",
);

/// Whether a text begins as web pages do. `<` alone is not enough: chat templates begin with tokens such as `<s>`.
fn is_page(start: &[u8]) -> bool {
    let start = start
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(start)
        .trim_ascii_start();
    [
        &b"<!doctype html"[..],
        b"<html",
        b"<head",
        b"<?xml",
        b"<!--",
    ]
    .iter()
    .any(|page| {
        start
            .get(..page.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(page))
    })
}

/// The error for a file that was expected to be GGUF and does not start like one.
pub(super) fn not_gguf(start: &[u8], len: u64) -> Error {
    describe("a GGUF file", FileFormat::Gguf, start, len)
}

/// The error for a file that was expected to be safetensors and does not start like one; `None` when nothing else was
/// recognised, so that the caller can say what is wrong with the header.
pub(super) fn not_safetensors(start: &[u8], len: u64) -> Option<Error> {
    recognise(FileFormat::Safetensors, start, len)
        .map(|(kind, what)| complain(kind, "a safetensors file", &what))
}

/// Whether a file starts like safetensors: a plausible header length, then a JSON object.
fn looks_like_safetensors(start: &[u8], len: u64) -> bool {
    let Some((length, rest)) = start.split_first_chunk::<8>() else {
        return false;
    };
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
        return Some((
            ErrorKind::InvalidFile,
            "an empty file; download it again".to_owned(),
        ));
    }
    if let Some((kind, what, Instead(advice) | Always(advice))) = signature(start) {
        return Some((kind, format!("{what}; {advice}")));
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
        return found(&format!("{}; {}", PAGE.0, PAGE.1));
    }
    if text.starts_with(b"{") {
        return found(
            "JSON text, perhaps an error message of the server; check the address and download again",
        );
    }
    if start.len() >= 8 && start.iter().all(|&byte| byte == 0) {
        return found("a download that did not finish (it starts with zeros); download it again");
    }
    None
}
