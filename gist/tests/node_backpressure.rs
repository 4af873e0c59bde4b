//! A peer that takes messages more slowly than the application makes them (G-011, G-012, G-193).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use gist::api::{NetworkEvent, Request, SendError, SendMessage};
use gist::node::AssociationEvent;
use gist::wire::{Direction, MessageType, SessionId};
use node_world::*;

/// Sender and router know each other for sessions 1 to 3; a thousand bytes may be unwritten.
fn talking() -> World {
    let mut world = World::chain_with(|_, config| config.caps.unwritten_bytes = 1000);
    world.members[1].relays = false;
    for number in 1..=3 {
        world.send(0, numbered(number, 0, Direction::Downstream));
    }
    world.run(secs(1));
    assert_eq!(world.payloads(1).len(), 3);
    world
}

/// 200 bytes of payload that say session and number.
fn numbered(session_number: u8, number: u8, direction: Direction) -> SendMessage {
    let mut payload = vec![0; 200];
    (payload[0], payload[1]) = (session_number, number);
    SendMessage { mri: flow(direction), ..text_for(session(session_number), &payload) }
}

/// Session and number of each message that has arrived.
fn arrived(world: &World, number: usize) -> Vec<(u8, u8)> {
    world.payloads(number).iter().map(|payload: &Bytes| (payload[0], payload[1])).collect()
}

fn of(session_number: u8, arrived: &[(u8, u8)]) -> Vec<u8> {
    arrived.iter().filter(|(number, _)| *number == session_number).map(|(_, number)| *number).collect()
}

/// In either direction: the session that sends too much is told so, the others are not, and nothing that was accepted is lost.
#[test]
fn each_session_waits_for_itself_and_in_its_order() {
    for (from, to, direction) in [(0, 1, Direction::Downstream), (1, 0, Direction::Upstream)] {
        let mut world = talking();
        world.stall(from, true);
        for number in 1..=40 {
            world.send(from, numbered(1, number, direction));
        }
        world.send(from, numbered(2, 1, direction));
        world.send(from, numbered(3, 1, direction));
        let before = arrived(&world, to).len();
        world.run(secs(20));
        let refused = world.failures(from);
        let crossed = arrived(&world, to).len() - before;
        assert_eq!(refused.len(), 40 - crossed - 16, "what is unwritten and what one state holds");
        assert!(refused.iter().all(|(_, error)| *error == SendError::QueueFull));
        assert!((2..=5).contains(&crossed), "{crossed}");
        let waiting: usize = world.node(from).routing_table().iter().map(|entry| entry.queued).sum();
        assert_eq!(waiting, 18);
        world.stall(from, false);
        world.run(secs(1));
        let arrived = &arrived(&world, to)[before..];
        assert_eq!(of(1, arrived), (1..=u8::try_from(crossed + 16).unwrap()).collect::<Vec<_>>());
        assert_eq!((of(2, arrived), of(3, arrived)), (vec![1], vec![1]));
        let last = arrived.iter().rposition(|(session, _)| *session != 1).unwrap();
        assert!(last < crossed + 3, "everybody has a turn: {arrived:?}");
        assert!(world.events(0).is_empty() && world.events(1).is_empty());
        assert_eq!(world.failures(from).len(), refused.len());
        world.send(from, numbered(1, 99, direction));
        world.run(secs(1));
        assert_eq!(world.payloads(to).last().unwrap()[1], 99);
    }
}

/// G-193: a message's own bound holds while it waits for the peer to take more.
#[test]
fn a_message_that_waits_too_long_is_given_back() {
    for (from, direction) in [(0, Direction::Downstream), (1, Direction::Upstream)] {
        let mut world = talking();
        world.stall(from, true);
        for number in 1..=10 {
            let timeout = (number > 7).then(|| Duration::from_secs(u64::from(number)));
            world.send(from, SendMessage { timeout, ..numbered(1, number, direction) });
        }
        world.run(secs(9) + Duration::from_millis(1));
        let reported: Vec<_> = world.failures(from).into_iter().map(|(_, error)| error).collect();
        assert_eq!(reported, [SendError::TimedOut, SendError::TimedOut]);
        world.stall(from, false);
        world.run(secs(5));
        assert_eq!(of(1, &arrived(&world, 1 - from)).last(), Some(&10));
        assert_eq!(world.failures(from).len(), 2);
    }
}

/// [`gist::node::Caps::queued_bytes`]: counted once, and given back however the waiting ends.
#[test]
fn all_sessions_together_have_one_bound() {
    let mut world = World::chain_with(|_, config| config.caps.queued_bytes = 5 * 200);
    world.members[1].relays = false;
    for round in 0..3 {
        // Nobody answers, so they wait for a peer.
        world.members[1].alive = false;
        for number in 0..8 {
            world.send(0, SendMessage { timeout: Some(secs(3)), ..numbered(10 + number, round, Direction::Downstream) });
        }
        let full = world.failures(0).iter().filter(|(_, error)| *error == SendError::QueueFull).count();
        assert_eq!(full, 3 * (usize::from(round) + 1));
        match round {
            0 => world.run(secs(40)),
            1 => {
                for number in 0..8 {
                    let session = session(10 + number);
                    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session, mri: down(), lifetime: Duration::ZERO });
                }
            }
            _ => {
                world.members[1].alive = true;
                world.run(secs(40));
            }
        }
    }
    assert_eq!(arrived(&world, 1).len(), 5);
}

