//! Asking for a permission and getting it, or not.

use gist::api::SendError;
use pbs_nslp::datapath::Command;
use pbs_nslp::report::{ReportEvent, Setback};
use pbs_nslp::sender::WantError;
use pbs_nslp::wire::{MessageKind, NotifyCode, Volume};

use crate::world::{LATENCY, SENDER, Transit, VOLUME, World, entropy, flow, flow_to, receiver_address, seconds};

#[test]
fn a_query_goes_down_the_path_and_the_permission_comes_back_up() {
    // P-005: the world takes no message that is not to be reliable and secure.
    // P-004, P-110, P-112, P-124, P-135, P-137.
    // Draft Fig. 2, P-097: S -> N -> N -> D and back, each node permitting the same volume.
    let world = World::granted(2);
    let hops: Vec<_> = world.recorded.iter().map(|transit| (transit.kind(), transit.from, transit.to)).collect();
    let (query, permission) = (MessageKind::Query, MessageKind::Permission);
    let down = [(query, 0, 1), (query, 1, 2), (query, 2, 3)];
    let up = [(permission, 3, 2), (permission, 2, 1), (permission, 1, 0)];
    assert_eq!(hops, [down, up].concat());
    assert_eq!(world.states(), ["Permitted"; 4]);
    for table in world.permissions() {
        assert_eq!(table.len(), 1);
        assert_eq!(table[0].2, VOLUME);
    }
    world.took(SENDER, &["FS-01", "FS-05"]);
    world.took(1, &["FN-60", "FN-01", "FN-05"]);
    world.took(3, &["FR-01", "FR-05"]);
}

#[test]
fn routers_pass_messages_on_verbatim_and_with_the_hop_count_they_got() {
    // P-092, X-115.
    let world = World::granted(2);
    let (down, up) = world.recorded.split_at(3);
    for hops in [down, up] {
        assert!(hops.windows(2).all(|pair| pair[0].received.payload == pair[1].received.payload));
        let counts: Vec<u8> = hops.iter().map(|transit| transit.received.hop_count).collect();
        assert_eq!(counts, [63, 62, 61]);
    }
}

#[test]
fn the_permission_answers_the_query_it_names() {
    // P-105, X-54.
    let world = World::granted(1);
    let query = world.recorded[0].query().unwrap();
    let permission = world.sent(2, MessageKind::Permission)[0].permission().unwrap();
    assert_eq!(permission.echo, Some(query.number));
    assert_eq!(u64::from(query.number), crate::world::START_UNIX, "P-050: the first number is the clock");
    assert_eq!((query.requested, query.sent, query.context), (Some(Volume(VOLUME)), None, None));
}

#[test]
fn the_first_packet_of_a_flow_asks_and_nothing_passes_before_the_grant() {
    // P-110.
    // FS-01, FS-15, P-096, X-113.
    let mut world = World::new(1);
    assert_eq!(world.packet(100), None);
    assert_eq!(world.sender_state(), "Wait P");
    assert_eq!(world.packet(100), None);
    world.run(seconds(1));
    assert_eq!(world.packet(100), Some(2));
    assert!(world.datapaths[SENDER].held.is_empty());
}

#[test]
fn a_flow_without_a_rule_is_not_asked_about() {
    // FS-04.
    let mut world = World::new(1);
    world.sender.set_ask_rules(Vec::new());
    assert_eq!(world.packet(100), None);
    world.took(SENDER, &["FS-04"]);
    assert!(world.recorded.is_empty() && world.datapaths[SENDER].held.is_empty());
}

#[test]
fn wishes_that_cannot_be_taken_up_say_why() {
    let mut world = World::new(1);
    let now = world.now;
    assert_eq!(world.sender.want(flow().reversed(), Volume(1), now), Err(WantError::ForeignSource));
    assert_eq!(world.sender.want(flow(), Volume::ZERO, now), Err(WantError::NoVolume));
}

#[test]
fn a_router_does_not_pass_the_permission_on_before_its_packet_side_has_it() {
    // INV-11, P-144.
    let mut world = World::new(2);
    world.datapaths[1].stalled = true;
    world.want();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Wait P", "Permitted", "Permitted", "Permitted"]);
    assert_eq!(world.sent(1, MessageKind::Permission).len(), 0);
    world.datapaths[1].resume();
    world.run(seconds(1));
    assert_eq!(world.sender_state(), "Permitted");
    assert!(world.saw(1, |event| matches!(event, ReportEvent::Installed { .. })));
}

