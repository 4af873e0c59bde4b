//! One user's flood of flows that nobody answers harms that user alone: room to wait, and turns to ask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::algorithm::MacAlgorithm;
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::flow::Flow;
use traffic::inserter::{AskRule, HeldLimits, Inserter, InserterConfig, QuestionLimits};
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Released, UserId, Verdict};
use traffic::queue::OUTBOUND_CAPACITY;
use traffic::reason::DropReason;
use traffic::update::{Grant, Update};

const NOW: Instant = Instant::from_micros_const(1_000_000);
const SPI: u32 = 0xabcd;
const FLOODER: Option<UserId> = Some(UserId(1000));
const OTHER: Option<UserId> = Some(UserId(1001));
/// Packets whose origin the kernel does not know.
const UNKNOWN: Option<UserId> = None;

struct Fixture {
    inserter: Inserter,
    counters: Arc<Counters>,
    /// Whose packets wait, and of which flow.
    waiting: BTreeMap<PacketId, (Option<UserId>, Flow)>,
    ids: u64,
    now: Instant,
}

impl Fixture {
    fn new(held: HeldLimits, questions: QuestionLimits) -> Self {
        let config = InserterConfig { ask: vec![AskRule::default()], held, questions, ..InserterConfig::default() };
        let counters = Arc::new(Counters::default());
        let inserter = Inserter::new(config, Arc::new(Strict), Arc::clone(&counters));
        Self { inserter, counters, waiting: BTreeMap::new(), ids: 0, now: NOW }
    }

    fn send(&mut self, user: Option<UserId>, bytes: &[u8]) -> PacketId {
        self.ids += 1;
        let id = PacketId(self.ids);
        match self.inserter.process_sent(id, user, bytes, self.now) {
            Verdict::Hold => {
                let flow = IpPacket::parse(bytes).unwrap().flow().unwrap();
                self.waiting.insert(id, (user, flow));
            }
            Verdict::Drop(DropReason::QueueFull) => {}
            other => panic!("{other:?}"),
        }
        self.collect();
        id
    }

