//! The receiver alone. T is 5 s, so that what is granted ends after 17.5 s without a refresh; an old epoch drains for 10 s.

use core::time::Duration;

use gist::api::ReceivedMessage;
use gist::wire::SessionId;
use pbs_nslp::datapath::Event;
use pbs_nslp::receiver::{Change, Decision, GrantPolicy, Ladder, Overrun, Reactions, Receiver, ReceiverConfig, Strength, Terms};
use pbs_nslp::wire::{Query, Volume, VolumeContext};

use super::{Alone, Book};
use crate::credentials::{ToyAuthority, ToySigner};
use crate::forge::{self, query_from, spoiled};
use crate::world::{START_UNIX, entropy, flow, handle, peer, principal, receiver_address, receiver_config, seconds};

type Node = Alone<Receiver>;
/// Brings a node into a state.
type Into = fn(&Node) -> Node;

const MB: u64 = 1_000_000;
const PACKET: u64 = 50_000;
const NEWER: SessionId = SessionId([9; 16]);

pub(super) fn book() -> Book {
    Book::open("receiver", include_str!("receiver.txt"))
}

fn terms() -> Terms {
    Terms { volume: Volume(10 * MB), limit: Volume(100 * MB), ttl: seconds(600), refresh: seconds(5) }
}

/// Somebody is asked about every flow.
fn idle_with(change: impl FnOnce(&mut ReceiverConfig)) -> Node {
    let mut config = receiver_config();
    config.policy = GrantPolicy { rules: Vec::new(), ask: true };
    config.drain = seconds(10);
    change(&mut config);
    let (now, authority) = (gist::time::Instant::from_micros(1_000_000), std::sync::Arc::new(ToyAuthority::default()));
    Alone::new(Receiver::new(config, ToySigner::new(receiver_address(), 2), authority, entropy(9), START_UNIX, now))
}

fn idle() -> Node {
    idle_with(|_| {})
}

/// The operator has been asked, and says nothing yet.
fn undecided() -> Node {
    idle().after(ask)
}

fn permitted_by(node: &Node, terms: Terms) -> Node {
    node.after(|node| {
        ask(node);
        decide(node, Decision::Grant(terms));
        node.passes(seconds(1));
    })
}

fn permitted() -> Node {
    permitted_by(&idle(), terms())
}

fn reacting(reactions: Reactions) -> Node {
    permitted_by(&idle_with(|config| config.reactions = reactions), terms())
}

/// Another epoch has begun, and the one before drains.
fn draining(node: &Node) -> Node {
    node.after(|node| {
        rekey(node);
        node.passes(seconds(1));
    })
}

/// A refresh has come, and the packet side has yet to say what it has counted.
fn comparing(node: &Node) -> Node {
    node.after(|node| {
        node.counts_silently = true;
        let report = report(node, 0);
        hears(node, &report);
    })
}

/// A megabyte is missing, and the packet side will not say whether it comes.
fn grace(node: &Node) -> Node {
    node.after(|node| {
        let report = report(node, MB);
        hears(node, &report);
        node.counts_silently = true;
    })
}

/// In each state with a permission, without and with an epoch that drains.
fn everywhere() -> Vec<(String, Node)> {
    let mut all = Vec::new();
    for (with, node) in [("", permitted()), (", draining", draining(&permitted()))] {
        all.extend([
            (format!("Permitted{with}"), node.clone()),
            (format!("CompareSv{with}"), comparing(&node)),
            (format!("Grace{with}"), grace(&node)),
        ]);
    }
    all
}

fn query(node: &mut Node) -> Query {
    Query { requested: Some(Volume(10 * MB)), ..forge::query(node.number()) }
}

fn release(node: &mut Node) -> Query {
    Query { requested: Some(Volume::ZERO), ..forge::query(node.number()) }
}

/// A refresh that reports what was sent in the epoch in use, in twenty packets, and asks for twice as much.
fn report(node: &mut Node, sent: u64) -> Query {
    let spi = live(node);
    reports(node, spi, sent)
}

