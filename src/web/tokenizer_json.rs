//! The module that has the `tokenizers` crate, and nothing else: built with the feature `tokenizer-json` alone. An engine gets
//! at it through JavaScript, see `tokenizers.rs`.

#[path = "errors.rs"]
mod errors;

use crate::tokenizer::hf::json;
use errors::to_js_error;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// The pipeline of a `tokenizer.json`.
#[wasm_bindgen]
pub struct Pipeline {
    pipeline: json::Pipeline,
    description: Vec<u8>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

#[wasm_bindgen]
impl Pipeline {
    /// Reads a file; `adjustments` is what an engine wrote for this.
    ///
    /// # Errors
    ///
    /// A `LlameroError` for a file that cannot be used.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &[u8], adjustments: &str) -> Result<Pipeline, JsValue> {
        let (pipeline, description) =
            json::open_for_another(bytes, adjustments).map_err(to_js_error)?;
        Ok(Pipeline {
            pipeline,
            description,
        })
    }

    /// What the engine needs to know of the file; it asks once.
    pub fn description(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.description)
    }

    /// The ids of `text`.
    ///
    /// # Errors
    ///
    /// A `LlameroError` for text that cannot be encoded.
    pub fn encode(
        &self,
        text: &str,
        parse_special: bool,
        add_special: bool,
    ) -> Result<Vec<u32>, JsValue> {
        let mut ids = Vec::new();
        self.pipeline
            .encode(text, parse_special, add_special, &mut ids)
            .map_err(to_js_error)?;
        Ok(ids)
    }
}
