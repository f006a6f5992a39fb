//! See `gguf` in tests/it/support/fuzz.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| llamero_fuzz::gguf(bytes));