/// A stall is no failure by itself: MA-Hellos that the peer has not taken are not held against it. The shell's own bound ends
/// the association, and then each message that waits is given back.
#[test]
fn a_stalled_association_lasts_until_the_shell_gives_it_up() {
    let mut world = talking();
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    world.tap(|_, parcel| if matches!(parcel, Parcel::Association { from: 0, .. }) { Fate::Lose } else { Fate::Pass });
    world.stall(0, true);
    for number in 1..=10 {
        world.send(0, numbered(1, number, Direction::Downstream));
    }
    world.run(secs(100));
    assert!(world.events(0).is_empty(), "{:?}", world.events(0));
    assert_eq!(world.node(0).associations().len(), 1);
    world.kill(1);
    world.run(secs(1));
    assert!(world.events(0).contains(&NetworkEvent::AssociationLost));
    assert!(world.failures(0).len() >= 5);
    assert!(world.failures(0).iter().all(|(_, error)| matches!(error, SendError::AssociationFailed(_))));
}

/// G-011, X-119: what peers have said is not read while the application is slow, however long; their silence is held against none of them, in use,
/// idle or new, until it has been.
#[test]
fn while_nothing_is_read_nobodys_silence_counts() {
    let mut world = World::chain_with(|number, config| {
        config.validity = secs(3600);
        if number == 1 {
            config.hello_timeout = secs(3600);
        }
    });
    world.members[1].relays = false;
    world.send(0, text_for(session(1), b"down"));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    world.accept(0, "10.0.1.9:4000", credentials("friend", &[]));
    let unread = Rc::new(RefCell::new(Vec::new()));
    let buffer = Rc::clone(&unread);
    world.tap(move |_, parcel| match parcel {
        Parcel::Association { to: 0, id, event: event @ AssociationEvent::Received(_), .. } => {
            buffer.borrow_mut().push((*id, event.clone()));
            Fate::Lose
        }
        _ => Fate::Pass,
    });
    world.members[0].node.set_reading(false, world.now);
    // Longer than hold time and reply time together, and not so long that a Response to a refresh comes too late.
    world.run(secs(50));
    assert_eq!((world.events(0), world.node(0).associations().len()), (vec![], 2));
    world.tap(|_, _| Fate::Pass);
    world.members[0].node.set_reading(true, world.now);
    world.run(Duration::from_millis(100));
    for (id, event) in unread.take() {
        world.members[0].node.handle_association(id, event, world.now);
        world.drain(0);
    }
    world.run(secs(20));
    assert_eq!((world.events(0), world.node(0).associations().len()), (vec![], 1), "who has confirmed nothing had its time after that");
    world.send(0, text_for(session(1), b"more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
}

/// What GIST itself says to a peer that takes nothing is bounded too: Responses stay away, and Confirms are not asked for.
#[test]
fn a_peer_that_takes_nothing_gets_no_more_than_a_bound_of_gists_own_messages() {
    let mut world = talking();
    world.stall(0, true);
    world.stall(1, true);
    for number in 0..200_u8 {
        world.send(0, text_for(SessionId([number; 16]), b"down"));
        world.run(Duration::from_millis(5));
    }
    world.run(secs(10));
    let longest = |kind| {
        let messages = world.on_associations.iter().filter(|(at, from, message)| {
            *at > at_millis(1000) && *from == if kind == MessageType::Confirm { 0 } else { 1 } && message.message_type() == kind
        });
        messages.map(|(_, _, message)| message.to_bytes().unwrap().len()).sum::<usize>()
    };
    assert!((1..1500).contains(&longest(MessageType::Response)), "{}", longest(MessageType::Response));
    assert!(longest(MessageType::Confirm) < 4500, "{}", longest(MessageType::Confirm));
    assert!(world.node(1).counters().withheld > 0);
}

/// G-013: whatever order sessions take turns in, whatever they wait for, and however slowly the peer takes it: each session's messages
/// arrive in the order they were handed over, all of them.
#[test]
fn messages_of_many_sessions_keep_the_order_of_each() {
    for seed in 1..=20_u64 {
        let mut state = seed;
        let mut roll = move |sides: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % sides
        };
        let mut world = World::chain_with(|_, config| config.caps.unwritten_bytes = 300);
        world.members[1].relays = false;
        world.connect_delay = Duration::from_millis(roll(20));
        let mut sent = [0_u8; 3];
        for _ in 0..30 {
            let which = roll(3) as usize;
            let message = text_for(session(1 + which as u8), &[which as u8, sent[which], 0, 0]);
            sent[which] += 1;
            world.send(0, message);
            match roll(8) {
                0 => world.stall(0, true),
                1 | 2 => world.stall(0, false),
                _ => {}
            }
            world.run(Duration::from_micros(roll(3000)));
        }
        world.stall(0, false);
        world.run(secs(5));
        for (which, sent) in (0_u8..).zip(sent) {
            let of_session = world.payloads(1).into_iter().filter(|payload| payload[0] == which).map(|payload| payload[1]);
            assert_eq!(of_session.collect::<Vec<_>>(), (0..sent).collect::<Vec<_>>(), "{seed}: session {which}");
        }
    }
}
