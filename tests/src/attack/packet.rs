//! Packets as an attacker makes them.

use std::io;
use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket, UdpRepr,
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
    tcp(from, to, TcpRepr { control: TcpControl::Syn, max_seg_size: Some(1460), ..segment(from, to, &[]) })
}

/// A TCP segment of a connection, in an IP packet.
pub fn tcp_data(from: Endpoint, to: Endpoint, payload: &[u8]) -> io::Result<Vec<u8>> {
    tcp(from, to, TcpRepr { ack_number: Some(TcpSeqNumber(1)), ..segment(from, to, payload) })
}

/// A TCP segment that breaks a connection off whose next octet has this number (RFC 5961 §3.2), in an IP packet.
pub fn tcp_reset(from: Endpoint, to: Endpoint, number: u32) -> io::Result<Vec<u8>> {
    let seq_number = TcpSeqNumber(number.cast_signed());
    tcp(from, to, TcpRepr { control: TcpControl::Rst, seq_number, ..segment(from, to, &[]) })
}

fn segment(from: Endpoint, to: Endpoint, payload: &[u8]) -> TcpRepr<'_> {
    TcpRepr {
        src_port: from.1,
        dst_port: to.1,
        control: TcpControl::None,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 64240,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    }
}

fn tcp(from: Endpoint, to: Endpoint, segment: TcpRepr<'_>) -> io::Result<Vec<u8>> {
    let (mut packet, header) = ip(from.0, to.0, IpProtocol::Tcp, segment.buffer_len())?;
    segment.emit(
        &mut TcpPacket::new_unchecked(packet.get_mut(header..).unwrap_or_default()),
        &IpAddress::from(from.0),
        &IpAddress::from(to.0),
        &ChecksumCapabilities::default(),
    );
    Ok(packet)
}

/// An ICMP error that says that `quote`, or what fits of it, was too big for a link of this MTU (RFC 792, RFC 4443 §3.2).
pub fn too_big(from: IpAddr, to: IpAddr, mtu: u16, quote: &[u8]) -> io::Result<Vec<u8>> {
    const MOST_QUOTED: usize = 500;
    let quote = quote.get(..MOST_QUOTED).unwrap_or(quote);
    let [high, low] = mtu.to_be_bytes();
    let (protocol, kind, code) = if from.is_ipv4() { (IpProtocol::Icmp, 3, 4) } else { (IpProtocol::Icmpv6, 2, 0) };
    let (mut packet, header) = ip(from, to, protocol, ICMP_HEADER + quote.len())?;
    let message = packet.get_mut(header..).unwrap_or_default();
    let (fixed, quoted) = message.split_at_mut(ICMP_HEADER);
    fixed.copy_from_slice(&[kind, code, 0, 0, 0, 0, high, low]);
    quoted.copy_from_slice(quote);
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => Icmpv6Packet::new_unchecked(message).fill_checksum(&from, &to),
        _ => Icmpv4Packet::new_unchecked(message).fill_checksum(),
    }
    Ok(packet)
}

const ICMP_HEADER: usize = 8;

/// The IPv6 packet with a router alert of this value in a hop-by-hop header (RFC 2711), which takes [`ROUTER_ALERT`] octets.
pub fn alert_routers(mut packet: Vec<u8>, value: u16) -> io::Result<Vec<u8>> {
    let [high, low] = value.to_be_bytes();
    let mut header = Ipv6Packet::new_checked(&mut packet).map_err(io::Error::other)?;
    let (next, length) = (header.next_header(), header.payload_len());
    header.set_next_header(IpProtocol::HopByHop);
    header.set_payload_len(length + ROUTER_ALERT as u16);
    let options: [u8; ROUTER_ALERT] = [next.into(), 0, 5, 2, high, low, 1, 0];
    packet.splice(IPV6_HEADER..IPV6_HEADER, options);
    Ok(packet)
}

/// Octets of a hop-by-hop header with a router alert.
pub const ROUTER_ALERT: usize = 8;
const IPV6_HEADER: usize = 40;

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

    #[test]
    fn a_router_alert_stands_between_ip_and_udp() {
        let (from, to) = ("fd20::1".parse().unwrap(), "fd21::1".parse().unwrap());
        let packet = alert_routers(udp((from, 7), (to, 9), b"hello").unwrap(), 0xff01).unwrap();
        let view = Ipv6Packet::new_checked(&packet).unwrap();
        assert_eq!((view.next_header(), view.total_len()), (IpProtocol::HopByHop, packet.len()));
        assert_eq!(view.payload()[..ROUTER_ALERT], [17, 0, 5, 2, 0xff, 0x01, 1, 0]);
        assert!(UdpPacket::new_checked(&view.payload()[ROUTER_ALERT..]).unwrap().verify_checksum(&from.into(), &to.into()));
    }
}
