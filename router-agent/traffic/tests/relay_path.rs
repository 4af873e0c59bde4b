//! How a relay's packets leave a host that lets nothing out: its raw sockets, and the rules that know their mark.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::net::{IpAddr, UdpSocket};

use namespace::{A4, A6, B4, B6, Namespace, QUIET, SOON, add_address, add_route, address, link, privileged, receive};
use raw::packet;
use smoltcp::wire::Ipv4Packet;
use traffic::relay::{NotSent, Outlet, RawOutlet};
use traffic::routes;
use traffic::rules::{self, HostRules, RELAYED_MARK, Role};

const MARK: u32 = RELAYED_MARK | routes::MARK;
const UDP: u8 = 17;
/// The sender, whom neither end of the link is.
const S4: &str = "192.0.2.77";
const S6: &str = "fd77::1";
/// An address of the relay besides the one that packets come to.
const OWN4: &str = "192.168.44.1";
const OWN6: &str = "fd44::1";

/// A relay with its rules, and the node behind it, which believes a source only from where it would answer it (strict reverse path).
fn relay_and_next(mtu: u32, rules: &HostRules) -> (Namespace, Namespace) {
    let (relay, next) = (Namespace::new(), Namespace::new());
    link(mtu, (&relay, "left", &[(A4, 24), (A6, 64)]), (&next, "right", &[(B4, 24), (B6, 64)]));
    for scope in ["all", "right"] {
        next.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "1");
    }
    add_route(&next, "192.0.2.0", 24, A4);
    add_route(&next, "fd77::", 64, A6);
    relay.run(|| {
        add_address("left", OWN4.parse().unwrap(), 24);
        add_address("left", OWN6.parse().unwrap(), 64);
        rules.install().unwrap();
    });
    (relay, next)
}

fn rules_of_a_relay() -> HostRules {
    HostRules { relayed: Some(MARK), ..HostRules::new(3, 4, 30_270) }
}

fn outlet(relay: &Namespace, mark: u32) -> RawOutlet {
    relay.run(|| RawOutlet::open(mark).unwrap())
}

fn datagram(from: &str, to: &str, len: usize) -> Vec<u8> {
    let mut udp = [&5000u16.to_be_bytes()[..], &9000u16.to_be_bytes(), &u16::try_from(8 + len).unwrap().to_be_bytes(), &[0, 0]].concat();
    udp.resize(8 + len, 0x55);
    packet((from, to), UDP, udp, 6)
}

fn send(outlet: &mut RawOutlet, to: &str, packet: &[u8]) -> Result<(), NotSent> {
    outlet.send(to.parse().unwrap(), packet)
}

fn source(socket: &UdpSocket) -> Option<IpAddr> {
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.recv_from(&mut [0; 2000]).ok().map(|(_, from)| from.ip())
}

#[test]
fn what_a_relay_sends_on_comes_in_the_senders_name_to_a_node_that_believes_no_other_way() {
    if !privileged() {
        return;
    }
    let (relay, next) = relay_and_next(1500, &rules_of_a_relay());
    let mut outlet = outlet(&relay, MARK);
    for (from, to) in [(S4, B4), (S6, B6)] {
        let application = next.udp(address(to, 9000));
        for len in [10, 1400] {
            send(&mut outlet, to, &datagram(from, to, len)).unwrap();
            assert_eq!(source(&application), Some(from.parse().unwrap()));
        }
    }
}

#[test]
fn a_datagram_that_comes_to_a_relay_in_parts_is_whole_behind_it() {
    if !privileged() {
        return;
    }
    let (relay, next) = relay_and_next(1500, &rules_of_a_relay());
    let mut outlet = outlet(&relay, MARK);
    for (from, to, header) in [(S4, B4, 20), (S6, B6, 40)] {
        let application = next.udp(address(to, 9000));
        let whole = datagram(from, to, 3000);
        for (place, part) in whole[header..].chunks(1000).enumerate().collect::<Vec<_>>().into_iter().rev() {
            let is_last = header + (place + 1) * 1000 >= whole.len();
            send(&mut outlet, to, &part_of(&whole, part, u16::try_from(place * 1000).unwrap(), !is_last)).unwrap();
        }
        application.set_read_timeout(Some(SOON)).unwrap();
        let (len, by) = application.recv_from(&mut [0; 4000]).unwrap();
        assert_eq!((len, by.ip()), (3000, from.parse::<IpAddr>().unwrap()));
    }
}

/// who is admitted may send what never becomes whole; the relay's own memory for fragments has no part in it.
#[test]
fn parts_leave_a_relay_as_they_come_and_those_without_a_rest_keep_no_datagram_from_passing() {
    if !privileged() {
        return;
    }
    const PARTS: u32 = 4000;
    let (relay, next) = relay_and_next(1500, &rules_of_a_relay());
    let mut outlet = outlet(&relay, MARK);
    for (from, to, header) in [(S4, B4, 20), (S6, B6, 40)] {
        let (before, whole) = (arrived_at(&next), datagram(from, to, 3000));
        for identification in 0..PARTS {
            let mut first = part_of(&whole, &whole[header..header + 1000], 0, true);
            if header == 20 {
                first[4..6].copy_from_slice(&u16::try_from(identification + 1).unwrap().to_be_bytes());
                Ipv4Packet::new_unchecked(&mut first).fill_checksum();
            } else {
                first[44..48].copy_from_slice(&identification.to_be_bytes());
            }
            while send(&mut outlet, to, &first) == Err(NotSent::Busy) {
                std::thread::yield_now();
            }
        }
        let passed = || arrived_at(&next) - before;
        let deadline = std::time::Instant::now() + SOON;
        while passed() < PARTS.into() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(passed() >= PARTS.into(), "{} of {PARTS} parts to {to}", passed());
    }
}

