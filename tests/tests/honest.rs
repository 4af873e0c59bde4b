//! Honest sessions over a bad network accuse nobody (INV-13), and can be played again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use pbs_lab::honest::{self, BANDS, Numbers, Options, Outcome};

fn play(sessions: u64, seed: u64) -> Outcome {
    honest::run(Options { sessions, seed, injecting: false }, |_| {}).unwrap()
}

#[test]
fn honest_sessions_under_loss_reordering_and_delay_accuse_nobody() {
    // INV-13; E1 to E4. `pbs-lab honest` plays a thousand.
    let outcome = play(60, 1);
    assert!(outcome.e_alarms.is_empty(), "{}", outcome.text());
    assert!(outcome.holds && outcome.granted == 60 && outcome.comparisons > 200, "{}", outcome.text());
    // The network was bad: packets and messages were lost, and a tolerance of one in a hundred is too little where every tenth is.
    assert!(outcome.packets_lost * 50 > outcome.packets_sent && outcome.messages_lost > 0, "{}", outcome.text());
    let missed: u64 = outcome.table[0].bands.iter().skip(BANDS.len() - 2).map(|(alarms, _)| alarms).sum();
    assert!(missed > 0, "{}", outcome.text());
    let unharmed = outcome.table.iter().map(|row| row.bands[0]);
    assert_eq!(outcome.t4_alarms, 0, "{}", outcome.text());
    assert!(unharmed.clone().all(|(alarms, _)| alarms == 0) && unharmed.map(|(_, all)| all).sum::<u64>() > 0, "{}", outcome.text());
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let [first, again, other] = [7, 7, 8].map(|seed| play(6, seed).trace);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn the_same_sessions_with_packets_added_under_the_flows_key_are_accused_and_only_from_then_on() {
    // E1, E2: the counter-example to INV-13, without which its silence would show nothing.
    let outcome = honest::run(Options { sessions: 60, seed: 1, injecting: true }, |_| {}).unwrap();
    assert!(outcome.holds && outcome.too_early == 0, "{}", outcome.text());
    let [next, ahead] = &outcome.injected[..] else { panic!("{:?}", outcome.injected) };
    assert_eq!((next.numbers, ahead.numbers), (Numbers::Next, Numbers::Ahead));
    assert!(next.bands[0].1 > 0 && ahead.bands.iter().map(|(_, all)| all).sum::<u64>() > 10, "{}", outcome.text());
    // The same sessions are what an honest run calls a failure.
    assert!(!outcome.e_alarms.is_empty());
}
