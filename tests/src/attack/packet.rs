//! Packets as an attacker makes them.

use std::io;
use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

/// An address and a port.
pub type Endpoint = (IpAddr, u16);

/// A UDP datagram in an IP packet.
pub fn udp(from: Endpoint, to: Endpoint, payload: &[u8]) -> io::Result<Vec<u8>> {
    let datagram = UdpRepr { src_port: from.1, dst_port: to.1 };
    let (mut packet, header) = ip(from.0, to.0, IpProtocol::Udp, datagram.header_len() + payload.len())?;
    datagram.emit(
        &mut UdpPacket::new_unchecked(packet.get_mut(header..).unwrap_or_default()),
        &IpAddress::from(from.0),
        &IpAddress::from(to.0),
        payload.len(),
        |body| body.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    Ok(packet)
}

/// A TCP segment that wants to open a connection, in an IP packet.
pub fn tcp_syn(from: Endpoint, to: Endpoint) -> io::Result<Vec<u8>> {
    let segment = TcpRepr {
        src_port: from.1,
        dst_port: to.1,
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
    let (mut packet, header) = ip(from.0, to.0, IpProtocol::Tcp, segment.buffer_len())?;
    segment.emit(
        &mut TcpPacket::new_unchecked(packet.get_mut(header..).unwrap_or_default()),
        &IpAddress::from(from.0),
        &IpAddress::from(to.0),
        &ChecksumCapabilities::default(),
    );
    Ok(packet)
}

/// A packet of zeros behind a finished IP header, and where its payload begins.
fn ip(from: IpAddr, to: IpAddr, protocol: IpProtocol, payload: usize) -> io::Result<(Vec<u8>, usize)> {
    let checksums = ChecksumCapabilities::default();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: payload, hop_limit: 64 };
            let mut packet = vec![0; header.buffer_len() + payload];
            header.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &checksums);
            Ok((packet, header.buffer_len()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: payload, hop_limit: 64 };
            let mut packet = vec![0; header.buffer_len() + payload];
            header.emit(&mut Ipv6Packet::new_unchecked(&mut packet));
            Ok((packet, header.buffer_len()))
        }
        _ => Err(io::Error::other("a packet has both addresses of one IP version")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_datagram_has_right_lengths_and_checksums() {
        let (from, to) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let packet = udp((from, 7), (to, 9), b"hello").unwrap();
        let view = Ipv4Packet::new_checked(&packet).unwrap();
        assert!(view.verify_checksum());
        assert_eq!(usize::from(view.total_len()), packet.len());
        let datagram = UdpPacket::new_checked(view.payload()).unwrap();
        assert!(datagram.verify_checksum(&from.into(), &to.into()));
        assert_eq!(datagram.payload(), b"hello");
    }
}
