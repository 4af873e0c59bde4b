//! The kernel's memory for datagrams that are not whole yet, under attack: what has no permission cannot fill it, and what it
//! keeps out of it is counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use namespace::{A4, A6, B4, B6, Namespace, QUIET, SOON, add_route, address, admit, eventually, flow_of, link, pair, privileged, receive};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use raw::Raw;
use traffic::queue::{Decision, Delivery, Queue, QueueConfig, ReceiveBuffer};
use traffic::rules::{self, Admitted, Family, HostRules, Memory, Mode, Modes, Reassembly, Role, RouterRules, Share, Watch};

const DATA: u16 = 2;
const AH: u8 = 51;
const UDP: u8 = 17;
const SPI: u32 = 0x1234_5678;
/// Bare fragments that fill 4 MiB: the kernel takes a kilobyte for each.
const FILLING: u32 = 4_500;
/// Octets of a datagram that needs three fragments.
const LONG: usize = 4_000;
/// How long a permission lasts here.
const LASTING: Duration = Duration::from_secs(60);

/// bare fragments from everywhere leave permitted flows whole, in fragments or not.
#[test]
fn bare_fragments_without_an_spi_take_no_memory_from_permitted_flows() {
    if !privileged() {
        return;
    }
    for (from, to, elsewhere) in [(A4, B4, "10.9"), (A6, B6, "fd99")] {
        let (sender, node, mut queue) = receiver();
        let admitted = node.run(|| Admitted::open(Role::Host).unwrap());
        admit(&admitted, from.parse().unwrap(), to.parse().unwrap(), SPI, LASTING);
        let raw = sender.run(|| Raw::open(from));
        assert!(arrives(&mut queue, &raw, (from, to), SPI, 7), "{from}: without an attack");
        // From many, as permitted ones look, each of another datagram.
        for id in 0..FILLING {
            let source = if from == A4 { format!("{elsewhere}.{}.{}", id / 250 % 250, id % 250 + 1) } else { format!("fd99::{id:x}") };
            raw.send(&bare((&source, to), id, SPI));
        }
        let held = memory(&node, from);
        assert!(held.is_none_or(|held| held < 1 << 20), "{from}: {held:?} octets are held");
        let dropped = above(&node);
        assert!(dropped > u64::from(FILLING) * 9 / 10, "{from}: {dropped} dropped and counted");
        assert!(arrives(&mut queue, &raw, (from, to), SPI, 8), "{from}: in fragments");
        // The source's own address is worth nothing without the SPI.
        (0..FILLING).for_each(|id| raw.send(&bare((from, to), 20_000 + id, SPI + 1)));
        assert!(arrives(&mut queue, &raw, (from, to), SPI, 9), "{from}: in the flow's own name");
        eprintln!("{from}: {held:?} octets held after {FILLING} fragments without the SPI; {dropped} dropped");
    }
}

/// who knows the SPI of a flow harms what that flow sends in fragments and nothing else, not even flows between the same hosts;
/// and one source, however many permissions it has, leaves room for others. In the memory that a daemon sets, and in the 4 MiB for 30 s or
/// 60 s of a kernel that lets nobody set it.
#[test]
fn who_knows_an_spi_harms_datagrams_in_fragments_of_that_flow_alone() {
    if !privileged() {
        return;
    }
    const FLOOD: u32 = 20_000;
    for ((from, to, other), is_set) in
        [(A4, B4, "10.9.0.1"), (A6, B6, "fd99::1")].into_iter().flat_map(|ends| [(ends, true), (ends, false)])
    {
        let (sender, node, mut queue) = receiver();
        let family = if from == A4 { Family::Ipv4 } else { Family::Ipv6 };
        let reassembly = node.run(|| {
            let wanted = if is_set { Memory::DEFAULT } else { Memory::read(family).unwrap() };
            let reassembly = Reassembly::default().set_up(wanted);
            HostRules { reassembly, ..HostRules::new(3, DATA, 30_270) }.install().unwrap();
            reassembly
        });
        let there = reassembly.memory(family);
        assert_eq!(there.octets, if is_set { 64 << 20 } else { 4 << 20 }, "{from}");
        let admitted = node.run(|| Admitted::open(Role::Host).unwrap());
        let destination = to.parse().unwrap();
        (0..10).for_each(|flow| admit(&admitted, from.parse().unwrap(), destination, SPI + flow, LASTING));
        admit(&admitted, other.parse().unwrap(), destination, SPI, LASTING);
        let raw = sender.run(|| Raw::open(from));
        let flood = |flow: u32, size: usize| {
            (0..FLOOD / 10).for_each(|id| raw.send(&first((from, to), 10_000 + id + FLOOD * flow, SPI + flow, size)));
        };
        // Frames that fill their links, of one flow: the next between the same hosts has its own bucket.
        (0..5).for_each(|_| flood(0, 1_400));
        let one = memory(&node, from);
        let spent = counted(&node, "fragments-permission-first", "above the bucket");
        assert!(spent > 0, "{from}, {there:?}: the bucket of a permission is spent");
        raw.send(&sealed((from, to), SPI, 1_000));
        assert_eq!(came(&mut queue).map(|len| len > 1_000), Some(true), "{from}: whole datagrams of the flow itself");
        for id in 1..=5 {
            assert!(arrives(&mut queue, &raw, (from, to), SPI + 1, id), "{from}, {there:?}: the flow beside it, {id}");
        }
        // Under every SPI of that source.
        (0..10).for_each(|flow| flood(flow, 64));
        for id in 1..=5 {
            assert!(arrives(&mut queue, &raw, (other, to), SPI, id), "{from}, {there:?}: another source, {id}");
        }
        let all = memory(&node, from);
        assert!(one.is_none_or(|held| held <= there.octets / 4), "{from}: {one:?} octets of one flow");
        assert!(all.is_none_or(|held| held <= there.octets / 2), "{from}: {all:?} octets of one source");
        eprintln!("{from}, {there:?}: {one:?} octets held of one flow, {all:?} of one source; {spent} above the flow's bucket");
    }
}

