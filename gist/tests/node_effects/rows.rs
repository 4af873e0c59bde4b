//! Every row of the four tables that is acted upon is taken: by the cases that stand beside this, or by some exchange of a longer
//! story, in which nothing breaks.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::Write as _;
use std::rc::Rc;

use gist::api::{PathId, Request, Routing, RoutingStatus, SendMessage, TransferAttributes};
use gist::node::{ApdEntry, AssociationEvent, NodeConfig, PeerCredentials, PeerRole, Registration, Transmit};
use gist::wire::{Body, Cookie, ErrorBody, ErrorCause, GistError, Hello, Message, MessageType, Mri, NslpId, Profile, SessionId};
use tracing::Event;
use tracing::field::{Field, Visit};

use super::node_world::*;

const TABLES: [&str; 4] = [
    include_str!("../../../fsm-specs/tables/gist/node.fsm"),
    include_str!("../../../fsm-specs/tables/gist/querying.fsm"),
    include_str!("../../../fsm-specs/tables/gist/responding.fsm"),
    include_str!("../../../fsm-specs/tables/gist/association.fsm"),
];

/// Machine, state before, event, rule, state after.
type Row = [String; 5];

/// Rows of a table that are acted upon, one for each state they stand for, if rows acted upon lead to that state.
fn rows(table: &str) -> BTreeSet<Row> {
    let word = |directive: &str| {
        let line = table.lines().find(|line| line.starts_with(directive)).unwrap_or_default();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let (machine, states) = (word("machine")[0].clone(), word("states"));
    let mut rows = BTreeSet::new();
    for line in table.lines().filter(|line| line.contains('|') && !line.starts_with('#') && !line.starts_with("note")) {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [rule, from, event, next, actions] = columns.as_slice() else { panic!("{line}") };
        if actions.starts_with("later:") {
            continue;
        }
        let event = event.split_whitespace().next().unwrap();
        let from: Vec<_> = match *from {
            "*" => states.iter().filter(|state| *state != "Birth").cloned().collect(),
            some => some.split(',').map(|state| state.trim().to_owned()).collect(),
        };
        for state in from {
            let next = if *next == "=" { state.clone() } else { (*next).to_owned() };
            rows.insert([machine.clone(), state, event.to_owned(), (*rule).to_owned(), next]);
        }
    }
    let mut reached = BTreeSet::from(["Birth".to_owned(), "Idle".to_owned()]);
    while let Some([.., next]) = rows.iter().find(|[_, from, .., next]| reached.contains(from) && !reached.contains(next)) {
        reached.insert(next.clone());
    }
    rows.retain(|[_, from, ..]| reached.contains(from));
    rows
}

#[derive(Default)]
struct Fields(Row, bool);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let shown = format!("{value:?}");
        match field.name() {
            "from" => self.0[1] = shown.replace(' ', ""),
            "event" => self.0[2] = shown,
            "to" => self.0[4] = shown.replace(' ', ""),
            "message" => self.1 = shown == "transition",
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "machine" => value.clone_into(&mut self.0[0]),
            "rule" => value.clone_into(&mut self.0[3]),
            _ => {}
        }
    }
}

/// Stories that are told, and at most.
const FEWEST: u64 = 4;
const MOST: u64 = 40;

