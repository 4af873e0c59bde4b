//! The packet queue: packets of plain sockets come up, verdicts go down, and what has no verdict never passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use namespace::{A4, A6, B4, B6, Namespace, QUIET, SOON, address, eventually, forbid_fragments, next, pair, privileged, receive};
use nix::sys::socket::{getsockopt, sockopt};
use traffic::processor::PacketId;
use traffic::queue::{Decision, Delivery, Queue, QueueConfig, QueueError, ReceiveBuffer, ReceiveError, kernel_statistics};
use traffic::routes::MtuPlan;
use traffic::rules::HostRules;

const OUT: u16 = 3;
const IN: u16 = 4;
/// No rule sends anything there.
const UNUSED: u16 = 9;
const PREROUTING: u8 = 0;
const OUTPUT: u8 = 3;

#[test]
fn an_accepted_datagram_arrives_and_a_dropped_one_does_not() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| host_rules().install().unwrap());
    let mut queue = b.run(|| Queue::open(QueueConfig::new(IN)).unwrap());
    for (from, to) in [(A4, B4), (A6, B6)] {
        let (sender, receiver) = (a.udp(address(from, 5000)), b.udp(address(to, 5001)));
        sender.send_to(b"first", address(to, 5001)).unwrap();
        sender.send_to(b"second", address(to, 5001)).unwrap();
        let (first, second) = (next(&queue), next(&queue));
        assert_eq!(first.hook, PREROUTING);
        assert!(first.payload.ends_with(b"first") && second.payload.ends_with(b"second"));
        assert_eq!(receive(&receiver, QUIET), None, "nothing passes before its verdict");
        queue.verdict(first.id, Decision::Drop).unwrap();
        queue.verdict(second.id, Decision::Accept).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap(), b"second");
        assert_eq!(receive(&receiver, QUIET), None);
    }
}

/// Each verdict is of one packet and names it: none says anything of those before it, whatever order they come in, and what has none yet
/// goes on waiting.
#[test]
fn verdicts_in_any_order_and_on_numbers_that_nobody_has_let_only_their_own_packets_pass() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| host_rules().install().unwrap());
    let mut queue = b.run(|| Queue::open(QueueConfig::new(IN)).unwrap());
    let (sender, receiver) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
    let waiting: Vec<PacketId> = (0..32_u8)
        .map(|number| {
            sender.send_to(&[number], address(B4, 5001)).unwrap();
            next(&queue).id
        })
        .collect();
    // The last first; of every four one is let pass, one is dropped twice, one is answered twice, and one not at all.
    for (number, id) in waiting.iter().enumerate().rev() {
        match number % 4 {
            0 => queue.add_verdict(*id, Decision::Accept).unwrap(),
            1 => {
                queue.add_verdict(*id, Decision::Drop).unwrap();
                queue.add_verdict(*id, Decision::Accept).unwrap();
            }
            2 => {
                queue.add_verdict(*id, Decision::Accept).unwrap();
                queue.add_verdict(*id, Decision::Drop).unwrap();
            }
            _ => queue.add_verdict(PacketId(id.0 + 1000), Decision::Accept).unwrap(),
        }
    }
    assert!(queue.send_verdicts().is_empty());
    let arrived: Vec<u8> = std::iter::from_fn(|| receive(&receiver, QUIET)).map(|octets| octets[0]).collect();
    let expected: Vec<u8> = (0..32).rev().filter(|number| number % 4 == 0 || number % 4 == 2).collect();
    assert_eq!(arrived, expected);
    let statistics = b.run(|| kernel_statistics(IN).unwrap().unwrap());
    assert_eq!(statistics.waiting, 8, "what has no verdict waits");
    let mut buffer = ReceiveBuffer::default();
    let mut refused = 0;
    while let Ok(deliveries) = queue.receive(&mut buffer) {
        refused += deliveries.filter(|delivery| matches!(delivery, Delivery::Refused { .. })).count();
    }
    assert_eq!(refused, 24, "each said of a packet that does not wait is told");
}

#[test]
fn a_replaced_payload_arrives_instead_longer_or_shorter() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    a.run(|| host_rules().install().unwrap());
    let mut queue = a.run(|| Queue::open(QueueConfig::new(OUT)).unwrap());
    let (sender, receiver) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
    for replacement in [&b"a longer text"[..], b"x"] {
        sender.send_to(b"original", address(B4, 5001)).unwrap();
        let packet = next(&queue);
        assert_eq!(packet.hook, OUTPUT);
        let payload = udp_with(&packet.payload, replacement);
        queue.verdict(packet.id, Decision::Replace { payload: &payload, mark: None }).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap(), replacement);
    }
}

