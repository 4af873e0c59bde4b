//! The router alone: the sender is on one side, the receiver on the other. T is 5 s, so that what is permitted ends after 17.5 s
//! without a refresh; an old epoch drains for 10 s.

use gist::api::{NetworkEvent, ReceivedMessage};
use gist::wire::SessionId;
use pbs_nslp::router::{LimitRule, Limits, Router, RouterConfig, RouterPolicy};
use pbs_nslp::selector::Selector;
use pbs_nslp::wire::{Defense, Permission, Query, SaParameters, Volume};

use super::{Alone, Book};
use crate::credentials::ToyAuthority;
use crate::forge::{self, SPI, permission_from, query_from, spoiled};
use crate::world::{START_UNIX, flow_to, handle, peer, principal, router_config, seconds};

type Node = Alone<Router>;

const OTHER_SPI: u32 = 0x6000;
const NEWER: SessionId = SessionId([9; 16]);

pub(super) fn book() -> Book {
    Book::open("router", include_str!("router.txt"))
}

fn idle_with(change: impl FnOnce(&mut RouterConfig)) -> Node {
    let mut config = router_config();
    change(&mut config);
    let now = gist::time::Instant::from_micros(1_000_000);
    Alone::new(Router::new(config, std::sync::Arc::new(ToyAuthority::default()), START_UNIX, now))
}

fn idle() -> Node {
    idle_with(|_| {})
}

/// What the operator lets the two hosts permit each other.
fn within(volume: Option<u64>) -> Node {
    let limits = volume.map(|volume| Limits { volume: Volume(volume), ..Limits::default() });
    idle_with(|config| config.policy = RouterPolicy { rules: vec![LimitRule { selector: Selector::default(), limits }] })
}

fn waiting() -> Node {
    idle().after(ask)
}

fn permitted() -> Node {
    waiting().after(|node| {
        grant(node);
        node.passes(seconds(1));
    })
}

/// Another epoch has begun, and the one before drains.
fn draining() -> Node {
    permitted().after(|node| {
        let other = rekeyed(permission(node));
        hears(node, &other);
        node.passes(seconds(1));
    })
}

fn ask(node: &mut Node) {
    ask_in(node, node.session);
}

fn ask_in(node: &mut Node, session: SessionId) {
    let query = forge::query(node.number());
    node.hears(query_from(0, session, &query, &forge::sender()));
}

fn grant(node: &mut Node) {
    let permission = permission(node);
    hears(node, &permission);
}

fn permission(node: &mut Node) -> Permission {
    forge::permission(node.number())
}

fn rekeyed(permission: Permission) -> Permission {
    let sa = Some(SaParameters { spi: OTHER_SPI, drain: seconds(10), new_epoch: true });
    Permission { defense: Some(forge::key(8)), sa, ..permission }
}

fn other_path(permission: Permission) -> Permission {
    Permission { defense: Some(Defense::ChangePath), sa: None, ..permission }
}

