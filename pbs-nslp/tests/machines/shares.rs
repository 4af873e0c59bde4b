//! One certificate, however many names it gives itself and flows it asks for, does not shut others out (X-63, X-82, INV-12).

use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

use gist::api::{Principal, ReceivedMessage};
use gist::time::Instant;
use gist::wire::{PeerIdentity, SessionId};
use pbs_nslp::datapath::Event;
use pbs_nslp::flow::{FlowError, FlowId};
use pbs_nslp::output::Output;
use pbs_nslp::receiver::{Receiver, ReceiverConfig};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::wire::{MessageKind, NotifyCode, Permission, Query, SaParameters, Volume};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::forge::{self, credential, denial, permission, permission_from, query, query_from};
use crate::world::{SENDER, START_UNIX, World, entropy, flow, flow_to, receiver_address, receiver_config, router_config, seconds};

/// Who floods: one address, one key, one certificate.
const EVE: Principal = Principal([0xee; 32]);
const EVES_SECOND: Principal = Principal([0xef; 32]);

fn eve_address() -> IpAddr {
    [203, 0, 113, 66].into()
}

fn eve() -> Arc<ToySigner> {
    ToySigner::new(eve_address(), 9)
}

/// The n-th flow from Eve, to as many addresses.
fn flow_of_eve(n: u32) -> FlowId {
    let [_, second, third, fourth] = n.to_be_bytes();
    FlowId::new(eve_address(), [10, second, third, fourth].into(), 17, 1, 1).unwrap()
}

fn session(n: u32) -> SessionId {
    let mut session = [0x55; 16];
    session[..4].copy_from_slice(&n.to_be_bytes());
    SessionId(session)
}

/// A clock of a router that has run for 1000 s: its floor is no longer in the way.
struct Clock {
    now: Instant,
    unix: u64,
}

impl Clock {
    fn number(&self) -> u32 {
        u32::try_from(self.unix).unwrap()
    }

    fn tick(&mut self) {
        self.now += seconds(1);
        self.unix += 1;
    }
}

fn running(config: RouterConfig) -> (Router, Clock) {
    crate::coverage::watch();
    let start = Instant::from_micros(1_000_000);
    let router = Router::new(config, Arc::new(ToyAuthority::default()), START_UNIX - 1000, start);
    (router, Clock { now: start + seconds(1000), unix: START_UNIX })
}

/// Lets the router act; its packet side does at once what it is told. Gives the reasons of refusals.
fn settle(router: &mut Router, now: Instant) -> Vec<String> {
    let mut refusals = Vec::new();
    while let Some(output) = router.poll_output() {
        match output {
            Output::Datapath(command) => {
                router.handle_datapath(Event::Applied { token: command.token(), counted: 0, highest: 0 }, now);
            }
            Output::Report(report) => {
                if let ReportEvent::Refused(refusal) = report.event {
                    refusals.push(refusal.to_string());
                }
            }
            _ => {}
        }
    }
    refusals
}

fn give(router: &mut Router, received: ReceivedMessage, from: Principal, now: Instant) -> Vec<String> {
    router.handle_message(ReceivedMessage { principal: from, ..received }, now);
    settle(router, now)
}

fn ask(n: u32, number: u32) -> ReceivedMessage {
    let asked = Query { flow: flow_of_eve(n), credential: credential(&eve()), ..query(number) };
    query_from(SENDER, session(n), &asked, &eve())
}

/// An honest Query that begins a session.
fn honest(number: u32) -> ReceivedMessage {
    query_from(SENDER, session(9_999_999), &query(number), &forge::sender())
}

fn taken(router: &Router, rule: &str) -> u64 {
    router.counters().rules.get(rule).copied().unwrap_or(0)
}

#[test]
fn a_flood_of_ended_sessions_raises_the_floor_of_its_signer_only() {
    let mut config = router_config();
    config.node.admission.tombstones = 64;
    config.node.admission.tombstones_per_peer = 16;
    let (mut router, mut clock) = running(config);
    for n in 0..100 {
        clock.tick();
        let ahead = clock.number() + 30;
        assert_eq!(give(&mut router, ask(n, ahead), EVE, clock.now), Vec::<String>::new());
        let signer = ToySigner::new(flow_of_eve(n).destination, 9);
        let refused = Permission { flow: flow_of_eve(n), credential: credential(&signer), ..denial(ahead) };
        let refused = permission_from(2, session(n), &refused, &signer);
        assert_eq!(give(&mut router, refused, EVES_SECOND, clock.now), Vec::<String>::new());
    }
    assert_eq!(taken(&router, "FN-07"), 100);
    // Denials of her own that nobody waits for do the same: FN-03.
    let ahead = clock.number() + 30;
    for n in 0..100 {
        let flow = FlowId::new([10, 9, 0, 1 + n as u8].into(), eve_address(), 17, 1, 1).unwrap();
        let refused = Permission { flow, credential: credential(&eve()), ..denial(ahead) };
        give(&mut router, permission_from(2, session(n), &refused, &eve()), EVE, clock.now);
    }
    let passed_on = taken(&router, "FN-03");
    assert!(passed_on < 40, "then her own floor is in the way: {passed_on}");
    for lag in [0, 5, 60, 200] {
        let fresh = Query { flow: flow_to(20_000 + lag), ..query(clock.number() - u32::from(lag)) };
        let fresh = query_from(SENDER, session(5000 + u32::from(lag)), &fresh, &forge::sender());
        assert_eq!(give(&mut router, fresh, Principal([1; 32]), clock.now), Vec::<String>::new(), "{lag} s behind");
    }
    // So many refusals are not all reported.
    (0..10).for_each(|_| clock.tick());
    let replayed = give(&mut router, ask(0, clock.number() - 11), EVE, clock.now);
    assert!(replayed.iter().any(|reason| reason.contains("not above the floor")), "{replayed:?}");
}