#[test]
fn a_packet_grown_to_the_size_of_the_link_leaves_by_its_mark() {
    if !privileged() {
        return;
    }
    let plan = MtuPlan::new(28, 32);
    let (a, b) = pair(1500);
    a.run(|| host_rules().install().unwrap());
    a.run(|| plan.apply().unwrap());
    let mut queue = a.run(|| Queue::open(QueueConfig::new(OUT)).unwrap());
    let (sender, receiver) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
    forbid_fragments(&sender);
    for (mark, arrives) in [(Some(plan.mark), true), (None, false)] {
        sender.send_to(&[7; 1444], address(B4, 5001)).unwrap();
        let packet = next(&queue);
        let payload = udp_with(&packet.payload, &[7; 1472]);
        assert_eq!(payload.len(), 1500);
        queue.verdict(packet.id, Decision::Replace { payload: &payload, mark }).unwrap();
        assert_eq!(receive(&receiver, if arrives { SOON } else { QUIET }).is_some(), arrives);
    }
}

#[test]
fn fragments_are_queued_as_one_whole_datagram() {
    // P-160.
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| host_rules().install().unwrap());
    let mut queue = b.run(|| Queue::open(QueueConfig::new(IN)).unwrap());
    for (from, to, headers) in [(A4, B4, 28), (A6, B6, 48)] {
        let (sender, receiver) = (a.udp(address(from, 5000)), b.udp(address(to, 5001)));
        sender.send_to(&[9; 20_000], address(to, 5001)).unwrap();
        let packet = next(&queue);
        assert_eq!((packet.payload.len(), packet.len), (20_000 + headers, 20_000 + headers));
        queue.verdict(packet.id, Decision::Accept).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap().len(), 20_000);
    }
}

#[test]
fn a_datagram_over_the_copy_limit_is_known_to_be_cut() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    a.run(|| host_rules().install().unwrap());
    let queue = a.run(|| Queue::open(QueueConfig::new(OUT)).unwrap());
    let _receiver = b.udp(address(B4, 5001));
    a.udp(address(A4, 5000)).send_to(&[1; 65_507], address(B4, 5001)).unwrap();
    let packet = next(&queue);
    assert_eq!((packet.payload.len(), packet.len), (65_531, 65_535));
}

#[test]
fn what_waits_when_the_queue_closes_is_dropped() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| host_rules().install().unwrap());
    let queue = b.run(|| Queue::open(QueueConfig::new(IN)).unwrap());
    let (sender, receiver) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
    sender.send_to(b"waiting", address(B4, 5001)).unwrap();
    next(&queue);
    assert_eq!(b.run(|| kernel_statistics(IN).unwrap().unwrap().waiting), 1);
    drop(queue);
    assert_eq!(b.run(|| kernel_statistics(IN).unwrap()), None);
    assert_eq!(receive(&receiver, QUIET), None);
    // A new listener takes over.
    let mut queue = b.run(|| Queue::open(QueueConfig::new(IN)).unwrap());
    sender.send_to(b"later", address(B4, 5001)).unwrap();
    queue.verdict(next(&queue).id, Decision::Accept).unwrap();
    assert_eq!(receive(&receiver, SOON).unwrap(), b"later");
}

#[test]
fn what_waits_in_the_second_queue_comes_with_as_few_calls_as_what_waits_in_the_first() {
    if !privileged() {
        return;
    }
    for config in [QueueConfig::new(IN), QueueConfig { observed: Some(IN), ..QueueConfig::new(UNUSED) }] {
        let (a, b) = pair(1500);
        b.run(|| host_rules().install().unwrap());
        let mut queue = b.run(|| Queue::open(config).unwrap());
        let (sender, _receiver) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
        for _ in 0..200 {
            sender.send_to(b"many", address(B4, 5001)).unwrap();
        }
        eventually("all wait", || b.run(|| kernel_statistics(IN).unwrap().unwrap().waiting) == 200);
        let mut room = queue.room_for_many();
        let calls: Vec<_> = std::iter::from_fn(|| queue.receive_many(&mut room).ok().map(|deliveries| deliveries.len())).collect();
        assert_eq!(calls, [16, 64, 64, 56], "{config:?}");
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| host_rules().install().unwrap());
    let mut queue = b.run(|| Queue::open(QueueConfig { capacity: 2, ..QueueConfig::new(IN) }).unwrap());
    let (sender, receiver) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
    for _ in 0..5 {
        sender.send_to(b"many", address(B4, 5001)).unwrap();
    }
    let statistics = b.run(|| kernel_statistics(IN).unwrap().unwrap());
    assert_eq!((statistics.waiting, statistics.dropped_queue_full), (2, 3));
    for _ in 0..2 {
        queue.verdict(next(&queue).id, Decision::Accept).unwrap();
        assert!(receive(&receiver, SOON).is_some());
    }
    assert_eq!(receive(&receiver, QUIET), None);
}

