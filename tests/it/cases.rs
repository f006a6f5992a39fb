//! Runs of the command line, those of public bug reports among them: each is a folder with input files and case.json, which says
//! what to run there and what has to come out.

use crate::support::npy;
use crate::support::references::{self, References};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Deserialize)]
struct Case {
    /// `llamero` and its arguments.
    command: Vec<String>,
    expected: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    exit: i32,
    /// What standard output holds, see [`holds`].
    #[serde(default)]
    json: Map<String, Value>,
    /// One of these words is in the message, in any case of letters.
    #[serde(default)]
    stderr_any: Vec<String>,
    npy: Option<Npy>,
}

/// Logits that are written to `out` and lie within `tolerance` of those in `like`.
#[derive(Deserialize)]
struct Npy {
    out: PathBuf,
    like: PathBuf,
    tolerance: f32,
}

/// Objects may have more keys; lists of objects agree entry by entry, all else exactly.
fn holds(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => want
            .iter()
            .all(|(key, want)| got.get(key).is_some_and(|got| holds(got, want))),
        (Value::Array(got), Value::Array(want)) if want.iter().any(Value::is_object) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| holds(got, want))
        }
        (got, want) => got == want,
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(std::fs::copy(&path, &target).unwrap()),
        }
    }
}

/// Runs a case in a copy of its folder; what is wrong, if anything.
fn check(references: &References, folder: &Path) -> Result<(), String> {
    let case = std::fs::read_to_string(folder.join("case.json")).unwrap();
    let Case { command, expected } =
        serde_json::from_str(&case).map_err(|error| error.to_string())?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("cases")
        .join(references.name())
        .join(folder.file_name().unwrap());
    if place.exists() {
        std::fs::remove_dir_all(&place).unwrap();
    }
    copy(folder, &place);
    let mut llamero = Command::new(env!("CARGO_BIN_EXE_llamero"));
    llamero
        .current_dir(&place)
        .env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"))
        .args(&command[1..]);
    let output = llamero.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(expected.exit) {
        return Err(format!(
            "exit {:?}, not {}: {words}",
            output.status.code(),
            expected.exit
        ));
    }
    if !expected.json.is_empty() {
        let want = Value::Object(expected.json);
        let text = String::from_utf8_lossy(&output.stdout);
        let got = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if !holds(&got, &want) {
            return Err(format!("{got}, which does not hold {want}"));
        }
    }
    let said = words.to_lowercase();
    if !expected.stderr_any.is_empty()
        && !expected
            .stderr_any
            .iter()
            .any(|word| said.contains(&word.to_lowercase()))
    {
        return Err(format!("{words:?} has none of {:?}", expected.stderr_any));
    }
    if let Some(Npy {
        out,
        like,
        tolerance,
    }) = expected.npy
    {
        let (got, want) = (
            npy::read_npy(&place.join(out)),
            npy::read_npy(&place.join(like)),
        );
        if got.0 != want.0 {
            return Err(format!("logits of shape {:?}, not {:?}", got.0, want.0));
        }
        let far = got
            .1
            .iter()
            .zip(&want.1)
            .map(|(got, want)| (got - want).abs())
            .find(|far| far.is_nan() || *far > tolerance);
        if let Some(far) = far {
            return Err(format!("a logit is {far} away"));
        }
    }
    Ok(())
}

#[test]
fn what_was_reported_is_mended() {
    for references in references::all() {
        let cases = references.cases();
        let least = if references.own { 6 } else { 21 };
        assert!(cases.len() >= least, "only {} cases", cases.len());
        let wrong: Vec<String> = cases
            .iter()
            .filter_map(|case| {
                check(&references, case)
                    .err()
                    .map(|why| format!("{}: {why}", case.file_name().unwrap().display()))
            })
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {} cases are wrong:\n{}",
            wrong.len(),
            cases.len(),
            wrong.join("\n")
        );
    }
}

#[test]
fn a_result_holds_what_is_wanted_or_not() {
    use serde_json::json;
    let got = json!({"a": 1, "list": [{"b": 1, "c": 2}, {"b": 3}], "ids": [1, 2]});
    for want in [
        json!({"a": 1}),
        json!({"list": [{"b": 1}, {"b": 3}]}),
        json!({"ids": [1, 2]}),
        json!({}),
    ] {
        assert!(holds(&got, &want), "{want}");
    }
    for want in [
        json!({"a": 2}),
        json!({"x": 1}),
        json!({"list": [{"b": 1}]}),
        json!({"ids": [1]}),
        json!([]),
    ] {
        assert!(!holds(&got, &want), "{want}");
    }
}