/// Small numbers, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// An Error about a message that the receiver itself has sent.
fn error(cause: ErrorCause, about: MessageType, session: SessionId, mri: Mri) -> Message {
    let header = [1, 64, 0, 0, 0x7f, 0xc0, about as u8, 0x80];
    let error = GistError { session: Some(session), mri: Some(mri), ..GistError::new(cause, header) };
    let body = Body::Error(ErrorBody { nat: None, nli: None, error });
    Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

fn friend() -> PeerCredentials {
    PeerCredentials { dns_names: vec!["friend.pbs.test".to_owned()], ..PeerCredentials::default() }
}

/// What was broken works again.
fn heal(world: &mut World, change: &impl Fn(usize, &mut NodeConfig)) {
    if !world.members[1].alive {
        world.restart(1, change);
    }
    world.blackout.set(false);
    for number in 0..4 {
        world.members[number].listens = true;
        world.members[number].node.set_peering(NSLP, true);
        let now = world.now;
        world.members[number].node.set_authorised_peers(both_routers(), now);
    }
}

/// One thing happens to the world.
fn step(world: &mut World, dice: &mut Dice, change: &impl Fn(usize, &mut NodeConfig)) {
    let number = dice.roll(4) as usize;
    let table = world.node(number).routing_table();
    let entry = table.get(dice.roll(4) as usize % table.len().max(1)).filter(|_| dice.roll(3) != 0);
    let anything = (session(dice.roll(3) as u8), if dice.roll(2) == 0 { down() } else { up() });
    let (session, mri) = entry.map_or(anything, |entry| (entry.session, entry.mri.clone()));
    let ids: Vec<_> = world.node(number).associations().iter().map(|entry| entry.association).collect();
    let id = ids.get(dice.roll(4) as usize % ids.len().max(1)).copied();
    if dice.roll(5) == 0 {
        heal(world, change);
    }
    match (dice.roll(36), id) {
        (0..=5, _) => {
            let timeout = (dice.roll(3) == 0).then(|| secs(dice.roll(4)));
            let path = PathId(u8::from(dice.roll(40) == 0));
            world.send(number, SendMessage { mri, timeout, path, ..text_for(session, b"word") });
        }
        (6..=7, _) => {
            let lifetime = secs(dice.roll(4) * 30);
            world.request(number, Request::SetStateLifetime { nslp_id: NSLP, session, mri, lifetime });
        }
        (8..=9, _) => {
            let urgent = dice.roll(2) == 0;
            let status = if dice.roll(2) == 0 { RoutingStatus::Bad } else { RoutingStatus::Tentative };
            world.request(number, Request::InvalidateRoutingState { nslp_id: NSLP, session, mri, status, urgent });
        }
        (10, _) if world.members[1].alive && dice.roll(4) == 0 => world.kill(1),
        (12, _) => world.members[2].listens = !world.members[2].listens,
        (13, _) => {
            let now = world.now;
            world.members[number].node.set_authorised_peers(Vec::new(), now);
            world.request(
                number,
                Request::InvalidateRoutingState { nslp_id: NSLP, session, mri, status: RoutingStatus::Tentative, urgent: false },
            );
        }
        (14, _) => {
            world.accept(number, "10.0.1.9:40000", friend());
        }
        (15..=16, _) => {
            let Some(id) = entry.and_then(|entry| entry.association).or(id) else { return };
            world.inject_on(number, id, &error(ErrorCause::NoRoutingState, MessageType::Data, session, mri));
        }
        (17, _) => {
            let mut error = error(ErrorCause::EndpointFound, MessageType::Query, session, down());
            let queries = world.datagrams_of(number, MessageType::Query);
            if let (Some((_, _, query)), Body::Error(body)) = (queries.last(), &mut error.body) {
                body.error.header = query.to_bytes().unwrap()[..8].try_into().unwrap();
            }
            world.inject(number, direct("10.9.9.9:270", "10.0.0.0", &error));
        }
        (18..=19, Some(id)) => {
            let hello = Hello { request: dice.roll(2) == 0, id: 1 + dice.roll(2) as u32 };
            let message = Message { body: Body::Hello(hello), ..error(ErrorCause::NoRoutingState, MessageType::Data, session, mri) };
            world.inject_on(number, id, &message);
        }
        (20, Some(id)) => world.forget_link(number, id),
        (21, _) => {
            let willing = dice.roll(2) == 0;
            world.members[number].node.set_peering(NSLP, willing);
        }
        (22..=23, Some(id)) => {
            let confirms = world.on_associations.iter().filter(|(_, _, message)| message.message_type() == MessageType::Confirm);
            let Some(mut message) = confirms.last().map(|(_, _, message)| message.clone()) else { return };
            if let (Body::Confirm(confirm), 0) = (&mut message.body, dice.roll(2)) {
                // Of a living generation, and false.
                let mut bytes = confirm.responder_cookie.as_ref().unwrap().as_bytes().to_vec();
                bytes[31] ^= 1;
                confirm.responder_cookie = Cookie::new(bytes);
            }
            world.inject_on(number, id, &message);
        }
        (24, Some(id)) => {
            let now = world.now;
            world.members[number].node.handle_association(id, AssociationEvent::Closed, now);
            world.forget_link(number, id);
        }
        (27, _) => {
            // Somebody answers the sender's last Query in a router's name.
            let router = if dice.roll(2) == 0 { 1 } else { BYPASS };
            let queries = world.datagrams_of(0, MessageType::Query);
            let responses = world.datagrams_of(router, MessageType::Response);
            let (Some((_, _, query)), Some((_, _, mut response))) = (queries.last().cloned(), responses.last().cloned()) else { return };
            if let (Body::Query(query), Body::Response(forged)) = (&query.body, &mut response.body) {
                (forged.session, forged.query_cookie, forged.mri) = (query.session, query.cookie.clone(), query.mri.inverted());
                response.nslp_id = NSLP;
                let source = format!("{}:270", forged.nli.address);
                world.inject(0, direct(&source, "10.0.1.1", &response));
                world.run(std::time::Duration::from_millis(dice.roll(4)));
                let newest = world.node(0).associations().last().map(|entry| entry.association);
                let refusal = error(ErrorCause::NoRoutingState, MessageType::Confirm, query.session, query.mri.clone());
                newest.into_iter().for_each(|id| world.inject_on(0, id, &refusal));
            }
        }
        (25..=26, _) => {
            // A Query takes another way, or a Response comes twice.
            let Some((_, from, transmit)) = world.datagrams.last().cloned() else { return };
            let message = message_in(&transmit);
            match (&message.body, &transmit) {
                (Body::Query(query), _) => {
                    let source = format!("{}:270", query.nli.address);
                    world.inject(1 + dice.roll(2) as usize, passing(&source, &Message { source_is_signalling: true, ..message }));
                }
                (Body::Response(response), Transmit::Normal { destination, .. }) => {
                    let to = (0..4).find(|to| *to != from && world.members[*to].addresses.contains(&destination.ip()));
                    let again = direct(&format!("{}:270", response.nli.address), &destination.ip().to_string(), &message);
                    to.into_iter().for_each(|to| world.inject(to, again.clone()));
                }
                _ => {}
            }
        }
        (30, _) => {
            // The router may serve its own flows only, and there are none.
            let now = world.now;
            let entries = both_routers().into_iter().map(|entry| ApdEntry { role: PeerRole::Host, ..entry }).collect();
            world.members[number].node.set_authorised_peers(entries, now);
        }
        (32, _) => {
            // The application takes whoever claims to be the peer for it.
            let claims = world.received(number).into_iter().filter(|message| message.tentative);
            let Some(claim) = claims.last() else { return };
            let (session, mri, peer) = (claim.session, claim.mri.inverted(), claim.peer_handle);
            world.request(number, Request::AdoptPeer { nslp_id: NSLP, session, mri, peer });
        }
        (33, _) => {
            // Who claims to be the peer forgets it, and time passes.
            world.request(BYPASS, Request::SetStateLifetime { nslp_id: NSLP, session, mri: down(), lifetime: secs(0) });
            world.run(secs(dice.roll(40)));
        }
        (35, _) => {
            // Whoever was met last has no state for any session.
            for entry in &table {
                let message = error(ErrorCause::NoRoutingState, MessageType::Data, entry.session, entry.mri.clone());
                ids.iter().rev().take(1 + dice.roll(2) as usize).for_each(|id| world.inject_on(number, *id, &message));
            }
        }
        (34, _) => {
            // Certificates shown from now on run out soon, or not.
            let valid_for = (dice.roll(2) == 0).then(|| secs(dice.roll(40)));
            world.members[number].credentials.valid_for = valid_for;
        }
        (29, _) => world.connect_delay = secs(dice.roll(5)),
        (28, _) => world.blackout.set(!world.blackout.get()),
        _ => world.run(secs(dice.roll(12))),
    }
    let pause = if dice.roll(3) == 0 { dice.roll(6) } else { dice.roll(1500) };
    world.run(std::time::Duration::from_millis(pause));
}

fn adventure(seed: u64, steps: u32) {
    let change = |_: usize, config: &mut NodeConfig| {
        config.inactivity = secs(60);
        config.connect_timeout = secs(3);
        config.hello_timeout = secs(4);
        // A second application without protection: its routing state is not on associations.
        config.registrations.push(Registration { offer: Vec::new(), ..Registration::secure(NslpId(7), None) });
    };
    let mut world = World::fork_with(change);
    let mut dice = Dice(seed);
    let mut loss = Dice(seed ^ 0xffff);
    let mut way = 1;
    let blackout = std::rc::Rc::clone(&world.blackout);
    world.tap(move |_, parcel| {
        if loss.roll(60) == 0 {
            // Over one router, over the other, or straight to the receiver.
            way = 1 + loss.roll(3) as usize;
        }
        match parcel {
            _ if loss.roll(12) == 0 => Fate::Lose,
            Parcel::Datagram { .. } if blackout.get() => Fate::Lose,
            Parcel::Datagram { from: 0, to: 1, datagram } if way != 1 && datagram.query_mode => {
                let datagram = gist::node::Datagram { interface: 1 + loss.roll(2) as u32, ..datagram.clone() };
                Fate::Change(Parcel::Datagram { from: 0, to: way, datagram })
            }
            Parcel::Datagram { from, to, datagram } if loss.roll(30) == 0 => {
                // A Response without its protocol stack.
                let Ok(mut message) = gist::wire::datagram::decode(datagram.payload.clone()) else { return Fate::Pass };
                if let Body::Response(response) = &mut message.body {
                    response.responder.iter_mut().for_each(|responder| responder.stack = None);
                }
                let datagram = gist::node::Datagram { payload: encoded(&message), ..datagram.clone() };
                Fate::Change(Parcel::Datagram { from: *from, to: *to, datagram })
            }
            _ => Fate::Pass,
        }
    });
    for _ in 0..steps {
        step(&mut world, &mut dice, &change);
        for member in &world.members {
            assert_eq!(member.node.counters().events_refused, 0, "a row not acted upon was reached");
            // Nobody has to be told of the end of an association that is Idle.
            let associations = member.node.associations();
            assert!(associations.iter().all(|entry| entry.state != "Idle" || entry.users == 0), "{associations:?}");
        }
    }
    // Left alone, everything ends: no state without a clock.
    heal(&mut world, &change);
    world.tap(|_, _| Fate::Pass);
    world.run(secs(2000));
    for member in &world.members {
        assert!(member.node.routing_table().is_empty());
        assert!(member.node.associations().is_empty());
        assert_eq!(member.node.poll_timeout(), None);
    }
}

/// What goes without routing state, and the one that turns out too long for that.
fn stateless() {
    let mut world = World::chain_with(|_, config| {
        config.registrations[0].offer = vec![Profile::tcp()];
        config.registrations[0].unvalidated_data = true;
    });
    let message = SendMessage { attributes: TransferAttributes::default(), routing: Routing::Stateless, ..text("word") };
    world.send(0, message);
    let sent = world.datagrams_of(0, MessageType::Data)[0].2.clone();
    world.run(secs(1));
    let mut error = error(ErrorCause::MessageTooLarge, MessageType::Data, session(1), down());
    let Body::Error(body) = &mut error.body else { return };
    body.error.header = sent.to_bytes().unwrap()[..8].try_into().unwrap();
    world.inject(0, direct("10.9.9.9:270", "10.0.1.1", &error));
    world.run(secs(1));
}

/// G-267…G-295: transition coverage of all four machines. What the cases leave out, stories take: as many as are needed.
#[test]
fn every_row_that_is_acted_upon_is_taken() {
    let wanted: BTreeSet<_> = TABLES.iter().flat_map(|table| rows(table)).collect();
    let collected = Rc::new(RefCell::new(BTreeSet::<Row>::new()));
    let kept = Rc::clone(&collected);
    let ear = move |event: &Event<'_>| {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.1 {
            kept.borrow_mut().insert(fields.0);
        }
    };
    let taken = || collected.borrow().clone();
    let mut stories = 0;
    log::hear(ear, || {
        super::all_cases();
        stateless();
        while stories < FEWEST || stories < MOST && !wanted.is_subset(&taken()) {
            adventure(stories, 3000);
            stories += 1;
        }
    });
    let taken = taken();
    let both = wanted.intersection(&taken).count();
    // Past the harness, which keeps what tests print to itself.
    writeln!(std::io::stderr(), "GIST: {both} of {} transitions are taken by a test, with {stories} stories", wanted.len()).unwrap();
    let missing: Vec<_> = wanted.difference(&taken).map(|row| row.join(" | ")).collect();
    let unknown: Vec<_> = taken.difference(&wanted).map(|row| row.join(" | ")).collect();
    assert!(unknown.is_empty(), "not in the tables: {unknown:#?}");
    assert!(missing.is_empty(), "never taken: {missing:#?}");
}
