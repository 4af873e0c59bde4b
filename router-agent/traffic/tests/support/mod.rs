//! Packets for tests, written octet by octet with the RFCs at hand and without the code under test.
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use smoltcp::time::Duration;
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::flow::Flow;

/// A packet without AH.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    /// For each octet before `ah_at`: the bits that may change on the way (RFC 4302 §3.3.3.1, appendix A).
    pub(crate) mutable: Vec<u8>,
    /// For each octet before `ah_at`: the bits about which no test says anything.
    pub(crate) unclear: Vec<u8>,
    /// Where AH belongs.
    pub(crate) ah_at: usize,
    pub(crate) flow: Flow,
}

pub(crate) const V4_SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 20, 1);
pub(crate) const V4_DESTINATION: Ipv4Addr = Ipv4Addr::new(192, 168, 21, 4);
pub(crate) const V6_SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const V6_DESTINATION: Ipv6Addr = Ipv6Addr::new(0xfd21, 0, 0, 0, 0, 0, 0, 4);

pub(crate) fn key(algorithm: MacAlgorithm, octet: u8) -> IcvKey {
    IcvKey::new(algorithm, &vec![octet; algorithm.key_len()]).unwrap()
}

/// A UDP datagram of `len` octets of data, header included in neither.
pub(crate) fn udp(source_port: u16, destination_port: u16, len: usize) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend_from_slice(&source_port.to_be_bytes());
    udp.extend_from_slice(&destination_port.to_be_bytes());
    udp.extend_from_slice(&u16::try_from(8 + len).unwrap().to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend((0..len).map(|at| at as u8));
    udp
}

/// An IPv4 packet; `options` must be a multiple of 4 octets long.
pub(crate) fn ipv4(options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap();
    let mut packet = vec![0x45 + (options.len() / 4) as u8, 0];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&V4_SOURCE.octets());
    packet.extend_from_slice(&V4_DESTINATION.octets());
    packet.extend_from_slice(options);
    fix_checksum(&mut packet);
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet: `first` is the first Next Header, `rest` everything behind the base header.
pub(crate) fn ipv6(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
    packet.extend_from_slice(&[first, 64]);
    packet.extend_from_slice(&V6_SOURCE.octets());
    packet.extend_from_slice(&V6_DESTINATION.octets());
    packet.extend_from_slice(rest);
    packet
}

/// Sets the IPv4 header checksum.
pub(crate) fn fix_checksum(header: &mut [u8]) {
    let len = 4 * usize::from(header[0] & 0xf);
    header[10..12].fill(0);
    let checksum = !sum(&header[..len]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// One's complement sum (RFC 1071).
pub(crate) fn sum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn flow(source: IpAddr, destination: IpAddr, protocol: u8, source_port: u16, destination_port: u16) -> Flow {
    Flow { source, destination, protocol, source_port, destination_port }
}

/// The flow of [`udp_v4`].
pub(crate) fn flow_v4() -> Flow {
    flow(V4_SOURCE.into(), V4_DESTINATION.into(), 17, 4000, 9000)
}

/// The flow of [`udp_v6`].
pub(crate) fn flow_v6() -> Flow {
    flow(V6_SOURCE.into(), V6_DESTINATION.into(), 17, 4000, 9000)
}

/// A plain UDP packet of [`flow_v4`] with `len` octets of data.
pub(crate) fn udp_v4(len: usize) -> Vec<u8> {
    ipv4(&[], 17, &udp(4000, 9000, len))
}

/// A plain UDP packet of [`flow_v6`] with `len` octets of data.
pub(crate) fn udp_v6(len: usize) -> Vec<u8> {
    ipv6(17, &udp(4000, 9000, len))
}

/// Any packet that AH can be put on and that no source route or routing header redirects.
pub(crate) fn any_packet() -> impl Strategy<Value = Built> {
    prop_oneof![any_ipv4(), any_ipv6()]
}

/// What is cut into pieces, each with how long after the first it comes.
pub(crate) fn rounds<'a, T>(whole: &'a [T], cuts: &[prop::sample::Index]) -> Vec<(Duration, &'a [T])> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
    cuts.sort_unstable();
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let pieces = starts.zip(cuts.iter().copied().chain([whole.len()]));
    (0..).zip(pieces).map(|(round, (from, to))| (Duration::from_millis(3 * round), &whole[from..to])).collect()
}

fn any_upper() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let data = proptest::collection::vec(any::<u8>(), 8..300);
    (prop_oneof![Just(17u8), Just(6), Just(1), Just(58), Just(50), Just(4), Just(132), Just(253)], data)
}

