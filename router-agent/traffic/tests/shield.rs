//! The shield of a router on real links: what has no permission does not come to the queue, and is counted by its reason; what has one goes
//! on, whatever comes beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use namespace::{Namespace, QUIET, SOON, add_route, address, admit, eventually, flow_of, index, link, octets, privileged, receive};
use nix::sys::eventfd::EventFd;
use raw::Raw;
use traffic::flow::Flow;
use traffic::netlink::{Batch, Protocol, Socket};
use traffic::queue::{Decision, Delivery, Queue, QueueConfig, ReceiveBuffer};
use traffic::reason::DropReason;
use traffic::rules::{self, Admitted, At, Bucket, Exempt, Install, Mode, Modes, Role, RouterRules, Ticket, Watch};

const SIGNALLING: u16 = 1;
const DATA: u16 = 2;
const AH: u8 = 51;
const UDP: u8 = 17;
const SPI: u32 = 4096;
const LASTING: Duration = Duration::from_secs(600);

/// Sender, router towards it, router towards the receiver, receiver.
const FAMILIES: [[&str; 4]; 2] =
    [["192.168.20.1", "192.168.20.254", "192.168.21.254", "192.168.21.4"], ["fd20::1", "fd20::fe", "fd21::fe", "fd21::4"]];

#[test]
fn what_has_no_permission_is_dropped_before_the_queue_and_counted_by_the_reason_that_the_verifier_would_give() {
    // INV-01, P-147, P-154, X-58, X-59.
    if !privileged() {
        return;
    }
    let mut path = Path::new(shielded());
    for [sender, _, _, receiver] in FAMILIES {
        let (from, to) = (sender.parse().unwrap(), receiver.parse().unwrap());
        let raw = path.sender.run(|| Raw::open(sender));
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

/// what a tunnel carries is under SPIs that the rules cannot know. Strangers who write to others take nothing from its sender.
#[test]
fn errors_about_what_a_tunnel_carries_come_to_the_queue_whatever_strangers_send() {
    if !privileged() {
        return;
    }
    let mut path = Path::new(shielded());
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

/// INV-11: who has been told that a permission stands may send; who has been told that it is gone is right.
#[test]
fn what_is_settled_holds_for_the_very_next_packet() {
    if !privileged() {
        return;
    }
    let mut path = Path::new(shielded());
    for [sender, _, _, receiver] in FAMILIES {
        let (from, to) = (sender.parse().unwrap(), receiver.parse().unwrap());
        let raw = path.sender.run(|| Raw::open(sender));
        for round in 0..30 {
            let (spi, packet) = (SPI + round, sealed((sender, receiver), SPI + round, 100));
            let flow = flow_of(from, to, spi);
            settled(&path.admitted, path.admitted.admit(flow, spi, LASTING)).unwrap();
            raw.send(&packet);
            assert!(path.came().is_some(), "{spi}");
            let counted = path.counted(DropReason::UnknownSpi);
            settled(&path.admitted, path.admitted.forget(flow, spi)).unwrap();
            raw.send(&packet);
            eventually("it is dropped", || path.counted(DropReason::UnknownSpi) == counted + 1);
        }
    }
    assert_eq!(path.came(), None);
    assert_eq!(path.admitted.counts(), (0, 0));
}

/// What is refreshed lives on, what is shortened ends sooner, and another flow cannot end it.
#[test]
fn a_permission_ends_in_the_kernel_although_nobody_removes_it() {
    if !privileged() {
        return;
    }
    const SHORT: Duration = Duration::from_millis(400);
    let mut path = Path::new(shielded());
    let [sender, _, _, receiver] = FAMILIES[0];
    let (from, to) = (sender.parse().unwrap(), receiver.parse().unwrap());
    let raw = path.sender.run(|| Raw::open(sender));
    let [refreshed, shortened, left] = [SPI, SPI + 1, SPI + 2].map(|spi| (flow_of(from, to, spi), spi));
    path.admitted.admit(refreshed.0, refreshed.1, SHORT);
    path.admitted.admit(shortened.0, shortened.1, LASTING);
    path.admitted.admit(left.0, left.1, SHORT);
    path.admitted.settled();
    path.admitted.admit(refreshed.0, refreshed.1, LASTING);
    path.admitted.shorten(shortened.0, shortened.1, SHORT);
    path.admitted.forget(shortened.0, refreshed.1);
    path.admitted.settled();
    let mut come = |spi| {
        raw.send(&sealed((sender, receiver), spi, 100));
        path.came().is_some()
    };
    eventually("both have ended", || !come(shortened.1) && !come(left.1));
    assert!(come(refreshed.1));
}

#[test]
fn a_full_set_refuses_and_lets_nothing_in() {
    if !privileged() {
        return;
    }
    // The kernel's own set has room for 1024, and nobody tells the other side so.
    let mut path = Path::new(RouterRules { permissions: 0, ..shielded() });
    let [sender, _, _, receiver] = FAMILIES[0];
    let (from, to) = (sender.parse().unwrap(), receiver.parse().unwrap());
    let raw = path.sender.run(|| Raw::open(sender));
    let admitted = path.router.run(|| Admitted::at_most(Role::Router, 1500).unwrap());
    let tickets: Vec<Ticket> = (SPI..SPI + 1600).map(|spi| admitted.admit(flow_of(from, to, spi), spi, LASTING)).collect();
    let refused: Vec<String> = tickets.iter().filter_map(|ticket| settled(&admitted, *ticket).err()).collect();
    assert_eq!(refused.len(), 1600 - 1024, "{:?}", refused.first());
    // Its own cap is met only as long as the kernel's refusals have not come.
    let of_either = |why: &String| ["1500 permissions already", "refused to change set"].iter().any(|cap| why.contains(cap));
    assert!(refused.iter().all(of_either), "{refused:?}");
    assert!(refused.iter().any(|why| why.contains("refused to change set")), "the kernel's: {:?}", refused.first());
    let mut come = |spi| {
        raw.send(&sealed((sender, receiver), spi, 100));
        path.came().is_some()
    };
    assert!(come(SPI) && !come(SPI + 1599));
    // One goes, one comes.
    settled(&admitted, admitted.forget(flow_of(from, to, SPI), SPI)).unwrap();
    settled(&admitted, admitted.admit(flow_of(from, to, SPI + 1599), SPI + 1599, LASTING)).unwrap();
    assert!(!come(SPI) && come(SPI + 1599));
}

/// Everything that is neither permitted nor forwarded reaches the router's own rules: nobody forgets a neighbour because of a flood.
#[test]
fn a_flood_dies_before_the_queue_and_a_permitted_flow_goes_on_also_when_neighbours_are_forgotten() {
    if !privileged() {
        return;
    }
    const PACKETS: usize = 1000;
    let mut path = Path::new(shielded());
    for [sender, _, far, receiver] in FAMILIES {
        let (from, to): (IpAddr, IpAddr) = (sender.parse().unwrap(), receiver.parse().unwrap());
        admit(&path.admitted, from, to, SPI, LASTING);
        let (raw, flooding) = (path.sender.run(|| Raw::open(sender)), path.sender.run(|| Raw::open(sender)));
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

///
#[test]
fn the_exemptions_and_what_is_for_the_router_itself_pass_the_shield() {
    if !privileged() {
        return;
    }
    for [sender, router, _, receiver] in FAMILIES {
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
        let mut path = Path::new(RouterRules { exempt: vec![dns], ..shielded() });
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
        for [sender, near, _, receiver] in FAMILIES {
            let (from, to) = (sender.parse().unwrap(), receiver.parse().unwrap());
            let raw = path.sender.run(|| Raw::open(sender));
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

#[test]
fn rules_that_are_installed_anew_know_no_permission_until_they_are_told_and_those_removed_under_a_flood_are_put_back() {
    if !privileged() {
        return;
    }
    let mut path = Path::new(shielded());
    let [sender, _, _, receiver] = FAMILIES[0];
    let (from, to) = (sender.parse().unwrap(), receiver.parse().unwrap());
    let raw = path.sender.run(|| Raw::open(sender));
    let permitted = sealed((sender, receiver), SPI, 100);
    admit(&path.admitted, from, to, SPI, LASTING);
    raw.send(&permitted);
    assert!(path.came().is_some());
    // As a daemon does that starts again after a crash.
    path.router.run(|| shielded().install().unwrap());
    raw.send(&permitted);
    assert_eq!(path.came(), None, "nothing of before is believed");
    let install: Install = Box::new(|socket| RouterRules { owned: false, ..shielded() }.install_through(socket));
    let owner = path.admitted.owner().clone();
    let mut watch = path.router.run(|| Watch::start_through(Role::Router, install, owner).unwrap());
    path.admitted.refill();
    path.admitted.settled();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding = path.sender.run(|| Raw::open(sender));
        let done = &done;
        let flood = scope.spawn(move || {
            for spi in 1_000_000.. {
                flooding.send(&sealed((sender, receiver), spi, 20));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        path.router.run(|| rules::remove(Role::Router).unwrap());
        // Somebody asks meanwhile; it waits for the rules.
        let meanwhile = path.admitted.admit(flow_of(from, to, SPI + 1), SPI + 1, LASTING);
        std::thread::sleep(QUIET / 4);
        assert_eq!(path.admitted.outcome(meanwhile), None);
        assert!(watch.is_disturbed().unwrap());
        path.router.run(|| watch.restore().unwrap());
        path.admitted.refill();
        assert_eq!(settled(&path.admitted, meanwhile), Ok(()));
        path.admitted.settled();
        assert!(!watch.is_disturbed().unwrap(), "what a daemon tells its rules is no disturbance");
        path.accept_all();
        for spi in [SPI, SPI + 1] {
            raw.send(&sealed((sender, receiver), spi, 100));
            assert!(path.came().is_some(), "{spi}");
        }
        done.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
    assert_eq!(path.came(), None);
    // Without a daemon the permitted packets are dropped, too.
    drop(std::mem::replace(&mut path.queue, path.router.run(|| Queue::open(QueueConfig::new(99)).unwrap())));
    let before = path.receiver.run(received);
    (0..20).for_each(|_| raw.send(&permitted));
    std::thread::sleep(QUIET / 4);
    assert!(path.receiver.run(received) - before < 10);
    // Opened on purpose there is nothing to tell, and nobody waits for it.
    path.router.run(|| rules::remove(Role::Router).unwrap());
    path.admitted.open_up();
    assert_eq!(path.admitted.outcome(path.admitted.admit(flow_of(from, to, 9999), 9999, LASTING)), Some(Ok(())));
}

fn shielded() -> RouterRules {
    RouterRules { shield: true, ..RouterRules::new(SIGNALLING, DATA, 30_270) }
}

/// Waits for the outcome of a request.
fn settled(admitted: &Admitted, ticket: Ticket) -> Result<(), String> {
    let mut outcome = None;
    eventually("the request is settled", || {
        outcome = admitted.outcome(ticket);
        outcome.is_some()
    });
    outcome.unwrap()
}

/// Sender, router, receiver, and the router's data queue.
struct Path {
    sender: Namespace,
    router: Namespace,
    receiver: Namespace,
    queue: Queue,
    buffer: ReceiveBuffer,
    admitted: Admitted,
}

impl Path {
    fn new(rules: RouterRules) -> Self {
        let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
        let end = |position: usize| FAMILIES.map(|addresses| (addresses[position], if addresses[0].contains(':') { 64 } else { 24 }));
        link(1500, (&sender, "up", &end(0)), (&router, "down", &end(1)));
        link(1500, (&router, "up", &end(2)), (&receiver, "down", &end(3)));
        for [_, near, far, _] in FAMILIES {
            let any = if near.contains(':') { "::" } else { "0.0.0.0" };
            add_route(&sender, any, 0, near);
            add_route(&receiver, any, 0, far);
        }
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        for of in ["all", "default", "down", "up"] {
            router.sysctl(&format!("net/ipv4/conf/{of}/rp_filter"), "0");
        }
        router.run(|| rules.install().unwrap());
        let queue = router.run(|| Queue::open(QueueConfig::new(DATA)).unwrap());
        let admitted = router.run(|| Admitted::open(Role::Router).unwrap());
        Self { sender, router, receiver, queue, buffer: ReceiveBuffer::default(), admitted }
    }

    /// Length of the next packet that comes to the queue, which is dropped there; `None` if none comes.
    fn came(&mut self) -> Option<usize> {
        let never = EventFd::new().unwrap();
        for _ in 0..10 {
            self.queue.wait(never.as_fd(), Some(QUIET / 4)).unwrap();
            let Ok(mut deliveries) = self.queue.receive(&mut self.buffer) else { continue };
            let Some(Delivery::Packet(packet)) = deliveries.next() else { continue };
            let (id, len) = (packet.id, packet.len);
            self.queue.verdict(id, Decision::Drop).unwrap();
            return Some(len);
        }
        None
    }

    /// Lets everything pass that is in the queue, and answers how much of that was under AH; the rest are errors of the receiver, which
    /// knows no such protocol.
    fn accept_all(&mut self) -> usize {
        let mut passed = 0;
        while let Ok(deliveries) = self.queue.receive(&mut self.buffer) {
            let protocol = |packet: &[u8]| if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
            let of = |delivery| if let Delivery::Packet(packet) = delivery { Some((packet.id, protocol(packet.payload))) } else { None };
            let packets: Vec<_> = deliveries.filter_map(of).collect();
            for (id, protocol) in packets {
                self.queue.verdict(id, Decision::Accept).unwrap();
                passed += usize::from(protocol == AH);
            }
        }
        passed
    }

    /// Packets that the rules have dropped for this reason.
    fn counted(&self, reason: DropReason) -> u64 {
        let dropped = self.router.run(|| self.admitted.dropped().unwrap());
        dropped.iter().filter(|(of, _)| *of == reason).map(|(_, count)| count.packets).sum()
    }

    fn dropped(&self) -> u64 {
        let dropped = self.router.run(|| self.admitted.dropped().unwrap());
        dropped.iter().map(|(_, count)| count.packets).sum()
    }
}

/// An IPv6 packet with a Fragment header, of which nothing else follows.
fn in_one_fragment(packet: &[u8]) -> Vec<u8> {
    const FRAGMENT: u8 = 44;
    let mut whole = packet.to_vec();
    let (next, len) = (whole[6], u16::from_be_bytes([whole[4], whole[5]]) + 8);
    whole[6] = FRAGMENT;
    whole[4..6].copy_from_slice(&len.to_be_bytes());
    whole.splice(40..40, [next, 0, 0, 0, 0, 0, 0, 9]);
    whole
}

/// A packet under AH with so many octets behind it; nobody looks at its ICV here.
fn sealed(ends: raw::Ends<'_>, spi: u32, len: usize) -> Vec<u8> {
    let words = if ends.0.contains(':') { 6 } else { 5 };
    let mut payload = [&[UDP, words, 0, 0][..], &spi.to_be_bytes(), &[0, 0, 0, 1]].concat();
    payload.resize(4 * (usize::from(words) + 2) + len, 7);
    raw::packet(ends, AH, payload, 20)
}

fn datagram(ends: raw::Ends<'_>, (from, to): (u16, u16)) -> Vec<u8> {
    let payload = [from.to_be_bytes(), to.to_be_bytes(), 12u16.to_be_bytes(), [0; 2]].concat();
    raw::packet(ends, UDP, [payload, vec![7; 4]].concat(), 6)
}

/// ICMP's "unreachable" about a packet.
fn quoting(packet: &[u8]) -> Vec<u8> {
    let is_ipv4 = packet[0] >> 4 == 4;
    [&[if is_ipv4 { 3 } else { 1 }, 1, 0, 0, 0, 0, 0, 0], packet].concat()
}

/// Takes a neighbour out of the kernel's cache, if it is there.
fn forget_neighbour(link: &str, address: &str) {
    let address: IpAddr = address.parse().unwrap();
    let family = if address.is_ipv4() { 2 } else { 10 };
    let [a, b, c, d] = index(link).to_ne_bytes();
    let fixed = [family, 0, 0, 0, a, b, c, d, 0, 0, 0, 0];
    let mut batch = Batch::new("forget a neighbour");
    batch.request("forget a neighbour", 29, 0, &fixed, |writer| writer.put(1, &octets(address)));
    let _ = Socket::open(Protocol::Route).unwrap().transact(batch);
}

/// Frames that have come in by the link of this namespace.
fn received() -> u64 {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("down:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
