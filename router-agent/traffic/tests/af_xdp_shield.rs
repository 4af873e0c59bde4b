//! The shield in the XDP program: what has no permission is dropped before the kernel makes a packet of it, and before the worker sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;
mod short_path;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use namespace::{QUIET, add_route, eventually, privileged};
use raw::{Raw, fragments, packet, with_hop_limit};
use short_path::{AH, BEHIND, FAMILIES, IS_ROUTER, Path, SPI, UDP, Way, expected, flow, route, sealed};
use traffic::af_xdp::{self, Shield};
use traffic::reason::DropReason;
use traffic::rules::{self, Admitted, Front, Role};

const LASTING: Duration = Duration::from_secs(600);

#[test]
fn a_flood_under_made_up_spis_reaches_no_worker_and_a_permitted_flow_beside_it_loses_nothing() {
    // P-194, INV-01, X-73.
    if !privileged() {
        return;
    }
    for observed in [false, true] {
        let path = Path::new(Way::Shielded { observed });
        for [sender, _, _, receiver, ..] in FAMILIES {
            let ends = (sender, receiver);
            path.admit(ends, SPI, LASTING);
            let raw = path.acquaint(ends, 1);
            // Without what the receiver's kernel complains of where nobody reads what comes there.
            let accepted = || path.counters.accepted().packets - path.counters.passed_errors().packets;
            let (dropped, before, queued) = (path.dropped_by_xdp(), accepted(), path.counted("permitted"));
            let stop = AtomicBool::new(false);
            let flood = || {
                let raw = path.sender.run(|| Raw::open(sender));
                let made_up = sealed(ends, SPI, 11, 100);
                let at = if sender.contains(':') { 44 } else { 24 };
                let mut sent = 0_u32;
                while !stop.load(Ordering::Relaxed) || sent < 1000 {
                    sent += 1;
                    let mut packet = made_up.clone();
                    packet[at..at + 4].copy_from_slice(&(1 << 20 | sent).to_be_bytes());
                    raw.send(&packet);
                }
                sent
            };
            let sent = std::thread::scope(|scope| {
                let flood = scope.spawn(flood);
                for number in 11..=210 {
                    let packet = sealed(ends, SPI, number, 100);
                    raw.send(&packet);
                    assert_eq!(path.arrives("far2"), Some(expected(&packet)), "{sender}: {number}");
                }
                stop.store(true, Ordering::Relaxed);
                flood.join().unwrap()
            });
            eventually("all of it is counted", || path.dropped_by_xdp() == dropped + u64::from(sent));
            assert_eq!(accepted(), before + 200, "{sender}: of {sent}");
            assert_eq!(path.counted("permitted"), queued, "{sender}");
        }
        assert_eq!(path.statistics.dropped(), Some(0));
        assert!(path.all_dropped().iter().all(|(reason, _)| *reason == DropReason::ErrorRate), "{:?}", path.all_dropped());
        let shown = path.router.run(|| path.admitted().dropped().unwrap());
        let shown = shown.iter().find(|(reason, _)| *reason == DropReason::UnknownSpi).unwrap().1;
        assert_eq!(shown.packets, path.dropped_by_xdp());
        assert!(shown.bytes > 100 * shown.packets);
    }
}

#[test]
fn a_permission_is_known_to_the_next_packet_and_a_removal_too_and_it_ends_by_itself() {
    // P-142, X-73.
    if !privileged() {
        return;
    }
    let path = Path::new(Way::Shielded { observed: false });
    for [sender, _, _, receiver, ..] in FAMILIES {
        let ends = (sender, receiver);
        path.admit(ends, SPI, LASTING);
        let raw = path.acquaint(ends, 1);
        for number in (11..20).step_by(2) {
            path.forget(ends, SPI);
            let (dropped, judged) = (path.dropped_by_xdp(), path.judged());
            raw.send(&sealed(ends, SPI, number, 100));
            eventually("it is dropped", || path.dropped_by_xdp() == dropped + 1);
            assert_eq!(path.judged(), judged, "{sender}: after the removal");
            path.admit(ends, SPI, LASTING);
            let packet = sealed(ends, SPI, number + 1, 100);
            raw.send(&packet);
            assert_eq!(path.arrives("far2"), Some(expected(&packet)), "{sender}: again");
        }
        // The same SPI between others is another's.
        let dropped = path.dropped_by_xdp();
        raw.send(&sealed((receiver, receiver), SPI, 30, 100));
        eventually("it is dropped", || path.dropped_by_xdp() == dropped + 1);
        path.admit(ends, SPI, Duration::from_millis(300));
        std::thread::sleep(Duration::from_millis(400));
        raw.send(&sealed(ends, SPI, 31, 100));
        eventually("it has ended", || path.dropped_by_xdp() == dropped + 2);
    }
    assert_eq!(path.all_dropped(), []);
}

