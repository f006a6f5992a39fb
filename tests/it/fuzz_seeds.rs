//! Replays what the fuzzer starts from, and all that it ever found, as an ordinary test.

use crate::support::fuzz;
use std::path::Path;
use std::time::{Duration, Instant};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds");

/// The fuzzer takes a run for a hang after ten seconds; seeds are far below.
const LONGEST: Duration = Duration::from_secs(5);

#[test]
fn every_seed_of_every_target_passes() {
    let mut folders: Vec<String> = std::fs::read_dir(SEEDS)
        .expect("seeds")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a plain name")
        })
        .collect();
    folders.sort();
    let targets: Vec<&str> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        folders, targets,
        "each target has a folder of seeds, and each folder a target"
    );
    for (target, run) in fuzz::TARGETS {
        let mut seeds = 0;
        for seed in std::fs::read_dir(Path::new(SEEDS).join(target)).expect("a folder") {
            let path = seed.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a seed");
            // A panic does not say which seed it was.
            eprintln!("{}", path.display());
            let start = Instant::now();
            run(&bytes);
            assert!(
                start.elapsed() < LONGEST,
                "{}: took {:?}",
                path.display(),
                start.elapsed()
            );
            seeds += 1;
        }
        assert!(seeds >= 4, "{target}: {seeds} seeds");
    }
}