/// Packets that the node behind the relay has received by its link.
fn arrived_at(host: &Namespace) -> u64 {
    let devices = host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("right")?.strip_prefix(':')).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A fragment of a packet: `part` from `offset` on.
fn part_of(whole: &[u8], part: &[u8], offset: u16, more: bool) -> Vec<u8> {
    if whole[0] >> 4 == 4 {
        let mut packet = [&whole[..20], part].concat();
        let (length, field) = (u16::try_from(packet.len()).unwrap(), (u16::from(more) << 13) | (offset / 8));
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[4..6].copy_from_slice(&[0x12, 0x34]);
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
        packet
    } else {
        let mut header = whole[..40].to_vec();
        header[4..6].copy_from_slice(&u16::try_from(part.len() + 8).unwrap().to_be_bytes());
        header[6] = 44;
        [&header[..], &[whole[6], 0], &(offset | u16::from(more)).to_be_bytes(), &[1, 2, 3, 4], part].concat()
    }
}

/// A relay needs no forwarding. Where it is on nevertheless, what the kernel would forward has been judged by nobody.
#[test]
fn what_a_relays_kernel_would_forward_is_dropped_and_counted_and_so_it_stays_without_the_daemon() {
    if !privileged() {
        return;
    }
    let relay_rules = rules_of_a_relay();
    for (rules, arrives) in [(relay_rules, false), (HostRules::new(3, 4, 30_270), true)] {
        let (relay, next) = relay_and_next(1500, &rules);
        let sender = Namespace::new();
        link(1500, (&sender, "out", &[(S4, 24), (S6, 64)]), (&relay, "in", &[("192.0.2.1", 24), ("fd77::ff", 64)]));
        add_route(&sender, "0.0.0.0", 0, "192.0.2.1");
        add_route(&sender, "::", 0, "fd77::ff");
        relay.sysctl("net/ipv4/ip_forward", "1");
        relay.sysctl("net/ipv6/conf/all/forwarding", "1");
        for to in [B4, B6] {
            let application = next.udp(address(to, 9000));
            let any = if to == B4 { S4 } else { S6 };
            sender.udp(address(any, 5000)).send_to(&[1; 10], address(to, 9000)).unwrap();
            assert_eq!(receive(&application, if arrives { SOON } else { QUIET }).is_some(), arrives, "{to}");
        }
        let counters = relay.run(|| rules::counters(Role::Host).unwrap());
        let dropped: u64 = counters.iter().filter(|counter| counter.rule == "forwarded unjudged").map(|counter| counter.packets).sum();
        assert_eq!(dropped, if arrives { 0 } else { 2 });
    }
}

#[test]
fn nothing_leaves_so_without_the_mark_or_where_the_host_is_no_relay() {
    if !privileged() {
        return;
    }
    for (rules, mark) in [(rules_of_a_relay(), routes::MARK), (rules_of_a_relay(), RELAYED_MARK), (HostRules::new(3, 4, 30_270), MARK)] {
        let (relay, next) = relay_and_next(1500, &rules);
        let mut outlet = outlet(&relay, mark);
        for (from, to) in [(S4, B4), (S6, B6)] {
            let application = next.udp(address(to, 9000));
            // The queue has no listener here, which is a drop that the socket does not hear of.
            let _ = send(&mut outlet, to, &datagram(from, to, 10));
            assert_eq!(receive(&application, QUIET), None, "{mark:#x}");
        }
    }
}

#[test]
fn nothing_is_sent_on_to_the_relay_itself_whichever_addresses_it_has() {
    if !privileged() {
        return;
    }
    let (relay, _next) = relay_and_next(1500, &rules_of_a_relay());
    let mut outlet = outlet(&relay, MARK);
    for (from, own) in [(S4, A4), (S4, OWN4), (S4, "127.0.0.1"), (S6, A6), (S6, OWN6), (S6, "::1")] {
        let service = relay.udp(address(own, 9000));
        assert_eq!(send(&mut outlet, own, &datagram(from, own, 10)), Err(NotSent::Filtered), "{own}");
        assert_eq!(receive(&service, QUIET), None);
    }
    let counters = relay.run(|| rules::counters(Role::Host).unwrap());
    let refused: u64 = counters.iter().filter(|counter| counter.rule == "relayed to this host").map(|counter| counter.packets).sum();
    assert_eq!(refused, 6);
}

#[test]
fn what_is_too_long_and_what_has_no_route_is_told_apart() {
    if !privileged() {
        return;
    }
    let (relay, next) = relay_and_next(1400, &rules_of_a_relay());
    let mut outlet = outlet(&relay, MARK);
    for (from, to, nowhere) in [(S4, B4, "203.0.113.1"), (S6, B6, "fd99::1")] {
        assert_eq!(outlet.carried(to.parse().unwrap()), Some(1400));
        let headers = if to == B4 { 28 } else { 48 };
        assert_eq!(send(&mut outlet, to, &datagram(from, to, 1401 - headers)), Err(NotSent::TooBig));
        let application = next.udp(address(to, 9000));
        send(&mut outlet, to, &datagram(from, to, 1400 - headers)).unwrap();
        assert_eq!(receive(&application, SOON).unwrap().len(), 1400 - headers);
        assert_eq!(send(&mut outlet, nowhere, &datagram(from, nowhere, 10)), Err(NotSent::NoRoute));
        assert_eq!(outlet.carried(nowhere.parse().unwrap()), None);
    }
}
