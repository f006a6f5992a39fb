//! Threads that share the work of one operation: fork, take tasks until there are none, join.
//!
//! There are a few forks per operation of a plan, so some hundred per token. Between them a thread looks for work in a
//! short loop before it goes to sleep. The thread that forks takes tasks like the others.
//!
//! Natively the pool starts its threads. In a browser only JavaScript can start a worker: one that shares this module's
//! memory comes in by [`Pool::join`]. A fork counts on those threads only that have come in by then.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Rounds of looking for work before going to sleep: some tens of microseconds.
const SPIN: u32 = 20_000;

/// The part of an epoch that is a number of threads.
const MEMBERS: u32 = 0xff;

/// A task: its index, and the index of the thread that runs it (the forking thread is 0).
type Job = dyn Fn(usize, usize) + Sync;

#[derive(Default)]
struct Shared {
    /// Counts forks; its low byte is how many threads the current one counts on. One word, so that a thread cannot see the
    /// one without the other.
    epoch: AtomicU32,
    /// Threads that have come in.
    joined: AtomicU32,
    /// Of those that the current fork counts on, how many are not done.
    running: AtomicU32,
    /// The next task that nobody has taken, and how many there are.
    next: AtomicUsize,
    tasks: AtomicUsize,
    job: UnsafeCell<Option<*const Job>>,
    /// Threads asleep, or about to be.
    sleepers: AtomicU32,
    asleep: Mutex<()>,
    wake: Condvar,
    done: Mutex<()>,
    all_done: Condvar,
    stop: AtomicBool,
    /// A thread has died in a task.
    broken: AtomicBool,
}

// SAFETY: `job` is written by the forking thread before it announces an epoch, and read by members of that epoch, for all
// of whom it waits.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

