//! The checker: names resolve, at most one row applies, every state can be reached and left.
//!
//! [`crate::walk`] follows the timers.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::names::camel;
use crate::table::{Action, Declared, Next, Row, Scope, Table};
use crate::walk;

/// Most timers of a machine: the walk visits every set of running ones.
const TIMERS_MAX: usize = 16;
/// Most guards of a machine: the share of their assignments that a row covers is counted in 2^-64.
const GUARDS_MAX: usize = 64;

/// Checks a table as a whole.
///
/// Names first: every other check presupposes that they resolve.
///
/// # Errors
///
/// Every problem found: names not declared or not used, rows given twice, two rows that can apply at once, states that
/// cannot be reached or left, timers whose expiry nobody handles, states in which no timer runs.
pub fn check(table: &Table) -> Result<(), Error> {
    let mut checker = Checker { table, error: Error::default() };
    checker.declarations();
    for row in &table.rows {
        checker.row(row);
    }
    checker.error.into_result(())?;

    let mut checker = Checker { table, error: Error::default() };
    checker.unused();
    checker.deterministic();
    checker.way_out();
    checker.error.extend(walk::check(table));
    checker.error.into_result(())
}

/// Checks that the machine carries the name of its file: `gist/querying` holds `gist-querying`.
///
/// # Errors
///
/// Another name.
pub fn check_name(table: &Table, name: &str) -> Result<(), Error> {
    let wanted = name.replace('/', "-");
    if table.machine.name == wanted {
        return Ok(());
    }
    Err(Error::new(&table.file, table.machine.line, format_args!("the machine of this file must be named `{wanted}`")))
}

struct Checker<'a> {
    table: &'a Table,
    error: Error,
}