fn reports(node: &mut Node, spi: u32, sent: u64) -> Query {
    let permission = node.granted.as_ref().map_or(1, |permission| permission.number);
    let context = Some(VolumeContext { spi, highest: 20, permission });
    Query { requested: Some(Volume(20 * MB)), sent: Some(Volume(sent)), context, ..forge::query(node.number()) }
}

/// A refresh of a sender that knows another epoch than this receiver does.
fn unknown(node: &mut Node) -> Query {
    let context = Some(VolumeContext { spi: 0x7777, highest: 20, permission: 1 });
    Query { requested: None, sent: Some(Volume(MB)), context, ..forge::query(node.number()) }
}

fn live(node: &Node) -> u32 {
    node.datapath.table.iter().find(|(_, entry)| !entry.draining).unwrap().0.1
}

fn hears(node: &mut Node, query: &Query) {
    let received = query_from(1, node.session, query, &forge::sender());
    node.hears(received);
}

fn ask(node: &mut Node) {
    let query = query(node);
    hears(node, &query);
}

/// The same flow in another session.
fn ask_newly(node: &mut Node) {
    let query = query(node);
    node.hears(query_from(1, NEWER, &query, &forge::sender()));
}

fn decide(node: &mut Node, decision: Decision) {
    let session = node.session;
    node.host(|receiver, now| receiver.decide(flow(), session, decision, now));
}

fn rekey(node: &mut Node) {
    node.host(|receiver, now| assert!(receiver.rekey(flow(), Strength::Same, now)));
}

fn revoke(node: &mut Node) {
    node.host(|receiver, now| assert!(receiver.revoke(flow(), now)));
}

fn change(node: &mut Node, terms: Terms) {
    node.host(|receiver, now| assert!(receiver.change(flow(), terms, now)));
}

fn hears_spoiled(node: &mut Node) {
    let query = query(node);
    node.told(spoiled(query_from(1, node.session, &query, &forge::sender())));
}

fn by_another_peer(received: ReceivedMessage) -> ReceivedMessage {
    ReceivedMessage { peer: peer(5), peer_handle: handle(5), principal: principal(5), ..received }
}

fn last_again(node: &mut Node) {
    let last = node.heard.last().cloned().unwrap();
    node.told(by_another_peer(last));
}

fn over_budget(node: &mut Node) {
    let spi = live(node);
    node.packets(Event::OverBudget { flow: flow(), spi });
}

fn second_holder(node: &mut Node) {
    let spi = live(node);
    node.packets(Event::SecondHolder { flow: flow(), spi });
}

/// Packets arrive under these numbers.
fn arrive(node: &mut Node, numbers: core::ops::Range<u32>) {
    arrive_long(node, numbers, PACKET);
}

fn arrive_long(node: &mut Node, numbers: core::ops::Range<u32>, length: u64) {
    let (spi, now) = (live(node), node.now);
    for number in numbers {
        assert!(node.datapath.verify(flow(), spi, number, length, now));
    }
    node.settle();
}

/// The packet side cannot carry out the next change.
fn fail(node: &mut Node, next: impl FnOnce(&mut Node)) {
    node.datapath.table.clear();
    next(node);
}

#[test]
pub(super) fn invalid_messages_change_nothing_but_are_told() {
    let mut book = book();
    book.case("FR-00 | Idle", &idle(), hears_spoiled);
    book.case("FR-00 | Decision", &undecided(), hears_spoiled);
    for (state, node) in everywhere() {
        book.case(&format!("FR-00 | {state}"), &node, hears_spoiled);
    }
    book.close();
}

