//! The shield of a router on real links: what has no permission does not come to the queue, and is counted by its reason; what has one goes
//! on, whatever comes beside it. See also `shield_lifetime`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;
mod shield_path;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use namespace::{SOON, address, admit, eventually, flow_of, privileged, receive};
use raw::Raw;
use shield_path::{
    AH, FAMILIES, LASTING, Path, SIGNALLING, SPI, UDP, both, datagram, forget_neighbour, in_one_fragment, quoting, sealed, settled,
    shielded,
};
use traffic::flow::Flow;
use traffic::queue::{Decision, Queue, QueueConfig};
use traffic::reason::DropReason;
use traffic::rules::{self, At, Bucket, Exempt, Mode, Modes, RouterRules};

#[test]
fn what_has_no_permission_is_dropped_before_the_queue_and_counted_by_the_reason_that_the_verifier_would_give() {
    // INV-01, P-147, P-154, X-58, X-59.
    if !privileged() {
        return;
    }
    for rules in both() {
        let mut path = Path::new(rules);
        for family @ [sender, _, _, receiver] in FAMILIES {
            let (from, to, raw) = path.ends(family);
            let ends = (sender, receiver);
            let before = path.dropped();
            let permitted = sealed(ends, SPI, 100);
            raw.send(&permitted);
            assert_eq!(path.came(), None, "{sender}: before there is a permission");
            admit(&path.admitted, from, to, SPI, LASTING);
            raw.send(&permitted);
            assert_eq!(path.came(), Some(permitted.len()), "{sender}");
            // In fragments, whole.
            raw::fragments(&permitted).iter().for_each(|fragment| raw.send(fragment));
            assert_eq!(path.came(), Some(permitted.len()), "{sender}: in fragments");
            if sender.contains(':') {
                // In one fragment that is all of it (RFC 6946).
                raw.send(&in_one_fragment(&permitted));
                assert_eq!(path.came(), Some(permitted.len()), "in one fragment");
                let counted = path.counted(DropReason::UnknownSpi);
                raw.send(&in_one_fragment(&sealed(ends, SPI + 2, 100)));
                eventually("it is counted", || path.counted(DropReason::UnknownSpi) == counted + 1);
            }
            // An error about a packet of the permission, which the verifier looks at, goes up; it comes from anybody.
            let back = (receiver, sender);
            let protocol = if sender.contains(':') { 58 } else { 1 };
            path.receiver.run(|| Raw::open(receiver)).send(&raw::packet(back, protocol, quoting(&permitted), 2));
            assert!(path.came().is_some(), "{sender}: an error");
            let flow = flow_of(from, to, SPI);
            let of_flow = datagram(ends, (flow.source_port, flow.destination_port));
            let bad = [
                (vec![sealed(ends, SPI + 1, 100)], DropReason::UnknownSpi),
                (raw::fragments(&sealed(ends, SPI + 1, 100)), DropReason::UnknownSpi),
                (vec![sealed((receiver, receiver), SPI, 100)], DropReason::UnknownSpi),
                (vec![of_flow], DropReason::MissingAh),
                (vec![datagram(ends, (1, 2))], DropReason::NoPermission),
                (vec![raw::echo(ends, 10)], DropReason::NoPermission),
                (vec![raw::packet(ends, AH, vec![UDP, 5, 0, 0], 2)], DropReason::Malformed),
            ];
            for (packets, reason) in bad {
                let counted = path.counted(reason);
                packets.iter().for_each(|packet| raw.send(packet));
                eventually("it is counted", || path.counted(reason) == counted + 1);
            }
            assert_eq!(path.came(), None, "{sender}: none of them comes to the queue");
            // With the one before the permission, and the one fragment.
            assert_eq!(path.dropped() - before, 8 + u64::from(sender.contains(':')), "{sender}: each once");
            settled(&path.admitted, path.admitted.forget(flow, SPI)).unwrap();
            raw.send(&permitted);
            assert_eq!(path.came(), None, "{sender}: removed");
        }
    }
}