#[test]
fn a_full_socket_buffer_is_told_and_not_fatal() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| host_rules().install().unwrap());
    let mut queue = b.run(|| Queue::open(QueueConfig { socket_buffer: 2048, ..QueueConfig::new(IN) }).unwrap());
    let (sender, receiver) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
    for _ in 0..100 {
        sender.send_to(&[1; 1000], address(B4, 5001)).unwrap();
    }
    let mut buffer = ReceiveBuffer::default();
    assert_eq!(queue.receive(&mut buffer).map(Iterator::count), Err(ReceiveError::Overrun));
    while queue.receive(&mut buffer).map(Iterator::count) != Err(ReceiveError::Empty) {}
    sender.send_to(b"after", address(B4, 5001)).unwrap();
    queue.verdict(next(&queue).id, Decision::Accept).unwrap();
    assert_eq!(receive(&receiver, SOON).unwrap(), b"after");
    assert!(b.run(|| kernel_statistics(IN).unwrap().unwrap().dropped_socket_full) > 0);
}

/// What the kernel counts of a packet is found out from how many fill a small buffer.
#[test]
fn the_socket_of_the_longest_queue_has_room_for_all_of_its_packets_up_to_the_longest_frames_of_ethernet() {
    if !privileged() {
        return;
    }
    const SMALL: usize = 1 << 20;
    const LONGEST: u32 = 65_536;
    let (a, b) = pair(9000);
    b.run(|| host_rules().install().unwrap());
    let queue = b.run(|| Queue::open(QueueConfig { socket_buffer: SMALL, ..QueueConfig::new(IN) }).unwrap());
    let small = getsockopt(&queue, sockopt::RcvBuf).unwrap();
    let sender = a.udp(address(A4, 5000));
    for _ in 0..1024 {
        sender.send_to(&[1; 8972], address(B4, 5001)).unwrap();
    }
    let statistics = b.run(|| kernel_statistics(IN).unwrap().unwrap());
    assert!(statistics.waiting > 0 && statistics.dropped_socket_full > 0, "{statistics:?}");
    let each = small / usize::try_from(statistics.waiting).unwrap();
    drop(queue);
    let queue = b.run(|| Queue::open(QueueConfig::router(IN).holding(LONGEST)).unwrap());
    let room = getsockopt(&queue, sockopt::RcvBuf).unwrap() / each;
    assert!(room >= LONGEST as usize, "room for {room} packets of {each} octets each");
}

#[test]
fn a_verdict_on_an_unknown_packet_comes_back_refused() {
    if !privileged() {
        return;
    }
    let mut queue = Namespace::new().run(|| Queue::open(QueueConfig::new(IN)).unwrap());
    queue.verdict(PacketId(77), Decision::Accept).unwrap();
    let mut buffer = ReceiveBuffer::default();
    let deliveries: Vec<_> = queue.receive(&mut buffer).unwrap().collect();
    assert_eq!(deliveries, [Delivery::Refused { id: PacketId(77), errno: traffic::netlink::Errno::ENOENT }]);
}

#[test]
fn a_queue_number_already_taken_is_named() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        let _queue = Queue::open(QueueConfig::new(7)).unwrap();
        let error = Queue::open(QueueConfig::new(7)).unwrap_err();
        assert_eq!(error, QueueError::Taken(7));
        assert_eq!(error.to_string(), "packet queue 7 is already taken by another program");
    });
}

#[test]
fn missing_privilege_is_told_apart_from_a_taken_number() {
    if !privileged() {
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "process_without_privilege"])
        .stdout(Stdio::null())
        .uid(65_534)
        .gid(65_534)
        .status();
    match child {
        Ok(status) => assert!(status.success()),
        Err(error) => eprintln!("skipped: the test's program cannot be run by another user ({error})"),
    }
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn process_without_privilege() {
    assert_eq!(Queue::open(QueueConfig::new(7)).unwrap_err(), QueueError::NotPrivileged(7));
    let refusal = "the kernel refused to set the filter rules: EPERM: Operation not permitted (is CAP_NET_ADMIN missing?)";
    assert_eq!(host_rules().install().unwrap_err().to_string(), refusal);
}

fn host_rules() -> HostRules {
    HostRules::new(OUT, IN, 30_270)
}

/// The IPv4 UDP packet with other contents, lengths and header checksum put right, and no UDP checksum.
fn udp_with(packet: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut new = [&packet[..28], contents].concat();
    let total = u16::try_from(new.len()).unwrap();
    new[2..4].copy_from_slice(&total.to_be_bytes());
    new[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    new[26..28].fill(0);
    new[10..12].fill(0);
    let sum: u32 = new[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    new[10..12].copy_from_slice(&(!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes());
    new
}