#[test]
pub(super) fn what_a_query_leads_to() {
    let mut book = book();
    book.case("FR-01 | a Query", &idle(), ask);
    book.case("FR-03 | a release", &idle(), |node| {
        let release = release(node);
        hears(node, &release);
    });
    let closed = idle_with(|config| config.policy.ask = false);
    book.case("FR-03 | a refresh that nothing is decided about", &closed, |node| {
        let unknown = unknown(node);
        hears(node, &unknown);
    });
    let node = undecided();
    for (name, terms) in [("17.5 s without refresh", terms()), ("12 s", Terms { ttl: seconds(12), ..terms() })] {
        book.case(&format!("FR-05 | {name}"), &node, |node| decide(node, Decision::Grant(terms)));
    }
    book.case("FR-06 | declined", &node, |node| decide(node, Decision::Decline));
    book.case("FR-06 | revoked", &node, revoke);
    book.case("FR-07 | nobody decides", &node, |node| node.passes(seconds(10)));
    book.case("FR-08 | a newer Query", &node, |node| {
        node.passes(seconds(3));
        ask(node);
    });
    let newer = node.after(|node| {
        let query = Query { requested: Some(Volume(3 * MB)), ..query(node) };
        hears(node, &query);
    });
    book.case("FR-05 | the newest Query is answered", &newer, |node| {
        decide(node, Decision::Grant(Terms { volume: Volume(MB), ..terms() }))
    });
    book.case("FR-09 | a release", &node, |node| {
        let release = release(node);
        hears(node, &release);
    });
    book.case("FR-38 | Decision, the last Query by another peer", &node, last_again);
    book.case("FR-50 | Decision, a newer session", &node, ask_newly);
    book.case("FR-60 | Decision", &node, |node| node.host(Receiver::shutdown));
    book.close();
}

/// FR-12, FR-14, FR-15, FR-16, FR-24, FR-37, FR-50, FR-60, FR-70 in every state that has a permission.
#[test]
pub(super) fn every_end_of_a_permission() {
    let mut book = book();
    for (state, node) in everywhere() {
        book.case(&format!("end | {state}, release"), &node, |node| {
            let release = release(node);
            hears(node, &release);
        });
        book.case(&format!("end | {state}, revoked"), &node, revoke);
        book.case(&format!("end | {state}, over budget"), &node, over_budget);
        book.case(&format!("end | {state}, shutdown"), &node, |node| node.host(Receiver::shutdown));
        book.case(&format!("end | {state}, a newer session is granted"), &node, |node| {
            ask_newly(node);
            node.host(|receiver, now| receiver.decide(flow(), NEWER, Decision::Grant(terms()), now));
        });
        book.case(&format!("end | {state}, the packet side fails at a refresh"), &node, |node| {
            let report = report(node, 0);
            fail(node, |node| hears(node, &report));
        });
        book.case(&format!("end | {state}, the packet side fails at the next change"), &node, |node| {
            fail(node, |node| change(node, Terms { volume: Volume(20 * MB), ..terms() }));
            node.counted();
            node.passes(seconds(1));
        });
    }
    book.close();
}

/// FR-14, FR-15, FR-19, FR-37: every clock in every state that has a permission, with all the others running.
#[test]
pub(super) fn every_clock_of_a_permission() {
    let mut book = book();
    let patient = |ttl: u64| {
        let mut thresholds = Reactions::default().thresholds;
        thresholds.grace = seconds(40);
        let node = idle_with(|config| config.reactions = Reactions { thresholds, ..Reactions::default() });
        permitted_by(&node, Terms { ttl: seconds(ttl), ..terms() })
    };
    for (clock, ttl) in [("time limit", 12), ("no refresh", 600)] {
        for drains in [false, true] {
            let states: [(&str, Into); 3] = [("Permitted", Node::clone), ("CompareSv", comparing), ("Grace", grace)];
            for (state, into) in states {
                let node = patient(ttl);
                // The old epoch drains until the new one ends.
                let node = if drains { node.after(|node| node.passes(seconds(5))).after(rekey) } else { node };
                let last = into(&node).just_before_the_end();
                let with = if drains { ", draining" } else { "" };
                book.case(&format!("end | {state}{with}, {clock}"), &last, |node| node.passes(seconds(1)));
            }
        }
    }
    let node = draining(&patient(600));
    for (state, node) in [("Permitted", node.clone()), ("CompareSv", comparing(&node)), ("Grace", grace(&node))] {
        book.case(&format!("FR-19 | {state}, drain time over"), &node, |node| node.passes(seconds(9)));
    }
    book.close();
}

