//! The page of a machine: a mermaid diagram, then the table as markdown.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fmt::Write as _;

use crate::names::spaced;
use crate::table::{Next, Row, Scope, Table};

/// The page of a machine, as markdown.
///
/// The table must have passed [`crate::check()`].
#[must_use]
pub fn diagram(table: &Table) -> String {
    let mut page = String::new();
    line(&mut page, format_args!("# {}\n", table.machine.name));
    line(&mut page, format_args!("Source: {}.\n", table.source.trim_end_matches('.')));
    line(&mut page, format_args!("Written by `cargo run -p fsm-specs -- diagrams` from `{}`.\n", table.file));
    picture(&mut page, table);
    remarks(&mut page, table);
    rows(&mut page, table);
    notes(&mut page, table);
    page
}

/// One arrow for each pair of states, with all its rows as its text; rows not yet acted upon in parentheses.
fn picture(page: &mut String, table: &Table) {
    line(page, "```mermaid\nstateDiagram-v2");
    for state in &table.states {
        line(page, format_args!("    state \"{}\" as {}", spaced(&state.name), state.name));
    }
    line(page, format_args!("    [*] --> {}", table.initial.name));
    let cells = table.cells();
    let mut drawn = BTreeSet::new();
    for cell in &cells {
        if !drawn.insert((cell.state, cell.next)) {
            continue;
        }
        let same_arrow = cells.iter().filter(|c| (c.state, c.next) == (cell.state, cell.next));
        let text: Vec<_> = same_arrow.map(|c| label(c.row)).collect();
        line(page, format_args!("    {} --> {} : {}", cell.state, cell.next, text.join("<br/>")));
    }
    for state in &table.finals {
        line(page, format_args!("    {} --> [*]", state.name));
    }
    line(page, "```\n");
}

fn label(row: &Row) -> String {
    let text = format!("{} {}", row.rule, row.condition());
    if row.later { format!("({text})") } else { text }
}

fn remarks(page: &mut String, table: &Table) {
    let names = |list: &[crate::table::Declared]| list.iter().map(|d| format!("`{}`", d.name)).collect::<Vec<_>>().join(", ");
    if !table.timers.is_empty() {
        line(page, format_args!("Timers: {}.\n", names(&table.timers)));
    }
    if !table.guards.is_empty() {
        line(page, format_args!("Guards: {}.\n", names(&table.guards)));
    }
    for (excused, what) in [(&table.untimed, "needs no timer"), (&table.transient, "is transient")] {
        for state in excused {
            line(page, format_args!("{} {what}: {}.\n", spaced(&state.state), state.reason.trim_end_matches('.')));
        }
    }
    if !table.later_rules().is_empty() {
        line(page, "Rows marked *later* are in the table and not yet acted upon; the diagram has them in parentheses.\n");
    }
}

fn rows(page: &mut String, table: &Table) {
    line(page, "| rule | state | event | guard | next | actions |\n| --- | --- | --- | --- | --- | --- |");
    for row in &table.rows {
        let from = match &row.from {
            Scope::Every => "any".to_owned(),
            Scope::Named(states) => states.iter().map(|s| spaced(s)).collect::<Vec<_>>().join(", "),
        };
        let next = match &row.next {
            Next::Same => "same".to_owned(),
            Next::State(next) => spaced(next),
        };
        let guard = if row.guard.is_empty() { String::new() } else { format!("`{}`", row.guard_text()) };
        let actions: Vec<_> = row.actions.iter().map(|a| format!("`{a}`")).collect();
        let mut actions = actions.join(" ");
        if row.later {
            actions = format!("*later* {actions}").trim_end().to_owned();
        }
        line(page, format_args!("| {} | {from} | `{}` | {guard} | {next} | {actions} |", row.rule, row.event));
    }
}

fn notes(page: &mut String, table: &Table) {
    for (at, note) in table.notes.iter().enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        line(page, format_args!("{gap}* Rule {}: {}", note.rule, note.text));
    }
}

fn line(page: &mut String, text: impl Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{text}");
}
