//! Events to a JavaScript callback, and room for the worker's message queue between steps.

use super::{from_js_error, to_js};
use crate::engine::{Event, Host};
use crate::error::{Error, Result};
use crate::plan::LocalBoxFuture;
use std::cell::Cell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

// A message to oneself: a macrotask, so that a cancel message gets its turn, without the 4 ms that nested timers cost.
#[wasm_bindgen(inline_js = r#"
const waiting = [];
let channel = null;
export function next_task() {
    if (!channel) {
        channel = new MessageChannel();
        channel.port1.onmessage = () => waiting.shift()?.();
    }
    return new Promise((resolve) => {
        waiting.push(resolve);
        channel.port2.postMessage(0);
    });
}
"#)]
extern "C" {
    fn next_task() -> js_sys::Promise;
}

pub struct JsHost {
    pub on_event: js_sys::Function,
    pub cancelled: Rc<Cell<bool>>,
}

impl Host for JsHost {
    fn event(&mut self, event: Event) -> Result<()> {
        let value = to_js(&event).map_err(|_| Error::internal("an event does not serialise"))?;
        self.on_event.call1(&JsValue::NULL, &value).map(drop).map_err(|e| from_js_error(&e))
    }

    fn cancelled(&self) -> bool {
        self.cancelled.get()
    }

    fn pause(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            // The promise never rejects.
            let _ = JsFuture::from(next_task()).await;
        })
    }
}