/// FR-11, FR-13, FR-17, FR-18, FR-37, FR-38: what goes on in every state that has a permission.
#[test]
pub(super) fn what_goes_on_in_every_state() {
    let mut book = book();
    for (state, node) in everywhere() {
        let node = node.after(|node| node.passes(Duration::from_millis(500)));
        book.case(&format!("goes on | {state}, a refresh"), &node, |node| {
            let report = report(node, 0);
            hears(node, &report);
        });
        book.case(&format!("goes on | {state}, a refresh by another peer"), &node, |node| {
            let report = report(node, 0);
            let received = query_from(1, node.session, &report, &forge::sender());
            node.hears(by_another_peer(received));
        });
        book.case(&format!("goes on | {state}, a refresh, counted"), &node, |node| {
            let report = report(node, 0);
            hears(node, &report);
            node.counted();
        });
        for (name, terms) in [("", terms()), (" for 12 s", Terms { ttl: seconds(12), ..terms() })] {
            // What was decided is what another epoch gets.
            let node = node.after(|node| {
                if name.is_empty() {
                    return;
                }
                node.host(|receiver, now| {
                    let ttl = Some(terms.ttl);
                    assert!(receiver.amend(flow(), Change { ttl, ..Change::default() }, now));
                });
                node.passes(Duration::from_millis(100));
            });
            book.case(&format!("goes on | {state}, a Query about an unknown epoch{name}"), &node, |node| {
                let unknown = unknown(node);
                hears(node, &unknown);
            });
        }
        let changed = Terms { volume: Volume(20 * MB), ttl: seconds(12), ..terms() };
        book.case(&format!("goes on | {state}, other terms"), &node, |node| change(node, changed));
        book.case(&format!("goes on | {state}, other terms, counted"), &node, |node| {
            change(node, changed);
            node.counted();
        });
        let slow = node.after(|node| node.datapath.stalled = true);
        book.case(&format!("goes on | {state}, a Query about an unknown epoch, the packet side is slow"), &slow, |node| {
            let unknown = unknown(node);
            hears(node, &unknown);
        });
        book.case(&format!("goes on | {state}, another epoch is ordered"), &node, rekey);
        book.case(&format!("goes on | {state}, another epoch is ordered, counted"), &node, |node| {
            rekey(node);
            node.counted();
        });
        book.case(&format!("goes on | {state}, the last Query by another peer"), &node, last_again);
        let again = node.after(last_again);
        book.case(&format!("goes on | {state}, once more"), &again, |node| {
            let last = node.heard.last().cloned().unwrap();
            let other = ReceivedMessage { peer: peer(6), peer_handle: handle(6), principal: principal(6), ..last };
            node.told(other);
        });
        book.case(&format!("goes on | {state}, twice by the same peer"), &again, last_again);
        book.case(&format!("goes on | {state}, the counters come"), &node, Node::counted);
    }
    book.close();
}

