//! What becomes of traffic without permission: modes of a router's interfaces, and exemptions, with real daemons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod exempt;
mod short_way;
mod site;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use pbs_lab::network::link;
use pbs_lab::network::topology::RECEIVER;
use site::{LEFT, LEGACY_LINK, PATIENCE, RIGHT, Site, eventually, received, socket};

/// What one source may send: 8 KiB at once, and 8000 octets a second.
const BURST: u64 = 8192;
const RATE: u64 = 8000;

fn open(interface: &str) -> String {
    format!("[[interface]]\nname = \"{interface}\"\nmode = \"open\"\n")
}

/// P-191, P-194: what a host without PBS gets through is measured in octets where it arrives.
#[test]
fn a_host_without_pbs_gets_its_trickle_through_an_open_router_and_takes_nothing_from_what_is_permitted() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    const PACKETS: u32 = 1500;
    let mut site = Site::build("", &(open("r1") + &open("r3")), true);
    let (sender, receiver) = site.permitted();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    for ((from, _), (to, _)) in LEFT.into_iter().zip(RIGHT) {
        let (flooding, counting) = (socket(&site.left, from, 4000), socket(&site.right, to, 4001));
        let end = AtomicBool::new(false);
        let start = Instant::now();
        let (sent, (packets, octets), elapsed, arrived) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut sent = 0u64;
                while !end.load(Ordering::Relaxed) {
                    // Towards the receiver with PBS too: its link is the permitted flow's.
                    let _ = flooding.send_to(&[0; 472], (to, 4001));
                    let _ = if to.is_ipv4() { flooding.send_to(&[0; 472], (RECEIVER, 4001)) } else { Ok(0) };
                    sent += 1;
                }
                sent
            });
            let counted = scope.spawn(|| (received(&counting), start.elapsed()));
            let arriving = scope.spawn(|| std::iter::from_fn(|| receiver.recv(&mut [0; 2000]).ok()).count());
            for _ in 0..PACKETS {
                let _ = sender.send(&[1; 100]);
                // What a busy machine delays is not sent in one burst.
                std::thread::sleep(Duration::from_millis(1));
            }
            end.store(true, Ordering::Relaxed);
            let (counted, elapsed) = counted.join().unwrap();
            (flood.join().unwrap(), counted, elapsed, arriving.join().unwrap())
        });
        let most = BURST + RATE * u64::try_from(elapsed.as_millis()).unwrap() / 1000 + 500;
        eprintln!("{from}: {packets} of {sent} packets, {octets} octets in {elapsed:?} ({most} at most); permitted {arrived} of {PACKETS}");
        assert!(octets <= most, "{octets} octets in {elapsed:?}, at most {most}");
        assert!(octets >= BURST, "the trickle passes: {octets}");
        assert!(arrived * 100 >= PACKETS as usize * 95, "{arrived} of {PACKETS}");
        assert!(site.rule("trickle-source", "above the bucket") + site.rule("without-ah", "above the bucket") > 0);
    }
    // What the trickle lets through is not let in by a host with PBS.
    let counters = site.ask("counters");
    assert!(counters["data"]["trickled"]["packets"].as_u64().unwrap() > 0);
    // The other way round leaves by an interface that is closed.
    for ((from, _), (to, _)) in RIGHT.into_iter().zip(LEFT) {
        let (back, there) = (socket(&site.right, from, 4002), socket(&site.left, to, 4003));
        let dropped = site.counted("dropped", "no_permission");
        for _ in 0..10 {
            back.send_to(b"back", (to, 4003)).unwrap();
        }
        assert_eq!(received(&there).0, 0, "{to}");
        assert_eq!(site.counted("dropped", "no_permission") - dropped, 10);
    }
    // Fail closed: the trickle is the daemon's to give.
    site.kill_router();
    let (from, to) = (LEFT[0].0, RIGHT[0].0);
    let (flooding, counting) = (socket(&site.left, from, 4000), socket(&site.right, to, 4001));
    std::thread::sleep(Duration::from_secs(2));
    flooding.send_to(b"without a daemon", (to, 4001)).unwrap();
    assert_eq!(received(&counting).0, 0);
}

