//! The demonstration notices when a check is missing: with one taken out of the router, exactly the lines that stand for it
//! break, and the program says no. Whole, every line holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// What breaks without which check.
const EXPECTED: [(&str, &[&str]); 6] = [
    ("icv", &["wrong-key", "wrong-key-ipv6"]),
    ("window", &["replayed", "replayed-ipv6"]),
    ("budget", &["lying-sender"]),
    ("consent", &["consent"]),
    ("fail-closed", &["router-killed"]),
    ("expiry", &["expiry"]),
];

/// Held by whoever measures: what one run sends must not make another one late.
static MEASURING: Mutex<()> = Mutex::new(());

/// What came of a run of the laboratory's program.
struct Run {
    code: Option<i32>,
    /// The lines that did not hold.
    broken: Vec<String>,
    /// Everything that the program said, for whoever has to find out why.
    said: String,
}

fn demo(arguments: &[&str]) -> Run {
    let _measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("demo").arg("--json").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"));
    let lines = outcome["lines"].as_array().unwrap();
    let why: Vec<String> = lines.iter().filter(|line| line["holds"] == false).map(Value::to_string).collect();
    assert_eq!(outcome["lost_frames"], 0, "{arguments:?}: {said}");
    Run {
        code: output.status.code(),
        broken: lines.iter().filter(|line| line["holds"] == false).map(|line| line["name"].as_str().unwrap().to_owned()).collect(),
        said: format!("{arguments:?}: {said}\n{}", why.join("\n")),
    }
}

/// With the check `sabotage` taken out, exactly its lines break, of those in `steps`.
fn breaks_its_lines(sabotage: &str, steps: &[&str]) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let (_, lines) = EXPECTED.iter().find(|(name, _)| *name == sabotage).unwrap();
    let run = demo(&[&["--sabotage", sabotage], steps].concat());
    assert_eq!(run.broken, *lines, "{}", run.said);
    assert_eq!(run.code, Some(1), "{}", run.said);
}

#[test]
fn with_every_check_in_place_every_line_holds() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let run = demo(&[]);
    assert_eq!((run.code, run.broken), (Some(0), Vec::new()), "{}", run.said);
}

#[test]
fn without_the_icv_check_packets_under_a_wrong_key_pass() {
    breaks_its_lines("icv", &["--only", "forged"]);
}

#[test]
fn without_the_replay_window_a_capture_passes_again() {
    breaks_its_lines("window", &["--only", "forged"]);
}

#[test]
fn without_the_budget_a_lying_sender_goes_on() {
    breaks_its_lines("budget", &["--only", "over-budget"]);
}

#[test]
fn without_the_senders_consent_a_receiver_opens_the_path_alone() {
    breaks_its_lines("consent", &["--only", "consent,tampered"]);
}

#[test]
fn without_failing_closed_packets_pass_a_dead_router() {
    breaks_its_lines("fail-closed", &["--only", "router-killed"]);
}

#[test]
fn without_expiry_a_permission_outlives_both_ends() {
    breaks_its_lines("expiry", &["--only", "expiry"]);
}

#[test]
#[ignore = "takes four minutes: every check in turn, every line of the demonstration"]
fn in_the_whole_demonstration_each_missing_check_breaks_its_own_lines_alone() {
    for (sabotage, _) in EXPECTED {
        breaks_its_lines(sabotage, &[]);
    }
}

#[test]
fn a_check_or_a_step_that_does_not_exist_is_an_error_that_names_it() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for (option, value) in [("--sabotage", "luck"), ("--only", "luck")] {
        let output = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).args(["demo", option, value]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option}: {said}");
        assert!(said.contains("luck") && said.contains("expiry"), "it names the wrong one and those there are: {said}");
    }
}

#[test]
fn the_daemons_know_no_such_option() {
    for daemon in ["pbs-router", "pbs"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pbs-lab"));
        let output = command.arg0(daemon).args(["run", "--config", "none.toml", "--sabotage", "icv"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{daemon}: {said}");
        assert!(said.contains("unexpected argument '--sabotage'"), "{daemon}: {said}");
    }
}
