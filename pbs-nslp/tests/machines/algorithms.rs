//! Which authentication of packets a flow gets: the receiver's rule, within what the sender's signed Query says that it accepts
//! (P-134, X-33).

use std::sync::Arc;

use pbs_nslp::credentials::Signer;
use pbs_nslp::datapath::Protection;
use pbs_nslp::receiver::{GrantRule, Receiver};
use pbs_nslp::report::{Denial, ReportEvent};
use pbs_nslp::sender::AskRule;
use pbs_nslp::wire::{Defense, MessageKind, Query, SharedKey, SymmetricAlgorithm};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::forge::{self, query_from};
use crate::setting::{START_UNIX, receiver_address, receiver_config, router_config, seconds, sender_address, sender_config};
use crate::world::{SENDER, World, entropy};

const HMAC: u8 = 2;
const FROM_CERTIFICATE: u8 = 10;
const GMAC_128: u8 = 224;
const GMAC_256: u8 = 225;
const NUMBER: u32 = START_UNIX as u32;

/// A receiver whose rule wants signatures or not.
fn world_with_rule(signed: bool) -> World {
    world_where(|rule| rule.signed = signed)
}

fn world_where(change: impl FnOnce(&mut GrantRule)) -> World {
    let mut world = World::new(1);
    let mut config = receiver_config();
    change(&mut config.policy.rules[0]);
    let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(config, signer, Arc::new(ToyAuthority::default()), entropy(9), START_UNIX, world.now);
    world
}

fn sender_that_wants_signatures(world: &mut World) {
    let rules = sender_config().ask.into_iter().map(|rule| AskRule { signed: true, ..rule });
    world.sender.set_ask_rules(rules.collect());
}

/// What the packets of the only permission are protected by, at the receiver.
fn is_signed(world: &World) -> Option<bool> {
    let table = &world.datapaths[world.end()].table;
    table.values().next().map(|entry| matches!(entry.grant.protection, Protection::SignedBy(_)))
}

/// The code that authenticates the packets of the only permission, at the receiver; `None` if they are signed.
fn code(world: &World) -> Option<u8> {
    match &world.datapaths[world.end()].table.values().next()?.grant.protection {
        Protection::Shared { algorithm, key } => {
            assert_eq!(key.expose().len(), algorithm.key_length(), "X-16");
            Some(algorithm.number())
        }
        Protection::SignedBy(_) | Protection::Signing => None,
    }
}

/// What becomes of a Query with these codes.
fn asked_with(mut world: World, algorithms: Option<Vec<u8>>) -> World {
    world.stable = false;
    let session = gist::wire::SessionId([5; 16]);
    let query = Query { algorithms, ..forge::query(NUMBER) };
    let received = query_from(SENDER, session, &query, &forge::sender());
    world.tell(1, gist::api::Indication::Received(received));
    world.run(seconds(1));
    world
}

#[test]
fn a_query_says_which_algorithms_its_sender_accepts_and_the_first_that_both_can_do_is_taken() {
    // X-33, P-083.
    let world = World::granted(1);
    let query = world.sent(SENDER, MessageKind::Query)[0].query().unwrap();
    assert_eq!(query.algorithms, Some(vec![HMAC, GMAC_128, GMAC_256, FROM_CERTIFICATE]));
    assert_eq!((is_signed(&world), code(&world)), (Some(false), Some(HMAC)));
    let cases = [
        (None, false),
        (Some(vec![HMAC]), false),
        (Some(vec![1, 3, HMAC, FROM_CERTIFICATE]), false),
        (Some(vec![FROM_CERTIFICATE, HMAC]), true),
        (Some(vec![7, FROM_CERTIFICATE]), true),
        // What this receiver may not use goes before nothing.
        (Some(vec![1, FROM_CERTIFICATE, HMAC]), true),
    ];
    for (algorithms, signed) in cases {
        let world = asked_with(World::new(1), algorithms.clone());
        assert_eq!(is_signed(&world), Some(signed), "{algorithms:?}");
    }
}

