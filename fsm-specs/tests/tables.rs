//! The tables of this crate: they read, pass the checks, and are what the pages in `diagrams/` show.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

#[test]
fn all_tables_read_and_pass_the_checks() {
    for name in fsm_specs::names().unwrap() {
        if let Err(error) = fsm_specs::load(&name) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_pages_show_the_tables() {
    let folder = fsm_specs::directory().join("diagrams");
    let mut kept = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md") {
            kept.push((path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
    kept.sort();
    let pages = fsm_specs::pages().unwrap();
    let names = |list: &[(String, String)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&pages), "fsm-specs/diagrams is not of the tables: run `cargo run -p fsm-specs -- diagrams`");
    for ((name, kept), (_, page)) in kept.iter().zip(&pages) {
        assert!(kept == page, "fsm-specs/diagrams/{name} is not of its table: run `cargo run -p fsm-specs -- diagrams`");
    }
}

/// The rows of a table that stay in their state: rule and actions. And the rules that a note explains.
fn rows(name: &str) -> (Vec<(String, String)>, Vec<String>) {
    let text = fs::read_to_string(fsm_specs::directory().join("tables").join(name).with_extension("fsm")).unwrap();
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let (notes, rows): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("note"));
    let row = |line: &&str| {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        // A row that goes to another state does something.
        let [rule, _, _, "=", actions] = columns[..] else { return None };
        Some((rule.to_owned(), actions.to_owned()))
    };
    (rows.iter().filter_map(row).collect(), notes.iter().filter_map(|note| Some(note.split_whitespace().nth(1)?.to_owned())).collect())
}

/// Every transition of PBS is acted upon but the two about puzzles; and where acting means doing nothing, a note says why.
#[test]
fn nothing_of_pbs_is_put_off_but_puzzles_and_no_row_does_nothing_without_a_reason() {
    let mut later = Vec::new();
    for name in ["pbs/sender", "pbs/receiver", "pbs/router", "traffic/packet"] {
        let (rows, notes) = rows(name);
        for (rule, actions) in rows {
            assert!(!actions.is_empty() || notes.contains(&rule), "{name}: {rule} does nothing, and no note says why");
            if actions.starts_with("later") {
                later.push(rule);
            }
        }
    }
    assert_eq!(later, ["FS-12", "FR-02"]);
}

#[test]
fn a_table_that_is_not_there_is_named() {
    let error = fsm_specs::load("gist/nothing").unwrap_err().to_string();
    assert!(error.starts_with("fsm-specs/tables/gist/nothing.fsm: "), "{error}");
}
