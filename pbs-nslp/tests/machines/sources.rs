//! One host behind a router does not shut out the others behind it: what a peer may take up is divided among those whose
//! signatures its messages bear (X-82, INV-12).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gist::api::{Indication, Principal, ReceivedMessage};
use gist::time::Instant;
use gist::wire::{Direction, SessionId};
use pbs_nslp::datapath::Event;
use pbs_nslp::flow::FlowId;
use pbs_nslp::output::Output;
use pbs_nslp::receiver::{Receiver, ReceiverConfig};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::wire::{NotifyCode, Permission, Query, SaParameters};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::forge::{self, credential, permission, permission_from, query, query_from};
use crate::world::{SENDER, START_UNIX, World, entropy, flow, flow_to, receiver_address, receiver_config, router_config, seconds};

/// The router that all of them are behind.
const GATEWAY: Principal = Principal([0x61; 32]);
/// Another neighbour.
const OTHER: Principal = Principal([0x62; 32]);

/// Host `n` behind the gateway; its key has the same number.
fn host(n: u8) -> Arc<ToySigner> {
    ToySigner::new(address(n), n)
}

fn address(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn session(host: u8, n: u16) -> SessionId {
    let mut session = [host; 16];
    session[..2].copy_from_slice(&n.to_be_bytes());
    SessionId(session)
}

/// The `n`-th flow of a host to the receiver of the test world.
fn flow_of(host: u8, n: u16) -> FlowId {
    FlowId::new(address(host), receiver_address(), 17, n, 9000).unwrap()
}

fn ask(asking: u8, n: u16, number: u32) -> ReceivedMessage {
    let asked = Query { flow: flow_of(asking, n), credential: credential(&host(asking)), ..query(number) };
    let received = query_from(SENDER, session(asking, n), &asked, &host(asking));
    ReceivedMessage { principal: GATEWAY, ..received }
}

/// A clock that all floors lie far behind.
const NOW: u64 = START_UNIX;

fn number() -> u32 {
    u32::try_from(NOW).unwrap()
}

struct Lab {
    router: Router,
    authority: Arc<ToyAuthority>,
    now: Instant,
    notices: usize,
    refusals: Vec<String>,
}

impl Lab {
    fn new(config: RouterConfig) -> Self {
        crate::coverage::watch();
        let authority = Arc::new(ToyAuthority::default());
        let start = Instant::from_micros(1_000_000);
        let router = Router::new(config, authority.clone(), NOW - 1000, start);
        Self { router, authority, now: start + seconds(1000), notices: 0, refusals: Vec::new() }
    }

    fn give(&mut self, received: ReceivedMessage) {
        self.router.handle_message(received, self.now);
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Datapath(command) => {
                    let event = Event::Applied { token: command.token(), counted: 0, highest: 0 };
                    self.router.handle_datapath(event, self.now);
                }
                Output::Send(message) if message.mri.direction() == Direction::Upstream => self.notices += 1,
                Output::Report(report) => {
                    if let ReportEvent::Refused(refusal) = report.event {
                        self.refusals.push(refusal.to_string());
                    }
                }
                _ => {}
            }
        }
    }

    fn sessions_of(&self, host: u8) -> usize {
        self.router.sessions().iter().filter(|session| session.flow.source == address(host)).count()
    }
}

#[test]
fn one_host_does_not_use_up_the_pending_sessions_of_all_behind_its_router() {
    let mut lab = Lab::new(RouterConfig { pending: 64, pending_per_peer: 32, ..router_config() });
    for n in 1..=100 {
        lab.give(ask(11, n, number()));
    }
    assert!((8..=16).contains(&lab.sessions_of(11)), "{}", lab.sessions_of(11));
    for host in 12..=15 {
        lab.give(ask(host, 1, number()));
        assert_eq!(lab.sessions_of(host), 1, "host {host} has done nothing");
    }
}

