//! Tables with one thing wrong: what a test of a transition has to notice.
//!
//! A mutant differs from its table in one transition, that is in one row as it applies to one state: never taken, taken under
//! another guard, leading elsewhere, or with one action left out or one timer taken for another. Those that [`check()`] refuses
//! are left out, since nobody could land them; so are those that cannot differ by construction, see [`mutants`].

use std::collections::BTreeSet;
use std::fmt;

use crate::check::check;
use crate::table::{Action, Cell, Next, Row, Scope, Table};
use crate::walk;

/// A table with one transition changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// The transition, by its place in [`Table::transitions`].
    pub transition: usize,
    /// What is wrong with it.
    pub change: Change,
}

impl Mutant {
    /// The whole table as the mutant has it, of the table it was made from.
    #[must_use]
    pub fn table(&self, table: &Table) -> Table {
        table.transitions().get(self.transition).map_or_else(|| table.clone(), |cell| changed(table, cell, &self.change))
    }
}

/// What is wrong with a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is never taken.
    Never,
    /// It leads to another state.
    Next(String),
    /// The action at this place is left out.
    Without(usize),
    /// The timer action at this place is of another timer.
    Timer(usize, String),
    /// The guard at this place is asked for its opposite.
    Opposite(usize),
    /// The guard at this place is not asked.
    Unasked(usize),
    /// The guard at this place has the opposite value for this event in this state, for every row that asks it; with one row that
    /// is [`Change::Opposite`].
    Inverted(usize),
}

impl Change {
    /// The row with the change; a row that is [`Change::Never`] taken or whose guard is [`Change::Inverted`] stays as it is.
    #[must_use]
    pub fn apply(&self, row: &Row) -> Row {
        let mut row = row.clone();
        match self {
            Self::Never | Self::Inverted(_) => {}
            Self::Next(state) => row.next = Next::State(state.clone()),
            Self::Without(at) => drop(row.actions.remove(*at)),
            Self::Timer(at, other) => {
                if let Some(Action::Start(timer) | Action::Stop(timer)) = row.actions.get_mut(*at) {
                    timer.clone_from(other);
                }
            }
            Self::Opposite(at) => {
                if let Some(literal) = row.guard.get_mut(*at) {
                    literal.wanted = !literal.wanted;
                }
            }
            Self::Unasked(at) => drop(row.guard.remove(*at)),
        }
        row
    }

    /// What is wrong with a row, as said to a person: `without start(NoResponse)`.
    #[must_use]
    pub fn describe(&self, row: &Row) -> String {
        let action = |at: &usize| row.actions.get(*at).map(Action::to_string).unwrap_or_default();
        let guard = |at: &usize| row.guard.get(*at).map(|literal| literal.guard.clone()).unwrap_or_default();
        match self {
            Self::Never => "never taken".to_owned(),
            Self::Next(state) => format!("to {state}"),
            Self::Without(at) => format!("without {}", action(at)),
            Self::Timer(at, other) => format!("{} of {other}", action(at)),
            Self::Opposite(at) => format!("opposite {}", guard(at)),
            Self::Unasked(at) => format!("unasked {}", guard(at)),
            Self::Inverted(at) => format!("inverted {}", guard(at)),
        }
    }
}

/// Every mutant of a table, by transition.
///
/// Left out is what [`check()`] refuses, and what cannot differ: a row without an action that keeps the state is as good as none,
/// a timer stopped that cannot run there is stopped for nothing, and of a machine's end nothing but the end is seen of its timers.
#[must_use]
pub fn mutants(table: &Table) -> Vec<Mutant> {
    let running = walk::running(table);
    let mut found = Vec::new();
    for (transition, cell) in table.transitions().iter().enumerate() {
        let changes = changes(table, cell).into_iter();
        let seen = changes.filter(|change| differs(table, cell, change, &running) && check(&changed(table, cell, change)).is_ok());
        found.extend(seen.map(|change| Mutant { transition, change }));
    }
    found
}

fn changes(table: &Table, Cell { row, next, .. }: &Cell<'_>) -> Vec<Change> {
    let mut changes = vec![Change::Never];
    changes.extend((0..row.guard.len()).flat_map(|at| [Change::Opposite(at), Change::Unasked(at), Change::Inverted(at)]));
    let elsewhere = table.states.iter().filter(|other| other.name != *next && !(other.name == table.initial.name && table.is_birth()));
    changes.extend(elsewhere.map(|other| Change::Next(other.name.clone())));
    for (at, action) in row.actions.iter().enumerate() {
        changes.push(Change::Without(at));
        if let Action::Start(timer) | Action::Stop(timer) = action {
            let used = |name: &str| row.actions.iter().any(|a| matches!(a, Action::Start(t) | Action::Stop(t) if t == name));
            let other = table.timers.iter().cycle().skip_while(|t| t.name != *timer).skip(1).take(table.timers.len());
            changes.extend(other.map(|t| t.name.clone()).find(|name| name != timer && !used(name)).map(|name| Change::Timer(at, name)));
        }
    }
    changes
}

/// Whether a machine with this change can do anything else than without.
fn differs(table: &Table, Cell { state, row, next }: &Cell<'_>, change: &Change, running: &BTreeSet<(&str, &str)>) -> bool {
    match change {
        Change::Inverted(at) => row.guard.get(*at).is_some_and(|literal| {
            let asks = |other: &&Row| other.guard.iter().any(|l| l.guard == literal.guard);
            let of_event = table.rows.iter().filter(|other| other.event == row.event && table.applies(other, state));
            of_event.filter(asks).count() > 1
        }),
        Change::Never => !row.actions.is_empty() || state != next,
        Change::Without(at) | Change::Timer(at, _) => match row.actions.get(*at) {
            Some(Action::Stop(timer)) => {
                let is_running = running.contains(&(*state, timer.as_str())) && row.timer() != Some(timer);
                is_running && !table.is_final(next)
            }
            Some(Action::Start(_)) => !table.is_final(next),
            _ => true,
        },
        _ => true,
    }
}

/// The table with the change: the row split into the states it keeps and the one that is changed.
fn changed(table: &Table, cell: &Cell<'_>, change: &Change) -> Table {
    let mut changed = table.clone();
    changed.rows.clear();
    let inverted = match change {
        Change::Inverted(at) => cell.row.guard.get(*at).map(|literal| &literal.guard),
        _ => None,
    };
    for row in &table.rows {
        let is_same_event = inverted.is_some() && row.event == cell.row.event && table.applies(row, cell.state);
        if !std::ptr::eq(row, cell.row) && !is_same_event {
            changed.rows.push(row.clone());
            continue;
        }
        let others = table.states.iter().map(|s| &s.name).filter(|s| table.applies(row, s) && *s != cell.state);
        let others: Vec<_> = others.cloned().collect();
        if !others.is_empty() {
            changed.rows.push(Row { from: Scope::Named(others), ..row.clone() });
        }
        if *change != Change::Never {
            let mut row = Row { from: Scope::Named(vec![cell.state.to_owned()]), ..change.apply(row) };
            row.guard.iter_mut().filter(|literal| Some(&literal.guard) == inverted).for_each(|literal| literal.wanted = !literal.wanted);
            changed.rows.push(row);
        }
    }
    changed
}

impl fmt::Display for Cell<'_> {
    /// `FS-08 | WaitP | to_Answer [!tried_twice]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {} | {}", self.row.rule, self.state, self.row.condition())
    }
}
