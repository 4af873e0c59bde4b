//! What it costs to find the permission of a packet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use smoltcp::time::Instant;
use support::udp_v4;
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const PACKETS: u64 = 20_000;

/// P-202: a packet's permission is looked up in the same time among 60,000 as among 16, for a flow that has one as for one that has none;
/// whoever compared them one by one would take thousands of times as long.
#[test]
fn a_permission_is_found_as_fast_among_sixty_thousand_as_among_sixteen() {
    let few = [16, 60_000].map(cost);
    eprintln!("among 16: {:?} for {PACKETS} packets, among 60,000: {:?}", few[0], few[1]);
    for (few, many) in few[0].into_iter().zip(few[1]) {
        assert!(many < 20 * few, "{many:?} instead of {few:?}");
    }
}

/// Time of the processor for packets of a flow that has no permission, and of an SPI that lives with another number each.
fn cost(permissions: u32) -> [Duration; 2] {
    let config = VerifierConfig { capacity: 65_536, ..VerifierConfig::new(Role::Router) };
    let mut verifier = Verifier::new(config, Arc::new(Strict), Arc::default()).unwrap();
    let key = IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap();
    let flow = IpPacket::parse(&udp_v4(100)).unwrap().flow().unwrap();
    for number in 0..permissions {
        let source = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
        let flow = Flow { source, ..flow };
        let grant = Grant {
            flow,
            spi: 4096 + number,
            key: key.clone(),
            allowed: 1 << 30,
            counted: 0,
            highest: 0,
            expires_at: Instant::from_secs(1000),
        };
        verifier.apply(Update::Install { token: 1, grant }, Instant::ZERO).unwrap();
    }
    let clear = udp_v4(100);
    // Under AH with an SPI that lives for another source.
    let mut foreign = Vec::new();
    traffic::ah::insert(
        &IpPacket::parse(&clear).unwrap(),
        4096 + permissions / 2,
        traffic::ah::Number { low: 1, high: None },
        &key,
        &mut foreign,
    )
    .unwrap();
    [(clear, DropReason::NoPermission), (foreign, DropReason::FlowMismatch)].map(|(packet, expected)| {
        let begun = processor_time();
        for id in 0..PACKETS {
            match verifier.process(PacketId(id), &packet, Instant::ZERO) {
                Verdict::Drop(reason) => assert_eq!(reason, expected),
                other => panic!("{other:?}"),
            }
        }
        processor_time() - begun
    })
}

/// What the calling thread has had of processors.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_ascii_whitespace().next().unwrap().parse().unwrap())
}
