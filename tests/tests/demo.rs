//! The demonstration as a program: what it tells whoever watches, and what it measures. That every line holds, and that missing
//! checks are noticed, is shown in `sabotage.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long nobody may have to wait for a word, on a machine that is busy otherwise.
const SILENCE: Duration = Duration::from_secs(5);

/// What a run said, when, and its outcome.
struct Run {
    said: Vec<(Duration, String)>,
    code: Option<i32>,
    outcome: Value,
}

fn demo(arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pbs-lab"));
    command.arg("demo").arg("--json").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, started) = (command.spawn().unwrap(), Instant::now());
    let errors = BufReader::new(child.stderr.take().unwrap());
    let said = errors.lines().map(|line| (started.elapsed(), line.unwrap().trim().to_owned())).collect();
    let mut json = String::new();
    child.stdout.take().unwrap().read_to_string(&mut json).unwrap();
    let code = child.wait().unwrap().code();
    Run { said, code, outcome: serde_json::from_str(&json).unwrap() }
}

fn line<'a>(run: &'a Run, name: &str) -> &'a Value {
    run.outcome["lines"].as_array().unwrap().iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no line {name}"))
}

/// The figure of a line that stands between two words.
fn measured(run: &Run, name: &str, before: &str, behind: &str) -> f64 {
    let text = line(run, name)["measured"].as_str().unwrap();
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{name}: no \"{before}\" in \"{text}\""));
    rest.split_once(behind).unwrap().0.parse().unwrap()
}

#[test]
fn it_says_what_it_tries_and_is_never_silent_for_long_even_where_it_only_waits() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let run = demo(&["--only", "granted,over-budget,expiry"]);
    assert_eq!(run.code, Some(0), "{:#?}", run.said);

    // "trying: …" comes before the lines of the step, and says how long it may take; it does not take longer.
    let mut step: Option<(Duration, u64)> = None;
    let mut tried = 0;
    for (at, text) in &run.said {
        if let Some((begun, at_most)) = step {
            assert!((*at - begun).as_secs() <= at_most, "{text}: {:?} after a step of at most {at_most} s began", *at - begun);
        }
        if let Some(what) = text.strip_prefix("trying: ") {
            let at_most = what.rsplit_once("(at most ").and_then(|(_, rest)| rest.strip_suffix(" s)")).unwrap();
            step = Some((*at, at_most.parse().unwrap()));
            tried += 1;
        } else if text.starts_with("holds") {
            assert!(step.is_some(), "before anything was tried: {text}");
        }
    }
    assert_eq!(tried, 5, "{:#?}", run.said);
    let silences = run.said.windows(2).map(|pair| (pair[1].0 - pair[0].0, &pair[0].1));
    let (longest, after) = silences.max().unwrap();
    assert!(longest < SILENCE, "{longest:?} of silence after \"{after}\"");
    assert!(run.said.last().unwrap().0 > SILENCE * 3, "it did wait for longer than that in all");

    it_times_the_grant_from_the_first_packet(&run);
    it_samples_what_every_node_counts(&run);
    it_judges_whole_captures_and_its_own_time(&run);
}

fn it_times_the_grant_from_the_first_packet(run: &Run) {
    for (name, tried) in [("granted", "no association yet"), ("granted-again", "associations alive"), ("granted-ipv6", "IPv6")] {
        assert!(line(run, name)["tried"].as_str().unwrap().contains(tried));
        let (grant, arrival) = (measured(run, name, "grant after ", " ms"), measured(run, name, "arrival after ", " ms"));
        // The capture is read by a thread that may come late.
        assert!(grant > 0.0 && grant < arrival + 50.0, "{name}: grant after {grant} ms, arrival after {arrival} ms");
    }
}

fn it_samples_what_every_node_counts(run: &Run) {
    let counted = measured(run, "over-budget", "sender counted ", " of ");
    let octets = line(run, "over-budget")["receiver_link"]["there"]["octets"].as_f64().unwrap();
    assert!(counted > 0.0 && counted <= octets && octets <= 40_000.0, "counted {counted}, {octets} passed");
}

fn it_judges_whole_captures_and_its_own_time(run: &Run) {
    let last = run.outcome["lines"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["name"], &last["holds"]), (&Value::from("whole-captures"), &Value::from(true)), "{last}");
    assert!(last["sent"].as_u64() > Some(2000), "{last}");
    assert!(run.outcome["seconds"].as_f64().unwrap() < 90.0);
}
