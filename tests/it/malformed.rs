//! Broken and hostile bytes in the readers of `format/`: a clear error for each; no panic, no hang, and no more memory
//! than promised. Whole models that are broken: `tests/it/malformed_models.rs`.

use std::rc::Rc;

use crate::support::counting::within_allowance;
use crate::support::gguf::{GgufBuilder, encode_string, strings};
use crate::support::safetensors::{safetensors, with_header};
use llamero::error::{Error, ErrorKind, Result};
use llamero::format::{ByteSource, Checkpoint, MemorySource, index_shards};
use llamero::quant::DType;
use pollster::block_on;
use proptest::prelude::*;

fn open(bytes: Vec<u8>) -> Result<Checkpoint> {
    let len = bytes.len() as u64;
    let source: Rc<dyn ByteSource> = Rc::new(MemorySource::new("test.gguf", bytes));
    within_allowance("GGUF", len, || {
        block_on(Checkpoint::open_gguf(vec![source]))
    })
}

const CONFIG: &[u8] = br#"{"model_type": "llama"}"#;

fn open_safetensors(bytes: Vec<u8>) -> Result<Checkpoint> {
    let len = bytes.len() as u64;
    let source: Rc<dyn ByteSource> = Rc::new(MemorySource::new("model.safetensors", bytes));
    within_allowance("safetensors", len, || {
        block_on(Checkpoint::open_safetensors(CONFIG, None, vec![source]))
    })
}

/// Reads every tensor as far as it was promised to be there, and dequantises it.
fn read_all(checkpoint: &Checkpoint) {
    for tensor in checkpoint.tensors() {
        let bytes = block_on(checkpoint.read(tensor, 0, tensor.bytes as usize)).unwrap();
        let mut values = vec![0.0; tensor.elements() as usize];
        tensor.dtype.dequantize(&bytes, &mut values).unwrap();
        assert_eq!(
            tensor.rows() * tensor.row_bytes(),
            tensor.bytes,
            "{}",
            tensor.name
        );
    }
}

/// An error that blames the file, not us.
#[track_caller]
fn assert_clear(what: &str, error: &Error) {
    use ErrorKind::*;
    assert!(
        matches!(error.kind(), InvalidFile | Unsupported | InvalidInput | Io),
        "{what}: {error:?}"
    );
    assert!(error.detail().len() > 20, "{what}: {error:?}");
}

use ErrorKind::{InvalidFile, Unsupported};

#[track_caller]
fn assert_refused(what: &str, kind: ErrorKind, says: &str, opened: Result<Checkpoint>) {
    match opened {
        Ok(_) => panic!("{what}: was opened"),
        Err(error) => {
            assert!(
                error.kind() == kind && error.detail().contains(says),
                "{what}: expected {says:?}, got {error:?}"
            );
        }
    }
}