/// FR-30 to FR-36, FR-39.
#[test]
pub(super) fn what_a_comparison_leads_to() {
    let mut book = book();
    let node = permitted();
    let counted = node.after(|node| arrive(node, 1..21));
    let cases: [(&str, &Node, u64); 4] = [
        ("FR-32 | nothing is missing", &counted, MB),
        ("FR-33 | a megabyte is missing", &node, MB),
        ("FR-31 | too much came", &counted, MB / 2),
        ("FR-32 | little is missing", &counted, MB + 60_000),
    ];
    for (name, node, sent) in cases {
        book.case(name, node, |node| {
            let report = report(node, sent);
            hears(node, &report);
        });
    }
    book.case("FR-30 | nothing to compare", &node, ask);
    book.case("FR-39 | a megabyte is missing, by another peer", &node, |node| {
        let report = report(node, MB);
        let received = query_from(1, node.session, &report, &forge::sender());
        node.hears(by_another_peer(received));
    });
    // Nothing ends the grace time but itself.
    let grace = node.after(|node| {
        let report = report(node, MB);
        hears(node, &report);
    });
    let over = |node: &mut Node| node.passes(seconds(1));
    book.case("FR-33 | the grace time is over, nothing is told", &grace.after(|node| node.counts_silently = true), over);
    book.case("FR-35 | the grace time is over, it is missing", &grace, over);
    book.case("FR-35 | the grace time is over, it has come", &grace.after(|node| arrive(node, 1..21)), over);
    book.case("FR-31 | the grace time is over, far more has come", &grace.after(|node| arrive_long(node, 1..20, 10 * PACKET)), over);
    let again = |later: u64| {
        grace.after(|node| {
            over(node);
            node.passes(seconds(later));
            let report = report(node, 2 * MB);
            hears(node, &report);
        })
    };
    book.case("FR-36 | a second period, it is missing", &again(3), over);
    book.case("FR-35 | the same period, more is missing", &again(1), over);
    // What is tolerated is a share of one period, however often it is compared in it.
    for (name, before) in [("FR-32 | little is missing once more", 3), ("FR-33 | little is missing twice in a period", 0)] {
        let little = counted.after(|node| {
            node.passes(seconds(before));
            let report = report(node, MB + 60_000);
            hears(node, &report);
            node.passes(seconds(4));
        });
        book.case(name, &little, |node| {
            let report = report(node, MB + 120_000);
            hears(node, &report);
        });
    }
    book.close();
}

/// FR-21, FR-25, FR-40 to FR-44.
#[test]
pub(super) fn what_an_attack_leads_to() {
    let mut book = book();
    let plain = Reactions::default();
    for (name, reactions) in [
        ("graded", plain),
        ("revoking", Reactions { ladder: Ladder::Revoke, ..plain }),
        ("escalating", Reactions { on_overrun: Overrun::Escalate, ..plain }),
    ] {
        let node = reacting(reactions);
        for (state, node) in [("Permitted", node.clone()), ("CompareSv", comparing(&node)), ("Grace", grace(&node))] {
            book.case(&format!("attack | {name}, {state}, a second holder"), &node, second_holder);
            book.case(&format!("attack | {name}, {state}, over budget"), &node, over_budget);
            let drains = draining(&reacting(reactions));
            if state == "Permitted" {
                book.case(&format!("attack | {name}, {state}, draining, a second holder"), &drains, second_holder);
            }
            let lowered = node.after(|node| change(node, Terms { volume: Volume(MB), ..terms() }));
            book.case(&format!("attack | {name}, {state}, over a lowered budget"), &lowered, over_budget);
        }
    }
    // The packets are signed already.
    let signed = permitted().after(|node| {
        second_holder(node);
        node.passes(seconds(1));
    });
    book.case("FR-41 | signed, a second holder", &signed, second_holder);
    book.case("FR-41 | the next Query", &signed.after(second_holder), ask);
    let revoking = reacting(Reactions { ladder: Ladder::Revoke, ..plain });
    book.case("FR-44 | the next Query", &revoking.after(second_holder), ask);
    let tight = permitted_by(&idle(), Terms { limit: Volume(10 * MB), ..terms() });
    book.case("FR-40 | the limit leaves no more", &tight, second_holder);
    for (name, path_changes) in [("FR-42 | another path", 2), ("FR-43 | no more paths", 0)] {
        let node = reacting(Reactions { path_changes, ..plain }).after(|node| {
            for period in 1..3 {
                let report = report(node, period * MB);
                hears(node, &report);
                if period == 1 {
                    node.passes(seconds(4));
                }
            }
        });
        book.case(name, &node, |node| node.passes(seconds(1)));
    }
    book.close();
}

