//! Which test names which requirement: in its documentation, its attributes or its body.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::requirement::is_identifier;
use super::rules;

/// Where tests, demonstration and scenarios stand; the demonstration's steps and the scenarios run as part of the tests.
const PLACES: [&str; 7] = ["fsm-specs", "gist", "pbs-nslp", "router-agent", "endpoint", "tests/tests", "tests/src"];

/// Files below these whose functions run as tests though they are none: each step and each scenario is asserted by its table.
const STEPS: [&str; 2] = ["tests/src/demo", "tests/src/scenario"];

/// Where this stands.
const OWN: &str = "tests/src/coverage";

/// Kinds of identifiers that names of tests have; other words with a number behind them are none.
const IN_NAMES: [&str; 6] = ["FS", "FR", "FN", "X", "INV", "TMP"];

/// By identifier: the tests that name it, as `file::function`.
pub(super) type Names = BTreeMap<String, BTreeSet<String>>;

/// The names in all sources below `tree`.
///
/// # Errors
///
/// A file that cannot be read.
pub(super) fn read(tree: &Path) -> Result<Names, String> {
    let mut names = Names::new();
    for place in PLACES {
        for path in sources(&tree.join(place))? {
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let file = path.strip_prefix(tree).unwrap_or(&path).display().to_string();
            // The tests of this very reading are full of identifiers.
            if file.starts_with(OWN) {
                continue;
            }
            let is_step = STEPS.iter().any(|place| file.starts_with(place));
            for (function, identifiers) in functions(&text, is_step) {
                for identifier in identifiers {
                    names.entry(identifier).or_default().insert(format!("{file}::{function}"));
                }
            }
        }
    }
    Ok(names)
}

/// The Rust sources below a directory, sorted; a build directory is none.
fn sources(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(folder) = open.pop() {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The tests of a source, each with what it names. With `is_step` every function counts.
fn functions(text: &str, is_step: bool) -> Vec<(String, BTreeSet<String>)> {
    let mut found: Vec<(String, BTreeSet<String>)> = Vec::new();
    let (mut above, mut is_test, mut end) = (BTreeSet::new(), false, None::<String>);
    for line in text.lines() {
        if let (Some(closing), Some((_, named))) = (&end, found.last_mut()) {
            named.extend(identifiers(line));
            if line == closing {
                end = None;
            }
            continue;
        }
        let bare = line.trim_start();
        if let Some(name) = function(bare) {
            if is_test || is_step {
                above.extend(identifiers(line).chain(in_name(name)));
                found.push((name.to_owned(), std::mem::take(&mut above)));
                let indentation = &line[..line.len() - bare.len()];
                end = (!line.ends_with('}')).then(|| format!("{indentation}}}"));
            }
            (above, is_test) = (BTreeSet::new(), false);
        } else if bare.starts_with("///") || bare.starts_with("//") || bare.starts_with("#[") {
            above.extend(identifiers(line));
            is_test |= bare.starts_with("#[test]") || bare.starts_with("#[tokio::test");
        } else {
            (above, is_test) = (BTreeSet::new(), false);
        }
    }
    found
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_head =
        before.split_whitespace().all(|word| word.starts_with("pub") || ["async", "const", "in"].contains(&word) || word.ends_with(')'));
    let name = after.split(['(', '<']).next()?;
    (is_head && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')).then_some(name)
}

/// Identifiers that a function's name has at its end or within: `…_fr_24_x_50`.
fn in_name(name: &str) -> impl Iterator<Item = String> + '_ {
    let words: Vec<&str> = name.split('_').collect();
    let pairs: Vec<String> = words.windows(2).map(|pair| pair.join("-").to_ascii_uppercase()).collect();
    pairs
        .into_iter()
        .filter(|word| IN_NAMES.iter().any(|kind| word.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-'))) && is_identifier(word))
}

/// Words of the shape of an identifier, and rules of machines as `gist-querying 4c`. Of a range only its two ends are named.
fn identifiers(line: &str) -> impl Iterator<Item = String> + '_ {
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    words.filter(|word| is_identifier(word)).map(str::to_owned).chain(rules::named(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, is_step: bool) -> Vec<(String, Vec<String>)> {
        functions(text, is_step).into_iter().map(|(name, named)| (name, named.into_iter().collect())).collect()
    }

    #[test]
    fn a_test_names_what_stands_above_it_and_in_it() {
        let text = "/// G-001: opaque.\n#[test]\nfn first() {\n    // X-39.\n    if a {\n    }\n    check(\"G-002\");\n}\n\n/// G-003.\nfn helper() {}\n";
        let all = ["G-001", "G-002", "X-39"].map(str::to_owned).to_vec();
        assert_eq!(named(text, false), [("first".to_owned(), all)]);
        assert_eq!(named(text, true).len(), 2);
    }

    #[test]
    fn what_stands_above_something_else_belongs_to_nobody() {
        let text = "//! G-001.\n\n/// G-002.\nstruct Thing;\n\n#[test]\nfn none() {\n}\n\n    /// G-003\n    #[tokio::test(flavor = \"x\")]\n    async fn inner() {\n        // G-004\n    }\n// G-005\n";
        let inner = ["G-003", "G-004"].map(str::to_owned).to_vec();
        assert_eq!(named(text, false), [("none".to_owned(), vec![]), ("inner".to_owned(), inner)]);
    }

    #[test]
    fn a_name_may_hold_identifiers() {
        assert_eq!(in_name("it_drops_fr_24_x_50").collect::<Vec<_>>(), ["FR-24", "X-50"]);
        assert_eq!(in_name("it_takes_at_most_20_of_ipv_64").count(), 0);
    }

    #[test]
    fn only_whole_words_are_identifiers() {
        let found: Vec<_> = identifiers("G-001…G-004, (FN-60) HMAC-SHA-256 UTF-8 P-256 xG-001 G-0011 AES-128").collect();
        assert_eq!(found, ["G-001", "G-004", "FN-60", "P-256", "AES-128"]);
    }
}
