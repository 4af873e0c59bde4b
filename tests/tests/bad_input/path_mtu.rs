//! Forged ICMP errors "too big" that quote a node's own signalling: whoever sends them sets no path's MTU.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use nix::sys::socket::getsockopt;
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{LEFT_LINK, RECEIVER, RECEIVER6, ROUTER_LEFT, ROUTER_LEFT6, SENDER, SENDER_LINK, SENDER6};
use pbs_lab::process::Program::{Host, Router};

use crate::support::daemon::wait_until;
use crate::support::end_in;
use crate::support::site::{ASSOCIATION_PORT, Site};
use crate::support::with_config;

/// The MTU that a forged error tells: the least that the kernel believes of IPv4 by default, and the least of IPv6.
const FORGED: [u16; 2] = [552, 1280];
/// What a path may have at least that nobody has forged: links have 1500, of which the main table's routes leave room for AH.
const HONEST: i32 = 1400;

/// The kernel's own belief is asked for by a plain socket, and that the attack works by a plain socket's datagrams.
#[test]
fn a_forged_too_big_about_signalling_changes_no_path() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let chain = &site.chain;
    let (host, router) = (site.start_sender(), site.start_router());
    let at_host = Injector::new(&chain.router, LEFT_LINK, &chain.sender, SENDER_LINK).unwrap();
    let at_router = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK).unwrap();
    let (routers, receivers) = ([ROUTER_LEFT, ROUTER_LEFT6], [RECEIVER, RECEIVER6]);
    let hosts = [SENDER, SENDER6];
    let nodes = [
        Victim { node: &chain.sender, attacker: &at_host, own: hosts, peers: receivers, from: routers },
        Victim { node: &chain.router, attacker: &at_router, own: routers, peers: hosts, from: hosts },
    ];
    let attack = |port: u16| {
        for Victim { attacker, own, peers, from, .. } in &nodes {
            for version in 0..2 {
                let (own, peer, from, mtu) = (own[version], peers[version], from[version], FORGED[version]);
                let quotes = [
                    packet::udp((own, port), (peer, 270), &[0; 600]).unwrap(),
                    packet::udp((own, port), (peer, port), &[0; 600]).unwrap(),
                    packet::tcp_syn((own, ASSOCIATION_PORT), (peer, 40_000)).unwrap(),
                    packet::tcp_syn((own, 40_000), (peer, ASSOCIATION_PORT)).unwrap(),
                ];
                for quote in quotes {
                    attacker.send(&[packet::too_big(from, own, mtu, &quote).unwrap()]).unwrap();
                }
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    let believed = || nodes.iter().flat_map(|victim| victim.peers.map(|peer| path_mtu(victim.node, peer))).collect::<Vec<_>>();
    let before = believed();
    assert!(before.iter().all(|mtu| *mtu >= HONEST), "{before:?}");
    attack(270);
    assert_eq!(believed(), before, "the rules stand");
    // The sockets alone do not believe it either.
    for (node, program, name) in [(&chain.sender, Host, "sender"), (&chain.router, Router, "router")] {
        end_in(node, with_config(program, "open", site.files.path(format!("{name}.toml"))).arg("--yes")).must_say(0, &[]);
    }
    wait_until("what `open` gives back is there", || believed().iter().all(|mtu| *mtu == 1500));
    attack(270);
    assert_eq!(believed(), [1500; 4], "the daemons run, and no rules stand");
    let plain = |victim: &Victim<'_>| victim.own.map(|own| victim.node.run(|| UdpSocket::bind((own, 7000))).unwrap());
    let _plain: Vec<_> = nodes.iter().map(plain).collect();
    attack(7000);
    assert_eq!(believed(), [552, 1280, 552, 1280], "of any other socket everybody can say it");
    drop((host, router));
}

/// A node, who can put packets on its link, and addresses of both IP versions: its own, those whose path is in question, and those in
/// whose name the errors come.
struct Victim<'a> {
    node: &'a Namespace,
    attacker: &'a Injector,
    own: [IpAddr; 2],
    peers: [IpAddr; 2],
    from: [IpAddr; 2],
}

/// What the kernel believes of the path to an address.
fn path_mtu(node: &Namespace, to: IpAddr) -> i32 {
    let any = if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = node.run(|| UdpSocket::bind((any, 0))).unwrap();
    socket.connect((to, 9)).unwrap();
    if to.is_ipv4() { getsockopt(&socket, option::Ipv4Mtu) } else { getsockopt(&socket, option::Ipv6Mtu) }.unwrap()
}

/// Socket options that the library does not name.
mod option {
    use nix::{getsockopt_impl, libc, sockopt_impl};

    sockopt_impl!(Ipv4Mtu, GetOnly, libc::IPPROTO_IP, libc::IP_MTU, libc::c_int);
    sockopt_impl!(Ipv6Mtu, GetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU, libc::c_int);
}