/// FR-45, FR-46: what is missing at the end of the epoch before.
#[test]
pub(super) fn what_the_end_of_an_epoch_leads_to() {
    let mut book = book();
    let ended = |node: &Node| {
        node.after(|node| {
            let old = live(node);
            rekey(node);
            node.passes(seconds(1));
            let report = reports(node, old, 5 * MB);
            hears(node, &report);
            node.passes(seconds(8));
        })
    };
    let over = |node: &mut Node| node.passes(seconds(2));
    let first = ended(&permitted());
    book.case("FR-45 | Permitted", &first, over);
    book.case("FR-45 | CompareSv", &comparing(&first), over);
    book.case("FR-45 | Grace", &grace(&first), over);
    let suspicious = permitted().after(|node| {
        let report = report(node, MB);
        hears(node, &report);
        node.passes(seconds(2));
    });
    book.case("FR-46 | Permitted", &ended(&suspicious), over);
    // What is missing of the present epoch is the second period then.
    book.case("FR-45 | Permitted, and some is missing of the next", &first.after(over), |node| {
        let report = report(node, 5 * MB);
        hears(node, &report);
        node.passes(seconds(2));
    });
    let compared = first.after(|node| {
        node.counts_silently = true;
        let report = report(node, MB);
        hears(node, &report);
    });
    for (state, node) in [("CompareSv", compared), ("Grace", grace(&first))] {
        book.case(&format!("FR-45 | {state}, and some is missing of the next"), &node.after(over), |node| {
            node.counted();
            node.passes(seconds(2));
        });
    }
    // The report names the epoch before, in which far more came than was sent.
    let injected = permitted().after(|node| arrive(node, 1..21));
    book.case("FR-31 | the epoch before", &injected, |node| {
        let old = live(node);
        rekey(node);
        let report = reports(node, old, MB / 2);
        hears(node, &report);
    });
    book.case("FR-30 | the epoch before", &injected, |node| {
        let old = live(node);
        rekey(node);
        let report = reports(node, old, MB);
        hears(node, &report);
    });
    book.close();
}

/// FR-71, FR-72: nothing is left of the volume.
#[test]
pub(super) fn nothing_is_left_for_another_epoch() {
    let mut book = book();
    let tight = Terms { limit: Volume(10 * MB), ..terms() };
    let used = permitted_by(&idle(), tight).after(|node| arrive(node, 1..201));
    let draining_too = draining(&permitted_by(&idle(), Terms { limit: Volume(10 * MB), ..terms() }));
    // It is known that nothing is left.
    let known = used.after(|node| {
        let report = report(node, 10 * MB);
        hears(node, &report);
        node.passes(seconds(1));
    });
    let nodes = [
        ("Permitted", used.clone()),
        ("CompareSv", comparing(&used)),
        ("Permitted, draining", draining_too),
        ("Permitted, known", known.clone()),
        ("CompareSv, known", comparing(&known)),
    ];
    // A refresh comes while it is waited for what the epoch before has counted in the end.
    let waiting = used.after(|node| {
        node.datapath.stalled = true;
        let unknown = unknown(node);
        hears(node, &unknown);
        ask(node);
    });
    book.case("FR-71 | CompareSv, it turns out that nothing is left", &waiting, |node| {
        node.datapath.resume();
        node.settle();
    });
    for (name, node) in nodes {
        book.case(&format!("FR-71 | {name}, an unknown epoch"), &node, |node| {
            let unknown = unknown(node);
            hears(node, &unknown);
        });
        book.case(&format!("FR-72 | {name}, a newer session"), &node, |node| {
            ask_newly(node);
            node.host(|receiver, now| receiver.decide(flow(), NEWER, Decision::Grant(tight), now));
        });
    }
    book.close();
}
