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

#[test]
fn a_table_that_is_not_there_is_named() {
    let error = fsm_specs::load("gist/nothing").unwrap_err().to_string();
    assert!(error.starts_with("fsm-specs/tables/gist/nothing.fsm: "), "{error}");
}
