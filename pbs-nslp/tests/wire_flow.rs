//! Flow identifiers, their agreement with GIST's routing information, and message numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod wire_support;

use std::net::IpAddr;

use gist::wire::{Direction, LooseEnd, Mri, PathCoupled};
use pbs_nslp::flow::{FlowError, FlowId, FlowMismatch};
use pbs_nslp::wire::{NotifyCode, number};
use proptest::prelude::*;
use wire_support::bytes_of::*;
use wire_support::*;

/// P-041, P-042, X-12, X-13: both ports or none, as the protocol has it, which is that of the upper layer and never AH.
#[test]
fn ports_go_with_protocols_that_have_them() {
    let flow = |protocol, source_port, destination_port| {
        FlowId::new(address("192.0.2.1"), address("192.0.2.2"), protocol, source_port, destination_port)
    };
    for protocol in 0..=u8::MAX {
        if [0, 43, 44, 51, 60].contains(&protocol) {
            assert_eq!(flow(protocol, 0, 0), Err(FlowError::NotUpperLayer(protocol)));
            continue;
        }
        let with_ports = [6, 17, 33, 132, 136].contains(&protocol);
        assert_eq!(flow(protocol, 1, 1).is_ok(), with_ports, "{protocol}");
        assert_eq!(flow(protocol, 0, 0).is_ok(), !with_ports, "{protocol}");
        assert_eq!(flow(protocol, 1, 0), Err(FlowError::Ports { protocol }));
        assert_eq!(flow(protocol, 0, 1), Err(FlowError::Ports { protocol }));
    }
}

/// P-043, X-14: no address but those of single reachable hosts, as source and as destination.
#[test]
fn special_addresses_are_refused() {
    let v4 = ["0.0.0.0", "255.255.255.255", "127.0.0.1", "127.255.0.9", "224.0.0.1", "239.1.2.3"];
    let v6 = ["::", "::1", "ff02::1", "ff0e::1", "fe80::1", "febf::1", "::ffff:192.0.2.1"];
    for (special, good) in v4.map(|special| (special, "192.0.2.1")).into_iter().chain(v6.map(|special| (special, "2001:db8::1"))) {
        let (special, good) = (address(special), address(good));
        for (source, destination) in [(special, good), (good, special)] {
            let refused = FlowId::new(source, destination, 17, 1, 1);
            assert!(matches!(refused, Err(FlowError::Address { address, .. }) if address == special), "{special}: {refused:?}");
        }
    }
    assert_eq!(FlowId::new(address("192.0.2.1"), address("2001:db8::1"), 17, 1, 1), Err(FlowError::MixedVersions));
    FlowId::new(address("fec0::1"), address("fd00::1"), 17, 1, 1).unwrap();
}

/// The same rules hold for bytes: P-038 to P-043.
#[test]
fn messages_about_impossible_flows_are_refused() {
    for fid in [
        "0010 0010  4330 0000 1388 2328 c000 0201 c633 6402", // AH
        "0010 0010  4110 0000 0000 2328 c000 0201 c633 6402", // UDP without a port
        "0010 0010  4010 0000 1388 2328 c000 0201 c633 6402", // ICMP with ports
        "0010 0010  4110 0000 1388 2328 e000 0001 c633 6402", // from a group
        "0010 0010  4110 0000 1388 2328 c000 0201 7f00 0001", // to loopback
        "0010 0010  5110 0000 1388 2328 c000 0201 c633 6402", // IP version 5
        "0010 0010  0110 0000 1388 2328 c000 0201 c633 6402", // IP version 0
    ] {
        assert_eq!(refusal(&message(QUERY, &[fid, MESSAGE_SEQ, REQ_VOL, PK_CERT, AUTH_DATA])), (NotifyCode::BadValue, 1), "{fid}");
    }
}

/// P-044, X-13, G-247: the routing information that a flow gives agrees with it, in both directions, for both IP versions.
#[test]
fn routing_information_of_a_flow_agrees_with_it() {
    let v6 = FlowId::new(address("2001:db8::1"), address("2001:db8::2"), 58, 0, 0).unwrap();
    for flow in [flow(), v6] {
        for direction in [Direction::Downstream, Direction::Upstream] {
            let mri = flow.to_mri(direction);
            assert_eq!(flow.check_mri(&mri), Ok(()));
            assert_eq!(FlowId::from_mri(&mri), Ok(flow));
            // Every field that tells flows apart is there.
            let Mri::PathCoupled(mri) = mri else { panic!("path-coupled") };
            assert!(mri.protocol.is_some() && mri.source_port.is_some() && mri.destination_port.is_some());
            let full = if mri.source.is_ipv4() { 32 } else { 128 };
            assert_eq!((mri.source_prefix, mri.destination_prefix), (full, full));
        }
    }
    let with_extras = changed(|mri| {
        mri.ds_field = Some(46);
        mri.direction = Direction::Upstream;
    });
    assert_eq!(flow().check_mri(&with_extras), Ok(()));
}

