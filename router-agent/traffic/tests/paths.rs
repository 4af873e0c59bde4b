//! Other ways out, in the kernel: who goes by them, that they go away again, and whether somebody is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;

use std::net::IpAddr;

use namespace::{Namespace, QUIET, SOON, add_route, address, eventually, index, link, privileged, receive, set_link};
use nix::sys::socket::{setsockopt, sockopt};
use traffic::paths::{Finding, MASK, Neighbours, NextHop, NextHops, mark, restore};
use traffic::routes::MtuPlan;

/// A host with two links, one to each of two others that have the same address further on.
fn fork() -> (Namespace, Namespace, Namespace) {
    let (host, first, second) = (Namespace::new(), Namespace::new(), Namespace::new());
    link(1500, (&host, "one", &[("192.168.20.1", 24), ("fd20::1", 64)]), (&first, "up", &[("192.168.20.2", 24), ("fd20::2", 64)]));
    link(1500, (&host, "two", &[("192.168.30.1", 24), ("fd30::1", 64)]), (&second, "up", &[("192.168.30.2", 24), ("fd30::2", 64)]));
    for other in [&first, &second] {
        other.run(|| {
            namespace::add_address("lo", "10.9.9.9".parse().unwrap(), 32);
            namespace::add_address("lo", "fd99::9".parse().unwrap(), 128);
        });
        other.sysctl("net/ipv4/conf/all/rp_filter", "0");
        other.sysctl("net/ipv4/conf/up/rp_filter", "0");
    }
    add_route(&host, "0.0.0.0", 0, "192.168.20.2");
    add_route(&host, "::", 0, "fd20::2");
    (host, first, second)
}

fn hops() -> [NextHop; 2] {
    let link = index("two");
    ["192.168.30.2", "fd30::2"].map(|via| NextHop { path: 2, link, via: Some(via.parse().unwrap()) })
}

#[test]
fn packets_with_a_ways_bits_leave_by_it_and_no_others_do() {
    if !privileged() {
        return;
    }
    let (host, first, second) = fork();
    // Room for AH as on a real host; its marked packets go the way of their bits too.
    host.run(|| MtuPlan::new(28, 32).apply().unwrap());
    let before = host.run(listing);
    let ways = host.run(|| NextHops::open(MASK).unwrap());
    host.run(|| hops().into_iter().for_each(|hop| ways.set_up(hop).unwrap()));
    host.run(|| hops().into_iter().for_each(|hop| ways.set_up(hop).unwrap()));
    for (to, from) in [("10.9.9.9", "192.168.20.1"), ("fd99::9", "fd20::1")] {
        let [at_first, at_second] = [&first, &second].map(|other| other.udp(address(to, 5001)));
        let sender = host.udp(address(from, 0));
        let send = |bits: u32, text: &[u8]| {
            setsockopt(&sender, sockopt::Mark, &bits).unwrap();
            sender.send_to(text, address(to, 5001)).unwrap();
        };
        send(mark(MASK, 2), b"other");
        assert_eq!(receive(&at_second, SOON).unwrap(), b"other");
        send(mark(MASK, 2) | traffic::routes::MARK, b"with AH");
        assert_eq!(receive(&at_second, SOON).unwrap(), b"with AH");
        for bits in [0, traffic::routes::MARK, mark(MASK, 1), mark(MASK, 3)] {
            send(bits, b"routed");
            assert_eq!(receive(&at_first, SOON).unwrap(), b"routed", "{bits:#x}");
        }
        assert_eq!(receive(&at_second, QUIET), None);
    }
    host.run(|| ways.take_down(2).unwrap());
    assert_eq!(host.run(listing), before);
    host.run(|| ways.take_down(2).unwrap());
}

