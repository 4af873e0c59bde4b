//! Packets as an attacker makes them.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr};

/// A UDP datagram in an IPv4 packet.
pub fn udp(source: Ipv4Addr, source_port: u16, destination: Ipv4Addr, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let datagram = UdpRepr { src_port: source_port, dst_port: destination_port };
    let (mut packet, header) = ipv4(source, destination, IpProtocol::Udp, datagram.header_len() + payload.len());
    let (from, to) = (IpAddr::V4(source), IpAddr::V4(destination));
    datagram.emit(
        &mut UdpPacket::new_unchecked(packet.get_mut(header..).unwrap_or_default()),
        &from.into(),
        &to.into(),
        payload.len(),
        |body| body.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    packet
}

/// A TCP segment that wants to open a connection, in an IPv4 packet.
pub fn tcp_syn(source: Ipv4Addr, source_port: u16, destination: Ipv4Addr, destination_port: u16) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: source_port,
        dst_port: destination_port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 64240,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (mut packet, header) = ipv4(source, destination, IpProtocol::Tcp, segment.buffer_len());
    let (from, to) = (IpAddr::V4(source), IpAddr::V4(destination));
    segment.emit(
        &mut TcpPacket::new_unchecked(packet.get_mut(header..).unwrap_or_default()),
        &from.into(),
        &to.into(),
        &ChecksumCapabilities::default(),
    );
    packet
}

/// The same packet with one octet of its payload changed; lengths and the IP header stay right.
pub fn spoil_last_octet(packet: &[u8]) -> Vec<u8> {
    let mut spoilt = packet.to_vec();
    if let Some(last) = spoilt.last_mut() {
        *last ^= 1;
    }
    spoilt
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: IpProtocol, payload: usize) -> (Vec<u8>, usize) {
    let header = Ipv4Repr { src_addr: source, dst_addr: destination, next_header: protocol, payload_len: payload, hop_limit: 64 };
    let mut packet = vec![0; header.buffer_len() + payload];
    header.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &ChecksumCapabilities::default());
    (packet, header.buffer_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_datagram_has_right_lengths_and_checksums() {
        let packet = udp(Ipv4Addr::new(10, 0, 0, 1), 7, Ipv4Addr::new(10, 0, 0, 2), 9, b"hello");
        let view = Ipv4Packet::new_checked(&packet).unwrap();
        assert!(view.verify_checksum());
        assert_eq!(usize::from(view.total_len()), packet.len());
        let datagram = UdpPacket::new_checked(view.payload()).unwrap();
        assert!(datagram.verify_checksum(&IpAddr::V4(view.src_addr()).into(), &IpAddr::V4(view.dst_addr()).into()));
        assert_eq!(datagram.payload(), b"hello");
    }
}
