//! A host with a good certificate, over associations of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gist::wire::stream::Framer;
use gist::wire::{Body, Message, MessageType, SessionId, datagram};
use pbs_lab::network::topology::{ROUTER_LEFT, SENDER};
use rustls::{ClientConnection, StreamOwned};

use super::forged::{Forger, Kind};
use super::{STRANGER, STRANGERS_ROUTER, Said, World, counters, grown, must_count, processor_time};
use crate::authenticated::associate;
use crate::support::daemon::wait_until;

/// Of each kind, over one association unless the first ends it.
const TIMES: usize = 24;

/// A flood lasts so long, and is of so many messages in one go.
const LASTS: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 128;

/// Errors over one association: at once, and in a second (a sixteenth of the most that a node makes).
const ERRORS_AT_ONCE: usize = 32;
const ERRORS_A_SECOND: usize = 375;

type Association = StreamOwned<ClientConnection, TcpStream>;

/// RFC 5971 §4.3.2, §4.4.6, §5.2.2, §5.6, §5.7.1, A.4.
#[test]
fn whatever_a_host_says_over_associations_of_its_own_is_counted_for_its_reason_and_a_flow_beside_goes_on() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let world = World::build();
    let response = world.captured(ROUTER_LEFT, SENDER, MessageType::Response);
    for (ends, kind) in kinds(&world, &response) {
        play(&world, &kind, ends);
    }
    world.must_stand("messages over associations of its own");
    flood(&world);
    world.must_stand("a flood over an association");
}

/// What it says, as messages of a stream, and whether one of them ends the association.
fn kinds(world: &World, response: &[u8]) -> Vec<(bool, Kind)> {
    let query = &world.living.query;
    let forger = Forger::new(query, response, STRANGER);
    let on_stream = |payload: Vec<u8>| payload[4..].to_vec();
    let one = |name, payload, counted| (false, Kind { name, payloads: vec![on_stream(payload)], counted });
    let errors = forger.errors().into_iter().map(on_stream).collect();
    let mut longer = query.clone();
    longer[6..8].fill(0xff);
    let ending = |name, payload, counted| (true, Kind { name, payloads: vec![on_stream(payload)], counted });
    let mut kinds = vec![
        (false, Kind { name: "errors of every cause", payloads: errors, counted: &["errors_received"] }),
        ending("Confirm with a made-up cookie", forger.confirm(), &["stale_responder_cookies"]),
        one("Confirm without a hold time", forger.confirm_without_hold_time(), &["refused/missing_object"]),
        one("Response replayed", forger.replayed_response(), &["bad_query_cookies"]),
        one("Response with another cookie", forger.response(), &["bad_query_cookies"]),
        one("Data of the session", without_nli(&forger.data(None)), &["wrong_association", "refused/incorrectly_delivered_message"]),
        one("Data with an NLI", forger.data(None), &["refused/invalid_object_type"]),
        one(
            "Data of no session",
            without_nli(&forger.data(Some(SessionId([0x77; 16])))),
            &["no_routing_state", "refused/no_routing_state"],
        ),
        one("Query", query.clone(), &["wrong_encapsulation", "refused/incorrect_encapsulation"]),
        one("no hop left", forger.used_up(), &["hop_count_zero", "refused/hop_limit_exceeded"]),
        ending("longer than any message", longer, &["streams_unreadable"]),
    ];
    for (cause, payload) in super::malformed::each_class(query) {
        let word: &'static str = cause.word().leak();
        // Where the next message begins cannot be told.
        let ends = word == "unknown_version";
        let counted: Vec<&'static str> =
            if ends { vec!["streams_unreadable"] } else { vec!["malformed", format!("refused/{word}").leak()] };
        kinds.push((ends, Kind { name: word, payloads: vec![on_stream(payload)], counted: counted.leak() }));
    }
    kinds
}

fn without_nli(payload: &[u8]) -> Vec<u8> {
    let mut message = datagram::decode(Bytes::copy_from_slice(payload)).unwrap();
    let Body::Data(data) = &mut message.body else { panic!("{message:?}") };
    data.nli = None;
    [&payload[..4], &message.to_bytes().unwrap()].concat()
}

/// Says it over and over, while a new flow asks for its grant; all of it is counted, and nothing of the flow beside is lost.
fn play(world: &World, kind: &Kind, ends: bool) {
    let counted = counters(&world.living.router);
    let (times, associations) = if ends { (3, 3) } else { (TIMES.max(kind.payloads.len()), 1) };
    let (grant, (said, answered)) = std::thread::scope(|scope| {
        let saying = scope.spawn(|| {
            let (mut said, mut answered) = (Said::default(), Said::default());
            for _ in 0..associations {
                let mut association = associate(&world.living.site.files, &world.stranger, STRANGERS_ROUTER);
                for payload in kind.payloads.iter().cycle().take(times / associations) {
                    association.write_all(payload).unwrap();
                    said = Said { messages: said.messages + 1, octets: said.octets + payload.len() };
                }
                let _ = association.flush();
                answered = hear(&mut association, answered, Duration::from_millis(150)).0;
            }
            (said, answered)
        });
        (world.grant(), saying.join().unwrap())
    });
    let what = format!("over its own association: {}", kind.name);
    let counted = must_count(&world.living.router, &counted, kind.counted, times, &what);
    println!("{what}: {said:?}, answered {answered:?}, counted {counted:?}; grant beside {grant:.1?}");
    assert!(answered.messages <= said.messages, "one answer to each at most");
    world.running.must_lose_nothing(&what);
}