#[test]
fn aes_gmac_is_taken_where_the_rule_prefers_it_and_the_sender_accepts_it_or_where_the_sender_puts_it_first() {
    // P-134, X-33: never a code that the Query does not name.
    let prefers = |algorithm| move |rule: &mut GrantRule| rule.mac = Some(algorithm);
    let all = || Some(vec![HMAC, GMAC_128, GMAC_256, FROM_CERTIFICATE]);
    let cases = [
        (SymmetricAlgorithm::Aes128Gmac, all(), Some(GMAC_128)),
        (SymmetricAlgorithm::Aes256Gmac, all(), Some(GMAC_256)),
        (SymmetricAlgorithm::Aes128Gmac, Some(vec![HMAC, FROM_CERTIFICATE]), Some(HMAC)),
        (SymmetricAlgorithm::Aes128Gmac, None, Some(HMAC)),
        (SymmetricAlgorithm::HmacSha256, Some(vec![GMAC_128, HMAC, FROM_CERTIFICATE]), Some(HMAC)),
        // Whom signatures suit best signs, whatever code the rule prefers.
        (SymmetricAlgorithm::HmacSha256, Some(vec![FROM_CERTIFICATE, GMAC_128, HMAC]), None),
        (SymmetricAlgorithm::Aes256Gmac, Some(vec![FROM_CERTIFICATE, GMAC_128, HMAC]), None),
        // No rule may have what is refused everywhere.
        (SymmetricAlgorithm::HmacMd5, Some(vec![3, GMAC_128]), Some(GMAC_128)),
        // Nor, without being told, what is on its way out.
        (SymmetricAlgorithm::HmacSha1, Some(vec![1, HMAC]), Some(HMAC)),
    ];
    for (preferred, algorithms, taken) in cases {
        let world = asked_with(world_where(prefers(preferred)), algorithms.clone());
        assert_eq!(code(&world), taken, "{preferred:?} of {algorithms:?}");
    }
    for (order, taken) in [(vec![GMAC_256, GMAC_128, HMAC], GMAC_256), (vec![GMAC_128, GMAC_128, GMAC_128, GMAC_128, HMAC], GMAC_128)] {
        assert_eq!(code(&asked_with(World::new(1), Some(order))), Some(taken));
    }
}

#[test]
fn packets_pass_under_aes_gmac_on_the_whole_path_and_a_new_key_has_the_same_code() {
    //
    let mut world = world_where(|rule| rule.mac = Some(SymmetricAlgorithm::Aes256Gmac));
    world.want();
    world.run(seconds(1));
    assert_eq!((world.sender_state().as_str(), code(&world), world.packet(100)), ("Permitted", Some(GMAC_256), Some(2)));
    for datapath in &world.datapaths {
        let protection = datapath.table.values().map(|entry| entry.grant.protection.name());
        assert!(protection.eq(["aes-256-gmac"]));
    }
    let flow = *world.datapaths[SENDER].table.keys().map(|(flow, _)| flow).next().unwrap();
    assert!(world.receiver.rekey(flow, pbs_nslp::receiver::Strength::Same, world.now));
    world.run(seconds(5));
    assert_eq!((code(&world), world.datapaths[SENDER].table.len(), world.packet(100)), (Some(GMAC_256), 1, Some(2)));
}

#[test]
fn hmac_sha_1_authenticates_packets_only_where_every_node_may_and_both_ends_name_it_for_the_flow() {
    // X-67, P-082: by configuration.
    let world = |named: bool, at_router: bool, at_receiver: bool| {
        let mut world = World::new(1);
        let mut config = sender_config();
        config.node.hmac_sha1 = true;
        config.ask[0].mac = named.then_some(SymmetricAlgorithm::HmacSha1);
        let signer: Arc<dyn Signer> = ToySigner::new(sender_address(), 1);
        let authority = || Arc::new(ToyAuthority::default());
        world.sender = pbs_nslp::sender::Sender::new(config, signer, authority(), entropy(8), START_UNIX, world.now);
        let mut config = receiver_config();
        config.node.hmac_sha1 = true;
        config.policy.rules[0].mac = at_receiver.then_some(SymmetricAlgorithm::HmacSha1);
        let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
        world.receiver = Receiver::new(config, signer, authority(), entropy(9), START_UNIX, world.now);
        let mut config = router_config();
        config.node.hmac_sha1 = at_router;
        world.routers[0] = pbs_nslp::router::Router::new(config, authority(), START_UNIX, world.now);
        world.stable = false;
        world.want();
        world.run(seconds(1));
        world
    };
    let all = world(true, true, true);
    assert_eq!(
        all.sent(SENDER, MessageKind::Query)[0].query().unwrap().algorithms,
        Some(vec![1, HMAC, GMAC_128, GMAC_256, FROM_CERTIFICATE])
    );
    assert_eq!((code(&all), all.sender_state().as_str()), (Some(1), "Permitted"));
    assert_eq!(code(&world(true, true, false)), Some(HMAC), "the receiver's rule does not name it");
    assert_eq!(code(&world(false, true, true)), Some(HMAC), "the sender's rule does not");
    let refused = world(true, false, true);
    assert!(refused.datapaths[SENDER].table.is_empty() && refused.datapaths[1].table.is_empty(), "a router refuses it (Notify 12)");
}

