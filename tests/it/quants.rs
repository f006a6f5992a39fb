//! Block layouts: exact against values that numpy and ggml agree on, and round trips within each type's error.

use crate::support::{npy, references};

use llamero::error::ErrorKind;
use llamero::quant::DType;
use proptest::prelude::*;

/// Types in the fixtures that this crate does not read.
const NOT_OURS: &[&str] = &["Q1_0"];

/// Every type, and the hash of the `f32` bits of 64 blocks of [`random_bytes`] with seed `ggml_id + 1`, NaNs made equal.
/// Computed with `gguf.quants.dequantize` of the `gguf` Python package 0.19.
const DEQUANTISED: &[(DType, u64)] = &[
    (DType::F32, 0xfb5c98e2be690afd),
    (DType::F16, 0x996c0d5cabdc7009),
    (DType::BF16, 0xf3865f07ee6d3e86),
    (DType::Q4_0, 0xfd348fc72322a56b),
    (DType::Q4_1, 0x0eac66b4c2533eb4),
    (DType::Q5_0, 0x68e07dfb535ed2b7),
    (DType::Q5_1, 0xcb776a4a14c36cc4),
    (DType::Q8_0, 0xabf66e0423229028),
    (DType::Q2_K, 0x227a3699ed0397b3),
    (DType::Q3_K, 0x42762d4c9504c07f),
    (DType::Q4_K, 0x10f553abb1cb1733),
    (DType::Q5_K, 0x4f2b6f1f712611e2),
    (DType::Q6_K, 0xa860f3a0b8044b29),
    (DType::IQ1_S, 0xef9a3a28c529f50f),
    (DType::IQ1_M, 0x6f0ce719a72b79fb),
    (DType::IQ2_XXS, 0xc798e1693da79e2a),
    (DType::IQ2_XS, 0x3ec4cebe2117eab0),
    (DType::IQ2_S, 0x7340741bbe0ceb97),
    (DType::IQ3_XXS, 0x8ba5f597cadb6997),
    (DType::IQ3_S, 0x8475f59709add38e),
    (DType::IQ4_NL, 0x72f458a7c8e12890),
    (DType::IQ4_XS, 0x3e77a3a52a83462c),
    (DType::TQ1_0, 0xf0a6a83a78be1ed6),
    (DType::TQ2_0, 0x57d97737fa309c31),
    (DType::MXFP4, 0x6baf00d6d6b74263),
    (DType::NVFP4, 0x55f9fcedae26382b),
];

/// Types that can be written, the bytes that 256 values take, and their hash; see the test that uses it. Computed with
/// `gguf.quants.quantize`.
const QUANTISED: &[(DType, usize, u64)] = &[
    (DType::F16, 512, 0x1e445765eb295672),
    (DType::BF16, 512, 0x4ca1a52c380bee51),
    (DType::Q4_0, 144, 0x12448cac9b77a97a),
    (DType::Q4_1, 160, 0x329ab71adde4c1a0),
    (DType::Q5_0, 176, 0x73e1d1337163daee),
    (DType::Q5_1, 192, 0x297d00cea60e0a7b),
    (DType::Q8_0, 272, 0x1c64dbce6f3cbd88),
];

#[test]
fn every_type_dequantises_bit_for_bit_as_the_fixtures() {
    for references in references::all() {
        let index = references.json("quants/dequant/index.json");
        let index = index.as_object().unwrap();
        for dtype in DType::ALL {
            assert!(index.contains_key(dtype.name()), "no blocks of {dtype}");
        }
        for (name, entry) in index {
            let Some(dtype) = DType::from_name(name) else {
                assert!(NOT_OURS.contains(&name.as_str()), "unknown type {name}");
                continue;
            };
            assert_eq!(entry["block_values"], dtype.block_len(), "{name}");
            assert_eq!(entry["block_bytes"], dtype.block_bytes(), "{name}");
            let folder = references.path("quants/dequant");
            let bytes = std::fs::read(folder.join(format!("{name}.bin"))).unwrap();
            let (_, expected) = npy::read_npy(&folder.join(format!("{name}.npy")));
            let mut got = vec![0.0; expected.len()];
            dtype.dequantize(&bytes, &mut got).unwrap();
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let same =
                    got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
                assert!(
                    same,
                    "{name}[{i}]: got {got} ({:08x}), expected {expected}",
                    got.to_bits()
                );
            }
        }
        eprintln!("{} types of the {}", index.len(), references.name());
    }
}

