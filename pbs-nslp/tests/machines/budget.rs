//! What a flow may have in all, whatever sessions and epochs it is spread over.

use gist::api::Indication;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::sender::Sender;
use pbs_nslp::wire::{MessageKind, Query, Volume, VolumeContext};

use crate::credentials::ToySigner;
use crate::datapath::Datapath;
use crate::forge::{self, query_from};
use crate::world::{LIMIT, SENDER, TTL, VOLUME, World, entropy, flow, seconds, sender_address, sender_config, terms};

/// Puts another sender in the place of the first, which has forgotten everything but its key.
fn restart_sender(world: &mut World, seed: u8) {
    world.disturb();
    let signer = ToySigner::new(sender_address(), 1);
    world.sender = Sender::new(sender_config(), signer, world.authority.clone(), entropy(seed), world.unix(), world.now);
    world.datapaths[SENDER] = Datapath { is_sender: true, ..Datapath::default() };
}

/// Sends until nothing more passes, and gives how much came through to the receiver.
fn use_up(world: &mut World) -> u64 {
    let mut passed = 0;
    for _ in 0..200 {
        match world.packet(1000) {
            Some(place) if place == world.end() => passed += 1000,
            Some(_) => {}
            None => world.run(seconds(1)),
        }
    }
    passed
}

/// What the receiver has allowed in the epoch that is live.
fn allowed(world: &World) -> Option<Volume> {
    let sessions = world.receiver.sessions();
    sessions.iter().find_map(|session| session.permission.as_ref()).map(|permission| permission.allowed)
}

fn spent(world: &World) -> bool {
    world.saw(world.end(), |event| *event == ReportEvent::BudgetSpent)
}

#[test]
fn a_flow_gets_its_limit_once_however_often_its_sender_restarts() {
    // each restart leaves half of the rest to the epoch before, until that is gone.
    let mut world = World::granted(1);
    let mut passed = 0;
    for seed in 50..62 {
        for _ in 0..9 {
            if world.packet(1000) == Some(2) {
                passed += 1000;
            }
        }
        world.run(seconds(3));
        restart_sender(&mut world, seed);
        world.sender.want(flow(), Volume(VOLUME), world.now).unwrap();
        world.settle();
        world.run(seconds(2));
    }
    assert!(passed <= LIMIT, "{passed}");
    assert!(passed + 3000 > LIMIT, "what is left is given: {passed}");
}

#[test]
fn a_restarted_sender_gets_what_is_left() {
    // of an epoch that may still count all there is, half of what it has not counted; when it is gone, the rest.
    let mut world = World::new(1);
    let only = pbs_nslp::receiver::Terms { limit: Volume(VOLUME), ..terms() };
    let rule = pbs_nslp::receiver::GrantRule { selector: pbs_nslp::selector::Selector::default(), terms: only, signed: false, mac: None };
    world.receiver.set_policy(pbs_nslp::receiver::GrantPolicy { rules: vec![rule], ask: false });
    world.want();
    world.run(seconds(1));
    for _ in 0..4 {
        world.packet(1000);
    }
    world.run(seconds(3));
    restart_sender(&mut world, 50);
    world.want();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 3]);
    assert_eq!(allowed(&world), Some(Volume(5000)), "none of the 4000 had been told of");
    // What began late is told under the rule it began by.
    let granted = world.reports.iter().filter(|(at, report)| *at == 2 && matches!(report.event, ReportEvent::Granted { .. }));
    assert_eq!(granted.map(|(_, report)| report.rule).collect::<Vec<_>>(), ["FR-05"; 2]);
    assert_eq!(world.datapaths[2].table.len(), 2, "FR-50: the old epoch drains, so that packets under way are not lost");
    world.run(seconds(3));
    assert_eq!(world.datapaths[2].table.len(), 1);
    assert_eq!(use_up(&mut world), 6000);
}

#[test]
fn a_restarted_sender_waits_for_no_more_than_packets_in_flight_may_need() {
    // of 40 MB, the limit, 10 are used.
    const MB: u64 = 1_000_000;
    const IN_FLIGHT: u64 = 256 * 1024;
    let mut world = World::new(1);
    let only = pbs_nslp::receiver::Terms { volume: Volume(40 * MB), limit: Volume(40 * MB), ..terms() };
    let rule = pbs_nslp::receiver::GrantRule { selector: pbs_nslp::selector::Selector::default(), terms: only, signed: false, mac: None };
    world.receiver.set_policy(pbs_nslp::receiver::GrantPolicy { rules: vec![rule], ask: false });
    let want = |world: &mut World| {
        let now = world.now;
        world.sender.want(flow(), Volume(40 * MB), now).unwrap();
        world.settle();
        world.run(seconds(1));
    };
    want(&mut world);
    for _ in 0..200 {
        assert_eq!(world.packet(50_000), Some(2));
    }
    // A refresh has told of them; of what no refresh has told the old epoch keeps nothing.
    world.run(seconds(6));
    restart_sender(&mut world, 50);
    want(&mut world);
    assert_eq!(world.states(), ["Permitted"; 3]);
    assert_eq!(allowed(&world), Some(Volume(30 * MB - IN_FLIGHT)));
    // When it needs them the old epoch is gone.
    world.run(seconds(3));
    let mut passed = 0;
    for _ in 0..620 {
        match world.packet(50_000) {
            Some(2) => passed += 50_000,
            Some(_) => {}
            None => world.run(seconds(1)),
        }
    }
    assert_eq!(passed, 30 * MB);
}