impl Checker<'_> {
    fn report(&mut self, line: usize, message: impl std::fmt::Display) {
        self.error.push(&self.table.file, line, message);
    }

    fn declarations(&mut self) {
        let Table { states, initial, finals, timers, guards, untimed, transient, lapsing, notes, rows, .. } = self.table;
        self.declared("state", states, &initial.name, initial.line);
        if finals.iter().any(|f| f.name == initial.name) {
            self.report(initial.line, format_args!("the initial state `{}` is final", initial.name));
        }
        for excused in untimed.iter().chain(transient) {
            self.declared("state", states, &excused.state, excused.line);
        }
        for excused in lapsing {
            self.declared("timer", timers, &excused.state, excused.line);
        }
        for both in transient.iter().filter(|t| untimed.iter().any(|u| u.state == t.state)) {
            self.report(both.line, format_args!("state `{}` is listed as untimed and as transient", both.state));
        }
        for note in notes {
            if !rows.iter().any(|row| row.rule == note.rule) {
                self.report(note.line, format_args!("no row belongs to rule `{}`", note.rule));
            }
        }
        for (list, most, what) in [(timers, TIMERS_MAX, "timers"), (guards, GUARDS_MAX, "guards")] {
            if let Some(one_too_many) = list.get(most) {
                self.report(one_too_many.line, format_args!("more than {most} {what}"));
            }
        }
        self.distinct_in_rust();
    }

    /// Two names of the table must not become one name of Rust.
    fn distinct_in_rust(&mut self) {
        let rows = &self.table.rows;
        let timers = self.table.timers.iter().map(|t| (t.name.as_str(), t.line)).collect();
        let events = rows.iter().map(|row| (row.event.as_str(), row.line)).collect();
        let performed = |row: &'_ Row| {
            let names = row.actions.iter().filter_map(|a| if let Action::Perform(name) = a { Some(name.as_str()) } else { None });
            names.map(|name| (name.to_owned(), row.line)).collect::<Vec<_>>()
        };
        let actions: Vec<_> = rows.iter().flat_map(performed).collect();
        let actions = actions.iter().map(|(name, line)| (name.as_str(), *line)).collect();
        for names in [timers, events, actions] {
            let names: Vec<(&str, usize)> = names;
            let mut first: BTreeMap<String, &str> = BTreeMap::new();
            for (name, line) in names {
                let other = *first.entry(camel(name)).or_insert(name);
                if other != name {
                    self.report(line, format_args!("`{name}` and `{other}` are the same name in Rust"));
                }
            }
        }
    }

    fn row(&mut self, row: &Row) {
        let Table { states, timers, guards, .. } = self.table;
        if let Scope::Named(from) = &row.from {
            for (at, state) in from.iter().enumerate() {
                self.declared("state", states, state, row.line);
                if from.iter().take(at).any(|s| s == state) {
                    self.report(row.line, format_args!("state `{state}` is named twice"));
                }
                if self.table.is_final(state) {
                    self.report(row.line, format_args!("state `{state}` is final and can have no row"));
                }
            }
        }
        if !states.iter().any(|s| self.table.applies(row, &s.name)) {
            self.report(row.line, "the row applies to no state");
        }
        if let Next::State(next) = &row.next {
            self.declared("state", states, next, row.line);
        }
        if let Some(timer) = row.timer() {
            self.declared("timer", timers, timer, row.line);
        }
        for (at, literal) in row.guard.iter().enumerate() {
            self.declared("guard", guards, &literal.guard, row.line);
            if row.guard.iter().take(at).any(|l| l.guard == literal.guard) {
                self.report(row.line, format_args!("guard `{}` is named twice", literal.guard));
            }
        }
        for (at, action) in row.actions.iter().enumerate() {
            let (Action::Start(timer) | Action::Stop(timer)) = action else { continue };
            self.declared("timer", timers, timer, row.line);
            let same = |a: &Action| matches!(a, Action::Start(t) | Action::Stop(t) if t == timer);
            if row.actions.iter().take(at).any(same) {
                self.report(row.line, format_args!("timer `{timer}` is started or stopped twice"));
            }
        }
    }

    fn declared(&mut self, what: &str, list: &[Declared], name: &str, line: usize) {
        if !list.iter().any(|d| d.name == name) {
            self.report(line, format_args!("{what} `{name}` is not declared"));
        }
    }

    fn unused(&mut self) {
        let Table { timers, guards, rows, .. } = self.table;
        for Declared { name, line } in guards {
            if !rows.iter().any(|row| row.guard.iter().any(|l| l.guard == *name)) {
                self.report(*line, format_args!("guard `{name}` is never asked"));
            }
        }
        for Declared { name, line } in timers {
            let start = Action::Start(name.clone());
            if !rows.iter().any(|row| row.actions.contains(&start)) {
                self.report(*line, format_args!("timer `{name}` is never started"));
            }
            if !rows.iter().any(|row| row.timer() == Some(name)) {
                self.report(*line, format_args!("timer `{name}` expires and no row says what then"));
            }
        }
    }

    /// For every state, event and assignment of the guards at most one row applies. Two conjunctions exclude each other
    /// exactly when some guard stands in both with opposite values, so looking at pairs is enough.
    fn deterministic(&mut self) {
        let cells = self.table.cells();
        for (at, cell) in cells.iter().enumerate() {
            let (state, row) = (cell.state, cell.row);
            for other in cells.iter().take(at).filter(|c| c.state == state && c.row.event == row.event) {
                let opposite = |l: &crate::table::Literal| other.row.guard.iter().any(|o| o.guard == l.guard && o.wanted != l.wanted);
                if row.guard.iter().any(opposite) {
                    continue;
                }
                let condition = row.condition();
                let same_guard = row.guard.len() == other.row.guard.len() && row.guard.iter().all(|l| other.row.guard.contains(l));
                if other.row.rule == row.rule && same_guard {
                    let first = other.row.line;
                    self.report(
                        row.line,
                        format_args!("rule `{}` for {condition} in `{state}` is given already in line {first}", row.rule),
                    );
                } else {
                    let (rule, line) = (&other.row.rule, other.row.line);
                    self.report(row.line, format_args!("{condition} in `{state}` can also be rule `{rule}` of line {line}"));
                }
            }
        }
    }

    /// From every state the end can be reached or, in a machine without an end, the beginning.
    fn way_out(&mut self) {
        let Table { states, initial, finals, .. } = self.table;
        let cells = self.table.cells();
        let goals = if finals.is_empty() { std::slice::from_ref(initial) } else { finals };
        let mut leading: Vec<&str> = goals.iter().map(|g| g.name.as_str()).collect();
        let mut at = 0;
        while let Some(goal) = leading.get(at).copied() {
            for cell in cells.iter().filter(|c| c.next == goal) {
                if !leading.contains(&cell.state) {
                    leading.push(cell.state);
                }
            }
            at += 1;
        }
        for Declared { name, line } in states.iter().filter(|s| !self.table.is_final(&s.name)) {
            let leaves = cells.iter().any(|c| c.state == name && c.next != name);
            if !leading.contains(&name.as_str()) || (!leaves && states.len() > 1) {
                self.report(*line, format_args!("state `{name}` has no way out"));
            }
        }
    }
}
