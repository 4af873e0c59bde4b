//! Mutants that are no other machine, each with the reason (`fsm-specs/tables/equivalent.txt`).

use std::fmt;
use std::io;
use std::path::Path;

use crate::coverage::transition::Transition;

/// The file, below the tree.
const FILE: &str = "fsm-specs/tables/equivalent.txt";

/// A line: which transitions, which change of them, and why nobody can tell.
#[derive(Debug)]
pub(super) struct Excuse {
    line: usize,
    /// Machine, rule, state, condition, change; `*` is any.
    words: [String; 5],
}

impl Excuse {
    pub(super) fn is_for(&self, of: &Transition, what: &str) -> bool {
        let words = [&of.machine, &of.rule, &of.from, &of.condition, what].map(str_of);
        self.words.iter().zip(words).all(|(wanted, word)| match wanted.strip_suffix('*') {
            Some(beginning) => word.starts_with(beginning),
            None => wanted.split(", ").any(|wanted| wanted == word),
        })
    }
}

impl fmt::Display for Excuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FILE}:{}: {}", self.line, self.words.join(" | "))
    }
}

fn str_of<T: AsRef<str> + ?Sized>(word: &T) -> &str {
    word.as_ref()
}

/// All of them.
///
/// # Errors
///
/// A file that cannot be read, and a line that has not six columns, the last of them the reason.
pub(super) fn read(tree: &Path) -> io::Result<Vec<Excuse>> {
    let path = tree.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    let mut excuses = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.starts_with('#') && !text.trim().is_empty()) {
        let [machine, rule, state, condition, change, reason] = *text.split('|').map(str::trim).collect::<Vec<_>>() else {
            return Err(io::Error::other(format!("{FILE}:{line}: not machine | rule | state | condition | change | reason")));
        };
        if reason.is_empty() {
            return Err(io::Error::other(format!("{FILE}:{line}: there is no reason")));
        }
        excuses.push(Excuse { line, words: [machine, rule, state, condition, change].map(str::to_owned) });
    }
    Ok(excuses)
}
