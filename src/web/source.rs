//! A byte source that JavaScript implements: `{name, size, read(offset, length): Promise<Uint8Array>}`.

use super::from_js_error;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ByteSource, LocalBoxFuture};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// The object that JavaScript passes in.
    pub type JsSource;
    #[wasm_bindgen(method, getter)]
    fn name(this: &JsSource) -> String;
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsSource) -> f64;
    #[wasm_bindgen(method, catch)]
    fn read(this: &JsSource, offset: f64, length: f64) -> Result<js_sys::Promise, JsValue>;
}

/// [`ByteSource`] over a [`JsSource`].
pub struct SourceAdapter {
    source: JsSource,
    name: String,
    size: u64,
}

impl SourceAdapter {
    /// Reads name and size once.
    pub fn new(source: JsSource) -> SourceAdapter {
        let (name, size) = (source.name(), source.size());
        // A size that is no size is 0: the file is then an empty one, which is an error of its own.
        let size = if size.is_finite() && size > 0.0 {
            size as u64
        } else {
            0
        };
        SourceAdapter { source, name, size }
    }
}

impl ByteSource for SourceAdapter {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            let promise = self
                .source
                .read(offset as f64, len as f64)
                .map_err(|e| from_js_error(&e))?;
            let value = JsFuture::from(promise)
                .await
                .map_err(|e| from_js_error(&e))?;
            let bytes: js_sys::Uint8Array = value
                .dyn_into()
                .map_err(|_| Error::invalid_input("a source's read did not give a Uint8Array"))?;
            if bytes.length() as usize != len {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "{}: asked for {len} bytes at {offset}, got {}",
                        self.name,
                        bytes.length()
                    ),
                ));
            }
            Ok(bytes.to_vec())
        })
    }
}
