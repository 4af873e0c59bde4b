//! Protocols without ports, and IPv6 with extension headers.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, setsockopt, socket};
use pbs_lab::network::frame;
use pbs_lab::network::topology::Family;
use socket2::{Domain, Protocol, Socket, Type};

use crate::site::{PATIENCE, Site};

const PORT: u16 = 9400;
const AH: u8 = 51;
const ESP: u8 = 50;
/// For experiments (RFC 3692).
const EXPERIMENTAL: u8 = 253;
/// Options header that says nothing (PadN); the kernel fills in what follows it.
const EMPTY_OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// P-199, X-85: ESP is data like any other.
#[test]
fn ping_esp_and_any_other_protocol_without_ports_travel_under_ah_over_ipv4() {
    without_ports(Family::Ipv4, 1);
}

/// P-199, X-85: ESP is data like any other.
#[test]
fn ping_esp_and_any_other_protocol_without_ports_travel_under_ah_over_ipv6() {
    without_ports(Family::Ipv6, 58);
}

fn without_ports(family: Family, icmp: u8) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start();
    for protocol in [ESP, EXPERIMENTAL] {
        let (from, to) = (raw(&site, true, family, protocol), raw(&site, false, family, protocol));
        for size in [8, 500, 3_000] {
            let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            // On IPv6 the first that is too big for the path is lost, and tells.
            from.send(&payload).unwrap();
            if size > 1_500 {
                std::thread::sleep(Duration::from_millis(100));
                from.send(&payload).unwrap();
            }
            assert!(receive(&to, |packet| packet.ends_with(&payload)), "protocol {protocol}, {size} octets\n{}", site.logs());
        }
    }
    // The answer is the other direction's permission.
    let ping = raw(&site, true, family, icmp);
    let (request, reply) = if family == Family::Ipv4 { (8, 0) } else { (128, 129) };
    let mut echo = vec![request, 0, 0, 0, 0x12, 0x34, 0, 1];
    echo.extend(*b"are you there?");
    if family == Family::Ipv4 {
        let sum: u32 = echo.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    ping.send(&echo).unwrap();
    let header = if family == Family::Ipv4 { 20 } else { 0 };
    let answered = receive(&ping, |packet| packet.get(header) == Some(&reply) && packet.ends_with(b"are you there?"));
    assert!(answered, "no answer\n{}", site.logs());

    let clear = site.narrow.look(|frames| {
        let seen = frames.iter().filter_map(|frame| frame::read(frame.ip()?));
        let of_hosts = seen.filter(|seen| [seen.source, seen.destination].contains(&family.sender()));
        of_hosts.filter(|seen| seen.authentication.is_none() && [ESP, EXPERIMENTAL, icmp].contains(&seen.protocol)).count()
    });
    assert_eq!(clear, 0, "in the clear");
}

/// RFC 4302 §3.1.1: hop-by-hop options before AH, destination options behind it, as the kernel's own sockets make them.
#[test]
fn udp_behind_hop_by_hop_and_destination_options_arrives_and_its_flow_is_that_of_its_ports() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start();
    let (sender, receiver) = site.sockets(Family::Ipv6, PORT);
    site.learn_the_path(&sender, &receiver);
    for name in ["destination", "hop-by-hop"] {
        if name == "destination" {
            setsockopt(&sender, option::DestinationOptions, &EMPTY_OPTIONS).unwrap();
        } else {
            setsockopt(&sender, option::HopByHopOptions, &EMPTY_OPTIONS).unwrap();
        }
        for size in [10, 2_000] {
            sender.send(&vec![size as u8; size]).unwrap();
            assert_eq!(receiver.recv(&mut [0; 4_000]).unwrap(), size, "{name} options\n{}", site.logs());
        }
    }
    // All in one flow: one association. Hop-by-hop options stand first, and AH right behind them.
    let (spis, chains) = site.narrow.look(|frames| {
        let packets: Vec<_> = frames.iter().filter_map(|frame| frame.ip()).collect();
        let of_flow = packets.iter().filter_map(|ip| frame::read(ip)).filter(|seen| seen.source == Family::Ipv6.sender());
        let spis: std::collections::BTreeSet<_> = of_flow.filter_map(|seen| seen.authentication).map(|ah| ah.spi).collect();
        let chains = packets.iter().filter(|ip| ip[0] >> 4 == 6 && ip[6] == 0 && ip[40] == AH && ip[48] == 60).count();
        (spis.len(), chains)
    });
    assert_eq!(spis, 1);
    assert!(chains > 0, "hop-by-hop options, AH, destination options");
}

/// who may send raw packets at all is kept from redirecting them, type 0 and segment routing alike.
#[test]
fn a_routing_header_with_segments_left_does_not_leave_its_host() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start();
    let (sender, receiver) = site.sockets(Family::Ipv6, PORT);
    let (IpAddr::V6(from), IpAddr::V6(to)) = (Family::Ipv6.sender(), Family::Ipv6.receiver()) else { unreachable!() };
    let source_port = sender.local_addr().unwrap().port();
    let raw = site.sender.run(|| Ok(socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?)).unwrap();
    let datagram = [&source_port.to_be_bytes()[..], &PORT.to_be_bytes(), &[0, 12, 0, 0], b"mark"].concat();
    let before = site.dropped("sender", "source_route");
    for kind in [0, 2, 4] {
        let routing = [&[17, 2, kind, 1, 0, 0, 0, 0][..], &to.octets()].concat();
        let len = u16::try_from(routing.len() + datagram.len()).unwrap().to_be_bytes();
        let packet = [&[0x60, 0, 0, 0, len[0], len[1], 43, 64][..], &from.octets(), &to.octets(), &routing, &datagram].concat();
        let address = SockaddrStorage::from(SocketAddr::new(to.into(), 0));
        sendto(raw.as_raw_fd(), &packet, &address, MsgFlags::empty()).unwrap();
    }
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(receiver.recv(&mut [0; 100]).is_err());
    assert_eq!(site.dropped("sender", "source_route") - before, 3);
    let left = site.first.look(|frames| frames.iter().filter(|frame| frame.ip().is_some_and(|ip| ip.ends_with(b"mark"))).count());
    assert_eq!(left, 0);
}

/// A raw socket for one protocol, between the two hosts.
fn raw(site: &Site, is_sender: bool, family: Family, protocol: u8) -> Socket {
    let host = if is_sender { &site.sender } else { &site.receiver };
    let (own, other) = if is_sender { (family.sender(), family.receiver()) } else { (family.receiver(), family.sender()) };
    let domain = if family == Family::Ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    host.run(|| {
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
        socket.bind(&SocketAddr::new(own, 0).into())?;
        socket.connect(&SocketAddr::new(other, 0).into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
    .unwrap()
}

/// Whether a packet comes that is wanted.
fn receive(socket: &Socket, wanted: impl Fn(&[u8]) -> bool) -> bool {
    use std::io::Read;
    let mut buffer = vec![0; 65_536];
    let mut socket = socket;
    while let Ok(length) = socket.read(&mut buffer) {
        if wanted(&buffer[..length]) {
            return true;
        }
    }
    false
}

/// Socket options that the library does not name: an options header on every datagram.
mod option {
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(DestinationOptions, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, [u8; 8]);
    sockopt_impl!(HopByHopOptions, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, [u8; 8]);
}
