//! The way over a relay, in the kernel: what has its bits arrives there packed, and nothing else does (X-99, P-189).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc;

use namespace::{A4, A6, B4, B6, Namespace, QUIET, SOON, add_route, address, eventually, index, pair, privileged, receive};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use traffic::netlink::NetlinkError;
use traffic::packet::IpPacket;
use traffic::paths::{MASK, NextHops, PackCounters, PackDrop, Packer, Towards, mark, restore, set_mtu};
use traffic::routes::MtuPlan;
use traffic::tunnel::{IPV4_INSIDE, IPV6_INSIDE, overhead};

/// Somebody behind the relay.
const BEYOND: [&str; 2] = ["10.9.9.9", "fd99::9"];

/// Starts a packer in the namespace; answers its link.
fn packer(host: &Namespace, name: &'static str, relay: &str) -> (u32, Arc<PackCounters>) {
    let (opened, link) = mpsc::channel();
    let (relay, counters) = (relay.parse().unwrap(), Arc::new(PackCounters::default()));
    let shared = Arc::clone(&counters);
    host.run(|| {
        std::thread::spawn(move || {
            let packer = Packer::open(name, relay, shared).unwrap();
            opened.send(packer.link()).unwrap();
            packer.run()
        })
    });
    (link.recv_timeout(SOON).unwrap(), counters)
}

/// A socket that gets every packet of the tunnel's protocol, on IPv4 with its header.
fn unpacker(relay: &Namespace, is_ipv4: bool) -> Socket {
    let (domain, protocol) = if is_ipv4 { (Domain::IPV4, IPV4_INSIDE) } else { (Domain::IPV6, IPV6_INSIDE) };
    let socket = relay.run(|| Socket::new_raw(domain, Type::RAW, Some(Protocol::from(i32::from(protocol)))).unwrap());
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn next(socket: &mut Socket, is_ipv4: bool) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    let length = socket.read(&mut buffer).ok()?;
    Some(buffer[if is_ipv4 { 20 } else { 0 }..length].to_vec())
}

#[test]
fn what_has_the_bits_of_the_way_arrives_at_the_relay_packed_and_whole() {
    if !privileged() {
        return;
    }
    let (host, relay) = pair(1500);
    for (beyond, gateway) in BEYOND.into_iter().zip([B4, B6]) {
        add_route(&host, beyond, if gateway == B4 { 32 } else { 128 }, gateway);
        relay.run(|| namespace::add_address("lo", beyond.parse().unwrap(), if gateway == B4 { 32 } else { 128 }));
    }
    let before = host.run(listing);
    for (path, (own, at, beyond)) in (1..).zip([(A4, B4, BEYOND[0]), (A6, B6, BEYOND[1])]) {
        let is_ipv4 = at == B4;
        let (link, counters) = packer(&host, if is_ipv4 { "pbs-relay1" } else { "pbs-relay2" }, at);
        host.run(|| {
            set_mtu(link, 1400).unwrap();
            NextHops::open(MASK).unwrap().set_up_one_way(path, link, is_ipv4).unwrap();
        });
        let mut packed = unpacker(&relay, is_ipv4);
        let (sender, bare) = (host.udp(address(own, 4000)), relay.udp(address(beyond, 5000)));
        setsockopt(&sender, sockopt::Mark, &mark(MASK, path)).unwrap();
        for size in [1, 1000, 1300] {
            sender.send_to(&vec![7; size], address(beyond, 5000)).unwrap();
            let inner = next(&mut packed, is_ipv4).expect("it arrives");
            let packet = IpPacket::parse(&inner).unwrap();
            assert_eq!((packet.source(), packet.destination()), (ip(own), ip(beyond)));
            assert_eq!((packet.flow().unwrap().destination_port, packet.total_len() > size), (5000, true));
        }
        assert_eq!(receive(&bare, QUIET), None, "none of them went where routing leads");
        setsockopt(&sender, sockopt::Mark, &mark(MASK, 7)).unwrap();
        sender.send_to(b"routed", address(beyond, 5000)).unwrap();
        assert_eq!(receive(&bare, SOON).unwrap(), b"routed");
        // To the relay itself there is no way over it.
        setsockopt(&sender, sockopt::Mark, &mark(MASK, path)).unwrap();
        sender.send_to(b"to the relay", address(at, 5000)).unwrap();
        eventually("it is counted", || counters.dropped(PackDrop::NotForRelay).packets == 1);
        assert_eq!(counters.packed().packets, 3);
    }
    // The devices stay with their threads; what leads there goes like that of any way.
    host.run(|| restore().unwrap());
    assert_eq!(host.run(listing), before);
}