#[test]
fn one_host_does_not_fill_the_table_of_permissions_for_all_behind_its_router() {
    let mut lab = Lab::new(RouterConfig { sessions: 64, ..router_config() });
    let grant = |asking: u8, n: u16| {
        let sa = Some(SaParameters { spi: 1000 * u32::from(asking) + u32::from(n), drain: seconds(0), new_epoch: true });
        let granted = Permission { flow: flow_of(asking, n), sa, ..permission(number() + u32::from(n) % 20) };
        let granted = permission_from(2, session(asking, n), &granted, &forge::receiver());
        ReceivedMessage { principal: OTHER, ..granted }
    };
    for n in 1..=100 {
        lab.give(ask(11, n, number()));
        lab.give(grant(11, n));
    }
    assert!((12..=24).contains(&lab.sessions_of(11)), "{}", lab.sessions_of(11));
    for host in 12..=20 {
        lab.give(ask(host, 1, number()));
        lab.give(grant(host, 1));
        assert_eq!(lab.sessions_of(host), 1);
    }
}

#[test]
fn a_neighbour_that_speaks_for_itself_has_its_whole_part() {
    // The key of its association is the one it signs with: there is nobody behind it to leave room for.
    let mut lab = Lab::new(RouterConfig { pending: 64, pending_per_peer: 32, ..router_config() });
    for n in 1..=100 {
        lab.give(ReceivedMessage { principal: Principal([11; 32]), ..ask(11, n, number()) });
    }
    assert_eq!(lab.sessions_of(11), 32);
}

#[test]
fn one_sender_does_not_fill_the_receivers_table_for_all_behind_its_last_router() {
    let start = Instant::from_micros(1_000_000);
    let config = ReceiverConfig { sessions: 64, budgets: 64, ..receiver_config() };
    let authority = Arc::new(ToyAuthority::default());
    let signer = ToySigner::new(receiver_address(), 2);
    let mut receiver = Receiver::new(config, signer, authority, entropy(3), NOW - 1000, start);
    let now = start + seconds(1000);
    for n in 1..=100 {
        receiver.handle_message(ask(11, n, number()), now);
    }
    let of = |receiver: &Receiver, host: u8| receiver.sessions().iter().filter(|s| s.flow.source == address(host)).count();
    assert!((12..=24).contains(&of(&receiver, 11)), "{}", of(&receiver, 11));
    for host in 12..=20 {
        receiver.handle_message(ask(host, 1, number()), now);
        assert_eq!(of(&receiver, host), 1);
    }
}

#[test]
fn the_bad_messages_of_one_host_leave_notices_for_the_others() {
    let mut lab = Lab::new(router_config());
    for n in 1..=100 {
        lab.give(ask(11, n, 5));
    }
    assert!((1..=10).contains(&lab.notices), "{}", lab.notices);
    let before = lab.notices;
    lab.give(ask(12, 1, 5));
    assert_eq!(lab.notices, before + 1);
}

#[test]
fn made_up_sources_use_up_nothing_that_others_need() {
    // Two certified neighbours name 4000 addresses each at once; the certificate is somebody else's.
    let mut lab = Lab::new(router_config());
    for n in 0..8000_u16 {
        let [high, low] = n.to_be_bytes();
        let flow = FlowId::new([10, 1, high, low].into(), receiver_address(), 17, 1, 9000).unwrap();
        let asked = Query { flow, credential: credential(&host(11)), ..query(number()) };
        let received = query_from(SENDER, session(11, n), &asked, &host(11));
        let principal = Principal([0x70 + (n % 2) as u8; 32]);
        lab.give(ReceivedMessage { principal, ..received });
    }
    lab.refusals.clear();
    // The others together send more than what one bucket holds, each far less than what is its due.
    for n in 1..=300 {
        for host in 12..=22 {
            lab.give(ask(host, n, number()));
        }
    }
    let overload: Vec<_> = lab.refusals.iter().filter(|reason| reason.contains("more messages than one")).collect();
    assert!(overload.is_empty(), "{} refused: {:?}", overload.len(), overload[0]);
}