/// P-191, P-194: a connection of two hosts without PBS makes progress at its trickle and no more, both ways, and takes nothing from what is
/// permitted on the same link.
#[test]
fn a_connection_without_pbs_makes_progress_at_its_trickle_and_no_more() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    const PACKETS: u32 = 5000;
    // Both have to let pass: one the data, one what acknowledges it. The permitted flow goes with what else leaves for its receiver.
    let mut site = Site::build("", &(open("r1") + &open("r2") + &open("r3")), true);
    let (sender, receiver) = site.permitted();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    for ((from, _), (to, _)) in LEFT.into_iter().zip(RIGHT) {
        let listener = site.right.run(|| TcpListener::bind((to, 4001))).unwrap();
        // What a program without PBS sends towards the permitted flow's own link besides.
        let flooding = socket(&site.left, LEFT[0].0, 4000);
        let (before, start, end) = (site.arrived_on_the_right(), Instant::now(), AtomicBool::new(false));
        let (octets, on_the_wire, elapsed, arrived) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let (mut accepted, _) = listener.accept().unwrap();
                accepted.set_read_timeout(Some(PATIENCE)).unwrap();
                let (mut read, mut buffer) = (0, [0; 65_536]);
                while let Ok(length @ 1..) = accepted.read(&mut buffer) {
                    read += length as u64;
                }
                read
            });
            let mut stream = site.left.run(|| TcpStream::connect_timeout(&(to, 4001).into(), PATIENCE)).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    let _ = stream.write(&[7; 16_384]);
                }
                // Whoever closes in order waits for what is still to be sent.
                setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
                drop(stream);
            });
            let arriving = scope.spawn(|| std::iter::from_fn(|| receiver.recv(&mut [0; 2000]).ok()).count());
            for _ in 0..PACKETS {
                let _ = sender.send(&[1; 100]);
                let _ = flooding.send_to(&[0; 472], (RECEIVER, 4001));
                // What a busy machine delays is not sent in one burst.
                std::thread::sleep(Duration::from_millis(1));
            }
            let (on_the_wire, elapsed) = (site.arrived_on_the_right() - before, start.elapsed());
            end.store(true, Ordering::Relaxed);
            (reading.join().unwrap(), on_the_wire, elapsed, arriving.join().unwrap())
        });
        let most = BURST + RATE * u64::try_from(elapsed.as_millis()).unwrap() / 1000 + 1500;
        eprintln!(
            "{from}: {octets} octets read, {on_the_wire} on the wire in {elapsed:?} ({most} at most); permitted {arrived} of {PACKETS}"
        );
        assert!(on_the_wire <= most, "{on_the_wire} octets in {elapsed:?}, at most {most}");
        assert!(octets >= most / 4, "the connection makes progress: {octets}");
        assert!(arrived * 100 >= PACKETS as usize * 95, "{arrived} of {PACKETS}");
    }
}

/// of all sources together no more than the interface's share leaves, however many they are.
#[test]
fn many_sources_share_what_may_trickle_by_an_interface() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    // 5 % of it are 8000 octets a second.
    let site = Site::build("", "[[interface]]\nname = \"r3\"\nmode = \"open\"\negress_rate = 1280000\n", true);
    let counting = socket(&site.right, RIGHT[0].0, 4001);
    let start = Instant::now();
    for host in 10..20 {
        let source = IpAddr::V4(Ipv4Addr::new(192, 168, 40, host));
        link::add_address(&site.left, LEGACY_LINK, source, 24).unwrap();
        let sending = socket(&site.left, source, 4000);
        for _ in 0..40 {
            sending.send_to(&[0; 472], (RIGHT[0].0, 4001)).unwrap();
        }
    }
    let (_, octets) = received(&counting);
    let most = RATE + RATE * u64::try_from(start.elapsed().as_millis()).unwrap() / 1000 + 500;
    assert!((RATE - 500..=most).contains(&octets), "{octets} octets of ten sources, at most {most}");
    assert!(site.rule("trickle-0", "above the bucket") > 50, "each source for itself had tokens left");
}