/// the permissions of many sources together leave its share of the memory to what has none.
#[test]
fn permissions_of_many_sources_together_take_no_more_than_three_quarters_of_the_memory() {
    if !privileged() {
        return;
    }
    for (from, to, sources) in
        [(A4, B4, ["10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4"]), (A6, B6, ["fd99::1", "fd99::2", "fd99::3", "fd99::4"])]
    {
        let (sender, node, mut queue) = receiver();
        let family = if from == A4 { Family::Ipv4 } else { Family::Ipv6 };
        let reassembly = node.run(|| {
            let reassembly = Reassembly::default().set_up(Memory::read(family).unwrap());
            HostRules { reassembly, ..HostRules::new(3, DATA, 30_270) }.install().unwrap();
            reassembly
        });
        let most = reassembly.most(Share::Permitted, reassembly.memory(family));
        let admitted = node.run(|| Admitted::open(Role::Host).unwrap());
        let raw = sender.run(|| Raw::open(from));
        for source in sources {
            for flow in 0..2 {
                admit(&admitted, source.parse().unwrap(), to.parse().unwrap(), SPI + flow, LASTING);
                (0..300).for_each(|id| raw.send(&bare((source, to), id + 300 * flow, SPI + flow)));
            }
        }
        let within = counted(&node, "fragments-permission-first", "within the bucket");
        assert!(within > 0 && within <= most, "{from}: {within} of {most}");
        assert!(arrives(&mut queue, &raw, (from, to), SPI, 1), "{from}: of no permission");
        eprintln!("{from}: {within} fragments of four sources, at most {most}");
    }
}

/// Somebody who knows an SPI and the addresses cannot spend what the flow has by fragments of datagrams that nobody has begun.
#[test]
fn later_fragments_of_no_datagram_spend_no_bucket_of_a_permission() {
    if !privileged() {
        return;
    }
    for (from, to) in [(A4, B4), (A6, B6)] {
        let (sender, node, mut queue) = receiver();
        let admitted = node.run(|| Admitted::open(Role::Host).unwrap());
        admit(&admitted, from.parse().unwrap(), to.parse().unwrap(), SPI, LASTING);
        let raw = sender.run(|| Raw::open(from));
        for id in 0..FILLING {
            raw.send(&split(&sealed((from, to), SPI, 400), 200, 10_000 + id).swap_remove(1));
        }
        assert_eq!(counted(&node, "fragments-permission-later", "above the bucket"), 0);
        assert!(above(&node) > u64::from(FILLING) * 9 / 10);
        assert!(arrives(&mut queue, &raw, (from, to), SPI, 1), "{from}");
    }
}