#[test]
fn certificates_that_do_not_verify_cost_little_however_often_they_come() {
    // P-091, X-82: with each message another one that nobody has seen, or the same over and over.
    for always_new in [true, false] {
        let mut lab = Lab::new(router_config());
        let mut number = number();
        for n in 0..20_000_u32 {
            if n.is_multiple_of(4000) {
                lab.now += seconds(1);
                number += 1;
            }
            let [_, second, third, fourth] = n.to_be_bytes();
            let claimed = if always_new { [10, second, third, fourth] } else { [10, 0, 0, 1] };
            let flow = FlowId::new(claimed.into(), receiver_address(), 17, 1, 9000).unwrap();
            let asked = Query { flow, credential: credential(&host(11)), ..query(number) };
            lab.give(ReceivedMessage { principal: GATEWAY, ..query_from(SENDER, session(1, 1), &asked, &host(11)) });
        }
        let verified = lab.authority.certificates.load(Ordering::Relaxed);
        let bound = if always_new { 5000 } else { 10 };
        assert!(verified <= bound, "{verified} paths were validated in 5 s");
        assert_eq!(lab.authority.signatures.load(Ordering::Relaxed), 0);
        // Another neighbour is not affected, and one whose hosts are known is not either.
        lab.give(ReceivedMessage { principal: OTHER, ..ask(12, 1, number) });
        assert_eq!(lab.sessions_of(12), 1);
        lab.give(ask(12, 2, number));
        assert_eq!(lab.sessions_of(12), 2);
    }
}

#[test]
fn refusals_are_reported_for_each_peer_as_often_as_people_can_read_and_all_are_counted() {
    let mut lab = Lab::new(router_config());
    for n in 1..=2000 {
        lab.give(ask(11, n, 5));
    }
    assert!(lab.refusals.len() <= 50, "{} lines for 2000 messages", lab.refusals.len());
    assert!(!lab.refusals.is_empty());
    assert_eq!(lab.router.counters().refused.get(&NotifyCode::Stale), Some(&2000));
    let before = lab.refusals.len();
    lab.give(ReceivedMessage { principal: OTHER, ..ask(12, 1, 5) });
    assert_eq!(lab.refusals.len(), before + 1, "another peer's are still reported");
}

#[test]
fn refusals_of_unauthenticated_messages_count_together() {
    // Whoever is not authenticated chooses its principal at will.
    let mut lab = Lab::new(router_config());
    for n in 1..=2000_u16 {
        let mut principal = [0; 32];
        principal[..2].copy_from_slice(&n.to_be_bytes());
        lab.give(ReceivedMessage { authenticated: false, principal: Principal(principal), ..ask(11, n, number()) });
    }
    assert!(lab.refusals.len() <= 50, "{} lines", lab.refusals.len());
    assert!(lab.notices <= 20, "{} notices", lab.notices);
}

#[test]
fn numbers_far_ahead_of_the_clock_are_refused_with_state_too() {
    // numbers follow the clock. One that runs ahead would be remembered until the clock has caught up.
    let mut world = World::granted(1);
    world.stable = false;
    let session = world.session();
    let clock = u32::try_from(world.unix()).unwrap();
    let refresh = |ahead: u32| query_from(SENDER, session, &query(clock + ahead), &forge::sender());
    world.tell(1, Indication::Received(refresh(100)));
    world.settle();
    world.took(1, &["FN-21"]);
    world.tell(1, Indication::Received(refresh(1 << 20)));
    world.settle();
    let refused = |event: &ReportEvent| matches!(event, ReportEvent::Refused(refusal) if refusal.code == NotifyCode::Stale);
    assert!(world.saw(1, refused));
    let granted = permission_from(2, session, &permission(clock + (1 << 20)), &forge::receiver());
    world.tell(1, Indication::Received(granted));
    world.settle();
    assert_eq!(world.datapaths[1].table.len(), 1, "no second epoch");
    let _ = (flow(), flow_to(1));
}
