//! Verdicts that the queue puts together: nothing passes with them that was not judged by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use std::net::UdpSocket;

use namespace::{A4, B4, Namespace, QUIET, address, eventually, next, pair, privileged, receive, set_link};
use traffic::processor::PacketId;
use traffic::queue::{Decision, Delivery, ManyPackets, Queue, QueueConfig, ReceiveError, kernel_statistics};
use traffic::rules::HostRules;

const OUT: u16 = 3;
const IN: u16 = 4;
/// No rule sends anything there.
const UNUSED: u16 = 9;

/// What one packet in the middle of others meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    Nothing,
    Dropped,
    Marked,
    /// Dropped before any other of its call is judged.
    DroppedFirst,
    /// Never judged.
    PassedOver,
    /// By a verdict of its own, sent at once.
    AcceptedAlone,
}

#[test]
fn of_packets_in_a_row_each_passes_as_it_is_judged_whatever_the_others_meet() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::build(QueueConfig::new(IN));
    let odds = [Odd::Dropped, Odd::Marked, Odd::DroppedFirst, Odd::PassedOver, Odd::Nothing, Odd::AcceptedAlone, Odd::PassedOver];
    for (round, odd) in (0..).zip(odds) {
        let packets = scene.deliver(round, 13);
        let middle = packets[6].0;
        if odd == Odd::DroppedFirst {
            scene.queue.add_verdict(middle, Decision::Drop).unwrap();
        }
        for (id, _) in &packets {
            match odd {
                Odd::Dropped if *id == middle => scene.queue.add_verdict(*id, Decision::Drop).unwrap(),
                Odd::Marked if *id == middle => scene.queue.add_verdict(*id, Decision::AcceptMarked(7)).unwrap(),
                Odd::AcceptedAlone if *id == middle => scene.queue.verdict(*id, Decision::Accept).unwrap(),
                Odd::DroppedFirst | Odd::PassedOver if *id == middle => {}
                _ => scene.queue.add_verdict(*id, Decision::Accept).unwrap(),
            }
        }
        assert!(scene.queue.send_verdicts().is_empty());
        let passes = |number: &u8| *number != 6 || !matches!(odd, Odd::Dropped | Odd::DroppedFirst | Odd::PassedOver);
        let mut arrived = scene.arrived(round);
        arrived.sort_unstable();
        assert_eq!(arrived, (0..13).filter(passes).collect::<Vec<_>>(), "{odd:?}");
        assert_eq!(scene.waiting(), u64::from(odd == Odd::PassedOver), "{odd:?}");
    }
    // What was passed over last is dropped by what follows, and no refusal of that is told.
    scene.accept(100, 13);
    assert_eq!((scene.arrived(100).len(), scene.waiting()), (13, 0));
    assert_eq!(take(&mut scene.queue, &mut scene.room), Err(ReceiveError::Empty), "nothing was refused");
}

/// A packet is taken out of the socket where the queue does not look: as far as it knows none of its number has been.
#[test]
fn a_packet_that_waits_unseen_does_not_pass_with_those_behind_it() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::build(QueueConfig::new(IN));
    scene.accept(0, 8);
    assert_eq!(scene.arrived(0).len(), 8);
    scene.sender.send_to(&[1, 77], address(B4, 5001)).unwrap();
    let _unseen = next(&scene.queue);
    assert_eq!(scene.waiting(), 1);
    scene.accept(2, 8);
    assert_eq!((scene.arrived(2).len(), scene.waiting()), (8, 0));
}

#[test]
fn packets_that_were_cut_and_those_that_a_full_socket_had_no_room_for_do_not_pass_with_others() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::build(QueueConfig { copy_range: 1280, socket_buffer: 32 * 1024, ..QueueConfig::new(IN) });
    for (kind, len) in [(0, 2), (0, 1400), (0, 2), (1, 1000), (0, 2)] {
        for number in 0..if kind == 1 { 200 } else { 8 } {
            let mut octets = vec![9; len];
            octets[..2].copy_from_slice(&[kind, number]);
            scene.sender.send_to(&octets, address(B4, 5001)).unwrap();
        }
    }
    let (mut accepted, mut overruns) = (0, 0);
    loop {
        let deliveries = match take(&mut scene.queue, &mut scene.room) {
            Ok(deliveries) => deliveries,
            Err(ReceiveError::Overrun) => {
                overruns += 1;
                continue;
            }
            Err(error) => break assert_eq!(error, ReceiveError::Empty),
        };
        let packets =
            deliveries.into_iter().map(|delivery| if let Delivery::Packet(packet) = delivery { packet } else { panic!("{delivery:?}") });
        for (id, is_cut) in packets.map(|packet| (packet.id, packet.is_cut())).collect::<Vec<_>>() {
            accepted += usize::from(!is_cut);
            scene.queue.add_verdict(id, if is_cut { Decision::Drop } else { Decision::Accept }).unwrap();
        }
        assert!(scene.queue.send_verdicts().is_empty());
    }
    assert!(overruns > 0);
    let arrived: Vec<_> = std::iter::from_fn(|| receive(&scene.receiver, QUIET)).collect();
    assert_eq!((arrived.len(), scene.waiting()), (accepted, 0));
    assert!(arrived.iter().all(|octets| octets.len() <= 1000) && arrived.len() < 224, "{}", arrived.len());
    scene.accept(200, 8);
    assert_eq!(scene.arrived(200).len(), 8);
}