#[test]
fn a_sender_refuses_a_permission_for_a_code_that_its_packets_have_no_room_for() {
    // FS-07, X-33.
    let mut world = World::new(0);
    world.stable = false;
    let config = pbs_nslp::sender::SenderConfig { macs: vec![SymmetricAlgorithm::HmacSha256], ..sender_config() };
    let signer: Arc<dyn Signer> = ToySigner::new(sender_address(), 1);
    world.sender = pbs_nslp::sender::Sender::new(config, signer, Arc::new(ToyAuthority::default()), entropy(8), START_UNIX, world.now);
    world.want();
    let query = world.sent(SENDER, MessageKind::Query)[0].query().unwrap();
    assert_eq!(query.algorithms, Some(vec![HMAC, FROM_CERTIFICATE]));
    let key = SharedKey::new(SymmetricAlgorithm::Aes128Gmac, vec![7; 20]).unwrap();
    let defense = Some(Defense::SymmetricKey { algorithm: SymmetricAlgorithm::Aes128Gmac, key });
    let wide = pbs_nslp::wire::Permission { echo: Some(query.number), defense, ..forge::permission(NUMBER) };
    let received = forge::permission_from(1, world.session(), &wide, &forge::receiver());
    world.tell(SENDER, gist::api::Indication::Received(received));
    world.settle();
    world.took(SENDER, &["FS-07"]);
    assert!(world.datapaths[SENDER].table.is_empty());
}

#[test]
fn a_rule_that_wants_signatures_has_the_first_packet_signed_already() {
    // P-134, X-83: no router learns a key that others could use.
    let mut world = world_with_rule(true);
    world.want();
    world.run(seconds(1));
    assert_eq!((world.sender_state().as_str(), is_signed(&world)), ("Permitted", Some(true)));
    let permission = world.sent(2, MessageKind::Permission)[0].permission().unwrap();
    assert!(matches!(permission.defense, Some(Defense::PublicKey { .. })));
    assert_eq!(world.packet(100), Some(2));
}

#[test]
fn a_rule_that_wants_signatures_declines_who_does_not_accept_them_and_both_ends_learn_why() {
    let world = asked_with(world_with_rule(true), Some(vec![HMAC]));
    assert_eq!((is_signed(&world), world.receiver_state().as_str()), (None, "Idle"));
    let why = |event: &ReportEvent| matches!(event, ReportEvent::Denied { why: Denial::Algorithms, .. });
    assert!(world.saw(2, why), "{}", world.story());
    let notices = world.sent(2, MessageKind::Notify);
    assert_eq!(notices.len(), 1, "Notify 12");
}

#[test]
fn nothing_in_common_is_no_permission() {
    let world = asked_with(World::new(1), Some(vec![1, 3, 7]));
    assert_eq!((is_signed(&world), world.receiver_state().as_str()), (None, "Idle"));
}

#[test]
fn a_sender_that_wants_signatures_gets_them_though_the_receivers_rule_does_not_ask_for_them() {
    let mut world = World::new(1);
    sender_that_wants_signatures(&mut world);
    world.want();
    world.run(seconds(1));
    let query = world.sent(SENDER, MessageKind::Query)[0].query().unwrap();
    assert_eq!(query.algorithms, Some(vec![FROM_CERTIFICATE]));
    assert_eq!((world.sender_state().as_str(), is_signed(&world)), ("Permitted", Some(true)));
}

#[test]
fn a_sender_that_wants_signatures_refuses_a_permission_for_less_and_gives_it_back() {
    // FS-07, X-67: a receiver that does not know the object, or does not mind it.
    let mut world = World::new(0);
    world.stable = false;
    sender_that_wants_signatures(&mut world);
    world.want();
    let number = world.sent(SENDER, MessageKind::Query)[0].query().unwrap().number;
    let less = pbs_nslp::wire::Permission { echo: Some(number), ..forge::permission(NUMBER) };
    let received = forge::permission_from(1, world.session(), &less, &forge::receiver());
    world.tell(SENDER, gist::api::Indication::Received(received));
    world.settle();
    world.took(SENDER, &["FS-07"]);
    assert!(world.datapaths[SENDER].table.is_empty());
}

#[test]
fn nobody_on_the_path_can_take_the_object_out_or_put_a_weaker_one_in_its_place() {
    // the sender's signature covers it, so that a weaker choice cannot be forced from outside.
    let mut world = World::new(2);
    sender_that_wants_signatures(&mut world);
    let at_first_hop = |transit: &crate::world::Transit| transit.from == 1 && transit.kind() == MessageKind::Query;
    world.loses = Box::new(at_first_hop);
    world.want();
    world.run(seconds(1));
    world.loses = Box::new(|_| false);
    world.stable = false;
    let genuine = world.sent(1, MessageKind::Query)[0].clone();
    let octets = genuine.received.payload.to_vec();
    let object = [0x8e, 0x80, 0, 1, FROM_CERTIFICATE, 0, 0, 0];
    let at = octets.windows(object.len()).position(|window| window == object).unwrap();
    let mut without = octets.clone();
    without.drain(at..at + object.len());
    let mut weaker = octets.clone();
    weaker[at + 4] = HMAC;
    for changed in [without, weaker] {
        let mut transit = genuine.clone();
        transit.received.payload = changed.into();
        world.deliver(transit);
        world.run(seconds(1));
        assert_eq!(world.router_state(2), "Idle");
        assert_eq!(world.receiver_state(), "Idle");
    }
    world.deliver(genuine);
    world.run(seconds(1));
    assert_eq!(is_signed(&world), Some(true), "the genuine one does");
}
