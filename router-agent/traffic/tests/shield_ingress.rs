//! The shield at the ingress of a router's interfaces, before that of the rules: what only it has. That it lets by and drops what the rules do
//! is tested with them (`shield`, `shield_lifetime`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;
mod shield_path;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use namespace::{Namespace, QUIET, eventually, flow_of, link, privileged};
use nix::sys::socket::{setsockopt, sockopt};
use raw::Raw;
use shield_path::{FAMILIES, LASTING, Path, SPI, sealed, settled, shielded};
use traffic::reason::DropReason;
use traffic::rules::{LET_BY, RouterRules};

/// Room for 1024, so that the table has 512 lines, and many permissions find no place in theirs.
fn small() -> RouterRules {
    RouterRules { permissions: 0, ingress: true, ..shielded() }
}

fn parsed([sender, _, _, receiver]: [&str; 4]) -> (IpAddr, IpAddr) {
    (sender.parse().unwrap(), receiver.parse().unwrap())
}

#[test]
fn every_permission_is_let_by_wherever_it_stands_and_no_other() {
    // INV-01, P-194.
    if !privileged() {
        return;
    }
    const MANY: u32 = 1000;
    for family in FAMILIES {
        let mut path = Path::new(small());
        let (from, to) = parsed(family);
        let ends = (family[0], family[3]);
        let raw = path.sender.run(|| Raw::open(family[0]));
        for spi in SPI..SPI + MANY {
            path.admitted.admit(flow_of(from, to, spi), spi, LASTING);
        }
        path.admitted.settled();
        assert_eq!(path.admitted.counts(), (MANY as usize, 0));
        for spi in SPI..SPI + MANY {
            raw.send(&sealed(ends, spi, 10));
            assert!(path.came().is_some(), "{spi}");
        }
        // The rules know nothing any more: what comes has been let by before them. A few may have found no place there.
        path.router.run(|| small().install().unwrap());
        let come = |path: &mut Path| {
            let came = |spi: &u32| {
                raw.send(&sealed(ends, *spi, 10));
                path.came().is_some()
            };
            (SPI..SPI + MANY).step_by(10).filter(came).count()
        };
        let let_by = come(&mut path);
        assert!((80..=100).contains(&let_by), "{let_by} of 100");
        path.admitted.refill();
        path.admitted.settled();
        assert_eq!(come(&mut path), 100);
        let counted = path.counted(DropReason::UnknownSpi);
        for spi in SPI + MANY..SPI + 2 * MANY {
            raw.send(&sealed(ends, spi, 10));
        }
        eventually("each is counted", || path.counted(DropReason::UnknownSpi) == counted + u64::from(MANY));
        assert_eq!(path.came(), None);
        // What goes leaves a place, and takes no other with it.
        for spi in (SPI..SPI + MANY).step_by(2) {
            path.admitted.forget(flow_of(from, to, spi), spi);
        }
        path.admitted.settled();
        for spi in SPI..SPI + MANY {
            raw.send(&sealed(ends, spi, 10));
            if spi % 2 == 1 {
                assert!(path.came().is_some(), "{spi}");
            }
        }
        assert_eq!(path.came(), None, "none of those that have gone");
    }
}

/// INV-11.
#[test]
fn what_goes_is_not_let_by_any_more_although_its_line_was_full() {
    if !privileged() {
        return;
    }
    let mut path = Path::new(small());
    let (from, to) = parsed(FAMILIES[0]);
    let raw = path.sender.run(|| Raw::open(FAMILIES[0][0]));
    let all = || SPI..SPI + 1024;
    let change = |admit: bool| {
        for spi in all() {
            let flow = flow_of(from, to, spi);
            let _ = if admit { path.admitted.admit(flow, spi, LASTING) } else { path.admitted.forget(flow, spi) };
        }
        path.admitted.settled();
    };
    change(true);
    let refused = settled(&path.admitted, path.admitted.admit(flow_of(from, to, 7), 7, LASTING)).unwrap_err();
    assert!(refused.contains("the program at the ingress knows 1024 permissions already"), "{refused}");
    change(false);
    for spi in all().chain([7]) {
        raw.send(&sealed((FAMILIES[0][0], FAMILIES[0][3]), spi, 10));
    }
    assert_eq!(path.came(), None);
    assert_eq!(path.admitted.counts().0, 0);
    // One that has come since has a place again.
    settled(&path.admitted, path.admitted.admit(flow_of(from, to, 7), 7, LASTING)).unwrap();
    raw.send(&sealed((FAMILIES[0][0], FAMILIES[0][3]), 7, 10));
    assert!(path.came().is_some());
}