/// What is not of a permission has a few fragments a second, enough for a datagram now and then: exempt services, traffic that trickles.
#[test]
fn other_datagrams_in_fragments_have_a_bucket_of_their_own_and_short_ones_none() {
    if !privileged() {
        return;
    }
    for (from, to) in [(A4, B4), (A6, B6)] {
        let (sender, node, mut queue) = receiver();
        let socket = sender.udp(address(from, 5000));
        socket.send_to(&[1; LONG], address(to, 5001)).unwrap();
        assert_eq!(came(&mut queue).map(|len| len > LONG), Some(true), "{from}");
        let raw = sender.run(|| Raw::open(from));
        let datagram = raw::packet((from, to), UDP, vec![0; 200], 6);
        let split_at = |first| split(&datagram, first, first as u32);
        for (first, passes) in [(32, false), (40, true)] {
            let short = counted(&node, "fragments", "too short");
            split_at(first).iter().for_each(|fragment| raw.send(fragment));
            assert_eq!(came(&mut queue).is_some(), passes, "{from}: {first} octets in the first fragment");
            assert_eq!(counted(&node, "fragments", "too short") - short, u64::from(!passes));
        }
        for number in 0..40 {
            socket.send_to(&[number; LONG], address(to, 5001)).unwrap();
        }
        let arrived = std::iter::from_fn(|| came(&mut queue)).count();
        assert!((5..30).contains(&arrived), "{from}: {arrived} of 40 within the bucket of a source");
        assert!(above(&node) > 10);
    }
}

/// an interface that is observed loses nothing that would pass without this table, whoever fills the kernel's memory.
#[test]
fn an_observing_router_passes_in_fragments_what_it_cannot_have_made_whole() {
    if !privileged() {
        return;
    }
    let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
    link(1500, (&sender, "up", &[(A4, 24), (A6, 64)]), (&router, "down", &[(B4, 24), (B6, 64)]));
    link(1500, (&router, "up", &[("192.168.21.1", 24), ("fd21::1", 64)]), (&receiver, "down", &[("192.168.21.4", 24), ("fd21::4", 64)]));
    router.sysctl("net/ipv4/ip_forward", "1");
    router.sysctl("net/ipv6/conf/all/forwarding", "1");
    for (all, left, right) in [("0.0.0.0", B4, "192.168.21.1"), ("::", B6, "fd21::1")] {
        add_route(&sender, all, 0, left);
        add_route(&receiver, all, 0, right);
    }
    let modes = Modes { others: Mode::Observe, interfaces: Vec::new() };
    router.run(|| RouterRules { modes, ..RouterRules::new(1, DATA, 30_270) }.install().unwrap());
    for (from, to) in [(A4, "192.168.21.4"), (A6, "fd21::4")] {
        let raw = sender.run(|| Raw::open(from));
        (0..FILLING).for_each(|id| raw.send(&bare((from, to), id, SPI)));
        let (socket, receiving) = (sender.udp(address(from, 5000)), receiver.udp(address(to, 5001)));
        // Where it arrives nobody guards the memory; only the router is shown.
        let before = counted(&router, "fragments-source", "not made whole");
        for number in 0..20 {
            socket.send_to(&[number; 1000], address(to, 5001)).unwrap();
            assert_eq!(receive(&receiving, SOON).unwrap().len(), 1000);
        }
        let end = &bare((from, to), 0, SPI)[if from == A4 { 20 } else { 48 }..];
        let wire = receiver.run(|| wire(from));
        let mut seen = [0; 2000];
        let mut id = 20_000;
        eventually("a fragment passes", || {
            // One now and then has a place to wait in.
            id += 1;
            raw.send(&bare((from, to), id, SPI));
            recv(wire.as_raw_fd(), &mut seen, MsgFlags::empty()).is_ok_and(|len| seen[..len].windows(end.len()).any(|part| part == end))
        });
        assert!(before > u64::from(FILLING) / 2, "{from}: {before} went on as they were");
        assert_eq!(counted(&router, "fragments-source", "above the bucket"), 0);
    }
}

/// A permission that the kernel did not take, since the rules were not there, is told again with its next refresh.
#[test]
fn a_permission_that_the_kernel_has_not_taken_is_told_again() {
    if !privileged() {
        return;
    }
    let (_sender, node, _queue) = receiver();
    // Nobody has installed rules of this role.
    let admitted = node.run(|| Admitted::open(Role::Router).unwrap());
    let [source, destination] = [A4, B4].map(|address| address.parse().unwrap());
    admit(&admitted, source, destination, SPI, LASTING);
    assert_eq!(admitted.counts(), (0, 1));
    let rules = RouterRules::new(3, DATA, 30_270);
    node.run(|| rules.install().unwrap());
    admit(&admitted, source, destination, SPI, LASTING);
    assert_eq!(admitted.counts(), (1, 1));
}

