//! From shader files to the WGSL of one variant: `#import`, `#ifdef`, and nothing else.
//!
//! Shared with build.rs, which assembles and validates every variant at build time; at run time the few that a
//! device uses are assembled again from the embedded files, so the binary holds each file once.

use std::fmt::Write as _;

/// One kernel variant: a source file, what its `#import @slot`s mean, and its defines.
#[derive(Copy, Clone, Debug)]
pub struct Recipe<'a> {
    /// Stem of the file with the entry point.
    pub source: &'a str,
    /// `(slot, file stem)`.
    pub imports: &'a [(&'a str, &'a str)],
    /// Names that `#ifdef` knows.
    pub defines: &'a [&'a str],
}

/// Expands a recipe. `file` gives the text of a file by its stem.
pub fn assemble<'f>(recipe: &Recipe<'_>, file: &dyn Fn(&str) -> Option<&'f str>) -> Result<String, String> {
    let mut out = String::new();
    let mut seen = Vec::new();
    expand(recipe, recipe.source, file, &mut seen, &mut out)?;
    Ok(out)
}

fn expand<'f>(
    recipe: &Recipe<'_>,
    stem: &str,
    file: &dyn Fn(&str) -> Option<&'f str>,
    seen: &mut Vec<String>,
    out: &mut String,
) -> Result<(), String> {
    if seen.iter().any(|s| s == stem) {
        return Ok(());
    }
    seen.push(stem.to_owned());
    let text = file(stem).ok_or_else(|| format!("no shader file {stem:?}"))?;
    // One entry per open `#ifdef`: whether its lines are kept.
    let mut open: Vec<bool> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("#ifdef") => {
                let name = words.next().unwrap_or_default();
                open.push(recipe.defines.contains(&name));
            }
            Some("#else") => match open.last_mut() {
                Some(kept) => *kept = !*kept,
                None => return Err(format!("{stem}:{}: #else without #ifdef", number + 1)),
            },
            Some("#endif") => {
                if open.pop().is_none() {
                    return Err(format!("{stem}:{}: #endif without #ifdef", number + 1));
                }
            }
            _ if open.contains(&false) => {}
            Some("#import") => {
                let name = words.next().unwrap_or_default();
                let target = match name.strip_prefix('@') {
                    None => name,
                    Some(slot) => recipe
                        .imports
                        .iter()
                        .find(|(s, _)| *s == slot)
                        .map(|(_, target)| *target)
                        .ok_or_else(|| format!("{stem}:{}: nothing chosen for slot {slot:?}", number + 1))?,
                };
                expand(recipe, target, file, seen, out)?;
            }
            _ => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{stem}: #ifdef without #endif")) }
}
