//! Everything that reads octets of others, on the corpora in the tree and some thousand changes of them (G-395, G-396, G-397, P-018,
//! P-205). `pbs-lab fuzz` goes on from here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use pbs_lab::fuzz::{Layout, Mutator, Options, TARGETS, Target, judge, read, run};
use traffic::ah::Question;
use traffic::algorithm::IcvKey;
use traffic::checks::{Checks, Strict};
use traffic::packet::IpPacket;
use traffic::replay::{Replay, Window};

/// Mutations for each target; a campaign makes millions.
const INPUTS: u64 = 10_000;

macro_rules! replayed {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            replay($name);
        })*

        const REPLAYED: &[&str] = &[$($name),*];
    };
}

replayed! {
    messages_of_gist: "gist-message",
    routing_information: "gist-routing",
    octets_of_associations: "gist-stream",
    packets_on_their_way_past_a_node: "gist-intercepted",
    datagrams_to_a_node_in_any_state: "gist-datagram",
    messages_on_associations_of_a_node_in_any_state: "gist-association",
    everything_that_a_node_may_get_in_any_order: "gist-conversation",
    lines_on_the_socket_of_applications: "gist-ipc",
    messages_of_pbs: "pbs-message",
    ip_packets_with_ah_and_without: "ip-packet",
    packets_in_packets: "ip-tunnel",
    certificates_of_peers: "certificate",
    configuration_files: "configuration",
    lines_on_the_control_socket: "control-socket",
    what_the_kernel_says: "netlink",
    rows_of_packets_to_a_verifier: "verifier",
}

fn replay(name: &str) {
    let target = pbs_lab::fuzz::find(name).unwrap();
    let corpus = read(name).unwrap();
    let limit = Duration::from_secs(600);
    let outcome = run(target, &corpus, Options { inputs: INPUTS, time: limit, seed: 1 });
    println!("  {name}: {} inputs, {} different outcomes", outcome.inputs, outcome.kinds);
    assert!(outcome.finding.is_none(), "{name}: {}", outcome.finding.unwrap());
    assert!(outcome.kinds > 8, "{name}: the inputs all end in the same: {}", outcome.kinds);
}

#[test]
fn every_target_is_replayed_here() {
    assert_eq!(TARGETS.map(|target| target.name).to_vec(), REPLAYED);
}

#[test]
fn every_target_has_something_to_begin_with() {
    for target in TARGETS {
        let begun = read(target.name).unwrap().len() + (target.seeds)().len();
        assert!(begun >= 3, "{}: {begun} inputs", target.name);
    }
}

#[test]
fn the_same_seed_makes_the_same_inputs() {
    for layout in
        [Layout::Plain, Layout::Gist { at: 0 }, Layout::Pbs, Layout::Ip { at: 0 }, Layout::Text, Layout::Lines, Layout::Netlink { at: 0 }]
    {
        let pool = [b"some octets to begin with".to_vec(), vec![0; 64]];
        let made = |seed| {
            let mut mutator = Mutator::new(layout, seed);
            (0..200).map(|_| mutator.next(&pool)).collect::<Vec<_>>()
        };
        assert_eq!(made(7), made(7));
        assert_ne!(made(7), made(8));
    }
}

/// A panic is found, told with the input that led to it, and the first one ends the campaign.
#[test]
fn what_breaks_is_told_with_the_input_that_broke_it() {
    let take = |input: &[u8]| {
        assert!(!input.contains(&0xff), "an octet of 255");
        0
    };
    let target = Target { name: "none", reads: "anything", layout: Layout::Plain, seeds: Vec::new, take };
    let outcome = run(&target, &[vec![1, 2, 3]], Options { inputs: 100_000, time: Duration::from_secs(60), seed: 3 });
    let finding = outcome.finding.expect("found");
    assert!(finding.input.contains(&0xff) && finding.what == "an octet of 255", "{finding}");
}

/// One that answers every question ahead with yes, one that takes every ICV for right, one that takes each number for new.
#[derive(Debug)]
struct Hasty;
#[derive(Debug)]
struct Believing;
#[derive(Debug)]
struct Forgetful;

impl Checks for Hasty {
    fn icvs_match(&self, questions: &[Option<Question<'_>>], answers: &mut [Option<bool>]) {
        questions.iter().zip(answers).for_each(|(question, answer)| *answer = question.as_ref().map(|_| true));
    }
}

impl Checks for Believing {
    fn icv_matches(&self, _: &IpPacket<'_>, _: &IcvKey, _: Option<u32>) -> bool {
        true
    }
}

impl Checks for Forgetful {
    fn window_allows(&self, _: &Window, _: u64) -> Result<(), Replay> {
        Ok(())
    }
}

/// P-157, P-161: the rows with which campaigns begin find out a verifier that is wrong, alone or for many packets at once.
#[test]
fn a_verifier_that_does_not_check_is_found_out() {
    let rows = [read("verifier").unwrap(), (pbs_lab::fuzz::find("verifier").unwrap().seeds)()].concat();
    let found = |checks: fn() -> [Arc<dyn Checks>; 2]| {
        let words = |row: &Vec<u8>| catch_unwind(|| judge(row, checks())).err().and_then(|panic| panic.downcast::<String>().ok());
        rows.iter().filter_map(words).map(|words| *words).collect::<Vec<_>>()
    };
    assert_eq!(found(|| [Arc::new(Strict), Arc::new(Strict)]), Vec::<String>::new());
    for (words, checks) in [
        ("at once, and one by one", (|| [Arc::new(Strict) as Arc<dyn Checks>, Arc::new(Hasty)]) as fn() -> [Arc<dyn Checks>; 2]),
        ("nobody who may has sent it", || [Arc::new(Believing), Arc::new(Believing)]),
        ("has passed twice", || [Arc::new(Forgetful), Arc::new(Forgetful)]),
    ] {
        let found = found(checks);
        assert!(found.iter().any(|found| found.contains(words)), "{words}: {found:?}");
    }
}