#[test]
fn a_receiver_does_not_send_the_permission_before_its_packet_side_has_it() {
    // INV-11, P-126.
    let mut world = World::new(1);
    world.datapaths[2].stalled = true;
    world.want();
    world.run(seconds(1));
    assert_eq!(world.sent(2, MessageKind::Permission).len(), 0);
    world.datapaths[2].resume();
    world.run(seconds(1));
    assert_eq!(world.sender_state(), "Permitted");
}

#[test]
fn a_router_that_cannot_install_does_not_pass_the_permission_on_and_says_so() {
    // FN-70: the sender is told and asks again; then there is room.
    let mut world = World::new(2);
    world.datapaths[1].full = true;
    world.want();
    world.run(seconds(1));
    world.took(1, &["FN-70"]);
    assert_eq!(world.states(), ["Wait P", "Idle", "Permitted", "Permitted"]);
    assert!(world.saw(SENDER, |event| matches!(event, ReportEvent::Notified { code: NotifyCode::Overload, .. })));
    world.datapaths[1].full = false;
    world.run(seconds(5));
    assert_eq!(world.states(), ["Permitted"; 4]);
}

#[test]
fn a_receiver_that_cannot_install_denies() {
    // FR-70.
    let mut world = World::new(1);
    world.datapaths[2].full = true;
    world.want();
    world.run(seconds(1));
    world.took(2, &["FR-70"]);
    world.took(1, &["FN-07"]);
    world.took(SENDER, &["FS-06"]);
    assert!(world.permissions().iter().all(Vec::is_empty));
}

#[test]
fn a_sender_that_cannot_install_sends_nothing() {
    // FS-70.
    let mut world = World::new(1);
    world.datapaths[SENDER].full = true;
    world.want();
    world.run(seconds(1));
    world.took(SENDER, &["FS-70"]);
    assert_eq!(world.packet(100), None);
}

#[test]
fn a_denial_holds_the_flow_down_for_longer_each_time() {
    // P-111, P-125, P-136.
    // FR-06, FN-07, FS-06, FS-02, FS-71, X-49, TMP-15.
    let mut world = World::new(1);
    let denied = flow_to(1);
    let ask = |world: &mut World| world.sender.want(denied, Volume(100), world.now).unwrap();
    let mut holds = Vec::new();
    for _ in 0..4 {
        ask(&mut world);
        world.run(LATENCY * 4);
        let queries = world.sent(SENDER, MessageKind::Query).len();
        ask(&mut world);
        world.settle();
        assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries, "no Query while held down");
        let Some(ReportEvent::HeldDown { remaining }) = world.events(SENDER).pop().cloned() else {
            panic!("FS-02 reports the remaining time");
        };
        holds.push(remaining.as_millis());
        world.run(remaining);
    }
    assert!(holds.windows(2).all(|pair| pair[1] > pair[0] * 19 / 10), "{holds:?}");
    world.took(2, &["FR-06"]);
    world.took(1, &["FN-07"]);
    world.took(SENDER, &["FS-06", "FS-02", "FS-71"]);
}

#[test]
fn nobody_answers_and_the_flow_is_given_up_after_two_tries() {
    // P-121, P-143.
    // FS-08, FS-10, P-113, TMP-03; FN-09 at the router behind the loss.
    let mut world = World::new(1);
    world.loses = Box::new(|transit: &Transit| transit.to == 2);
    world.want();
    world.run(seconds(4));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 1);
    world.run(seconds(2));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 2, "T.O. 5 s");
    world.run(seconds(8));
    assert_eq!(world.sender_state(), "Wait P", "the second T.O. is 10 s");
    world.run(seconds(2));
    world.took(SENDER, &["FS-08", "FS-10"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::Unreachable { cause: None }), "nothing was heard");
    world.took(1, &["FN-08"]);
    world.run(seconds(30));
    world.took(1, &["FN-09"]);
    assert!(world.is_clean());
}

#[test]
fn a_message_lost_at_any_hop_is_made_good_by_the_next_query() {
    // FS-08, FN-08, FN-21, FN-22, FR-11, FR-30: first Query or first Permission lost between each pair of nodes.
    for hop in 0..3 {
        for kind in [MessageKind::Query, MessageKind::Permission] {
            let mut world = World::new(2);
            let mut lost = false;
            world.loses = Box::new(move |transit: &Transit| {
                let loses = !lost && transit.kind() == kind && transit.from.min(transit.to) == hop;
                lost |= loses;
                loses
            });
            world.want();
            world.run(seconds(6));
            assert_eq!(world.states(), ["Permitted"; 4], "{kind:?} lost at {hop}");
            assert_eq!(world.packet(100), Some(3));
            assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 2);
            assert_eq!(world.rules(3).contains("FR-30"), kind == MessageKind::Permission, "nothing to compare yet");
        }
    }
}

