//! The querying machine (RFC 5971 §6.2) at the sender, whose next routers are 1 and 3.

use std::time::Duration;

use gist::api::{AssociationId, PathId, Request, RoutingStatus, SendMessage};
use gist::node::{ApdEntry, AssociationEvent, IdentityPattern, NodeConfig, PeerRole};
use gist::wire::{
    Body, Cookie, ErrorBody, ErrorCause, GistError, MaOptions, Message, MessageType, Mri, Nli, NslpId, Profile, ResponderPart, Response,
    SessionId, StackConfiguration, StackOffer, StackProposal,
};

use super::node_world::*;
use super::{Book, tables};

pub(super) fn book() -> Book {
    Book::open("querying", include_str!("querying.txt"))
}

/// How far the handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has answered yet; a message waits.
    Asking,
    /// Router 1 is the peer.
    Established,
    /// Router 1 is the peer and was asked again a moment ago.
    AskedAgain,
    /// Router 1 was the peer, and has lost the state.
    Lost,
}

use Stage::{AskedAgain, Asking, Established, Lost};

const STAGES: [Stage; 4] = [Asking, Established, AskedAgain, Lost];

/// The sender at this stage, with so many seconds of inactivity allowed; no datagram of it arrives any more.
fn at(stage: Stage, inactivity: u64) -> World {
    at_with(stage, |config| config.inactivity = secs(inactivity))
}

/// At this stage messages wait, because the peer takes none.
fn waiting(stage: Stage) -> World {
    let mut world = at_with(stage, |config| {
        config.inactivity = secs(3600);
        config.caps.unwritten_bytes = 1;
    });
    world.stall(0, true);
    for _ in 0..3 {
        world.send(0, text("wait"));
    }
    world
}

fn at_with(stage: Stage, change: impl Fn(&mut NodeConfig)) -> World {
    let mut world = World::fork_with(|_, config| change(config));
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    let blackout = std::rc::Rc::clone(&world.blackout);
    world.tap(move |_, parcel| match parcel {
        Parcel::Datagram { from: 0, .. } if blackout.get() => Fate::Lose,
        _ => detour(parcel, message_of(parcel).and_then(|message| message.session()) == Some(session(2))),
    });
    world.blackout.set(stage == Asking);
    world.send(0, text("old."));
    world.run(Duration::from_millis(50));
    world.blackout.set(true);
    world.run(secs(2));
    match stage {
        AskedAgain => world.request(0, invalidate(RoutingStatus::Tentative, true)),
        Lost => lost(&mut world),
        Asking | Established => {}
    }
    world.run(Duration::from_millis(100));
    world
}

fn invalidate(status: RoutingStatus, urgent: bool) -> Request {
    Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status, urgent }
}

fn lifetime(seconds: u64) -> Request {
    Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(seconds) }
}

fn with(world: &World, peer: usize) -> AssociationId {
    let table = world.node(0).associations();
    table.iter().find(|entry| entry.peer == Some(identity(peer))).unwrap().association
}

/// The peer has no state for the session.
fn lost(world: &mut World) {
    let header = [1, 64, 0, 0, 0x7f, 0xc0, MessageType::Data as u8, 0x80];
    let error = error(ErrorCause::NoRoutingState, header, down());
    let id = with(world, 1);
    world.inject_on(0, id, &error);
}

fn error(cause: ErrorCause, header: [u8; 8], mri: Mri) -> Message {
    let error = GistError { session: Some(session(1)), mri: Some(mri), ..GistError::new(cause, header) };
    let body = Body::Error(ErrorBody { nat: None, nli: None, error });
    Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

/// Somebody beside both routers, where a connection is begun and never answered.
const NOBODY: usize = 7;

fn address_of(router: usize) -> &'static str {
    match router {
        1 => "10.0.1.254",
        BYPASS => "10.0.1.253",
        _ => "10.0.2.1",
    }
}

