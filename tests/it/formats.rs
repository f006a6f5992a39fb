//! Reading GGUF and safetensors: what a good file gives, and how little is read for it.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use crate::support::gguf::{GgufBuilder, strings};
use crate::support::references;
use crate::support::safetensors::safetensors;
use llamero::error::{Error, ErrorKind, Result};
use llamero::format::{
    Array, ByteSource, Checkpoint, FileFormat, FileSource, LocalBoxFuture, MemorySource,
    StringArray, TensorInfo, Value, index_shards, split_names,
};
use llamero::quant::DType;
use pollster::block_on;

fn open(builder: GgufBuilder) -> Checkpoint {
    block_on(Checkpoint::open_gguf(builder.sources())).unwrap()
}

fn memory(name: &str, bytes: Vec<u8>) -> Rc<dyn ByteSource> {
    Rc::new(MemorySource::new(name, bytes))
}

/// All values of a tensor.
fn values(checkpoint: &Checkpoint, tensor: &TensorInfo) -> Vec<f32> {
    let bytes = block_on(checkpoint.read(tensor, 0, tensor.bytes as usize)).unwrap();
    let mut values = vec![0.0; tensor.elements() as usize];
    tensor.dtype.dequantize(&bytes, &mut values).unwrap();
    values
}

#[test]
fn a_gguf_file_gives_its_tensors_and_where_they_are() {
    let matrix: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let builder = GgufBuilder::new()
        .meta("general.architecture", "llama")
        .values("norm", &[3], DType::F32, &[1.0, 2.0, 3.0])
        .values("matrix", &[2, 64], DType::Q8_0, &matrix)
        .values("experts", &[2, 3, 4], DType::F16, &[0.5; 24]);
    let len = builder.build().len() as u64;
    let checkpoint = open(builder);
    assert_eq!(checkpoint.format(), FileFormat::Gguf);
    assert_eq!(checkpoint.file_names().collect::<Vec<_>>(), ["test.gguf"]);
    assert_eq!(checkpoint.total_bytes(), len);
    let names: Vec<&str> = checkpoint
        .tensors()
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(names, ["norm", "matrix", "experts"]);

    let tensor = checkpoint.tensor("matrix").unwrap();
    assert_eq!(
        (tensor.dtype, &tensor.shape[..]),
        (DType::Q8_0, &[2, 64][..])
    );
    assert_eq!(
        (
            tensor.rows(),
            tensor.cols(),
            tensor.row_bytes(),
            tensor.bytes
        ),
        (2, 64, 68, 136)
    );
    let got = values(&checkpoint, tensor);
    assert!(
        got.iter()
            .zip(&matrix)
            .all(|(got, value)| (got - value).abs() < 0.6),
        "{got:?}"
    );

    let norm = checkpoint.tensor("norm").unwrap();
    assert_eq!((norm.rows(), norm.cols(), norm.elements()), (1, 3, 3));
    assert_eq!(values(&checkpoint, norm), [1.0, 2.0, 3.0]);
    let experts = checkpoint.tensor("experts").unwrap();
    assert_eq!(
        (experts.rows(), experts.cols(), experts.elements()),
        (6, 4, 24)
    );
    assert!(checkpoint.tensor("absent").is_none());
}

