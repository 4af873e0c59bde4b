//! A link that carries what IPv6 demands of every link, and no more.
//!
//! ```text
//! sender -- router1 == 1280 == router2 -- receiver
//! ```

use std::net::UdpSocket;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{GetSockOpt, setsockopt};
use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::topology::Family::{self, Ipv4, Ipv6};

use crate::console::Console;
use crate::row::{PATIENCE, PORT, Row, Side, await_that, data};

const NARROW: u32 = 1280;
/// Number of the narrow link.
const SECOND: usize = 1;
/// Octets of the longest message of an application.
const LONGEST: usize = 16_380;
/// What AH takes with a shared key, and with signatures.
const fn ah(family: Family) -> (usize, usize) {
    if matches!(family, Ipv4) { (28, 76) } else { (32, 80) }
}
/// IP and UDP.
const fn headers(family: Family) -> usize {
    if matches!(family, Ipv4) { 28 } else { 48 }
}

/// G-055, G-370: messages of every length that an application may have cross in segments, in datagrams those of 512 octets at most; nothing
/// is ever longer than the link, or in fragments.
#[test]
fn signalling_fits_a_link_of_1280_octets() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let row = Row::build(&["sender", "passer", "forwarder", "receiver"], Some((SECOND, NARROW)));
    let link = row.capture("forwarder", Side::Left);
    let start = |name: &str, more: &[&str]| Console::start(row.host(name), &row.arguments(name), more);
    for (round, (transport, more)) in [("udp", None), ("tcp", Some("--plain-port=30271"))].into_iter().enumerate() {
        let more: Vec<&str> = std::iter::once("--nslp-id=32720").chain(more).collect();
        let (mut receiver, mut sender) = (start("receiver", &more), start("sender", &more));
        for family in [Ipv4, Ipv6] {
            let (from, to) = (family.sender(), family.receiver());
            let session = format!("{:02x}", round * 2 + usize::from(family == Ipv6)).repeat(16);
            let say = |length: usize| format!("send {from} {to} {} session={session} protocol=17", "x".repeat(length));
            let longest = if transport == "udp" { 256 } else { LONGEST };
            sender.say(&say(longest));
            let received = receiver.event("received");
            assert_eq!((&received["transport"], received["payload"].as_str().unwrap().len()), (&transport.into(), longest * 2));
            if transport == "udp" {
                sender.say(&say(LONGEST));
                assert_eq!(sender.event("message_status")["error"], "too_large");
            }
        }
    }
    check_link(&link);
}

/// No packet is longer than the link carries; how many are fragments.
fn check_link(link: &Capture) {
    let fragments = link.look(|frames| {
        let packets = frames.iter().filter_map(|frame| frame.ip());
        packets.inspect(|packet| assert!(frame::read(packet).is_none_or(|seen| seen.length <= NARROW as usize))).filter(is_fragment).count()
    });
    assert_eq!(fragments, 0, "signalling is never in fragments");
}

fn is_fragment(packet: &&[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet[6] & 0x3f != 0 || packet[7] != 0,
        _ => packet[6] == 44,
    }
}

/// X-59, X-87: over IPv4 a program that measures the path is told what is left beside the largest AH, and that arrives. Over IPv6 nobody can
/// be told less than 1280: what leaves no room for AH (1280 with it would be 1312, signed 1360) arrives in fragments, and nothing is lost
/// without a word.
#[test]
fn data_beside_ah_over_a_link_of_1280_octets_is_told_or_fragmented() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut row = Row::build(&["sender", "router1", "router2", "receiver"], Some((SECOND, NARROW)));
    let link = row.capture("router2", Side::Left);
    row.start_daemons("");
    for family in [Ipv4, Ipv6] {
        let (sender, receiver) = row.sockets(family, PORT);
        let (present, largest) = ah(family);
        let whole = NARROW as usize - headers(family);
        // What fits with AH goes as it is.
        let fitting = whole - if family == Ipv4 { largest } else { present };
        assert_eq!(exchange(&sender, &receiver, fitting), Some(1), "{family:?}: {fitting} octets");
        // What is a whole packet of the link without AH, and larger ones, take one that is lost and tells, at the most.
        let tries: Vec<_> = [whole, 1400, 4000].map(|length| (length, exchange(&sender, &receiver, length))).into();
        println!("  {family:?}: tries {tries:?}, the path's MTU to the program is {}", mtu(&sender));
        assert!(tries.iter().all(|(_, tries)| tries.is_some()), "{family:?}: {tries:?}\n{}", row.logs());
        assert!(tries.iter().filter(|(_, tries)| *tries > Some(1)).count() <= 1, "{family:?}: {tries:?}");
        let told = if family == Ipv4 { NARROW as usize - largest } else { NARROW as usize };
        assert_eq!(mtu(&sender), told, "{family:?}");
        forbid_fragments(&sender);
        let refused = sender.send(&vec![0; told - headers(family) + 1]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE), "{family:?}");
        let lengths = data(&link, PORT);
        assert!(lengths.iter().all(|length| *length <= NARROW as usize), "{family:?}: {lengths:?}");
    }
}

