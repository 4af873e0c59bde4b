//! Nothing changes permission state but what both ends have signed, and bad input changes nothing (INV-06).

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use gist::api::{Principal, ReceivedMessage};
use gist::wire::{Direction, NslpId, SessionId};
use pbs_nslp::flow::FlowId;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::router::table::{Action, Event, Guards, Outcome, State, Transition, step};
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::wire::{
    self, Defense, Message, MessageKind, Notify, NotifyCode, Permission, PuzzleChallenge, Query, SaParameters, Volume, VolumeContext,
};

use crate::credentials::ToySigner;
use crate::forge::{self, SPI, denial, key, notice_from, permission, permission_from, query, query_from};
use crate::world::{LATENCY, NSLP_ID, SENDER, START_UNIX, T, World, flow, flow_to, receiver_address, router_config, seconds};

const OTHER: SessionId = SessionId([9; 16]);

/// A number that is acceptable everywhere and newer than what the world has used.
fn later(world: &World) -> u32 {
    u32::try_from(world.unix()).unwrap() + 20
}

/// Gives a node a message that must change nothing anywhere, and returns the code of its refusal there.
fn refused(world: &mut World, place: usize, received: ReceivedMessage) -> NotifyCode {
    let before = (world.states(), world.permissions(), world.reports.len(), world.sent(place, MessageKind::Query).len());
    let permissions = world.sent(place, MessageKind::Permission).len();
    world.tell(place, gist::api::Indication::Received(received));
    world.settle();
    assert_eq!((before.0, before.1), (world.states(), world.permissions()), "INV-06");
    assert_eq!(before.3, world.sent(place, MessageKind::Query).len(), "P-090: not passed on");
    assert_eq!(permissions, world.sent(place, MessageKind::Permission).len(), "P-090: not passed on");
    let refusal = world.reports[before.2..].iter().find_map(|(at, report)| match &report.event {
        ReportEvent::Refused(refusal) if *at == place => Some(refusal.code),
        _ => None,
    });
    refusal.unwrap_or_else(|| panic!("no refusal at {place}: {:?}", &world.reports[before.2..]))
}

#[test]
fn a_permission_nobody_asked_for_is_passed_on_but_not_installed() {
    // FN-03, INV-03, P-104, P-109; FS-03 at the sender.
    let mut world = World::new(1);
    world.stable = false;
    let received = permission_from(2, OTHER, &permission(later(&world)), &forge::receiver());
    world.tell(1, gist::api::Indication::Received(received));
    world.run(seconds(1));
    world.took(1, &["FN-03"]);
    assert_eq!(world.router_state(1), "Idle");
    assert!(world.permissions().iter().all(Vec::is_empty));
    let upstream: Vec<_> = world.recorded.iter().map(|transit| (transit.from, transit.kind())).collect();
    assert_eq!(upstream, [(1, MessageKind::Permission), (1, MessageKind::Notify)]);
    assert!(world.saw(1, |event| matches!(event, ReportEvent::Notifying { code: NotifyCode::NoState, detail: 1 })));
    world.took(SENDER, &["FS-03"]);
}

#[test]
fn a_denial_without_state_is_passed_on_without_a_notice_and_its_number_is_kept() {
    // FN-03, TMP-10: what came before a denial installs nothing any more.
    let mut world = World::new(1);
    world.stable = false;
    let number = later(&world);
    let received = permission_from(2, OTHER, &denial(number), &forge::receiver());
    world.tell(1, gist::api::Indication::Received(received));
    world.settle();
    assert!(world.sent(1, MessageKind::Notify).is_empty());
    let asked = query_from(SENDER, OTHER, &query(later(&world)), &forge::sender());
    world.tell(1, gist::api::Indication::Received(asked));
    world.settle();
    let stale = permission_from(2, OTHER, &permission(number), &forge::receiver());
    assert_eq!(refused(&mut world, 1, stale), NotifyCode::Stale);
    let fresh = permission_from(2, OTHER, &permission(number + 1), &forge::receiver());
    world.tell(1, gist::api::Indication::Received(fresh));
    world.settle();
    assert_eq!(world.router_state(1), "Permitted");
}