#[test]
fn a_grant_that_is_only_passed_on_is_not_kept() {
    // FN-03: nothing was accepted, so nothing need be remembered; a denial's number is.
    let mut world = World::new(1);
    world.stable = false;
    let number = u32::try_from(world.unix()).unwrap() + 5;
    for _ in 0..2 {
        let received = permission_from(2, session(1), &permission(number), &forge::receiver());
        world.tell(1, gist::api::Indication::Received(received));
        world.settle();
    }
    assert_eq!(world.sent(1, MessageKind::Permission).len(), 2);
    assert_eq!(world.router_state(1), "Idle");
}

#[test]
fn new_names_for_one_certificate_give_no_new_share_of_the_pending_table() {
    let config = RouterConfig { pending: 64, pending_per_peer: 32, ..router_config() };
    let (mut router, clock) = running(config);
    for n in 0..100_u32 {
        let mut received = ask(n, clock.number());
        received.peer = PeerIdentity::new(n.to_be_bytes().to_vec()).unwrap();
        give(&mut router, received, EVE, clock.now);
    }
    assert_eq!(router.sessions().len(), 16, "half of the part of the peer that she speaks through");
    assert_eq!(taken(&router, "FN-02"), 84);
    give(&mut router, honest(clock.number()), Principal([1; 32]), clock.now);
    assert_eq!(router.sessions().len(), 17);
}

#[test]
fn a_table_size_brings_its_pending_part_with_it() {
    let config = RouterConfig::with_sessions(router_config().node, 1000);
    assert_eq!((config.sessions, config.pending, config.pending_per_peer), (1000, 125, 62));
    let least = RouterConfig::with_sessions(router_config().node, 1);
    assert_eq!((least.sessions, least.pending, least.pending_per_peer), (1, 1, 1));
    assert_eq!(RouterConfig::new(router_config().node).pending, 8192);
}

#[test]
fn permitted_sessions_of_one_peer_leave_room_for_others() {
    // The longest periods there are: 24 h and 1 h.
    let config = RouterConfig { sessions: 64, ..router_config() };
    let (mut router, clock) = running(config);
    for n in 0..64_u32 {
        let number = clock.number();
        give(&mut router, ask(n, number), EVE, clock.now);
        let sa = Some(SaParameters { spi: 1000 + n, drain: Duration::ZERO, new_epoch: true });
        let signer = ToySigner::new(flow_of_eve(n).destination, 9);
        let granted = Permission {
            flow: flow_of_eve(n),
            credential: credential(&signer),
            ttl: seconds(86_400),
            refresh: seconds(3600),
            allowed: Volume(u64::MAX),
            sa,
            ..permission(number)
        };
        give(&mut router, permission_from(2, session(n), &granted, &signer), EVES_SECOND, clock.now);
    }
    assert_eq!(router.sessions().len(), 24, "half of three quarters");
    assert!(router.sessions().iter().all(|session| session.state == "Permitted"));
    give(&mut router, honest(clock.number()), Principal([1; 32]), clock.now);
    assert_eq!(router.sessions().len(), 25);
    // Whoever gives up its sessions has room again.
    router.handle_timeout(clock.now + seconds(4 * 3600));
    assert_eq!(router.sessions().len(), 0);
}

#[test]
fn no_flow_begins_and_ends_at_the_same_address() {
    // the consent of two parties would be that of one.
    assert_eq!(FlowId::new(eve_address(), eve_address(), 17, 1, 9), Err(FlowError::OneHost(eve_address())));
}

#[test]
fn nobody_uses_up_the_messages_of_a_neighbour_by_taking_its_name() {
    let mut config = router_config();
    config.node.admission.peer_rate.burst = 10;
    config.node.admission.signer_rate.burst = 10;
    let (mut router, clock) = running(config);
    for n in 0..100 {
        // Not Eve's address: refused, but only after the buckets.
        let asked = Query { credential: credential(&eve()), ..query(clock.number()) };
        let mut received = query_from(SENDER, session(n), &asked, &eve());
        received.peer = crate::world::peer(SENDER);
        give(&mut router, received, EVE, clock.now);
    }
    assert_eq!(router.counters().refused.values().sum::<u64>(), 100);
    assert_eq!(router.counters().refused_silently, 50);
    assert_eq!(give(&mut router, honest(clock.number()), crate::world::principal(SENDER), clock.now), Vec::<String>::new());
}

#[test]
fn a_receiver_keeps_room_for_other_peers_too() {
    let start = Instant::from_micros(1_000_000);
    let config = ReceiverConfig { sessions: 16, ..receiver_config() };
    let authority = Arc::new(ToyAuthority::default());
    let signer = ToySigner::new(receiver_address(), 2);
    let mut receiver = Receiver::new(config, signer, authority, entropy(3), START_UNIX - 1000, start);
    let now = start + seconds(1000);
    let number = u32::try_from(START_UNIX).unwrap();
    let mut ask = |port: u16, from: Principal| {
        let asked = FlowId::new(flow().source, receiver_address(), 17, port, 9000).unwrap();
        let asked = query_from(1, session(port.into()), &Query { flow: asked, ..query(number) }, &forge::sender());
        receiver.handle_message(ReceivedMessage { principal: from, ..asked }, now);
        (receiver.sessions().len(), receiver.counters().refused.get(&NotifyCode::Overload).copied())
    };
    for port in 1..=20 {
        ask(port, EVE);
    }
    assert_eq!(ask(21, EVE), (6, Some(15)));
    assert_eq!(ask(22, Principal([1; 32])), (7, Some(15)));
}
