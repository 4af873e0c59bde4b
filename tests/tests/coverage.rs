//! What the tests say they show, and what there is to show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use pbs_lab::coverage::{self, Coverage};

fn tree() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read() -> Coverage {
    coverage::read(tree()).unwrap()
}

fn of<'a>(coverage: &'a Coverage, document: &str) -> Vec<&'a coverage::Shown> {
    coverage.requirements.iter().filter(|shown| shown.requirement.document == document).collect()
}

#[test]
fn every_row_that_a_document_counts_is_read() {
    let coverage = read();
    let gist = of(&coverage, "gist.md");
    let text = std::fs::read_to_string(tree().join("fsm-specs/requirements/gist.md")).unwrap();
    let counted = |level: &str| gist.iter().filter(|shown| shown.requirement.level.trim_end_matches('*') == level).count();
    let said = format!("{} rows (MAY {}, MUST {}, SHOULD {})", gist.len(), counted("MAY"), counted("MUST"), counted("SHOULD"));
    assert!(text.contains(&said), "{said}");
    for (document, least) in [("pbs.md", 200), ("decisions.md", 110), ("fsm.md", 150)] {
        assert!(of(&coverage, document).len() >= least, "{document}");
    }
}

/// What `pbs-lab coverage` prints, where whoever runs the tests sees it.
#[test]
fn the_test_run_prints_the_coverage() {
    let coverage = read();
    let machines: BTreeSet<_> = coverage.transitions.iter().map(|transition| transition.machine.as_str()).collect();
    assert_eq!(machines.len(), fsm_specs::names().unwrap().len(), "{machines:?}");
    assert!(coverage.transitions.len() > 360, "{}", coverage.transitions.len());
    let (rows, missing) = (coverage.requirements.len(), coverage.missing().count());
    let named = coverage.transitions.iter().filter(|transition| !transition.tests.is_empty()).count();
    // Past the harness, which keeps what tests print to itself.
    let mut out = std::io::stderr();
    writeln!(out, "{} of {rows} rows of the requirements are named by a test", rows - missing).unwrap();
    writeln!(out, "{named} of {} transitions of the tables are named by a test", coverage.transitions.len()).unwrap();
}

#[test]
fn no_test_names_a_requirement_that_no_document_lists() {
    assert_eq!(read().unknown, []);
}

/// Rules such as FS-30 are those of the requirements; rows that single packets take stand in a table of their own.
#[test]
fn every_rule_of_the_pbs_tables_is_a_requirement_and_every_such_requirement_a_rule() {
    let names = ["pbs/sender", "pbs/receiver", "pbs/router", "traffic/packet"];
    let tables = names.map(|name| fsm_specs::load(name).unwrap());
    let rules: BTreeSet<_> = tables.iter().flat_map(|table| table.rules()).map(str::to_owned).collect();
    let coverage = read();
    let is_row = |id: &&str| ["FS-", "FR-", "FN-"].iter().any(|kind| id.starts_with(kind));
    let rows: BTreeSet<_> = coverage.requirements.iter().map(|shown| &*shown.requirement.id).filter(is_row).map(str::to_owned).collect();
    assert_eq!(rules.symmetric_difference(&rows).collect::<Vec<_>>(), [""; 0]);
}

/// A reason why nobody can tell a mutant must not outlive the mutant: it would excuse another one that comes to be called the same.
#[test]
fn every_excuse_of_a_mutant_excuses_one_with_each_of_its_words() {
    let (of, excused) = coverage::excused(tree()).unwrap();
    assert!(excused > 10 && excused * 10 < of, "{excused} of {of}");
}

/// The list names a test for each row, and these are there.
#[test]
fn every_test_that_the_list_of_bad_input_names_exists() {
    let text = std::fs::read_to_string(tree().join("fsm-specs/requirements/bad-input.md")).unwrap();
    let mut named = 0;
    for word in text.split('`').skip(1).step_by(2).filter(|word| word.contains(".rs")) {
        let (file, function) = word.split_once("::").unwrap_or((word, ""));
        let source = std::fs::read_to_string(tree().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let head = format!("fn {function}(");
        let before = source.find(&head).map(|at| &source[..at]).unwrap_or_else(|| panic!("{file} has no {function}"));
        let attributes = before.lines().rev().take_while(|line| !line.is_empty() && !line.starts_with('}'));
        assert!(attributes.into_iter().any(|line| line.contains("test]") || line.contains("test(")), "{word} is no test");
        named += 1;
    }
    assert!(named > 60, "{named}");
    // Each row of a table that says what becomes of something names one.
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| **") && !line.starts_with("| |"));
    for row in rows.filter(|row| !row.starts_with("| Who")) {
        assert!(row.contains(".rs::"), "names no test: {row}");
    }
}

/// A test between namespaces or sockets is one on the wire, and every other one of a core.
#[test]
fn the_list_of_bad_input_says_truly_what_is_shown_on_the_wire() {
    let text = std::fs::read_to_string(tree().join("fsm-specs/requirements/bad-input.md")).unwrap();
    let is_on_the_wire = |file: &str| {
        let source = std::fs::read_to_string(tree().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        source.contains("may_make_networks()") || source.contains("mod namespace;") || file.starts_with("gist/tests/io_")
    };
    let mut wire = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && line.contains(".rs::")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [.., says, tests] = cells[..] else { panic!("{row}") };
        let files = tests.split('`').skip(1).step_by(2).filter_map(|test| test.split_once("::")).map(|(file, _)| file);
        let shown: BTreeSet<&str> = files.map(|file| if is_on_the_wire(file) { "wire" } else { "core" }).collect();
        assert_eq!(says, shown.iter().copied().collect::<Vec<_>>().join(", "), "{row}");
        wire += usize::from(shown.contains("wire"));
    }
    assert!(wire >= 30, "{wire} rows are shown on the wire");
}

#[test]
fn the_command_says_yes_and_gives_each_row_its_tests_as_data() {
    let output = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).args(["coverage", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let data: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = data["requirements"].as_array().unwrap();
    let row = rows.iter().find(|row| row["id"] == "FN-72").unwrap();
    assert!(
        row["tests"].as_array().unwrap().iter().any(|test| test.as_str().unwrap().starts_with("pbs-nslp/tests/machines/limits.rs::")),
        "{row}"
    );
    let none = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).args(["coverage", "--tree", "/nowhere"]).output().unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("/nowhere/"), "it says which file cannot be read");
}