#[test]
fn an_advice_to_change_the_path_without_state_is_passed_on_and_changes_nothing() {
    // FN-03, FS-03; and a denial that nobody waits for.
    let mut world = World::new(1);
    world.stable = false;
    let other_path = Permission { defense: Some(Defense::ChangePath), sa: None, ..permission(later(&world)) };
    world.tell(1, gist::api::Indication::Received(permission_from(2, OTHER, &other_path, &forge::receiver())));
    world.run(seconds(1));
    world.took(1, &["FN-03"]);
    let denial = denial(later(&world) + 1);
    world.tell(1, gist::api::Indication::Received(permission_from(2, OTHER, &denial, &forge::receiver())));
    world.run(seconds(1));
    assert_eq!(world.sent(1, MessageKind::Permission).len(), 2);
    assert_eq!(world.events(SENDER).iter().filter(|event| ***event == ReportEvent::Stray).count(), 2);
    assert_eq!(world.states(), ["Idle"; 3]);
}

#[test]
fn a_bad_permission_changes_nothing_while_one_is_waited_for() {
    // FN-00 in Wait P.
    let mut world = World::new(1);
    world.down.insert(2);
    world.want();
    world.run(LATENCY * 2);
    let session = world.session();
    let received = forge::spoiled(permission_from(2, session, &permission(later(&world)), &forge::receiver()));
    assert_eq!(refused(&mut world, 1, received), NotifyCode::Signature);
    assert_eq!(world.router_state(1), "Wait P");
}

#[test]
fn a_new_epoch_with_an_algorithm_the_sender_refuses_does_not_begin() {
    // FS-24: the old one goes on.
    let mut world = World::granted(1);
    world.stable = false;
    let session = world.session();
    let no_action = Permission { defense: Some(Defense::NoAction), sa: None, ..permission(later(&world)) };
    let before = world.permissions();
    world.tell(SENDER, gist::api::Indication::Received(permission_from(1, session, &no_action, &forge::receiver())));
    world.settle();
    world.took(SENDER, &["FS-24"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::AlgorithmRefused));
    assert_eq!((world.sender_state().as_str(), before), ("Permitted", world.permissions()));
}

#[test]
fn the_row_that_protects_consent_is_the_one_in_the_table() {
    // A router that goes by a table without FN-03 installs what nobody asked for: the row is what protects.
    const INSTALL: Outcome = Outcome::Take(Transition { rule: "sabotage", next: State::Permitted, actions: &[Action::Install] });
    let careless = |state: State, event: Event, guards: Guards| match (state, event) {
        (State::Idle, Event::RxPermission) => INSTALL,
        _ => step(state, event, guards),
    };
    let mut world = World::new(1);
    world.stable = false;
    world.leftovers = true;
    let now = world.now;
    world.routers[0] = Router::with_table(router_config(), world.authority.clone(), careless, START_UNIX, now);
    let received = permission_from(2, OTHER, &permission(later(&world)), &forge::receiver());
    world.tell(1, gist::api::Indication::Received(received));
    world.routers[0].poll_output();
    assert_eq!(world.router_state(1), "Permitted");
}

#[test]
fn a_wrong_signature_stops_at_the_first_router() {
    // P-089, P-090.
    let mut world = World::new(2);
    let forged = query_from(SENDER, OTHER, &query(later(&world)), &forge::sender());
    let mut payload = forged.payload.to_vec();
    *payload.last_mut().unwrap() ^= 1;
    let forged = ReceivedMessage { payload: payload.into(), ..forged };
    assert_eq!(refused(&mut world, 1, forged), NotifyCode::Signature);
    world.took(1, &["FN-00"]);
    assert!(world.sent(2, MessageKind::Query).is_empty());
}

