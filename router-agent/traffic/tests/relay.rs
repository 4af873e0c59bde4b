//! What a relay sends on of what came under a permission of its own, and what it never does (X-99, P-189).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{Ipv4Packet, Ipv6Packet};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::icmp::{Kind, QuotingError};
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::relay::{NotSent, Outlet, Relay, RelayCounters, RelayDrop, RelayRules};
use traffic::tunnel::{Ends, IPV4_INSIDE, IPV6_INSIDE, pack};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const SPI: u32 = 0xabcd;
const NOW: Instant = Instant::from_micros_const(1_000_000);
const END: Instant = Instant::from_micros_const(100_000_000);
const PORT: u16 = 30_270;
const RATE: u32 = 1000;

/// Where the sender's own key stands for: any will do.
fn secret() -> IcvKey {
    key(MacAlgorithm::HmacSha256_128, 7)
}

fn relay_of(ipv4: bool) -> IpAddr {
    if ipv4 { "198.51.100.9".parse().unwrap() } else { "2001:db8::9".parse().unwrap() }
}

fn source_of(ipv4: bool) -> IpAddr {
    if ipv4 { V4_SOURCE.into() } else { V6_SOURCE.into() }
}

/// What left, and what a link carries.
#[derive(Debug, Default)]
struct Link {
    sent: Vec<(IpAddr, Vec<u8>)>,
    mtu: u32,
    refuse: Option<NotSent>,
}

struct Wire(Arc<Mutex<Link>>);

impl Outlet for Wire {
    fn send(&mut self, destination: IpAddr, packet: &[u8]) -> Result<(), NotSent> {
        let mut link = self.0.lock().unwrap();
        if let Some(refusal) = link.refuse {
            return Err(refusal);
        }
        if packet.len() > link.mtu as usize {
            return Err(NotSent::TooBig);
        }
        link.sent.push((destination, packet.to_vec()));
        Ok(())
    }

    fn carried(&mut self, _: IpAddr) -> Option<u32> {
        Some(self.0.lock().unwrap().mtu)
    }
}

struct Fixture {
    relay: Relay,
    counters: Arc<RelayCounters>,
    link: Arc<Mutex<Link>>,
    next: u32,
}

impl Fixture {
    /// A relay that has granted `allowed` bytes of packets in packets to the sender, of either IP version.
    fn new(allowed: u64) -> Self {
        Self::with(allowed, |_| ())
    }

    fn with(allowed: u64, change: impl FnOnce(&mut RelayRules)) -> Self {
        let verifier = Verifier::new(VerifierConfig::new(Role::Receiver), Arc::new(Strict), Arc::new(Counters::default())).unwrap();
        let mut rules = RelayRules {
            admit: vec!["192.168.20.0/24".parse().unwrap(), "fd20::/64".parse().unwrap()],
            forward_to: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            association_port: PORT,
            rate: RATE,
        };
        change(&mut rules);
        let (counters, link) = (Arc::new(RelayCounters::default()), Arc::new(Mutex::new(Link { mtu: 1500, ..Link::default() })));
        let mut relay = Relay::new(Box::new(verifier), rules, Box::new(Wire(link.clone())), counters.clone());
        for (ipv4, protocol) in [(true, IPV4_INSIDE), (false, IPV6_INSIDE)] {
            let flow = flow(source_of(ipv4), relay_of(ipv4), protocol, 0, 0);
            let grant = Grant { flow, spi: SPI, key: secret(), allowed, counted: 0, highest: 0, expires_at: END };
            relay.apply(Update::Install { token: 1, grant }, NOW).unwrap();
        }
        Self { relay, counters, link, next: 0 }
    }

    /// The inner packet as the sender's host packs it and puts AH on it.
    fn packed(&mut self, inner: &[u8]) -> Vec<u8> {
        let outer = outer(inner);
        self.next += 1;
        sealed(&outer, self.next)
    }