/// of what leaves by an interface in observe mode nothing is dropped.
#[test]
fn what_leaves_by_an_observed_interface_is_judged_whatever_its_spi_and_what_is_no_whole_ah_goes_the_kernels_way() {
    if !privileged() {
        return;
    }
    let path = Path::new(Way::Shielded { observed: true });
    for ([sender, _, _, receiver, _, second], behind) in FAMILIES.into_iter().zip(BEHIND) {
        add_route(&path.router, behind, if behind.contains(':') { 128 } else { 32 }, second);
        let raw = path.sender.run(|| Raw::open(sender));
        let dropped = path.dropped_by_xdp();
        let unknown = sealed((sender, behind), 77, 1, 100);
        raw.send(&unknown);
        assert_eq!(path.arrives("side2"), Some(expected(&unknown)), "{sender}");
        path.admit((sender, receiver), SPI, LASTING);
        let queued = path.counted("permitted");
        fragments(&sealed((sender, receiver), SPI, 2, 100)).iter().for_each(|fragment| raw.send(fragment));
        eventually("it is made whole and judged", || path.counted("permitted") == queued + 1);
        let other = path.counted("no_permission");
        raw.send(&packet((sender, receiver), UDP, [1_u16, 2, 10, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec(), 6));
        eventually("the rules drop it", || path.counted("no_permission") == other + 1);
        assert_eq!(path.dropped_by_xdp(), dropped, "{sender}");
    }
}

#[test]
fn the_shield_alone_stands_before_the_rules_and_what_it_cannot_tell_they_judge() {
    if !privileged() {
        return;
    }
    let path = Path::new(Way::Shield);
    for [sender, near, _, receiver, ..] in FAMILIES {
        let ends = (sender, receiver);
        path.admit(ends, SPI, LASTING);
        let raw = path.acquaint(ends, 1);
        let (dropped, judged, unknown) = (path.dropped_by_xdp(), path.judged(), path.counted("unknown_spi"));
        let good = sealed(ends, SPI, 11, 100);
        raw.send(&good);
        assert_eq!(path.arrives("far2"), Some(expected(&good)));
        assert_eq!(path.judged(), judged + 1);
        // Also for the router itself, and with no hop left: of AH nothing is exempt.
        for bad in [sealed(ends, SPI + 1, 1, 100), sealed((sender, near), SPI, 1, 100), with_hop_limit(sealed(ends, 5, 1, 100), 1)] {
            raw.send(&bad);
        }
        eventually("they are dropped", || path.dropped_by_xdp() == dropped + 3);
        fragments(&sealed(ends, SPI + 1, 12, 100)).iter().for_each(|fragment| raw.send(fragment));
        eventually("the rules drop it", || path.counted("unknown_spi") == unknown + 1);
        fragments(&sealed(ends, SPI, 12, 100)).iter().for_each(|fragment| raw.send(fragment));
        eventually("it is made whole and judged", || path.judged() == judged + 2);
        let short = path.counted("malformed");
        raw.send(&packet(ends, AH, vec![UDP, 5, 0, 0], 2));
        eventually("the rules drop it", || path.counted("malformed") == short + 1);
        assert_eq!((path.dropped_by_xdp(), path.judged()), (dropped + 3, judged + 2), "{sender}");
    }
    let standing = path.made.as_ref().unwrap().standing.as_ref().unwrap();
    assert!(standing.show().all(|(_, stands)| stands == Some(true)));
    path.router.run(|| af_xdp::restore().unwrap());
    assert!(standing.show().all(|(_, stands)| stands == Some(false)), "somebody has taken it off");
}

#[test]
fn a_permission_for_which_the_program_has_no_room_is_refused_and_the_rules_do_not_know_it_either() {
    // FN-70.
    if !privileged() {
        return;
    }
    let path = Path::without_router();
    path.router.run(|| {
        rules::RouterRules { shield: true, ..rules::RouterRules::new(1, 2, 30_270) }.install().unwrap();
        let (admitted, shield) = (Admitted::open(Role::Router).unwrap(), Shield::new(0, true).unwrap());
        admitted.stand_behind(Arc::new(shield));
        let flow = flow(FAMILIES[0][0], FAMILIES[0][3]);
        let admit = |spi| {
            let ticket = admitted.admit(flow, spi, LASTING);
            admitted.settled();
            admitted.outcome(ticket).unwrap()
        };
        // As many as 0 and what may not have been cleared away.
        for spi in 300..300 + 1024 {
            admit(spi).unwrap();
        }
        let why = admit(7000).unwrap_err();
        assert!(why.contains("knows 1024 permissions already"), "{why}");
        assert_eq!(admitted.counts(), (1024, 1));
        admitted.forget(flow, 300);
        assert_eq!(admit(7000), Ok(()), "there is room again");
    });
}

#[test]
fn the_program_has_room_for_what_comes_when_others_have_ended() {
    // FN-70.
    if !privileged() {
        return;
    }
    let path = Path::without_router();
    path.router.run(|| {
        rules::RouterRules { shield: true, ..rules::RouterRules::new(1, 2, 30_270) }.install().unwrap();
        let (admitted, shield) = (Admitted::open(Role::Router).unwrap(), Shield::new(0, true).unwrap());
        admitted.stand_behind(Arc::new(shield));
        let flow = flow(FAMILIES[0][0], FAMILIES[0][3]);
        for (first, lasts) in [(300, Duration::from_millis(300)), (3000, LASTING)] {
            let tickets: Vec<_> = (first..first + 1024).map(|spi| admitted.admit(flow, spi, lasts)).collect();
            admitted.settled();
            assert!(tickets.into_iter().all(|ticket| admitted.outcome(ticket) == Some(Ok(()))), "from {first}");
            std::thread::sleep(Duration::from_millis(400));
        }
    });
}

/// The bounds that the documentation of the shield states.
#[test]
fn a_permission_takes_128_octets_of_the_kernels_memory_while_it_stands_and_room_for_it_32() {
    if !privileged() {
        return;
    }
    const MOST: u32 = 27_000;
    let shield = Shield::new(MOST as usize, true).unwrap();
    let room = MOST + MOST / 4 + 1024;
    let [source, destination] = [1, 2].map(|host| std::net::IpAddr::from([192, 0, 2, host]));
    let change = |until| (0..MOST).for_each(|spi| shield.change((source, destination, spi), until).unwrap());
    let empty = memory_of_hash_map(room);
    change(Some(std::time::Instant::now() + LASTING));
    let full = memory_of_hash_map(room);
    eprintln!("{} octets for each of {room}, {} more for each of {MOST}", empty / u64::from(room), (full - empty) / u64::from(MOST));
    assert!(empty <= 32 * u64::from(room) && full - empty <= 128 * u64::from(MOST), "{empty}, {full}");
    change(None);
    assert_eq!(memory_of_hash_map(room), empty);
}

/// Octets that the kernel says it has given to this process's map with so many entries (before Linux 6.4 those that it has room for).
fn memory_of_hash_map(entries: u32) -> u64 {
    let texts =
        std::fs::read_dir("/proc/self/fdinfo").unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default());
    let field = |text: &str, name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let mut maps = texts.filter(|text| field(text, "map_type:") == Some(1) && field(text, "max_entries:") == Some(entries.into()));
    field(&maps.next().unwrap(), "memlock:").unwrap()
}

