//! How much of what is asked for is shown by a test that says so.
//!
//! A requirement counts as shown if a test names it. Whether that test asserts what the row says, a reader decides. A transition of a
//! machine counts only if a test that names its rule takes it, and fails when it is broken ([`mutate`]).

mod mutation;
mod naming;
mod report;
mod requirement;
mod rules;
mod transition;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

pub use mutation::{LEAST_SCORE, Mutation, Options};
pub use requirement::Requirement;
pub use transition::{Transition, Tried};

/// Words that look like identifiers and are none: names of curves and ciphers.
const OTHERS: [&str; 4] = ["P-256", "P-384", "P-521", "AES-128"];

/// A requirement and who shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// The row.
    #[serde(flatten)]
    pub requirement: Requirement,
    /// The tests that name it, as `file::function`, sorted.
    pub tests: Vec<String>,
}

/// What [`read`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// Every requirement, by identifier.
    pub requirements: Vec<Shown>,
    /// Identifiers that a test names and no document lists, each with the test.
    pub unknown: Vec<(String, String)>,
    /// Every transition of every table, in their order.
    pub transitions: Vec<Transition>,
    /// What came of the last mutants of these sources, if any were tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutation: Option<Mutation>,
}

impl Coverage {
    /// The requirements that no test names.
    pub fn missing(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter().filter(|shown| shown.tests.is_empty()).map(|shown| &shown.requirement)
    }
}

/// Reads a source tree, and what the last run of mutants found if it was of these sources.
///
/// # Errors
///
/// What cannot be read, with its path.
pub fn read(tree: &Path) -> Result<Coverage, String> {
    let mut coverage = read_sources(tree)?;
    coverage.mutation = mutation::recall(tree, &mut coverage.transitions);
    Ok(coverage)
}

/// Reads a source tree, runs the tests that name a transition, and then so many mutants of the tables. `progress` is told what is done.
///
/// # Errors
///
/// What cannot be read, copied, built or run; tests that fail without a mutant.
pub fn mutate(tree: &Path, options: Options, progress: impl Fn(&str) + Sync) -> Result<Coverage, String> {
    let mut coverage = read_sources(tree)?;
    let tables = transition::tables(tree)?;
    let mutation = mutation::run(tree, &tables, &mut coverage.transitions, options, &progress);
    coverage.mutation = Some(mutation.map_err(|error| error.to_string())?);
    Ok(coverage)
}

/// How many mutants of the tables there are, and how many of them no test needs to notice, for a reason that stands in the tree.
///
/// # Errors
///
/// What cannot be read; a word of an excuse that excuses no mutant.
pub fn excused(tree: &Path) -> Result<(usize, usize), String> {
    let tables = transition::tables(tree)?;
    let transitions = transition::of(&tables, &naming::Names::new());
    mutation::excused(tree, &tables, &transitions).map_err(|error| error.to_string())
}

fn read_sources(tree: &Path) -> Result<Coverage, String> {
    let requirements = requirement::read(tree)?;
    let mut names = naming::read(tree)?;
    names.retain(|identifier, _| !OTHERS.contains(&identifier.as_str()));
    let kinds: BTreeSet<String> = requirements.keys().filter_map(|id| id.split_once('-')).map(|(kind, _)| kind.to_owned()).collect();
    let shown = |requirement: &Requirement| Shown {
        requirement: requirement.clone(),
        tests: names.get(&requirement.id).into_iter().flatten().cloned().collect(),
    };
    let is_unknown = |id: &str| !requirements.contains_key(id) && id.split_once('-').is_some_and(|(kind, _)| kinds.contains(kind));
    let transitions = transition::of(&transition::tables(tree)?, &names);
    let unknown = names.iter().filter(|(id, _)| is_unknown(id));
    Ok(Coverage {
        requirements: requirements.values().map(shown).collect(),
        unknown: unknown.flat_map(|(id, tests)| tests.iter().map(|test| (id.clone(), test.clone()))).collect(),
        transitions,
        mutation: None,
    })
}
