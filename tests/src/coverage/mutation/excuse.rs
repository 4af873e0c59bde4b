//! Mutants that are no other machine, each with the reason (`fsm-specs/tables/equivalent.txt`).

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
        self.words.iter().zip(columns(of, what)).all(|(wanted, word)| match wanted.strip_suffix('*') {
            Some(beginning) => word.starts_with(beginning),
            None => wanted.split(", ").any(|wanted| wanted == word),
        })
    }

    /// Each word of each column, so that it can be told which of them excuse nothing.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        let of_column = |(column, wanted): (usize, &String)| {
            let words: Vec<_> = wanted.split(", ").map(|word| self.name(column, word)).collect();
            words
        };
        self.words.iter().enumerate().flat_map(of_column).collect::<Vec<_>>().into_iter()
    }

    /// Those of them by which it is for this change of a transition.
    pub(super) fn used_by(&self, of: &Transition, what: &str) -> Vec<String> {
        let used =
            |(column, (wanted, word)): (usize, (&String, &str))| self.name(column, if wanted.ends_with('*') { wanted } else { word });
        self.words.iter().zip(columns(of, what)).enumerate().map(used).collect()
    }

    fn name(&self, column: usize, word: &str) -> String {
        let column = ["machine", "rule", "state", "condition", "change"].get(column).unwrap_or(&"column");
        format!("{FILE}:{}: the {column} `{word}`", self.line)
    }
}

fn columns<'a>(of: &'a Transition, what: &'a str) -> [&'a str; 5] {
    [&of.machine, &of.rule, &of.from, &of.condition, what].map(str_of)
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
