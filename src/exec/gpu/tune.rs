//! Which kernels this very device runs fastest, measured on the loaded model where the caller asks for it. The table
//! ([`super::Capabilities::tuning`]) knows vendors only, and lanes only by a rule.
//!
//! Chosen is among kernels that are as exact as the table's, or more so. The self-test comes after it, and judges what was
//! chosen.

use super::executor::GpuExecutor;
use super::lower::Tuning;
use crate::error::{ErrorKind, Result};
use crate::exec::{Executor, Head, Step, Tuned, Want};
use crate::plan::{History, Row, Sampling};
use web_time::Instant;

/// What takes longer is not begun, so that the whole takes some seconds.
const ENOUGH_SECONDS: f64 = 5.0;
/// A choice takes another's place where it takes no more than this share of its time.
const GAIN: f64 = 0.97;
/// Measurements of a choice, of which the best counts.
const TRIALS: u32 = 3;
/// A measurement takes about this long, so that submitting and waiting do not count; and this many steps at most.
const TRIAL_SECONDS: f64 = 0.05;
const MOST_STEPS: u32 = 32;
/// Rows of a prompt.
const PROMPT: u32 = 64;

/// What may be chosen.
#[derive(Copy, Clone, Debug)]
pub(super) struct Free {
    /// Whether to reduce by subgroups.
    pub subgroups: bool,
    /// Whether to do without integer dot products where the table names them.
    pub int8: bool,
    /// Lanes per row.
    pub lanes: bool,
}

/// Seconds of a step.
#[derive(Copy, Clone, Debug)]
struct Speed {
    decode: f64,
    prompt: f64,
}

impl Speed {
    /// Of kernels that do not run.
    const NONE: Self = Self {
        decode: f64::INFINITY,
        prompt: f64::INFINITY,
    };
}

/// Measures, and leaves the executor with the fastest kernels.
pub(super) async fn run(executor: &mut GpuExecutor, free: Free) -> Result<Tuned> {
    executor.set_sampling(0, &Sampling::GREEDY, History::default())?;
    let start = executor.lowered().settings.tuning;
    let prompts = start.int8 && free.int8;
    let first = speed(executor, prompts).await?;
    // Not from the first step on, in which drivers compile.
    let began = Instant::now();
    let (best, tuned) = search(start, first, free, async |tuning| {
        if began.elapsed().as_secs_f64() > ENOUGH_SECONDS {
            return Ok(None);
        }
        match executor.retune(tuning).await {
            // A driver that refuses other kernels than the usual ones: those remain.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Some(Speed::NONE)),
            retuned => {
                retuned?;
                speed(executor, prompts).await.map(Some)
            }
        }
    })
    .await?;
    executor.retune(best).await?;
    Ok(tuned)
}

/// One choice after the other, each with the best of those before; `measure` gives `None` when the time is up.
async fn search(
    start: Tuning,
    first: Speed,
    free: Free,
    mut measure: impl AsyncFnMut(Tuning) -> Result<Option<Speed>>,
) -> Result<(Tuning, Tuned)> {
    let (mut best, mut speed, mut tried) = (start, first, 1);
    let switches = [
        (free.int8 && start.int8).then_some(Change::NoInt8),
        free.subgroups.then_some(Change::Subgroups),
    ];
    let lanes = Tuning::LANES
        .into_iter()
        .filter(|_| free.lanes)
        .map(Change::Lanes);
    for change in switches.into_iter().flatten().chain(lanes) {
        let candidate = match change {
            Change::NoInt8 => Tuning {
                int8: false,
                ..best
            },
            Change::Subgroups => Tuning {
                subgroups: !best.subgroups,
                ..best
            },
            Change::Lanes(lanes) => Tuning {
                lanes: Some(lanes),
                ..best
            },
        };
        let Some(found) = measure(candidate).await? else {
            break;
        };
        tried += 1;
        let better = match change {
            // More exact: as fast is enough.
            Change::NoInt8 => found.decode <= speed.decode && found.prompt <= speed.prompt,
            _ => found.decode <= speed.decode * GAIN,
        };
        if better {
            (best, speed) = (candidate, found);
        }
    }
    Ok((
        best,
        Tuned {
            tried,
            before_ms: first.decode * 1e3,
            after_ms: speed.decode * 1e3,
        },
    ))
}

#[derive(Copy, Clone)]
enum Change {
    NoInt8,
    Subgroups,
    Lanes(u32),
}

/// How fast the executor is as it is; of prompts only where they matter: only integer dot products change them.
async fn speed(executor: &mut GpuExecutor, prompts: bool) -> Result<Speed> {
    let decode = seconds(executor, 1).await?;
    let prompt = if prompts {
        seconds(executor, PROMPT).await?
    } else {
        0.0
    };
    Ok(Speed { decode, prompt })
}