/// A team of threads. Dropping it ends those that it started.
pub struct Pool {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// The calling thread alone, until others [`join`](Pool::join).
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
        }
    }

    /// The calling thread and `threads - 1` others.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with_threads(threads: usize) -> Self {
        let pool = Self::new();
        for _ in 1..threads {
            let shared = pool.shared.clone();
            // Where the system gives no thread, the work is done by fewer.
            let started = std::thread::Builder::new()
                .name("llamero".into())
                .spawn(move || {
                    let run = std::panic::AssertUnwindSafe(|| shared.work());
                    if std::panic::catch_unwind(run).is_err() {
                        shared.died();
                    }
                });
            if started.is_err() {
                break;
            }
        }
        // A fork does not wait for those that are still starting.
        pool
    }

    /// Threads that the next fork counts on.
    pub fn threads(&self) -> usize {
        1 + self.shared.joined.load(Ordering::Acquire) as usize
    }

    /// Waits, for some milliseconds at most, until forks count on `threads` threads that are known to be about to join.
    pub fn wait_for(&self, threads: usize) {
        for _ in 0..500 * SPIN {
            if self.threads() >= threads {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// A handle by which another thread of this module joins: see [`Pool::join`]. It stays good until the program ends.
    pub fn handle(&self) -> usize {
        Arc::into_raw(self.shared.clone()) as usize
    }

    /// Works for the pool until it is dropped.
    ///
    /// # Safety
    /// `handle` comes from [`Pool::handle`], in the same memory.
    pub unsafe fn join(handle: usize) {
        // SAFETY: the handle's reference is never given back.
        unsafe { &*(handle as *const Shared) }.work();
    }

    /// To be called when [`Pool::join`] has died of a trap: the fork that waits for it goes on, and fails.
    ///
    /// # Safety
    /// As [`Pool::join`].
    pub unsafe fn died(handle: usize) {
        // SAFETY: as above.
        unsafe { &*(handle as *const Shared) }.died();
    }

    /// Runs `job(task, thread)` for every task below `tasks`, on at most `threads` threads, which are numbered from 0;
    /// returns when all are done. `false`: a thread has died, and some may not be.
    #[must_use]
    pub fn run(&self, tasks: usize, threads: usize, job: &(dyn Fn(usize, usize) + Sync)) -> bool {
        let shared = &*self.shared;
        if shared.broken.load(Ordering::Acquire) {
            return false;
        }
        let members = shared
            .joined
            .load(Ordering::Acquire)
            .min(threads.saturating_sub(1) as u32)
            .min(MEMBERS);
        if members == 0 || tasks <= 1 {
            (0..tasks).for_each(|task| job(task, 0));
            return true;
        }
        // SAFETY: nobody runs; and the pointer is used only until `running` is 0, which this waits for.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<
                &(dyn Fn(usize, usize) + Sync),
                *const Job,
            >(job));
        }
        shared.next.store(0, Ordering::Relaxed);
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.running.store(members, Ordering::Relaxed);
        let epoch = shared.epoch.load(Ordering::Relaxed);
        shared.epoch.store(
            (epoch & !MEMBERS).wrapping_add(MEMBERS + 1) | members,
            Ordering::SeqCst,
        );
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _asleep = shared.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.take_tasks(job, 0);
        for _ in 0..SPIN {
            if shared.running.load(Ordering::Acquire) == 0 {
                return !shared.broken.load(Ordering::Acquire);
            }
            std::hint::spin_loop();
        }
        let mut done = shared.done.lock().unwrap_or_else(PoisonError::into_inner);
        while shared.running.load(Ordering::Acquire) != 0 {
            done = shared
                .all_done
                .wait(done)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !shared.broken.load(Ordering::Acquire)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _asleep = self
            .shared
            .asleep
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn take_tasks(&self, job: &(dyn Fn(usize, usize) + Sync), thread: usize) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            job(task, thread);
        }
    }

    fn work(&self) {
        let mut seen = self.epoch.load(Ordering::SeqCst);
        let index = self.joined.fetch_add(1, Ordering::SeqCst);
        loop {
            // A fork that came between the two lines above did not count on this thread: it is passed over below.
            let epoch = match self.next_epoch(seen) {
                Some(epoch) => epoch,
                None => return,
            };
            seen = epoch;
            if index >= epoch & MEMBERS {
                continue;
            }
            // SAFETY: written before the epoch; the forking thread waits for this one.
            if let Some(job) = unsafe { *self.job.get() } {
                self.take_tasks(unsafe { &*job }, index as usize + 1);
            }
            self.finish();
        }
    }

    /// Waits for another epoch than `seen`; `None` when the pool ends.
    fn next_epoch(&self, seen: u32) -> Option<u32> {
        for _ in 0..SPIN {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                return Some(epoch);
            }
            std::hint::spin_loop();
        }
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                break Some(epoch);
            }
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            asleep = self
                .wake
                .wait(asleep)
                .unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        found
    }

    fn finish(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            self.all_done.notify_all();
        }
    }

    fn died(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.finish();
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = Pool::with_threads(4);
        for round in 0..2000 {
            let tasks = round % 17;
            let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
            assert!(pool.run(tasks, 4, &|task, thread| {
                assert!(thread < 4);
                counts[task].fetch_add(1, Ordering::Relaxed);
            }));
            assert!(
                counts.iter().all(|c| c.load(Ordering::Relaxed) == 1),
                "round {round}"
            );
            if round % 500 == 0 {
                // Long enough for the threads to fall asleep.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }

    #[test]
    fn a_thread_that_dies_is_noticed() {
        let pool = Pool::with_threads(2);
        while pool.threads() < 2 {
            std::thread::yield_now();
        }
        let met = AtomicU32::new(0);
        let whole = pool.run(2, 2, &|_, thread| {
            met.fetch_add(1, Ordering::SeqCst);
            // Both threads are in a task before one of them dies.
            while met.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            assert!(thread == 0, "on purpose");
        });
        assert!(!whole);
        // Nobody waits for it again.
        assert!(!pool.run(2, 2, &|_, _| {}));
    }
}