#[test]
fn each_fault_of_a_query_has_its_own_answer_and_changes_nothing() {
    // Appendix D step by step; INV-06, P-039, P-071, P-094, X-13, X-21.
    let mut world = World::granted(1);
    let number = later(&world);
    let sender = forge::sender();
    let good = query_from(SENDER, OTHER, &query(number), &sender);
    let with = |change: &dyn Fn(&mut ReceivedMessage)| {
        let mut received = good.clone();
        change(&mut received);
        received
    };
    let stranger = ToySigner::new([192, 0, 2, 66].into(), 1);
    let other_key = ToySigner::new(flow().source, 5);
    let by = |query: &Query, signer: &ToySigner| {
        let query = Query { credential: forge::credential(signer), ..query.clone() };
        query_from(SENDER, OTHER, &query, signer)
    };
    let cases: Vec<(&str, NotifyCode, ReceivedMessage)> = vec![
        ("a datagram or an unknown peer", NotifyCode::NoSecureChannel, with(&|r| r.authenticated = false)),
        ("another application", NotifyCode::UnknownMessageType, with(&|r| r.nslp_id = NslpId(1))),
        ("cut short", NotifyCode::Malformed, with(&|r| r.payload = r.payload.slice(..r.payload.len() - 4))),
        ("another flow in the MRI", NotifyCode::FlowMismatch, with(&|r| r.mri = flow_to(9001).to_mri(Direction::Downstream))),
        ("the wrong way", NotifyCode::FlowMismatch, with(&|r| r.mri = r.mri.inverted())),
        ("moved to another session", NotifyCode::Signature, with(&|r| r.session = SessionId([8; 16]))),
        ("an old number", NotifyCode::Stale, by(&query(u32::try_from(START_UNIX).unwrap()), &sender)),
        ("a certificate for another address", NotifyCode::Certificate, by(&query(number), &stranger)),
        ("another key than the live session's", NotifyCode::LocalPolicy, by(&query(number), &other_key)),
    ];
    for place in [1, 2] {
        for (fault, code, received) in &cases {
            assert_eq!(refused(&mut world, place, received.clone()), *code, "{fault} at {place}");
        }
    }
    assert_eq!(world.packet(10), Some(2), "the live permission goes on");
}

#[test]
fn each_fault_of_a_permission_has_its_own_answer_and_changes_nothing() {
    // FN-24, FS-23, X-24, X-45, X-67.
    let mut world = World::granted(1);
    let session = world.session();
    let number = later(&world);
    let spi = world.permissions()[1][0].1;
    let sa = |spi| Some(SaParameters { spi, drain: LATENCY, new_epoch: true });
    let receiver = forge::receiver();
    let cases: Vec<(&str, NotifyCode, Permission)> = vec![
        ("a period below the minimum", NotifyCode::BadValue, Permission { refresh: seconds(1), ..permission(number) }),
        ("a period above the maximum", NotifyCode::BadValue, Permission { refresh: seconds(3601), ..permission(number) }),
        ("an old number", NotifyCode::Stale, permission(u32::try_from(START_UNIX).unwrap())),
    ];
    for (fault, code, permission) in cases {
        for place in [1, SENDER] {
            let received = permission_from(place + 1, session, &permission, &receiver);
            assert_eq!(refused(&mut world, place, received), code, "{fault} at {place}");
        }
    }
    world.took(SENDER, &["FS-00"]);
    let no_action = Permission { defense: Some(Defense::NoAction), sa: None, ..permission(number) };
    assert_eq!(refused(&mut world, 1, permission_from(2, session, &no_action, &receiver)), NotifyCode::AlgorithmRefused);
    let other_key = ToySigner::new(receiver_address(), 6);
    let stolen = Permission { credential: forge::credential(&other_key), ..permission(number) };
    assert_eq!(refused(&mut world, 1, permission_from(2, session, &stolen, &other_key)), NotifyCode::LocalPolicy);

    let swapped = Permission { sa: sa(spi), defense: Some(key(99)), ..permission(number) };
    let before = world.permissions();
    world.tell(1, gist::api::Indication::Received(permission_from(2, session, &swapped, &receiver)));
    world.tell(SENDER, gist::api::Indication::Received(permission_from(1, session, &swapped, &receiver)));
    world.settle();
    world.took(1, &["FN-24"]);
    world.took(SENDER, &["FS-23"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::KeySwapRefused { spi }));
    assert!(world.saw(1, |event| matches!(event, ReportEvent::Notifying { code: NotifyCode::BadValue, .. })));
    assert_eq!(before, world.permissions());
}