#[test]
fn a_tensor_is_read_by_pieces_and_never_beyond_its_end() {
    let checkpoint = open(GgufBuilder::new().values("a", &[4], DType::F32, &[1.0, 2.0, 3.0, 4.0]));
    let tensor = checkpoint.tensor("a").unwrap();
    assert_eq!(
        block_on(checkpoint.read(tensor, 4, 4)).unwrap(),
        2_f32.to_le_bytes()
    );
    assert!(block_on(checkpoint.read(tensor, 16, 0)).unwrap().is_empty());
    for (offset, len) in [(0, 17), (13, 4), (17, 0), (u64::MAX, 2)] {
        let error = block_on(checkpoint.read(tensor, offset, len)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{offset} {len}: {error}");
    }
}

#[test]
fn versions_2_and_3_and_any_alignment_are_read() {
    for (version, alignment) in [(2, 32), (3, 64), (3, 8), (3, 1), (3, 4096)] {
        let builder = GgufBuilder::new()
            .version(version)
            .alignment(alignment)
            .values("a", &[1], DType::F32, &[1.5])
            .values("b", &[1], DType::F32, &[2.5]);
        let checkpoint = open(builder);
        for (name, value) in [("a", 1.5), ("b", 2.5)] {
            let tensor = checkpoint.tensor(name).unwrap();
            assert_eq!(tensor.offset % u64::from(alignment), 0);
            assert_eq!(
                values(&checkpoint, tensor),
                [value],
                "version {version}, alignment {alignment}"
            );
        }
    }
}

/// A file with a metadata value of every type.
fn every_value() -> Checkpoint {
    let builder = GgufBuilder::new()
        .meta("u8", 200_u8)
        .meta("i8", -100_i8)
        .meta("u16", 60_000_u16)
        .meta("i16", -30_000_i16)
        .meta("u32", 4_000_000_000_u32)
        .meta("i32", -2_000_000_000_i32)
        .meta("u64", u64::MAX)
        .meta("i64", i64::MIN)
        .meta("f32", 0.1_f32)
        .meta("f64", 0.1_f64)
        .meta("bool", true)
        .meta("string", "héllo")
        .meta("u8s", vec![1_u8, 255])
        .meta("i8s", vec![-1_i8, 1])
        .meta("u16s", vec![1_u16, 65_535])
        .meta("i16s", vec![-1_i16, 1])
        .meta("u32s", vec![1_u32, u32::MAX])
        .meta("i32s", vec![-1_i32, 1])
        .meta("u64s", vec![1_u64, 2])
        .meta("i64s", vec![-1_i64, 1])
        .meta("f32s", vec![0.5_f32, 1.5])
        .meta("f64s", vec![0.5_f64, 1.5])
        .meta("bools", vec![true, false])
        .meta("strings", strings(["a", "", "ü"]))
        .meta("empty", Vec::<u32>::new())
        .values("weight", &[1], DType::F32, &[0.0]);
    open(builder)
}

#[test]
fn metadata_comes_back_as_it_was_written() {
    let checkpoint = every_value();
    let meta = checkpoint.metadata();
    assert_eq!(meta.len(), 25);
    assert_eq!(meta.keys().count(), 25);
    assert!(meta.contains("u8") && !meta.contains("nothing") && !meta.is_empty());
    assert_eq!(meta.get("u64"), Some(&Value::U64(u64::MAX)));
    assert_eq!(
        meta.get("bools"),
        Some(&Value::Array(Array::Bool(vec![true, false])))
    );
    assert_eq!(meta.str("string").unwrap(), Some("héllo"));
    assert_eq!(meta.bool("bool").unwrap(), Some(true));
    assert_eq!(meta.f32("f32").unwrap(), Some(0.1));
    assert_eq!(meta.f64("f64").unwrap(), Some(0.1));
    assert_eq!(meta.f32s("f32s").unwrap(), Some(vec![0.5, 1.5]));
    assert_eq!(meta.f32s("f64s").unwrap(), Some(vec![0.5, 1.5]));
    assert_eq!(meta.u32s("empty").unwrap(), Some(vec![]));
    let text = meta.strings("strings").unwrap().unwrap();
    assert_eq!(text.iter().collect::<Vec<_>>(), ["a", "", "ü"]);
    assert_eq!(
        (text.len(), text.get(0), text.get(2), text.get(3)),
        (3, Some("a"), Some("ü"), None)
    );
}

#[test]
fn integers_convert_when_they_fit() {
    let checkpoint = every_value();
    let meta = checkpoint.metadata();
    assert_eq!(meta.u32("u8").unwrap(), Some(200));
    assert_eq!(meta.u64("u16").unwrap(), Some(60_000));
    assert_eq!(meta.i32("i8").unwrap(), Some(-100));
    assert_eq!(meta.u64("u32").unwrap(), Some(4_000_000_000));
    assert_eq!(meta.f32("i16").unwrap(), Some(-30_000.0));
    assert_eq!(meta.u32s("u8s").unwrap(), Some(vec![1, 255]));
    assert_eq!(meta.i32s("i64s").unwrap(), Some(vec![-1, 1]));
    assert_eq!(meta.f32s("i8s").unwrap(), Some(vec![-1.0, 1.0]));
    let too_big: &[(&str, Result<()>)] = &[
        ("u64", meta.u32("u64").map(drop)),
        ("i8", meta.u32("i8").map(drop)),
        ("i64", meta.u64("i64").map(drop)),
        ("u32", meta.i32("u32").map(drop)),
        ("u32s", meta.i32s("u32s").map(drop)),
        ("i32s", meta.u32s("i32s").map(drop)),
    ];
    assert_names_its_key(too_big, "does not fit");
}

#[test]
fn a_wrong_type_names_its_key_and_an_absent_one_is_none() {
    let checkpoint = every_value();
    let meta = checkpoint.metadata();
    let wrong: &[(&str, Result<()>)] = &[
        ("string", meta.u32("string").map(drop)),
        ("f32", meta.u32("f32").map(drop)),
        ("bool", meta.u64("bool").map(drop)),
        ("u8", meta.bool("u8").map(drop)),
        ("u8", meta.str("u8").map(drop)),
        ("string", meta.f32("string").map(drop)),
        ("u32s", meta.u32("u32s").map(drop)),
        ("u32", meta.u32s("u32").map(drop)),
        ("f32s", meta.u32s("f32s").map(drop)),
        ("strings", meta.f32s("strings").map(drop)),
        ("i32s", meta.strings("i32s").map(drop)),
        ("string", meta.strings("string").map(drop)),
    ];
    assert_names_its_key(wrong, "expected");
    assert_eq!(meta.u32("nothing").unwrap(), None);
    assert_eq!(meta.str("nothing").unwrap(), None);
    assert_eq!(meta.f32s("nothing").unwrap(), None);
    assert!(meta.strings("nothing").unwrap().is_none());
    let missing: &[(&str, Result<()>)] = &[
        ("nothing", meta.require_u32("nothing").map(drop)),
        ("nothing", meta.require_str("nothing").map(drop)),
        ("nothing", meta.require_f32("nothing").map(drop)),
        ("nothing", meta.require_strings("nothing").map(drop)),
    ];
    assert_names_its_key(missing, "is missing");
    assert_eq!(meta.require_u32("u8").unwrap(), 200);
}

#[track_caller]
fn assert_names_its_key(results: &[(&str, Result<()>)], says: &str) {
    for (key, result) in results {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidFile, "{key}: {error}");
        assert!(
            error.detail().contains(key) && error.detail().contains(says),
            "{key}: {error}"
        );
    }
}

