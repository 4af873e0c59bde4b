//! What the crate's README says of the requirements and of RFC 5972, against both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

const README: &str = include_str!("../README.md");
const REQUIREMENTS: &str = include_str!("../../fsm-specs/requirements/gist.md");

/// The rows of the table under a heading that has this first cell, without head and rule.
fn table<'a>(first: &str) -> Vec<Vec<&'a str>> {
    let head = format!("| {first} |");
    let lines = README.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
    lines.take_while(|line| line.starts_with('|')).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The rules of a table of states.
fn rules(table: &str) -> BTreeSet<&str> {
    let is_row = |line: &&str| line.contains('|') && !line.starts_with('#') && !line.starts_with("note");
    table.lines().filter(is_row).filter_map(|line| line.split('|').next()).map(str::trim).collect()
}

/// Each row that the RFC leaves open is in the table once, and is either done or left out for a reason.
#[test]
fn every_row_that_may_be_done_is_done_or_left_out_on_purpose() {
    let open: Vec<_> =
        REQUIREMENTS.lines().filter(|line| line.contains("| MAY |")).map(|line| line.split('|').nth(1).unwrap().trim()).collect();
    assert_eq!(open.len(), 42);
    let said = table("row");
    let rows: Vec<_> = said.iter().map(|row| row[0]).collect();
    assert_eq!(rows, open);
    for row in said {
        assert!(["done", "left out"].contains(&row[1]) && row[2].len() > 3, "{row:?}");
    }
}

/// G-297, G-298: every numbered transition of RFC 5972 has rules of ours that do it, or a difference that is told.
#[test]
fn every_transition_of_rfc_5972_has_its_rules() {
    let querying = rules(include_str!("../../fsm-specs/tables/gist/querying.fsm"));
    let responding = rules(include_str!("../../fsm-specs/tables/gist/responding.fsm"));
    for (name, rules, transitions) in [("querying", querying, 18), ("responding", responding, 14)] {
        let rows: BTreeMap<u32, _> = table(name).into_iter().map(|row| (row[0].parse().unwrap(), row)).collect();
        assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=transitions).collect::<Vec<_>>());
        for (number, row) in rows {
            for rule in row[1].split(", ") {
                assert!(rules.contains(rule), "{name} {number}: no rule {rule}");
            }
        }
    }
}

/// The holes in the figures are closed by notes that are there.
#[test]
fn every_hole_in_the_figures_has_its_note() {
    let notes = [
        ("node.fsm", include_str!("../../fsm-specs/tables/gist/node.fsm")),
        ("querying.fsm", include_str!("../../fsm-specs/tables/gist/querying.fsm")),
        ("responding.fsm", include_str!("../../fsm-specs/tables/gist/responding.fsm")),
        ("association.fsm", include_str!("../../fsm-specs/tables/gist/association.fsm")),
    ];
    let holes = table("figure");
    assert_eq!(holes.len(), 5);
    for hole in holes {
        let words: Vec<_> = hole[2].split([' ', ':', '`']).filter(|word| !word.is_empty()).collect();
        let ["note", number, "of", file, ..] = words[..] else { panic!("{hole:?}") };
        let (_, text) = notes.iter().find(|(name, _)| *name == file).unwrap();
        assert!(text.lines().any(|line| line.starts_with("note") && line.split_whitespace().nth(1) == Some(number)), "{hole:?}");
    }
}

/// Every field that bounds something is in the table of bounds, with what is full and what that costs.
#[test]
fn every_bound_is_in_the_table() {
    let fields = |source: &'static str, name: &str| -> Vec<&str> {
        let inside = source.lines().skip_while(|line| *line != format!("pub struct {name} {{")).take_while(|line| *line != "}");
        inside.filter_map(|line| line.trim().strip_prefix("pub ")?.strip_suffix(": usize,")).collect()
    };
    let caps = fields(include_str!("../src/node/config.rs"), "Caps");
    let limits = fields(include_str!("../src/io/mod.rs"), "Limits");
    assert!((caps.len(), limits.len()) == (7, 7), "{caps:?} {limits:?}");
    let said = table("bound");
    for field in caps.into_iter().chain(limits) {
        assert!(said.iter().any(|row| row[0] == format!("`{field}`")), "{field}");
    }
    assert!(said.iter().all(|row| row.len() == 4 && row.iter().all(|cell| !cell.is_empty())), "{said:?}");
}