/// a path that begins with a way is told to the way's table, and to no other; it goes when the way does.
#[test]
fn a_narrow_path_is_told_to_the_way_that_it_begins_with() {
    if !privileged() {
        return;
    }
    let (host, ..) = fork();
    host.run(|| {
        MtuPlan::new(28, 32).apply().unwrap();
        let before = listing();
        let ways = NextHops::open(MASK).unwrap();
        hops().into_iter().for_each(|hop| ways.set_up(hop).unwrap());
        let others = [routing::MAIN, routing::MARKED].map(routing::routes);
        let destination = "fd99::9".parse().unwrap();
        assert!(ways.narrow(2, destination, 1400).unwrap() && !ways.narrow(2, destination, 1450).unwrap());
        assert!(!ways.narrow(2, destination, 1500).unwrap(), "no less than its link carries");
        assert!(!ways.narrow(3, destination, 1400).unwrap(), "nothing leads by that way");
        let of_way = routing::routes(routing::MARKED + 2);
        let [path] = &of_way.iter().filter(|line| line.starts_with("fd99::9/128")).collect::<Vec<_>>()[..] else { panic!("{of_way:?}") };
        assert!(path.contains("via fd30::2") && path.contains("mtu 1400 expires"), "{path}");
        assert_eq!([routing::MAIN, routing::MARKED].map(routing::routes), others);
        ways.take_down(2).unwrap();
        assert_eq!(listing(), before);
        hops().into_iter().for_each(|hop| ways.set_up(hop).unwrap());
        assert!(ways.narrow(2, destination, 1400).unwrap());
        restore().unwrap();
        assert_eq!(listing(), before, "nor is anything left of a killed daemon's");
    });
}

#[test]
fn what_a_killed_daemon_has_left_is_removed_whatever_bits_it_used() {
    if !privileged() {
        return;
    }
    let (host, ..) = fork();
    let before = host.run(listing);
    host.run(|| {
        hops().into_iter().for_each(|hop| NextHops::open(MASK).unwrap().set_up(hop).unwrap());
        NextHops::open(0x0030_0000).unwrap().set_up(NextHop { path: 1, link: index("two"), via: None }).unwrap();
    });
    assert_ne!(host.run(listing), before);
    host.run(|| restore().unwrap());
    assert_eq!(host.run(listing), before);
    host.run(|| restore().unwrap());
}

#[test]
fn a_neighbour_that_is_there_answers_and_one_that_falls_silent_is_gone() {
    if !privileged() {
        return;
    }
    let (host, _, second) = fork();
    host.run(|| {
        let neighbours = Neighbours::open().unwrap();
        let link = neighbours.link("two").unwrap().expect("the link is up");
        assert_eq!(neighbours.link("three").unwrap(), None);
        for (there, nobody) in [("192.168.30.2", "192.168.30.77"), ("fd30::2", "fd30::77")].map(|(a, b)| (ip(a), ip(b))) {
            neighbours.ask(link, there).unwrap();
            neighbours.ask(link, nobody).unwrap();
            eventually("the neighbour answers", || neighbours.find(link, there).unwrap() == Finding::Answers);
            assert_eq!(neighbours.find(link, nobody).unwrap(), Finding::Gone);
        }
    });
    // It answers nobody any more; it is asked three times.
    host.sysctl("net/ipv4/neigh/two/retrans_time_ms", "100");
    second.sysctl("net/ipv4/conf/up/arp_ignore", "8");
    host.run(|| {
        let neighbours = Neighbours::open().unwrap();
        let link = neighbours.link("two").unwrap().unwrap();
        neighbours.ask(link, ip("192.168.30.2")).unwrap();
        eventually("it is gone", || neighbours.find(link, ip("192.168.30.2")).unwrap() == Finding::Gone);
    });
    second.run(|| set_link("up", false));
    host.run(|| {
        let neighbours = Neighbours::open().unwrap();
        eventually("the link is seen to be down", || neighbours.link("two").unwrap().is_none());
        let ways = NextHops::open(MASK).unwrap();
        assert!(ways.set_up(NextHop { path: 1, link: index("two"), via: Some(ip("192.168.99.1")) }).is_err(), "nobody on the link");
        assert_eq!(routing::rules(2).len(), 3, "and nothing leads there");
    });
}

/// Rules and routes, of other ways too.
fn listing() -> Vec<String> {
    let rules = [2, 10].map(|family| format!("{:?}", routing::rules(family)));
    let tables = [routing::MAIN].into_iter().chain(routing::MARKED..=routing::MARKED + 7);
    rules.into_iter().chain(tables.flat_map(routing::routes)).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
