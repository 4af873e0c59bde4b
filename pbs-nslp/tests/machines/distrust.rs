//! A signer whose certificate is revoked while something stands that it has signed: that ends when the list is read, not with the
//! next refresh that fails.

use pbs_nslp::credentials::CertificateError;
use pbs_nslp::receiver::Reactions;
use pbs_nslp::report::ReportEvent;

use crate::grace::{counting, grace};
use crate::paths::{ask_for_another_path, cut, with_ways};
use crate::policy::asking;
use crate::world::{LATENCY, Place, SENDER, Transit, World, flow, receiver_address, seconds, sender_address};

/// Keys of the world's ends, and one of somebody else.
const SENDERS: u8 = 1;
const RECEIVERS: u8 = 2;
const ANOTHERS: u8 = 3;

/// These keys are believed no more, as one node hears.
fn revoke(world: &mut World, keys: &[u8], at: Place) {
    *world.authority.revoked.lock().unwrap() = keys.iter().copied().collect();
    if at == SENDER {
        world.sender.reconsider_certificates(world.now);
    } else if at == world.end() {
        world.receiver.reconsider_certificates(world.now);
    } else {
        world.routers[at - 1].reconsider_certificates(world.now);
    }
    world.settle();
}

/// It says whom it believes no more, and why.
fn says_so(world: &World, at: Place, signer: std::net::IpAddr) {
    let event = ReportEvent::Distrusted { signer, error: CertificateError::Revoked };
    assert!(world.saw(at, |seen| *seen == event), "{}", world.story());
}

#[test]
fn a_router_ends_what_either_end_has_signed_when_it_is_believed_no_more() {
    // FN-73, X-66, P-073.
    for (key, signer) in [(SENDERS, sender_address()), (RECEIVERS, receiver_address())] {
        let mut world = World::granted(2);
        world.stable = false;
        assert_eq!(world.packet(100), Some(3));
        revoke(&mut world, &[ANOTHERS], 1);
        assert_eq!((world.router_state(1).as_str(), world.packet(100)), ("Permitted", Some(3)), "another's revocation");
        revoke(&mut world, &[ANOTHERS, key], 1);
        assert_eq!((world.router_state(1).as_str(), world.packet(100)), ("Idle", Some(SENDER)), "{}", world.story());
        assert!(world.datapaths[1].table.is_empty());
        world.took(1, &["FN-73"]);
        says_so(&world, 1, signer);
        let counted = &world.routers[0].counters().distrusted;
        assert_eq!(counted.iter().collect::<Vec<_>>(), [(&"certificate revoked".to_owned(), &1)]);
        // What it signs now is refused there, and what it signed before was buried: nothing comes of either.
        world.run(seconds(30));
        assert_ne!(world.router_state(1), "Permitted");
        assert!(world.datapaths[1].table.is_empty());
    }
}

#[test]
fn a_router_waits_no_more_for_the_answer_to_one_who_is_believed_no_more() {
    // FN-73 in WaitP.
    let mut world = World::new(1);
    world.stable = false;
    world.loses = Box::new(|transit: &Transit| transit.from == 1 && transit.to == 2);
    world.want();
    world.run(LATENCY * 2);
    assert_eq!(world.router_state(1), "Wait P");
    revoke(&mut world, &[ANOTHERS], 1);
    assert_eq!(world.router_state(1), "Wait P");
    revoke(&mut world, &[SENDERS], 1);
    assert_eq!(world.router_state(1), "Idle");
    world.took(1, &["FN-73"]);
    says_so(&world, 1, sender_address());
}

