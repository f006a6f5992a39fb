//! Lists that hold others several times over: `[a, a]` of `[b, b]` of `[c, c]` … takes little memory and has no end for
//! whatever goes through it. Wherever a template puts a list or a mapping together, its size is counted, shared parts as
//! often as they are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Most values that one value may hold, beside those of the conversation.
const MOST_VALUES: usize = 1 << 14;
/// Deepest nesting: values are freed, as they are printed, from the outside in.
const MAX_DEPTH: usize = 128;
/// Values that a render may count in all …
const BASE_COUNTS: u64 = 1 << 26;
/// … and more per byte of the conversation.
const COUNTS_PER_BYTE: u64 = 64;

/// What a render may put together.
#[derive(Clone)]
pub(super) struct Bounds {
    most: usize,
    left: Arc<AtomicU64>,
}

impl Bounds {
    /// For a conversation of about `size` bytes.
    pub fn new(size: usize) -> Bounds {
        let left = BASE_COUNTS + COUNTS_PER_BYTE * size as u64;
        Bounds { most: MOST_VALUES + size, left: Arc::new(AtomicU64::new(left)) }
    }

    /// The value itself if it is small enough.
    pub fn check(&self, value: &Value) -> Result<Value, Error> {
        let mut waiting = vec![(value.clone(), 0)];
        let mut counted = 0;
        while let Some((value, depth)) = waiting.pop() {
            counted += 1;
            if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) {
                continue;
            }
            if depth == MAX_DEPTH {
                return Err(too_large("is nested too deep"));
            }
            let is_map = value.kind() == ValueKind::Map;
            // What cannot be gone through, such as a namespace, is one value.
            let Ok(items) = value.try_iter() else { continue };
            for item in items {
                if counted + waiting.len() >= self.most {
                    return Err(too_large("holds too much"));
                }
                let item = if is_map { value.get_item(&item)? } else { item };
                waiting.push((item, depth + 1));
            }
        }
        let before = self.left.load(Ordering::Relaxed);
        self.left.store(before.saturating_sub(counted as u64), Ordering::Relaxed);
        if before < counted as u64 { Err(too_large("was put together too often")) } else { Ok(value.clone()) }
    }
}

fn too_large(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a list or mapping {what}"))
}
