//! An allocator that counts, for tests of what hostile files may cost. The test binary that includes this has it as its
//! global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What opening a file may allocate beyond the file's own size.
pub const ALLOWANCE: u64 = 256 << 20;

/// Counts what this thread has allocated, and the most it ever had.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // Fails only while the thread ends.
    let _ = ALLOCATED.try_with(|allocated| {
        allocated.set(allocated.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(allocated.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if the old block lived until the new one is filled, which it may.
        count(size as i64);
        // SAFETY: the caller's promises are passed on.
        let pointer = unsafe { System.realloc(pointer, layout, size) };
        count(-(layout.size() as i64));
        pointer
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and checks that it never held more than `file_len` + [`ALLOWANCE`] bytes.
#[track_caller]
pub fn within_allowance<T>(what: &str, file_len: u64, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.get();
    PEAK.set(before);
    let result = work();
    let peak = (PEAK.get() - before) as u64;
    assert!(
        peak <= file_len + ALLOWANCE,
        "{what}: {} MiB allocated for {file_len} bytes",
        peak >> 20
    );
    result
}
