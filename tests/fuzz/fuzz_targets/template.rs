//! See `template` in tests/support/fuzz.rs.
#![no_main]

#[path = "../../support/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::template(bytes));