/// P-044, X-13, X-61: every single difference is named.
#[test]
fn routing_information_of_anything_else_is_refused() {
    let check = |change: fn(&mut PathCoupled)| flow().check_mri(&changed(change));
    assert_eq!(check(|mri| mri.source = address("192.0.2.9")), Err(FlowMismatch::Addresses));
    assert_eq!(check(|mri| mri.destination = address("192.0.2.9")), Err(FlowMismatch::Addresses));
    assert_eq!(check(|mri| mri.source_prefix = 31), Err(FlowMismatch::Prefix));
    assert_eq!(check(|mri| mri.destination_prefix = 24), Err(FlowMismatch::Prefix));
    assert_eq!(check(|mri| mri.protocol = Some(6)), Err(FlowMismatch::Protocol));
    assert_eq!(check(|mri| mri.protocol = None), Err(FlowMismatch::Protocol));
    assert_eq!(check(|mri| mri.source_port = Some(1)), Err(FlowMismatch::Ports));
    assert_eq!(check(|mri| mri.source_port = None), Err(FlowMismatch::Ports));
    assert_eq!(check(|mri| mri.destination_port = Some(0)), Err(FlowMismatch::Ports));
    assert_eq!(check(|mri| mri.spi = Some(0x1001)), Err(FlowMismatch::Spi));
    assert_eq!(flow().reversed().check_mri(&changed(|_| {})), Err(FlowMismatch::Addresses));

    let loose = Mri::LooseEnd(LooseEnd { direction: Direction::Downstream, source: flow().source, destination: flow().destination });
    assert_eq!(flow().check_mri(&loose), Err(FlowMismatch::NotPathCoupled));
    assert_eq!(FlowId::from_mri(&loose), Err(FlowMismatch::NotPathCoupled));
    assert_eq!(FlowId::from_mri(&changed(|mri| mri.source_port = None)), Err(FlowMismatch::Wildcard));
    let multicast = changed(|mri| mri.destination = address("224.0.0.1"));
    assert!(matches!(FlowId::from_mri(&multicast), Err(FlowMismatch::Flow(_))));
}

/// Flows print in a form that people read.
#[test]
fn flows_print_with_their_ports() {
    assert_eq!(flow().to_string(), "192.0.2.1:5000 > 198.51.100.2:9000 protocol 17");
    assert_eq!(flow().reversed().to_string(), "198.51.100.2:9000 > 192.0.2.1:5000 protocol 17");
    let icmp = FlowId::new(address("2001:db8::1"), address("2001:db8::2"), 58, 0, 0).unwrap();
    assert_eq!(icmp.to_string(), "2001:db8::1 > 2001:db8::2 protocol 58");
}

/// P-050, X-62: the clock, or one more than before if the clock has not moved on.
#[test]
fn numbers_follow_the_clock_and_never_repeat() {
    assert_eq!(number::next(None, 1_800_000_000), 1_800_000_000);
    assert_eq!(number::next(Some(1_800_000_000), 1_800_000_000), 1_800_000_001);
    assert_eq!(number::next(Some(1_800_000_000), 1_800_000_001), 1_800_000_001);
    assert_eq!(number::next(Some(1_800_000_000), 1_800_000_060), 1_800_000_060);
    assert_eq!(number::next(Some(1_800_000_500), 1_800_000_000), 1_800_000_501, "the clock was set back");
    assert_eq!(number::next(Some(u32::MAX), u64::from(u32::MAX)), 1, "0 would mean unsolicited in an Echo");
    assert_eq!(number::next(Some(u32::MAX - 1), (1 << 32) + 7), 7, "serial arithmetic after 2106");
}

/// P-048, X-62: RFC 1982 §3.2.
#[test]
fn numbers_are_compared_as_serial_numbers() {
    assert!(number::is_newer(1, 0) && !number::is_newer(0, 1) && !number::is_newer(5, 5));
    assert!(number::is_newer(0, u32::MAX) && !number::is_newer(u32::MAX, 0));
    assert!(number::is_newer(0x7fff_ffff, 0));
    assert!(!number::is_newer(0x8000_0000, 0) && !number::is_newer(0, 0x8000_0000), "no order at half the circle");
    assert!(!number::is_newer(0x8000_0001, 0) && number::is_newer(0, 0x8000_0001));
}

/// P-049, X-63: 300 s back, 30 s ahead, ends included, also across the wrap.
#[test]
fn fresh_numbers_lie_in_the_window() {
    for clock in [1_800_000_000_u64, 100, (1 << 32) - 10, (1 << 32) + 5] {
        let at = |offset: i64| number::at(clock.wrapping_add_signed(offset));
        for (offset, fresh) in [(-301, false), (-300, true), (0, true), (30, true), (31, false), (1 << 31, false)] {
            assert_eq!(number::is_fresh(at(offset), clock), fresh, "{clock} {offset}");
        }
    }
}

proptest! {
    /// P-046: whatever the clock does within half the circle, numbers grow.
    #[test]
    fn numbers_always_grow(mut clock: u64, steps in prop::collection::vec(-1000_i64..100_000, 1..50)) {
        let mut previous = number::next(None, clock);
        for step in steps {
            clock = clock.saturating_add_signed(step);
            let following = number::next(Some(previous), clock);
            prop_assert!(number::is_newer(following, previous));
            previous = following;
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn changed(change: fn(&mut PathCoupled)) -> Mri {
    let Mri::PathCoupled(mut mri) = flow().to_mri(Direction::Downstream) else { panic!("path-coupled") };
    change(&mut mri);
    Mri::PathCoupled(mri)
}