/// An IPv4 option with the mask of what may change in it and of what no test says anything about.
fn any_ipv4_option() -> impl Strategy<Value = (Vec<u8>, u8, u8)> {
    let data = proptest::collection::vec(any::<u8>(), 0..6);
    let immutable = (prop_oneof![Just(130u8), Just(133), Just(134), Just(148), Just(149)], data.clone());
    let mutable = (prop_oneof![Just(7u8), Just(68), Just(82), Just(136), Just(11), Just(145), Just(94)], data);
    let with_length = |kind: u8, data: &[u8]| [&[kind, data.len() as u8 + 2], data].concat();
    prop_oneof![
        Just((vec![1u8], 0, 0)),
        immutable.prop_map(move |(kind, data)| (with_length(kind, &data), 0, 0)),
        mutable.prop_map(move |(kind, data)| (with_length(kind, &data), 0xff, 0)),
    ]
}

fn any_ipv4() -> impl Strategy<Value = Built> {
    let options = proptest::collection::vec(any_ipv4_option(), 0..6);
    (options, any_upper(), any::<u16>(), any::<u8>()).prop_map(|(parts, (protocol, payload), id, tos)| {
        let (mut options, mut mutable, mut unclear) = (Vec::new(), Vec::new(), Vec::new());
        for (octets, may_change, _) in parts {
            if options.len() + octets.len() > 40 {
                continue;
            }
            for at in 0..octets.len() {
                // An option that is zeroed whole has its type and length zeroed too; but with another length the
                // options behind it are others.
                let head = may_change != 0 && at < 2;
                mutable.push(if head { 0 } else { may_change });
                unclear.push(if head { 0xff } else { 0 });
            }
            options.extend(octets);
        }
        while options.len() % 4 != 0 {
            options.push(0);
            mutable.push(0);
            unclear.push(0);
        }
        let mut bytes = ipv4(&options, protocol, &payload);
        bytes[1] = tos;
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        fix_checksum(&mut bytes);
        let mut base = [0u8; 20];
        let mut base_unclear = [0u8; 20];
        base[1] = 0xff; // DSCP, ECN
        base[6] = 0xc0; // reserved flag, DF
        base_unclear[6] = 0x3f; // MF, offset: makes it a fragment
        base_unclear[7] = 0xff;
        base[8] = 0xff; // TTL
        base[10] = 0xff; // checksum
        base[11] = 0xff;
        let ports = ports(protocol, &payload);
        Built {
            ah_at: 20 + options.len(),
            bytes,
            mutable: [&base[..], &mutable].concat(),
            unclear: [&base_unclear[..], &unclear].concat(),
            flow: flow(V4_SOURCE.into(), V4_DESTINATION.into(), protocol, ports.0, ports.1),
        }
    })
}

fn ports(protocol: u8, payload: &[u8]) -> (u16, u16) {
    if matches!(protocol, 6 | 17 | 132) {
        (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]))
    } else {
        (0, 0)
    }
}