/// The longest packet of a program that still arrives whole at the relay, with what both flows add.
#[test]
fn what_the_kernel_says_of_the_way_to_the_relay_leaves_room_for_what_is_added() {
    if !privileged() {
        return;
    }
    let (host, _relay) = pair(1500);
    host.run(|| MtuPlan::new(76, 80).apply().unwrap());
    for (own, at, room) in [(A4, B4, 76), (A6, B6, 80)] {
        let towards = host.run(|| Towards::ask(ip(at)).unwrap());
        assert_eq!(towards, Towards { source: ip(own), mtu: 1500 - room });
        let ends = traffic::tunnel::Ends { source: ip(own), destination: ip(at) };
        assert!(overhead(&ends) == if at == B4 { 20 } else { 40 });
    }
    assert!(host.run(|| Towards::ask(ip("203.0.113.9"))).is_err(), "no route");
}

/// At boot there may be no route yet; what comes before there is one is counted.
#[test]
fn a_relay_without_a_route_is_no_reason_not_to_start_and_gets_its_packets_once_there_is_one() {
    if !privileged() {
        return;
    }
    let (host, relay) = pair(1500);
    for (path, (own, at, far, prefix)) in (1..).zip([(A4, B4, "10.8.8.8", 32), (A6, B6, "fd88::8", 128)]) {
        let is_ipv4 = prefix == 32;
        let (link, counters) = packer(&host, if is_ipv4 { "pbs-relay3" } else { "pbs-relay4" }, far);
        host.run(|| {
            set_mtu(link, 1400).unwrap();
            NextHops::open(MASK).unwrap().set_up_one_way(path, link, is_ipv4).unwrap();
        });
        relay.run(|| namespace::add_address("lo", ip(far), prefix));
        let mut packed = unpacker(&relay, is_ipv4);
        let sender = host.udp(address(own, 4000));
        setsockopt(&sender, sockopt::Mark, &mark(MASK, path)).unwrap();
        let beyond = BEYOND[usize::from(!is_ipv4)];
        sender.send_to(b"early", address(beyond, 5000)).unwrap();
        eventually("it is counted", || counters.dropped(PackDrop::NoRouteToRelay).packets == 1);
        add_route(&host, far, prefix, at);
        sender.send_to(b"late", address(beyond, 5000)).unwrap();
        assert!(next(&mut packed, is_ipv4).is_some(), "{far}");
    }
}

/// Nobody must be kept from seeing what is wrong: a device of that name that is none of ours.
#[test]
fn a_link_of_another_kind_with_the_devices_name_is_an_error() {
    if !privileged() {
        return;
    }
    let (host, _relay) = pair(1500);
    let error = host.run(|| Packer::open("left", ip(B4), Arc::default()).map(|_| ()).unwrap_err().to_string());
    assert!(error.starts_with("the device left (it takes /dev/net/tun): "), "{error}");
    let missing: Result<(), NetlinkError> = host.run(|| set_mtu(9999, 1400));
    assert!(missing.is_err() && host.run(|| index("left")) > 0);
}

/// Rules and routes, of ways too.
fn listing() -> Vec<String> {
    let rules = [2, 10].map(|family| format!("{:?}", routing::rules(family)));
    rules.into_iter().chain((routing::MARKED..=routing::MARKED + 7).flat_map(routing::routes)).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
