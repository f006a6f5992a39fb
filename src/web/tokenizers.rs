//! `tokenizer.json` through another module, which JavaScript loads: [`super::tokenizer_json`] is that module.

use super::errors::from_js_error;
use crate::error::{Error, Result};
use crate::tokenizer::remote::{Encode, Opened, set_opener};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// A `Pipeline` of the other module.
    type JsPipeline;
    #[wasm_bindgen(method)]
    fn description(this: &JsPipeline) -> Vec<u8>;
    #[wasm_bindgen(method, catch)]
    fn encode(
        this: &JsPipeline,
        text: &str,
        parse_special: bool,
        add_special: bool,
    ) -> Result<Vec<u32>, JsValue>;
}

impl Encode for JsPipeline {
    fn encode(&self, text: &str, parse_special: bool, add_special: bool) -> Result<Vec<u32>> {
        self.encode(text, parse_special, add_special)
            .map_err(|error| from_js_error(&error))
    }
}

/// `open(json, adjustments)` is called where a model has a `tokenizer.json`, with its bytes and a text for the other
/// module's `Pipeline`, of which it returns a promise.
#[wasm_bindgen]
pub fn set_tokenizers(open: js_sys::Function) {
    set_opener(Rc::new(move |bytes, adjustments| {
        let opened = open.call2(
            &JsValue::NULL,
            &js_sys::Uint8Array::from(bytes),
            &JsValue::from_str(adjustments),
        );
        Box::pin(async move {
            let promise: js_sys::Promise = opened
                .and_then(|opened| opened.dyn_into())
                .map_err(|error| from_js_error(&error))?;
            let pipeline = JsFuture::from(promise)
                .await
                .map_err(|error| from_js_error(&error))?;
            if !pipeline.is_object() {
                return Err(Error::internal("the tokenizers' module gave no pipeline"));
            }
            let pipeline: JsPipeline = pipeline.unchecked_into();
            Ok(Opened {
                description: pipeline.description(),
                pipeline: Box::new(pipeline),
            })
        })
    }));
}