/// A source of `len` bytes that begins with `start`, then holds in each 8 bytes their own offset; keeps a list of reads.
struct Recorded {
    start: Vec<u8>,
    len: u64,
    reads: RefCell<Vec<(u64, usize)>>,
}

impl Recorded {
    fn new(start: Vec<u8>, len: u64) -> Rc<Self> {
        Rc::new(Self {
            start,
            len,
            reads: RefCell::default(),
        })
    }
}

impl ByteSource for Recorded {
    fn name(&self) -> &str {
        "recorded.gguf"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        self.reads.borrow_mut().push((offset, len));
        let beyond = |at: u64| (at & !7).to_le_bytes()[(at % 8) as usize];
        let byte = |at: u64| {
            self.start
                .get(at as usize)
                .copied()
                .unwrap_or_else(|| beyond(at))
        };
        let bytes = (offset..offset + len as u64).map(byte);
        Box::pin(std::future::ready(Ok(bytes.collect())))
    }
}

#[test]
fn a_long_header_is_read_by_few_growing_pieces_and_a_short_one_by_one() {
    let tokens: Vec<String> = (0..128_000).map(|i| format!("token number {i}")).collect();
    let long = GgufBuilder::new()
        .meta("tokens", strings(&tokens))
        .values("a", &[1], DType::F32, &[1.0])
        .build();
    let header = long.len() as u64;
    let source = Recorded::new(long, 10 << 30);
    let checkpoint = block_on(Checkpoint::open_gguf(vec![source.clone()])).unwrap();
    let read: Vec<&str> = checkpoint
        .metadata()
        .strings("tokens")
        .unwrap()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(read, tokens);
    let reads = source.reads.borrow();
    let total: u64 = reads.iter().map(|(_, len)| *len as u64).sum();
    assert!(reads.len() <= 6, "{reads:?}");
    assert!(
        total <= 2 * header,
        "{total} bytes read for a header of {header}"
    );

    let source = Recorded::new(
        GgufBuilder::new()
            .values("a", &[1], DType::F32, &[1.0])
            .build(),
        10 << 30,
    );
    block_on(Checkpoint::open_gguf(vec![source.clone()])).unwrap();
    assert_eq!(*source.reads.borrow(), [(0, 256 << 10)]);
}

#[test]
fn offsets_beyond_32_bits_are_exact() {
    let far = 6_u64 << 30;
    let head = GgufBuilder::new()
        .raw_tensor(
            b"near",
            &[32, 1 << 27],
            DType::F32.ggml_id(),
            Some(0),
            vec![],
        )
        .raw_tensor(b"far", &[32], DType::F32.ggml_id(), Some(16 << 30), vec![])
        .build();
    let data_start = head.len() as u64;
    let source = Recorded::new(head, data_start + (16 << 30) + 128);
    let checkpoint = block_on(Checkpoint::open_gguf(vec![source])).unwrap();
    let near = checkpoint.tensor("near").unwrap();
    assert_eq!(near.bytes, 16 << 30);
    let bytes = block_on(checkpoint.read(near, far, 8)).unwrap();
    assert_eq!(
        u64::from_le_bytes(bytes.try_into().unwrap()),
        data_start + far
    );
    let tensor = checkpoint.tensor("far").unwrap();
    let bytes = block_on(checkpoint.read(tensor, 0, 8)).unwrap();
    assert_eq!(
        u64::from_le_bytes(bytes.try_into().unwrap()),
        data_start + (16 << 30)
    );
}

/// A source that gives fewer bytes than were asked for.
struct Short(Vec<u8>);

impl ByteSource for Short {
    fn name(&self) -> &str {
        "short.gguf"
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let bytes = self.0[offset as usize..offset as usize + len - 1].to_vec();
        Box::pin(std::future::ready(Ok(bytes)))
    }
}