/// A refresh that the kernel does not take leaves there what it has of before, which counts on and ends when it is forgotten.
#[test]
fn a_refresh_that_fails_does_not_have_a_permission_outlive_its_end() {
    if !privileged() {
        return;
    }
    let (sender, node, _queue) = receiver();
    let raw = sender.run(|| Raw::open(A4));
    let mut id = 0;
    // Whether a first fragment comes to the chain of permissions.
    let mut is_known = || {
        id += 1;
        let before = counted(&node, "fragments-permission-first", "within the bucket");
        raw.send(&bare((A4, B4), id, SPI));
        (0..20).any(|_| {
            std::thread::sleep(QUIET / 20);
            counted(&node, "fragments-permission-first", "within the bucket") > before
        })
    };
    let admitted = node.run(|| Admitted::open(Role::Host).unwrap());
    let [source, destination] = [A4, B4].map(|address| address.parse().unwrap());
    admit(&admitted, source, destination, SPI, LASTING);
    assert!(is_known());
    // Longer than the kernel counts.
    admit(&admitted, source, destination, SPI, Duration::from_secs(20_000_000_000));
    assert_eq!(admitted.counts(), (1, 1), "the kernel has refused, and keeps what it has");
    assert!(is_known());
    admitted.forget(flow_of(source, destination, SPI), SPI);
    admitted.settled();
    assert!(!is_known());
    assert_eq!(admitted.counts(), (0, 1));
}

/// What a daemon has told the rules is told again when they had to be put back, and is no disturbance itself.
#[test]
fn known_permissions_outlive_a_restored_table_and_end_with_their_removal() {
    if !privileged() {
        return;
    }
    let (sender, node, mut queue) = receiver();
    let admitted = node.run(|| Admitted::open(Role::Host).unwrap());
    let install = || Box::new(|socket: &_| HostRules::new(3, DATA, 30_270).install_through(socket));
    let mut watch = node.run(|| Watch::start_through(Role::Host, install(), admitted.owner().clone()).unwrap());
    let raw = sender.run(|| Raw::open(A4));
    let mut id = 0;
    // More than the buckets of others let in.
    let mut all_arrive = |queue: &mut Queue| {
        let long = sealed((A4, B4), SPI, LONG);
        (0..60).all(|_| {
            id += 1;
            split(&long, 1_400, id).iter().for_each(|fragment| raw.send(fragment));
            came(queue).is_some()
        })
    };
    let [source, destination] = [A4, B4].map(|address| address.parse().unwrap());
    assert!(!all_arrive(&mut queue));
    for _ in 0..3 {
        admit(&admitted, source, destination, SPI, LASTING);
    }
    assert_eq!(admitted.counts(), (1, 0));
    assert!(!watch.is_disturbed().unwrap());
    assert!(all_arrive(&mut queue));
    watch.restore().unwrap();
    assert!(!all_arrive(&mut queue));
    admitted.refill();
    admitted.settled();
    assert!(all_arrive(&mut queue) && !watch.is_disturbed().unwrap());
    admitted.forget(flow_of(source, destination, SPI), SPI);
    admitted.settled();
    assert_eq!(admitted.counts(), (0, 0));
    assert!(!all_arrive(&mut queue));
    let start = Instant::now();
    for spi in 4096..5096 {
        admitted.admit(flow_of(source, destination, spi), spi, LASTING);
    }
    admitted.settled();
    eprintln!("1000 permissions are made known in {:?}", start.elapsed());
    assert_eq!(admitted.counts(), (1000, 0));
    admitted.refill();
    admitted.settled();
    assert_eq!(admitted.counts(), (1000, 0));
}

/// Sender and a host with rules, whose queue of what arrives is open.
fn receiver() -> (Namespace, Namespace, Queue) {
    let (sender, node) = pair(1500);
    node.run(|| HostRules::new(3, DATA, 30_270).install().unwrap());
    let queue = node.run(|| Queue::open(QueueConfig::new(DATA)).unwrap());
    (sender, node, queue)
}

