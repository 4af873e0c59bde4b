//! The generator, shown on a small table: its code is kept beside it, compiled here and walked.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::{env, fs};

mod door {
    include!("golden/door.rs");
}

use door::{Action, Event, Guards, LATER, Outcome, RULES, State, Timer, Transition, step};

const FILE: &str = "fsm-specs/tests/golden/door.fsm";

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn table() -> fsm_specs::Table {
    let table = fsm_specs::read(FILE, &fs::read_to_string(golden("door.fsm")).unwrap()).unwrap();
    fsm_specs::check(&table).unwrap();
    table
}

/// `UPDATE=1 cargo test -p fsm-specs` writes the kept file anew.
fn compare(name: &str, made: &str) {
    if env::var_os("UPDATE").is_some() {
        fs::write(golden(name), made).unwrap();
    }
    let kept = fs::read_to_string(golden(name)).unwrap();
    assert!(kept == made, "tests/golden/{name} differs from what is generated now: look, then run UPDATE=1 cargo test -p fsm-specs");
}

#[test]
fn the_generated_code_is_the_kept_code() {
    compare("door.rs", &fsm_specs::rust(&table()));
}

#[test]
fn the_page_is_the_kept_page() {
    compare("door.md", &fsm_specs::diagram(&table()));
}

#[test]
fn a_row_that_applies_is_taken_with_its_rule_next_state_and_actions() {
    let pushed = step(State::Closed, Event::RxPush, Guards::default());
    let actions = &[Action::Squeak, Action::Start(Timer::Draught)];
    assert_eq!(pushed, Outcome::Take(Transition { rule: "1", next: State::StandingOpen, actions }));
}

#[test]
fn equals_keeps_the_state_and_a_list_of_states_applies_in_each() {
    let Outcome::Take(again) = step(State::StandingOpen, Event::RxPush, Guards::default()) else { panic!("rule 2 applies") };
    assert_eq!((again.rule, again.next), ("2", State::StandingOpen));
    for state in [State::Closed, State::StandingOpen] {
        assert_eq!(step(state, Event::RxShout, Guards::default()), Outcome::Refuse("L-4"));
    }
}

#[test]
fn guards_choose_among_the_rows_of_a_rule() {
    let next = |has_key, is_night| match step(State::Locked, Event::ToNoKey, Guards { has_key, is_night }) {
        Outcome::Take(transition) => transition.next,
        other => panic!("rule L-3 covers every assignment, not {other:?}"),
    };
    assert_eq!(next(false, true), State::Locked);
    for (has_key, is_night) in [(false, false), (true, false), (true, true)] {
        assert_eq!(next(has_key, is_night), State::Closed);
    }
    assert_eq!(step(State::Locked, Event::RxTurnKey, Guards::default()), Outcome::Ignore);
}

#[test]
fn every_state_includes_neither_the_untimed_initial_one_nor_the_end() {
    let burns =
        |state| matches!(step(state, Event::RxFire, Guards::default()), Outcome::Take(Transition { actions: [Action::Squeak], .. }));
    let burning: Vec<_> = State::ALL.iter().copied().filter(|state| burns(*state)).collect();
    assert_eq!(burning, [State::StandingOpen, State::Locked]);
}

#[test]
fn what_no_row_names_is_ignored() {
    for event in Event::ALL {
        assert_eq!(step(State::Removed, *event, Guards::default()), Outcome::Ignore);
    }
    assert!(State::Removed.is_final() && !State::Closed.is_final());
}

#[test]
fn names_print_as_the_specification_writes_them() {
    assert_eq!(State::StandingOpen.to_string(), "Standing Open");
    assert_eq!(Event::RxTurnKey.to_string(), "rx_Turn-Key");
    assert_eq!(Timer::NoKey.to_string(), "No_Key");
    assert_eq!(Timer::NoKey.event(), Event::ToNoKey);
    assert_eq!(State::INITIAL, State::Closed);
}

#[test]
fn the_lists_of_rules_name_each_once() {
    assert_eq!(RULES, ["1", "2", "3", "L-1", "L-2", "L-3", "L-4", "9"]);
    assert_eq!(LATER, ["L-4"]);
}

/// An action only in a row that is not acted upon would ask for code that never runs.
#[test]
fn an_action_of_a_row_not_yet_acted_upon_is_not_generated() {
    let code = fsm_specs::rust(&table());
    assert!(code.contains("RingBell") && !code.contains("OpenByVoice"));
}

/// A machine with neither timers nor guards nor actions: `Timer` and `Action` have no value, `Guards` has one.
#[test]
fn a_machine_that_only_ignores_has_types_without_values() {
    let text =
        "machine toy-stone\nsource none\nstates Still\ninitial Still\nuntimed Still \"it waits for nothing\"\n1 | Still | rx_Push | = |\n";
    let table = fsm_specs::read("stone.fsm", text).unwrap();
    fsm_specs::check(&table).unwrap();
    let code = fsm_specs::rust(&table);
    for line in ["pub enum Timer {}", "pub enum Action {}", "pub struct Guards;"] {
        assert!(code.lines().any(|l| l == line), "{code}");
    }
}

/// The rows, read one by one, say the same as the generated function for every state, event and assignment of guards.
#[test]
fn step_says_what_the_rows_say() {
    let table = table();
    let (cells, values) = (table.cells(), [(false, false), (false, true), (true, false), (true, true)]);
    for (state, event) in State::ALL.iter().flat_map(|s| Event::ALL.iter().map(move |e| (*s, *e))) {
        for (has_key, is_night) in values {
            let holds = |l: &fsm_specs::Literal| l.wanted == if l.guard == "has_key" { has_key } else { is_night };
            let applies = |c: &&fsm_specs::Cell<'_>| {
                c.state == format!("{state:?}") && c.row.event == event.to_string() && c.row.guard.iter().all(holds)
            };
            let rows: Vec<_> = cells.iter().filter(applies).collect();
            let said = match rows.as_slice() {
                [] => "ignored".to_owned(),
                [c] if c.row.later => format!("refused by {}", c.row.rule),
                [c] => format!("{} to {}, {} actions", c.row.rule, c.next, c.row.actions.len()),
                _ => panic!("more than one row for {event} in {state}"),
            };
            let stepped = match step(state, event, Guards { has_key, is_night }) {
                Outcome::Ignore => "ignored".to_owned(),
                Outcome::Refuse(rule) => format!("refused by {rule}"),
                Outcome::Take(t) => format!("{} to {:?}, {} actions", t.rule, t.next, t.actions.len()),
            };
            assert_eq!(said, stepped, "{event} in {state}");
        }
    }
}
