//! An association on another way out: all its segments go there and none where routing leads, and what comes back is let in, with
//! a strict reverse path filter at every node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use namespace::{Namespace, SOON, add_address, add_route, address, index, link, privileged};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt, socket, sockopt};
use traffic::paths::{MASK, NextHop, NextHops, mark};
use traffic::rules::{self, ASSOCIATION_MARK, HostRules, LISTENER_MARK, Role};

const PORT: u16 = 30_270;
/// The host's address, the one of its flows; and the peer's, which is no neighbour's.
const HOST: [&str; 2] = ["10.1.1.1", "fd01::1"];
const PEER: [&str; 2] = ["10.9.9.9", "fd99::9"];

struct Network {
    host: Namespace,
    peer: Namespace,
    _routers: [Namespace; 2],
}

/// Two plain routers between host and peer. Routing leads over the first, which forwards nothing; all that the peer sends goes over
/// the second.
fn network() -> Network {
    let [host, peer, first, second] = [(); 4].map(|()| Namespace::new());
    let v4 = |network: u8, end: u8| format!("192.168.{network}.{end}");
    let v6 = |network: u8, end: u8| format!("fd{network}::{end}");
    for node in [&host, &peer, &first, &second] {
        node.sysctl("net/ipv4/conf/all/rp_filter", "1");
        node.sysctl("net/ipv4/conf/default/rp_filter", "1");
    }
    let join = |network: u8, left: (&Namespace, &str), right: (&Namespace, &str)| {
        let (a, b) = ((v4(network, 1), v6(network, 1)), (v4(network, 2), v6(network, 2)));
        link(1500, (left.0, left.1, &[(&a.0, 24), (&a.1, 64)]), (right.0, right.1, &[(&b.0, 24), (&b.1, 64)]));
    };
    join(20, (&host, "one"), (&first, "near"));
    join(30, (&host, "two"), (&second, "near"));
    join(40, (&first, "far"), (&peer, "one"));
    join(50, (&second, "far"), (&peer, "two"));
    for (node, own) in [(&host, HOST), (&peer, PEER)] {
        let prefixes = [32, 128];
        node.run(|| own.into_iter().zip(prefixes).for_each(|(own, prefix)| add_address("lo", own.parse().unwrap(), prefix)));
    }
    for (node, to_host, to_peer) in [(&first, v4(20, 1), v4(40, 2)), (&second, v4(30, 1), v4(50, 2))] {
        add_route(node, HOST[0], 32, &to_host);
        add_route(node, PEER[0], 32, &to_peer);
    }
    add_route(&second, HOST[1], 128, &v6(30, 1));
    add_route(&second, PEER[1], 128, &v6(50, 2));
    second.sysctl("net/ipv4/ip_forward", "1");
    second.sysctl("net/ipv6/conf/all/forwarding", "1");
    for (everywhere, at_host, at_peer) in [("0.0.0.0", v4(20, 2), v4(50, 1)), ("::", v6(20, 2), v6(50, 1))] {
        add_route(&host, everywhere, 0, &at_host);
        add_route(&peer, everywhere, 0, &at_peer);
    }
    Network { host, peer, _routers: [first, second] }
}

#[test]
fn an_association_on_another_way_passes_both_ways_where_the_routed_one_is_dead() {
    if !privileged() {
        return;
    }
    let Network { host, peer, _routers } = network();
    peer.run(|| HostRules::new(3, 4, PORT).install().unwrap());
    let bits = mark(MASK, 2);
    let rules = HostRules { path_mark: MASK, ways: vec![("two".to_owned(), bits)], ..HostRules::new(3, 4, PORT) };
    host.run(|| rules.install().unwrap());
    host.run(|| {
        let hops = NextHops::open(MASK).unwrap();
        for via in ["192.168.30.2", "fd30::2"] {
            hops.set_up(NextHop { path: 2, link: index("two"), via: Some(via.parse().unwrap()) }).unwrap();
        }
    });
    for (from, to) in HOST.into_iter().zip(PEER).map(|(from, to)| (address(from, 0), address(to, PORT))) {
        let listener = peer.run(|| listener(to));
        assert!(host.run(|| stream(from, to, ASSOCIATION_MARK)).is_err(), "{to}: the routed way is dead");
        let mut client = host.run(|| stream(from, to, ASSOCIATION_MARK | bits).expect("the association opens on the other way"));
        let (mut accepted, origin) = listener.accept().unwrap();
        assert_eq!(origin.ip(), from.ip(), "from the address of the flows, whatever the link's own is");
        for _ in 0..2 {
            exchange(&mut client, &mut accepted);
            exchange(&mut accepted, &mut client);
        }
    }
    let of_rule = |chain: &str, rule: &str| -> Vec<u64> {
        let counters = host.run(|| rules::counters(Role::Host).unwrap());
        counters.iter().filter(|counter| counter.chain == chain && counter.rule == rule).map(|counter| counter.packets).collect()
    };
    let associations = of_rule("out-association", "within the bucket");
    assert!(associations.iter().all(|packets| *packets > 4), "known by their mark but for the bits: {associations:?}");
    assert_eq!((of_rule("outbound", "outbound"), of_rule("inbound", "inbound")), (vec![0, 0], vec![0, 0]), "nothing needed a permission");
}

/// Bits of a way make nobody's socket one of an association.
#[test]
fn bits_of_a_way_without_the_mark_let_nobody_use_the_port() {
    if !privileged() {
        return;
    }
    let Network { host, peer, _routers } = network();
    host.run(|| HostRules { path_mark: MASK, ..HostRules::new(3, 4, PORT) }.install().unwrap());
    host.run(|| {
        let hop = NextHop { path: 2, link: index("two"), via: Some("192.168.30.2".parse().unwrap()) };
        NextHops::open(MASK).unwrap().set_up(hop).unwrap();
    });
    let (from, to) = (address(HOST[0], 0), address(PEER[0], PORT));
    let listener = peer.run(|| listener(to));
    listener.set_nonblocking(true).unwrap();
    for bits in [mark(MASK, 2), mark(MASK, 2) | 0x1000_0000 | ASSOCIATION_MARK] {
        assert!(host.run(|| stream(from, to, bits)).is_err(), "{bits:#x}");
        assert!(listener.accept().is_err(), "{bits:#x}");
    }
}

fn marked(at: SocketAddr, mark: u32) -> std::os::fd::OwnedFd {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::Mark, &mark).unwrap();
    setsockopt(&socket, sockopt::IpTransparent, &true).unwrap();
    socket
}

fn listener(at: SocketAddr) -> TcpListener {
    let everywhere = if at.is_ipv4() { address("0.0.0.0", at.port()) } else { address("::", at.port()) };
    let socket = marked(at, LISTENER_MARK);
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    if at.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true).unwrap();
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(everywhere)).unwrap();
    listen(&socket, Backlog::new(16).unwrap()).unwrap();
    TcpListener::from(socket)
}

/// Connects within 0.6 s.
fn stream(from: SocketAddr, to: SocketAddr, mark: u32) -> std::io::Result<TcpStream> {
    let socket = marked(to, mark);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_millis(600)))?;
    connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(stream)
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"Confirm").unwrap();
    let mut buffer = [0; 7];
    to.set_read_timeout(Some(SOON)).unwrap();
    to.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"Confirm");
}
