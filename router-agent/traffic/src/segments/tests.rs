use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, TcpRepr};

use super::*;

/// A super-packet as a stack hands it down: the checksum open, PSH, FIN and CWR set.
fn super_packet(is_ipv6: bool, options: &[u8], data: usize, identification: u16) -> Vec<u8> {
    let tcp = BASE + options.len();
    let ip = if is_ipv6 { 40 } else { 20 };
    let mut packet = vec![0; ip + tcp];
    let len = u16::try_from(packet.len() + data).unwrap();
    if is_ipv6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        (packet[6], packet[7]) = (TCP, 64);
        packet[8..24].fill(0x11);
        packet[24..40].fill(0x22);
    } else {
        (packet[0], packet[6], packet[8], packet[9]) = (0x45, 0x40, 64, TCP);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
        packet[16..20].copy_from_slice(&[198, 51, 100, 2]);
    }
    let header = &mut packet[ip..];
    header[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
    header[4..8].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
    header[8..12].copy_from_slice(&77_u32.to_be_bytes());
    header[12] = u8::try_from(tcp / 4).unwrap() << 4;
    header[13] = 0x80 | 0x10 | 0x08 | 0x01;
    header[14..16].copy_from_slice(&500_u16.to_be_bytes());
    header[16..18].copy_from_slice(&0xabcd_u16.to_be_bytes());
    header[BASE..].copy_from_slice(options);
    packet.extend((0..data).map(|at| (at * 7 % 251) as u8));
    packet
}

const WITH_TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

fn segments(bytes: &[u8], largest: usize) -> Vec<Vec<u8>> {
    let packet = IpPacket::parse(bytes).unwrap();
    let whole = Whole::read(&packet, largest).unwrap();
    let mut out = Vec::new();
    let segments: Vec<_> = (0..whole.count())
        .map(|at| {
            assert!(whole.write(at, &mut out));
            out.clone()
        })
        .collect();
    assert!(!whole.write(whole.count(), &mut out), "no more than there are");
    assert_eq!(whole.total(), segments.iter().map(Vec::len).sum::<usize>());
    segments
}

#[test]
fn the_segments_of_a_super_packet_are_what_the_stack_meant_by_it() {
    for (is_ipv6, data) in [(false, 4000), (true, 4000), (false, 2800), (true, 1), (false, 60_001)] {
        let bytes = super_packet(is_ipv6, &WITH_TIMESTAMPS, data, 0xfffe);
        let (ip, count) = (if is_ipv6 { 40 } else { 20 }, data.div_ceil(1400));
        let segments = segments(&bytes, 1400);
        assert_eq!(segments.len(), count);
        let mut all = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let packet = IpPacket::parse(segment).unwrap();
            let (source, destination): (IpAddress, IpAddress) = (packet.source().into(), packet.destination().into());
            let tcp = TcpPacket::new_checked(&segment[ip..]).unwrap();
            assert!(tcp.verify_checksum(&source, &destination), "segment {at}");
            TcpRepr::parse(&tcp, &source, &destination, &ChecksumCapabilities::default()).unwrap();
            assert_eq!(tcp.seq_number().0 as u32, 0xffff_fff0_u32.wrapping_add(u32::try_from(all.len()).unwrap()));
            let is_last = at + 1 == count;
            assert_eq!((tcp.fin(), tcp.psh(), tcp.cwr(), tcp.ack()), (is_last, is_last, at == 0, true));
            assert_eq!(tcp.ack_number().0, 77);
            assert_eq!(tcp.options(), WITH_TIMESTAMPS);
            if !is_ipv6 {
                let header = Ipv4Packet::new_checked(segment).unwrap();
                assert!(header.verify_checksum());
                let expected = 0xfffe_u16.wrapping_add(u16::try_from(at).unwrap()).max(1);
                assert_eq!((header.ident(), header.dont_frag()), (expected, true), "never 0");
            }
            assert!(tcp.payload().len() == 1400 || is_last);
            all.extend_from_slice(tcp.payload());
        }
        assert_eq!(all, bytes[ip + 32..]);
    }
}

#[test]
fn options_beside_timestamps_leave_less_room_for_data() {
    // A selective acknowledgment of one block, aligned: 12 octets that the socket has not counted.
    let sack = [[1, 1, 5, 10].as_slice(), &[0; 8]].concat();
    let lengths = |options: &[u8]| -> Vec<usize> { segments(&super_packet(false, options, 4000, 1), 1400).iter().map(Vec::len).collect() };
    assert_eq!(lengths(&[])[0], 20 + 20 + 1400);
    assert_eq!(lengths(&WITH_TIMESTAMPS)[0], 20 + 32 + 1400);
    assert_eq!(lengths(&sack)[0], 20 + 32 + 1388);
    assert_eq!(lengths(&[WITH_TIMESTAMPS.as_slice(), &sack].concat())[0], 20 + 44 + 1388, "as long as without");
}

#[test]
fn what_cannot_be_cut_is_left_to_the_kernel() {
    let refused = |bytes: &[u8], largest| Whole::read(&IpPacket::parse(bytes).unwrap(), largest).is_none();
    let with = |at: usize, octet: u8| {
        let mut packet = super_packet(false, &WITH_TIMESTAMPS, 4000, 1);
        packet[at] = octet;
        packet
    };
    assert!(!refused(&with(20 + 13, 0x10), 1400));
    for flags in [0x12, 0x14, 0x30, 0x08] {
        assert!(refused(&with(20 + 13, flags), 1400), "SYN, RST, URG, no ACK: {flags:x}");
    }
    for kind in [MD5, AUTHENTICATION] {
        assert!(refused(&with(20 + 22, kind), 1400), "an option that protects the segment: {kind}");
    }
    assert!(refused(&with(20 + 23, 200), 1400), "options cut short");
    assert!(refused(&with(9, 17), 1400), "UDP");
    assert!(refused(&with(6, 0x20), 1400), "a fragment");
    let sack = [[1, 1, 5, 10].as_slice(), &[0; 8]].concat();
    assert!(refused(&super_packet(false, &sack, 4000, 1), 12), "no room for data");
}

#[test]
fn a_packet_whose_checksum_is_open_gets_it() {
    for (is_ipv6, data) in [(false, 0), (true, 0), (false, 33), (true, 1400)] {
        let bytes = super_packet(is_ipv6, &WITH_TIMESTAMPS, data, 1);
        let packet = IpPacket::parse(&bytes).unwrap();
        let mut out = Vec::new();
        finished(&packet, &mut out).unwrap();
        let tcp = TcpPacket::new_checked(&out[if is_ipv6 { 40 } else { 20 }..]).unwrap();
        let (source, destination): (IpAddress, IpAddress) = (packet.source().into(), packet.destination().into());
        assert!(tcp.verify_checksum(&source, &destination));
        let changed = out.iter().zip(&bytes).filter(|(one, other)| one != other).count();
        assert!(changed <= 2 && out.len() == bytes.len(), "nothing else");
    }
}