#[test]
fn a_partial_read_is_never_taken_for_a_whole_one() {
    let bytes = GgufBuilder::new()
        .values("a", &[1], DType::F32, &[1.0])
        .build();
    let error = block_on(Checkpoint::open_gguf(vec![Rc::new(Short(bytes))])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}

#[test]
fn a_missing_file_and_a_folder_are_told_apart() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let error = FileSource::open(&folder).err().unwrap();
    assert!(
        error.kind() == ErrorKind::Io && error.detail().contains("is a folder"),
        "{error}"
    );
    let error = FileSource::open(&folder.join("absent.gguf")).err().unwrap();
    assert!(
        error.kind() == ErrorKind::Io && error.detail().contains("absent.gguf"),
        "{error}"
    );
    let source = FileSource::open(&folder.join("error.rs")).unwrap();
    assert_eq!((source.name(), source.is_empty()), ("error.rs", false));
    assert_eq!(block_on(source.read(0, 3)).unwrap(), b"//!");
    assert_eq!(
        block_on(source.read(source.len(), 1)).unwrap_err().kind(),
        ErrorKind::Internal
    );
    let error = block_on(Checkpoint::open_path(&folder)).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Io && error.detail().contains("config.json"),
        "{error}"
    );
}

/// Part `number` of a split set of `count` that announces `tensors`, holding one tensor named like its number.
fn part(number: u16, count: u16, tensors: i32) -> Rc<dyn ByteSource> {
    let builder = GgufBuilder::new()
        .meta("split.no", number)
        .meta("split.count", count)
        .meta("split.tensors.count", tensors)
        .meta("part", u32::from(number))
        .values(
            &format!("t{number}"),
            &[1],
            DType::F32,
            &[f32::from(number)],
        );
    memory(
        &format!("m-{:05}-of-{count:05}.gguf", number + 1),
        builder.build(),
    )
}

#[test]
fn a_split_set_is_one_checkpoint_in_any_order() {
    for order in [[0, 1, 2], [2, 0, 1]] {
        let sources = order.map(|number| part(number, 3, 3)).to_vec();
        let checkpoint = block_on(Checkpoint::open_gguf(sources)).unwrap();
        assert_eq!(
            checkpoint.metadata().require_u32("part").unwrap(),
            0,
            "the first part's metadata counts"
        );
        let names: Vec<&str> = checkpoint.file_names().collect();
        assert_eq!(
            names,
            [
                "m-00001-of-00003.gguf",
                "m-00002-of-00003.gguf",
                "m-00003-of-00003.gguf"
            ]
        );
        for number in 0..3 {
            let tensor = checkpoint.tensor(&format!("t{number}")).unwrap();
            assert_eq!(
                (tensor.file, values(&checkpoint, tensor)),
                (number, vec![number as f32])
            );
        }
    }
}

#[test]
fn a_split_set_with_a_part_too_few_or_too_many_is_refused() {
    type Sources = Vec<Rc<dyn ByteSource>>;
    let cases: &[(&str, ErrorKind, &str, Sources)] = &[
        (
            "one of three",
            ErrorKind::InvalidInput,
            "number 2 is missing",
            vec![part(0, 3, 3)],
        ),
        (
            "the first is missing",
            ErrorKind::InvalidInput,
            "number 1 is missing",
            vec![part(1, 2, 2)],
        ),
        (
            "the middle is missing",
            ErrorKind::InvalidInput,
            "number 2",
            vec![part(0, 3, 3), part(2, 3, 3)],
        ),
        (
            "one twice",
            ErrorKind::InvalidInput,
            "number 2",
            vec![part(0, 2, 2), part(0, 2, 2)],
        ),
        (
            "too many",
            ErrorKind::InvalidInput,
            "belongs to a set",
            vec![part(0, 1, 1), part(1, 2, 2)],
        ),
        (
            "two sets",
            ErrorKind::InvalidInput,
            "belongs to a set",
            vec![part(0, 2, 2), part(1, 3, 2)],
        ),
        (
            "wrong total",
            ErrorKind::InvalidFile,
            "announces 5 tensors",
            vec![part(0, 2, 5), part(1, 2, 5)],
        ),
        ("none", ErrorKind::InvalidInput, "no file", vec![]),
    ];
    for (what, kind, says, sources) in cases {
        let error = block_on(Checkpoint::open_gguf(sources.clone())).unwrap_err();
        assert!(
            error.kind() == *kind && error.detail().contains(says),
            "{what}: {error:?}"
        );
    }
}

#[test]
fn the_names_of_a_split_set_follow_from_any_of_them() {
    let expected: Vec<String> = (1..=3)
        .map(|i| format!("https://x/y/m-{i:05}-of-00003.gguf"))
        .collect();
    assert_eq!(
        split_names("https://x/y/m-00002-of-00003.gguf"),
        Some(expected)
    );
    let others = [
        "m.gguf",
        "m-00001-of-00003",
        "-of-.gguf",
        "00001-of-00002.gguf",
        "m-00004-of-00003.gguf",
        "",
        "ü.gguf",
        "m-00000-of-00003.gguf",
        "m-0001a-of-00003.gguf",
        "m-+0001-of-00003.gguf",
    ];
    for name in others {
        assert_eq!(split_names(name), None, "{name}");
    }
}

const CONFIG: &[u8] = br#"{"model_type": "llama", "hidden_size": 2}"#;