#[test]
fn cheap_checks_come_before_expensive_ones() {
    // P-091: stale and misdirected messages cost neither a certificate nor a signature.
    let mut world = World::granted(1);
    let counts = |world: &World| {
        let authority = &world.authority;
        (authority.certificates.load(Ordering::Relaxed), authority.signatures.load(Ordering::Relaxed))
    };
    let before = counts(&world);
    let stale = query_from(SENDER, OTHER, &query(5), &forge::sender());
    refused(&mut world, 1, stale);
    let astray = query_from(SENDER, OTHER, &query(later(&world)), &forge::sender());
    let astray = ReceivedMessage { mri: astray.mri.inverted(), ..astray };
    refused(&mut world, 1, astray);
    assert_eq!(before, counts(&world));
    world.run(T);
    let after = counts(&world);
    assert_eq!((after.0 - before.0, after.1 - before.1), (0, 4), "X-22: a refresh costs one signature a message and node");
}

#[test]
fn no_notice_changes_anything_and_none_answers_a_notice() {
    // P-206, X-28, INV-06.
    let mut world = World::granted(1);
    let session = world.session();
    for code in NotifyCode::ALL {
        for place in [SENDER, 1] {
            let before = (world.states(), world.permissions());
            let notices = world.sent(1, MessageKind::Notify).len();
            world.tell(place, gist::api::Indication::Received(notice_from(place + 1, session, flow(), code)));
            world.settle();
            assert_eq!(before, (world.states(), world.permissions()), "{code:?} at {place}");
            assert!(world.sent(1, MessageKind::Notify).len() <= notices + 1, "passed on, not answered");
        }
    }
    let malformed = notice_from(2, session, flow(), NotifyCode::Stale);
    let malformed = ReceivedMessage { payload: malformed.payload.slice(..8), ..malformed };
    let notices = world.sent(1, MessageKind::Notify).len();
    assert_eq!(refused(&mut world, 1, malformed), NotifyCode::Malformed);
    assert_eq!(world.sent(1, MessageKind::Notify).len(), notices);
}

#[test]
fn notices_are_rate_limited() {
    // Appendix A: 10/s, burst 20 for one peer; half of that about one source behind it.
    let mut world = World::new(1);
    let forged = |source: u8| {
        let flow = FlowId::new([192, 0, 2, source].into(), receiver_address(), 17, 5000, 9000).unwrap();
        query_from(SENDER, OTHER, &Query { flow, ..query(5) }, &forge::sender())
    };
    let flood = |world: &mut World, sources: &[u8]| {
        for source in sources.iter().cycle().take(300) {
            world.tell(1, gist::api::Indication::Received(forged(*source)));
            world.settle();
        }
        world.sent(1, MessageKind::Notify).len()
    };
    assert_eq!(flood(&mut world, &[1]), 10);
    assert_eq!(flood(&mut world, &[1, 2, 3]), 20);
    world.run(seconds(1));
    assert_eq!(flood(&mut world, &[1]), 25);
    assert_eq!(flood(&mut world, &[1, 2, 3]), 30);
}

#[test]
fn an_spi_that_belongs_to_another_flow_of_the_receiver_is_refused() {
    // P-151.
    // FN-06, X-73.
    let mut world = World::granted(1);
    world.stable = false;
    let taken = world.permissions()[1][0].1;
    let flow = flow_to(9001);
    let asked = Query { flow, ..query(later(&world)) };
    world.tell(1, gist::api::Indication::Received(query_from(SENDER, OTHER, &asked, &forge::sender())));
    let sa = Some(SaParameters { spi: taken, drain: LATENCY, new_epoch: true });
    let granted = Permission { flow, sa, ..permission(later(&world)) };
    world.tell(1, gist::api::Indication::Received(permission_from(2, OTHER, &granted, &forge::receiver())));
    world.settle();
    world.took(1, &["FN-06"]);
    assert!(world.saw(1, |event| matches!(event, ReportEvent::Notifying { code: NotifyCode::SpiCollision, .. })));
    assert_eq!(world.permissions()[1].len(), 1);
    assert_eq!(world.packet(100), Some(2), "the first flow is not touched");
    let sa = Some(SaParameters { spi: SPI, drain: LATENCY, new_epoch: true });
    let granted = Permission { flow, sa, number: later(&world) + 1, ..granted };
    world.tell(1, gist::api::Indication::Received(permission_from(2, OTHER, &granted, &forge::receiver())));
    world.settle();
    assert_eq!(world.permissions()[1].len(), 2);
}

