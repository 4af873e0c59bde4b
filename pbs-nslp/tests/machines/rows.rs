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