fn bf16(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    DType::BF16.quantize(values, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_safetensors_file_gives_its_tensors_and_its_config() {
    let file = safetensors(&[
        ("a", "BF16", &[2, 2], bf16(&[1.0, 2.0, 3.0, 4.0])),
        ("b", "F32", &[1], 5_f32.to_le_bytes().to_vec()),
        ("scalar", "F16", &[], vec![0, 0x3c]),
    ]);
    let checkpoint = block_on(Checkpoint::open_safetensors(
        CONFIG,
        None,
        vec![memory("model.safetensors", file)],
    ))
    .unwrap();
    assert_eq!(checkpoint.format(), FileFormat::Safetensors);
    assert_eq!(checkpoint.metadata().json().unwrap()["hidden_size"], 2);
    assert!(checkpoint.metadata().is_empty());
    let a = checkpoint.tensor("a").unwrap();
    assert_eq!(
        (a.dtype, &a.shape[..], a.rows(), a.cols()),
        (DType::BF16, &[2, 2][..], 2, 2)
    );
    assert_eq!(values(&checkpoint, a), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(values(&checkpoint, checkpoint.tensor("b").unwrap()), [5.0]);
    assert_eq!(
        values(&checkpoint, checkpoint.tensor("scalar").unwrap()),
        [1.0]
    );
}

#[test]
fn a_long_safetensors_header_takes_two_reads() {
    let names: Vec<String> = (0..10_000).map(|i| format!("tensor.{i}")).collect();
    let tensors: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "F16", &[1_u64][..], vec![0, 0x3c]))
        .collect();
    let file = safetensors(&tensors);
    let len = file.len() as u64;
    let source = Recorded::new(file, len);
    let checkpoint = block_on(Checkpoint::open_safetensors(
        CONFIG,
        None,
        vec![source.clone()],
    ))
    .unwrap();
    assert_eq!(checkpoint.tensors().len(), 10_000);
    assert_eq!(source.reads.borrow().len(), 2);
}

const INDEX: &[u8] =
    br#"{"metadata": {"total_size": 8}, "weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#;

fn shard(name: &str, tensor: &str, value: f32) -> Rc<dyn ByteSource> {
    memory(
        name,
        safetensors(&[(tensor, "F32", &[1], value.to_le_bytes().to_vec())]),
    )
}

#[test]
fn shards_are_found_by_name_in_any_order() {
    assert_eq!(
        index_shards(INDEX).unwrap(),
        ["x-1.safetensors", "x-2.safetensors"]
    );
    let sources = vec![
        shard("unrelated.safetensors", "a", 9.0),
        shard("https://host/x-2.safetensors?download=true", "b", 2.0),
        shard("folder/x-1.safetensors", "a", 1.0),
    ];
    let checkpoint = block_on(Checkpoint::open_safetensors(CONFIG, Some(INDEX), sources)).unwrap();
    assert_eq!(values(&checkpoint, checkpoint.tensor("a").unwrap()), [1.0]);
    assert_eq!(values(&checkpoint, checkpoint.tensor("b").unwrap()), [2.0]);

    let open =
        |sources| block_on(Checkpoint::open_safetensors(CONFIG, Some(INDEX), sources)).unwrap_err();
    let error: Error = open(vec![shard("x-1.safetensors", "a", 1.0)]);
    assert!(
        error.kind() == ErrorKind::InvalidInput && error.detail().contains("x-2.safetensors"),
        "{error}"
    );
}

/// What an index and its shards disagree on matters only where the model needs it.
#[test]
fn an_index_may_name_too_much_and_misplace() {
    let open =
        |sources| block_on(Checkpoint::open_safetensors(CONFIG, Some(INDEX), sources)).unwrap();
    let says = |checkpoint: &Checkpoint| checkpoint.warnings().to_vec().join("\n");
    assert!(
        open(vec![
            shard("x-1.safetensors", "a", 1.0),
            shard("x-2.safetensors", "b", 2.0)
        ])
        .warnings()
        .is_empty()
    );

    // b is nowhere.
    let checkpoint = open(vec![
        shard("x-1.safetensors", "a", 1.0),
        shard("x-2.safetensors", "c", 2.0),
    ]);
    assert_eq!(values(&checkpoint, checkpoint.require("a").unwrap()), [1.0]);
    assert!(!checkpoint.holds("b") && says(&checkpoint).contains("names b, which no shard holds"));
    let error = checkpoint.require("b").unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidFile && error.detail().contains("puts b into x-2"),
        "{error}"
    );
    let error = checkpoint.require("d").unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidFile && error.detail().contains("no tensor d"),
        "{error}"
    );

    // Each is where the other should be.
    let checkpoint = open(vec![
        shard("x-1.safetensors", "b", 2.0),
        shard("x-2.safetensors", "a", 1.0),
    ]);
    assert_eq!(values(&checkpoint, checkpoint.tensor("b").unwrap()), [2.0]);
    assert!(
        says(&checkpoint).contains("another shard"),
        "{}",
        says(&checkpoint)
    );

    // a is in both: the index settles it, whatever the order.
    let both = |value: f32| {
        let bytes = |value: f32| value.to_le_bytes().to_vec();
        safetensors(&[
            ("b", "F32", &[1], bytes(2.0)),
            ("a", "F32", &[1], bytes(value)),
        ])
    };
    for reversed in [false, true] {
        let mut sources = vec![
            shard("x-1.safetensors", "a", 1.0),
            memory("x-2.safetensors", both(9.0)),
        ];
        if reversed {
            sources.reverse();
        }
        let checkpoint = open(sources);
        assert_eq!(values(&checkpoint, checkpoint.tensor("a").unwrap()), [1.0]);
        assert!(
            says(&checkpoint).contains("several shards hold a"),
            "{}",
            says(&checkpoint)
        );
    }
    // c is in both, and the index does not say which counts.
    let with_c = |name: &str, tensor: &str| {
        let value = || 1_f32.to_le_bytes().to_vec();
        memory(
            name,
            safetensors(&[(tensor, "F32", &[1], value()), ("c", "F32", &[1], value())]),
        )
    };
    let sources = vec![
        with_c("x-1.safetensors", "a"),
        with_c("x-2.safetensors", "b"),
    ];
    let error = block_on(Checkpoint::open_safetensors(CONFIG, Some(INDEX), sources)).unwrap_err();
    assert!(
        error.detail().contains("two tensors are called c"),
        "{error}"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn of_several_files_those_that_hold_the_model_are_read() {
    let whole = || shard("model.safetensors", "a", 1.0);
    let other = |name: &str| shard(name, "a", 9.0);
    let part = |number: u32, tensor: &str| {
        shard(
            &format!("model-{number:05}-of-00002.safetensors"),
            tensor,
            1.0,
        )
    };
    type Case<'a> = (&'a str, Option<&'a [u8]>, Vec<Rc<dyn ByteSource>>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (
            "stale index",
            Some(INDEX),
            vec![other("x-1.safetensors"), whole()],
            "x-2.safetensors, which is not there",
        ),
        (
            "variant",
            None,
            vec![other("model.fp16.safetensors"), whole()],
            "model.fp16.safetensors left aside",
        ),
        (
            "consolidated",
            None,
            vec![other("consolidated.safetensors"), whole()],
            "consolidated.safetensors left",
        ),
        (
            "adapter",
            None,
            vec![whole(), other("adapter_model.safetensors")],
            "adapter_model.safetensors left",
        ),
        (
            "adapter of a name",
            None,
            vec![
                other("adapter_model.safetensors"),
                shard("my.safetensors", "a", 1.0),
            ],
            "",
        ),
        (
            "parts without index",
            None,
            vec![part(2, "b"), other("x.safetensors"), part(1, "a")],
            "left aside",
        ),
    ];
    for (what, index, sources, warns) in cases {
        let checkpoint = block_on(Checkpoint::open_safetensors(CONFIG, index, sources))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            values(&checkpoint, checkpoint.tensor("a").unwrap()),
            [1.0],
            "{what}"
        );
        let says = checkpoint.warnings().to_vec().join("\n");
        assert!(!says.is_empty() && says.contains(warns), "{what}: {says}");
    }
    let open = |index, sources| {
        block_on(Checkpoint::open_safetensors(CONFIG, index, sources)).unwrap_err()
    };
    let error = open(None, vec![part(2, "b")]);
    assert!(
        error.kind() == ErrorKind::InvalidInput && error.detail().contains("model-00001-of-00002"),
        "{error}"
    );
    let error = open(None, vec![other("a.safetensors"), other("b.safetensors")]);
    assert!(
        error.detail().contains("two tensors are called a"),
        "{error}"
    );
    // Beside a whole model too.
    let error = open(
        Some(br#"{"weight_map": {"a": "../x.safetensors"}}"#),
        vec![whole()],
    );
    assert!(
        error.kind() == ErrorKind::InvalidFile && error.detail().contains("plain file name"),
        "{error}"
    );
}