#[test]
fn the_pending_table_is_bounded_and_never_displaces_a_permission() {
    // FN-02, INV-12, P-145, X-82: a flood leaves room for the Queries of other hosts behind the same peer, and of other peers.
    let config = RouterConfig { pending: 6, pending_per_peer: 4, ..router_config() };
    let mut world = World::granted(1);
    world.stable = false;
    let now = world.now;
    world.pending = config.pending;
    world.routers[0] = Router::new(config, world.authority.clone(), START_UNIX, now);
    world.datapaths[1] = crate::datapath::Datapath::default();
    world.want();
    world.run(LATENCY * 5);
    assert_eq!(world.router_state(1), "Permitted");
    let pending = |world: &World, host: Option<u8>| {
        let sessions = world.routers[0].sessions();
        let of_host = |source: IpAddr| host.is_none_or(|host| source == IpAddr::from([192, 0, 2, host]));
        sessions.iter().filter(|session| session.state == "Wait P" && of_host(session.flow.source)).count()
    };
    let number = later(&world);
    let from = |world: &mut World, peer: u8, host: u8, port: u16| {
        let flow = FlowId::new([192, 0, 2, host].into(), flow().destination, 17, port, 9000).unwrap();
        let signer = ToySigner::new(flow.source, host);
        let asked = Query { flow, credential: forge::credential(&signer), ..query(number) };
        let mut received = query_from(SENDER, SessionId([port as u8; 16]), &asked, &signer);
        received.principal = Principal([peer; 32]);
        world.tell(1, gist::api::Indication::Received(received));
        world.settle();
    };
    (1..=10).for_each(|port| from(&mut world, 100, 11, port));
    assert_eq!(pending(&world, Some(11)), 2, "half of the peer's part");
    (1..=10).for_each(|port| from(&mut world, 100, 12, port));
    (1..=10).for_each(|port| from(&mut world, 100, 13, port));
    assert_eq!((pending(&world, Some(12)), pending(&world, Some(13)), pending(&world, None)), (1, 1, 4));
    (11..=20).for_each(|port| from(&mut world, 101, 14, port));
    assert_eq!((pending(&world, Some(14)), pending(&world, None)), (2, 6));
    world.took(1, &["FN-02"]);
    assert!(world.saw(1, |event| matches!(event, ReportEvent::Notifying { code: NotifyCode::Overload, .. })));
    assert_eq!(world.packet(10), Some(2), "and the permission is untouched");
    world.run(seconds(31));
    assert_eq!(pending(&world, None), 0, "FN-09 makes room");
    assert_eq!(world.states(), ["Permitted"; 3]);
    from(&mut world, 100, 11, 30);
    assert_eq!(pending(&world, None), 1);
}

/// A router with room for two questions, which get no answer, and how it answers the peering question after each.
fn asked_until_full(open: bool) -> World {
    let mut world = World::new(1);
    world.stable = false;
    world.down.insert(2);
    let config = RouterConfig { pending: 16, pending_per_peer: 16, open, ..router_config() };
    world.routers[0] = Router::new(config, world.authority.clone(), START_UNIX, world.now);
    world.pending = 16;
    let number = later(&world);
    for host in 1..=16 {
        assert_eq!(world.peering, [], "room for {} more", 17 - host);
        let flow = FlowId::new([192, 0, 2, host].into(), flow().destination, 17, 1, 9000).unwrap();
        let signer = ToySigner::new(flow.source, host);
        let asked = Query { flow, credential: forge::credential(&signer), ..query(number) };
        let mut received = query_from(SENDER, SessionId([host; 16]), &asked, &signer);
        received.principal = Principal([host; 32]);
        world.tell(1, gist::api::Indication::Received(received));
        world.settle();
    }
    world
}