    fn collect(&mut self) {
        while let Some((id, released)) = self.inserter.poll_released() {
            assert!(matches!(released, Released::Drop(_)), "nothing leaves without a permission");
            assert!(self.waiting.remove(&id).is_some(), "each verdict once");
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.inserter.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.inserter.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
    }

    fn waiting_of(&self, user: Option<UserId>) -> usize {
        self.waiting.values().filter(|(owner, _)| *owner == user).count()
    }

    fn asked(&mut self) -> Vec<Flow> {
        std::iter::from_fn(|| self.inserter.poll_event())
            .map(|event| match event {
                Event::FirstPacket(flow) => flow,
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

/// A packet of the flow with this number: each has another destination and other ports.
fn packet(number: u32) -> Vec<u8> {
    let mut bytes = ipv4(&[], 17, &udp(1 + (number / 200) as u16, 9000, 20));
    bytes[19] = 1 + (number % 200) as u8;
    fix_checksum(&mut bytes);
    bytes
}

fn flow_of(number: u32) -> Flow {
    IpPacket::parse(&packet(number)).unwrap().flow().unwrap()
}

#[test]
fn what_waits_never_takes_up_more_than_half_of_the_outbound_queue() {
    let mut fixture = Fixture::new(HeldLimits::default(), QuestionLimits::default());
    for number in 0..20_000 {
        fixture.send(FLOODER, &packet(number));
        assert!(fixture.waiting.len() <= OUTBOUND_CAPACITY as usize / 2);
    }
    assert_eq!(fixture.waiting.len(), OUTBOUND_CAPACITY as usize / 2);
    assert_eq!(fixture.counters.dropped(DropReason::QueueFull).packets, 20_000 - u64::from(OUTBOUND_CAPACITY) / 2);
}

#[test]
fn a_flooding_user_takes_no_room_from_another() {
    let held = HeldLimits { places: 100, ..HeldLimits::default() };
    let mut fixture = Fixture::new(held, QuestionLimits::default());
    for number in 0..1000 {
        fixture.send(FLOODER, &packet(number));
    }
    // Half of the room is there for the second user, whatever the first does.
    let mine: Vec<PacketId> = (5000..5050).map(|number| fixture.send(OTHER, &packet(number))).collect();
    for number in 1000..3000 {
        fixture.send(FLOODER, &packet(number));
        fixture.send(UNKNOWN, &packet(6000 + number % 30));
    }
    assert!((32..=36).contains(&fixture.waiting_of(OTHER)), "a third for each: {}", fixture.waiting_of(OTHER));
    assert!(fixture.waiting_of(UNKNOWN) <= 36);
    let left: Vec<_> = mine.iter().filter(|id| fixture.waiting.contains_key(id)).collect();
    assert_eq!(left.last(), Some(&&mine[49]), "its newest are left");
}

#[test]
fn a_user_who_holds_little_loses_nothing_to_a_flood() {
    let held = HeldLimits { places: 100, ..HeldLimits::default() };
    let mut fixture = Fixture::new(held, QuestionLimits::default());
    let mine: Vec<PacketId> = (5000..5010).map(|number| fixture.send(OTHER, &packet(number))).collect();
    for number in 0..5000 {
        fixture.send(FLOODER, &packet(number));
    }
    assert!(mine.iter().all(|id| fixture.waiting.contains_key(id)));
    assert_eq!(fixture.waiting_of(FLOODER), 90);
}

#[test]
fn among_flows_of_one_user_the_destination_that_has_most_makes_room() {
    let held = HeldLimits { places: 100, packets_per_flow: 64, ..HeldLimits::default() };
    let mut fixture = Fixture::new(held, QuestionLimits::default());
    // One packet for another destination, then thousands of flows to a single one.
    let mine = fixture.send(UNKNOWN, &packet(199));
    for port in 0..3000 {
        fixture.send(UNKNOWN, &packet(port * 200));
    }
    assert!(fixture.waiting.contains_key(&mine));
    assert_eq!(fixture.waiting.len(), 100);
}

#[test]
fn a_flooding_user_cannot_use_up_the_asking_of_others() {
    let questions = QuestionLimits { open: 64, per_second: 1000, burst: 1000 };
    let mut fixture = Fixture::new(HeldLimits::default(), questions);
    for number in 0..1000 {
        fixture.send(FLOODER, &packet(number));
    }
    assert_eq!(fixture.asked().len(), 48, "three quarters of the open questions, alone");
    for number in 5000..5004 {
        fixture.send(OTHER, &packet(number));
        assert_eq!(fixture.asked(), [flow_of(number)], "asked at once");
    }
    // As answers come, the one who waits for its turn goes on.
    fixture.inserter.apply(Update::DropHeld { token: 1, flow: flow_of(0) }, fixture.now).unwrap();
    fixture.inserter.apply(Update::DropHeld { token: 1, flow: flow_of(1) }, fixture.now).unwrap();
    fixture.collect();
    assert!(fixture.asked().len() <= 2);
    // Nobody answers: the places are free again when the sender has given up.
    fixture.pass(Duration::from_secs(17));
    for number in 8000..8048 {
        fixture.send(FLOODER, &packet(number));
    }
    assert_eq!(fixture.asked().len(), 48);
}

#[test]
fn users_take_turns_when_the_rate_is_used_up() {
    let questions = QuestionLimits { open: 1000, per_second: 10, burst: 1 };
    let held = HeldLimits { time: Duration::from_secs(10), ..HeldLimits::default() };
    let mut fixture = Fixture::new(held, questions);
    for number in 0..100 {
        fixture.send(FLOODER, &packet(number));
    }
    for number in 5000..5003 {
        fixture.send(OTHER, &packet(number));
    }
    assert_eq!(fixture.asked(), [flow_of(0)]);
    fixture.pass(Duration::from_millis(600));
    let asked = fixture.asked();
    assert_eq!(asked.len(), 6, "ten a second");
    let others: Vec<Flow> = asked.into_iter().filter(|flow| (5000..5003).any(|number| *flow == flow_of(number))).collect();
    assert_eq!(others, [flow_of(5000), flow_of(5001), flow_of(5002)], "every second turn");
}

#[test]
fn who_no_longer_waits_does_not_ask() {
    let questions = QuestionLimits { open: 1000, per_second: 2, burst: 1 };
    let mut fixture = Fixture::new(HeldLimits::default(), questions);
    for number in 0..10 {
        fixture.send(FLOODER, &packet(number));
    }
    assert_eq!(fixture.asked().len(), 1);
    fixture.pass(Duration::from_secs(30));
    assert_eq!(fixture.asked().len(), 1, "the others have waited a second and are gone");
    assert_eq!(fixture.counters.dropped(DropReason::HeldTooLong).packets, 10);
    assert_eq!(fixture.inserter.poll_timeout().filter(|due| *due < fixture.now + Duration::from_secs(60)), None, "nothing is left to do");
}

#[test]
fn what_waits_for_more_goes_at_once_when_the_permission_ends_and_nobody_asks() {
    let mut fixture = Fixture::new(HeldLimits::default(), QuestionLimits::default());
    fixture.inserter = Inserter::new(InserterConfig::default(), Arc::new(Strict), Arc::clone(&fixture.counters));
    let end = NOW + Duration::from_millis(300);
    let flow = flow_of(1);
    let grant = Grant { flow, spi: SPI, key: key(MacAlgorithm::HmacSha256_128, 7), allowed: 1, counted: 0, highest: 0, expires_at: end };
    // By its time.
    fixture.inserter.apply(Update::Install { token: 1, grant: grant.clone() }, NOW).unwrap();
    fixture.send(OTHER, &packet(1));
    fixture.send(OTHER, &packet(1));
    assert_eq!(fixture.waiting.len(), 2);
    assert_eq!(fixture.inserter.poll_timeout(), Some(end));
    fixture.pass(Duration::from_millis(299));
    assert_eq!(fixture.waiting.len(), 2);
    fixture.pass(Duration::from_millis(1));
    assert_eq!((fixture.waiting.len(), fixture.counters.dropped(DropReason::Expired).packets), (0, 2));
    // By removal.
    let grant = Grant { spi: SPI + 1, expires_at: fixture.now + Duration::from_secs(60), ..grant };
    fixture.inserter.apply(Update::Install { token: 1, grant }, fixture.now).unwrap();
    fixture.send(OTHER, &packet(1));
    fixture.inserter.apply(Update::Remove { token: 1, flow, spi: SPI }, fixture.now).unwrap();
    fixture.collect();
    assert_eq!(fixture.waiting.len(), 1, "a former epoch");
    fixture.inserter.apply(Update::Remove { token: 1, flow, spi: SPI + 1 }, fixture.now).unwrap();
    fixture.collect();
    assert_eq!((fixture.waiting.len(), fixture.counters.dropped(DropReason::Expired).packets), (0, 3));
    assert_eq!(fixture.counters.accepted().packets, 0);
}

#[test]
fn what_waits_for_more_asks_anew_when_the_permission_ends_and_policy_says_so_fs_28() {
    let mut fixture = Fixture::new(HeldLimits::default(), QuestionLimits::default());
    let end = NOW + Duration::from_millis(300);
    let grant = Grant {
        flow: flow_of(1),
        spi: SPI,
        key: key(MacAlgorithm::HmacSha256_128, 7),
        allowed: 1,
        counted: 0,
        highest: 0,
        expires_at: end,
    };
    fixture.inserter.apply(Update::Install { token: 1, grant }, NOW).unwrap();
    fixture.send(OTHER, &packet(1));
    assert!(matches!(fixture.inserter.poll_event(), Some(Event::OverBudget { .. })));
    fixture.pass(Duration::from_millis(300));
    assert_eq!(fixture.asked(), [flow_of(1)]);
    assert_eq!(fixture.waiting.len(), 1);
    fixture.pass(Duration::from_millis(700));
    assert_eq!(
        (fixture.waiting.len(), fixture.counters.dropped(DropReason::HeldTooLong).packets),
        (0, 1),
        "no longer than a second in all"
    );
    assert_eq!(fixture.counters.accepted().packets, 0, "and never without AH");
}