/// A folder with these files; it is made anew.
fn folder(name: &str, files: &[(&str, Vec<u8>)]) -> std::path::PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("formats")
        .join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes).unwrap();
    }
    path
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_folder_without_safetensors_says_what_it_holds() {
    let config = || ("config.json", CONFIG.to_vec());
    let a = |value: f32| safetensors(&[("a", "F32", &[1], value.to_le_bytes().to_vec())]);
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec();
    let index = ("model.safetensors.index.json", INDEX.to_vec());
    for (name, files, kind, says) in [
        (
            "pytorch",
            vec![config(), ("pytorch_model.bin", vec![0])],
            ErrorKind::Unsupported,
            "pytorch_model.bin, a PyTorch",
        ),
        (
            "meta",
            vec![("params.json", vec![0]), ("consolidated.00.pth", vec![0])],
            ErrorKind::Unsupported,
            "consolidated.00.pth",
        ),
        (
            "keras",
            vec![config(), ("tf_model.h5", vec![0])],
            ErrorKind::Unsupported,
            "TensorFlow",
        ),
        (
            "gguf",
            vec![config(), ("m.gguf", vec![0])],
            ErrorKind::InvalidInput,
            "m.gguf",
        ),
        (
            "nothing",
            vec![config()],
            ErrorKind::Io,
            "add model.safetensors",
        ),
        (
            "lfs",
            vec![config(), ("model.safetensors", lfs)],
            ErrorKind::InvalidFile,
            "git lfs pull",
        ),
        (
            "no shard",
            vec![config(), index.clone()],
            ErrorKind::Io,
            "x-1.safetensors",
        ),
    ] {
        let error = block_on(Checkpoint::open_path(&folder(name, &files))).unwrap_err();
        assert!(
            error.kind() == kind && error.to_string().contains(says),
            "{name}: {error:?}"
        );
    }
    let stale = folder(
        "stale",
        &[
            config(),
            index,
            ("model.safetensors", a(1.0)),
            ("x-1.safetensors", a(9.0)),
        ],
    );
    let checkpoint = block_on(Checkpoint::open_path(&stale)).unwrap();
    assert_eq!(values(&checkpoint, checkpoint.tensor("a").unwrap()), [1.0]);
    assert!(
        checkpoint
            .warnings()
            .to_vec()
            .concat()
            .contains("x-2.safetensors")
    );
    let beside = folder(
        "beside",
        &[
            config(),
            ("model.safetensors", a(1.0)),
            ("model.fp16.safetensors", a(9.0)),
        ],
    );
    let checkpoint = block_on(Checkpoint::open_path(&beside)).unwrap();
    assert_eq!(values(&checkpoint, checkpoint.tensor("a").unwrap()), [1.0]);
}