/// An answer to the last Query that names a router.
fn response(world: &World, router: usize, stack: Option<StackOffer>) -> Message {
    response_for(world, session(1), router, stack)
}

/// The same in another session.
pub(super) fn response_for(world: &World, session: SessionId, router: usize, stack: Option<StackOffer>) -> Message {
    let queries = world.datagrams_of(0, MessageType::Query).into_iter().map(|(_, _, message)| message.body);
    let of_session = |body| if let Body::Query(query) = body { Some(query).filter(|query| query.session == session) } else { None };
    let query = queries.filter_map(of_session).next_back().unwrap();
    let address = address(address_of(router));
    let response = Response {
        nat: None,
        mri: query.mri.inverted(),
        session: query.session,
        nli: Nli { ip_ttl: 64, validity: secs(30), peer: identity(router), address },
        query_cookie: query.cookie,
        confirm_requested: true,
        responder: Some(ResponderPart { cookie: Cookie::new(vec![1; 32]).unwrap(), stack }),
        payload: None,
    };
    Message { hop_count: 64, nslp_id: NSLP, source_is_signalling: true, body: Body::Response(response), unknown: Vec::new() }
}

pub(super) fn tls() -> Option<StackOffer> {
    tls_at(LISTENING_PORT)
}

fn tls_at(port: u16) -> Option<StackOffer> {
    let configuration = StackConfiguration { hold_time: secs(30), options: vec![MaOptions::tcp_response(0, port)] };
    Some(StackOffer { proposal: StackProposal { profiles: vec![Profile::tls_over_tcp()] }, configuration })
}

fn answers(world: &mut World, router: usize, stack: Option<StackOffer>) {
    let response = response(world, router, stack);
    world.inject(0, direct(&format!("{}:270", address_of(router)), "10.0.1.1", &response));
}

/// Router 3 has answered, and its association is being opened.
fn candidate(stage: Stage, inactivity: u64) -> World {
    let mut world = at(stage, inactivity);
    answers(&mut world, BYPASS, tls());
    world
}

/// There is an association with router 3 too, over which session 2 goes.
fn with_both(stage: Stage, inactivity: u64) -> World {
    let mut world = at(stage, inactivity);
    world.blackout.set(false);
    world.send(0, text_for(session(2), b"two."));
    world.run(Duration::from_millis(50));
    world.blackout.set(true);
    world
}

/// Router 3 has seen the Query and proves it.
fn proven(world: &mut World) {
    let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    world.inject(BYPASS, passing("10.0.1.1:270", &query));
    world.run(Duration::from_millis(30));
}

fn bar_everybody(world: &mut World) {
    let now = world.now;
    let nobody = vec![ApdEntry { pattern: IdentityPattern::Any, role: PeerRole::Host, allow: false }];
    world.members[0].node.set_authorised_peers(nobody, now);
    // What follows is done with the next input.
    world.drain(0);
    let table = world.node(0).routing_table();
    assert!(table.iter().all(|entry| entry.association.is_none()), "nothing goes to anybody any more: {table:?}");
}

fn fails(world: &mut World, id: AssociationId) {
    let now = world.now;
    world.members[0].node.handle_association(id, AssociationEvent::Failed("reset".to_owned()), now);
}

/// The one that was opened last, to another than the peer.
fn newest(world: &World) -> Option<AssociationId> {
    world.node(0).associations().last().filter(|entry| entry.peer != Some(identity(1))).map(|entry| entry.association)
}

fn newest_fails(world: &mut World) {
    newest(world).into_iter().for_each(|id| fails(world, id));
}

/// Whoever it is with refuses the Confirm.
fn refuses(world: &mut World) {
    let header = [1, 64, 0, 0, 0x7f, 0xc0, MessageType::Confirm as u8, 0x80];
    let error = error(ErrorCause::NoRoutingState, header, down());
    newest(world).into_iter().for_each(|id| world.inject_on(0, id, &error));
}

/// What the node does when its next clock expires.
fn next_clock(world: &mut World) {
    let at = world.node(0).poll_timeout().unwrap();
    world.run(at.saturating_duration_since(world.now));
}