/// what a tunnel carries is under SPIs that the rules cannot know. Strangers who write to others take nothing from its sender.
#[test]
fn errors_about_what_a_tunnel_carries_come_to_the_queue_whatever_strangers_send() {
    if !privileged() {
        return;
    }
    for rules in both() {
        let mut path = Path::new(rules);
        for [sender, _, _, receiver] in FAMILIES {
            let (from, to): (IpAddr, IpAddr) = (sender.parse().unwrap(), receiver.parse().unwrap());
            let ipv6 = sender.contains(':');
            let (tunnel, icmp, other) = if ipv6 { (41, 58, "fd20::77") } else { (4, 1, "192.168.20.77") };
            let raw = path.receiver.run(|| Raw::open(receiver));
            let about = |of: &str, len| raw::packet((receiver, of), icmp, quoting(&sealed((of, receiver), 77, len)), 2);
            let (error, of_strangers) = (about(sender, 100), about(other, 40));
            // More than a bucket holds, until it is empty.
            let flood = |path: &Path, packet: &[u8]| {
                let counted = path.counted(DropReason::ErrorRate);
                while path.counted(DropReason::ErrorRate) < counted + 20 {
                    (0..100).for_each(|_| raw.send(packet));
                }
            };
            let flow = Flow { protocol: tunnel, source_port: 0, destination_port: 0, ..flow_of(from, to, SPI) };
            settled(&path.admitted, path.admitted.admit(flow, SPI, LASTING)).unwrap();
            let second = Flow { destination: "192.0.2.1".parse().unwrap(), ..flow };
            let second = if ipv6 { Flow { destination: "2001:db8::1".parse().unwrap(), ..flow } } else { second };
            settled(&path.admitted, path.admitted.admit(second, SPI + 1, LASTING)).unwrap();
            settled(&path.admitted, path.admitted.forget(flow, SPI)).unwrap();
            flood(&path, &of_strangers);
            (0..10).for_each(|_| raw.send(&error));
            let came = std::iter::from_fn(|| path.came()).filter(|len| *len == error.len()).count();
            assert_eq!(came, 10, "{sender}");
            // With the last tunnel its sender is a stranger, too.
            settled(&path.admitted, path.admitted.forget(second, SPI + 1)).unwrap();
            flood(&path, &of_strangers);
            let counted = path.counted(DropReason::ErrorRate);
            (0..10).for_each(|_| raw.send(&error));
            eventually("it is one of many", || path.counted(DropReason::ErrorRate) > counted);
            while path.came().is_some() {}
        }
    }
}

/// Everything that is neither permitted nor forwarded reaches the router's own rules: nobody forgets a neighbour because of a flood.
#[test]
fn a_flood_dies_before_the_queue_and_a_permitted_flow_goes_on_also_when_neighbours_are_forgotten() {
    if !privileged() {
        return;
    }
    const PACKETS: usize = 1000;
    for rules in both() {
        let mut path = Path::new(rules);
        for family @ [sender, _, far, receiver] in FAMILIES {
            let (from, to, raw) = path.ends(family);
            let flooding = path.sender.run(|| Raw::open(sender));
            admit(&path.admitted, from, to, SPI, LASTING);
            let (dropped, done) = (path.dropped(), AtomicBool::new(false));
            let sent = std::thread::scope(|scope| {
                let flood = scope.spawn(|| {
                    let mut sent = 0;
                    while !done.load(Ordering::Relaxed) {
                        flooding.send(&sealed((sender, receiver), 1_000_000 + sent, 20));
                        flooding.send(&datagram((sender, receiver), (7, 7)));
                        sent += 2;
                        // Many times the flow, and not so much that the kernel has to throw packets away before it looks at them.
                        if sent % 32 == 0 {
                            std::thread::sleep(Duration::from_micros(500));
                        }
                    }
                    u64::from(sent)
                });
                let mut passed = 0;
                for number in 0..PACKETS {
                    if number % 250 == 100 {
                        path.router.run(|| forget_neighbour("up", receiver));
                        path.router.run(|| forget_neighbour("down", sender));
                        path.receiver.run(|| forget_neighbour("down", far));
                    }
                    raw.send(&sealed((sender, receiver), SPI, 100));
                    std::thread::sleep(Duration::from_micros(200));
                    passed += path.accept_all();
                }
                let until = Instant::now() + SOON;
                while passed < PACKETS && Instant::now() < until {
                    passed += path.accept_all();
                }
                done.store(true, Ordering::Relaxed);
                assert_eq!(passed, PACKETS, "{sender}: those with a permission, and no others");
                flood.join().unwrap()
            });
            eventually("the flood is counted", || path.dropped() - dropped >= sent / 2);
            eprintln!("{sender}: {sent} packets of a flood, {} dropped before the queue", path.dropped() - dropped);
        }
    }
}