/// Buffers of integers, of other floats, and without elements.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn tensors_that_can_be_no_weights_are_left_aside_until_one_is_needed() {
    let file = safetensors(&[
        ("ids", "I64", &[2], vec![0; 16]),
        ("empty", "F32", &[0, 4], vec![]),
        ("mask", "BOOL", &[3], vec![0; 3]),
        ("a", "F32", &[1], 1_f32.to_le_bytes().to_vec()),
        ("packed", "F4", &[4], vec![0; 2]),
        ("i32", "I32", &[1], vec![0; 4]),
        ("u8", "U8", &[1], vec![0; 1]),
        ("f8", "F8_E4M3", &[1], vec![0; 1]),
        ("f64", "F64", &[1], vec![0; 8]),
        ("last", "I64", &[0], vec![]),
    ]);
    let one_file = |file| {
        block_on(Checkpoint::open_safetensors(
            CONFIG,
            None,
            vec![memory("model.safetensors", file)],
        ))
    };
    let checkpoint = one_file(file).unwrap();
    assert_eq!(checkpoint.tensors().len(), 1);
    assert_eq!(values(&checkpoint, checkpoint.require("a").unwrap()), [1.0]);
    let says = checkpoint.warnings().to_vec().concat();
    assert!(
        says.contains("model.safetensors: ids (I64)") && says.contains("and 6 more"),
        "{says}"
    );
    for (name, kind, says) in [
        ("ids", ErrorKind::Unsupported, "ids is stored as I64"),
        ("mask", ErrorKind::Unsupported, "BOOL"),
        ("packed", ErrorKind::Unsupported, "F4"),
        ("f64", ErrorKind::Unsupported, "F64"),
        (
            "empty",
            ErrorKind::InvalidFile,
            "dimension 0 of [0, 4] is 0",
        ),
    ] {
        assert!(checkpoint.holds(name) && checkpoint.tensor(name).is_none());
        let error = checkpoint.require(name).unwrap_err();
        assert!(
            error.kind() == kind && error.detail().contains(says),
            "{error}"
        );
    }
    for (dtype, len) in [("I64", 4), ("BOOL", 2), ("F64", 16)] {
        let error = one_file(safetensors(&[("x", dtype, &[1], vec![0; len])])).unwrap_err();
        assert!(
            error.kind() == ErrorKind::InvalidFile && error.detail().contains("takes"),
            "{dtype}: {error}"
        );
    }

    let one = || 1_f32.to_le_bytes().to_vec();
    let builder = GgufBuilder::new()
        .raw_tensor(b"ids", &[2], 27, None, vec![0; 16])
        .raw_tensor(b"empty", &[0], 0, None, vec![])
        .tensor("a", &[1], DType::F32, one())
        .raw_tensor(b"double", &[1], 28, None, vec![0; 8])
        .raw_tensor(b"bytes", &[3], 24, None, vec![0; 3]);
    let checkpoint = open(builder);
    assert_eq!(values(&checkpoint, checkpoint.require("a").unwrap()), [1.0]);
    let says = checkpoint.warnings().to_vec().concat();
    assert!(
        says.contains("ids (I64), empty (empty), double (F64) and 1 more"),
        "{says}"
    );
    for (name, says) in [
        ("ids", "I64, integers"),
        ("double", "F64"),
        ("empty", "is 0"),
        ("bytes", "I8"),
    ] {
        let error = checkpoint.require(name).unwrap_err();
        assert!(error.detail().contains(says), "{name}: {error}");
    }
    let twice = GgufBuilder::new()
        .tensor("a", &[1], DType::F32, one())
        .raw_tensor(b"a", &[1], 26, None, vec![0; 4]);
    let error = block_on(Checkpoint::open_gguf(twice.sources())).unwrap_err();
    assert!(
        error.detail().contains("two tensors are called a"),
        "{error}"
    );
}

