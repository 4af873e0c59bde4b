//! The numbered requirements, as their documents list them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

/// The documents, in `fsm-specs/requirements`.
const DOCUMENTS: [&str; 4] = ["gist.md", "pbs.md", "decisions.md", "fsm.md"];

/// One row of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requirement {
    /// `G-001`.
    pub id: String,
    /// The file that lists it.
    pub document: &'static str,
    /// MUST, SHOULD or MAY, with a star where the source says it without the word; empty where a document has no such column.
    pub level: String,
    /// What it asks for, in the document's words.
    pub text: String,
}

/// Every row of every document, by identifier.
///
/// # Errors
///
/// A document that cannot be read, or two rows of the same identifier.
pub(super) fn read(tree: &Path) -> Result<BTreeMap<String, Requirement>, String> {
    let mut all = BTreeMap::new();
    for document in DOCUMENTS {
        let path = tree.join("fsm-specs/requirements").join(document);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for requirement in text.lines().filter_map(|line| row(document, line)) {
            if let Some(first) = all.insert(requirement.id.clone(), requirement) {
                return Err(format!("{}: {} stands there twice", path.display(), first.id));
            }
        }
    }
    Ok(all)
}

/// `| G-001 | MUST | Text … |`, or `| FS-01 | S1 | event | … |`.
fn row(document: &'static str, line: &str) -> Option<Requirement> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let id = cells.next()?.to_owned();
    if !is_identifier(&id) {
        return None;
    }
    let second = cells.next()?;
    let is_level = ["MUST", "SHOULD", "MAY"].contains(&second.trim_end_matches('*'));
    let (level, text) = if is_level { (second, cells.next()?) } else { ("", second) };
    Some(Requirement { id, document, level: level.to_owned(), text: text.to_owned() })
}

/// Whether a word is an identifier by its shape: capitals, a dash, digits.
pub(super) fn is_identifier(word: &str) -> bool {
    word.split_once('-').is_some_and(|(kind, number)| {
        let is_kind = (1..=3).contains(&kind.len()) && kind.bytes().all(|byte| byte.is_ascii_uppercase());
        is_kind && (2..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_an_identifier_and_perhaps_a_level() {
        let read = row("gist.md", "| G-001 | MUST* | The SID is opaque. | 3.7 | U |").unwrap();
        assert_eq!((&*read.id, &*read.level, &*read.text), ("G-001", "MUST*", "The SID is opaque."));
        let read = row("fsm.md", "| FS-01 | S1 | first packet | – |").unwrap();
        assert_eq!((&*read.id, &*read.level, &*read.text), ("FS-01", "", "S1"));
        for line in ["", "G-001", "| ID | Level |", "|---|---|", "| G-1234 | MUST | too long |", "| g-001 | MUST | small |"] {
            assert_eq!(row("gist.md", line), None, "{line}");
        }
    }
}
