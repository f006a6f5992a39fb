//! From shader files to the WGSL of one variant: `#import`, `#ifdef`, and `#for NAME COUNT … #end`, which repeats lines with
//! `$NAME` counted up (so that sums have names: arrays indexed at run time do not stay in registers).
//!
//! Shared with build.rs, which assembles and validates every variant at build time; at run time the few that a
//! device uses are assembled again from the embedded files, so the binary holds each file once.

use std::fmt::Write as _;

/// One kernel variant: a source file, what fills its holes (`#import @hole`), and its defines.
#[derive(Copy, Clone, Debug)]
pub struct Recipe<'a> {
    /// Path of the file with the entry point.
    pub source: &'a str,
    /// `(hole, file path)`.
    pub imports: &'a [(&'a str, &'a str)],
    /// Names that `#ifdef` knows.
    pub defines: &'a [&'a str],
}

/// Expands a recipe. `file` gives the text of a file by its path.
///
/// # Errors
///
/// A file that `file` does not know, a hole that nothing fills, and directives that do not match, by path and line.
pub fn assemble<'f>(
    recipe: &Recipe<'_>,
    file: &dyn Fn(&str) -> Option<&'f str>,
) -> Result<String, String> {
    let mut out = String::new();
    if recipe.defines.contains(&"F16") {
        out.push_str("enable f16;\n");
    }
    let mut seen = Vec::new();
    expand(recipe, recipe.source, file, &mut seen, &mut out)?;
    Ok(out)
}

fn expand<'f>(
    recipe: &Recipe<'_>,
    path: &str,
    file: &dyn Fn(&str) -> Option<&'f str>,
    seen: &mut Vec<String>,
    out: &mut String,
) -> Result<(), String> {
    if seen.iter().any(|s| s == path) {
        return Ok(());
    }
    seen.push(path.to_owned());
    let text = file(path).ok_or_else(|| format!("no shader file {path:?}"))?;
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line))
        .collect();
    expand_lines(recipe, path, &lines, &[], file, seen, out)
}

/// Where the `#end` of a loop is, among the lines after its `#for`.
fn end_of_loop(lines: &[(usize, &str)]) -> Option<usize> {
    let mut depth = 1;
    lines.iter().position(|(_, line)| {
        match line.split_whitespace().next() {
            Some("#for") => depth += 1,
            Some("#end") => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// `names`: the loop variables around these lines, with their values.
fn expand_lines<'f>(
    recipe: &Recipe<'_>,
    path: &str,
    lines: &[(usize, &str)],
    names: &[(&str, u32)],
    file: &dyn Fn(&str) -> Option<&'f str>,
    seen: &mut Vec<String>,
    out: &mut String,
) -> Result<(), String> {
    let hole = |name: &str| {
        recipe
            .imports
            .iter()
            .find(|(hole, _)| *hole == name)
            .map(|(_, target)| *target)
    };
    // One entry per open `#ifdef`: whether its lines are kept.
    let mut open: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let (number, line) = lines[at];
        at += 1;
        let fault = |what: &str| format!("{path}:{number}: {what}");
        let mut words = line.split_whitespace();
        match words.next() {
            Some("#ifdef") => {
                let name = words.next().unwrap_or_default();
                open.push(recipe.defines.contains(&name));
            }
            Some("#else") => match open.last_mut() {
                Some(kept) => *kept = !*kept,
                None => return Err(fault("#else without #ifdef")),
            },
            Some("#endif") => {
                if open.pop().is_none() {
                    return Err(fault("#endif without #ifdef"));
                }
            }
            Some("#for") => {
                let name = words.next().unwrap_or_default();
                let count = words.next().unwrap_or_default();
                let first = at;
                let end = end_of_loop(&lines[first..]).ok_or_else(|| fault("#for without #end"))?;
                at = first + end + 1;
                if open.contains(&false) {
                    continue;
                }
                // A number, or a hole whose choice is one: `cols_4`.
                let number = hole(count)
                    .and_then(|target| target.rsplit('_').next())
                    .unwrap_or(count);
                let number: u32 = number.parse().map_err(|_| fault("how often?"))?;
                for value in 0..number {
                    let mut names = names.to_vec();
                    names.push((name, value));
                    expand_lines(
                        recipe,
                        path,
                        &lines[first..first + end],
                        &names,
                        file,
                        seen,
                        out,
                    )?;
                }
            }
            _ if open.contains(&false) => {}
            Some("#import") => {
                let name = words.next().unwrap_or_default();
                let target = match name.strip_prefix('@') {
                    None => name,
                    Some(name) => hole(name)
                        .ok_or_else(|| fault(&format!("nothing fills the hole {name:?}")))?,
                };
                expand(recipe, target, file, seen, out)?;
            }
            _ => {
                let mut line = line.to_owned();
                for (name, value) in names {
                    line = line.replace(&format!("${name}"), &value.to_string());
                }
                let _ = writeln!(out, "{line}");
            }
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("{path}: #ifdef without #endif"))
    }
}