    fn process_at(&mut self, bytes: &[u8], now: Instant) -> Result<(), DropReason> {
        match self.relay.process(PacketId(1), bytes, now) {
            Verdict::Taken => Ok(()),
            Verdict::Drop(reason) => Err(reason),
            other => panic!("nothing of a tunnel goes on to the kernel: {other:?}"),
        }
    }

    /// What became of a packed packet: what left, or why nothing did.
    fn relayed(&mut self, inner: &[u8]) -> Result<Vec<u8>, RelayDrop> {
        let packed = self.packed(inner);
        self.judged(&packed)
    }

    fn judged(&mut self, packed: &[u8]) -> Result<Vec<u8>, RelayDrop> {
        let dropped = |counters: &RelayCounters| RelayDrop::ALL.iter().map(|reason| counters.dropped(*reason).packets).collect::<Vec<_>>();
        let (before, forwarded) = (dropped(&self.counters), self.counters.forwarded().packets);
        self.process_at(packed, NOW).unwrap();
        let after = dropped(&self.counters);
        match RelayDrop::ALL.iter().find(|reason| after[reason.index()] > before[reason.index()]) {
            Some(reason) => Err(*reason),
            None => {
                assert_eq!(self.counters.forwarded().packets, forwarded + 1);
                Ok(self.link.lock().unwrap().sent.pop().unwrap().1)
            }
        }
    }

    fn nothing_left(&self) -> bool {
        self.link.lock().unwrap().sent.is_empty()
    }
}

fn outer(inner: &[u8]) -> Vec<u8> {
    let ipv4 = inner[0] >> 4 == 4;
    let mut outer = Vec::new();
    pack(inner, &Ends { source: source_of(ipv4), destination: relay_of(ipv4) }, 64, &mut outer).unwrap();
    outer
}

fn sealed(bytes: &[u8], number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(bytes).unwrap(), SPI, Number { low: number, high: None }, &secret(), &mut out).unwrap();
    out
}

/// A datagram of the flow behind the relay, with the AH of that flow, which the relay has no key for.
fn inner(ipv4: bool, len: usize) -> Vec<u8> {
    sealed(&if ipv4 { udp_v4(len) } else { udp_v6(len) }, 77)
}

fn changed(mut packet: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut packet);
    if packet[0] >> 4 == 4 {
        fix_checksum(&mut packet);
    }
    packet
}

/// The packet as a router sends it on.
fn one_hop_further(packet: Vec<u8>) -> Vec<u8> {
    changed(packet, |packet| packet[if packet[0] >> 4 == 4 { 8 } else { 7 }] -= 1)
}

#[test]
fn what_is_inside_a_permitted_packet_goes_on_one_hop_further_and_nothing_else_of_it_changes() {
    let mut fixture = Fixture::new(10_000);
    for ipv4 in [true, false] {
        let inner = inner(ipv4, 100);
        assert_eq!(fixture.relayed(&inner), Ok(one_hop_further(inner)));
    }
    assert_eq!(fixture.counters.forwarded().packets, 2);
}

#[test]
fn signalling_of_the_sender_goes_on_and_nothing_else_without_ah() {
    let mut fixture = Fixture::new(10_000);
    let segment = |from: u16, to: u16| [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 16]].concat();
    // A Query in IPv6 has its router alert in front.
    let query_v6 = ipv6(0, &[&[17, 0, 5, 2, 0xff, 0xdf, 1, 0][..], &udp(270, 270, 40)].concat());
    for packet in [
        ipv4(&[148, 4, 0xff, 0xdf], 17, &udp(270, 270, 40)),
        query_v6,
        ipv6(17, &udp(4000, 270, 40)),
        ipv4(&[], 6, &segment(40_000, PORT)),
        ipv4(&[], 6, &segment(PORT, 40_000)),
    ] {
        assert_eq!(fixture.relayed(&packet), Ok(one_hop_further(packet)));
    }
    for packet in [
        udp_v4(100),
        udp_v6(100),
        ipv4(&[], 17, &udp(270, 9000, 40)),
        ipv4(&[], 6, &segment(40_000, 22)),
        ipv4(&[], 1, &[8, 0, 0, 0, 0, 0, 0, 0]),
        ipv4(&[], 17, &[1]),
        ipv4(&[], 253, &[0; 30]),
    ] {
        assert_eq!(fixture.relayed(&packet), Err(RelayDrop::NeitherAhNorSignalling));
    }
}