/// X-68, X-33: the least packet that IPv6 lets any link carry needs 1312 octets under a shared key, 1320 under AES-GMAC, 1360 under signatures
/// of 64 octets: on such links it goes whole, and a program that measures the path is told what leaves room for all, 1280.
#[test]
fn the_least_ipv6_packet_goes_whole_under_ah_where_the_link_carries_1312_with_gmac_1320_or_signed_1360() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for (carries, of_grants) in [(1312, ""), (1320, "mac = \"aes-128-gmac\"\n"), (1360, "signed = true\n")] {
        let mut row = Row::build(&["sender", "router1", "router2", "receiver"], Some((SECOND, carries)));
        let link = row.capture("router2", Side::Left);
        row.start_daemons(of_grants);
        let (sender, receiver) = row.sockets(Ipv6, PORT);
        let whole = NARROW as usize - headers(Ipv6);
        assert_eq!(exchange(&sender, &receiver, whole), Some(1), "{carries}");
        await_that("no packet as long as the link allows", || data(&link, PORT).iter().max() == Some(&(carries as usize)));
        // One more is one too many: lost once, and told.
        assert!(exchange(&sender, &receiver, whole + 1).is_some_and(|tries| tries <= 2), "{carries}");
        assert_eq!(mtu(&sender), NARROW as usize, "{carries}");
        assert!(data(&link, PORT).iter().all(|length| *length <= carries as usize), "{carries}");
    }
}

/// Sends a datagram until it arrives; the how manieth try that was.
fn exchange(sender: &UdpSocket, receiver: &UdpSocket, length: usize) -> Option<usize> {
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let datagram: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let arrived = (1..=5).find(|_| {
        // A pending error is told once.
        let _ = sender.take_error();
        if sender.send(&datagram).is_err() {
            std::thread::sleep(Duration::from_millis(50));
            return false;
        }
        let mut buffer = vec![0; 8192];
        receiver.recv(&mut buffer).is_ok_and(|length| buffer[..length] == datagram)
    });
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    arrived
}

fn forbid_fragments(socket: &UdpSocket) {
    if socket.local_addr().unwrap().is_ipv4() {
        setsockopt(socket, option::Ipv4PathMtuDiscovery, &libc::IP_PMTUDISC_DO).unwrap();
    } else {
        setsockopt(socket, option::Ipv6PathMtuDiscovery, &libc::IPV6_PMTUDISC_DO).unwrap();
    }
}

/// The MTU of a connected socket's path.
fn mtu(socket: &UdpSocket) -> usize {
    let mtu: std::io::Result<libc::c_int> = if socket.local_addr().unwrap().is_ipv4() {
        option::Ipv4Mtu.get(socket).map_err(std::io::Error::from)
    } else {
        option::Ipv6Mtu.get(socket).map_err(std::io::Error::from)
    };
    usize::try_from(mtu.unwrap()).unwrap()
}

/// Socket options that the library does not name.
mod option {
    use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(Ipv4PathMtuDiscovery, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int);
    sockopt_impl!(Ipv6PathMtuDiscovery, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int);
    sockopt_impl!(Ipv4Mtu, GetOnly, libc::IPPROTO_IP, libc::IP_MTU, libc::c_int);
    sockopt_impl!(Ipv6Mtu, GetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU, libc::c_int);
}