/// whoever observes sees what he would deny, and denies nothing, also without a daemon.
#[test]
fn observe_forwards_what_would_be_dropped_and_says_why() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut site = Site::build("mode = \"observe\"", "[[interface]]\nname = \"r2\"\nmode = \"closed\"\n", true);
    let modes = site.ask("status")["modes"].clone();
    let modes: Vec<_> =
        modes.as_array().unwrap().iter().map(|row| (row["interface"].as_str().unwrap(), row["mode"].as_str().unwrap())).collect();
    assert_eq!(modes, [("r2", "closed"), ("*", "observe")]);
    for ((from, own_router), (to, router)) in LEFT.into_iter().zip(RIGHT) {
        let (sending, receiving) = (socket(&site.left, from, 4000), socket(&site.right, to, 4001));
        let would_drop = site.counted("would_drop", "no_permission");
        for _ in 0..30 {
            sending.send_to(b"unasked", (to, 4001)).unwrap();
        }
        assert_eq!(received(&receiving).0, 30);
        assert_eq!(site.counted("would_drop", "no_permission") - would_drop, 30);
        // Towards the closed interface it is dropped, and not said to be something else.
        let dropped = site.counted("dropped", "no_permission");
        receiving.send_to(b"back", (from, 4000)).unwrap();
        assert_eq!(received(&sending).0, 0);
        assert_eq!((site.counted("dropped", "no_permission") - dropped, site.counted("would_drop", "no_permission") - would_drop), (1, 30));
        // For the router itself: by the mode of the interface that it comes by.
        let own = socket(&site.chain.router, router, 5000);
        receiving.send_to(b"for the router", (router, 5000)).unwrap();
        assert_eq!(received(&own).0, 1);
        let own = socket(&site.chain.router, own_router, 5001);
        sending.send_to(b"for the router", (own_router, 5001)).unwrap();
        assert_eq!(received(&own).0, 0);
    }
    assert!(site.rule("input", "would drop, not exempt") >= 2 && site.rule("input", "not exempt") >= 2);
    let log = site.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("WOULD_DROP")).collect();
    assert!(lines.iter().any(|line| line.contains("no_permission") && line.contains("192.168.40.1")), "{log}");
    assert!(lines.len() < 15, "one line a second: {lines:?}");
    everything_that_is_too_much_passes(&site);
    site.kill_router();
    for ((from, _), (to, _)) in LEFT.into_iter().zip(RIGHT) {
        let (sending, receiving) = (socket(&site.left, from, 4000), socket(&site.right, to, 4001));
        sending.send_to(b"without a daemon", (to, 4001)).unwrap();
        assert_eq!(received(&receiving).0, 1, "{to}: observe passes without a daemon");
        receiving.send_to(b"back", (from, 4000)).unwrap();
        assert_eq!(received(&sending).0, 0, "{from}: closed does not");
    }
}

/// More than 20,000 packets a second: what comes to the router leaves it, and it says how much of that it has not judged.
fn everything_that_is_too_much_passes(site: &Site) {
    const PACKETS: u64 = 40_000;
    let ((from, _), (to, _)) = (LEFT[0], RIGHT[0]);
    let sending = socket(&site.left, from, 4005);
    let said = || (site.rule("forward", "data"), site.ask("status")["passed_unjudged"].as_u64().unwrap());
    let judged = || site.counted("would_drop", "no_permission");
    let (before, left, judged_before) = (said(), site.left_on_the_right(), judged());
    let queue_full = site.counted("dropped", "queue_full");
    let start = Instant::now();
    for _ in 0..PACKETS {
        let _ = sending.send_to(b"too much", (to, 4005));
    }
    let elapsed = start.elapsed();
    let (mut came, mut unjudged, mut now_judged, mut found_full) = (0, 0, 0, 0);
    eventually("all of it is judged or not", || {
        (came, unjudged) = (said().0 - before.0, said().1 - before.1);
        now_judged = judged() - judged_before;
        // The other interface is closed, so the queue itself does not give way when it is full.
        found_full = site.counted("dropped", "queue_full") - queue_full;
        now_judged + unjudged + found_full == came
    });
    let (left, judged, queue_full) = (site.left_on_the_right() - left, now_judged, found_full);
    eprintln!(
        "{PACKETS} in {elapsed:?}: {came} came, {left} left, {judged} of them judged, {unjudged} not; {queue_full} found the queue full"
    );
    assert!(unjudged > 0, "so many cannot be judged");
    assert!(left + queue_full >= came, "{left} left");
}