/// Whoever is admitted could else send in anybody's name.
#[test]
fn nobody_sends_in_another_name_than_the_one_that_its_permission_proves() {
    let mut fixture = Fixture::new(10_000);
    let other_v4 = changed(inner(true, 10), |packet| packet[12..16].copy_from_slice(&[192, 168, 20, 2]));
    let other_v6 = changed(inner(false, 10), |packet| packet[23] ^= 2);
    for spoofed in [other_v4, other_v6] {
        assert_eq!(fixture.relayed(&spoofed), Err(RelayDrop::SpoofedSource));
    }
    assert!(fixture.nothing_left());
}

#[test]
fn whoever_is_not_admitted_is_not_served_whatever_else_it_may_send_here() {
    let mut fixture = Fixture::with(10_000, |rules| rules.admit = vec!["192.168.20.2/32".parse().unwrap()]);
    assert_eq!(fixture.relayed(&inner(true, 10)), Err(RelayDrop::NotAdmitted));
}

#[test]
fn nothing_goes_through_two_tunnels() {
    let mut fixture = Fixture::new(10_000);
    for ipv4 in [true, false] {
        let nested = outer(&inner(ipv4, 10));
        let elsewhere = changed(nested, |packet| {
            let last = if ipv4 { 19 } else { 39 };
            packet[last] ^= 1;
        });
        for nested in [elsewhere.clone(), sealed(&elsewhere, 5)] {
            assert_eq!(fixture.relayed(&nested), Err(RelayDrop::NestedTunnel));
        }
    }
}