#[test]
fn a_receiver_takes_back_what_it_granted_one_who_is_believed_no_more() {
    // FR-73 in Permitted: its denial ends the permission where no list is read (FN-26, FS-27).
    let mut world = World::granted(2);
    revoke(&mut world, &[RECEIVERS, ANOTHERS], 3);
    assert_eq!(world.receiver_state(), "Permitted", "its own certificate is its operator's affair");
    revoke(&mut world, &[SENDERS], 3);
    assert_eq!(world.receiver_state(), "Idle");
    assert!(world.datapaths[3].table.is_empty());
    world.took(3, &["FR-73"]);
    says_so(&world, 3, sender_address());
    world.run(LATENCY * 4);
    assert!(world.permissions().iter().all(Vec::is_empty), "{}", world.story());
    world.took(1, &["FN-26"]);
    world.took(SENDER, &["FS-27"]);
    assert_eq!(world.receiver.counters().distrusted.values().sum::<u64>(), 1);
}

#[test]
fn whatever_a_receiver_does_with_a_flow_ends_when_its_sender_is_believed_no_more() {
    // FR-73 in Decision, CompareSv and Grace.
    let settings = [(asking(), "Decision"), (counting(Reactions::default()), "Compare Sv"), (grace(), "Grace")];
    for (mut world, state) in settings {
        assert_eq!(world.receiver_state(), state);
        world.stable = false;
        revoke(&mut world, &[SENDERS], 2);
        assert_eq!(world.receiver_state(), "Idle", "from {state}");
        world.took(2, &["FR-73"]);
        says_so(&world, 2, sender_address());
        world.datapaths[2].resume();
        world.run(seconds(1));
        assert_eq!((world.receiver_state().as_str(), world.datapaths[2].table.len()), ("Idle", 0), "from {state}: {}", world.story());
        // It says so, whatever it was about to do: the sender neither waits nor sends any longer.
        assert_eq!(world.sender_state(), "Idle", "from {state}: {}", world.story());
        world.took(SENDER, &[if state == "Decision" { "FS-06" } else { "FS-27" }]);
    }
}

#[test]
fn a_sender_uses_no_permission_of_a_receiver_that_is_believed_no_more() {
    // FS-72 in Permitted: the flow is held down, and asks anew when that is over and the receiver is believed again.
    let mut world = World::granted(1);
    world.stable = false;
    revoke(&mut world, &[SENDERS, ANOTHERS], SENDER);
    assert_eq!(world.sender_state(), "Permitted");
    revoke(&mut world, &[RECEIVERS], SENDER);
    assert_eq!(world.sender_state(), "Idle");
    assert!(world.datapaths[SENDER].table.is_empty());
    assert_eq!(world.packet(100), None);
    world.took(SENDER, &["FS-72"]);
    says_so(&world, SENDER, receiver_address());
    let why = world.sender.sessions().first().and_then(|session| session.why.clone()).unwrap_or_default();
    assert!(why.contains("is believed no more: certificate revoked"), "{why}");
    assert!(world.sender.want(flow(), pbs_nslp::wire::Volume(1000), world.now).is_ok());
    world.took(SENDER, &["FS-02"]);
    revoke(&mut world, &[], SENDER);
    world.run(seconds(61));
    world.want();
    world.run(seconds(1));
    assert_eq!(world.sender_state(), "Permitted", "{}", world.story());
}

#[test]
fn what_stands_from_the_path_before_ends_with_the_belief_in_the_receiver_and_the_question_stays_open() {
    // FS-72 in WaitP; once, however often lists are read.
    let mut world = with_ways(World::granted(1), &[1]);
    world.stable = false;
    cut(&mut world, &[1]);
    ask_for_another_path(&mut world);
    assert_eq!((world.sender_state().as_str(), world.datapaths[SENDER].table.len()), ("Wait P", 1));
    revoke(&mut world, &[RECEIVERS], SENDER);
    revoke(&mut world, &[RECEIVERS], SENDER);
    assert_eq!((world.sender_state().as_str(), world.datapaths[SENDER].table.len()), ("Wait P", 0));
    world.took(SENDER, &["FS-72"]);
    assert_eq!(world.sender.counters().distrusted.values().sum::<u64>(), 1);
}
