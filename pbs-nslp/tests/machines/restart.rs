//! Restarts at the worst moment: within the second of one's last Query, and of somebody else's.

use core::time::Duration;

use gist::api::NetworkEvent;
use pbs_nslp::datapath::Event;
use pbs_nslp::receiver::Receiver;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::sender::Sender;
use pbs_nslp::wire::{MessageKind, NotifyCode, Volume};

use crate::credentials::ToySigner;
use crate::datapath::Datapath;
use crate::forge::notice_from;
use crate::world::{
    LATENCY, SENDER, VOLUME, World, entropy, flow, receiver_address, receiver_config, seconds, sender_address, sender_config,
};

const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn a_repair_within_a_second_of_the_last_query_is_put_off_and_not_left_out_fs_34() {
    let mut world = World::granted(2);
    let queries = world.sent(SENDER, MessageKind::Query).len();
    world.network(1, NetworkEvent::AssociationLost);
    world.run(MOMENT);
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 1);
    // Something is lost again: the Query under way may have been lost with it.
    world.network(1, NetworkEvent::AssociationLost);
    world.network(1, NetworkEvent::AssociationLost);
    world.run(MOMENT);
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 1, "not within a second");
    world.run(seconds(1));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 2, "but then");
    world.run(MOMENT * 4);
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 2, "and once: the first hop is not lost");
}

#[test]
fn an_answer_makes_a_repair_that_was_put_off_needless() {
    let mut world = World::granted(1);
    world.network(1, NetworkEvent::AssociationLost);
    world.run(LATENCY);
    let session = world.session();
    let notice = notice_from(1, session, flow(), NotifyCode::RouteChanged);
    world.tell(SENDER, gist::api::Indication::Received(notice));
    let queries = world.sent(SENDER, MessageKind::Query).len();
    world.run(seconds(2));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries);
}

#[test]
fn a_receiver_killed_within_a_second_of_a_query_is_found_again_when_that_second_is_over() {
    // TMP-13, X-96, X-100. A daemon begins with a second of its own, so that its numbers are higher than those before.
    let mut world = World::granted(1);
    world.run(seconds(2));
    world.disturb();
    world.sender.want(flow(), Volume(VOLUME), world.now).unwrap();
    world.run(MOMENT);
    world.down.insert(2);
    world.network(1, NetworkEvent::AssociationLost);
    world.run(seconds(1) - MOMENT);
    let signer = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(receiver_config(), signer, world.authority.clone(), entropy(99), world.unix(), world.now);
    world.datapaths[2] = Datapath::default();
    world.down.clear();
    let spi = world.permissions()[SENDER][0].1;
    world.run(MOMENT);
    assert_ne!(world.permissions()[SENDER][0].1, spi, "a new epoch");
    assert_eq!(world.packet(100), Some(2));
}

#[test]
fn a_receiver_whose_answer_is_refused_as_old_is_asked_again_a_second_later() {
    // The same with a receiver that uses the second in which it was killed.
    let mut world = World::granted(1);
    world.disturb();
    world.sender.want(flow(), Volume(VOLUME), world.now).unwrap();
    world.run(MOMENT);
    let signer = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(receiver_config(), signer, world.authority.clone(), entropy(99), world.unix(), world.now);
    world.datapaths[2] = Datapath::default();
    world.network(1, NetworkEvent::AssociationLost);
    let spi = world.permissions()[SENDER][0].1;
    world.run(seconds(2));
    assert_ne!(world.permissions()[SENDER][0].1, spi, "a new epoch");
    assert_eq!(world.packet(100), Some(2));
}

#[test]
fn a_sender_restarted_in_the_second_of_its_last_query_is_granted_a_second_later() {
    // its number is not higher than that of its last one, and a router says so.
    let mut world = World::granted(2);
    world.sender.want(flow(), Volume(VOLUME), world.now).unwrap();
    world.run(MOMENT);
    world.disturb();
    let signer = ToySigner::new(sender_address(), 1);
    world.sender = Sender::new(sender_config(), signer, world.authority.clone(), entropy(77), world.unix(), world.now);
    world.datapaths[SENDER] = Datapath { is_sender: true, ..Datapath::default() };
    world.want();
    world.run(MOMENT);
    assert!(world.saw(SENDER, |event| matches!(event, ReportEvent::Notified { code: NotifyCode::Stale, .. })));
    assert_eq!(world.sender_state(), "Wait P", "a notice changes no state (X-28)");
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 4]);
    assert_eq!(world.packet(100), Some(3));
}

#[test]
fn a_notice_that_a_number_was_too_old_counts_as_no_try_and_gains_a_liar_one_query_a_second() {
    let mut world = World::new(1);
    world.down.insert(1);
    world.want();
    let session = world.session();
    let queries = |world: &World| world.sent(SENDER, MessageKind::Query).len();
    let lie = |world: &mut World| {
        for _ in 0..100 {
            world.tell(SENDER, gist::api::Indication::Received(notice_from(1, session, flow(), NotifyCode::Stale)));
        }
        world.settle();
    };
    lie(&mut world);
    world.run(MOMENT);
    lie(&mut world);
    assert_eq!(queries(&world), 1);
    world.run(seconds(1) - MOMENT);
    assert_eq!(queries(&world), 2);
    lie(&mut world);
    world.run(seconds(1));
    assert_eq!(queries(&world), 3);
    world.run(seconds(2));
    assert_eq!(queries(&world), 3, "one for each second with a notice");
    // Two tries of 5 s and 10 s all the same.
    world.run(seconds(10));
    assert_eq!(world.sender_state(), "Wait P");
    world.run(seconds(1));
    assert_eq!(world.sender_state(), "Idle");
    // Nobody's answer is awaited: a notice is a report and nothing else.
    let mut world = World::granted(1);
    lie_to(&mut world);
    let sent = world.sent(SENDER, MessageKind::Query).len();
    world.run(seconds(2));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), sent);
}

fn lie_to(world: &mut World) {
    let session = world.session();
    world.tell(SENDER, gist::api::Indication::Received(notice_from(1, session, flow(), NotifyCode::Stale)));
    world.settle();
}

#[test]
fn data_that_waits_at_the_very_end_of_a_permission_asks_for_the_next_one_fs_28() {
    // The packet side sees the end a moment before the timer fires here.
    let mut world = World::granted(1);
    let end = world.sender.sessions()[0].permission.as_ref().unwrap().expires_at.unwrap();
    world.run(end.saturating_duration_since(world.now) - Duration::from_millis(1));
    world.now = end;
    world.sender.handle_datapath(Event::FirstPacket { flow: flow() }, world.now);
    world.run(seconds(1));
    world.took(SENDER, &["FS-28"]);
    assert_eq!(world.sender_state(), "Permitted");
}
