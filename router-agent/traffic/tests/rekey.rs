//! Another epoch under a flow that goes on: make before break, and the end of the numbers (FS-24, FS-43, FN-23, FN-29, FR-18,
//! TMP-14, X-72, X-75). The real inserter of a sender, two routers' and the receiver's real verifiers, and packets that take time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::collections::VecDeque;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::inserter::{Inserter, InserterConfig};
use traffic::processor::{PacketId, PacketProcessor, Released, Verdict};
use traffic::reason::DropReason;
use traffic::update::{Applied, Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const OLD: u32 = 0xaaaa;
const NEW: u32 = 0xbbbb;
const START: Instant = Instant::from_micros_const(1_000_000);
const END: Instant = Instant::from_micros_const(1_000_000_000);
/// From one node to the next.
const HOP: Duration = Duration::from_millis(5);
/// Default of the receiver (appendix A).
const DRAIN: Duration = Duration::from_millis(2000);
/// Length of `udp_v4(100)` with its AH.
const LENGTH: u64 = 20 + 28 + 8 + 100;
const HALF: u32 = 1 << 31;

fn secret(spi: u32) -> IcvKey {
    key(MacAlgorithm::HmacSha256_128, if spi == OLD { 7 } else { 8 })
}

fn grant(spi: u32, allowed: u64, highest: u32) -> Update {
    Update::Install { token: 1, grant: Grant { flow: flow_v4(), spi, key: secret(spi), allowed, counted: 0, highest, expires_at: END } }
}

/// Sender, two routers, receiver.
struct Path {
    now: Instant,
    sender: Inserter,
    verifiers: Vec<Verifier>,
    /// Packets before each verifier, with the time of their arrival.
    flying: Vec<VecDeque<(Instant, Vec<u8>)>>,
    arrived: u64,
    lost: Vec<(usize, DropReason)>,
    sent: u32,
}

impl Path {
    /// A flow under the old epoch whose numbers go on from `highest`.
    fn permitted(allowed: u64, highest: u32) -> Self {
        let verifier = |role| Verifier::new(VerifierConfig::new(role), Arc::new(Strict), Arc::new(Counters::default())).unwrap();
        let mut path = Self {
            now: START,
            sender: Inserter::new(InserterConfig::default(), Arc::new(Strict), Arc::new(Counters::default())),
            verifiers: vec![verifier(Role::Router), verifier(Role::Router), verifier(Role::Receiver)],
            flying: vec![VecDeque::new(); 3],
            arrived: 0,
            lost: Vec::new(),
            sent: 0,
        };
        for place in (0..=3).rev() {
            path.tell(place, grant(OLD, allowed, highest));
        }
        path
    }

    /// Tells a node's packet side: 0 is the sender's.
    fn tell(&mut self, place: usize, update: Update) -> Applied {
        let applied = match place {
            0 => self.sender.apply(update, self.now),
            _ => self.verifiers[place - 1].apply(update, self.now),
        };
        while let Some((_, Released::Replace { payload, .. })) = self.sender.poll_released() {
            self.leave(payload);
        }
        applied.unwrap()
    }

    fn leave(&mut self, packet: Vec<u8>) {
        self.sent += 1;
        self.flying[0].push_back((self.now + HOP, packet));
    }

    /// An application's packet; whether it left at once.
    fn send(&mut self) -> bool {
        let payload = match self.sender.process(PacketId(self.sent.into()), &udp_v4(100), self.now) {
            Verdict::Replace { payload, .. } => payload.to_vec(),
            Verdict::Hold => return false,
            other => panic!("{other:?}"),
        };
        self.leave(payload);
        true
    }

    fn run(&mut self, span: Duration) {
        self.now += span;
        for place in 0..3 {
            while self.flying[place].front().is_some_and(|(at, _)| *at <= self.now) {
                let (at, packet) = self.flying[place].pop_front().unwrap();
                let passed = match self.verifiers[place].process(PacketId(1), &packet, at) {
                    Verdict::Accept => Ok(packet.clone()),
                    Verdict::Replace { payload, .. } => Ok(payload.to_vec()),
                    Verdict::Drop(reason) => Err(reason),
                    other => panic!("{other:?}"),
                };
                match passed {
                    Ok(_) if place == 2 => self.arrived += 1,
                    Ok(packet) => self.flying[place + 1].push_back((at + HOP, packet)),
                    Err(reason) => self.lost.push((place + 1, reason)),
                }
            }
        }
        for verifier in &mut self.verifiers {
            verifier.handle_timeout(self.now);
        }
    }

    /// Sends a packet a millisecond.
    fn send_for(&mut self, span: Duration) {
        for _ in 0..span.total_millis() {
            assert!(self.send());
            self.run(Duration::from_millis(1));
        }
    }

    /// The Permission of a new epoch travels upstream: each node installs it and lets the old one drain before the next hears of it.
    fn rekey(&mut self, allowed: u64, drain: Duration, mut meanwhile: impl FnMut(&mut Self)) {
        for place in (0..=3).rev() {
            if place > 0 {
                self.tell(place, Update::Drain { token: 2, flow: flow_v4(), spi: OLD, until: self.now + drain });
            }
            self.tell(place, grant(NEW, allowed, 0));
            meanwhile(self);
        }
    }

    fn finish(&mut self) {
        for _ in 0..100 {
            self.run(Duration::from_millis(1));
        }
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.sender.poll_event()).collect()
    }
}

