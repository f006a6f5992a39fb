//! Continues a text, natively: on the GPU where a Vulkan driver is installed, else on the CPU.
//!
//! ```sh
//! cargo run --release --example complete -- MODEL.gguf "Once upon a time"
//! ```
//!
//! MODEL is a GGUF file, or a folder of safetensors in Hugging Face's layout.

use llamero::engine::Model;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (args.next(), args.next()) else {
        return Err("two arguments are needed: MODEL PROMPT".into());
    };
    // Llamero's functions are async, since a browser's GPU is. Any executor runs them; pollster is the smallest.
    let text = pollster::block_on(async {
        let mut model = Model::open(path).await?;
        model.complete(&prompt).await
    })?;
    println!("{prompt}{text}");
    Ok(())
}