/// What ends by its time limit, and what ends for want of a refresh.
fn short(permission: &Permission) -> [(&'static str, Permission); 2] {
    [
        ("for 12 s", Permission { ttl: seconds(12), ..permission.clone() }),
        ("every 6 s", Permission { refresh: seconds(6), ..permission.clone() }),
    ]
}

fn hears(node: &mut Node, permission: &Permission) {
    node.hears(permission_from(2, node.session, permission, &forge::receiver()));
}

fn deny(node: &mut Node) {
    let denial = forge::denial(node.number());
    hears(node, &denial);
}

fn hears_spoiled(node: &mut Node) {
    let query = forge::query(node.number());
    node.told(spoiled(query_from(0, node.session, &query, &forge::sender())));
}

fn last_query_by(node: &mut Node, place: usize) {
    let last = node.heard.iter().rev().find(|received| received.principal == principal(0)).cloned().unwrap();
    node.told(ReceivedMessage { peer: peer(place), peer_handle: handle(place), principal: principal(place), ..last });
}

#[test]
pub(super) fn invalid_and_old_messages_change_nothing_but_are_told() {
    let mut book = book();
    for (state, node) in [("Idle", idle()), ("WaitP", waiting()), ("Permitted", permitted())] {
        book.case(&format!("FN-00 | {state}"), &node, hears_spoiled);
        if state != "Idle" {
            book.case(&format!("FN-30 | {state}"), &node, |node| {
                let old = forge::query(u32::try_from(START_UNIX).unwrap() - 3);
                node.told(query_from(0, node.session, &old, &forge::sender()));
            });
        }
    }
    book.close();
}

#[test]
pub(super) fn what_an_idle_router_does() {
    let mut book = book();
    book.case("FN-01 | a Query", &idle(), ask);
    book.case("FN-02 | no room", &idle_with(|config| config.pending = 0), ask);
    book.case("FN-72 | Idle, a Query that the operator forbids", &within(None), ask);
    book.case("FN-03 | a Permission", &idle(), grant);
    book.case("FN-03 | another path", &idle(), |node| {
        let other = other_path(permission(node));
        hears(node, &other);
    });
    book.case("FN-03 | a denial", &idle(), deny);
    // FN-60: what was accepted before the process began is refused.
    book.case("FN-60 | a Query of the time before", &idle(), |node| {
        let old = forge::query(u32::try_from(START_UNIX).unwrap() - 6);
        node.told(query_from(0, node.session, &old, &forge::sender()));
    });
    book.case("FN-60 | a Query just before", &idle(), |node| {
        let old = forge::query(u32::try_from(START_UNIX).unwrap() - 4);
        node.told(query_from(0, node.session, &old, &forge::sender()));
    });
    book.close();
}

/// FN-05 to FN-11, FN-71, FN-72.
#[test]
pub(super) fn what_a_waiting_router_does() {
    let mut book = book();
    let node = waiting();
    for (name, permission) in short(&permission(&mut node.clone())) {
        book.case(&format!("FN-05 | {name}"), &node, |node| hears(node, &permission));
    }
    let forbidding = within(Some(500)).after(ask);
    book.case("FN-72 | WaitP, more than the operator lets", &forbidding, grant);
    // Another flow to the same receiver has the SPI.
    let taken = permitted().after(|node| {
        let query = Query { flow: flow_to(9001), ..forge::query(node.number()) };
        node.session = NEWER;
        node.hears(query_from(0, NEWER, &query, &forge::sender()));
    });
    book.case("FN-06 | WaitP, taken by another flow", &taken, |node| {
        let permission = Permission { flow: flow_to(9001), ..permission(node) };
        hears(node, &permission);
    });
    book.case("FN-07 | a denial", &node, deny);
    let later = node.after(|node| node.passes(seconds(10)));
    book.case("FN-08 | a newer Query", &later, ask);
    book.case("FN-09 | nobody answers", &node, |node| node.passes(seconds(30)));
    book.case("FN-11 | another path", &node, |node| {
        let other = other_path(permission(node));
        hears(node, &other);
    });
    book.case("FN-71 | WaitP, a newer session asks", &node, |node| {
        node.session = NEWER;
        ask(node);
    });
    book.close();
}

/// FN-05 (replaces), FN-71: the flow's newer session takes over.
#[test]
pub(super) fn a_newer_session_takes_over() {
    let mut book = book();
    for (state, node) in [("Permitted", permitted()), ("Permitted, draining", draining())] {
        let asked = node.after(|node| ask_in(node, NEWER));
        book.case(&format!("FN-71 | {state}, a newer session asks"), &node, |node| ask_in(node, NEWER));
        for (name, permission) in short(&permission(&mut asked.clone())) {
            let sa = Some(SaParameters { spi: 0x7000, drain: seconds(10), new_epoch: true });
            let permission = Permission { defense: Some(forge::key(9)), sa, ..permission };
            book.case(&format!("FN-05 | {state}, a newer session is permitted {name}"), &asked, |node| {
                node.session = NEWER;
                hears(node, &permission);
            });
        }
    }
    book.close();
}

/// FN-21 to FN-25, FN-06 and FN-72 under a permission.
#[test]
pub(super) fn what_goes_on_under_a_permission() {
    let mut book = book();
    for (state, node) in [("Permitted", permitted()), ("Permitted, draining", draining())] {
        let live = if state == "Permitted" { SPI } else { OTHER_SPI };
        let current = |permission: Permission| if live == SPI { permission } else { rekeyed(permission) };
        book.case(&format!("FN-21 | {state}"), &node, ask);
        for (name, permission) in short(&permission(&mut node.clone())) {
            let refresh = current(permission.clone());
            book.case(&format!("FN-22 | {state}, {name}"), &node, |node| hears(node, &refresh));
            let sa = Some(SaParameters { spi: 0x7000, drain: seconds(5), new_epoch: true });
            let newer = Permission { defense: Some(forge::key(9)), sa, ..permission.clone() };
            book.case(&format!("FN-23 | {state}, {name}"), &node, |node| hears(node, &newer));
            let other = other_path(permission);
            book.case(&format!("FN-25 | {state}, {name}"), &node, |node| hears(node, &other));
        }
        book.case(&format!("FN-24 | {state}"), &node, |node| {
            let swapped = Permission { defense: Some(forge::key(10)), ..current(permission(node)) };
            hears(node, &swapped);
        });
    }
    book.case("FN-06 | Permitted, back to the epoch that drains", &draining(), grant);
    book.case("FN-29 | the drain time is over", &draining(), |node| node.passes(seconds(10)));
    let limited = within(Some(1000)).after(|node| {
        ask(node);
        grant(node);
        node.passes(seconds(1));
    });
    for (name, change) in [("a Permission", false), ("another path", true)] {
        book.case(&format!("FN-72 | Permitted, {name} beyond what the operator lets"), &limited, |node| {
            let permission = Permission { allowed: Volume(2000), ..permission(node) };
            let permission = if change { other_path(permission) } else { permission };
            hears(node, &permission);
        });
    }
    book.close();
}

/// FN-26 to FN-28, FN-70.
#[test]
pub(super) fn every_end_of_a_permission() {
    let mut book = book();
    for (state, node) in [("Permitted", permitted()), ("Permitted, draining", draining())] {
        book.case(&format!("FN-26 | {state}, a denial"), &node, deny);
        book.case(&format!("FN-70 | {state}, the packet side fails"), &node, |node| {
            node.datapath.table.clear();
            let permission = permission(node);
            let permission = if state == "Permitted" { permission } else { rekeyed(permission) };
            hears(node, &permission);
        });
    }
    for (rule, number) in [("FN-27", 0), ("FN-28", 1)] {
        let node = waiting().after(|node| {
            let permission = short(&permission(node)).into_iter().nth(number).unwrap().1;
            hears(node, &permission);
        });
        book.case(&format!("{rule} | Permitted"), &node.just_before_the_end(), |node| node.passes(seconds(1)));
        let node = node.after(|node| {
            node.passes(seconds(5));
            let permission = short(&permission(node)).into_iter().nth(number).unwrap().1;
            hears(node, &rekeyed(permission));
        });
        let node = node.after(|node| {
            // Once more, so that the epoch before drains until the end.
            node.passes(seconds(6));
            let permission = short(&permission(node)).into_iter().nth(number).unwrap().1;
            let sa = Some(SaParameters { spi: 0x7000, drain: seconds(60), new_epoch: true });
            hears(node, &Permission { defense: Some(forge::key(9)), sa, ..permission });
        });
        book.case(&format!("{rule} | Permitted, draining"), &node.just_before_the_end(), |node| node.passes(seconds(1)));
    }
    book.close();
}

/// FN-31 to FN-33.
#[test]
pub(super) fn what_repairs_do() {
    let mut book = book();
    let node = permitted();
    book.case("FN-31 | the last Query by another peer", &node, |node| last_query_by(node, 5));
    let repaired = node.after(|node| last_query_by(node, 5));
    book.case("FN-31 | once more at once", &repaired, |node| last_query_by(node, 6));
    book.case("FN-31 | once more a second later", &repaired.after(|node| node.passes(seconds(1))), |node| last_query_by(node, 6));
    book.case("FN-32 | another peer downstream", &node, |node| node.network(NetworkEvent::PeerChanged));
    book.case("FN-32 | once more at once", &repaired, |node| node.network(NetworkEvent::PeerChanged));
    book.case("FN-33 | the association downstream is lost", &node, |node| node.network(NetworkEvent::AssociationLost));
    book.case("FN-33 | the last message did not go", &node, Node::undelivered);
    book.close();
}
