use proptest::prelude::*;
use smoltcp::wire::{Ipv4Packet, TcpPacket};

use super::*;
use crate::packet::IpPacket;
use crate::segments::Whole;

/// A packet of a connection: its checksum is right.
#[derive(Debug, Clone)]
struct Sample {
    is_ipv6: bool,
    timestamps: Option<u8>,
    sequence: u32,
    acknowledgment: u8,
    flags: u8,
    port: u8,
    data: usize,
}

const PLAIN: Sample =
    Sample { is_ipv6: false, timestamps: Some(1), sequence: 0xffff_fff0, acknowledgment: 7, flags: ACK, port: 80, data: 1000 };

impl Sample {
    fn bytes(&self) -> Vec<u8> {
        let ip = if self.is_ipv6 { IPV6_HEADER } else { IPV4_HEADER };
        let header = if self.timestamps.is_some() { WITH_TIMESTAMPS } else { BASE };
        let len = u16::try_from(ip + header + self.data).unwrap();
        let mut packet = vec![0; ip];
        if self.is_ipv6 {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            (packet[6], packet[7]) = (TCP, 64);
            packet[8..24].fill(0x11);
            packet[24..40].fill(0x22);
        } else {
            (packet[0], packet[6], packet[8], packet[9]) = (0x45, 0x40, 64, TCP);
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet[4..6].copy_from_slice(&77_u16.to_be_bytes());
            packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
            packet[16..20].copy_from_slice(&[198, 51, 100, 2]);
            Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
        }
        packet.extend([0x9c, 0x40, 0, self.port]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend([0, 0, 0, self.acknowledgment, u8::try_from(header / 4).unwrap() << 4, self.flags, 1, 0, 0, 0, 0, 0]);
        packet.extend(self.timestamps.iter().flat_map(|value| [1, 1, 8, 10, 0, 0, 0, *value, 0, 0, 0, 2]));
        packet.extend((0..self.data).map(|at| (self.sequence as usize + at) as u8));
        fill(packet)
    }
}

/// The packet with the TCP checksum that it should have.
fn fill(mut packet: Vec<u8>) -> Vec<u8> {
    let (ip, len) = (if packet[0] == 0x45 { IPV4_HEADER } else { IPV6_HEADER }, packet.len());
    packet[ip + 16..ip + 18].fill(0);
    let addresses = if ip == IPV4_HEADER { sum(&packet[12..20]) } else { sum(&packet[8..40]) };
    let checksum = !fold(addresses + sum(&u32::try_from(len - ip).unwrap().to_be_bytes()) + sum(&[0, TCP]) + sum(&packet[ip..]));
    packet[ip + 16..ip + 18].copy_from_slice(&checksum.to_ne_bytes());
    packet
}

/// What comes out of it all, and what was said of each packet.
fn joined(packets: &[Vec<u8>]) -> Vec<(Prefix, Vec<u8>, Vec<usize>)> {
    let (mut joiner, mut out) = (Joiner::default(), Vec::new());
    let mut take = |joined: Joined<'_>| out.push((joined.prefix, joined.packet.to_vec(), joined.said.to_vec()));
    packets.iter().enumerate().for_each(|(said, packet)| joiner.push(packet, said, &mut take));
    joiner.flush(&mut take);
    joiner.flush(&mut take);
    out
}

fn lengths(samples: &[Sample]) -> Vec<usize> {
    joined(&samples.iter().map(Sample::bytes).collect::<Vec<_>>()).iter().map(|(.., said)| said.len()).collect()
}

/// What the kernel makes of a packet by what it is told, with identifications that all are 77.
fn cut((prefix, packet, _): &(Prefix, Vec<u8>, Vec<usize>)) -> Vec<Vec<u8>> {
    let [flags, kind, h0, h1, s0, s1, t0, t1, c0, c1] = *prefix;
    if flags == 0 {
        assert_eq!(prefix, &Prefix::default());
        return vec![packet.clone()];
    }
    let ip = if packet[0] == 0x45 { IPV4_HEADER } else { IPV6_HEADER };
    let header = ip + usize::from(packet[ip + 12] >> 4) * 4;
    let size = usize::from(u16::from_ne_bytes([s0, s1]));
    assert_eq!((flags, kind), (NEEDS_CHECKSUM, if ip == IPV4_HEADER { 1 } else { 4 }));
    assert_eq!([[h0, h1], [t0, t1], [c0, c1]].map(u16::from_ne_bytes), [header, ip, 16].map(|at| u16::try_from(at).unwrap()));
    // The sum of the pseudo-header stands in it: with the segment's it is the checksum.
    let finished = fill(packet.clone());
    let mut open = packet.clone();
    let checksum = !fold(sum(&open[ip..]));
    open[ip + 16..ip + 18].copy_from_slice(&checksum.to_ne_bytes());
    assert_eq!(open, finished);
    let timestamps = header - ip - BASE;
    let view = IpPacket::parse(packet).unwrap();
    let whole = Whole::read(&view, size + timestamps - timestamps).unwrap();
    let mut out = Vec::new();
    let segments = (0..whole.count()).map(|at| {
        assert!(whole.write(at, &mut out));
        if ip == IPV4_HEADER {
            let mut header = Ipv4Packet::new_unchecked(&mut out);
            header.set_ident(77);
            header.fill_checksum();
        }
        out.clone()
    });
    segments.collect()
}

#[test]
fn consecutive_segments_become_one_packet_and_its_last_may_be_shorter() {
    for is_ipv6 in [false, true] {
        for timestamps in [None, Some(3)] {
            let at = |place: u32, data| Sample { is_ipv6, timestamps, sequence: PLAIN.sequence.wrapping_add(1000 * place), data, ..PLAIN };
            let packets: Vec<Vec<u8>> = [at(0, 1000), at(1, 1000), at(2, 1000), at(3, 10)].iter().map(Sample::bytes).collect();
            let out = joined(&packets);
            assert_eq!(out.len(), 1);
            assert_eq!(out[0].2, [0, 1, 2, 3]);
            assert_eq!(cut(&out[0]), packets);
            let ip = if is_ipv6 { IPV6_HEADER } else { IPV4_HEADER };
            assert_eq!(TcpPacket::new_checked(&out[0].1[ip..]).unwrap().payload().len(), 3010);
        }
    }
}

#[test]
fn what_differs_in_anything_else_is_left_as_it_is() {
    let next = Sample { sequence: PLAIN.sequence.wrapping_add(1000), ..PLAIN };
    assert_eq!(lengths(&[PLAIN, next.clone()]), [2]);
    let apart = [
        Sample { sequence: next.sequence.wrapping_add(1), ..PLAIN },
        Sample { sequence: PLAIN.sequence, ..PLAIN },
        Sample { acknowledgment: 8, ..next.clone() },
        Sample { timestamps: Some(9), ..next.clone() },
        Sample { timestamps: None, ..next.clone() },
        Sample { port: 81, ..next.clone() },
        Sample { data: 1001, ..next.clone() },
        Sample { data: 0, ..next.clone() },
        Sample { is_ipv6: true, ..next.clone() },
    ];
    for other in apart {
        assert_eq!(lengths(&[PLAIN, other.clone()]), [1, 1], "{other:?}");
    }
    // FIN, SYN, RST, URG, ECE, CWR, and no ACK.
    for flags in [0x11, 0x12, 0x14, 0x30, 0x50, 0x90, 0x00] {
        assert_eq!(lengths(&[PLAIN, Sample { flags, ..next.clone() }]), [1, 1], "{flags:x}");
        assert_eq!(lengths(&[Sample { flags, ..PLAIN }, next.clone()]), [1, 1], "{flags:x}");
    }
    // Changed octets, with right checksums: another class of traffic, hop limit, fragment, option, window, urgent pointer, option.
    for (at, octet) in [(1, 1), (8, 63), (6, 0x60), (7, 1), (0, 0x46), (20 + 14, 9), (20 + 19, 1), (20 + 20, 2)] {
        let mut other = next.bytes();
        other[at] = octet;
        let other = if at == 0 { other } else { fill(other) };
        assert_eq!(joined(&[PLAIN.bytes(), other]).len(), 2, "octet {at}");
    }
}

#[test]
fn a_segment_whose_checksum_is_wrong_stays_wrong_and_alone() {
    for wrong in 0..3 {
        let mut packets: Vec<Vec<u8>> =
            (0..3).map(|place| Sample { sequence: PLAIN.sequence.wrapping_add(1000 * place), ..PLAIN }.bytes()).collect();
        *packets[wrong].last_mut().unwrap() ^= 1;
        let out = joined(&packets);
        assert!(out.contains(&(Prefix::default(), packets[wrong].clone(), vec![wrong])), "{wrong}");
        assert_eq!(out.iter().flat_map(cut).collect::<Vec<_>>(), packets);
    }
}

#[test]
fn what_is_pushed_waits_for_nothing_and_a_packet_grows_no_longer_than_it_can_tell() {
    let at = |place: u32, flags| Sample { sequence: PLAIN.sequence.wrapping_add(1000 * place), flags, ..PLAIN };
    assert_eq!(lengths(&[at(0, ACK), at(1, ACK | PSH), at(2, ACK)]), [2, 1]);
    assert_eq!(lengths(&[at(0, ACK | PSH), at(1, ACK)]), [1, 1]);
    assert_eq!(lengths(&(0..70).map(|place| at(place, ACK)).collect::<Vec<_>>()), [64, 6]);
    let long = |place: u32| Sample { sequence: PLAIN.sequence.wrapping_add(1400 * place), data: 1400, ..PLAIN };
    assert_eq!(lengths(&(0..50).map(long).collect::<Vec<_>>()), [46, 4]);
}

proptest! {
    /// Whatever comes, the kernel is given it in its order, and can make the same of it again.
    #[test]
    fn cut_again_everything_is_what_came(
        steps in proptest::collection::vec((0..20_u8, 0..3_usize, any::<bool>(), 0..2_u8), 1..200),
        timestamps in proptest::option::of(Just(1_u8)),
    ) {
        let mut sequence = [5_u32, 0xffff_f000];
        let packets: Vec<Vec<u8>> = steps.iter().map(|(what, shorter, is_ipv6, flow)| {
            let flow = if *what == 0 { *flow } else { 0 };
            let data = [700, 700, 20][*shorter];
            let flags = match what { 1 => ACK | PSH, 2 => ACK | 1, _ => ACK };
            let at = &mut sequence[usize::from(flow)];
            if *what == 3 { *at = at.wrapping_add(1); }
            let sample = Sample { is_ipv6: *is_ipv6 && *what < 5, timestamps, sequence: *at, flags, port: 80 + flow, data, ..PLAIN };
            *at = at.wrapping_add(u32::try_from(data).unwrap());
            let mut bytes = sample.bytes();
            if *what == 4 { bytes[45] ^= 1; }
            bytes
        }).collect();
        let out = joined(&packets);
        prop_assert_eq!(out.iter().flat_map(|(.., said)| said.clone()).collect::<Vec<_>>(), (0..packets.len()).collect::<Vec<_>>());
        prop_assert_eq!(out.iter().flat_map(cut).collect::<Vec<_>>(), packets);
    }

    #[test]
    fn no_octets_make_it_panic_and_all_come_out(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..20)) {
        let out = joined(&packets);
        prop_assert_eq!(out.iter().map(|(_, packet, _)| packet.clone()).collect::<Vec<_>>(), packets);
    }
}
