//! The sender alone. What is granted lives for 30 s, so that the next Query is due after 15 s; T is 20 s, unless said otherwise.

use core::time::Duration;
use std::sync::Arc;

use gist::api::{NetworkEvent, PathId, ReceivedMessage};
use gist::wire::SessionId;
use pbs_nslp::datapath::Event;
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::{AskRule, Sender, Way};
use pbs_nslp::wire::{self, Defense, Message, NotifyCode, Permission, SaParameters, Volume};

use super::{Alone, Book};
use crate::credentials::{ToyAuthority, ToySigner};
use crate::forge::{self, SPI, notice_from, permission_from, spoiled};
use crate::world::{NSLP_ID, START_UNIX, VOLUME, entropy, flow, seconds, sender_address, sender_config};

type Node = Alone<Sender>;

const OTHER_SPI: u32 = 0x6000;

pub(super) fn book() -> Book {
    Book::open("sender", include_str!("sender.txt"))
}

fn idle() -> Node {
    idle_with(Arc::new(ToyAuthority::default()))
}

/// Believing whom this authority does.
fn idle_with(authority: Arc<ToyAuthority>) -> Node {
    let now = gist::time::Instant::from_micros(1_000_000);
    Alone::new(Sender::new(sender_config(), ToySigner::new(sender_address(), 1), authority, entropy(1), START_UNIX, now))
}

/// The receiver's key.
const RECEIVERS: u8 = 2;

fn granted_by_one_who_may_be_believed_no_more() -> (Arc<ToyAuthority>, Node) {
    let authority = Arc::new(ToyAuthority::default());
    let node = idle_with(Arc::clone(&authority)).after(want).after(|node| {
        let grant = grant(node);
        hears(node, &grant);
        node.passes(seconds(2));
    });
    (authority, node)
}

fn asking() -> Node {
    idle().after(want)
}

/// It has asked a second time.
fn asking_again() -> Node {
    asking().after(|node| node.passes(seconds(5)))
}

fn granted() -> Node {
    asking().after(|node| {
        let grant = grant(node);
        hears(node, &grant);
        node.passes(seconds(2));
    })
}

/// The same for a minute.
fn granted_longer() -> Node {
    asking().after(|node| {
        let grant = Permission { ttl: seconds(60), ..grant(node) };
        hears(node, &grant);
    })
}

/// The next Query has left and is not answered yet.
fn refreshing() -> Node {
    let mut node = granted_longer();
    let before = node.asked.clone();
    while node.asked == before {
        let next = node.core.poll_timeout().unwrap();
        node.passes(next.saturating_duration_since(node.now));
    }
    node
}

/// So has its repetition.
fn refreshing_again() -> Node {
    refreshing().after(|node| node.passes(seconds(5)))
}

fn with_way(node: &Node) -> Node {
    with_ways(node, &[2])
}

fn with_ways(node: &Node, paths: &[u8]) -> Node {
    node.after(|node| node.host(|sender, _| sender.set_ways(paths.iter().map(|path| way(*path)).collect())))
}

fn way(path: u8) -> Way {
    Way { path: PathId(path), covers: Selector::default(), live: true, relay: None }
}

/// The way that the flow has gone over to is dead, and another one is left.
fn way_dies(node: &mut Node) {
    node.host(|sender, now| {
        sender.set_ways(vec![Way { live: false, ..way(2) }, way(3)]);
        sender.way_is_dead(PathId(2), now);
    });
}

/// The same, and no other is left.
fn last_way_dies(node: &mut Node) {
    node.host(|sender, now| {
        sender.set_ways(vec![Way { live: false, ..way(2) }]);
        sender.way_is_dead(PathId(2), now);
    });
}

/// It was dead, lives again, and no other is left.
fn last_way_is_back(node: &mut Node) {
    node.host(|sender, now| {
        sender.set_ways(vec![way(2)]);
        sender.way_is_dead(PathId(2), now);
    });
}