#[test]
fn strings_that_are_not_utf8_keep_their_bytes_and_show_as_text() {
    let mut tags = StringArray::default();
    assert!(
        [&b"a"[..], b"caf\xe9", b"", b"\xff\xfe", "ü".as_bytes()]
            .iter()
            .all(|tag| tags.push_bytes(tag))
    );
    let checkpoint = open(GgufBuilder::new().meta("general.tags", tags).values(
        "a",
        &[1],
        DType::F32,
        &[1.0],
    ));
    let tags = checkpoint
        .metadata()
        .strings("general.tags")
        .unwrap()
        .unwrap();
    assert_eq!(
        tags.iter().collect::<Vec<_>>(),
        ["a", "caf\u{fffd}", "", "\u{fffd}\u{fffd}", "ü"]
    );
    assert_eq!(tags.not_utf8().collect::<Vec<_>>(), [1, 3]);
    let bytes: Vec<&[u8]> = (0..tags.len()).map(|i| tags.bytes(i).unwrap()).collect();
    assert_eq!(
        bytes,
        [&b"a"[..], b"caf\xe9", b"", b"\xff\xfe", "ü".as_bytes()]
    );
    assert_eq!(
        (tags.is_utf8(0), tags.is_utf8(1), tags.bytes(5)),
        (true, false, None)
    );
    let says = checkpoint.warnings().to_vec().concat();
    assert!(says.contains("general.tags: 2 of 5 strings"), "{says}");
}

#[test]
fn the_metadata_of_a_split_set_is_read_from_its_first_part_alone() {
    let read =
        |source: Rc<dyn ByteSource>| block_on(Checkpoint::read_gguf_metadata(source.as_ref()));
    assert_eq!(
        read(part(0, 3, 3)).unwrap().0.require_u32("part").unwrap(),
        0
    );
    let error = read(part(1, 3, 3)).unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidInput && error.detail().contains("part 2"),
        "{error}"
    );
    // A vocabulary without weights.
    let (metadata, warnings) = read(memory(
        "v.gguf",
        GgufBuilder::new().meta("a", 1_u32).build(),
    ))
    .unwrap();
    assert!(metadata.require_u32("a").unwrap() == 1 && warnings.is_empty());
}

#[test]
fn every_good_fixture_opens() {
    for references in references::all() {
        let mut opened = 0;
        let models = std::fs::read_dir(references.path("models")).unwrap();
        for model in models
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
        {
            for name in ["model.gguf", "hf", "hf-bf16", "hf-f16", "hf-bf16-sharded"] {
                let path = model.join(name);
                if path.exists() {
                    block_on(Checkpoint::open_path(&path))
                        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    opened += 1;
                }
            }
        }
        let quants = std::fs::read_dir(references.path("quants")).unwrap();
        for path in quants
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        {
            let checkpoint = block_on(Checkpoint::open_path(&path)).unwrap();
            for tensor in checkpoint.tensors() {
                values(&checkpoint, tensor);
            }
            opened += 1;
        }
        assert!(opened > 50, "only {opened} {}", references.name());
    }
}

#[test]
fn the_same_weights_come_out_of_every_container() {
    for references in references::all() {
        let model = references.path("models/llama2-gqa");
        let open = |name: &str| block_on(Checkpoint::open_path(&model.join(name))).unwrap();
        let reference = open("hf");
        for name in ["hf-bf16", "hf-f16", "hf-bf16-sharded"] {
            let other = open(name);
            assert_eq!(other.tensors().len(), reference.tensors().len(), "{name}");
            for tensor in reference.tensors() {
                let of_other = other.tensor(&tensor.name).unwrap();
                assert_eq!(of_other.shape, tensor.shape, "{name} {}", tensor.name);
                assert_eq!(
                    values(&other, of_other),
                    values(&reference, tensor),
                    "{name} {}",
                    tensor.name
                );
            }
        }
        let gguf = open("model.gguf");
        let pairs = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            (
                "blk.1.ffn_down.weight",
                "model.layers.1.mlp.down_proj.weight",
            ),
            (
                "blk.2.attn_v.weight",
                "model.layers.2.self_attn.v_proj.weight",
            ),
            ("output_norm.weight", "model.norm.weight"),
        ];
        for (ours, theirs) in pairs {
            let (ours, theirs) = (
                gguf.tensor(ours).unwrap(),
                reference.tensor(theirs).unwrap(),
            );
            assert_eq!(ours.shape, theirs.shape, "{}", ours.name);
            assert_eq!(
                values(&gguf, ours),
                values(&reference, theirs),
                "{}",
                ours.name
            );
        }
    }
}
