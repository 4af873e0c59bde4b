//! The tables against the requirements: no row is forgotten.

use std::collections::BTreeSet;

use pbs_nslp::{receiver, router, sender};

const REQUIREMENTS: &str = include_str!("../../../fsm-specs/requirements/fsm.md");

/// Rows of single packets live in the table of the packet side.
fn is_packet_row(id: &str) -> bool {
    let number: u32 = id[3..].parse().unwrap();
    match &id[..2] {
        "FS" => (40..=43).contains(&number),
        "FR" => (20..=27).contains(&number),
        _ => (40..=43).contains(&number),
    }
}

#[test]
fn every_row_of_the_requirements_is_in_a_table() {
    let required: BTreeSet<&str> = REQUIREMENTS
        .lines()
        .filter_map(|line| line.strip_prefix("| F")?.split(' ').next())
        .map(|id| id.trim_end_matches('|'))
        .filter(|id| id.len() == 5 - 1)
        .collect();
    let required: BTreeSet<String> = required.into_iter().map(|id| format!("F{id}")).collect();
    assert!(required.len() > 100, "{required:?}");
    let tables = [sender::table::RULES, receiver::table::RULES, router::table::RULES].concat();
    let missing: Vec<&String> = required.iter().filter(|id| !is_packet_row(id) && !tables.contains(&id.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_not_in_the_requirements_has_a_number_from_70_on() {
    for table in [sender::table::RULES, receiver::table::RULES, router::table::RULES] {
        for rule in table {
            let number: u32 = rule[3..].parse().unwrap();
            assert!(REQUIREMENTS.contains(rule) || number >= 70, "{rule}");
        }
    }
}

/// FN-04, FN-10, FN-20, FR-04, FR-10, FR-34: what becomes of a data packet is the packet side's; signalling does nothing and stays where it is.
#[test]
fn a_data_packet_moves_no_machine_of_signalling() {
    for state in router::table::State::ALL {
        let outcome = router::table::step(*state, router::table::Event::TgData, router::table::Guards::default());
        let router::table::Outcome::Take(row) = outcome else { panic!("{state}: {outcome:?}") };
        assert!(row.next == *state && row.actions.is_empty(), "{row:?}");
    }
    use receiver::table::{Event, Guards, Outcome, State, step};
    for state in [State::Idle, State::Permitted, State::CompareSv, State::Grace] {
        let outcome = step(state, Event::TgData, Guards::default());
        let Outcome::Take(row) = outcome else { panic!("{state}: {outcome:?}") };
        assert!(row.next == state && row.actions.is_empty(), "{row:?}");
    }
}
