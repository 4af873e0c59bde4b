//! The short way through a router, on real links: what has a permission goes by it, what has none dies there, all else goes the kernel's way,
//! and nothing passes when nobody is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod channels;
mod namespace;
mod raw;
mod short_path;

use std::io::Write;
use std::time::Duration;

use namespace::{Namespace, add_route, eventually, index, link_with_queues, privileged, route_request, set_link};
use raw::{Raw, packet, with_hop_limit};
use short_path::{AH, BEHIND, FAMILIES, FURTHER, INTERFACES, IS_ROUTER, Path, SPI, UDP, Way, expected, route, sealed, set_mtu, taking};
use traffic::af_xdp::{self, AfXdp, AfXdpError};
use traffic::reason::DropReason;
use traffic::rules;

#[test]
fn permitted_packets_arrive_as_they_were_but_for_the_hop_and_pass_the_queue_by() {
    // P-146, INV-01.
    if privileged() {
        [Way::Short(&INTERFACES), Way::Polling].into_iter().for_each(permitted_packets_arrive);
    }
}

fn permitted_packets_arrive(way: Way) {
    let path = Path::new(way);
    for [sender, _, _, receiver, ..] in FAMILIES {
        let raw = path.acquaint((sender, receiver), 1);
        let (accepted, queued) = (path.counters.accepted().packets, path.queued());
        let sent: Vec<Vec<u8>> = (11..=60).map(|number| sealed((sender, receiver), SPI, number, 10 * number as usize)).collect();
        sent.iter().for_each(|packet| raw.send(packet));
        for packet in &sent {
            assert_eq!(path.arrives("far2"), Some(expected(packet)), "{sender}");
        }
        assert_eq!(path.counters.accepted().packets - accepted, 50);
        assert_eq!(path.queued(), queued, "{sender}");
    }
    assert_eq!(path.all_dropped(), []);
    assert_eq!(path.statistics.dropped(), Some(0));
}

#[test]
fn what_is_wrong_is_dropped_for_the_reason_for_which_the_queues_verifier_drops_it() {
    // P-140, P-153, P-157, P-161, X-71.
    if !privileged() {
        return;
    }
    let dropped = |path: &Path, first: u32| {
        for [sender, _, _, receiver, ..] in FAMILIES {
            let ends = (sender, receiver);
            let raw = path.acquaint(ends, first);
            let first = first + 10;
            let mut flipped = sealed(ends, SPI, first + 9, 100);
            *flipped.last_mut().unwrap() ^= 1;
            let good = sealed(ends, SPI, first, 100);
            let queued = path.queued();
            let packets = [
                good.clone(),
                good,
                flipped,
                sealed(ends, SPI + 1, first, 100),
                sealed((receiver, receiver), SPI, first, 100),
                sealed(ends, SPI, 1 << 30, 100),
                packet(ends, AH, vec![UDP, 5, 0, 0], 2),
            ];
            let before = path.judged();
            for (count, packet) in (1..).zip(&packets) {
                raw.send(packet);
                eventually(&format!("packet {count} of {sender} is judged"), || path.judged() == before + count);
            }
            let queued = path.queued() - queued;
            assert_eq!(queued, if path.is_short { 0 } else { 7 }, "by the queue");
        }
        (path.counters.accepted(), path.all_dropped())
    };
    let by_af_xdp = dropped(&Path::new(Way::Short(&INTERFACES)), 1);
    let by_queue = dropped(&Path::new(Way::Queue), 1);
    assert_eq!(by_af_xdp, by_queue);
    let reasons: Vec<DropReason> = by_af_xdp.1.iter().map(|(reason, _)| *reason).collect();
    use DropReason::{BadIcv, FlowMismatch, Malformed, Replayed, TooFarAhead, UnknownSpi};
    assert_eq!(reasons, [UnknownSpi, FlowMismatch, Malformed, BadIcv, Replayed, TooFarAhead]);
}