/// As much as associations take of what is refused most cheaply, for a while, over as many as it takes.
fn flood(world: &World) {
    let response = world.captured(ROUTER_LEFT, SENDER, MessageType::Response);
    let forger = Forger::new(&world.living.query, &response, STRANGER);
    let data = without_nli(&forger.data(Some(SessionId([0x77; 16]))));
    flood_with(world, "Data of no session", &[&data[4..]], "no_routing_state");

    let classes = super::malformed::each_class(&world.living.query);
    let readable = classes.iter().filter(|(cause, _)| cause.word() != "unknown_version");
    let payloads: Vec<&[u8]> = readable.map(|(_, payload)| &payload[4..]).collect();
    flood_with(world, "what is malformed", &payloads, "malformed");
}

fn flood_with(world: &World, what: &str, payloads: &[&[u8]], reason: &str) {
    let router = world.living.router.pid().to_string();
    let (counted, used, began) = (counters(&world.living.router), processor_time(&router), Instant::now());
    let (grants, (said, answered, associations, cost)) = std::thread::scope(|scope| {
        let saying = scope.spawn(|| {
            let (mut said, mut answered, mut associations) = (Said::default(), Said::default(), 0);
            while began.elapsed() < LASTS {
                let mut association = associate(&world.living.site.files, &world.stranger, STRANGERS_ROUTER);
                associations += 1;
                while began.elapsed() < LASTS {
                    let some: Vec<&[u8]> = payloads.iter().copied().cycle().take(AT_ONCE).collect();
                    if association.write_all(&some.concat()).is_err() {
                        break;
                    }
                    said = Said { messages: said.messages + AT_ONCE, octets: said.octets + some.concat().len() };
                    let (heard, is_open) = hear(&mut association, answered, Duration::from_micros(1));
                    answered = heard;
                    if !is_open {
                        break;
                    }
                }
                let _ = association.flush();
                answered = hear(&mut association, answered, Duration::from_millis(20)).0;
            }
            (said, answered, associations, processor_time("thread-self"))
        });
        let mut grants = Vec::new();
        while !saying.is_finished() {
            grants.push(world.grant());
            std::thread::sleep(Duration::from_millis(100));
        }
        (grants, saying.join().unwrap())
    });
    let (took, used) = (began.elapsed(), processor_time(&router) - used);
    wait_until("what the router has still to read is read", || {
        let before = grown(&world.living.router, &counted)["association_messages_received"];
        std::thread::sleep(Duration::from_millis(200));
        grown(&world.living.router, &counted)["association_messages_received"] <= before + 10
    });
    let counted = grown(&world.living.router, &counted);
    println!(
        "a flood of {what} over {associations} associations: {said:?} in {took:.1?}, answered {answered:?}; grants beside {grants:.1?}"
    );
    println!(
        "the router has used {used:.1?} of a processor for all that it did, the host {cost:.1?} for what it said; counted {counted:?}"
    );
    let seconds = usize::try_from(took.as_secs()).unwrap() + 1;
    assert!((1..=ERRORS_AT_ONCE * associations + ERRORS_A_SECOND * seconds).contains(&answered.messages), "{answered:?}");
    assert!(answered.octets < said.octets, "it costs the host more than the router");
    assert!(counted["misused_ended"] > 1, "it has had to open one association after the other: {counted:?}");
    assert!(counted[reason] <= u64::try_from(said.messages).unwrap());
    assert!(counted[reason] <= (counted["misused_ended"] + 1) * 256 + counted["errors_sent"], "{counted:?}");
    world.running.must_lose_nothing(what);
}

/// Reads until nothing has come for so long, or the router has closed it: Errors and their octets, besides `heard`, and whether it is open
/// yet.
fn hear(association: &mut Association, heard: Said, patience: Duration) -> (Said, bool) {
    association.sock.set_read_timeout(Some(patience)).unwrap();
    let (mut heard, mut framer, mut buffer) = (heard, Framer::default(), [0; 16 << 10]);
    loop {
        match association.read(&mut buffer) {
            Ok(0) => return (heard, false),
            Ok(length) => framer.push(&buffer[..length]),
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return (heard, false),
            // Half of a message is followed by the rest.
            Err(_) if framer.buffered() == 0 => return (heard, true),
            Err(_) => {}
        }
        while let Some(message) = framer.next_message().unwrap() {
            let read = Message::decode(message.clone()).unwrap();
            assert!(matches!(read.body, Body::Error(_) | Body::Hello(_)), "{read:?}");
            if let Body::Error(_) = read.body {
                heard = Said { messages: heard.messages + 1, octets: heard.octets + message.len() };
            }
        }
    }
}