#[test]
fn nothing_goes_to_the_relay_itself_to_many_or_past_the_networks_that_it_serves() {
    let to_v4 = |address: [u8; 4]| changed(inner(true, 10), |packet| packet[16..20].copy_from_slice(&address));
    let to_v6 = |address: &str| {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        changed(inner(false, 10), |packet| packet[24..40].copy_from_slice(&address.octets()))
    };
    let mut fixture = Fixture::new(10_000);
    assert_eq!(fixture.relayed(&to_v4([198, 51, 100, 9])), Err(RelayDrop::ToRelay));
    assert_eq!(fixture.relayed(&to_v6("2001:db8::9")), Err(RelayDrop::ToRelay));
    for address in [[127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [0, 0, 0, 0], [0, 1, 2, 3], [169, 254, 1, 1], [240, 0, 0, 1]] {
        assert_eq!(fixture.relayed(&to_v4(address)), Err(RelayDrop::DestinationNotAllowed), "{address:?}");
    }
    for address in [
        "::1",
        "::",
        "ff02::1",
        "ff0e::1",
        "fe80::1",
        "::ffff:192.168.21.4",
        "::192.168.21.4",
        "64:ff9b::1",
        "64:ff9b:1::1",
        "2002:c0a8:1504::1",
        "2001::1",
    ] {
        assert_eq!(fixture.relayed(&to_v6(address)), Err(RelayDrop::DestinationNotAllowed), "{address}");
    }
    let mut fixture = Fixture::with(10_000, |rules| rules.forward_to = vec!["192.168.21.0/28".parse().unwrap()]);
    assert!(fixture.relayed(&inner(true, 10)).is_ok());
    assert_eq!(fixture.relayed(&to_v4([192, 168, 21, 16])), Err(RelayDrop::DestinationNotAllowed));
    assert_eq!(fixture.relayed(&inner(false, 10)), Err(RelayDrop::DestinationNotAllowed));
}

/// RFC 4301 §7.1: the parts that the sender's kernel makes of a datagram with AH that does not fit.
#[test]
fn parts_of_a_datagram_with_ah_go_on_one_hop_further_and_make_it_whole_again() {
    let mut fixture = Fixture::new(100_000);
    let whole = inner(true, 2000);
    let mut parts = Vec::new();
    for (place, part) in whole[20..].chunks(800).enumerate() {
        let more = u16::from(20 + (place + 1) * 800 < whole.len()) << 13;
        let mut packet = [&whole[..20], part].concat();
        let length = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[6..8].copy_from_slice(&(more | u16::try_from(place * 100).unwrap()).to_be_bytes());
        fix_checksum(&mut packet);
        let sent_on = fixture.relayed(&packet).unwrap();
        assert_eq!(sent_on, one_hop_further(packet));
        parts.extend_from_slice(&sent_on[20..]);
    }
    assert!(parts == whole[20..], "nothing of it is lost");

    let whole = inner(false, 2000);
    for (place, part) in whole[40..].chunks(1000).enumerate() {
        let (offset, more) = (u16::try_from(place * 1000).unwrap(), u16::from(40 + (place + 1) * 1000 < whole.len()));
        let header = [&[51, 0][..], &(offset | more).to_be_bytes(), &[1, 2, 3, 4]].concat();
        let packet = ipv6(44, &[&header[..], part].concat());
        assert_eq!(fixture.relayed(&packet), Ok(one_hop_further(packet)));
    }
    assert_eq!(fixture.counters.forwarded().packets, 6);
}

#[test]
fn parts_of_anything_else_and_routes_of_the_senders_choice_are_not_sent_on() {
    let mut fixture = Fixture::new(10_000);
    let first = changed(udp_v4(100), |packet| packet[6] = 0x20);
    let later = changed(udp_v4(100), |packet| packet[7] = 9);
    let part_v6 = |protocol: u8, field: u8, rest: &[u8]| ipv6(44, &[&[protocol, 0, 0, field, 1, 2, 3, 4][..], rest].concat());
    // A Query that comes in parts hides its ports; eight octets of AH do not tell what they protect.
    let query = part_v6(17, 1, &udp(270, 270, 40));
    let short = part_v6(51, 1, &[17, 5, 0, 0, 0, 0, 0, 1]);
    for fragment in [first, later, query, short] {
        assert_eq!(fixture.relayed(&fragment), Err(RelayDrop::FragmentInside));
    }
    let nested = changed(sealed(&outer(&inner(true, 10)), 5), |packet| {
        packet[6] = 0x20;
        packet[19] ^= 1;
    });
    assert_eq!(fixture.relayed(&nested), Err(RelayDrop::NestedTunnel), "the first part tells");
    // All of the datagram in one part (RFC 6946) is judged as a whole one.
    assert_eq!(fixture.relayed(&part_v6(17, 0, &udp(270, 9000, 10))), Err(RelayDrop::NeitherAhNorSignalling));
    assert!(fixture.nothing_left());
    let routed = ipv4(&[131, 7, 4, 192, 168, 21, 4, 1], 17, &udp(270, 270, 10));
    assert_eq!(fixture.relayed(&routed), Err(RelayDrop::SourceRouteInside));
}

#[test]
fn a_hop_limit_ends_here_and_congestion_is_told_or_the_packet_dropped() {
    let mut fixture = Fixture::new(100_000);
    for ipv4 in [true, false] {
        for limit in [0, 1] {
            let last = changed(inner(ipv4, 10), |packet| packet[if ipv4 { 8 } else { 7 }] = limit);
            assert_eq!(fixture.relayed(&last), Err(RelayDrop::HopLimit));
        }
        for capable in [false, true] {
            let ecn = u8::from(capable) * 2;
            let sent = changed(inner(ipv4, 10), |packet| if ipv4 { packet[1] = 0xb8 | ecn } else { packet[1] = ecn << 4 });
            fixture.next += 1;
            // ECN is no part of what AH protects: a router on the way may set it.
            let congested = changed(sealed(&outer(&sent), fixture.next), |packet| packet[1] |= if ipv4 { 3 } else { 0x30 });
            match fixture.judged(&congested) {
                Err(reason) => assert!(!capable && reason == RelayDrop::CongestedInside),
                Ok(told) if ipv4 => assert_eq!((capable, Ipv4Packet::new_checked(&told[..]).unwrap().ecn()), (true, 3)),
                Ok(told) => assert_eq!((capable, Ipv6Packet::new_checked(&told[..]).unwrap().traffic_class()), (true, 3)),
            }
        }
    }
}

/// The kernel gives such a packet an identification, and AH would not fit any more.
#[test]
fn an_identification_that_the_kernel_would_change_is_not_sent_on() {
    let mut fixture = Fixture::new(10_000);
    let without = |may_fragment: bool| {
        changed(inner(true, 10), |packet| {
            packet[4..6].fill(0);
            packet[6] = if may_fragment { 0 } else { 0x40 };
        })
    };
    assert_eq!(fixture.relayed(&without(true)), Err(RelayDrop::NoIdentification));
    assert_eq!(fixture.relayed(&without(false)), Ok(one_hop_further(without(false))));
    let signalling = changed(ipv4(&[], 17, &udp(4000, 270, 40)), |packet| packet[4..8].fill(0));
    assert!(fixture.relayed(&signalling).is_ok(), "without AH any will do");
}

#[test]
fn what_is_no_packet_inside_is_dropped_as_such() {
    let mut fixture = Fixture::new(10_000);
    for broken in [vec![], vec![0x45], vec![0; 40], udp_v6(10), udp_v4(10)[..30].to_vec()] {
        let outer = changed(outer(&udp_v4(0)), |_| ());
        let packed = [&outer[..20], &broken].concat();
        let packed = changed(packed, |packet| {
            let length = u16::try_from(packet.len()).unwrap();
            packet[2..4].copy_from_slice(&length.to_be_bytes());
        });
        fixture.next += 1;
        let sealed = sealed(&packed, fixture.next);
        assert_eq!(fixture.judged(&sealed), Err(RelayDrop::MalformedInside), "{broken:?}");
    }
}

#[test]
fn without_a_live_permission_of_the_relay_nothing_is_even_looked_into() {
    let mut fixture = Fixture::new(400);
    let bare = outer(&inner(true, 100));
    assert_eq!(fixture.process_at(&bare, NOW), Err(DropReason::MissingAh));
    let stranger = changed(bare.clone(), |packet| packet[15] ^= 3);
    assert_eq!(fixture.process_at(&stranger, NOW), Err(DropReason::NoPermission));
    let forged = changed(sealed(&bare, 1), |packet| packet[40] ^= 1);
    assert_eq!(fixture.process_at(&forged, NOW), Err(DropReason::BadIcv));
    let good = sealed(&bare, 1);
    assert_eq!(fixture.process_at(&good, NOW), Ok(()));
    assert_eq!(fixture.process_at(&good, NOW), Err(DropReason::Replayed));
    let fragment = changed(sealed(&bare, 2), |packet| packet[6] = 0x20);
    assert_eq!(fixture.process_at(&fragment, NOW), Err(DropReason::FragmentNotReassembled));
    // Both headers and AH count: 400 bytes are enough for one such packet, not for two.
    assert_eq!(fixture.process_at(&sealed(&bare, 3), NOW), Err(DropReason::OverBudget));
    assert_eq!(fixture.process_at(&sealed(&outer(&inner(false, 10)), 1), END), Err(DropReason::Expired));
    assert_eq!(fixture.counters.forwarded().packets, 1);
    assert!(RelayDrop::ALL.iter().all(|reason| fixture.counters.dropped(*reason).packets == 0), "that is the verifier's account");
}

/// What is not a packet in a packet is what it is on any host.
#[test]
fn other_flows_of_the_relay_reach_the_relay() {
    let mut fixture = Fixture::new(0);
    let grant = Grant { flow: flow_v4(), spi: SPI + 1, key: secret(), allowed: 1000, counted: 0, highest: 0, expires_at: END };
    fixture.relay.apply(Update::Install { token: 2, grant }, NOW).unwrap();
    let mut packet = Vec::new();
    let plain = udp_v4(100);
    ah::insert(&IpPacket::parse(&plain).unwrap(), SPI + 1, Number { low: 1, high: None }, &secret(), &mut packet).unwrap();
    assert_eq!(fixture.relay.process(PacketId(1), &packet, NOW), Verdict::Replace { payload: &plain, mark: None });
}

#[test]
fn a_sender_has_so_many_packets_a_second_and_takes_none_of_anothers() {
    let mut fixture = Fixture::new(1 << 30);
    let packed: Vec<Vec<u8>> = (0..2 * RATE).map(|_| fixture.packed(&inner(true, 0))).collect();
    let mut count = |packets: &[Vec<u8>], now| {
        let before = fixture.counters.forwarded().packets;
        packets.iter().for_each(|packet| fixture.process_at(packet, now).unwrap());
        fixture.counters.forwarded().packets - before
    };
    let (at_once, later) = packed.split_at(RATE as usize);
    assert_eq!(count(at_once, NOW), u64::from(RATE / 10));
    assert_eq!(count(later, NOW + Duration::from_millis(50)), u64::from(RATE / 20));
    assert!(fixture.counters.dropped(RelayDrop::RelayRate).packets > 0);
    assert!(fixture.relayed(&inner(false, 0)).is_ok(), "that of another address");
}

#[test]
fn what_is_too_long_for_its_link_is_never_dropped_in_silence() {
    for ipv4 in [true, false] {
        let mut fixture = Fixture::new(1 << 30);
        fixture.link.lock().unwrap().mtu = 1400;
        let long = inner(ipv4, 1360);
        let packed = fixture.packed(&long);
        // It stands on the link beside what did not fit.
        fixture.process_at(&packed, NOW).unwrap();
        assert_eq!(fixture.counters.dropped(RelayDrop::TooBig).packets, 1);
        let (to, answer) = fixture.link.lock().unwrap().sent.pop().unwrap();
        assert_eq!(to, source_of(ipv4));
        let packet = IpPacket::parse(&answer).unwrap();
        assert_eq!((packet.source(), packet.destination()), (relay_of(ipv4), source_of(ipv4)));
        assert!(answer.len() <= if ipv4 { 576 } else { 1280 });
        let error = QuotingError::read(&packet).unwrap();
        // What fits into 1400 octets behind the relay has so much around it before.
        let around = u32::try_from(packed.len() - long.len()).unwrap();
        assert_eq!(error.kind, Kind::TooBig(1400 + around));
        assert_eq!((error.quote.destination, error.quote.spi), (relay_of(ipv4), SPI), "the packet that the way to the relay knows");
        // Ten at once and no more: each is a packet that nobody has asked for.
        let burst: Vec<Vec<u8>> = (0..50).map(|_| fixture.packed(&long)).collect();
        burst.iter().for_each(|packet| fixture.process_at(packet, NOW).unwrap());
        assert_eq!((fixture.link.lock().unwrap().sent.len(), fixture.counters.told_too_big().packets), (9, 10));
    }
}

#[test]
fn what_the_kernel_does_not_take_is_counted_as_such() {
    let mut fixture = Fixture::new(100_000);
    for (refusal, reason) in [
        (NotSent::NoRoute, RelayDrop::NoRoute),
        (NotSent::Busy, RelayDrop::LinkBusy),
        (NotSent::Filtered, RelayDrop::Filtered),
        (NotSent::Failed, RelayDrop::NotSent),
    ] {
        fixture.link.lock().unwrap().refuse = Some(refusal);
        assert_eq!(fixture.relayed(&inner(true, 10)), Err(reason));
    }
}
