//! Scenarios as a program: what the two figures of the draft must show within two refresh periods, and that nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs a scenario, which must hold.
fn play(name: &str) -> Value {
    play_with(name, &[])
}

fn play_with(name: &str, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).args(["scenario", name, "--json"]).args(arguments).output().unwrap();
    let outcome: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)));
    let broken: Vec<&Value> = outcome["checks"].as_array().unwrap().iter().filter(|check| check["holds"] != true).collect();
    assert!(broken.is_empty(), "{broken:#?}\n{:#?}", outcome["story"]);
    assert_eq!((output.status.code(), &outcome["holds"], &outcome["lost_frames"]), (Some(0), &Value::from(true), &Value::from(0)));
    assert!(outcome["seconds"].as_f64().unwrap() < 80.0, "{}", outcome["seconds"]);
    outcome
}

fn dropped(outcome: &Value, node: &str, reason: &str) -> u64 {
    let entries = outcome["dropped"].as_array().unwrap().iter();
    entries.filter(|entry| entry["at"] == node && entry["reason"] == reason).map(|entry| entry["packets"].as_u64().unwrap()).sum()
}

#[test]
fn injected_packets_are_noticed_within_two_periods_and_the_second_router_drops_what_is_left_of_them() {
    // draft-04 figure 4; FR-31, FR-40, FS-24.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = play("figure-4");
    assert!(outcome["detected"]["periods"].as_f64().unwrap() <= 2.0, "{}", outcome["detected"]);
    let (injected, through) = (outcome["figures"]["octets injected"].as_u64().unwrap(), outcome["octets_through"].as_u64().unwrap());
    assert!(injected >= 2_000_000 && through < injected, "{through} of {injected}");
    assert!(dropped(&outcome, "router2", "unknown_spi") > 0, "{}", outcome["dropped"]);
}

#[test]
fn dropped_data_makes_the_receiver_ask_for_another_path_after_two_periods() {
    // draft-04 figure 6; FR-35, FR-36, FR-42, FS-26.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = play("data-drop");
    let periods = outcome["detected"]["periods"].as_f64().unwrap();
    assert!((1.0..=2.6).contains(&periods), "two periods in a row, and what may still arrive: {periods}");
    let rules: Vec<&str> = outcome["story"].as_array().unwrap().iter().map(|told| told["rule"].as_str().unwrap()).collect();
    for rule in ["FR-35", "FR-36", "FR-42", "FS-26"] {
        assert!(rules.contains(&rule), "{rule} is not among {rules:?}");
    }
}

#[test]
fn a_connection_whose_data_is_dropped_goes_on_by_another_way_though_it_sends_next_to_nothing() {
    // draft-04 figure 6; X-40 (T4), FR-36, FR-42, FS-25.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcomes = std::thread::scope(|scope| {
        ["4", "6"].map(|version| scope.spawn(move || play_with("data-drop-tcp", &["--ip", version]))).map(|played| played.join().unwrap())
    });
    for outcome in outcomes {
        let evidence = outcome["detected"]["evidence"].as_str().unwrap();
        assert!(evidence.contains("T4"), "{evidence}");
        assert!(
            outcome["figures"]["octets of the connection lost until the reaction"].as_u64().unwrap() < 2 * 65_536,
            "{}",
            outcome["figures"]
        );
    }
}

#[test]
fn a_path_that_moves_between_living_routers_heals_long_before_a_refresh() {
    // X-95, TMP-12, P-204, G-305, FN-32.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let kept = std::env::temp_dir().join(format!("pbs-lab-kept-{}", std::process::id()));
    let outcome = play_with("reroute", &["--keep", kept.to_str().unwrap()]);
    let story = outcome["story"].as_array().unwrap();
    assert!(story.iter().any(|told| told["node"] == "router1" && told["rule"] == "FN-32"), "{story:#?}");
    assert!(story.iter().any(|told| told["node"] == "router2b" && told["rule"] == "FN-05"), "{story:#?}");
    a_falsified_figure_is_found(&kept);
    std::fs::remove_dir_all(&kept).unwrap();
}