#[test]
fn every_type_dequantises_bit_for_bit_as_gguf_py() {
    let listed: Vec<DType> = DEQUANTISED.iter().map(|(dtype, _)| *dtype).collect();
    assert_eq!(listed, DType::ALL);
    for &(dtype, expected) in DEQUANTISED {
        let bytes = random_bytes(64 * dtype.block_bytes(), u64::from(dtype.ggml_id()) + 1);
        let mut values = vec![0.0_f32; 64 * dtype.block_len()];
        dtype.dequantize(&bytes, &mut values).unwrap();
        let canonical = values.iter().map(|value| {
            if value.is_nan() {
                0x7fc0_0000
            } else {
                value.to_bits()
            }
        });
        let hash = fnv(canonical.flat_map(u32::to_le_bytes));
        assert_eq!(
            hash,
            expected,
            "{dtype}: {hash:016x}, expected {expected:016x}; first values {:?}",
            &values[..1]
        );
    }
}

#[test]
fn quantising_gives_the_bytes_of_gguf_py() {
    // 16-bit integers / 4096, a block of zeros, and a block of equal values.
    let mut values: Vec<f32> = random_bytes(512, 99)
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&n| f32::from(i16::from_le_bytes(n)) / 4096.0)
        .collect();
    values[64..96].fill(0.0);
    values[96..128].fill(0.75);
    for &(dtype, len, expected) in QUANTISED {
        let mut bytes = Vec::new();
        dtype.quantize(&values, &mut bytes).unwrap();
        assert_eq!(bytes.len(), len, "{dtype}");
        let hash = fnv(bytes.iter().copied());
        assert_eq!(
            hash,
            expected,
            "{dtype}: {hash:016x}, expected {expected:016x}; first bytes {:?}",
            &bytes[..20]
        );
    }
}

#[test]
fn names_and_numbers_lead_back_to_the_type() {
    for &dtype in DType::ALL {
        assert_eq!(DType::from_ggml(dtype.ggml_id()), Some(dtype));
        assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        assert_eq!(DType::from_name(&dtype.name().to_lowercase()), Some(dtype));
        assert_eq!(dtype.to_string(), dtype.name());
        assert_eq!(format!("{dtype:?}"), dtype.name());
    }
    // Removed types, integers, types of intermediate results.
    for id in [4, 5, 9, 15, 24, 27, 28, 31, 36, 38, 42, u32::MAX] {
        assert_eq!(DType::from_ggml(id), None, "{id}");
    }
    assert_eq!(DType::from_name("Q9_9"), None);
}

#[test]
fn rows_are_whole_blocks() {
    assert_eq!(DType::F32.row_bytes(3), Some(12));
    assert_eq!(DType::Q4_0.row_bytes(64), Some(36));
    assert_eq!(DType::Q4_0.row_bytes(48), None);
    assert_eq!(DType::Q6_K.row_bytes(256), Some(210));
    assert_eq!(DType::Q6_K.row_bytes(32), None);
    assert_eq!(DType::F32.row_bytes(u64::MAX), None);
    assert_eq!(DType::Q8_0.row_bytes(u64::MAX - 31), None);
}