///
#[test]
fn the_exemptions_and_what_is_for_the_router_itself_pass_the_shield() {
    if !privileged() {
        return;
    }
    for ([sender, router, _, receiver], rules) in FAMILIES.into_iter().flat_map(|of| both().map(|rules| (of, rules))) {
        let prefix = if sender.contains(':') { "fd21::/64" } else { "192.168.21.0/24" };
        let dns = Exempt {
            name: "dns".to_owned(),
            protocol: UDP,
            port: Some(53),
            at: At::Beyond,
            peer: Some(prefix.parse().unwrap()),
            interface: Some("down".to_owned()),
            bucket: Bucket::new(100, 100),
        };
        let mut path = Path::new(RouterRules { exempt: vec![dns], ..rules });
        let signalling = path.router.run(|| Queue::open(QueueConfig::new(SIGNALLING)).unwrap());
        let (asker, server) = (path.sender.udp(address(sender, 4000)), path.receiver.udp(address(receiver, 53)));
        asker.send_to(b"name?", address(receiver, 53)).unwrap();
        assert_eq!(receive(&server, SOON).unwrap(), b"name?");
        server.send_to(b"address", address(sender, 4000)).unwrap();
        assert_eq!(receive(&asker, SOON).unwrap(), b"address");
        // From the service's port, but from no such server.
        let before = path.counted(DropReason::NoPermission);
        path.sender.udp(address(sender, 53)).send_to(b"answer", address(receiver, 4000)).unwrap();
        eventually("it is dropped", || path.counted(DropReason::NoPermission) == before + 1);
        let own = path.router.udp(address(router, 270));
        asker.send_to(b"Query", address(router, 270)).unwrap();
        assert_eq!(receive(&own, SOON).unwrap(), b"Query");
        asker.send_to(b"Query", address(receiver, 270)).unwrap();
        let query = namespace::next(&signalling);
        let mut signalling = signalling;
        let listener = path.receiver.udp(address(receiver, 270));
        signalling.verdict(query.id, Decision::AcceptMarked(rules::SIGNALLING_PASSED)).unwrap();
        assert_eq!(receive(&listener, SOON).unwrap(), b"Query", "what the signalling queue passes on");
        assert_eq!(path.came(), None);
    }
}

/// what becomes of a packet depends on the interface by which it leaves.
#[test]
fn an_open_interface_trickles_what_claims_nothing_and_an_observed_one_has_everything_judged() {
    if !privileged() {
        return;
    }
    for (mode, judged) in [(Mode::Open { aggregate: 10_000 }, [true, false, false, true]), (Mode::Observe, [true; 4])] {
        let modes = Modes { others: Mode::Closed, interfaces: vec![("up".to_owned(), mode)] };
        let mut path = Path::new(RouterRules { modes, ..shielded() });
        for family @ [sender, near, _, receiver] in FAMILIES {
            let (from, to, raw) = path.ends(family);
            admit(&path.admitted, from, to, SPI, LASTING);
            let flow = flow_of(from, to, SPI);
            let ends = (sender, receiver);
            let packets = [
                sealed(ends, SPI, 100),
                sealed(ends, SPI + 1, 100),
                datagram(ends, (flow.source_port, flow.destination_port)),
                datagram(ends, (1, 2)),
            ];
            for (packet, judged) in packets.iter().zip(judged) {
                raw.send(packet);
                assert_eq!(path.came().is_some(), judged, "{mode:?}: {sender}");
            }
            // Back by a closed one.
            let back = path.receiver.run(|| Raw::open(receiver));
            back.send(&datagram((receiver, sender), (1, 2)));
            assert_eq!(path.came(), None, "{near}");
        }
    }
}