/// There is too little room for one packet: it waits, and whoever receives does not learn its number.
#[test]
fn a_packet_that_cannot_be_read_does_not_pass_with_those_around_it() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::build(QueueConfig::new(IN));
    let of_short = scene.b.run(|| Queue::open(QueueConfig { copy_range: 1280, ..QueueConfig::new(UNUSED) }).unwrap());
    let mut room = of_short.room_for_many();
    for number in 0..13 {
        let len = if number == 6 { 20_000 } else { 2 };
        scene.sender.send_to(&[[0, number].as_slice(), &vec![9; len - 2]].concat(), address(B4, 5001)).unwrap();
    }
    eventually("all wait", || scene.waiting() == 13);
    let ids: Vec<_> = take(&mut scene.queue, &mut room).unwrap().into_iter().map(readable).collect();
    assert_eq!(ids.iter().position(Option::is_none), Some(6), "{ids:?}");
    for id in ids.into_iter().flatten() {
        scene.queue.add_verdict(id, Decision::Accept).unwrap();
    }
    assert!(scene.queue.send_verdicts().is_empty());
    assert_eq!((scene.arrived(0), scene.waiting()), ((0..13).filter(|number| *number != 6).collect(), 0));
    scene.accept(1, 8);
    assert_eq!((scene.arrived(1).len(), scene.waiting()), (8, 0));
}

/// A link that goes down takes them along: the kernel refuses one message, and each packet is told.
#[test]
fn of_a_run_that_is_refused_every_packet_is_told() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::build(QueueConfig::new(IN));
    scene.accept(0, 3);
    let packets = scene.deliver(1, 11);
    scene.b.run(|| {
        set_link("right", false);
        set_link("right", true);
    });
    for (id, _) in &packets {
        scene.queue.add_verdict(*id, Decision::Accept).unwrap();
    }
    assert!(scene.queue.send_verdicts().is_empty());
    let refused = take(&mut scene.queue, &mut scene.room).unwrap();
    let expected: Vec<_> = packets.iter().map(|(id, _)| Delivery::Refused { id: *id, errno: traffic::netlink::Errno::ENOENT }).collect();
    assert_eq!(refused, expected);
    assert_eq!(scene.arrived(0).len(), 3);
    eventually("packets come again", || {
        scene.sender.send_to(&[2, 0], address(B4, 5001)).unwrap();
        scene.waiting() > 0
    });
}

/// The packet, unless nothing is known of it.
fn readable(delivery: Delivery<'_>) -> Option<PacketId> {
    match delivery {
        Delivery::Packet(packet) => Some(packet.id),
        Delivery::Unreadable { id: None } => None,
        other => panic!("{other:?}"),
    }
}

/// What one call brings.
fn take<'b>(queue: &mut Queue, room: &'b mut ManyPackets) -> Result<Vec<Delivery<'b>>, ReceiveError> {
    let mut deliveries = queue.receive_many(room)?;
    Ok(std::iter::from_fn(|| queue.take(&mut deliveries)).collect())
}

/// A host whose queue puts verdicts together, and a neighbour that sends to it.
struct Scene {
    _a: Namespace,
    b: Namespace,
    queue: Queue,
    room: ManyPackets,
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Scene {
    fn build(config: QueueConfig) -> Self {
        let (a, b) = pair(1500);
        b.run(|| HostRules::new(OUT, IN, 30_270).install().unwrap());
        let queue = b.run(|| Queue::open(QueueConfig { in_turn: true, ..config }).unwrap());
        let (sender, receiver) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
        Self { _a: a, b, room: queue.room_for_many(), queue, sender, receiver }
    }

    fn waiting(&self) -> u64 {
        self.b.run(|| kernel_statistics(IN).unwrap().unwrap().waiting)
    }

    /// Packets that one call brings, with their last octets.
    fn deliver(&mut self, round: u8, count: u8) -> Vec<(PacketId, u8)> {
        let before = self.waiting();
        for number in 0..count {
            self.sender.send_to(&[round, number], address(B4, 5001)).unwrap();
        }
        eventually("all wait", || self.waiting() == before + u64::from(count));
        let read = |delivery| {
            let Delivery::Packet(packet) = delivery else { panic!("{delivery:?}") };
            (packet.id, *packet.payload.last().unwrap())
        };
        let packets: Vec<_> = take(&mut self.queue, &mut self.room).unwrap().into_iter().map(read).collect();
        assert!(packets.iter().map(|(_, number)| *number).eq(0..count), "{packets:?}");
        packets
    }

    fn accept(&mut self, round: u8, count: u8) {
        for (id, _) in self.deliver(round, count) {
            self.queue.add_verdict(id, Decision::Accept).unwrap();
        }
        assert!(self.queue.send_verdicts().is_empty());
    }

    /// What has arrived of one round, which is the next that anything arrives of.
    fn arrived(&self, round: u8) -> Vec<u8> {
        let arrived = std::iter::from_fn(|| receive(&self.receiver, QUIET));
        let read = |octets: Vec<u8>| {
            assert_eq!(octets[0], round);
            octets[1]
        };
        arrived.map(read).collect()
    }
}