/// A title for each stage and each of two times of inactivity: one that is longer than all else, and one that is shorter.
fn everywhere(book: &mut Book, what: &str, stages: &[Stage], act: impl Fn(&mut World)) {
    for stage in stages {
        for inactivity in [3600, 6] {
            book.case(&format!("{what} | {stage:?}, {inactivity} s"), at(*stage, inactivity), 0, &act);
        }
    }
}

/// Querying rules 0, 1, 2, 5, 6, 8, 7.1.3, 7.1.4, B.1: messages of the application.
#[test]
pub(super) fn what_a_message_of_the_application_does() {
    let mut book = book();
    for inactivity in [3600, 6] {
        let fresh = || {
            let mut world = World::fork_with(|_, config| config.inactivity = secs(inactivity));
            world.blackout.set(true);
            world.tap(|_, _| Fate::Lose);
            world
        };
        book.case(&format!("message | Birth, {inactivity} s"), fresh(), 0, |world| world.send(0, text("new.")));
        book.case(&format!("message for 2 s | Birth, {inactivity} s"), fresh(), 0, |world| {
            world.send(0, SendMessage { timeout: Some(secs(2)), ..text("new.") });
        });
    }
    everywhere(&mut book, "message", &STAGES, |world| world.send(0, text("new.")));
    everywhere(&mut book, "message for 2 s", &[Asking, Lost], |world| {
        world.send(0, SendMessage { timeout: Some(secs(2)), ..text("new.") });
    });
    everywhere(&mut book, "two messages for 2 s and 4 s", &[Asking], |world| {
        world.send(0, SendMessage { timeout: Some(secs(2)), ..text("new.") });
        world.send(0, SendMessage { timeout: Some(secs(4)), ..text("more") });
    });
    everywhere(&mut book, "message after doubts", &[Established], |world| {
        world.request(0, invalidate(RoutingStatus::Tentative, false));
        world.send(0, text("new."));
    });
    let by_another_way = |world: &mut World| world.send(0, SendMessage { path: PathId(2), ..text("new.") });
    everywhere(&mut book, "message by another way", &STAGES, by_another_way);
    everywhere(&mut book, "message by another way, beside a candidate", &STAGES, |world| {
        answers(world, BYPASS, tls());
        by_another_way(world);
    });
    for stage in [Established, AskedAgain] {
        book.case(&format!("message by another way | {stage:?}, messages wait"), waiting(stage), 0, by_another_way);
    }
    book.close();
}

/// Querying rules 6, 7.1.3, B.5: what the application says about the state.
#[test]
pub(super) fn what_the_application_says_about_the_state() {
    let mut book = book();
    for (status, word) in [(RoutingStatus::Tentative, "tentative"), (RoutingStatus::Bad, "bad")] {
        for urgent in [false, true] {
            let how = if urgent { ", urgent" } else { "" };
            everywhere(&mut book, &format!("{word}{how}"), &STAGES, |world| world.request(0, invalidate(status, urgent)));
            for stage in [Established, AskedAgain] {
                book.case(&format!("{word}{how} | {stage:?}, messages wait"), waiting(stage), 0, |world| {
                    world.request(0, invalidate(status, urgent));
                });
            }
        }
    }
    everywhere(&mut book, "wanted for 5 s", &STAGES, |world| world.request(0, lifetime(5)));
    everywhere(&mut book, "not wanted", &STAGES, |world| world.request(0, lifetime(0)));
    everywhere(&mut book, "not wanted, beside a candidate", &STAGES, |world| {
        answers(world, BYPASS, tls());
        world.request(0, lifetime(0));
    });
    book.close();
}