/// INV-12: when the process goes, so do its programs, also by a kill; then the rules look everything up.
#[test]
fn when_it_goes_the_rules_stand_under_a_flood_as_before() {
    if !privileged() {
        return;
    }
    let mut path = Path::new(RouterRules { ingress: true, ..shielded() });
    for family in FAMILIES {
        let (from, to) = parsed(family);
        settled(&path.admitted, path.admitted.admit(flow_of(from, to, SPI), SPI, LASTING)).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding = path.sender.run(|| Raw::open(FAMILIES[0][0]));
        let done = &done;
        let flood = scope.spawn(move || {
            for spi in 1_000_000.. {
                flooding.send(&sealed((FAMILIES[0][0], FAMILIES[0][3]), spi, 20));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for stands in [true, false] {
            if !stands {
                path.ingress = None;
            }
            for family in FAMILIES {
                let ends = (family[0], family[3]);
                let raw = path.sender.run(|| Raw::open(family[0]));
                let permitted = sealed(ends, SPI, 100);
                raw.send(&permitted);
                assert_eq!(path.came(), Some(permitted.len()), "{family:?} {stands}");
            }
        }
        done.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
    // What is changed from now on holds as well.
    let (from, to) = parsed(FAMILIES[0]);
    settled(&path.admitted, path.admitted.forget(flow_of(from, to, SPI), SPI)).unwrap();
    let raw = path.sender.run(|| Raw::open(FAMILIES[0][0]));
    raw.send(&sealed((FAMILIES[0][0], FAMILIES[0][3]), SPI, 100));
    assert_eq!(path.came(), None);
}

#[test]
fn a_sign_that_another_node_gives_its_packets_is_worth_nothing() {
    // INV-01.
    if !privileged() {
        return;
    }
    for ingress in [true, false] {
        let mut path = Path::new(RouterRules { ingress: true, ..shielded() });
        if !ingress {
            path.ingress = None;
        }
        for family in FAMILIES {
            let raw = path.sender.run(|| Raw::open(family[0]));
            setsockopt(&raw, sockopt::Priority, &LET_BY.cast_signed()).unwrap();
            let counted = path.counted(DropReason::UnknownSpi);
            raw.send(&sealed((family[0], family[3]), SPI, 100));
            eventually("it is dropped", || path.counted(DropReason::UnknownSpi) == counted + 1);
            assert_eq!(path.came(), None);
        }
    }
}

/// A packet of IPv6 of one that has a permission, behind whose AH there is a Fragment header, if only of a datagram in one piece.
fn fragment_behind_ah(ends: (&str, &str)) -> Vec<u8> {
    const NEXT_HEADER: usize = 40;
    let mut packet = sealed(ends, SPI, 100);
    let behind = NEXT_HEADER + (usize::from(packet[NEXT_HEADER + 1]) + 2) * 4;
    let fragment = [packet[NEXT_HEADER], 0, 0, 0, 1, 2, 3, 4];
    packet[behind..behind + 8].copy_from_slice(&fragment);
    packet[NEXT_HEADER] = 44;
    packet
}

#[test]
fn what_has_a_fragment_header_behind_ah_is_left_to_the_rules() {
    //
    if !privileged() {
        return;
    }
    let mut path = Path::new(small());
    let family = FAMILIES.into_iter().find(|family| family[0].contains(':')).unwrap();
    let (ends, (from, to)) = ((family[0], family[3]), parsed(family));
    settled(&path.admitted, path.admitted.admit(flow_of(from, to, SPI), SPI, LASTING)).unwrap();
    let raw = path.sender.run(|| Raw::open(family[0]));
    // The rules know nothing any more: what comes has been let by before them.
    path.router.run(|| small().install().unwrap());
    raw.send(&sealed(ends, SPI, 100));
    assert!(path.came().is_some());
    raw.send(&fragment_behind_ah(ends));
    assert_eq!(path.came(), None);
}

#[test]
fn who_opens_the_node_finds_no_program_in_the_way() {
    if !privileged() {
        return;
    }
    let path = Path::new(RouterRules { ingress: true, ..shielded() });
    let raw = path.sender.run(|| Raw::open(FAMILIES[0][0]));
    let unknown = sealed((FAMILIES[0][0], FAMILIES[0][3]), SPI, 100);
    path.admitted.open_up();
    let ingress = path.ingress.as_ref().unwrap();
    assert_eq!(ingress.show(), None);
    // These rules are still there: they see it, and count it.
    let counted = path.counted(DropReason::UnknownSpi);
    raw.send(&unknown);
    eventually("it comes to the rules", || path.counted(DropReason::UnknownSpi) == counted + 1);
    // Nor does it come back when interfaces are looked for.
    std::thread::sleep(std::time::Duration::from_secs(3));
    raw.send(&unknown);
    eventually("it comes to the rules", || path.counted(DropReason::UnknownSpi) == counted + 2);
}

#[test]
fn interfaces_that_come_later_have_it_soon_and_those_that_go_are_no_more_shown() {
    if !privileged() {
        return;
    }
    let path = Path::new(RouterRules { ingress: true, ..shielded() });
    let ingress = path.ingress.as_ref().unwrap();
    let shown = || ingress.show().unwrap();
    let stands = |name: &str| shown().contains(&(name.to_owned(), true));
    assert!(stands("up") && stands("down") && shown().len() == 2, "{:?}", shown());
    {
        let other = Namespace::new();
        link(1500, (&path.router, "later", &[]), (&other, "peer", &[]));
        eventually("it stands there", || stands("later"));
    }
    eventually("it is gone", || shown().len() == 2);
    std::thread::sleep(QUIET / 10);
    assert!(stands("up"));
}