#[test]
fn other_kinds_of_files_are_recognised() {
    let safetensors = safetensors(&[("a", "F32", &[1], vec![0; 4])]);
    let cases: &[(&str, ErrorKind, &str, &[u8])] = &[
        ("empty", InvalidFile, "empty file", b""),
        ("short", InvalidFile, "not a GGUF file", b"GG"),
        (
            "web page",
            InvalidFile,
            "a web page",
            b"\n <!DOCTYPE html><html><body>404</body></html>",
        ),
        (
            "JSON",
            InvalidFile,
            "JSON text",
            br#"{"error": "Repository not found"}"#,
        ),
        (
            "LFS",
            InvalidFile,
            "git lfs pull",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        ),
        ("zip", Unsupported, "PyTorch", b"PK\x03\x04aaaaaaaaaaaaaaaa"),
        ("pickle", Unsupported, "pickle", b"\x80\x02}q\x00aaaaaaaaaa"),
        (
            "GGML",
            Unsupported,
            "old GGML",
            b"lmggaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        (
            "GGJT",
            Unsupported,
            "old GGJT",
            b"tjgg\x03\0\0\0aaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        ("gzip", Unsupported, "unpack", b"\x1f\x8b\x08\0aaaaaaaaaaa"),
        ("zeros", InvalidFile, "did not finish", &[0; 64]),
        (
            "safetensors",
            InvalidFile,
            "a safetensors file",
            &safetensors,
        ),
        (
            "noise",
            InvalidFile,
            "not a GGUF file",
            b"\xde\xad\xbe\xef\xde\xad\xbe\xef",
        ),
    ];
    for (what, kind, says, bytes) in cases {
        assert_refused(what, *kind, says, open(bytes.to_vec()));
    }
    let gguf = plain().build();
    assert_refused("GGUF", InvalidFile, "a GGUF file", open_safetensors(gguf));
    for (what, kind, says, bytes) in &cases[..11] {
        if *what != "short" {
            assert_refused(what, *kind, says, open_safetensors(bytes.to_vec()));
        }
    }
}

/// A small sound file.
fn plain() -> GgufBuilder {
    GgufBuilder::new()
        .meta("general.architecture", "llama")
        .meta("tokens", strings(["<s>", "a", "b"]))
        .meta("scores", vec![0.0_f32, -1.0])
        .values("norm", &[4], DType::F32, &[1.0; 4])
        .values("matrix", &[2, 32], DType::Q4_0, &[0.5; 64])
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_broken_gguf_says_what_is_wrong() {
    let f32_id = DType::F32.ggml_id();
    let tensor = |name: &[u8], ne: &[u64], type_id, offset| {
        GgufBuilder::new().raw_tensor(name, ne, type_id, offset, vec![0; 4096])
    };
    let value = |kind: u32, bytes: &[u8]| plain().raw_meta(b"x.y", kind, bytes);
    let array = |kind: u32, len: u64, bytes: &[u8]| {
        let mut array = kind.to_le_bytes().to_vec();
        array.extend(len.to_le_bytes());
        array.extend(bytes);
        plain().raw_meta(b"x.y", 9, &array)
    };
    let cases: &[(&str, ErrorKind, &str, GgufBuilder)] = &[
        ("version 0", InvalidFile, "version 0", plain().version(0)),
        ("version 1", Unsupported, "version 1", plain().version(1)),
        ("version 4", Unsupported, "newer", plain().version(4)),
        (
            "big-endian",
            Unsupported,
            "big-endian",
            plain().version(3_u32.swap_bytes()),
        ),
        (
            "no tensors",
            InvalidFile,
            "no tensors",
            GgufBuilder::new().meta("a", 1_u32),
        ),
        (
            "2^64 tensors",
            InvalidFile,
            "announces",
            plain().announce_tensors(u64::MAX),
        ),
        (
            "2^60 keys",
            InvalidFile,
            "announces",
            plain().announce_keys(1 << 60),
        ),
        (
            "a tensor too many",
            InvalidFile,
            "",
            plain().announce_tensors(3),
        ),
        ("a key too many", InvalidFile, "", plain().announce_keys(4)),
        (
            "empty key",
            InvalidFile,
            "key is empty",
            plain().meta("", 1_u32),
        ),
        (
            "key twice",
            InvalidFile,
            "tokens appears twice",
            plain().meta("tokens", 1_u32),
        ),
        (
            "key not UTF-8",
            InvalidFile,
            "not UTF-8",
            plain().raw_meta(b"x\xff", 0, &[1]),
        ),
        (
            "unknown value type",
            InvalidFile,
            "x.y has the unknown type 13",
            value(13, &[]),
        ),
        (
            "string of 2^60",
            InvalidFile,
            "ends inside x.y",
            value(8, &(1_u64 << 60).to_le_bytes()),
        ),
        (
            "array of 2^60",
            InvalidFile,
            "ends inside x.y",
            array(0, 1 << 60, &[]),
        ),
        (
            "array that wraps to 8 bytes",
            InvalidFile,
            "ends inside x.y",
            array(10, (1 << 61) + 1, &[0; 8]),
        ),
        (
            "array of 4e9 strings",
            InvalidFile,
            "announces 4000000000 strings",
            array(8, 4_000_000_000, &[]),
        ),
        (
            "string of 2^63 in an array",
            InvalidFile,
            "ends inside x.y",
            array(8, 1, &(1_u64 << 63).to_le_bytes()),
        ),
        (
            "array of unknown type",
            InvalidFile,
            "unknown type 77",
            array(77, 1, &[0; 8]),
        ),
        (
            "array of arrays",
            Unsupported,
            "array of arrays",
            array(9, 1, &[0; 12]),
        ),
        (
            "alignment 0",
            InvalidFile,
            "power of two",
            plain().meta("general.alignment", 0_u32),
        ),
        (
            "alignment 48",
            InvalidFile,
            "power of two",
            plain().meta("general.alignment", 48_u32),
        ),
        (
            "alignment 2^31",
            InvalidFile,
            "reach beyond",
            plain().meta("general.alignment", 1_u32 << 31),
        ),
        (
            "alignment a string",
            InvalidFile,
            "general.alignment is a string",
            plain().meta("general.alignment", "32"),
        ),
        (
            "no name",
            InvalidFile,
            "no name",
            tensor(b"", &[1], f32_id, None),
        ),
        (
            "name of 300 bytes",
            InvalidFile,
            "300 bytes",
            tensor(&[b'x'; 300], &[1], f32_id, None),
        ),
        (
            "name not UTF-8",
            InvalidFile,
            "not UTF-8",
            tensor(b"x\xff", &[1], f32_id, None),
        ),
        (
            "no dimensions",
            InvalidFile,
            "0 dimensions",
            tensor(b"t", &[], f32_id, None),
        ),
        (
            "5 dimensions",
            InvalidFile,
            "5 dimensions",
            tensor(b"t", &[1; 5], f32_id, None),
        ),
        (
            "dimension 0",
            InvalidFile,
            "is 0",
            tensor(b"t", &[4, 0], f32_id, None),
        ),
        (
            "2^64 - 1",
            InvalidFile,
            "overflows",
            tensor(b"t", &[u64::MAX], f32_id, None),
        ),
        (
            "2^64 elements",
            InvalidFile,
            "overflows",
            tensor(b"t", &[1 << 32, 1 << 32], f32_id, None),
        ),
        (
            "wraps to 1",
            InvalidFile,
            "overflows",
            tensor(b"t", &[u64::MAX, u64::MAX], f32_id, None),
        ),
        (
            "2^63 bytes",
            InvalidFile,
            "reach beyond",
            tensor(b"t", &[1 << 61], f32_id, None),
        ),
        (
            "partial block",
            InvalidFile,
            "block size of Q4_0",
            tensor(b"t", &[48], 2, None),
        ),
        (
            "partial super-block",
            InvalidFile,
            "block size of Q4_K",
            tensor(b"t", &[32, 8], 12, None),
        ),
        ("Q4_2", Unsupported, "removed", tensor(b"t", &[32], 4, None)),
        (
            "I32",
            Unsupported,
            "integers",
            tensor(b"t", &[32], 26, None),
        ),
        ("Q8_K", Unsupported, "Q8_K", tensor(b"t", &[256], 15, None)),
        (
            "type 9999",
            Unsupported,
            "unknown type 9999",
            tensor(b"t", &[32], 9999, None),
        ),
        (
            "past the end",
            InvalidFile,
            "reach beyond",
            tensor(b"t", &[32], f32_id, Some(1 << 20)),
        ),
        (
            "offset overflows",
            InvalidFile,
            "reach beyond",
            tensor(b"t", &[32], f32_id, Some(u64::MAX - 31)),
        ),
        (
            "misaligned",
            InvalidFile,
            "multiple of the alignment",
            tensor(b"t", &[32], f32_id, Some(8)),
        ),
        (
            "overlap",
            InvalidFile,
            "a and b overlap",
            tensor(b"a", &[64], f32_id, Some(0)).raw_tensor(b"b", &[1], f32_id, Some(224), vec![]),
        ),
        (
            "name twice",
            InvalidFile,
            "two tensors are called a",
            tensor(b"a", &[1], f32_id, Some(0)).raw_tensor(b"a", &[1], f32_id, Some(32), vec![]),
        ),
    ];
    read_all(&open(plain().build()).unwrap());
    for (what, kind, says, builder) in cases {
        assert_refused(what, *kind, says, open(builder.build()));
    }
}

#[test]
fn text_that_is_not_utf8_is_mended_where_it_only_describes() {
    let mut name = Vec::new();
    encode_string(b"caf\xe9", &mut name);
    let checkpoint = open(plain().raw_meta(b"general.name", 8, &name).build()).unwrap();
    assert_eq!(
        checkpoint.metadata().str("general.name").unwrap(),
        Some("caf\u{fffd}")
    );
    assert!(
        checkpoint
            .warnings()
            .to_vec()
            .concat()
            .contains("general.name is not UTF-8")
    );
    let mut long = Vec::new();
    encode_string(&vec![0xff; 100_000], &mut long);
    assert_refused(
        "long",
        InvalidFile,
        "x is not UTF-8",
        open(plain().raw_meta(b"x", 8, &long).build()),
    );
    let mut list = [8_u32.to_le_bytes().to_vec(), 12_u64.to_le_bytes().to_vec()].concat();
    (0..12).for_each(|_| list.extend(&long));
    assert_refused(
        "long list",
        InvalidFile,
        "x: the strings up to 10",
        open(plain().raw_meta(b"x", 9, &list).build()),
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_broken_safetensors_says_what_is_wrong() {
    let entry = |entry: &str| with_header(&format!(r#"{{"a": {entry}}}"#), &[0; 8]);
    let cases: &[(&str, ErrorKind, &str, Vec<u8>)] = &[
        (
            "4 bytes",
            InvalidFile,
            "shorter than 8 bytes",
            vec![1, 0, 0, 0],
        ),
        (
            "header of 2^60",
            InvalidFile,
            "the whole file has",
            (1_u64 << 60).to_le_bytes().to_vec(),
        ),
        (
            "not JSON",
            InvalidFile,
            "header is broken",
            with_header("{\"a\":", &[]),
        ),
        (
            "an array",
            InvalidFile,
            "header is broken",
            with_header("[]", &[]),
        ),
        (
            "nested",
            InvalidFile,
            "header is broken",
            with_header(&format!("{{\"a\":{}", "[".repeat(100_000)), &[]),
        ),
        ("nothing", InvalidFile, "no tensors", with_header("{}", &[])),
        (
            "I32",
            Unsupported,
            "stored as I32",
            entry(r#"{"dtype":"I32","shape":[2],"data_offsets":[0,8]}"#),
        ),
        (
            "F8",
            Unsupported,
            "stored as F8_E4M3",
            entry(r#"{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}"#),
        ),
        (
            "backwards",
            InvalidFile,
            "bytes 8 to 0",
            entry(r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#),
        ),
        (
            "beyond",
            InvalidFile,
            "bytes 0 to 12",
            entry(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,12]}"#),
        ),
        (
            "size",
            InvalidFile,
            "takes 4 bytes",
            entry(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,8]}"#),
        ),
        (
            "hole",
            InvalidFile,
            "after a hole",
            entry(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#),
        ),
        (
            "rest",
            InvalidFile,
            "the file has",
            entry(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#),
        ),
        (
            "-1",
            InvalidFile,
            "header is broken",
            entry(r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#),
        ),
        (
            "1.5",
            InvalidFile,
            "header is broken",
            entry(r#"{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#),
        ),
        (
            "2^64",
            InvalidFile,
            "header is broken",
            entry(r#"{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]}"#),
        ),
        (
            "overflow",
            InvalidFile,
            "overflows",
            entry(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}"#),
        ),
        (
            "dimension 0",
            InvalidFile,
            "is 0",
            with_header(
                r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#,
                &[],
            ),
        ),
        (
            "9 dimensions",
            InvalidFile,
            "header is broken",
            entry(r#"{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}"#),
        ),
        (
            "no name",
            InvalidFile,
            "header is broken",
            with_header(
                r#"{"": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
                &[0; 8],
            ),
        ),
        (
            "twice",
            InvalidFile,
            "two tensors are called a",
            with_header(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                &[0; 8],
            ),
        ),
    ];
    let sound = with_header(
        r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  "#,
        &[0; 8],
    );
    read_all(&open_safetensors(sound).unwrap());
    for (what, kind, says, bytes) in cases {
        assert_refused(what, *kind, says, open_safetensors(bytes.clone()));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_broken_config_or_index_says_what_is_wrong() {
    let file = safetensors(&[("a", "F32", &[1], vec![0; 4])]);
    let open = |config: &[u8], index: Option<&[u8]>| {
        let source: Rc<dyn ByteSource> = Rc::new(MemorySource::new("x.safetensors", file.clone()));
        block_on(Checkpoint::open_safetensors(config, index, vec![source]))
    };
    open(CONFIG, Some(br#"{"weight_map": {"a": "x.safetensors"}}"#)).unwrap();
    assert_refused("empty", InvalidFile, "config.json", open(b"", None));
    assert_refused("array", InvalidFile, "not a JSON object", open(b"[]", None));
    assert_refused(
        "long",
        InvalidFile,
        "bytes long",
        open(&vec![b' '; 2 << 20], None),
    );
    assert_refused(
        "deep",
        InvalidFile,
        "config.json",
        open("[".repeat(100_000).as_bytes(), None),
    );
    assert_refused("none", ErrorKind::InvalidInput, "no safetensors", {
        block_on(Checkpoint::open_safetensors(CONFIG, None, vec![]))
    });
    assert_refused(
        "not JSON",
        InvalidFile,
        "not a safetensors index",
        open(CONFIG, Some(b"{")),
    );
    assert_refused(
        "no map",
        InvalidFile,
        "not a safetensors index",
        open(CONFIG, Some(b"{}")),
    );
    for (what, bytes) in [
        (
            "git lfs pull",
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"[..],
        ),
        ("web page", b"<!doctype html>"),
        ("gzip", b"\x1f\x8b\x08\0aaaaaaaaa"),
        ("pickle", b"\x80\x02}q\0aaaaaaaaaa"),
        ("empty file", b""),
    ] {
        for (name, opened) in [
            ("config.json", open(bytes, None)),
            ("index.json", open(CONFIG, Some(bytes))),
        ] {
            let says = opened.unwrap_err().to_string();
            assert!(says.contains(name) && says.contains(what), "{says}");
        }
    }
    let with_mark = [b"\xef\xbb\xbf", CONFIG].concat();
    open(&with_mark, None).unwrap();
    open(
        &String::from_utf8_lossy(CONFIG)
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>(),
        None,
    )
    .unwrap();
    for name in [
        "../x",
        "/etc/passwd",
        "a/b",
        "C:x",
        "..",
        "",
        "a\\b",
        "https://host/x",
        "x?y",
        "%2e%2e",
    ] {
        let index = serde_json::json!({ "weight_map": { "a": name } }).to_string();
        let error = index_shards(index.as_bytes()).unwrap_err();
        assert!(
            error.kind() == InvalidFile && error.detail().contains("not a plain file name"),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let whole = plain().build();
    let (last, data_end) = {
        let checkpoint = open(whole.clone()).unwrap();
        let last = checkpoint.tensors().last().unwrap();
        (last.name.clone(), (last.offset + last.bytes) as usize)
    };
    for len in 0..data_end {
        let error = open(whole[..len].to_vec()).unwrap_err();
        assert_clear(
            &format!(
                "{len} of {} bytes, cut before the end of {last}",
                whole.len()
            ),
            &error,
        );
    }
    let whole = safetensors(&[
        ("a", "F32", &[2], vec![0; 8]),
        ("b", "BF16", &[2], vec![0; 4]),
    ]);
    for len in 0..whole.len() {
        assert_clear(
            &format!("safetensors, {len} bytes"),
            &open_safetensors(whole[..len].to_vec()).unwrap_err(),
        );
    }
}

#[test]
fn any_one_byte_may_be_wrong() {
    let whole = plain().build();
    for at in 0..whole.len() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            whole[at] ^ 1,
            whole[at].wrapping_add(1),
        ] {
            let mut broken = whole.clone();
            broken[at] = value;
            match open(broken) {
                Ok(checkpoint) => read_all(&checkpoint),
                Err(error) => assert_clear(&format!("byte {at} = {value}"), &error),
            }
        }
    }
}

/// Headers made to cost as much memory as they can.
#[test]
fn the_most_expensive_headers_stay_within_the_allowance() {
    const HEADER: usize = 63 << 20;
    let empty_strings = HEADER / 8;
    let mut array = 8_u32.to_le_bytes().to_vec();
    array.extend((empty_strings as u64).to_le_bytes());
    array.resize(12 + 8 * empty_strings, 0);
    let builder =
        GgufBuilder::new()
            .raw_meta(b"tokens", 9, &array)
            .values("a", &[1], DType::F32, &[1.0]);
    drop(array);
    let file = builder.build();
    drop(builder);
    let checkpoint = open(file).unwrap();
    assert_eq!(
        checkpoint
            .metadata()
            .strings("tokens")
            .unwrap()
            .unwrap()
            .len(),
        empty_strings
    );
    drop(checkpoint);

    let mut broken = Vec::new();
    encode_string(&vec![0xff; 64 << 10], &mut broken);
    let mut builder = plain();
    for i in 0..HEADER / broken.len() {
        builder = builder.raw_meta(format!("broken text {i}").as_bytes(), 8, &broken);
    }
    let file = builder.build();
    drop(builder);
    open(file).unwrap();

    let mut builder = GgufBuilder::new();
    for i in 0..1 << 16 {
        builder = builder.meta(&format!("{i:x}"), 1_u8);
    }
    for i in 0..1 << 18 {
        builder = builder.raw_tensor(
            format!("{i:x}").as_bytes(),
            &[1; 4],
            0,
            Some(32 * i),
            vec![],
        );
    }
    let mut file = builder.build();
    drop(builder);
    file.resize(file.len() + (32 << 18), 0);
    open(file).unwrap();

    let header = HEADER as u64 * 2;
    let mut file = plain().raw_meta(b"x", 8, &header.to_le_bytes()).build();
    file.resize(file.len() + header as usize, 0);
    assert_refused(
        "a header of 126 MiB",
        InvalidFile,
        "longer than 64 MiB",
        open(file),
    );

    let mut text = String::from("{");
    for i in 0..1 << 18 {
        let (begin, end) = (2 * i, 2 * i + 2);
        text += &format!(
            r#""{i:x}":{{"dtype":"F16","shape":[1,1,1,1,1,1,1,1],"data_offsets":[{begin},{end}]}},"#
        );
    }
    text.pop();
    text += "}";
    let file = with_header(&text, &vec![0; 2 << 18]);
    drop(text);
    open_safetensors(file).unwrap();
}

proptest! {
    #[test]
    fn any_bytes_are_opened_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut gguf = b"GGUF\x03\0\0\0".to_vec();
        gguf.extend(&bytes);
        for file in [bytes.clone(), gguf] {
            if let Err(error) = open(file) {
                assert_clear("random bytes", &error);
            }
        }
        let mut safetensors = 16_u64.to_le_bytes().to_vec();
        safetensors.extend(&bytes);
        for file in [bytes, safetensors] {
            if let Err(error) = open_safetensors(file) {
                assert_clear("random bytes", &error);
            }
        }
    }

    /// A few bytes replaced by numbers that tend to hurt.
    #[test]
    fn a_damaged_file_is_opened_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![
            0_u64, 1, 2, 31, 255, 1 << 31, u32::MAX as u64, 1 << 32, 1 << 60, 1 << 63, u64::MAX - 31, u64::MAX,
        ]), 1_usize..=8), 1..4),
    ) {
        let mut file = plain().build();
        for (at, number, len) in damage {
            let at = at.index(file.len() - 8);
            file[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
        }
        match open(file) {
            Ok(checkpoint) => read_all(&checkpoint),
            Err(error) => assert_clear("damaged", &error),
        }
    }
}
