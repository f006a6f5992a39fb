//! Errors of the crate as JavaScript has them, and back.

use crate::error::Error;
#[cfg(any(feature = "cpu", feature = "gpu"))]
use crate::error::ErrorKind;
use wasm_bindgen::JsValue;

/// A `LlameroError` with the kind's code.
pub fn to_js_error(error: Error) -> JsValue {
    let js = js_sys::Error::new(&error.to_string());
    js.set_name("LlameroError");
    let code = JsValue::from_str(error.kind().code());
    // Setting a property of a fresh object cannot fail.
    let _ = js_sys::Reflect::set(&js, &JsValue::from_str("code"), &code);
    js.into()
}

#[cfg(any(feature = "cpu", feature = "gpu"))]
/// An error that JavaScript threw, its `code` kept if it is one of ours.
pub fn from_js_error(value: &JsValue) -> Error {
    let text = |key: &str| {
        js_sys::Reflect::get(value, &JsValue::from_str(key))
            .ok()
            .and_then(|v| v.as_string())
    };
    let kind = text("code").and_then(|code| ErrorKind::from_code(&code));
    let kind = match kind {
        Some(kind) => kind,
        None if text("name").as_deref() == Some("AbortError") => ErrorKind::Aborted,
        None => ErrorKind::Io,
    };
    Error::new(
        kind,
        text("message").unwrap_or_else(|| format!("{value:?}")),
    )
}