/// The host sleeps, and none of its clocks is looked at meanwhile.
fn sleeps(node: &mut Node) {
    node.now += seconds(40);
    node.host(Sender::handle_timeout);
}

/// The Query has been called too old, so that it is repeated a second after the last one, which is not over.
fn due(node: &Node) -> Node {
    node.after(|node| {
        hears_notice(node, NotifyCode::Stale);
        node.passes(Duration::from_millis(300));
        hears_notice(node, NotifyCode::Stale);
    })
}

/// The application's packet, which the packet side sends if the permission allows it.
fn sends(node: &mut Node, length: u64) {
    let now = node.now;
    let _ = node.datapath.send(flow(), length, now);
    node.settle();
}

/// It was granted, and has gone over to another path.
fn moved() -> Node {
    with_way(&granted()).after(|node| {
        let other = other_path(node);
        hears(node, &other);
        node.passes(seconds(1));
    })
}

/// It was granted, has gone over to another path, and just now what was granted on the one left ends: by one clock, and a few seconds
/// later it would by the other.
fn ending_elsewhere() -> [(&'static str, Node); 2] {
    [("time limit", 18, 17), ("lifetime", 25, 20)].map(|(clock, ttl, now)| {
        let node = asking().after(|node| {
            let grant = Permission { ttl: seconds(ttl), refresh: seconds(6), ..grant(node) };
            hears(node, &grant);
            node.passes(seconds(2));
        });
        let node = with_ways(&node, &[2, 3]).after(|node| {
            let other = other_path(node);
            hears(node, &other);
            node.passes(seconds(now - 2));
        });
        (clock, node)
    })
}

/// Two tries on the other path are in vain.
fn moved_and_tried() -> Node {
    moved().after(|node| node.passes(seconds(5)))
}

fn releasing() -> Node {
    granted().after(|node| node.host(|sender, now| sender.release(flow(), now)))
}

fn releasing_again() -> Node {
    releasing().after(|node| node.passes(seconds(5)))
}

fn denied() -> Node {
    asking().after(|node| {
        let denial = denial(node);
        hears(node, &denial);
    })
}

fn want(node: &mut Node) {
    node.host(|sender, now| sender.want(flow(), Volume(VOLUME), now).unwrap());
}

fn close(node: &mut Node) {
    node.host(|sender, now| sender.release(flow(), now));
}

fn stop(node: &mut Node) {
    node.host(Sender::shutdown);
}

/// What answers the last Query.
fn grant(node: &mut Node) -> Permission {
    let echo = node.asked.as_ref().map(|query| query.number);
    Permission { allowed: Volume(VOLUME), ttl: seconds(30), refresh: seconds(20), echo, ..forge::permission(node.number()) }
}

/// The same unasked.
fn unasked(node: &mut Node) -> Permission {
    Permission { echo: Some(0), ..grant(node) }
}

fn refreshed(permission: Permission) -> Permission {
    Permission { sa: Some(SaParameters { spi: SPI, drain: seconds(1), new_epoch: false }), ..permission }
}

fn rekeyed(permission: Permission, new_epoch: bool) -> Permission {
    Permission { defense: Some(forge::key(8)), sa: Some(SaParameters { spi: OTHER_SPI, drain: seconds(1), new_epoch }), ..permission }
}

fn other_path(node: &mut Node) -> Permission {
    Permission { defense: Some(Defense::ChangePath), sa: None, ..grant(node) }
}

fn denial(node: &mut Node) -> Permission {
    let echo = node.asked.as_ref().map(|query| query.number);
    Permission { echo, ..forge::denial(node.number()) }
}

/// A grant whose time limit ends it, and one that ends for want of a refresh.
fn short(permission: Permission) -> [(&'static str, Permission); 2] {
    let limited = Permission { ttl: seconds(12), ..permission.clone() };
    let unrefreshed = Permission { ttl: seconds(25), refresh: seconds(6), ..permission };
    [("for 12 s", limited), ("every 6 s", unrefreshed)]
}

fn hears(node: &mut Node, permission: &Permission) {
    let received = permission_from(1, node.session, permission, &forge::receiver());
    node.hears(received);
}

fn hears_notice(node: &mut Node, code: NotifyCode) {
    let received = notice_from(1, node.session, flow(), code);
    node.hears(received);
}

fn hears_spoiled(node: &mut Node) {
    let grant = grant(node);
    let received = spoiled(permission_from(1, node.session, &grant, &forge::receiver()));
    node.told(received);
}

/// The same message with the same number in another session, answering whatever was asked.
pub(super) fn readdressed(session: SessionId, received: &ReceivedMessage) -> ReceivedMessage {
    match wire::decode(received.payload.clone(), received.session, NSLP_ID).unwrap() {
        Message::Permission(permission) => {
            permission_from(1, session, &Permission { echo: None, ..permission.message }, &forge::receiver())
        }
        _ => received.clone(),
    }
}

/// The packet side finds a packet too many, or one that nobody has asked for.
fn over_budget(node: &mut Node) {
    node.packets(Event::OverBudget { flow: flow(), spi: SPI });
}

fn packet(node: &mut Node) {
    node.packets(Event::FirstPacket { flow: flow() });
}

/// The packet side notices the end of the permission before the clocks here do.
fn packet_at_the_end(node: &mut Node) {
    node.now = node.core.poll_timeout().unwrap();
    packet(node);
    node.passes(Duration::ZERO);
}

#[test]
pub(super) fn invalid_messages_change_nothing_but_are_told() {
    let mut book = book();
    book.case("FS-00 | Idle", &denied(), |node| {
        let grant = grant(node);
        let received = permission_from(1, node.session, &grant, &forge::receiver());
        node.told(ReceivedMessage { payload: received.payload.slice(..20), ..received });
    });
    book.case("FS-00 | WaitP", &asking(), hears_spoiled);
    book.case("FS-00 | Permitted", &granted(), hears_spoiled);
    book.case("FS-00 | Releasing", &releasing(), hears_spoiled);
    book.close();
}

#[test]
pub(super) fn what_an_idle_flow_does() {
    let mut book = book();
    book.case("FS-01 | first wish", &idle(), want);
    let after_hold = denied().after(|node| node.passes(seconds(2)));
    book.case("FS-01 | the hold-down is over", &after_hold, want);
    book.case("FS-02 | in hold-down", &denied(), want);
    book.case("FS-03 | Permission", &idle(), |node| {
        let grant = grant(node);
        hears(node, &grant);
    });
    book.case("FS-03 | denial", &idle(), |node| {
        let denial = denial(node);
        hears(node, &denial);
    });
    book.case("FS-03 | other path", &idle(), |node| {
        let other = other_path(node);
        hears(node, &other);
    });
    let quiet = idle().after(|node| node.host(|sender, _| sender.set_ask_rules(Vec::new())));
    book.case("FS-04 | a packet that no rule is for", &quiet, packet);
    book.case("FS-71 | the hold-down ends", &denied(), |node| node.passes(seconds(1)));
    book.close();
}

#[test]
pub(super) fn answers_while_one_is_awaited() {
    let mut book = book();
    for (name, node) in [("first", asking()), ("moved", moved())] {
        for (terms, permission) in short(grant(&mut node.clone())) {
            book.case(&format!("FS-05 | {name}, {terms}"), &node, |node| hears(node, &permission));
        }
        book.case(&format!("FS-05 | {name}, of another attempt"), &node, |node| {
            let grant = unasked(node);
            hears(node, &grant);
        });
    }
    let repaired = asking().after(|node| {
        node.passes(Duration::from_millis(100));
        hears_notice(node, NotifyCode::Stale);
    });
    book.case("FS-05 | a repetition is due", &repaired, |node| {
        let grant = grant(node);
        hears(node, &grant);
    });
    for (name, node) in [("first", asking()), ("repetition due", repaired), ("moved", moved())] {
        book.case(&format!("FS-06 | {name}"), &node, |node| {
            let denial = denial(node);
            hears(node, &denial);
        });
        let unasked = |node: &mut Node| Permission { echo: Some(0), ..denial(node) };
        let rule = if name == "moved" { "FS-18" } else { "FS-06" };
        book.case(&format!("{rule} | {name}, unasked"), &node, |node| {
            let denial = unasked(node);
            hears(node, &denial);
        });
    }
    // What was granted on the way left would end soon.
    for (clock, node) in ending_elsewhere() {
        book.case(&format!("FS-18 | just before its {clock}"), &node, |node| {
            let denial = Permission { echo: Some(0), ..denial(node) };
            hears(node, &denial);
        });
    }
    book.case("FS-06 | for 5 s", &asking(), |node| {
        let denial = Permission { ttl: seconds(5), ..denial(node) };
        hears(node, &denial);
    });
    book.close();
}

/// From now on the application takes signed packets only.
fn strict(node: &Node) -> Node {
    let ask = sender_config().ask.into_iter().map(|rule| AskRule { signed: true, ..rule }).collect();
    node.after(|node| node.host(|sender, _| sender.set_ask_rules(ask)))
}

/// It is offered a key.
#[test]
pub(super) fn an_algorithm_that_is_refused() {
    let mut book = book();
    for (name, node) in [("first", asking()), ("moved", moved())] {
        book.case(&format!("FS-07 | {name}"), &strict(&node), |node| {
            let grant = rekeyed(grant(node), true);
            hears(node, &grant);
        });
        book.case(&format!("FS-07 | {name}, and the host sleeps"), &strict(&node), |node| {
            let grant = rekeyed(grant(node), true);
            hears(node, &grant);
            sleeps(node);
        });
    }
    book.case("FS-07 | of another attempt", &strict(&asking()), |node| {
        let grant = rekeyed(unasked(node), true);
        hears(node, &grant);
    });
    book.case("FS-24 | algorithm refused", &strict(&granted()), |node| {
        let grant = rekeyed(grant(node), true);
        hears(node, &grant);
    });
    book.close();
}

#[test]
pub(super) fn nobody_answers() {
    let mut book = book();
    let time = |node: &mut Node| node.passes(seconds(10));
    let first = |node: &mut Node| node.passes(seconds(5));
    book.case("FS-08 | first try", &asking(), first);
    book.case("FS-08 | first try on the other path", &moved(), first);
    book.case("FS-09 | second try, a way is left", &with_way(&asking_again()), time);
    book.case("FS-10 | second try, no way is left", &asking_again(), time);
    book.case("FS-10 | second try on the other path, no way is left", &moved_and_tried(), time);
    // A repetition is due, and the time is over before.
    let soon = |node: &Node, span: u64| due(&node.after(|node| node.passes(seconds(span) - Duration::from_millis(600))));
    let over = |node: &mut Node| node.passes(Duration::from_millis(300));
    book.case("FS-08 | a repetition is due", &soon(&asking(), 5), over);
    book.case("FS-09 | a repetition is due", &soon(&with_way(&asking_again()), 10), over);
    book.case("FS-10 | a repetition is due", &soon(&asking_again(), 10), over);
    let repairing = with_way(&granted_longer()).after(|node| {
        node.network(NetworkEvent::AssociationLost);
        node.passes(Duration::from_millis(14_500));
    });
    book.case("FS-31 | repairing", &repairing, |node| node.passes(Duration::from_millis(500)));
    book.case("FS-14 | second try, a repetition is due, a way is left", &due(&with_way(&asking_again())), Node::undelivered);
    book.case("FS-14 | second try, a repetition is due, no way is left", &due(&asking_again()), Node::undelivered);
    book.case("FS-07 | a repetition is due", &strict(&due(&asking())), |node| {
        let grant = rekeyed(grant(node), true);
        hears(node, &grant);
    });
    let last_on_the_way = with_way(&asking_again()).after(|node| {
        node.passes(seconds(10));
        node.host(|sender, _| sender.set_ways(Vec::new()));
    });
    book.case("FS-09 | first try on another way", &last_on_the_way, first);
    let other = |node: &mut Node| {
        let other = other_path(node);
        hears(node, &other);
    };
    book.case("FS-11 | a way is left", &with_way(&asking()), other);
    book.case("FS-11 | a way is left, 3 s later", &with_way(&asking()).after(|node| node.passes(seconds(3))), other);
    book.case("FS-11 | no way is left", &asking(), other);
    for (name, node) in [("first try", asking()), ("second try", asking_again()), ("moved", moved_and_tried())] {
        book.case(&format!("FS-14 | {name}, no way is left"), &with_ways(&node, &[]), Node::undelivered);
        book.case(&format!("FS-14 | {name}, a way is left"), &with_ways(&node, &[2, 3]), Node::undelivered);
    }
    book.close();
}

#[test]
pub(super) fn a_way_that_dies() {
    let mut book = book();
    let (waiting, again) = (moved(), moved_and_tried());
    let anew = with_way(&asking_again()).after(|node| node.passes(seconds(10)));
    for (name, node) in [("moved", &waiting), ("moved, second try", &again), ("nothing was granted", &anew)] {
        book.case(&format!("FS-36 | WaitP, {name}"), node, way_dies);
        book.case(&format!("FS-36 | WaitP, {name}, a repetition is due"), &due(node), way_dies);
        // The routed path has been left already: it is gone back to all the same.
        book.case(&format!("FS-36 | WaitP, {name}, no other way is left"), node, last_way_dies);
        book.case(&format!("FS-36 | WaitP, {name}, no way is left"), node, last_way_is_back);
    }
    let granted_there = waiting.after(|node| {
        let grant = refreshed(grant(node));
        hears(node, &grant);
        node.passes(Duration::from_millis(1500));
    });
    let repairing = granted_there.after(|node| node.network(NetworkEvent::AssociationLost));
    let nodes = [("nothing is asked", &granted_there), ("a Query is open", &granted_there.after(want)), ("repairing", &repairing)];
    for (name, node) in nodes {
        book.case(&format!("FS-36 | Permitted, {name}"), node, way_dies);
        book.case(&format!("FS-36 | Permitted, {name}, no other way is left"), node, last_way_dies);
        book.case(&format!("FS-36 | Permitted, {name}, no way is left"), node, last_way_is_back);
    }
    book.close();
}

/// Notices, and the repetition a second after the last Query that was too old.
#[test]
pub(super) fn notices() {
    let mut book = book();
    let nodes = [("WaitP", asking()), ("Permitted", granted()), ("Permitted, asking", refreshing()), ("Releasing", releasing())];
    for (name, node) in nodes {
        let node = node.after(|node| node.now += Duration::from_millis(400));
        book.case(&format!("FS-13 | {name}, policy"), &node, |node| hears_notice(node, NotifyCode::LocalPolicy));
        book.case(&format!("FS-13 | {name}, too old"), &node, |node| hears_notice(node, NotifyCode::Stale));
    }
    // The repetition is put off by whatever asks at once.
    let waiting = asking().after(|node| {
        node.now += Duration::from_millis(400);
        hears_notice(node, NotifyCode::Stale);
    });
    book.case("FS-14 | a repetition is due", &waiting, Node::undelivered);
    book.case("FS-11 | a repetition is due", &with_way(&waiting), |node| {
        let other = other_path(node);
        hears(node, &other);
    });
    book.case("FS-16 | a repetition is due", &waiting, close);
    book.case("FS-60 | WaitP, a repetition is due", &waiting, stop);
    book.close();
}

#[test]
pub(super) fn a_flow_that_waits_is_given_up_or_ends() {
    let mut book = book();
    book.case("FS-15 | a packet", &asking(), packet);
    book.case("FS-16 | first", &asking(), close);
    book.case("FS-16 | moved", &moved(), close);
    book.case("FS-16 | and the host sleeps", &asking(), |node| {
        close(node);
        sleeps(node);
    });
    book.case("FS-60 | WaitP", &asking(), stop);
    book.case("FS-60 | WaitP, moved", &moved(), stop);
    book.case("FS-60 | Releasing", &releasing(), stop);
    for (clock, node) in ending_elsewhere() {
        book.case(&format!("FS-17 | {clock}"), &node, |node| node.passes(seconds(1)));
    }
    book.close();
}

#[test]
pub(super) fn refreshes_under_a_permission() {
    let mut book = book();
    book.case("FS-20 | a packet", &granted(), packet);
    book.case("FS-21 | nothing is asked", &granted(), |node| node.passes(seconds(13)));
    let both = granted().after(|node| {
        node.passes(seconds(12));
        want(node);
    });
    book.case("FS-21 | a Query is open", &both, |node| node.passes(seconds(1)));
    for (name, node) in [("a Query is open", refreshing()), ("none is", granted())] {
        for (terms, permission) in short(refreshed(grant(&mut node.clone()))) {
            book.case(&format!("FS-22 | {name}, {terms}"), &node, |node| hears(node, &permission));
            let permission = Permission { echo: Some(0), ..permission };
            book.case(&format!("FS-22 | {name}, {terms}, unasked"), &node, |node| hears(node, &permission));
        }
        for (terms, permission) in short(rekeyed(grant(&mut node.clone()), true)) {
            book.case(&format!("FS-24 | {name}, {terms}"), &node, |node| hears(node, &permission));
            let permission = Permission { echo: Some(0), ..permission };
            book.case(&format!("FS-24 | {name}, {terms}, unasked"), &node, |node| hears(node, &permission));
        }
        for (terms, permission) in short(other_path(&mut node.clone())) {
            book.case(&format!("FS-26 | {name}, {terms}"), &node, |node| hears(node, &permission));
            let permission = Permission { echo: Some(0), ..permission };
            book.case(&format!("FS-26 | {name}, {terms}, unasked"), &node, |node| hears(node, &permission));
        }
        book.case(&format!("FS-25 | {name}"), &with_way(&node), |node| {
            let other = other_path(node);
            hears(node, &other);
        });
        book.case(&format!("FS-23 | {name}"), &node, |node| {
            let swapped = Permission { defense: Some(forge::key(9)), ..refreshed(grant(node)) };
            hears(node, &swapped);
        });
        book.case(&format!("FS-24 | {name}, not new"), &node, |node| {
            let not_new = rekeyed(grant(node), false);
            hears(node, &not_new);
        });
    }
    book.close();
}

/// The repetition of a repair runs while something else happens.
#[test]
pub(super) fn repairs_and_what_ends_them() {
    let mut book = book();
    let recent = |node: &Node| node.after(|node| node.now += Duration::from_millis(300));
    book.case("FS-34 | route changed, last Query long ago", &granted(), |node| node.network(NetworkEvent::PeerChanged));
    book.case("FS-34 | route changed, just asked", &recent(&asking_by_wish()), |node| node.network(NetworkEvent::PeerChanged));
    for (name, node) in [("WaitP, just asked", asking()), ("WaitP, second try", asking_again()), ("WaitP, moved", moved())] {
        let node = recent(&node);
        book.case(&format!("FS-34 | route changed, {name}"), &node, |node| node.network(NetworkEvent::PeerChanged));
        book.case(&format!("FS-34 | {name}, a router has no state"), &node, |node| hears_notice(node, NotifyCode::NoState));
    }
    book.case("FS-34 | first hop lost, last Query long ago", &granted(), |node| node.network(NetworkEvent::AssociationLost));
    book.case("FS-34 | first hop lost, just asked", &recent(&asking_by_wish()), |node| node.network(NetworkEvent::AssociationLost));
    let repairing = granted().after(|node| {
        node.network(NetworkEvent::AssociationLost);
        node.passes(Duration::from_millis(2500));
    });
    let due = recent(&asking_by_wish()).after(|node| node.network(NetworkEvent::PeerChanged));
    book.case("FS-34 | a repetition, first hop lost", &repairing, |node| node.passes(seconds(1)));
    book.case("FS-34 | a repetition, first hop there", &due, |node| node.passes(seconds(1)));
    for (name, node) in [("repairing", &repairing), ("repetition due", &due)] {
        book.case(&format!("FS-22 | {name}"), node, |node| {
            let grant = refreshed(grant(node));
            hears(node, &grant);
        });
        book.case(&format!("FS-24 | {name}"), node, |node| {
            let grant = rekeyed(grant(node), true);
            hears(node, &grant);
        });
        book.case(&format!("FS-26 | {name}"), node, |node| {
            let other = other_path(node);
            hears(node, &other);
        });
        book.case(&format!("FS-25 | {name}"), &with_way(node), |node| {
            let other = other_path(node);
            hears(node, &other);
        });
        book.case(&format!("FS-27 | {name}"), node, |node| {
            let denial = denial(node);
            hears(node, &denial);
        });
        book.case(&format!("FS-35 | {name}"), node, close);
        book.case(&format!("FS-60 | Permitted, {name}"), node, stop);
    }
    book.close();
}

/// The application has just asked for more.
fn asking_by_wish() -> Node {
    granted().after(want)
}

#[test]
pub(super) fn permissions_that_end() {
    let mut book = book();
    for (name, node) in [("none is open", granted()), ("a Query is open", refreshing())] {
        book.case(&format!("FS-27 | {name}"), &node, |node| {
            let denial = denial(node);
            hears(node, &denial);
        });
        book.case(&format!("FS-35 | {name}"), &node, close);
        book.case(&format!("FS-35 | {name}, and the host sleeps"), &node, |node| {
            close(node);
            sleeps(node);
        });
        book.case(&format!("FS-60 | Permitted, {name}"), &node, stop);
    }
    book.case("FS-27 | for 5 s", &granted(), |node| {
        let denial = Permission { ttl: seconds(5), ..denial(node) };
        hears(node, &denial);
    });
    for (rule, terms) in [("FS-28", 0), ("FS-29", 1)] {
        let node = asking().after(|node| {
            let permission = short(grant(node)).into_iter().nth(terms).unwrap().1;
            hears(node, &permission);
        });
        // All but the clock that ends it is behind.
        let until = if terms == 0 { seconds(12) } else { seconds(21) };
        let node = node.after(|node| node.passes(until - Duration::from_millis(1)));
        book.case(&format!("{rule} | no packet waits"), &node, |node| node.passes(seconds(1)));
        // Nothing of what has ended disturbs what is asked for then.
        book.case(&format!("{rule} | no packet waits, and the flow asks anew"), &node, |node| {
            node.passes(seconds(1));
            want(node);
        });
        let waiting = node.after(over_budget);
        book.case(&format!("{rule} | a packet waits"), &waiting, |node| node.passes(seconds(1)));
        let repairing = node.after(|node| node.network(NetworkEvent::AssociationLost));
        book.case(&format!("{rule} | no packet waits, repairing"), &repairing, |node| node.passes(Duration::from_millis(2)));
        let both = repairing.after(over_budget);
        book.case(&format!("{rule} | a packet waits, repairing"), &both, |node| node.passes(Duration::from_millis(2)));
    }
    // The clock that would have ended it next is none of the question's that is open then.
    let both = asking().after(|node| {
        let permission = Permission { ttl: seconds(20), refresh: seconds(6), ..grant(node) };
        hears(node, &permission);
        node.passes(seconds(20) - Duration::from_millis(1));
        over_budget(node);
    });
    book.case("FS-28 | a packet waits, and the lifetime would end next", &both, |node| node.passes(Duration::from_millis(2)));
    for (name, waits) in [("nothing waits", false), ("a packet waits", true)] {
        let (authority, node) = granted_by_one_who_may_be_believed_no_more();
        let node = if waits { node.after(over_budget) } else { node };
        book.case(&format!("FS-72 | {name}"), &node, |node| {
            authority.revoked.lock().unwrap().insert(RECEIVERS);
            node.host(Sender::reconsider_certificates);
        });
    }
    let last = granted().after(|node| node.passes(seconds(27)));
    book.case("FS-28 | a packet at the end", &last, packet_at_the_end);
    book.case("FS-70 | Permitted", &granted(), |node| {
        // The packet side fails to carry out an update.
        node.datapath.table.clear();
        let grant = refreshed(grant(node));
        hears(node, &grant);
    });
    book.case("FS-70 | a Query is open", &refreshing(), |node| {
        node.datapath.table.clear();
        let grant = Permission { echo: Some(0), ..refreshed(grant(node)) };
        hears(node, &grant);
    });
    book.case("FS-70 | repairing", &granted().after(|node| node.network(NetworkEvent::AssociationLost)), |node| {
        node.datapath.table.clear();
        let grant = Permission { echo: Some(0), ..refreshed(grant(node)) };
        hears(node, &grant);
    });
    book.close();
}

#[test]
pub(super) fn more_is_asked_for() {
    let mut book = book();
    book.case("FS-30 | first try", &refreshing(), |node| node.passes(seconds(5)));
    book.case("FS-31 | second try, a way is left", &with_way(&refreshing_again()), |node| node.passes(seconds(10)));
    book.case("FS-32 | second try, no way is left", &refreshing_again(), |node| node.passes(seconds(10)));
    book.case("FS-33 | nothing is asked", &granted(), want);
    book.case("FS-33 | a Query is open", &refreshing(), want);
    book.case("FS-33 | nearly used up", &granted(), |node| node.packets(Event::NearlyUsedUp { flow: flow(), spi: SPI }));
    book.case("FS-41 | nothing is asked", &granted(), over_budget);
    book.case("FS-41 | a Query is open", &refreshing(), over_budget);
    // A packet waits, and what was asked for because of it is not given.
    let too_much = granted().after(|node| {
        sends(node, 6000);
        sends(node, 6000);
        node.passes(seconds(1));
    });
    book.case("FS-42 | a packet waits, more is refused", &too_much, |node| {
        let grant = refreshed(grant(node));
        hears(node, &grant);
    });
    // It is not given, and only then there is a packet too many, while other clocks run.
    let refused = granted().after(|node| {
        sends(node, 6000);
        want(node);
        let grant = refreshed(grant(node));
        hears(node, &grant);
        node.passes(seconds(2));
    });
    book.case("FS-42 | more was refused before", &refused, |node| sends(node, 6000));
    let repairing = refused.after(|node| node.network(NetworkEvent::AssociationLost));
    let exhausted = refused.after(|node| {
        sends(node, 6000);
        node.passes(seconds(2));
        want(node);
    });
    book.case("FS-42 | and refused once more", &exhausted, |node| {
        let denial = denial(node);
        hears(node, &denial);
    });
    book.case("FS-42 | more was refused before, repairing", &repairing, |node| sends(node, 6000));
    book.close();
}

#[test]
pub(super) fn releases() {
    let mut book = book();
    for (name, node) in [("first try", releasing()), ("second try", releasing_again())] {
        book.case(&format!("FS-50 | {name}"), &node, |node| {
            let denial = denial(node);
            hears(node, &denial);
        });
        book.case(&format!("FS-52 | {name}, a packet"), &node, packet);
        book.case(&format!("FS-52 | {name}, a Permission"), &node, |node| {
            let grant = refreshed(grant(node));
            hears(node, &grant);
        });
    }
    book.case("FS-51 | first try", &releasing(), |node| node.passes(seconds(5)));
    book.case("FS-53 | second try", &releasing_again(), |node| node.passes(seconds(10)));
    // Both clocks are over before either is looked at, so that GiveUp ends what Answer has begun anew.
    book.case("FS-53 | the host sleeps", &releasing(), sleeps);
    book.close();
}