#[test]
fn a_rekey_loses_no_packet_of_an_honest_flow() {
    // P-168, INV-14.
    // TMP-14, TMP-11: the drain time is longer than the round trip.
    let mut path = Path::permitted(1_000_000, 0);
    path.send_for(Duration::from_millis(100));
    path.rekey(1_000_000, DRAIN, |path| path.send_for(Duration::from_millis(5)));
    path.send_for(Duration::from_millis(100));
    path.finish();
    assert_eq!((path.lost.as_slice(), path.arrived), (&[][..], u64::from(path.sent)));
    // What the old epoch came to in the end can still be told, for one more report.
    let last = path.tell(0, Update::Snapshot { token: 3, flow: flow_v4(), spi: OLD });
    assert_eq!((last.counted, last.highest), (LENGTH * 115, 115));
    let counted = path.tell(3, Update::Compare { token: 4, flow: flow_v4(), spi: OLD, up_to: 115, delay: HOP });
    assert_eq!(counted.counted, LENGTH * 115);
    path.run(DRAIN);
    path.send_for(Duration::from_millis(10));
    path.finish();
    assert!(path.lost.is_empty());
}

#[test]
fn without_time_to_drain_packets_in_flight_are_lost() {
    // what the overlap is for; the same run with none.
    let mut path = Path::permitted(1_000_000, 0);
    path.send_for(Duration::from_millis(100));
    path.rekey(1_000_000, Duration::ZERO, |path| path.send_for(Duration::from_millis(5)));
    path.finish();
    assert!(!path.lost.is_empty());
}

#[test]
fn epochs_that_divide_a_volume_lose_nothing_and_pass_it_not() {
    // FR-18 where the limit leaves no room: the receiver takes back half of the rest from the old epoch (FR-26, X-50).
    let mut path = Path::permitted(LENGTH * 300, 0);
    path.send_for(Duration::from_millis(100));
    path.finish();
    path.tell(3, Update::Update { token: 2, flow: flow_v4(), spi: OLD, allowed: LENGTH * 200, expires_at: END });
    path.rekey(LENGTH * 100, DRAIN, |path| path.send_for(Duration::from_millis(5)));
    let mut left = 0;
    while path.send() {
        left += 1;
        path.run(Duration::from_millis(1));
    }
    path.finish();
    assert_eq!((path.lost.as_slice(), path.arrived), (&[][..], u64::from(path.sent)));
    assert!(left < 100 && path.arrived <= 300);
}