#[test]
fn lengths_that_disagree_are_errors() {
    for &dtype in DType::ALL {
        let bytes = vec![0; dtype.block_bytes()];
        for (bytes, len) in [
            (&bytes[1..], dtype.block_len()),
            (&bytes[..], 2 * dtype.block_len()),
            (&bytes[..], 0),
        ] {
            let error = dtype.dequantize(bytes, &mut vec![0.0; len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal, "{dtype}: {error}");
        }
        dtype.dequantize(&[], &mut []).unwrap();
    }
    assert_eq!(
        DType::Q4_0
            .quantize(&[0.0; 31], &mut Vec::new())
            .unwrap_err()
            .kind(),
        ErrorKind::Internal
    );
    assert_eq!(
        DType::Q4_K
            .quantize(&[0.0; 256], &mut Vec::new())
            .unwrap_err()
            .kind(),
        ErrorKind::Unsupported
    );
}

/// How far a value may move when it is stored: in steps between two levels of its block.
fn steps(dtype: DType, block: &[f32]) -> f32 {
    let largest = block
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let max = block.iter().copied().fold(f32::MIN, f32::max);
    let min = block.iter().copied().fold(f32::MAX, f32::min);
    match dtype {
        // The side without the extreme has one level less, so its end may be a whole step away.
        DType::Q4_0 => largest / 8.0,
        DType::Q5_0 => largest / 16.0,
        DType::Q4_1 => (max - min) / 15.0 / 2.0,
        DType::Q5_1 => (max - min) / 31.0 / 2.0,
        DType::Q8_0 => largest / 127.0 / 2.0,
        _ => 0.0,
    }
}

proptest! {
    #[test]
    fn a_round_trip_stays_within_the_types_error(
        values in prop::collection::vec(-1000.0_f32..1000.0, 32..=32),
        scale in prop::sample::select(vec![1.0_f32, 1e-3, 1e-6]),
    ) {
        let values: Vec<f32> = values.iter().map(|value| value * scale).collect();
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0] {
            let mut bytes = vec![7];
            dtype.quantize(&values, &mut bytes).unwrap();
            prop_assert_eq!(bytes[0], 7, "quantize appends");
            let mut back = vec![0.0; values.len()];
            dtype.dequantize(&bytes[1..], &mut back).unwrap();
            // Scale and minimum are rounded to f16: 11 bits, and near zero to multiples of 2^-24.
            let rounding = match dtype {
                DType::F32 => 0.0,
                DType::BF16 => largest / 256.0,
                _ => largest / 512.0 + 256.0 * 2_f32.powi(-25),
            };
            let allowed = steps(dtype, &values) * 1.0001 + rounding;
            for (value, back) in values.iter().zip(&back) {
                prop_assert!((value - back).abs() <= allowed, "{}: {} became {}, allowed {}", dtype, value, back, allowed);
            }
        }
    }

    #[test]
    fn floats_come_back_as_the_same_bits(bits in prop::collection::vec(any::<u32>(), 0..64)) {
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let size = dtype.block_bytes();
            let mut floats = vec![0.0; bytes.len() / size];
            dtype.dequantize(&bytes, &mut floats).unwrap();
            let mut back = Vec::new();
            dtype.quantize(&floats, &mut back).unwrap();
            // A NaN stays one, though perhaps another.
            for (i, float) in floats.iter().enumerate().filter(|(_, float)| !float.is_nan()) {
                prop_assert_eq!(&back[i * size..][..size], &bytes[i * size..][..size], "{} {}", dtype, float);
            }
        }
    }

    #[test]
    fn any_bytes_dequantise(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for &dtype in DType::ALL {
            let blocks = bytes.len() / dtype.block_bytes();
            let mut values = vec![0.0; blocks * dtype.block_len()];
            dtype.dequantize(&bytes[..blocks * dtype.block_bytes()], &mut values).unwrap();
        }
    }

    #[test]
    fn any_floats_quantise(bits in prop::collection::vec(any::<u32>(), 32..=32)) {
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        for (dtype, ..) in QUANTISED {
            let mut bytes = Vec::new();
            dtype.quantize(&values, &mut bytes).unwrap();
            prop_assert_eq!(Some(bytes.len() as u64), dtype.row_bytes(32));
        }
    }
}

/// The top bytes of a 64-bit linear congruential generator (Knuth's constants).
fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

/// FNV-1a, 64 bits.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf29ce484222325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3)
    })
}
