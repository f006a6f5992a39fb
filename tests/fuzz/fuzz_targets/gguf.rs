//! Opens any bytes as a GGUF file, and reads and dequantises what it then promises to hold.
#![no_main]

use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use llamero::format::{Checkpoint, MemorySource};

fuzz_target!(|bytes: &[u8]| {
    let source = Rc::new(MemorySource::new("fuzz.gguf", bytes.to_vec()));
    if let Ok(checkpoint) = pollster::block_on(Checkpoint::open_gguf(vec![source])) {
        for tensor in checkpoint.tensors() {
            let bytes = pollster::block_on(checkpoint.read(tensor, 0, tensor.bytes as usize)).expect("in range");
            let mut values = vec![0.0; tensor.elements() as usize];
            tensor.dtype.dequantize(&bytes, &mut values).expect("whole blocks");
        }
    }
});