/// Length of the next packet that comes to the queue, which is dropped there; `None` if none comes.
fn came(queue: &mut Queue) -> Option<usize> {
    let never = EventFd::new().unwrap();
    let mut buffer = ReceiveBuffer::default();
    let mut found = None;
    for _ in 0..10 {
        queue.wait(never.as_fd(), Some(QUIET / 10)).unwrap();
        if let Ok(mut deliveries) = queue.receive(&mut buffer)
            && let Some(Delivery::Packet(packet)) = deliveries.next()
        {
            found = Some((packet.id, packet.payload.len()));
            break;
        }
    }
    let (id, len) = found?;
    queue.verdict(id, Decision::Drop).unwrap();
    Some(len)
}

/// A packet under AH with so many octets behind it; nobody looks at its ICV here.
fn sealed(ends: raw::Ends<'_>, spi: u32, len: usize) -> Vec<u8> {
    let words = if ends.0.contains(':') { 6 } else { 5 };
    let mut payload = [&[UDP, words, 0, 0][..], &spi.to_be_bytes(), &[0, 0, 0, 1]].concat();
    payload.resize(4 * (usize::from(words) + 2) + len, 7);
    raw::packet(ends, AH, payload, 20)
}

/// The packet in fragments with so many octets of data each, a multiple of 8.
fn split(packet: &[u8], size: usize, id: u32) -> Vec<Vec<u8>> {
    let is_ipv4 = packet[0] >> 4 == 4;
    let (head, data) = packet.split_at(if is_ipv4 { 20 } else { 40 });
    let last = data.len().div_ceil(size) - 1;
    let parts = data.chunks(size).enumerate();
    parts.map(|(place, part)| fragment(head, part, place * size, place < last, id)).collect()
}

fn fragment(head: &[u8], part: &[u8], at: usize, more: bool, id: u32) -> Vec<u8> {
    let at = u16::try_from(at).unwrap();
    if head[0] >> 4 == 4 {
        let mut fragment = [head, part].concat();
        let len = u16::try_from(fragment.len()).unwrap();
        fragment[2..4].copy_from_slice(&len.to_be_bytes());
        fragment[4..6].copy_from_slice(&(id as u16).to_be_bytes());
        fragment[6..8].copy_from_slice(&((at / 8) | (u16::from(more) << 13)).to_be_bytes());
        return fragment;
    }
    let [high, low] = (at | u16::from(more)).to_be_bytes();
    let mut fragment = [head, &[head[6], 0, high, low], &id.to_be_bytes(), part].concat();
    fragment[6] = 44;
    let len = u16::try_from(fragment.len() - 40).unwrap();
    fragment[4..6].copy_from_slice(&len.to_be_bytes());
    fragment
}

/// All that comes by a link of the calling thread's namespace.
fn wire(family_of: &str) -> OwnedFd {
    let protocol = if family_of.contains(':') { SockProtocol::EthIpv6 } else { SockProtocol::EthIp };
    socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol).unwrap()
}

/// A first fragment whose rest never comes.
fn bare(ends: raw::Ends<'_>, id: u32, spi: u32) -> Vec<u8> {
    first(ends, id, spi, 64)
}

/// The same with so many octets of data, a multiple of 8.
fn first(ends: raw::Ends<'_>, id: u32, spi: u32, size: usize) -> Vec<u8> {
    split(&sealed(ends, spi, size + 336), size, id).swap_remove(0)
}

/// Whether a datagram in three fragments comes to the queue whole; what else comes does not count.
fn arrives(queue: &mut Queue, raw: &Raw, ends: raw::Ends<'_>, spi: u32, id: u32) -> bool {
    split(&sealed(ends, spi, LONG), 1_400, id).iter().for_each(|fragment| raw.send(fragment));
    (0..10).any(|_| came(queue).is_some_and(|len| len > LONG))
}

/// Octets that the kernel holds of datagrams over IPv4 that are not whole. Of those over IPv6 it does not tell.
fn memory(node: &Namespace, family_of: &str) -> Option<u64> {
    let text = node.run(|| std::fs::read_to_string("/proc/thread-self/net/sockstat").unwrap());
    let line = text.lines().find(|line| line.starts_with("FRAG: ")).unwrap();
    (!family_of.contains(':')).then(|| line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn above(node: &Namespace) -> u64 {
    ["fragments-source", "fragments-interface", "fragments-node"].map(|chain| counted(node, chain, "above the bucket")).iter().sum()
}

/// Packets of both families that a rule has counted.
fn counted(node: &Namespace, chain: &str, rule: &str) -> u64 {
    let counters = node.run(|| [Role::Host, Role::Router].map(|role| rules::counters(role).unwrap_or_default()).concat());
    counters.iter().filter(|counter| counter.chain == chain && counter.rule == rule).map(|counter| counter.packets).sum()
}
