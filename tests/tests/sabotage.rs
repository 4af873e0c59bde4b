//! The demonstration notices when a check is missing: with one taken out of the router, exactly the lines that stand for it
//! break, and the program says no. Whole, every line holds. Here each check is tried against the steps that stand for it; `pbs-lab
//! sabotages` tries it against all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use pbs_lab::sabotage::Sabotage;
use serde_json::Value;

/// What came of a run of the laboratory's program.
struct Run {
    code: Option<i32>,
    /// The lines that were tried.
    tried: Vec<String>,
    /// The lines that did not hold.
    broken: Vec<String>,
    /// Everything that the program said, for whoever has to find out why.
    said: String,
}

fn demo(arguments: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("demo").arg("--json").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"));
    let lines = outcome["lines"].as_array().unwrap();
    let why: Vec<String> = lines.iter().filter(|line| line["holds"] == false).map(Value::to_string).collect();
    assert_eq!(outcome["lost_frames"], 0, "{arguments:?}: {said}");
    let name = |line: &Value| line["name"].as_str().unwrap().to_owned();
    Run {
        code: output.status.code(),
        tried: lines.iter().map(name).collect(),
        broken: lines.iter().filter(|line| line["holds"] == false).map(name).collect(),
        said: format!("{arguments:?}: {said}\n{}", why.join("\n")),
    }
}

/// With the check taken out, the demonstration says no, and exactly the lines break that stand for it, of those in `steps`.
fn breaks_its_lines(sabotage: Sabotage, steps: &str) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let run = demo(&["--sabotage", sabotage.word(), "--only", steps]);
    assert_eq!(run.code, Some(1), "{}", run.said);
    let of_steps: Vec<&str> = sabotage.lines().iter().copied().filter(|line| run.tried.iter().any(|tried| tried == line)).collect();
    assert!(!of_steps.is_empty(), "none of these steps stands for the check: {}", run.said);
    assert_eq!(run.broken, of_steps, "{}", run.said);
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
    breaks_its_lines(Sabotage::Icv, "forged,flipped");
}

#[test]
fn without_the_payload_under_the_icv_packets_changed_on_the_way_pass() {
    breaks_its_lines(Sabotage::Coverage, "granted,forged,tcp,flipped,lying-sender,consent,misused");
}

#[test]
fn without_binding_an_spi_to_its_flow_a_key_holder_sends_whatever_it_likes() {
    breaks_its_lines(Sabotage::Binding, "forged,misused");
}

#[test]
fn without_the_replay_window_a_capture_passes_again() {
    breaks_its_lines(Sabotage::Window, "forged,router-killed");
}

#[test]
fn without_the_budget_a_lying_sender_goes_on() {
    breaks_its_lines(Sabotage::Budget, "over-budget,lying-sender");
}

#[test]
fn without_the_senders_consent_a_receiver_opens_the_path_alone() {
    breaks_its_lines(Sabotage::Consent, "consent,tampered");
}

#[test]
fn without_failing_closed_packets_pass_a_dead_router() {
    breaks_its_lines(Sabotage::FailClosed, "router-killed");
}

#[test]
fn without_expiry_a_permission_outlives_both_ends() {
    breaks_its_lines(Sabotage::Expiry, "expiry");
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
