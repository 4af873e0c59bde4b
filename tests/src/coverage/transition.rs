//! The transitions of all tables, and the tests that name their rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fsm_specs::Table;
use serde::Serialize;

use super::requirement::is_identifier;

/// A row of a table as it applies to one state, and who shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// `gist-querying`.
    pub machine: String,
    /// `4c`.
    pub rule: String,
    /// The state before.
    pub from: String,
    /// Event and guard, as the table writes them.
    pub condition: String,
    /// The state after.
    pub to: String,
    /// The tests that name the rule, as `file::function`, sorted.
    pub tests: Vec<String>,
    /// Those of them that take the transition; `None` if no test run of these sources is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<Vec<String>>,
    /// Mutants of it that were tried, and that the tests noticed; `None` as before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutants: Option<Tried>,
}

/// Mutants of a transition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Tried {
    /// How many were tried.
    pub tried: usize,
    /// How many of these made a test fail.
    pub caught: usize,
}

impl Transition {
    /// What it is called in lists: `gist-querying 4c | AwaitingResponse | tg_Proven [candidate]`.
    pub fn name(&self) -> String {
        let Self { machine, rule, from, condition, .. } = self;
        format!("{machine} {rule} | {from} | {condition}")
    }

    /// Whether it counts: a test names and takes it, and fails for a mutant of it.
    pub fn is_covered(&self) -> bool {
        self.taken_by.as_ref().is_some_and(|tests| !tests.is_empty()) && self.mutants.is_some_and(|mutants| mutants.caught > 0)
    }
}

/// All tables of a source tree, sorted by name.
///
/// # Errors
///
/// A table that cannot be read or is wrong.
pub(super) fn tables(tree: &Path) -> Result<Vec<Table>, String> {
    let directory = tree.join("fsm-specs");
    let names = fsm_specs::names_in(&directory).map_err(|error| error.to_string())?;
    names.iter().map(|name| fsm_specs::load_in(&directory, name).map_err(|error| error.to_string())).collect()
}

/// The transitions of tables, in their order, with the tests that `names` has for their rules.
pub(super) fn of(tables: &[Table], names: &BTreeMap<String, BTreeSet<String>>) -> Vec<Transition> {
    let mut all = Vec::new();
    for table in tables {
        let machine = &table.machine.name;
        for cell in table.transitions() {
            let rule = &cell.row.rule;
            let mut tests = names.get(&format!("{machine} {rule}")).cloned().unwrap_or_default();
            if is_identifier(rule) {
                tests.extend(names.get(rule).into_iter().flatten().filter(|test| is_of(machine, test)).cloned());
            }
            all.push(Transition {
                machine: machine.clone(),
                rule: rule.clone(),
                from: cell.state.to_owned(),
                condition: cell.row.condition(),
                to: cell.next.to_owned(),
                tests: tests.into_iter().collect(),
                taken_by: None,
                mutants: None,
            });
        }
    }
    all
}

/// Whether a test is of the crate that has the machine: only such a test can be said to take it.
fn is_of(machine: &str, test: &str) -> bool {
    let places = [("gist-", "gist/"), ("pbs-", "pbs-nslp/"), ("traffic-", "router-agent/traffic/")];
    places.iter().any(|(machines, place)| machine.starts_with(machines) && test.starts_with(place))
}