#[test]
fn a_session_ends_for_a_newer_one_if_it_has_nothing_left_to_divide() {
    // FR-72, FR-71: and then the newer one has nothing either.
    let mut world = World::new(1);
    let only = pbs_nslp::receiver::Terms { limit: Volume(VOLUME), ..terms() };
    let rule = pbs_nslp::receiver::GrantRule { selector: pbs_nslp::selector::Selector::default(), terms: only, signed: false, mac: None };
    world.receiver.set_policy(pbs_nslp::receiver::GrantPolicy { rules: vec![rule], ask: false });
    world.want();
    world.run(seconds(1));
    for _ in 0..10 {
        world.packet(1000);
    }
    world.run(seconds(5));
    restart_sender(&mut world, 50);
    world.want();
    world.run(seconds(1));
    world.took(2, &["FR-72", "FR-71"]);
    world.took(1, &["FN-26"]);
    assert!(world.datapaths[2].table.is_empty());
}

#[test]
fn a_sender_that_names_unknown_epochs_gets_no_volume_for_it() {
    // FR-13, X-100.
    let mut world = World::granted(1);
    world.stable = false;
    let session = world.session();
    let mut total = 0;
    for attempt in 0..10 {
        world.run(seconds(1));
        let live: Vec<_> = world.datapaths[2].table.iter().filter(|(_, entry)| !entry.draining).map(|((_, spi), _)| *spi).collect();
        for spi in live {
            for number in 0..9 {
                total += if world.datapaths[2].verify(flow(), spi, 1000 + number, 1000, world.now) { 1000 } else { 0 };
            }
        }
        let number = u32::try_from(world.unix()).unwrap() + 20 + attempt;
        let context = Some(VolumeContext { spi: 0x7000 + attempt, highest: 1, permission: 1 });
        let lie = Query { sent: Some(Volume(0)), context, ..forge::query(number) };
        let lie = Query { requested: Some(Volume(VOLUME)), ..lie };
        world.tell(2, Indication::Received(query_from(1, session, &lie, &forge::sender())));
        world.settle();
    }
    world.took(2, &["FR-13", "FR-71"]);
    assert!(total <= LIMIT, "{total}");
    assert!(world.datapaths[2].table.is_empty());
}

#[test]
fn what_is_extended_counts_too() {
    // an extension goes as far as former epochs leave it.
    let mut world = World::granted(1);
    let first = use_up(&mut world);
    assert_eq!(first, LIMIT);
    let denied = world.receiver.counters().rules.get("FR-71").copied();
    assert!(denied.is_some(), "asked again and was denied: {:?}", world.receiver.counters().rules);
    assert_eq!(allowed(&world), None);
}

#[test]
fn the_volume_comes_back_when_the_time_limit_has_passed() {
    let mut world = World::granted(1);
    assert_eq!(use_up(&mut world), LIMIT);
    assert!(spent(&world));
    world.run(TTL);
    world.want();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 3]);
    assert_eq!(allowed(&world), Some(Volume(VOLUME)));
}

#[test]
fn another_flow_has_a_volume_of_its_own() {
    let mut world = World::granted(1);
    assert_eq!(use_up(&mut world), LIMIT);
    world.sender.want(crate::world::flow_to(9001), Volume(VOLUME), world.now).unwrap();
    world.run(seconds(1));
    assert_eq!(allowed(&world), Some(Volume(VOLUME)));
}

#[test]
fn a_release_leaves_what_was_not_used() {
    let mut world = World::granted(1);
    for _ in 0..5 {
        world.packet(1000);
    }
    world.sender.release(flow(), world.now);
    world.run(seconds(2));
    world.want();
    world.run(seconds(1));
    assert_eq!(use_up(&mut world), LIMIT - 5000);
}

#[test]
fn a_new_epoch_waits_until_the_packet_side_tells_what_the_old_one_counted() {
    // X-56, P-144; a refresh meanwhile is answered with the first Permission.
    let mut world = World::new(1);
    let only = pbs_nslp::receiver::Terms { limit: Volume(VOLUME), ..terms() };
    let rule = pbs_nslp::receiver::GrantRule { selector: pbs_nslp::selector::Selector::default(), terms: only, signed: false, mac: None };
    world.receiver.set_policy(pbs_nslp::receiver::GrantPolicy { rules: vec![rule], ask: false });
    world.want();
    world.run(seconds(1));
    for _ in 0..3 {
        world.packet(1000);
    }
    world.run(seconds(2));
    restart_sender(&mut world, 50);
    let before = world.sent(2, MessageKind::Permission).len();
    world.datapaths[2].stalled = true;
    world.want();
    world.run(seconds(6));
    assert_eq!(world.receiver_state(), "Compare Sv", "the second Query came");
    assert_eq!(world.sent(2, MessageKind::Permission).len(), before);
    world.datapaths[2].resume();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 3]);
    assert_eq!(allowed(&world), Some(Volume(5000)), "the rest with an extension, when the old one is gone");
    assert_eq!(use_up(&mut world), 7000);
}

#[test]
fn a_flow_whose_use_cannot_be_remembered_is_refused() {
    let mut world = World::new(0);
    let config = pbs_nslp::receiver::ReceiverConfig { budgets: 0, ..crate::world::receiver_config() };
    let signer = ToySigner::new(crate::world::receiver_address(), 2);
    world.receiver = pbs_nslp::receiver::Receiver::new(config, signer, world.authority.clone(), entropy(9), world.unix(), world.now);
    world.want();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Wait P", "Idle"]);
    let overload = pbs_nslp::wire::NotifyCode::Overload;
    assert!(world.saw(SENDER, |event| matches!(event, ReportEvent::Notified { code, .. } if *code == overload)));
}