/// Seconds of a step of `rows` rows, at best.
async fn seconds(executor: &mut GpuExecutor, rows: u32) -> Result<f64> {
    let limits = executor.limits();
    let rows = rows.min(limits.max_rows).min(limits.max_context());
    let rows: Vec<Row> = (0..rows)
        .map(|pos| Row {
            token: 0,
            seq: 0,
            pos,
        })
        .collect();
    let heads = Head::all(&[0], Want::ID);
    let step = || Step::Rows {
        rows: &rows,
        heads: &heads,
        trace: None,
    };
    // The first warms the kernels up, and tells how many make a measurement.
    executor.submit(step())?.await?;
    let start = Instant::now();
    executor.submit(step())?.await?;
    let one = start.elapsed().as_secs_f64();
    let steps = ((TRIAL_SECONDS / one) as u32).clamp(1, MOST_STEPS);
    let mut best = if steps == 1 { one } else { f64::INFINITY };
    for _ in 0..TRIALS {
        let start = Instant::now();
        for _ in 1..steps {
            drop(executor.submit(step())?);
        }
        executor.submit(step())?.await?;
        best = best.min(start.elapsed().as_secs_f64() / f64::from(steps));
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Free = Free {
        subgroups: true,
        int8: true,
        lanes: true,
    };

    /// Searches where a step takes as long as `decode` and `prompt` say, with room for `most` measurements in all.
    fn find(
        start: Tuning,
        free: Free,
        most: usize,
        time: impl Fn(Tuning) -> (f64, f64),
    ) -> (Tuning, Tuned, Vec<Tuning>) {
        let mut asked = vec![start];
        let speed = |tuning| {
            let (decode, prompt) = time(tuning);
            Speed { decode, prompt }
        };
        let found = pollster::block_on(search(start, speed(start), free, async |tuning| {
            if asked.len() == most {
                return Ok(None);
            }
            asked.push(tuning);
            Ok(Some(speed(tuning)))
        }));
        let (best, tuned) = found.expect("nothing fails");
        (best, tuned, asked)
    }

    fn start() -> Tuning {
        Tuning {
            subgroups: true,
            int8: true,
            columns: true,
            splits: true,
            ..Tuning::PLAIN
        }
    }

    #[test]
    fn the_fastest_choice_wins() {
        let time = |t: Tuning| {
            let lanes = match t.lanes {
                Some(8) => 0.6,
                Some(4) => 0.9,
                _ => 1.0,
            };
            (
                lanes * if t.subgroups { 1.0 } else { 0.8 } + if t.int8 { 0.0 } else { 0.1 },
                1.0,
            )
        };
        let (best, tuned, asked) = find(start(), ALL, 99, time);
        assert_eq!(
            best,
            Tuning {
                subgroups: false,
                lanes: Some(8),
                ..start()
            }
        );
        assert_eq!(tuned.tried as usize, asked.len());
        assert_eq!(asked.len(), 8);
        assert!(
            (tuned.before_ms - 1000.0).abs() < 1e-6 && (tuned.after_ms - 480.0).abs() < 1e-6,
            "{tuned:?}"
        );
    }

    #[test]
    fn what_gains_little_changes_nothing() {
        let (best, tuned, _) = find(start(), ALL, 99, |t| {
            (
                if t.lanes.is_some() { 0.98 } else { 1.0 },
                if t.int8 { 1.0 } else { 1.1 },
            )
        });
        assert_eq!(best, start());
        assert_eq!(tuned.before_ms, tuned.after_ms);
    }

    #[test]
    fn exact_activations_need_only_be_as_fast() {
        let (best, ..) = find(start(), ALL, 99, |_| (1.0, 1.0));
        assert_eq!(
            best,
            Tuning {
                int8: false,
                ..start()
            }
        );
        // Never the other way round: where the table does not round, nothing does.
        let exact = Tuning {
            int8: false,
            ..start()
        };
        let (best, _, asked) = find(exact, ALL, 99, |t| (if t.int8 { 0.1 } else { 1.0 }, 1.0));
        assert_eq!(best, exact);
        assert!(asked.iter().all(|tuning| !tuning.int8));
    }

    #[test]
    fn what_the_caller_chose_and_time_are_respected() {
        let none = Free {
            subgroups: false,
            int8: false,
            lanes: false,
        };
        let (best, tuned, asked) = find(start(), none, 99, |_| (1.0, 1.0));
        assert_eq!((best, tuned.tried, asked.len()), (start(), 1, 1));
        let (_, tuned, asked) = find(start(), ALL, 3, |_| (1.0, 1.0));
        assert_eq!((tuned.tried, asked.len()), (3, 3));
    }

    #[test]
    fn kernels_that_a_driver_refuses_are_not_chosen() {
        let only_usual = |t: Tuning| {
            if t == start() {
                (1.0, 1.0)
            } else {
                (Speed::NONE.decode, Speed::NONE.prompt)
            }
        };
        let (best, tuned, asked) = find(start(), ALL, 99, only_usual);
        assert_eq!((best, tuned.tried, asked.len()), (start(), 8, 8));
        assert_eq!(tuned.before_ms, tuned.after_ms);
    }
}
