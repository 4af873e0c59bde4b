//! A machine and all its mutants in one `step`, so that trying many costs one build.

use super::text::{ALLOW, doc_comment, line};
use super::{action, types};
use crate::mutate::{Change, Mutant, mutants};
use crate::names::camel;
use crate::table::{Cell, Row, Table};

/// The Rust of a machine whose `step` is, in a process where `TABLE_MUTANT` holds `MACHINE NUMBER`, the mutant of that place in
/// [`mutants`]; in others it is the table's own. `TABLE_NOTES` names a file that gets a line for each transition and test that
/// takes it: machine, place in [`Table::transitions`], and the thread's name, which Rust's test harness takes from the test.
///
/// The table must have passed [`crate::check()`].
#[must_use]
pub fn rust_with_mutants(table: &Table) -> String {
    let mut code = types(table);
    let (cells, mutants) = (table.transitions(), mutants(table));
    doc_comment(&mut code, 0, "The table's own step, or that of a mutant.");
    code.push_str(ALLOW);
    code.push_str("#[allow(unreachable_patterns, unused_mut, missing_docs, clippy::unwrap_used)]\n#[must_use]\n");
    line(&mut code, "pub fn step(state: State, event: Event, mut guards: Guards) -> Outcome {");
    line(&mut code, format_args!("    let mutant = {}::chosen();", MODULE));
    inversions(&mut code, &cells, &mutants);
    line(&mut code, "    let (transition, outcome) = match (state, event, guards) {");
    for (place, cell) in cells.iter().enumerate() {
        arms(&mut code, place, cell, &mutants);
    }
    for cell in table.cells().iter().filter(|cell| cell.row.later) {
        line(&mut code, format_args!("        {} => return Outcome::Refuse(\"{}\"),", pattern(cell.state, cell.row), cell.row.rule));
    }
    line(&mut code, "        _ => return Outcome::Ignore,\n    };");
    line(&mut code, format_args!("    {MODULE}::note(transition);\n    outcome\n}}\n"));
    code.push_str(&HELP.replace("MACHINE", &table.machine.name));
    code
}

/// The guards that a mutant takes for their opposite.
fn inversions(code: &mut String, cells: &[Cell<'_>], mutants: &[Mutant]) {
    for (number, mutant) in mutants.iter().enumerate() {
        let (Some(cell), Change::Inverted(at)) = (cells.get(mutant.transition), &mutant.change) else { continue };
        let Some(literal) = cell.row.guard.get(*at) else { continue };
        let (state, event, guard) = (cell.state, camel(&cell.row.event), &literal.guard);
        line(
            code,
            format_args!(
                "    if mutant == {number} && state == State::{state} && event == Event::{event} {{ guards.{guard} = !guards.{guard}; }}"
            ),
        );
    }
}

/// The arms of one transition: those under another guard, then its own with what mutants do in its place.
fn arms(code: &mut String, place: usize, cell: &Cell<'_>, mutants: &[Mutant]) {
    let of_cell = mutants.iter().enumerate().filter(|(_, mutant)| mutant.transition == place);
    let (mut without, mut instead) = (Vec::new(), String::new());
    for (number, mutant) in of_cell {
        let row = mutant.change.apply(cell.row);
        match &mutant.change {
            Change::Inverted(_) => {}
            Change::Never => without.push(number.to_string()),
            Change::Opposite(_) | Change::Unasked(_) => {
                without.push(number.to_string());
                let pattern = pattern(cell.state, &row);
                line(code, format_args!("        {pattern} if mutant == {number} => ({place}, {}),", take(cell.state, &row)));
            }
            Change::Next(_) | Change::Without(_) | Change::Timer(..) => {
                line(&mut instead, format_args!("            {number} => {},", take(cell.state, &row)));
            }
        }
    }
    let pattern = pattern(cell.state, cell.row);
    let condition = if without.is_empty() { String::new() } else { format!(" if !matches!(mutant, {})", without.join(" | ")) };
    line(code, format_args!("        {pattern}{condition} => ({place}, match mutant {{"));
    code.push_str(&instead);
    line(code, format_args!("            _ => {},\n        }}),", take(cell.state, cell.row)));
}

fn pattern(state: &str, row: &Row) -> String {
    let fields: String = row.guard.iter().map(|l| format!("{}: {}, ", l.guard, l.wanted)).collect();
    let guards = if fields.is_empty() { "_".to_owned() } else { format!("Guards {{ {fields}.. }}") };
    format!("(State::{state}, Event::{}, {guards})", camel(&row.event))
}

fn take(state: &str, row: &Row) -> String {
    let actions = row.actions.iter().map(action).collect::<Vec<_>>().join(", ");
    let (rule, next) = (&row.rule, row.next_from(state));
    format!("Outcome::Take(Transition {{ rule: \"{rule}\", next: State::{next}, actions: &[{actions}] }})")
}

/// Where the code that chooses and notes stands.
const MODULE: &str = "table_mutants";

/// That code.
const HELP: &str = r#"/// Which mutant this process is, and what its tests take.
#[allow(unreachable_pub, missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
mod table_mutants {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::sync::{Mutex, OnceLock};

    pub fn chosen() -> usize {
        static CHOSEN: OnceLock<usize> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let named = std::env::var("TABLE_MUTANT").unwrap_or_default();
            named.strip_prefix("MACHINE ").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
        })
    }

    pub fn note(transition: usize) {
        static PATH: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
        static NOTED: Mutex<BTreeSet<(usize, String)>> = Mutex::new(BTreeSet::new());
        let Some(path) = PATH.get_or_init(|| std::env::var_os("TABLE_NOTES")) else { return };
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        if NOTED.lock().unwrap().insert((transition, test.clone())) {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(format!("MACHINE\t{transition}\t{test}\n").as_bytes()).unwrap();
        }
    }
}
"#;
