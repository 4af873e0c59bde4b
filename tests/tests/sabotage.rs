//! The demonstration notices when a check is missing: with one taken out of the router, exactly the lines that stand for it
//! break, and the program says no.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::process::Command;

use serde_json::Value;

/// Runs the laboratory's program, and gives its exit code and the names of the lines that did not hold.
fn demo(arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("demo").arg("--json").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let lines = outcome["lines"].as_array().unwrap();
    assert!(!lines.is_empty(), "{said}");
    assert_eq!(outcome["lost_frames"], 0, "{said}");
    let broken = lines.iter().filter(|line| line["holds"] == false).map(|line| line["name"].as_str().unwrap().to_owned()).collect();
    (output.status.code(), broken)
}

/// With the check `sabotage` taken out, of the steps `only` exactly `broken` does not hold.
fn breaks(sabotage: &str, only: &str, broken: &[&str]) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    assert_eq!(demo(&["--only", only]), (Some(0), Vec::new()), "nothing is taken out, and yet a line breaks");
    let (code, names) = demo(&["--only", only, "--sabotage", sabotage]);
    assert_eq!(names, broken, "--sabotage {sabotage}");
    assert_eq!(code, Some(1));
}

#[test]
fn without_the_icv_check_packets_under_a_wrong_key_pass() {
    breaks("icv", "forged", &["wrong-key", "wrong-key-ipv6"]);
}

#[test]
fn without_the_replay_window_a_capture_passes_again() {
    breaks("window", "forged", &["replayed", "replayed-ipv6"]);
}

#[test]
fn without_the_budget_a_lying_sender_goes_on() {
    breaks("budget", "over-budget", &["lying-sender"]);
}

#[test]
fn without_the_senders_consent_a_receiver_opens_the_path_alone() {
    breaks("consent", "consent", &["consent"]);
}

#[test]
fn without_failing_closed_packets_pass_a_dead_router() {
    breaks("fail-closed", "router-killed", &["router-killed"]);
}

#[test]
fn without_expiry_a_permission_outlives_its_sender() {
    breaks("expiry", "expiry", &["expiry"]);
}

#[test]
#[ignore = "takes some minutes: every check in turn, every line of the demonstration"]
fn in_the_whole_demonstration_each_missing_check_breaks_its_own_lines() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let expected: [(&str, &[&str]); 6] = [
        ("icv", &["wrong-key", "wrong-key-ipv6"]),
        ("window", &["replayed", "replayed-ipv6"]),
        ("budget", &["lying-sender"]),
        ("consent", &["consent"]),
        ("fail-closed", &["router-killed"]),
        ("expiry", &["expiry"]),
    ];
    for (sabotage, broken) in expected {
        let (code, names) = demo(&["--sabotage", sabotage]);
        assert_eq!((code, names.as_slice()), (Some(1), broken.map_names().as_slice()), "--sabotage {sabotage}");
    }
}