#[test]
fn a_sender_asks_at_half_of_its_numbers_and_once() {
    // FS-33, X-72: the test seam is the number that the association begins after.
    let mut path = Path::permitted(1 << 40, HALF - 3);
    assert!(path.send() && path.send());
    assert_eq!(path.events(), []);
    assert!(path.send() && path.send());
    assert_eq!(path.events(), [Event::NearlyUsedUp { flow: flow_v4(), spi: OLD }]);
    path.finish();
    assert_eq!(path.arrived, 4, "numbers with the highest bit set are numbers like others");
}

#[test]
fn when_the_numbers_are_used_up_packets_wait_for_the_next_epoch_and_leave_in_order() {
    // P-159.
    // FS-43, RFC 4302 §3.3.2: the last number is used, none is used twice.
    let mut path = Path::permitted(1 << 40, u32::MAX - 2);
    assert!(path.send() && path.send());
    for _ in 0..5 {
        assert!(!path.send(), "held");
    }
    assert_eq!(path.events(), [Event::OverBudget { flow: flow_v4(), spi: OLD }]);
    // More volume does not help.
    path.tell(0, Update::Update { token: 2, flow: flow_v4(), spi: OLD, allowed: 1 << 41, expires_at: END });
    assert_eq!(path.sent, 2);
    path.rekey(1 << 40, DRAIN, |path| path.run(HOP));
    assert_eq!(path.sent, 7);
    path.finish();
    assert_eq!((path.lost.as_slice(), path.arrived), (&[][..], 7));
    let last = path.tell(0, Update::Snapshot { token: 3, flow: flow_v4(), spi: OLD });
    assert_eq!(last.highest, u32::MAX);
}

#[test]
fn a_receiver_that_has_lowered_its_volume_and_raised_it_a_little_takes_packets_in_flight_for_no_attack() {
    // FR-27, X-50: sent while more was allowed, arriving after two changes.
    let mut path = Path::permitted(LENGTH * 100, 0);
    path.send_for(Duration::from_millis(50));
    for allowed in [LENGTH * 20, LENGTH * 30] {
        path.tell(3, Update::Update { token: 2, flow: flow_v4(), spi: OLD, allowed, expires_at: END });
    }
    path.finish();
    assert!(path.lost.iter().all(|lost| *lost == (3, DropReason::OverBudget)) && path.lost.len() > 10);
    assert_eq!(path.verifiers[2].poll_event(), None);
    // Whoever goes beyond the highest volume that was ever granted is one.
    path.tell(3, Update::Update { token: 2, flow: flow_v4(), spi: OLD, allowed: LENGTH * 100, expires_at: END });
    path.tell(0, Update::Update { token: 2, flow: flow_v4(), spi: OLD, allowed: LENGTH * 500, expires_at: END });
    for place in 1..3 {
        path.tell(place, Update::Update { token: 2, flow: flow_v4(), spi: OLD, allowed: LENGTH * 500, expires_at: END });
    }
    path.send_for(Duration::from_millis(200));
    path.finish();
    assert_eq!(path.verifiers[2].poll_event(), Some(Event::OverBudget { flow: flow_v4(), spi: OLD }));
}

#[test]
fn volumes_beyond_32_bits_are_counted_and_compared_in_full() {
    // P-063: 6 GiB allowed, counted from just below 4 GiB on at every node.
    let allowed = 6 << 30;
    let mut path = Path::permitted(allowed, 0);
    let before = (1_u64 << 32) - 3 * LENGTH;
    for place in 0..=3 {
        let Update::Install { grant, token } = grant(NEW, allowed, 0) else { unreachable!() };
        path.tell(place, Update::Install { token, grant: Grant { counted: before, ..grant } });
    }
    path.send_for(Duration::from_millis(10));
    path.finish();
    for place in 0..=3 {
        let counted = path.tell(place, Update::Snapshot { token: 3, flow: flow_v4(), spi: NEW }).counted;
        assert_eq!(counted, before + 10 * LENGTH, "{place}");
    }
    assert_eq!(path.arrived, 10);
}