/// An audit agrees with the kept run, and with none in which one thing is another.
fn a_falsified_figure_is_found(kept: &Path) {
    let file = kept.join("outcome.json");
    let faithful = std::fs::read(&file).unwrap();
    let audit = || {
        let output = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("audit").arg(kept).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = audit();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("no capture shows: datagrams sent"), "{text}");
    let outcome: Value = serde_json::from_slice(&faithful).unwrap();
    let move_of_data = outcome["shown"].as_array().unwrap().iter().position(|row| !row["part"].is_null()).unwrap();
    for place in [
        "/figures/milliseconds without data, first move".to_owned(),
        "/shown/0/packets".to_owned(),
        "/shown/0/octets".to_owned(),
        format!("/shown/{move_of_data}/first_us"),
        format!("/shown/{move_of_data}/from_us"),
        "/seed".to_owned(),
        "/plan/payload".to_owned(),
        "/lost_frames".to_owned(),
    ] {
        let mut falsified = outcome.clone();
        let figure = falsified.pointer_mut(&place).unwrap();
        // A moment is moved by more than the milliseconds that it is told in.
        *figure = Value::from(figure.as_u64().unwrap() ^ 0x8000);
        std::fs::write(&file, serde_json::to_vec(&falsified).unwrap()).unwrap();
        let (code, text) = audit();
        assert!(code == Some(1) && text.contains("DIFFERS") && text.ends_with("NOT ALL AGREE\n"), "{place}: {text}");
    }
    let mut falsified = outcome;
    falsified["checks"][0]["holds"] = Value::from(false);
    std::fs::write(&file, serde_json::to_vec(&falsified).unwrap()).unwrap();
    assert!(audit().1.contains("the verdict does not follow from the checks"));
    // The captures are somebody's as well: the run as it was, and a packet less.
    std::fs::write(&file, faithful).unwrap();
    let capture = kept.join("behind-router2b.pcap");
    let octets = std::fs::read(&capture).unwrap();
    let mut frames = pcap_file::pcap::PcapReader::new(&octets[..]).unwrap();
    let header = frames.header();
    let mut writer = pcap_file::pcap::PcapWriter::with_header(Vec::new(), header).unwrap();
    // What is under AH is the flow's.
    let is_of_the_flow = |frame: &[u8]| frame.get(12..14) == Some(&[0x08, 0x00]) && frame.get(23) == Some(&51);
    let mut is_left_out = false;
    while let Some(Ok(frame)) = frames.next_packet() {
        if is_left_out || !is_of_the_flow(&frame.data) {
            writer.write_packet(&frame).unwrap();
        } else {
            is_left_out = true;
        }
    }
    std::fs::write(&capture, writer.into_writer()).unwrap();
    assert!(is_left_out && audit().0 == Some(1));
}

#[test]
fn own_packets_under_the_flows_numbers_show_two_holders_of_the_key_in_ipv6_too() {
    // FR-21, FR-40, FS-24; E4.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = play_with("substitution", &["--ip", "6", "--seed", "6"]);
    assert_eq!((&outcome["family"], &outcome["seed"]), (&Value::from("ipv6"), &Value::from(6)));
    assert!(outcome["detected"]["periods"].as_f64().unwrap() <= 1.0, "{}", outcome["detected"]);
}

#[test]
fn a_sender_that_understates_its_volume_is_found_out_at_the_first_comparison() {
    // FR-31, FR-40, FR-41; E1.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = play("lying-sender");
    assert!(outcome["detected"]["periods"].as_f64().unwrap() <= 1.2, "{}", outcome["detected"]);
}

#[test]
fn every_tenth_packet_missing_is_noticed_after_two_periods_at_any_place_of_the_count() {
    // P-176.
    // FR-36, FR-42; T2.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = play("every-nth");
    assert!(outcome["detected"]["periods"].as_f64().unwrap() <= 2.6, "{}", outcome["detected"]);
}

#[test]
fn a_word_that_ends_a_permission_and_crosses_a_question_ends_it_everywhere() {
    // FR-16, FS-27, FN-26.
    if !pbs_lab::may_make_networks() {
        return;
    }
    assert_eq!(play("crossing")["octets_through"], 0);
}

#[test]
fn with_a_second_uplink_the_flow_whose_data_is_dropped_goes_on_there_and_no_other_does() {
    // P-189.
    // draft-04 figure 6; FR-42, FS-25, FS-05, FS-50; X-99.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = play("data-drop-spare");
    let periods = outcome["detected"]["periods"].as_f64().unwrap();
    assert!((1.0..=2.6).contains(&periods), "two periods in a row, and what may still arrive: {periods}");
}

#[test]
fn with_a_second_uplink_a_flow_goes_on_when_everything_is_dropped_on_the_first() {
    // draft-04 figure 5; FS-31, FS-09, FS-05.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = play("black-hole-spare");
    assert!(outcome["figures"]["octets of the flow lost until then"].as_u64().unwrap() > 0);
}