/// Querying rules 3, 6.4, 4.4.2, 7, G-064: what peers and others say.
#[test]
pub(super) fn what_peers_say() {
    let mut book = book();
    everywhere(&mut book, "no routing state", &[Established, AskedAgain, Lost], lost);
    everywhere(&mut book, "no routing state, later", &[Established, AskedAgain, Lost], |world| {
        world.run(secs(1));
        lost(world);
    });
    // It is said at once when the peer was found a moment ago: the next message asks, and not this.
    for (what, message) in [("no routing state, at once", false), ("no routing state, at once, and then a message", true)] {
        for inactivity in [3600, 6] {
            let mut world = World::fork_with(|_, config| config.inactivity = secs(inactivity));
            world.members[1].relays = false;
            world.send(0, text("old."));
            world.run(Duration::from_millis(100));
            book.case(&format!("{what} | Established, {inactivity} s"), world, 0, |world| {
                lost(world);
                world.blackout.set(true);
                world.tap(|_, _| Fate::Lose);
                if message {
                    world.send(0, text("new."));
                }
            });
        }
    }
    let association_fails = |world: &mut World| {
        let id = with(world, 1);
        fails(world, id);
        let table = world.node(0).routing_table();
        assert!(table.iter().all(|entry| entry.association.is_none()), "nothing goes over it any more: {table:?}");
    };
    everywhere(&mut book, "association fails", &[Established, AskedAgain, Lost], association_fails);
    everywhere(&mut book, "not authorised any more", &[Established, AskedAgain, Lost], bar_everybody);
    for stage in [Established, AskedAgain] {
        book.case(&format!("association fails | {stage:?}, messages wait"), waiting(stage), 0, association_fails);
        book.case(&format!("not authorised any more | {stage:?}, messages wait"), waiting(stage), 0, bar_everybody);
        book.case(&format!("no routing state | {stage:?}, messages wait"), waiting(stage), 0, |world| {
            world.run(secs(1));
            lost(world);
        });
    }
    everywhere(&mut book, "data", &[Established, AskedAgain], |world| {
        world.send(1, SendMessage { mri: up(), ..text("back") });
        world.run(Duration::from_millis(3));
    });
    everywhere(&mut book, "endpoint found", &STAGES, |world| {
        let queries = world.datagrams_of(0, MessageType::Query);
        let header = queries.last().unwrap().2.to_bytes().unwrap()[..8].try_into().unwrap();
        let error = error(ErrorCause::EndpointFound, header, down());
        world.inject(0, direct("10.9.9.9:270", "10.0.0.0", &error));
    });
    book.close();
}

/// Querying rules 4, 4c, G-306, G-343: answers.
#[test]
pub(super) fn what_answers_do() {
    let mut book = book();
    everywhere(&mut book, "answer of router 3", &STAGES, |world| answers(world, BYPASS, tls()));
    everywhere(&mut book, "answer of router 1", &[Asking], |world| answers(world, 1, tls()));
    everywhere(&mut book, "answer without protocol", &STAGES, |world| {
        let before = world.node(0).counters().responses_refused;
        answers(world, BYPASS, None);
        assert_eq!(world.node(0).counters().responses_refused, before + 1);
    });
    everywhere(&mut book, "answer of router 3, proven", &STAGES, proven);
    everywhere(&mut book, "answer of router 3, proven, beside a candidate", &STAGES, |world| {
        answers(world, NOBODY, tls_at(9));
        proven(world);
    });
    for stage in [Established, AskedAgain] {
        book.case(&format!("answer of router 3, proven | {stage:?}, messages wait"), waiting(stage), 0, proven);
        book.case(&format!("answer of router 3, proven, and messages are taken | {stage:?}, messages wait"), waiting(stage), 0, |world| {
            proven(world);
            world.stall(0, false);
        });
    }
    everywhere(&mut book, "answer of router 3, connected", &STAGES, |world| {
        answers(world, BYPASS, tls());
        world.run(Duration::from_millis(3));
    });
    // The peer's own word, over its association, and another router's.
    everywhere(&mut book, "answer over the association", &[Established, AskedAgain, Lost], |world| {
        let (id, response) = (with(world, 1), response(world, 1, tls()));
        world.inject_on(0, id, &response);
    });
    // A candidate that is being opened is given up then.
    everywhere(&mut book, "answer over the association, beside a candidate", &[Established, AskedAgain, Lost], |world| {
        let (id, response) = (with(world, 1), response(world, 1, tls()));
        answers(world, BYPASS, tls());
        world.inject_on(0, id, &response);
    });
    for stage in STAGES {
        for inactivity in [3600, 6] {
            let world = with_both(stage, inactivity);
            if tables(&world, 0).contains("[3 ") {
                book.case(&format!("answer over router 3's association | {stage:?}, {inactivity} s"), world, 0, |world| {
                    let (id, response) = (with(world, BYPASS), response(world, BYPASS, tls()));
                    world.inject_on(0, id, &response);
                });
                let beside = format!("answer over router 3's association, beside a candidate | {stage:?}, {inactivity} s");
                book.case(&beside, with_both(stage, inactivity), 0, |world| {
                    let (id, response) = (with(world, BYPASS), response(world, BYPASS, tls()));
                    answers(world, NOBODY, tls_at(9));
                    world.inject_on(0, id, &response);
                });
            }
        }
    }
    book.close();
}