#[test]
fn where_all_is_open_a_full_table_lets_further_queries_pass_it_by_until_there_is_room() {
    // P-009, X-112, FN-02: GIST answers its peering question with no, and the flow gets on without this router.
    let mut world = asked_until_full(true);
    assert_eq!(world.peering, [(1, false)]);
    world.run(seconds(31));
    assert_eq!(world.peering, [(1, false), (1, true)], "FN-09 makes room: said once");
}

#[test]
fn where_something_is_closed_a_full_table_still_peers_and_says_why_it_refuses() {
    // INV-11, X-82: passed by, the flow would be permitted further on and dropped here.
    let mut world = asked_until_full(false);
    world.run(seconds(31));
    assert_eq!(world.peering, []);
}

#[test]
fn a_permission_with_an_algorithm_the_sender_refuses_is_given_back() {
    // FS-07, X-67: no silent downgrade.
    let mut world = World::new(0);
    world.want();
    let session = world.session();
    let no_action = Permission { defense: Some(Defense::NoAction), sa: None, ..permission(later(&world)) };
    world.wires.clear();
    world.stable = false;
    world.tell(SENDER, gist::api::Indication::Received(permission_from(1, session, &no_action, &forge::receiver())));
    world.settle();
    world.took(SENDER, &["FS-07"]);
    assert!(world.sent(SENDER, MessageKind::Query).last().unwrap().query().unwrap().is_release());
    assert!(world.datapaths[SENDER].table.is_empty());
}

#[test]
fn what_this_version_does_not_act_upon_is_refused_loudly() {
    // FS-12: in the table, counted and reported, no change.
    let mut world = World::new(1);
    world.down.insert(2);
    world.want();
    let session = world.session();
    let challenge = Some(PuzzleChallenge { algorithm: 1, difficulty: 20, lifetime: 10, issuer: 7, nonce: 9 });
    let received = notice_from(1, session, flow(), NotifyCode::Overload);
    let Message::Notify(notify) = wire::decode(received.payload.clone(), session, NSLP_ID).unwrap() else { panic!("a notice") };
    let payload = wire::build_notify(&Notify { challenge, ..notify.message }).unwrap();
    let before = (world.states(), world.sent(SENDER, MessageKind::Query).len());
    world.tell(SENDER, gist::api::Indication::Received(ReceivedMessage { payload, ..received }));
    world.settle();
    assert_eq!(before, (world.states(), world.sent(SENDER, MessageKind::Query).len()));
    assert_eq!(world.sender.counters().not_acted_upon.get("FS-12"), Some(&1));

    assert!(world.saw(SENDER, |event| *event == ReportEvent::NotActedUpon));
}

#[test]
fn an_advice_to_change_the_path_is_passed_on_while_a_permission_is_waited_for() {
    // FN-11, FS-11: there is no other path.
    let mut world = World::new(1);
    world.stable = false;
    world.down.insert(2);
    world.want();
    world.run(LATENCY * 2);
    let session = world.session();
    let other_path = Permission { defense: Some(Defense::ChangePath), sa: None, ..permission(later(&world)) };
    world.tell(1, gist::api::Indication::Received(permission_from(2, session, &other_path, &forge::receiver())));
    world.run(LATENCY * 2);
    world.took(1, &["FN-11"]);
    world.took(SENDER, &["FS-11"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::NoOtherPath));
    assert_eq!(world.states(), ["Wait P", "Wait P", "Idle"]);
    assert!(world.permissions().iter().all(Vec::is_empty));
}

#[test]
fn a_router_that_joins_counts_from_what_the_sender_says_it_has_sent() {
    // SV of the same epoch; 0 in a new one.
    for (context_spi, counted) in [(SPI, 700), (SPI + 1, 0)] {
        let mut world = World::new(1);
        world.stable = false;
        let context = Some(VolumeContext { spi: context_spi, highest: 7, permission: 1 });
        let asked = Query { requested: None, sent: Some(Volume(700)), context, ..query(later(&world)) };
        world.tell(1, gist::api::Indication::Received(query_from(SENDER, OTHER, &asked, &forge::sender())));
        let received = permission_from(2, OTHER, &permission(later(&world)), &forge::receiver());
        world.tell(1, gist::api::Indication::Received(received));
        world.settle();
        assert_eq!(world.datapaths[1].table.values().next().unwrap().counted, counted);
    }
}
