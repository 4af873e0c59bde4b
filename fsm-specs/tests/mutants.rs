//! Mutants of the tables, shown on the small one: each differs from it, is what it says, and stays out of what is built.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use fsm_specs::{Change, Table};

mod door {
    include!("golden/door_mutants.rs");
}

use door::{Event, Guards, State, step};

fn golden(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

fn table() -> Table {
    fsm_specs::read("fsm-specs/tests/golden/door.fsm", &golden("door.fsm")).unwrap()
}

/// What a machine does with everything: a line for each state, event and assignment of the guards.
fn everything(step: impl Fn(State, Event, Guards) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    for (state, event) in State::ALL.iter().flat_map(|s| Event::ALL.iter().map(move |e| (*s, *e))) {
        for (has_key, is_night) in [(false, false), (false, true), (true, false), (true, true)] {
            let said = step(state, event, Guards { has_key, is_night });
            lines.push(format!("{state} {event} {has_key} {is_night}: {said}"));
        }
    }
    lines
}

/// The same, read from rows.
fn by_rows(table: &Table) -> Vec<String> {
    everything(|state, event, Guards { has_key, is_night }| {
        let holds = |l: &fsm_specs::Literal| l.wanted == if l.guard == "has_key" { has_key } else { is_night };
        let cells = table.cells();
        let mut rows =
            cells.iter().filter(|c| c.state == format!("{state:?}") && c.row.event == event.to_string() && c.row.guard.iter().all(holds));
        match rows.next() {
            None => "ignored".to_owned(),
            Some(cell) if cell.row.later => "refused".to_owned(),
            Some(cell) => {
                format!("{} {} {:?}", cell.row.rule, cell.next, cell.row.actions.iter().map(ToString::to_string).collect::<Vec<_>>())
            }
        }
    })
}

/// The same, by the step that this process has.
fn by_step() -> Vec<String> {
    everything(|state, event, guards| match step(state, event, guards) {
        door::Outcome::Ignore => "ignored".to_owned(),
        door::Outcome::Refuse(_) => "refused".to_owned(),
        door::Outcome::Take(t) => {
            let action = |action: &door::Action| match action {
                door::Action::Start(timer) => format!("start({timer})"),
                door::Action::Stop(timer) => format!("stop({timer})"),
                door::Action::Squeak => "squeak".to_owned(),
                door::Action::Slam => "slam".to_owned(),
                door::Action::RingBell => "ring_bell".to_owned(),
            };
            format!("{} {:?} {:?}", t.rule, t.next, t.actions.iter().map(action).collect::<Vec<_>>())
        }
    })
}

/// `UPDATE=1 cargo test -p fsm-specs` writes the kept file anew.
#[test]
fn the_code_with_mutants_is_the_kept_code() {
    let made = fsm_specs::rust_with_mutants(&table());
    if env::var_os("UPDATE").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/door_mutants.rs"), &made).unwrap();
    }
    assert!(golden("door_mutants.rs") == made, "look, then run UPDATE=1 cargo test -p fsm-specs");
}

/// Printed for the parent test by a process that is a mutant.
#[test]
fn what_this_process_does() {
    by_step().iter().for_each(|line| println!("> {line}"));
}

#[test]
fn without_being_told_the_step_is_the_tables_and_each_mutant_is_its_table() {
    assert_eq!(by_step(), by_rows(&table()));
    let (table, mutants) = (table(), fsm_specs::mutants(&table()));
    assert!(mutants.len() > 25, "{}", mutants.len());
    let mut seen = BTreeSet::new();
    for (number, mutant) in mutants.iter().enumerate() {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "what_this_process_does", "--nocapture"]).env("TABLE_MUTANT", format!("toy-door {number}"));
        let said = String::from_utf8(child.output().unwrap().stdout).unwrap();
        let lines: Vec<_> = said.lines().filter_map(|line| line.split_once("> ")).map(|(_, line)| line.to_owned()).collect();
        let transitions = table.transitions();
        let cell = transitions.get(mutant.transition).unwrap();
        let what = format!("{cell}: {}", mutant.change.describe(cell.row));
        assert_eq!(lines, by_rows(&mutant.table(&table)), "{what}");
        assert_ne!(lines, by_rows(&table), "{what}");
        let is_first = seen.insert(lines);
        assert!(is_first || matches!(mutant.change, Change::Inverted(_)), "{what} is another one as well");
    }
}

#[test]
fn no_mutant_is_of_a_row_that_is_not_acted_upon_and_none_only_stops_what_cannot_run() {
    let table = table();
    let of_rule = |rule: &str| {
        let cells = table.transitions();
        let mutants =
            fsm_specs::mutants(&table).into_iter().filter_map(|m| cells.get(m.transition).map(|cell| (cell.row.rule.clone(), m.change)));
        mutants.filter(|(of, _)| of == rule).map(|(_, change)| change).collect::<Vec<_>>()
    };
    assert_eq!(of_rule("L-4"), []);
    assert!(!of_rule("L-2").contains(&Change::Without(0)), "the checks refuse it: No_Key would run in Closed, where no row is for it");
    assert!(of_rule("L-3").contains(&Change::Without(0)), "the bell is nobody's business but the machine's owner's");
    let text = golden("door.fsm").replace("slam\n", "slam stop(No_Key)\n");
    let table = fsm_specs::read("door.fsm", &text).unwrap();
    let cells = table.transitions();
    let slams = |m: &&fsm_specs::Mutant| cells.get(m.transition).is_some_and(|cell| cell.row.rule == "3");
    assert!(!fsm_specs::mutants(&table).iter().filter(slams).any(|m| matches!(m.change, Change::Without(1) | Change::Timer(1, _))));
}

#[test]
fn every_table_has_mutants_of_each_transition_that_does_anything() {
    for name in fsm_specs::names().unwrap() {
        let table = fsm_specs::load(&name).unwrap();
        let mutants = fsm_specs::mutants(&table);
        let of: BTreeSet<_> = mutants.iter().map(|mutant| mutant.transition).collect();
        for (place, cell) in table.transitions().iter().enumerate() {
            let does_something = !cell.row.actions.is_empty() || cell.next != cell.state;
            assert!(of.contains(&place) || !does_something, "{name}: {cell}");
        }
    }
}

#[test]
fn no_build_script_asks_for_mutants() {
    let tree = fsm_specs::directory();
    for script in ["gist/build.rs", "pbs-nslp/build.rs", "router-agent/traffic/build.rs"] {
        let text = fs::read_to_string(tree.join("..").join(script)).unwrap();
        assert!(text.contains("fsm_specs::generate(&["), "{script}: what `pbs-lab coverage` replaces in its copy");
        assert!(!text.contains("mutants"), "{script}");
    }
}