/// Querying rules 4c, 6.4, 4.4.2 of a candidate: its end.
#[test]
pub(super) fn what_the_end_of_a_candidate_does() {
    let mut book = book();
    for stage in STAGES {
        for inactivity in [3600, 6] {
            let case = |what: &str| format!("candidate {what} | {stage:?}, {inactivity} s");
            book.case(&case("cannot be connected to"), candidate(stage, inactivity), 0, |world| {
                newest_fails(world);
            });
            let connected = || {
                let mut world = candidate(stage, inactivity);
                world.run(Duration::from_millis(2));
                world
            };
            book.case(&case("fails"), connected(), 0, |world| {
                newest_fails(world);
            });
            book.case(&case("is not authorised"), connected(), 0, |world| {
                let now = world.now;
                world.members[0].node.set_authorised_peers(authorised_peers(), now);
            });
            book.case(&case("refuses"), connected(), 0, refuses);
        }
    }
    // None that ended takes the place of another one, of which there are eight: seven end in this handshake, and in the next one two are
    // tried beside each other.
    type End = fn(&mut World);
    let ends: [(&str, End); 4] = [
        ("cannot be connected to", newest_fails),
        ("fails", |world| {
            world.run(Duration::from_millis(2));
            newest_fails(world);
        }),
        ("is not authorised", |world| {
            world.run(Duration::from_millis(2));
            let now = world.now;
            world.members[0].node.set_authorised_peers(authorised_peers(), now);
            world.run(Duration::from_millis(1));
            world.members[0].node.set_authorised_peers(both_routers(), now);
        }),
        ("refuses", |world| {
            world.run(Duration::from_millis(2));
            refuses(world);
        }),
    ];
    for stage in STAGES {
        for (what, end) in ends {
            book.case(&format!("candidate {what}, seven times | {stage:?}, 3600 s"), at(stage, 3600), 0, |world| {
                for _ in 0..7 {
                    answers(world, BYPASS, tls());
                    end(world);
                }
                world.run(Duration::from_millis(500));
                world.request(0, invalidate(RoutingStatus::Tentative, true));
                answers(world, BYPASS, tls());
                answers(world, NOBODY, tls_at(9));
            });
        }
    }
    // A message that waits hears why nobody else was found.
    for stage in [Established, AskedAgain] {
        for (what, end) in ends {
            book.case(&format!("candidate {what} | {stage:?}, messages wait"), waiting(stage), 0, |world| {
                answers(world, BYPASS, tls());
                end(world);
            });
        }
    }
    book.close();
}

/// Querying rules 2, 6, 8, B.1: clocks.
#[test]
pub(super) fn what_clocks_do() {
    let mut book = book();
    everywhere(&mut book, "next clock", &STAGES, next_clock);
    book.close();
}
