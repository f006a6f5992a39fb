//! Reads shaders/permutations, whose first lines explain its form.

use super::super::table::{Choice, Family, Hole};
use super::Files;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The families that the file lists.
///
/// # Errors
/// A line that names no file, list or hole.
pub fn read(path: &Path, files: &Files) -> Result<Vec<Family>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut folders: BTreeMap<&str, &str> = BTreeMap::new();
    let mut families = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let fault = |what: &str| format!("permutations: {what} in {line:?}");
        let (name, words) = line.split_once(" = ").ok_or_else(|| fault("no ` = `"))?;
        let (name, words) = (name.trim(), words.split_whitespace().collect::<Vec<_>>());
        if let Some(hole) = name.strip_prefix('@') {
            let &[folder] = words.as_slice() else {
                return Err(fault("not one path"));
            };
            folders.insert(hole, folder);
            continue;
        }
        let source = format!("kernels/{}", words[0]);
        // A list names no file that could have an entry point.
        if !files.contains_key(&source) {
            lists.insert(name, words);
            continue;
        }
        let (mut holes, mut defines) = (Vec::new(), Vec::new());
        for word in &words[1..] {
            let Some((hole, choices)) = word.split_once('=') else {
                defines.push(leak(word));
                continue;
            };
            let (hole, folder) = match hole.split_once(':') {
                Some((hole, folder)) => (hole, folder),
                None => (
                    hole,
                    *folders
                        .get(hole)
                        .ok_or_else(|| fault("a hole without a path"))?,
                ),
            };
            let mut parsed = Vec::new();
            for choice in choices.split('|') {
                match choice.strip_prefix('$') {
                    Some(list) => {
                        let list = lists.get(list).ok_or_else(|| fault("an unknown list"))?;
                        parsed.extend(list.iter().map(|choice| parse_choice(choice)));
                    }
                    None => parsed.push(parse_choice(choice)),
                }
            }
            holes.push(Hole {
                name: leak(hole),
                files: leak(folder),
                choices: parsed.leak(),
            });
        }
        families.push(Family {
            name: leak(name),
            source: leak(&source),
            holes: holes.leak(),
            defines: defines.leak(),
        });
    }
    Ok(families)
}

/// `name:DEFINE+DEFINE@NEEDED`
fn parse_choice(text: &str) -> Choice {
    let (text, needs) = text.split_once('@').unwrap_or((text, ""));
    let (name, defines) = text.split_once(':').unwrap_or((text, ""));
    let defines: Vec<&'static str> = defines
        .split('+')
        .filter(|define| !define.is_empty())
        .map(leak)
        .collect();
    Choice {
        name: leak(name),
        defines: defines.leak(),
        needs: leak(needs),
    }
}

/// The table's types hold `&'static str`, and a build script lives for a moment.
fn leak(text: &str) -> &'static str {
    text.to_owned().leak()
}