/// The kernel's own path drops such packets before the queue.
#[test]
fn a_packet_that_is_shorter_than_it_says_is_dropped_and_counted_with_its_octets() {
    if !privileged() {
        return;
    }
    let path = Path::new(Way::Short(&INTERFACES));
    let [sender, _, _, receiver, ..] = FAMILIES[1];
    let raw = path.acquaint((sender, receiver), 1);
    let whole = sealed((sender, receiver), SPI, 10, 100);
    let cut = &whole[..whole.len() - 10];
    raw.send(cut);
    eventually("it is dropped", || path.all_dropped() == [(DropReason::Malformed, 1)]);
    assert_eq!(path.counters.dropped(DropReason::Malformed).bytes, cut.len() as u64);
}

#[test]
fn fragments_signalling_packets_at_their_last_hop_and_those_for_the_router_go_the_kernels_way() {
    //
    if !privileged() {
        return;
    }
    let path = Path::new(Way::Short(&INTERFACES));
    for [sender, near, _, receiver, ..] in FAMILIES {
        let (raw, ends) = (path.sender.run(|| Raw::open(sender)), (sender, receiver));
        let (queued, judged) = (path.queued(), path.judged() + 1);
        let whole = sealed(ends, SPI, 1, 100);
        raw::fragments(&whole).iter().for_each(|fragment| raw.send(fragment));
        eventually("it is made whole and judged", || path.judged() == judged);
        assert_eq!(path.queued(), queued + 1, "in the queue");
        raw.send(&packet(ends, UDP, [5000_u16, 270, 10, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec(), 6));
        eventually("it is signalling", || path.counted("signalling") > 0);
        raw.send(&with_hop_limit(sealed(ends, SPI, 2, 100), 1));
        eventually("it is answered", || path.counted("own-errors") > 0);
        raw.send(&sealed((sender, near), SPI, 3, 100));
        raw.send(&packet(ends, UDP, [1_u16, 2, 10, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec(), 6));
        eventually("without AH it is judged in the queue", || path.judged() > judged);
        assert_eq!((path.judged(), path.queued()), (judged + 1, queued + 2), "{sender}");
        assert_eq!(path.all_dropped(), [(DropReason::NoPermission, path.queued() / 2)]);
    }
}

#[test]
fn packets_follow_the_route_and_what_is_too_long_for_it_is_answered_by_the_kernel() {
    if !privileged() {
        return;
    }
    let path = Path::new(Way::Short(&INTERFACES));
    for ([sender, _, _, first, _, second], behind) in FAMILIES.into_iter().zip(BEHIND) {
        let (raw, ends) = (path.sender.run(|| Raw::open(sender)), (sender, behind));
        let prefix = if behind.contains(':') { 128 } else { 32 };
        let mut number = 0;
        let mut next = |len| {
            number += 1;
            sealed(ends, SPI + 7, number, len)
        };
        for (gateway, interface) in [(first, "far2"), (second, "side2"), (first, "far2")] {
            add_route(&path.router, behind, prefix, gateway);
            // The neighbour is found first; then the short way.
            for _ in 0..4 {
                let packet = next(100);
                raw.send(&packet);
                assert_eq!(path.arrives(interface), Some(expected(&packet)), "{behind} by {interface}");
            }
        }
        let accepted = path.counters.accepted();
        path.router.run(|| set_mtu("far", 1300));
        raw.send(&next(1300));
        assert_eq!(path.arrives("far2"), None);
        path.router.run(|| set_mtu("far", 1500));
        assert!(path.counted("own-errors-about-size") > 0);
        assert_eq!(path.counters.accepted(), accepted);
    }
}

#[test]
fn nothing_passes_when_the_process_is_killed_and_all_goes_on_when_it_is_there_again() {
    // INV-01: fail closed.
    if !privileged() {
        return;
    }
    let mut path = Path::without_router();
    let mut number = 0;
    for round in 0..2 {
        let mut child = path.start_process();
        for ends in FAMILIES.map(|[sender, _, _, receiver, ..]| (sender, receiver)) {
            let raw = path.sender.run(|| Raw::open(ends.0));
            let mut send = |path: &Path| {
                number += 1;
                raw.send(&sealed(ends, SPI, number, 100));
                path.arrives("far2").is_some()
            };
            eventually("packets pass", || send(&path) && send(&path));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        path.drain();
        for ends in FAMILIES.map(|[sender, _, _, receiver, ..]| (sender, receiver)) {
            let raw = path.sender.run(|| Raw::open(ends.0));
            for _ in 0..200 {
                number += 1;
                raw.send(&sealed(ends, SPI, number, 100));
            }
        }
        assert_eq!(path.arrives("far2"), None, "round {round}");
    }
    // Somebody takes the rules away, but not the program: still nothing goes the short way.
    path.router.run(|| rules::remove(rules::Role::Router).unwrap());
    let (ends, raw) = ((FAMILIES[0][0], FAMILIES[0][3]), path.sender.run(|| Raw::open(FAMILIES[0][0])));
    let mut pass = |path: &Path| {
        for _ in 0..100 {
            number += 1;
            raw.send(&sealed(ends, SPI, number, 100));
        }
        std::iter::from_fn(|| path.arrives("far2")).count()
    };
    assert_eq!(pass(&path), 0);
    path.router.run(|| af_xdp::restore().unwrap());
    assert_eq!(pass(&path), 100, "now it is open");
}

/// The router of the test before, as a process: it says that it is ready, and lives until it is killed.
#[test]
fn a_process_that_is_to_be_killed() {
    if std::env::var_os(IS_ROUTER).is_none() {
        return;
    }
    let made = route(Way::Short(&INTERFACES));
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        std::hint::black_box(&made);
    }
}

#[test]
fn what_cannot_take_part_is_said_and_whatever_stands_can_be_taken_off() {
    if !privileged() {
        return;
    }
    let path = Path::without_router();
    let open = |names: &[&str]| path.router.run(|| AfXdp::open(&taking(names), None).map(drop).unwrap_err());
    assert_eq!(open(&["near", "nowhere"]), AfXdpError::NoInterface("nowhere".to_owned()));
    assert_eq!(open(&["lo"]), AfXdpError::NotEthernet("lo".to_owned()));
    let (_one, standing) = path.router.run(|| AfXdp::open(&taking(&["near", "far"]), None).unwrap());
    let stand = || standing.show().map(|(part, stands)| (part.name.clone(), part.queues, part.zero_copy, stands)).collect::<Vec<_>>();
    let both = |stands| ["near", "far"].map(|name| (name.to_owned(), 1, false, Some(stands)));
    assert_eq!(stand(), both(true));
    let taken = open(&["near"]);
    assert!(matches!(taken, AfXdpError::Refused { what: "open an AF_XDP socket", .. }), "its sockets are taken: {taken}");
    assert!(taken.to_string().contains("on queue 0 of interface near: EBUSY"), "{taken}");
    assert_eq!(open(&["near"; 17]), AfXdpError::TooManyInterfaces(17));
    path.router.run(|| af_xdp::restore().unwrap());
    assert_eq!(stand(), both(false));
}

/// The kernel sends nothing itself to who stands behind the short way. It must notice all the same that he has another address.
#[test]
fn a_neighbour_is_asked_after_as_long_as_judged_packets_go_to_it_and_no_packet_goes_the_kernels_way_for_that() {
    if !privileged() {
        return;
    }
    let path = Path::without_router();
    for (name, value) in [("base_reachable_time_ms", "200"), ("delay_first_probe_time", "0"), ("retrans_time_ms", "100")] {
        path.router.sysctl(&format!("net/ipv4/neigh/far/{name}"), value);
    }
    let path = path.routing(Way::Short(&INTERFACES));
    let [sender, _, _, receiver, ..] = FAMILIES[0];
    let raw = path.acquaint((sender, receiver), 1);
    let queued = path.queued();
    path.receiver.run(|| set_hardware_address("far2", [2, 0, 0, 0, 0, 9]));
    let known = || path.router.run(|| std::fs::read_to_string("/proc/thread-self/net/arp").unwrap());
    assert!(!known().contains("02:00:00:00:00:09"));
    let mut number = 10;
    eventually("the new address is known", || {
        number += 1;
        raw.send(&sealed((sender, receiver), SPI, number, 100));
        std::thread::sleep(Duration::from_millis(20));
        known().contains("02:00:00:00:00:09")
    });
    // While it is not known where he is, the kernel is asked; that is so for no longer than it takes him to answer.
    assert!(path.queued() - queued <= 2, "{} by the queue", path.queued() - queued);
}

#[test]
fn every_queue_of_an_interface_takes_part() {
    if !privileged() {
        return;
    }
    let path = Path::with_queues(3).routing(Way::Short(&INTERFACES[..2]));
    let standing = path.made.as_ref().unwrap().standing.as_ref().unwrap();
    let parts: Vec<(&str, usize, Option<bool>)> = standing.show().map(|(part, stands)| (&*part.name, part.queues, stands)).collect();
    assert_eq!(parts, [("near", 3, Some(true)), ("far", 3, Some(true))]);
    for [sender, _, _, receiver, ..] in FAMILIES {
        let ends = (sender, receiver);
        let raw = path.acquaint(ends, 1);
        let queued = path.queued();
        // Linux chooses a queue by the SPI too: that all sixteen came by one is less likely than a broken processor.
        for spi in FURTHER {
            let packet = sealed(ends, spi, 1, 100);
            raw.send(&packet);
            assert_eq!(path.arrives("far2"), Some(expected(&packet)), "{sender}: {spi}");
        }
        assert_eq!(path.queued(), queued, "{sender}");
    }
    assert_eq!(path.all_dropped(), []);
}

/// INV-01. What comes by a queue that has been added goes the kernel's way, since no socket is there.
#[test]
fn a_queue_that_an_interface_is_given_later_leads_to_the_packet_queue_and_its_packets_are_judged() {
    if !privileged() {
        return;
    }
    let path = Path::with_queues(3);
    let set = |path: &Path, count| {
        // The program needs a queue for each by which the peer sends.
        path.sender.run(|| channels::set("up", 1));
        path.router.run(|| channels::set("near", count));
        path.sender.run(|| channels::set("up", count));
    };
    set(&path, 1);
    let path = path.routing(Way::Short(&INTERFACES[..2]));
    let standing = path.made.as_ref().unwrap().standing.as_ref().unwrap();
    assert_eq!(standing.show().map(|(part, _)| part.queues).collect::<Vec<_>>(), [1, 3]);
    let ends = FAMILIES.map(|[sender, _, _, receiver, ..]| (sender, receiver));
    let raws = ends.map(|ends| path.acquaint(ends, 1));
    let before = path.queued();
    let pass = |number: u32| {
        for (ends, raw) in ends.iter().zip(&raws) {
            for spi in FURTHER {
                let packet = sealed(*ends, spi, number, 100);
                raw.send(&packet);
                assert_eq!(path.arrives("far2"), Some(expected(&packet)), "{ends:?}: {spi}");
            }
        }
    };
    pass(1);
    assert_eq!(path.queued(), before, "there is but the one");
    set(&path, 3);
    // A veth runs its program on queues that were added when it goes up again.
    path.router.sysctl("net/ipv6/conf/near/keep_addr_on_down", "1");
    path.router.run(|| [false, true].into_iter().for_each(|up| set_link("near", up)));
    ends.iter().for_each(|ends| drop(path.acquaint(*ends, 11)));
    let before = path.queued();
    pass(2);
    let by_queue = path.queued() - before;
    let all = 2 * FURTHER.len() as u64;
    assert!(by_queue > 0 && by_queue <= all, "{by_queue}");
    assert_eq!(path.all_dropped(), []);
    let accepted = path.counters.accepted();
    for (ends, raw) in ends.iter().zip(&raws) {
        for spi in FURTHER {
            let mut flipped = sealed(*ends, spi, 3, 100);
            *flipped.last_mut().unwrap() ^= 1;
            raw.send(&flipped);
        }
    }
    eventually("all are judged", || path.all_dropped() == [(DropReason::BadIcv, all)]);
    assert_eq!(path.queued() - before, 2 * by_queue, "each flow by its queue as before");
    assert_eq!((path.counters.accepted(), path.arrives("far2")), (accepted, None));
}

#[test]
fn more_queues_than_there_may_be_sockets_are_told_with_their_number() {
    if !privileged() {
        return;
    }
    let (router, peer) = (Namespace::new(), Namespace::new());
    link_with_queues(33, 1500, (&router, "one", &[]), (&peer, "one2", &[]));
    link_with_queues(32, 1500, (&router, "two", &[]), (&peer, "two2", &[]));
    let error = router.run(|| AfXdp::open(&taking(&["one", "two"]), None).map(drop).unwrap_err());
    assert_eq!(error, AfXdpError::TooManyQueues(65));
    // Those that are switched off do not count.
    router.run(|| channels::set("one", 2));
    assert_eq!(router.run(|| AfXdp::open(&taking(&["one"]), None).unwrap().1.show().map(|(part, _)| part.queues).sum::<usize>()), 2);
}

#[test]
fn an_interface_that_is_gone_is_said_and_wakes_nobody_and_another_of_its_name_takes_no_part() {
    if !privileged() {
        return;
    }
    let path = Path::new(Way::Short(&INTERFACES));
    let [sender, _, _, receiver, ..] = FAMILIES[0];
    let raw = path.acquaint((sender, receiver), 1);
    let standing = path.made.as_ref().unwrap().standing.as_ref().unwrap();
    let name = &path.made.as_ref().unwrap().name;
    let stand = || standing.show().map(|(part, stands)| (part.name.clone(), stands.unwrap())).collect::<Vec<_>>();
    let all = |far| [("near".to_owned(), true), ("far".to_owned(), far), ("side".to_owned(), true)];
    assert_eq!(stand(), all(true));
    (10..500).for_each(|number| raw.send(&sealed((sender, receiver), SPI, number, 100)));
    path.router.run(|| delete("far"));
    assert_eq!(stand(), all(false));
    // What was under way then is looked after for a while, and less and less.
    eventually("the worker sleeps", || {
        let before = wakes(name);
        std::thread::sleep(Duration::from_secs(1));
        wakes(name) - before <= 5
    });
    let far = FAMILIES.map(|family| (family[2], if family[2].contains(':') { 64 } else { 24 }));
    let far2 = FAMILIES.map(|family| (family[3], if family[3].contains(':') { 64 } else { 24 }));
    namespace::link(1500, (&path.router, "far", &far), (&path.receiver, "far2", &far2));
    assert_eq!(stand(), all(false));
    let packet = sealed((sender, receiver), SPI, 1000, 100);
    let queued = path.queued();
    raw.send(&packet);
    eventually("it goes the kernel's way", || path.queued() > queued);
}

#[test]
fn an_interface_with_another_hardware_address_is_said_and_what_comes_there_goes_the_kernels_way() {
    if !privileged() {
        return;
    }
    let path = Path::new(Way::Short(&INTERFACES));
    let [sender, _, _, receiver, ..] = FAMILIES[0];
    let raw = path.acquaint((sender, receiver), 1);
    let standing = path.made.as_ref().unwrap().standing.as_ref().unwrap();
    let stand = || standing.show().map(|(_, stands)| stands.unwrap()).collect::<Vec<_>>();
    assert_eq!(stand(), [true; 3]);
    path.router.run(|| set_hardware_address("near", [2, 0, 0, 0, 0, 7]));
    // Whose own address changes forgets those of its neighbours.
    path.sender.run(|| set_hardware_address("up", [2, 0, 0, 0, 0, 8]));
    assert_eq!(stand(), [false, true, true]);
    let (queued, packet) = (path.queued(), sealed((sender, receiver), SPI, 10, 100));
    raw.send(&packet);
    assert_eq!(path.arrives("far2"), Some(expected(&packet)));
    assert_eq!(path.queued(), queued + 1);
}

/// How often the worker's thread has begun to wait.
fn wakes(name: &str) -> u64 {
    let text = |task: &std::path::Path, file| std::fs::read_to_string(task.join(file)).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let workers = tasks.filter(|task| text(task, "comm").trim() == name);
    let waits = |status: String| {
        let line =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:").map(|count| count.trim().parse::<u64>().unwrap()));
        line.unwrap_or_default()
    };
    workers.map(|task| waits(text(&task, "status"))).sum()
}

fn delete(name: &str) {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index(name).to_ne_bytes());
    route_request("delete a link", 17, 0, &fixed, |_| {});
}

fn set_hardware_address(name: &str, address: [u8; 6]) {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index(name).to_ne_bytes());
    route_request("set a hardware address", 16, 0, &fixed, |writer| writer.put(1, &address));
}
