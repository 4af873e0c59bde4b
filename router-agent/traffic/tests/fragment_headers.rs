//! IPv6 Fragment headers on real packets: what reassembly leaves of them, and what the router makes of the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod support;

use std::net::SocketAddrV6;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use namespace::{Namespace, add_route, eventually, link, next, privileged};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, socket};
use support::{V6_DESTINATION, flow_v6, ipv6, key, udp};
use traffic::ah::{self, Number};
use traffic::algorithm::MacAlgorithm;
use traffic::checks::Strict;
use traffic::counters::{Count, Counters};
use traffic::packet::IpPacket;
use traffic::queue::{Decision, Queue, QueueConfig};
use traffic::reason::DropReason;
use traffic::replay::Numbering;
use traffic::rules::RouterRules;
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};
use traffic::worker::{Clock, Up, Worker, WorkerConfig};

const DATA: u16 = 2;
const SPI: u32 = 4096;
const FRAGMENT: u8 = 44;
const AH: u8 = 51;

/// RFC 8200 §4.5, RFC 6946. What is left of several is the router's to refuse.
#[test]
fn the_kernel_takes_one_atomic_fragment_header_out_and_leaves_those_behind_it() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    let mut queue = path.router.run(|| Queue::open(QueueConfig::new(DATA)).unwrap());
    for (sent, queued) in [(0, 0), (1, 0), (2, 1), (3, 2)] {
        path.send(&with_fragment_headers(&sealed(1), sent));
        let packet = next(&queue);
        assert_eq!(packet.payload.len(), sealed(1).len() + 8 * queued, "{sent} sent");
        assert_eq!(packet.payload[6], if queued == 0 { AH } else { FRAGMENT }, "{sent} sent");
        queue.verdict(packet.id, Decision::Drop).unwrap();
    }
}

/// The headers are not under the ICV (RFC 4302 appendix A2): whoever stands on the way can put them in.
#[test]
fn fragment_headers_put_into_a_packet_on_its_way_do_not_use_up_its_volume() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    let clock = Clock::new(Instant::now());
    let counters = Arc::new(Counters::default());
    let verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), Arc::clone(&counters)).unwrap();
    let queue = path.router.run(|| Queue::open(QueueConfig::new(DATA)).unwrap());
    let config = WorkerConfig::new("data".into(), clock, Arc::clone(&counters));
    let mut worker = Worker::spawn(queue, Box::new(verifier), config, Box::new(|| {})).unwrap();
    let key = key(MacAlgorithm::HmacSha256_128, 7);
    let expires_at = clock.now() + Duration::from_secs(600).into();
    let grant = Grant { flow: flow_v6(), spi: SPI, key, allowed: 1 << 20, counted: 0, highest: 0, expires_at };
    worker.send(Update::Install { token: 1, grant }).unwrap();
    eventually("the permission is installed", || matches!(worker.receive(), Some(Up::Applied(_))));
    for (number, headers) in (1..).zip(2..10) {
        path.send(&with_fragment_headers(&sealed(number), headers));
    }
    let refused = || counters.dropped(DropReason::FragmentNotReassembled).packets;
    eventually("all are judged", || counters.accepted().packets + refused() == 8);
    assert_eq!((counters.accepted(), refused()), (Count::default(), 8));
    // Their numbers are still free, and what reassembly makes whole again is counted as its sender sent it.
    path.send(&sealed(1));
    path.send(&with_fragment_headers(&sealed(2), 1));
    // The receiver's stack answers that it knows no AH, which the router lets pass; it uses up no volume.
    let mut counted = (0, 0);
    eventually("both pass", || {
        worker.send(Update::Snapshot { token: 2, flow: flow_v6(), spi: SPI }).unwrap();
        while let Some(up) = worker.receive() {
            if let Up::Applied(applied) = up {
                counted = (applied.highest, applied.counted);
            }
        }
        counted.0 == 2
    });
    assert_eq!(counted, (2, 2 * sealed(1).len() as u64));
}

/// The same behind every other extension header that may stand before AH.
#[test]
fn a_fragment_header_behind_other_extension_headers_is_refused_too() {
    let plain = ipv6(0, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(4000, 9000, 9)].concat());
    let sealed = seal(&plain, 1);
    let mut hidden = ipv6(0, &[&sealed[40..48], &[AH, 0, 0, 0, 0, 0, 0, 9][..], &sealed[48..]].concat());
    hidden[40] = FRAGMENT;
    for (packet, expected) in [(&sealed, Ok(())), (&hidden, Err(DropReason::FragmentNotReassembled))] {
        let packet = IpPacket::parse(packet).unwrap();
        assert!(ah::icv_matches(&packet, &key(MacAlgorithm::HmacSha256_128, 7), None));
        assert_eq!(ah::policy::check(&packet, Numbering::Short), expected);
    }
}

/// Sender, router with its rules, receiver.
struct Path {
    router: Namespace,
    _hosts: [Namespace; 2],
    raw: OwnedFd,
}

impl Path {
    fn new() -> Self {
        let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
        link(1500, (&sender, "up", &[("fd20::1", 64)]), (&router, "down", &[("fd20::fe", 64)]));
        link(1500, (&router, "up", &[("fd21::fe", 64)]), (&receiver, "down", &[("fd21::4", 64)]));
        add_route(&sender, "::", 0, "fd20::fe");
        add_route(&receiver, "::", 0, "fd21::fe");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        router.run(|| RouterRules::new(1, DATA, 30_270).install().unwrap());
        let raw = sender.run(|| socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap());
        Self { router, _hosts: [sender, receiver], raw }
    }

    fn send(&self, packet: &[u8]) {
        let to = SockaddrIn6::from(SocketAddrV6::new(V6_DESTINATION, 0, 0, 0));
        sendto(self.raw.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
    }
}

/// A packet under AH with a right ICV and this number.
fn sealed(number: u32) -> Vec<u8> {
    seal(&ipv6(17, &udp(4000, 9000, 100)), number)
}

fn seal(plain: &[u8], number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let key = key(MacAlgorithm::HmacSha256_128, 7);
    ah::insert(&IpPacket::parse(plain).unwrap(), SPI, Number { low: number, high: None }, &key, &mut out).unwrap();
    out
}

fn with_fragment_headers(packet: &[u8], count: usize) -> Vec<u8> {
    let (base, rest) = packet.split_at(40);
    let mut chain = Vec::new();
    for left in (0..count).rev() {
        let next = if left == 0 { base[6] } else { FRAGMENT };
        chain.extend_from_slice(&[next, 0, 0, 0, 0, 0, 0, left as u8]);
    }
    let first = if count == 0 { base[6] } else { FRAGMENT };
    ipv6(first, &[&chain, rest].concat())
}