#[test]
fn packets_held_while_waiting_stay_held_and_those_held_at_the_grant_go() {
    // FS-15, FS-20: the packet side's word may cross the grant.
    let mut world = World::new(1);
    world.want();
    let event = pbs_nslp::datapath::Event::FirstPacket { flow: flow() };
    world.sender.handle_datapath(event.clone(), world.now);
    world.run(seconds(1));
    world.datapaths[SENDER].held.insert(flow());
    world.sender.handle_datapath(event, world.now);
    world.settle();
    world.took(SENDER, &["FS-15", "FS-20"]);
    assert!(world.datapaths[SENDER].held.is_empty());
}

#[test]
fn gist_saying_that_a_query_did_not_go_saves_waiting_for_the_timer() {
    // FS-14.
    let mut world = World::new(1);
    world.down.insert(1);
    world.want();
    world.undelivered(SendError::AssociationFailed("refused".to_owned()));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 2);
    world.undelivered(SendError::NoResponse);
    world.took(SENDER, &["FS-14"]);
    assert_eq!(world.sender_state(), "Idle");
    let cause = Some(Setback::Undelivered(SendError::NoResponse));
    assert!(world.saw(SENDER, |event| *event == ReportEvent::Unreachable { cause: cause.clone() }), "the last cause");
}

#[test]
fn a_router_says_truly_why_a_query_does_not_go_on() {
    // FS-13, FS-10: 14/2 where nobody can be asked, 13 only where the channel to somebody fails.
    let failed = || SendError::AssociationFailed("refused".to_owned());
    let cases = [
        (SendError::NoResponse, NotifyCode::NoState, 2),
        (SendError::NoEncapsulation, NotifyCode::NoState, 2),
        (SendError::SelfDestination, NotifyCode::NoState, 2),
        (SendError::TimedOut, NotifyCode::NoState, 2),
        (failed(), NotifyCode::NoSecureChannel, 0),
        (SendError::NotAuthorised, NotifyCode::NoSecureChannel, 0),
        (SendError::QueueFull, NotifyCode::Overload, 0),
    ];
    for (error, code, detail) in cases {
        let mut world = World::new(1);
        world.down.insert(2);
        world.want();
        world.run(LATENCY * 2);
        let mri = flow().to_mri(gist::wire::Direction::Downstream);
        let handle = gist::api::MessageHandle(1);
        let session = world.session();
        let status = gist::api::Indication::MessageStatus { handle, nslp_id: crate::world::NSLP_ID, session, mri, error };
        world.tell(1, status);
        world.run(LATENCY * 2);
        world.took(SENDER, &["FS-13"]);
        let told = |event: &ReportEvent| matches!(event, ReportEvent::Notified { code: c, detail: d, .. } if (*c, *d) == (code, detail));
        assert!(world.saw(SENDER, told), "{code:?}/{detail}\n{}", world.trace.join("\n"));
        assert_eq!(world.sender_state(), "Wait P", "P-206: a notice changes no state");
        world.run(seconds(16));
        let reporter = [203, 0, 113, 1].into();
        let cause = Some(Setback::Notified { code, detail, reporter });
        assert!(world.saw(SENDER, |event| *event == ReportEvent::Unreachable { cause: cause.clone() }), "the last cause");
    }
}

#[test]
fn only_the_host_that_owns_the_destination_answers() {
    //
    let mut config = crate::world::receiver_config();
    config.addresses = vec![[198, 51, 100, 99].into()];
    let signer = crate::credentials::ToySigner::new(receiver_address(), 2);
    let mut world = World::new(1);
    let authority = world.authority.clone();
    world.receiver = pbs_nslp::receiver::Receiver::new(config, signer, authority, entropy(9), crate::world::START_UNIX, world.now);
    world.want();
    world.run(seconds(1));
    world.took(2, &["FR-00"]);
    assert!(world.saw(SENDER, |event| matches!(event, ReportEvent::Notified { code: NotifyCode::NoState, .. })));
}

#[test]
fn the_grant_carries_key_and_spi_to_every_node_and_a_command_names_its_flow() {
    let world = World::granted(1);
    let entries: Vec<_> = world.datapaths.iter().map(|datapath| datapath.table.values().next().unwrap().grant.clone()).collect();
    assert!(entries.windows(2).all(|pair| pair[0].protection == pair[1].protection && pair[0].spi == pair[1].spi));
    let grant = entries[0].clone();
    let command = Command::Install { token: pbs_nslp::datapath::Token(1), grant };
    assert_eq!(command.flow(), flow());
}
