//! An association that went away and comes back, or that this node meets in mid-flow: nothing passes twice (X-71, X-74, INV-07).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::MacAlgorithm;
use traffic::checks::Strict;
use traffic::flow::Flow;
use traffic::inserter::{Inserter, InserterConfig};
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::update::{Applied, Grant, Refused, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const SPI: u32 = 0xabcd;
const NOW: Instant = Instant::from_micros_const(1_000_000);
const END: Instant = Instant::from_micros_const(100_000_000);

fn grant(flow: Flow, spi: u32, key_octet: u8) -> Grant {
    let key = key(MacAlgorithm::HmacSha256_128, key_octet);
    Grant { flow, spi, key, allowed: 100_000, counted: 0, highest: 0, expires_at: END }
}

fn sealed(bytes: &[u8], spi: u32, key_octet: u8, number: u32) -> Vec<u8> {
    let (mut out, number) = (Vec::new(), Number { low: number, high: None });
    ah::insert(&IpPacket::parse(bytes).unwrap(), spi, number, &key(MacAlgorithm::HmacSha256_128, key_octet), &mut out).unwrap();
    out
}

struct Node(Verifier);

impl Node {
    fn new(role: Role) -> Self {
        Self(Verifier::new(VerifierConfig::new(role), Arc::new(Strict), Arc::default()).unwrap())
    }

    fn install(&mut self, grant: Grant) -> Result<Applied, Refused> {
        self.0.apply(Update::Install { token: 1, grant }, NOW)
    }

    fn remove(&mut self) -> Applied {
        self.0.apply(Update::Remove { token: 2, flow: flow_v4(), spi: SPI }, NOW).unwrap()
    }

    fn judge(&mut self, bytes: &[u8], now: Instant) -> Result<(), DropReason> {
        match self.0.process(PacketId(1), bytes, now) {
            Verdict::Accept | Verdict::Replace { .. } => Ok(()),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Hold | Verdict::Taken => panic!("a verifier holds nothing"),
        }
    }

    /// A packet of 156 octets under this number.
    fn packet(&mut self, number: u32) -> Result<(), DropReason> {
        self.judge(&sealed(&udp_v4(100), SPI, 7, number), NOW)
    }
}

#[test]
fn a_router_that_joins_in_mid_flow_lets_no_capture_pass_and_everything_that_is_sent_from_then_on() {
    // N of the Query is 1000. What was captured before the router knew the flow has numbers up to N.
    for role in [Role::Router, Role::Receiver] {
        let mut node = Node::new(role);
        node.install(Grant { counted: 500, highest: 1000, ..grant(flow_v4(), SPI, 7) }).unwrap();
        for captured in [1, 2, 500, 977, 999, 1000] {
            assert_eq!(node.packet(captured), Err(DropReason::Replayed), "{captured}");
        }
        // Out of order too, and from far ahead.
        for sent in [1003, 1001, 1002, 3000] {
            assert_eq!(node.packet(sent), Ok(()), "{sent}");
            assert_eq!(node.packet(sent), Err(DropReason::Replayed), "{sent} again");
        }
        assert_eq!(node.packet(1000), Err(DropReason::Replayed));
        assert_eq!(node.0.poll_event(), None, "a number from before is no second key holder (X-42)");
    }
}

#[test]
fn a_refresh_neither_moves_the_window_nor_drops_what_is_under_way() {
    // The N of a refresh is beyond what has arrived so far; what is under way has numbers up to it.
    let mut node = Node::new(Role::Router);
    node.install(grant(flow_v4(), SPI, 7)).unwrap();
    for number in [1, 2, 5] {
        node.packet(number).unwrap();
    }
    let again = node.install(Grant { counted: 9000, highest: 400, ..grant(flow_v4(), SPI, 7) }).unwrap();
    assert_eq!((again.counted, again.highest), (3 * 156, 5));
    for under_way in [3, 4, 6, 399, 400] {
        assert_eq!(node.packet(under_way), Ok(()), "{under_way}");
    }
    // Nor does an older N let anything through again.
    node.install(Grant { highest: 3, ..grant(flow_v4(), SPI, 7) }).unwrap();
    for seen in [1, 2, 3, 4, 5, 6, 399, 400] {
        assert_eq!(node.packet(seen), Err(DropReason::Replayed), "{seen}");
    }
}

#[test]
fn an_association_that_was_removed_goes_on_where_it_ended() {
    for role in [Role::Router, Role::Receiver] {
        let mut node = Node::new(role);
        node.install(grant(flow_v4(), SPI, 7)).unwrap();
        for number in 1..=10 {
            node.packet(number).unwrap();
        }
        assert_eq!(node.remove(), Applied::new(2, 1560, 10));
        // With the N of a Query from before the last packets, or of a peer that names none.
        for highest in [0, 4] {
            let back = node.install(Grant { highest, counted: 100, ..grant(flow_v4(), SPI, 7) }).unwrap();
            assert_eq!((back.counted, back.highest), (1560, 10), "the volume does not begin anew either");
            for captured in 1..=10 {
                assert_eq!(node.packet(captured), Err(DropReason::Replayed), "{captured}");
            }
            node.remove();
        }
        node.install(grant(flow_v4(), SPI, 7)).unwrap();
        assert_eq!(node.packet(11), Ok(()));
    }
}

#[test]
fn an_association_that_expired_or_had_to_make_room_goes_on_where_it_ended_too() {
    let mut node = Node::new(Role::Router);
    node.install(grant(flow_v4(), SPI, 7)).unwrap();
    node.packet(3).unwrap();
    let gone = node.0.poll_timeout().unwrap();
    node.0.handle_timeout(gone);
    assert!(node.0.table().is_empty());
    assert_eq!(node.install(grant(flow_v4(), SPI, 7)).unwrap().highest, 3);

    node.0.apply(Update::Drain { token: 3, flow: flow_v4(), spi: SPI, until: END }, NOW).unwrap();
    for next in 1..=2 {
        node.install(grant(flow_v4(), SPI + next, 7)).unwrap();
    }
    assert_eq!(node.packet(4), Err(DropReason::UnknownSpi), "the third epoch ended the draining one");
    let drain = Update::Drain { token: 3, flow: flow_v4(), spi: SPI + 1, until: END };
    node.0.apply(drain, NOW).unwrap();
    assert_eq!(node.install(grant(flow_v4(), SPI, 7)).unwrap().highest, 3);
}

#[test]
fn another_key_under_the_spi_of_a_removed_association_begins_at_the_beginning() {
    let mut node = Node::new(Role::Router);
    node.install(grant(flow_v4(), SPI, 7)).unwrap();
    node.packet(9).unwrap();
    node.remove();
    let other = node.install(grant(flow_v4(), SPI, 8)).unwrap();
    assert_eq!((other.counted, other.highest), (0, 0));
    assert_eq!(node.packet(9), Err(DropReason::BadIcv));
    assert_eq!(node.judge(&sealed(&udp_v4(100), SPI, 8, 1), NOW), Ok(()));
    // And does not make the first one be forgotten.
    node.remove();
    assert_eq!(node.install(grant(flow_v4(), SPI, 7)).unwrap().highest, 9);
}

#[test]
fn an_install_that_is_refused_forgets_nothing() {
    let config = VerifierConfig { capacity: 1, ..VerifierConfig::new(Role::Router) };
    let mut node = Node(Verifier::new(config, Arc::new(Strict), Arc::default()).unwrap());
    node.install(grant(flow_v4(), SPI, 7)).unwrap();
    node.packet(9).unwrap();
    node.remove();
    node.install(grant(flow_v6(), SPI, 7)).unwrap();
    assert!(node.install(grant(flow_v4(), SPI, 7)).is_err(), "the table is full");
    node.0.apply(Update::Remove { token: 2, flow: flow_v6(), spi: SPI }, NOW).unwrap();
    assert_eq!(node.install(grant(flow_v4(), SPI, 7)).unwrap().highest, 9);
}

/// Something that signalling, time, the sender or an attacker does to a router.
#[derive(Debug, Clone)]
enum Deed {
    /// SPI, key, N.
    Install(u32, u8, u32),
    Remove(u32),
    Drain(u32),
    /// Seconds.
    Wait(u64),
    /// SPI, key, number. The numbers are few, so that most packets are copies of earlier ones.
    Packet(u32, u8, u32),
}

fn deed() -> impl Strategy<Value = Deed> {
    let (spi, key) = (SPI..SPI + 3, 7u8..9);
    prop_oneof![
        3 => (spi.clone(), key.clone(), prop_oneof![Just(0u32), 0u32..60]).prop_map(|(spi, key, highest)| Deed::Install(spi, key, highest)),
        2 => spi.clone().prop_map(Deed::Remove),
        1 => spi.clone().prop_map(Deed::Drain),
        1 => (0u64..30).prop_map(Deed::Wait),
        8 => (spi, key, 1u32..60).prop_map(|(spi, key, number)| Deed::Packet(spi, key, number)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_at_a_router_no_packet_passes_twice_and_no_volume_begins_anew(
        deeds in proptest::collection::vec(deed(), 1..200),
        allowed in 156u64..8000,
    ) {
        let mut node = Node::new(Role::Router);
        let (mut now, flow) = (NOW, flow_v4());
        let (mut passed, mut volume) = (HashSet::new(), HashMap::new());
        for deed in deeds {
            match deed {
                Deed::Install(spi, key, highest) => {
                    let expires_at = now + Duration::from_secs(20);
                    let grant = Grant { highest, allowed, expires_at, ..grant(flow, spi, key) };
                    let _ = node.0.apply(Update::Install { token: 1, grant }, now);
                }
                Deed::Remove(spi) => {
                    let _ = node.0.apply(Update::Remove { token: 1, flow, spi }, now);
                }
                Deed::Drain(spi) => {
                    let until = now + Duration::from_secs(2);
                    let _ = node.0.apply(Update::Drain { token: 1, flow, spi, until }, now);
                }
                Deed::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    node.0.handle_timeout(now);
                }
                Deed::Packet(spi, key, number) => {
                    if node.judge(&sealed(&udp_v4(100), spi, key, number), now).is_ok() {
                        prop_assert!(passed.insert((spi, key, number)), "number {} under SPI {:#x} twice", number, spi);
                        let volume = volume.entry((spi, key)).or_insert(0);
                        *volume += 156;
                        prop_assert!(*volume <= allowed, "SPI {:#x}: {} of {} octets", spi, volume, allowed);
                    }
                }
            }
        }
    }

    #[test]
    fn whatever_signalling_does_a_sender_uses_no_number_twice_under_a_key(
        deeds in proptest::collection::vec(deed(), 1..200),
    ) {
        // INV-07.
        let mut sender = Inserter::new(InserterConfig::default(), Arc::new(Strict), Arc::default());
        let (mut now, flow, mut used, mut under) = (NOW, flow_v4(), HashSet::new(), None);
        for deed in deeds {
            match deed {
                Deed::Install(spi, key, _) => {
                    let grant = Grant { expires_at: now + Duration::from_secs(20), ..grant(flow, spi, key) };
                    if sender.apply(Update::Install { token: 1, grant }, now).is_ok() {
                        under = Some(key);
                    }
                }
                Deed::Remove(spi) | Deed::Drain(spi) => {
                    let _ = sender.apply(Update::Remove { token: 1, flow, spi }, now);
                }
                Deed::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    sender.handle_timeout(now);
                }
                Deed::Packet(..) => {
                    if let Verdict::Replace { payload, .. } = sender.process(PacketId(1), &udp_v4(100), now) {
                        let packet = IpPacket::parse(payload).unwrap();
                        let ah = packet.ah().unwrap();
                        prop_assert!(used.insert((under, ah.spi(), ah.sequence())), "number {} twice", ah.sequence());
                    }
                }
            }
        }
    }
}