/// Options of a Hop-by-Hop or Destination Options header, header excluded: octets and what may change.
fn any_ipv6_options() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let option = (
        prop_oneof![Just(0u8), Just(1), Just(5), Just(0x1e), Just(0x3e), Just(0x2f), Just(0x9e)],
        proptest::collection::vec(any::<u8>(), 0..12),
    );
    proptest::collection::vec(option, 0..5).prop_map(|options| {
        let (mut octets, mut mutable) = (Vec::new(), Vec::new());
        for (kind, data) in options {
            if kind == 0 {
                octets.push(0);
                mutable.push(0);
                continue;
            }
            octets.extend([kind, data.len() as u8]);
            mutable.extend([0, 0]);
            mutable.extend(data.iter().map(|_| if kind & 0x20 != 0 { 0xff } else { 0 }));
            octets.extend(data);
        }
        let padding = (8 - (octets.len() + 2) % 8) % 8;
        match padding {
            0 => {}
            1 => octets.push(0),
            _ => octets.extend([&[1, padding as u8 - 2], &vec![0; padding - 2][..]].concat()),
        }
        mutable.resize(octets.len(), 0);
        (octets, mutable)
    })
}

fn any_ipv6() -> impl Strategy<Value = Built> {
    let options = || proptest::option::of(any_ipv6_options());
    let routing = proptest::option::of(proptest::collection::vec(any::<[u8; 16]>(), 1..4));
    (options(), options(), routing, options(), any_upper(), any::<[u8; 3]>()).prop_map(
        |(hop_by_hop, before, routing, behind, (protocol, payload), class_and_flow)| {
            // Destination options go before AH only if a routing header follows them.
            let before = before.filter(|_| routing.is_some());
            let mut headers: Vec<(u8, Vec<u8>, Vec<u8>)> = Vec::new();
            let with_options = |kind, options: (Vec<u8>, Vec<u8>)| {
                let len = (options.0.len() + 2) / 8 - 1;
                (kind, [&[0, len as u8][..], &options.0].concat(), [&[0, 0][..], &options.1].concat())
            };
            headers.extend(hop_by_hop.map(|options| with_options(0, options)));
            headers.extend(before.map(|options| with_options(60, options)));
            headers.extend(routing.map(|addresses| {
                let octets = [&[0, 2 * addresses.len() as u8, 0, 0, 0, 0, 0, 0][..], &addresses.concat()].concat();
                let mutable = vec![0; octets.len()];
                (43, octets, mutable)
            }));
            let ah_at = 40 + headers.iter().map(|(_, octets, _)| octets.len()).sum::<usize>();
            headers.extend(behind.map(|options| with_options(60, options)));
            let kinds: Vec<u8> = headers.iter().map(|(kind, ..)| *kind).chain([protocol]).collect();
            let (mut rest, mut mutable) = (Vec::new(), Vec::new());
            for (at, (_, mut octets, may_change)) in headers.into_iter().enumerate() {
                octets[0] = kinds[at + 1];
                rest.extend(octets);
                mutable.extend(may_change);
            }
            rest.extend(&payload);
            let mut bytes = ipv6(kinds[0], &rest);
            bytes[0] |= class_and_flow[0] & 0x0f;
            bytes[1] = class_and_flow[1];
            bytes[2] = class_and_flow[2];
            let mut base = [0u8; 40];
            base[0] = 0x0f; // traffic class …
            base[1..4].fill(0xff); // … and flow label
            base[7] = 0xff; // hop limit
            let mut mutable = [&base[..], &mutable].concat();
            mutable.truncate(ah_at);
            let ports = ports(protocol, &payload);
            Built {
                unclear: vec![0; ah_at],
                bytes,
                mutable,
                ah_at,
                flow: flow(V6_SOURCE.into(), V6_DESTINATION.into(), protocol, ports.0, ports.1),
            }
        },
    )
}

/// Any algorithm.
pub(crate) fn any_algorithm() -> impl Strategy<Value = MacAlgorithm> {
    prop_oneof![Just(MacAlgorithm::HmacSha256_128), Just(MacAlgorithm::HmacSha1_96)]
}