#[test]
fn the_shield_stays_when_the_process_is_killed_and_is_empty_when_another_begins() {
    // INV-01: fail closed.
    if !privileged() {
        return;
    }
    let mut path = Path::without_router();
    let [sender, _, _, receiver, ..] = FAMILIES[0];
    let ends = (sender, receiver);
    let mut number = 0;
    let mut child = path.start_process();
    let raw = path.sender.run(|| Raw::open(sender));
    let mut send = |path: &Path, count: usize| {
        for _ in 0..count {
            number += 1;
            raw.send(&sealed(ends, SPI, number, 100));
            raw.send(&sealed(ends, 77, number, 100));
        }
        path.arrives("far2").is_some()
    };
    eventually("packets pass", || send(&path, 1) && send(&path, 1));
    child.kill().unwrap();
    child.wait().unwrap();
    path.drain();
    assert!(!send(&path, 100), "nobody is there");
    path.router.run(|| rules::remove(Role::Router).unwrap());
    assert!(!send(&path, 100), "somebody has taken the rules away");
    let path = path.routing(Way::Shielded { observed: false });
    assert!(!send(&path, 100), "nobody has permitted it yet");
    assert_eq!((path.dropped_by_xdp(), path.judged()), (200, 0));
    path.admit(ends, SPI, LASTING);
    eventually("packets pass", || send(&path, 1));
    std::thread::sleep(QUIET);
}

/// The router of the test before, as a process: it says that it is ready, and lives until it is killed.
#[test]
fn a_process_that_is_to_be_killed() {
    if std::env::var_os(IS_ROUTER).is_none() {
        return;
    }
    let made = route(Way::Shielded { observed: false });
    for [sender, _, _, receiver, ..] in FAMILIES {
        made.admitted.as_ref().unwrap().admit(flow(sender, receiver), SPI, LASTING);
    }
    made.admitted.as_ref().unwrap().settled();
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        std::hint::black_box(&made);
    }
}
