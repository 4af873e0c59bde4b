//! Anybody, in datagrams.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use gist::wire::{MessageType, SessionId};
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::topology::{LEFT_LINK, RECEIVER, RECEIVER_LINK, RIGHT_LINK, ROUTER_LEFT, ROUTER_RIGHT, SENDER, SENDER_LINK};

use super::forged::{Forger, Kind};
use super::{STRANGER, STRANGERS_ROUTER, World, counters, must_count};
use crate::support::daemon::Daemon;

/// Between two datagrams: below the 500 a second that one link may signal with to a host.
const PAUSE: Duration = Duration::from_micros(2500);

/// Of each kind.
const TIMES: usize = 24;

/// Errors that one destination is sent in a window of so many seconds.
const MOST_ERRORS: usize = 16;
const WINDOW: u64 = 4;

/// A Response that was good once: whether its cookie still is that of the last Query, or another has been sent since.
const REPLAYED: &str = "answered_elsewhere|bad_query_cookies";

/// RFC 5971 §4.3.2, §4.4.6, §5.6, §5.3.3, A.4.
#[test]
fn whatever_anybody_forges_in_datagrams_is_counted_for_its_reason_and_a_flow_beside_goes_on() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let world = World::build();
    let chain = &world.living.site.chain;
    let response = world.captured(ROUTER_LEFT, SENDER, MessageType::Response);
    let socket = world.stranger.run(|| UdpSocket::bind((STRANGER, 270))).unwrap();
    let to_router = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK).unwrap();
    let to_sender = Injector::new(&chain.router, LEFT_LINK, &chain.sender, SENDER_LINK).unwrap();
    let began = Instant::now();
    let on_link = |injector: &Injector, from: IpAddr, to: IpAddr, payload: &[u8]| {
        injector.send(&[packet::udp((from, 270), (to, 270), payload).unwrap()]).unwrap();
    };
    let (router, sender) = (&world.living.router, &world.living.sender);
    for kind in kinds(&world, &response, SENDER) {
        play(&world, router, "on the link", &kind, |payload| on_link(&to_router, SENDER, ROUTER_LEFT, payload));
    }
    let again = world.captured(RECEIVER, ROUTER_RIGHT, MessageType::Response);
    let to_router_again = Injector::new(&chain.receiver, RECEIVER_LINK, &chain.router, RIGHT_LINK).unwrap();
    let replayed = Kind { name: "the receiver's Response replayed", payloads: vec![again], counted: &[REPLAYED] };
    play(&world, router, "on the link", &replayed, |payload| on_link(&to_router_again, RECEIVER, ROUTER_RIGHT, payload));
    for kind in kinds(&world, &response, ROUTER_LEFT) {
        play(&world, sender, "on the link", &kind, |payload| on_link(&to_sender, ROUTER_LEFT, SENDER, payload));
    }
    for kind in kinds(&world, &response, STRANGER) {
        play(&world, router, "a stranger", &kind, |payload| {
            socket.send_to(payload, (STRANGERS_ROUTER, 270)).unwrap();
        });
    }
    for address in [SENDER, STRANGER] {
        let errors = world.sent_to(address, MessageType::Error);
        println!("{} Errors of {} octets to {address} in {:?}", errors.messages, errors.octets, began.elapsed());
        assert!((1..=most_errors(began.elapsed())).contains(&errors.messages), "{errors:?}");
    }
    world.must_stand("forged datagrams");
}

/// Errors that one destination may have been sent in so much time.
pub(super) fn most_errors(within: Duration) -> usize {
    MOST_ERRORS * (usize::try_from(within.as_secs() / WINDOW).unwrap() + 2)
}

/// Each with its count, in somebody's name.
pub(super) fn kinds(world: &World, response: &[u8], name: IpAddr) -> Vec<Kind> {
    let query = &world.living.query;
    let forger = Forger::new(query, response, name);
    // In anybody else's name it is not what it was.
    let is_its_own = name == ROUTER_LEFT;
    let one = |name, payload, counted| Kind { name, payloads: vec![payload], counted };
    let mut kinds = vec![
        Kind { name: "errors of every cause", payloads: forger.errors(), counted: &["errors_received"] },
        one("Confirm with a made-up cookie", forger.confirm(), &["wrong_encapsulation"]),
        one("Response replayed", forger.replayed_response(), if is_its_own { &[REPLAYED] } else { &["address_mismatch"] }),
        one("Response with another cookie", forger.response(), &["bad_query_cookies"]),
        one("Data of the session", forger.data(None), &["unprotected"]),
        one("Data of no session", forger.data(Some(SessionId([0x77; 16]))), &["no_routing_state"]),
        one("MA-Hello", Forger::hello(), &["wrong_encapsulation"]),
        one("no hop left", forger.used_up(), &["hop_count_zero", "refused/hop_limit_exceeded"]),
        one("no magic number", b"GET / HTTP/1.0\r\n\r\n".to_vec(), &["no_magic"]),
        one("no common header", query[..11].to_vec(), &["malformed", "refused/too_short"]),
    ];
    for (cause, payload) in super::malformed::each_class(query) {
        let counted: Vec<&'static str> = vec!["malformed", format!("refused/{}", cause.word()).leak()];
        kinds.push(Kind { name: cause.word().leak(), payloads: vec![payload], counted: counted.leak() });
    }
    kinds
}

/// Says it over and over, while a new flow asks for its grant; all of it is counted, and nothing of the flow beside is lost.
fn play(world: &World, node: &Daemon, who: &str, kind: &Kind, say: impl Fn(&[u8]) + Sync) {
    let counted = counters(node);
    let grant = std::thread::scope(|scope| {
        let saying = scope.spawn(|| {
            for payload in kind.payloads.iter().cycle().take(TIMES.max(kind.payloads.len())) {
                say(payload);
                std::thread::sleep(PAUSE);
            }
        });
        let grant = world.grant();
        saying.join().unwrap();
        grant
    });
    let times = TIMES.max(kind.payloads.len());
    let what = format!("{who}, to {}: {}", if std::ptr::eq(node, &world.living.router) { "the router" } else { "the host" }, kind.name);
    let counted = must_count(node, &counted, kind.counted, times, &what);
    println!("{what}: {times}, counted {counted:?}; grant beside {grant:.1?}");
    world.running.must_lose_nothing(&what);
}