#[test]
fn each_node_killed_the_moment_a_permission_has_passed_it_is_back_within_a_period_and_lets_nothing_pass() {
    // TMP-13. The other steps are `restart-…` of `--list`.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let kept = std::env::temp_dir().join(format!("pbs-lab-restarted-{}", std::process::id()));
    let outcome = play_with("restart-at-permission", &["--keep", kept.to_str().unwrap()]);
    let audit = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("audit").arg(&kept).output().unwrap();
    assert_eq!(audit.status.code(), Some(0), "{}", String::from_utf8_lossy(&audit.stdout));
    let mut falsified = outcome.clone();
    falsified["table"]["rows"][2][4] = Value::from("1");
    std::fs::write(kept.join("outcome.json"), serde_json::to_vec(&falsified).unwrap()).unwrap();
    let audit = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("audit").arg(&kept).output().unwrap();
    assert!(String::from_utf8_lossy(&audit.stdout).contains("DIFFERS a cell of the table"), "{audit:?}");
    std::fs::remove_dir_all(&kept).unwrap();
    let killed: Vec<&str> = outcome["table"]["rows"].as_array().unwrap().iter().map(|row| row[0].as_str().unwrap()).collect();
    for node in ["sender", "router1", "router2", "receiver"] {
        assert!(killed.contains(&node), "{killed:?}");
    }
    for node in ["sender", "router1", "router2"] {
        assert_eq!(outcome["figures"][format!("packets past {node} while it was dead")], 0, "{}", outcome["figures"]);
    }
}

#[test]
fn words_that_end_a_permission_and_are_lost_on_any_link_end_it_all_the_same() {
    // FS-51, FN-26, FN-28, FS-13. Messages that begin one are `lost-at-grant`, those that prolong one `lost-at-refresh`.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = play("lost-at-end");
    let rows = outcome["table"]["rows"].as_array().unwrap();
    let lost = |message: &str, how: &str| rows.iter().filter(|row| row[0] == message && row[2] == how).count();
    for (message, links) in [("P(AV=0)", 3), ("Query that gives back", 3), ("Notify", 2)] {
        assert_eq!((lost(message, "frame"), lost(message, "association")), (links, links), "{rows:?}");
    }
}

#[test]
fn with_relays_a_flow_whose_data_is_dropped_goes_on_over_the_nearest_and_when_that_dies_over_the_other() {
    // X-99, P-189; FR-42, FS-25, FS-36, FS-05, FS-50; every host filters sources strictly (RFC 3704).
    if !pbs_lab::may_make_networks() {
        return;
    }
    over_relays("4", "relay-ipv4");
}

#[test]
fn with_relays_the_same_follows_in_ipv6() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    over_relays("6", "relay-ipv6");
}

#[test]
fn flows_whose_routed_path_swallows_everything_go_on_over_a_relay_and_new_ones_begin_there() {
    // draft-04 figure 5, P-175; FS-08, FS-09, FS-31, FS-05.
    if !pbs_lab::may_make_networks() {
        return;
    }
    let outcome = audited("black-hole-relay", "4", "black-hole-relay");
    assert!(outcome["figures"]["octets of the other flow behind the relays"].as_u64().unwrap() > 0, "{}", outcome["figures"]);
}

/// Plays the scenario in one IP version.
fn over_relays(version: &str, name: &str) {
    let outcome = audited("relay", version, name);
    let figure = |name: &str| outcome["figures"][name].as_u64().unwrap();
    for relay in ["relay1", "relay2"] {
        assert!(figure(&format!("{relay}: octets of the flow behind it")) > 0, "{}", outcome["figures"]);
    }
    // The time-outs alone would take 12 s: the bound does not depend on them.
    assert!(figure("milliseconds without data when the relay died") < 11_000, "{}", outcome["figures"]);
}

/// Plays a scenario, and has its captures audited.
fn audited(scenario: &str, version: &str, name: &str) -> Value {
    let directory = std::env::temp_dir().join(format!("pbs-lab-test-{name}-{}", std::process::id()));
    let outcome = play_with(scenario, &["--ip", version, "--keep", directory.to_str().unwrap()]);
    let audit = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("audit").arg(&directory).output().unwrap();
    let _ = std::fs::remove_dir_all(&directory);
    assert_eq!(audit.status.code(), Some(0), "{}", String::from_utf8_lossy(&audit.stdout));
    outcome
}

#[test]
fn scenarios_are_listed_and_an_unknown_one_is_an_error_that_names_them() {
    let lab = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("scenario").args(arguments).output().unwrap();
    let list = lab(&["--list"]);
    let listed = String::from_utf8(list.stdout).unwrap();
    assert_eq!(list.status.code(), Some(0));
    for name in [
        "figure-4",
        "substitution",
        "data-drop",
        "black-hole",
        "loss-below",
        "loss-above",
        "injection-signed",
        "reroute",
        "reroute-unseen",
        "failover",
        "relay",
        "black-hole-relay",
        "restarts",
        "replay-storm",
        "restart-at-handshake",
        "lost-at-grant",
    ] {
        assert!(listed.lines().any(|line| line.split(' ').next() == Some(name)), "{name}: {listed}");
    }
    let unknown = lab(&["figure-9"]);
    assert_eq!(unknown.status.code(), Some(2));
    let words = String::from_utf8(unknown.stderr).unwrap();
    assert!(words.contains("figure-9") && words.contains("figure-4, substitution"), "{words}");
    assert_eq!(lab(&[]).status.code(), Some(2));
}
