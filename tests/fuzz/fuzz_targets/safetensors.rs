//! Opens any bytes as a safetensors file, and reads what it then promises to hold.
#![no_main]

use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use llamero::format::{Checkpoint, MemorySource};

fuzz_target!(|bytes: &[u8]| {
    let source = Rc::new(MemorySource::new("fuzz.safetensors", bytes.to_vec()));
    if let Ok(checkpoint) = pollster::block_on(Checkpoint::open_safetensors(b"{}", None, vec![source])) {
        for tensor in checkpoint.tensors() {
            pollster::block_on(checkpoint.read(tensor, 0, tensor.bytes as usize)).expect("in range");
        }
    }
});
