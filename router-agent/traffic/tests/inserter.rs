//! What a sender's host does with packets that want out: rows FS-40…43 of the packet machine, holding and asking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah;
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::flow::Flow;
use traffic::inserter::{AskRule, HeldLimits, IdentificationKey, Inserter, InserterConfig, MAX_PACKET};
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Released, Verdict};
use traffic::reason::DropReason;
use traffic::update::{Applied, Grant, Refusal, Update};

const SPI: u32 = 0xabcd;
const NOW: Instant = Instant::from_micros_const(1_000_000);
const END: Instant = Instant::from_micros_const(100_000_000);
const MARK: u32 = 80;
/// Length of `udp_v4(100)` with its AH.
const LENGTH: u64 = 20 + 28 + 8 + 100;

fn secret() -> IcvKey {
    key(MacAlgorithm::HmacSha256_128, 7)
}

fn install(spi: u32, allowed: u64) -> Update {
    let grant = Grant { flow: flow_v4(), spi, key: secret(), allowed, counted: 0, highest: 0, expires_at: END };
    Update::Install { token: 1, grant }
}

fn raise(allowed: u64) -> Update {
    Update::Update { token: 2, flow: flow_v4(), spi: SPI, allowed, expires_at: END }
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    Sent(Vec<u8>),
    Held,
    Dropped(DropReason),
}

struct Fixture {
    inserter: Inserter,
    counters: Arc<Counters>,
}

impl Fixture {
    /// Asks for UDP to port 9000.
    fn new() -> Self {
        let rule = AskRule {
            destination: Some("192.168.21.0/24".parse().unwrap()),
            protocol: Some(17),
            destination_ports: Some(9000..=9000),
            ..AskRule::default()
        };
        Self::with(InserterConfig { ask: vec![rule], mark: Some(MARK), ..InserterConfig::default() })
    }

    fn with(config: InserterConfig) -> Self {
        let counters = Arc::new(Counters::default());
        Self { inserter: Inserter::new(config, Arc::new(Strict), Arc::clone(&counters)), counters }
    }

    fn apply(&mut self, update: Update) -> Result<Applied, Refusal> {
        self.inserter.apply(update, NOW).map_err(|refused| refused.why)
    }

    fn process_at(&mut self, id: u32, bytes: &[u8], now: Instant) -> Got {
        match self.inserter.process(PacketId(id.into()), bytes, now) {
            Verdict::Replace { payload, mark } => {
                assert_eq!(mark, Some(MARK));
                Got::Sent(payload.to_vec())
            }
            Verdict::Hold => Got::Held,
            Verdict::Drop(reason) => Got::Dropped(reason),
            Verdict::Accept | Verdict::Taken => panic!("nothing leaves without AH"),
        }
    }

    fn process(&mut self, id: u32, bytes: &[u8]) -> Got {
        self.process_at(id, bytes, NOW)
    }

    fn released(&mut self) -> Vec<(u32, Result<u32, DropReason>)> {
        std::iter::from_fn(|| self.inserter.poll_released())
            .map(|(id, released)| match released {
                Released::Replace { payload, mark } => {
                    assert_eq!(mark, Some(MARK));
                    (u32::try_from(id.0).unwrap(), Ok(number(&payload)))
                }
                Released::Drop(reason) => (u32::try_from(id.0).unwrap(), Err(reason)),
            })
            .collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.inserter.poll_event()).collect()
    }
}

/// The sequence number of a packet whose ICV is right.
fn number(bytes: &[u8]) -> u32 {
    let packet = IpPacket::parse(bytes).unwrap();
    assert!(ah::icv_matches(&packet, &secret(), None));
    packet.ah().unwrap().sequence()
}

#[test]
fn under_a_live_permission_each_packet_gets_ah_and_a_number_of_its_own_fs_40() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, 10_000)).unwrap();
    for expected in 1..=3 {
        let Got::Sent(bytes) = fixture.process(expected, &udp_v4(100)) else { panic!("not sent") };
        assert_eq!((number(&bytes), bytes.len() as u64), (expected, LENGTH));
    }
    let applied = fixture.apply(Update::Snapshot { token: 9, flow: flow_v4(), spi: SPI }).unwrap();
    assert_eq!(applied, Applied::new(9, 3 * LENGTH, 3));
    assert_eq!(fixture.counters.accepted().bytes, 3 * LENGTH);
}

/// A packet as a kernel has numbered it; `flags` says whether it may be fragmented.
fn identified(identification: u16, flags: u8) -> Vec<u8> {
    let mut packet = udp_v4(100);
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    packet[6] = flags;
    fix_checksum(&mut packet);
    packet
}

/// the kernel counts, and who sees one packet spoils what comes next by parts of his own.
#[test]
fn nobody_can_tell_the_next_identification_of_what_may_be_fragmented() {
    let with_key = |octet| {
        let identifications = Some(IdentificationKey::new(&[octet; 32]).unwrap());
        let mut fixture = Fixture::with(InserterConfig { mark: Some(MARK), identifications, ..InserterConfig::default() });
        fixture.apply(install(SPI, 1 << 20)).unwrap();
        (1..=1000)
            .map(|place: u16| {
                let (may, may_not) = (fixture.process(place.into(), &identified(place, 0)), fixture.process(0, &identified(place, 0x40)));
                let (Got::Sent(may), Got::Sent(may_not)) = (may, may_not) else { panic!("not sent") };
                assert_eq!((number(&may), number(&may_not)), (u32::from(place) * 2 - 1, u32::from(place) * 2), "and their ICVs are right");
                assert_eq!(may_not[4..6], place.to_be_bytes(), "what stays whole is as it was");
                u16::from_be_bytes([may[4], may[5]])
            })
            .collect::<Vec<_>>()
    };
    let (one, other) = (with_key(1), with_key(2));
    let near = |one: &[u16]| one.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 2000).count();
    assert!(near(&one) < 120, "one in 16 by chance: {}", near(&one));
    assert!(!one.contains(&0) && one.iter().zip(&other).filter(|(one, other)| one == other).count() < 10, "another key, other numbers");
}

/// a relay sends packets on by a raw socket, where the kernel replaces the identification 0, which AH protects.
#[test]
fn what_may_be_fragmented_leaves_with_an_identification_and_the_rest_as_it_was() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, 10_000)).unwrap();
    let mut left = Vec::new();
    for (place, packet) in (1..).zip([identified(0, 0), identified(0, 0), identified(0, 0x40), identified(7, 0)]) {
        let Got::Sent(bytes) = fixture.process(place, &packet) else { panic!("not sent") };
        assert_eq!(number(&bytes), place, "and its ICV is right");
        left.push(u16::from_be_bytes([bytes[4], bytes[5]]));
    }
    assert!(left[0] != 0 && left[1] != 0 && left[0] != left[1], "{left:?}");
    assert_eq!(left[2..], [0, 7]);
}

/// FS-15, FS-25: what waits for the nodes on another way to know the flow is bounded like all that waits, and other flows do not.
#[test]
fn a_flow_on_another_way_has_its_mark_and_waits_until_it_is_permitted_there() {
    let ways = [0x0100_0000, 0x0200_0000, 0, 0, 0, 0, 0];
    let mut inserter = Inserter::new(
        InserterConfig { mark: Some(MARK), path_marks: ways, ..InserterConfig::default() },
        Arc::new(Strict),
        Arc::new(Counters::default()),
    );
    let mark_of = |inserter: &mut Inserter, id| match inserter.process(PacketId(id), &udp_v4(100), NOW) {
        Verdict::Replace { mark, .. } => mark,
        Verdict::Hold => None,
        other => panic!("{other:?}"),
    };
    let route = |path, waits| Update::Route { token: 5, flow: flow_v4(), path, waits };
    inserter.apply(install(SPI, 10_000), NOW).unwrap();
    assert_eq!(mark_of(&mut inserter, 1), Some(MARK));
    inserter.apply(route(2, true), NOW).unwrap();
    assert_eq!(mark_of(&mut inserter, 2), None);
    let read = inserter.apply(Update::Snapshot { token: 6, flow: flow_v4(), spi: SPI }, NOW).unwrap();
    assert_eq!((read.counted, read.highest), (LENGTH, 1), "nothing is counted meanwhile");
    inserter.apply(raise(10_000), NOW).unwrap();
    let released: Vec<_> = std::iter::from_fn(|| inserter.poll_released()).collect();
    let [(PacketId(2), Released::Replace { mark, payload })] = released.as_slice() else { panic!("{released:?}") };
    assert_eq!((*mark, number(payload)), (Some(MARK | 0x0200_0000), 2));
    assert_eq!(mark_of(&mut inserter, 3), Some(MARK | 0x0200_0000));
    // A way that is not there is refused, and the flow stays where it is.
    for path in [3, 8, 255] {
        assert_eq!(inserter.apply(route(path, true), NOW).unwrap_err().why, Refusal::UnknownPath);
    }
    assert_eq!(mark_of(&mut inserter, 4), Some(MARK | 0x0200_0000));
    inserter.apply(route(0, false), NOW).unwrap();
    assert_eq!(mark_of(&mut inserter, 5), Some(MARK));
}

#[test]
fn the_first_packet_of_a_flow_asks_once_and_waits_fs_01_fs_15() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.process(1, &udp_v4(100)), Got::Held);
    assert_eq!(fixture.process(2, &udp_v4(100)), Got::Held);
    assert_eq!(fixture.events(), [Event::FirstPacket(flow_v4())]);
    fixture.apply(install(SPI, 10_000)).unwrap();
    assert_eq!(fixture.released(), [(1, Ok(1)), (2, Ok(2))], "in order");
    assert!(matches!(fixture.process(3, &udp_v4(100)), Got::Sent(_)));
}

#[test]
fn what_no_rule_asks_for_is_dropped_fs_04() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.process(1, &ipv4(&[], 17, &udp(4000, 9001, 3))), Got::Dropped(DropReason::NotAsked));
    assert_eq!(fixture.process(1, &ipv4(&[], 6, &udp(4000, 9000, 30))), Got::Dropped(DropReason::NotAsked));
    assert_eq!(fixture.process(1, &udp_v6(3)), Got::Dropped(DropReason::NotAsked));
    assert_eq!(fixture.events(), []);
    assert_eq!(fixture.counters.dropped(DropReason::NotAsked).packets, 3);
}

#[test]
fn a_flow_that_signalling_asks_for_anyway_waits_without_asking_again_x_57() {
    let mut fixture = Fixture::with(InserterConfig { mark: Some(MARK), capacity: 1, ..InserterConfig::default() });
    let until = NOW + Duration::from_secs(5);
    let expect = |flow: Flow| Update::Expect { token: 4, flow, until };
    fixture.apply(expect(flow_v4())).unwrap();
    assert_eq!(fixture.apply(expect(flow_v6())), Err(Refusal::TableFull));
    assert_eq!(fixture.process(1, &udp_v4(100)), Got::Held);
    assert_eq!(fixture.events(), []);
    fixture.inserter.handle_timeout(until);
    assert_eq!(fixture.released(), [(1, Err(DropReason::HeldTooLong))]);
    assert_eq!(fixture.process_at(2, &udp_v4(100), until), Got::Dropped(DropReason::NotAsked));
}

#[test]
fn no_more_flows_are_on_other_ways_or_on_their_way_back_than_flows_are_held() {
    let ways = [0x0100_0000, 0, 0, 0, 0, 0, 0];
    let mut fixture = Fixture::with(InserterConfig { mark: Some(MARK), path_marks: ways, capacity: 1, ..InserterConfig::default() });
    let route = |flow: Flow, path, waits| Update::Route { token: 5, flow, path, waits };
    fixture.apply(route(flow_v4(), 1, true)).unwrap();
    assert_eq!(fixture.apply(route(flow_v6(), 1, true)), Err(Refusal::TableFull));
    assert_eq!(fixture.apply(route(flow_v6(), 0, true)), Err(Refusal::TableFull), "back on the routed way, where it is to wait");
    fixture.apply(route(flow_v4(), 0, true)).unwrap();
    fixture.apply(route(flow_v4(), 0, false)).unwrap();
    fixture.apply(route(flow_v6(), 1, false)).unwrap();
}

#[test]
fn what_ah_cannot_protect_is_dropped() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, 1_000_000)).unwrap();
    let mut fragment = udp_v4(100);
    fragment[6] = 0x20;
    assert_eq!(fixture.process(1, &fragment), Got::Dropped(DropReason::FragmentNotReassembled));
    assert_eq!(fixture.process(1, &[0x45]), Got::Dropped(DropReason::Malformed));
    assert_eq!(fixture.process(1, &ipv4(&[], 17, &[1])), Got::Dropped(DropReason::Malformed));
    let routed = ipv4(&[131, 7, 4, 192, 168, 21, 4, 1], 17, &udp(4000, 9000, 1));
    assert_eq!(fixture.process(1, &routed), Got::Dropped(DropReason::SourceRoute));
    let Got::Sent(sealed) = fixture.process(1, &udp_v4(100)) else { panic!("not sent") };
    assert_eq!(fixture.process(1, &sealed), Got::Dropped(DropReason::NotAsked), "somebody else's AH");
}

#[test]
fn the_queues_longest_packet_is_sent_and_a_longer_one_is_too_large_x_87() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, 1_000_000)).unwrap();
    let longest = MAX_PACKET - 28 - 28;
    assert!(matches!(fixture.process(1, &udp_v4(longest)), Got::Sent(bytes) if bytes.len() == MAX_PACKET));
    assert_eq!(fixture.process(2, &udp_v4(longest + 1)), Got::Dropped(DropReason::TooLarge));
    let applied = fixture.apply(Update::Snapshot { token: 9, flow: flow_v4(), spi: SPI }).unwrap();
    assert_eq!((applied.counted, applied.highest), (MAX_PACKET as u64, 1), "what is dropped takes neither volume nor number");
}

#[test]
fn the_volume_is_never_exceeded_and_the_packet_that_would_waits_for_more_fs_41() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, 2 * LENGTH)).unwrap();
    assert!(matches!(fixture.process(1, &udp_v4(100)), Got::Sent(_)));
    assert!(matches!(fixture.process(2, &udp_v4(100)), Got::Sent(_)));
    assert_eq!(fixture.process(3, &udp_v4(100)), Got::Held);
    assert_eq!(fixture.process(4, &udp_v4(0)), Got::Held);
    let (flow, spi) = (flow_v4(), SPI);
    assert_eq!(fixture.events(), [Event::NearlyUsedUp { flow, spi }, Event::OverBudget { flow, spi }]);
    fixture.apply(raise(3 * LENGTH + 10)).unwrap();
    assert_eq!(fixture.released(), [(3, Ok(3))]);
    assert_eq!(fixture.process(5, &udp_v4(0)), Got::Held, "no packet overtakes another of its flow");
    fixture.apply(raise(5 * LENGTH)).unwrap();
    assert_eq!(fixture.released(), [(4, Ok(4)), (5, Ok(5))]);
}

#[test]
fn three_quarters_of_the_volume_are_reported_once_for_each_volume() {
    // FS-33, X-36.
    let mut fixture = Fixture::new();
    fixture.inserter.apply(install(SPI, 4 * LENGTH), NOW).unwrap();
    let nearly = [Event::NearlyUsedUp { flow: flow_v4(), spi: SPI }];
    let sent = |fixture: &mut Fixture, id| assert!(matches!(fixture.process(id, &udp_v4(100)), Got::Sent(_)));
    sent(&mut fixture, 1);
    sent(&mut fixture, 2);
    assert_eq!(fixture.events(), []);
    sent(&mut fixture, 3);
    assert_eq!(fixture.events(), nearly);
    sent(&mut fixture, 4);
    assert_eq!(fixture.events(), [], "once");
    fixture.inserter.apply(raise(4 * LENGTH), NOW).unwrap();
    assert_eq!(fixture.process(5, &udp_v4(100)), Got::Held);
    assert_eq!(fixture.events(), [Event::OverBudget { flow: flow_v4(), spi: SPI }], "a refresh is no other volume");
    fixture.inserter.apply(raise(6 * LENGTH), NOW).unwrap();
    assert_eq!(fixture.events(), nearly, "and what waited has gone");
}

#[test]
fn an_extension_refused_drops_what_waits_and_what_comes_fs_42() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, LENGTH)).unwrap();
    assert!(matches!(fixture.process(1, &udp_v4(100)), Got::Sent(_)));
    assert_eq!(fixture.process(2, &udp_v4(100)), Got::Held);
    fixture.apply(Update::DropHeld { token: 3, flow: flow_v4() }).unwrap();
    assert_eq!(fixture.released(), [(2, Err(DropReason::NoPermission))]);
    assert_eq!(fixture.process(3, &udp_v4(100)), Got::Dropped(DropReason::OverBudget));
    fixture.apply(raise(2 * LENGTH)).unwrap();
    assert!(matches!(fixture.process(4, &udp_v4(100)), Got::Sent(_)), "a later extension counts");
}

#[test]
fn a_denied_flow_drops_what_waits_fs_06() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.process(1, &udp_v4(100)), Got::Held);
    fixture.apply(Update::DropHeld { token: 3, flow: flow_v4() }).unwrap();
    assert_eq!(fixture.released(), [(1, Err(DropReason::NoPermission))]);
    assert_eq!(fixture.counters.dropped(DropReason::NoPermission).packets, 1);
    assert_eq!(fixture.inserter.poll_timeout(), None);
}

#[test]
fn nothing_waits_longer_than_a_second_and_what_fits_behind_it_goes() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, LENGTH)).unwrap();
    assert_eq!(fixture.process(1, &udp_v4(101)), Got::Held);
    let later = NOW + Duration::from_millis(600);
    assert_eq!(fixture.process_at(2, &udp_v4(100), later), Got::Held);
    let due = fixture.inserter.poll_timeout().unwrap();
    assert_eq!(due, NOW + Duration::from_secs(1));
    fixture.inserter.handle_timeout(due - Duration::from_micros(1));
    assert_eq!(fixture.released(), []);
    fixture.inserter.handle_timeout(due);
    assert_eq!(fixture.released(), [(1, Err(DropReason::HeldTooLong)), (2, Ok(1))]);
}

#[test]
fn waiting_is_bounded_in_packets_and_octets_and_the_biggest_holders_oldest_makes_room() {
    let limits = HeldLimits { places: 4, packets_per_flow: 2, time: Duration::from_secs(1) };
    let config = InserterConfig { ask: vec![AskRule::default()], mark: Some(MARK), held: limits, ..InserterConfig::default() };
    let mut fixture = Fixture::with(config);
    let to = |last, port, len| {
        let mut bytes = ipv4(&[], 17, &udp(port, 9000, len));
        bytes[19] = last;
        fix_checksum(&mut bytes);
        bytes
    };
    let full = Err(DropReason::QueueFull);
    assert_eq!(fixture.process(1, &to(1, 1, 72)), Got::Held);
    assert_eq!(fixture.process(2, &to(1, 1, 72)), Got::Held);
    assert_eq!(fixture.process(3, &to(1, 1, 72)), Got::Dropped(DropReason::QueueFull), "packets of a flow");
    assert_eq!(fixture.process(4, &to(1, 2, 72)), Got::Held);
    assert_eq!(fixture.process(5, &to(2, 1, 72)), Got::Held);
    assert_eq!(fixture.released(), []);
    assert_eq!(fixture.process(6, &to(3, 1, 72)), Got::Held);
    assert_eq!(fixture.released(), [(1, full)], "the oldest for the destination that has most");
    assert_eq!(fixture.process(7, &to(4, 1, 72)), Got::Held);
    assert_eq!(fixture.process(8, &to(5, 1, 72)), Got::Held);
    assert_eq!(fixture.released(), [(2, full), (4, full)], "all have one: the oldest goes");
    // A packet of more than 8 KiB takes the places of two, one of more than all places none.
    assert_eq!(fixture.process(9, &to(6, 1, 8192)), Got::Held);
    assert_eq!(fixture.released(), [(5, full), (6, full)]);
    assert_eq!(fixture.process(10, &to(7, 1, 40_000)), Got::Dropped(DropReason::QueueFull), "it never finds room");
    assert_eq!(fixture.counters.dropped(DropReason::QueueFull).packets, 7);
    fixture.inserter.handle_timeout(NOW + Duration::from_secs(1));
    assert_eq!(fixture.released().len(), 3);
    assert_eq!(fixture.process_at(11, &to(7, 1, 20_000), NOW + Duration::from_secs(1)), Got::Held, "all room is back");
    assert_eq!(fixture.released(), []);
}

#[test]
fn after_the_end_of_the_permission_the_flow_asks_again_fs_28() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, 10_000)).unwrap();
    assert!(matches!(fixture.process(1, &udp_v4(100)), Got::Sent(_)));
    assert_eq!(fixture.process_at(2, &udp_v4(100), END), Got::Held);
    assert_eq!(fixture.events(), [Event::FirstPacket(flow_v4())]);
    let no_rule = InserterConfig { mark: Some(MARK), ..InserterConfig::default() };
    let mut fixture = Fixture::with(no_rule);
    fixture.apply(install(SPI, 10_000)).unwrap();
    assert_eq!(fixture.process_at(2, &udp_v4(100), END), Got::Dropped(DropReason::Expired));
}

#[test]
fn a_new_epoch_counts_and_numbers_afresh_and_the_old_ones_last_figures_stay_readable_fs_24() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, 10_000)).unwrap();
    assert!(matches!(fixture.process(1, &udp_v4(100)), Got::Sent(_)));
    fixture.apply(install(SPI + 1, 10_000)).unwrap();
    let Got::Sent(bytes) = fixture.process(2, &udp_v4(0)) else { panic!("not sent") };
    assert_eq!((number(&bytes), IpPacket::parse(&bytes).unwrap().ah().unwrap().spi()), (1, SPI + 1));
    let read = |fixture: &mut Fixture, spi| fixture.apply(Update::Snapshot { token: 5, flow: flow_v4(), spi });
    assert_eq!(read(&mut fixture, SPI), Ok(Applied::new(5, LENGTH, 1)));
    assert_eq!(read(&mut fixture, SPI + 1), Ok(Applied::new(5, LENGTH - 100, 1)));
    assert_eq!(read(&mut fixture, SPI + 2), Err(Refusal::UnknownPermission));
    // Taking the old epoch away does not touch the new one.
    fixture.apply(Update::Remove { token: 6, flow: flow_v4(), spi: SPI }).unwrap();
    assert!(matches!(fixture.process(3, &udp_v4(0)), Got::Sent(_)));
    fixture.apply(Update::Remove { token: 6, flow: flow_v4(), spi: SPI + 1 }).unwrap();
    assert_eq!(fixture.process(4, &udp_v4(0)), Got::Held);
}

#[test]
fn the_same_association_installed_again_goes_on_numbering_inv_07() {
    let mut fixture = Fixture::new();
    fixture.apply(install(SPI, 10_000)).unwrap();
    assert!(matches!(fixture.process(1, &udp_v4(100)), Got::Sent(_)));
    assert_eq!(fixture.apply(install(SPI, 20_000)), Ok(Applied::new(1, LENGTH, 1)));
    let Got::Sent(bytes) = fixture.process(2, &udp_v4(0)) else { panic!("not sent") };
    assert_eq!(number(&bytes), 2);
    let other =
        Grant { flow: flow_v4(), spi: SPI, key: key(MacAlgorithm::HmacSha256_128, 8), allowed: 1, counted: 0, highest: 0, expires_at: END };
    assert_eq!(fixture.apply(Update::Install { token: 1, grant: other }), Err(Refusal::KeyChanged));
}

proptest! {
    #[test]
    fn whatever_comes_the_sent_volume_stays_within_the_allowed_one_and_numbers_only_grow(
        steps in proptest::collection::vec((0usize..400, proptest::option::weighted(0.1, 0u64..20_000), 0u64..300), 1..120),
    ) {
        let mut fixture = Fixture::new();
        let (mut allowed, mut sent, mut last, mut now, mut waiting) = (2_000, 0u64, 0, NOW, 0i64);
        fixture.apply(install(SPI, allowed)).unwrap();
        for (id, (len, change, pause)) in steps.into_iter().enumerate() {
            let mut outcomes = Vec::new();
            match fixture.process_at(id as u32, &udp_v4(len), now) {
                Got::Sent(bytes) => outcomes.push((number(&bytes), bytes.len() as u64)),
                Got::Held => waiting += 1,
                Got::Dropped(reason) => prop_assert_eq!(reason, DropReason::QueueFull),
            }
            now += Duration::from_millis(pause);
            fixture.inserter.handle_timeout(now);
            if let Some(change) = change {
                // Never below what was sent: that is X-50, and the receiver's to judge.
                let snapshot = Update::Snapshot { token: 7, flow: flow_v4(), spi: SPI };
                allowed = change.max(fixture.apply(snapshot).unwrap().counted);
                fixture.inserter.apply(raise(allowed), now).unwrap();
            }
            while let Some((_, released)) = fixture.inserter.poll_released() {
                waiting -= 1;
                if let Released::Replace { payload, .. } = released {
                    outcomes.push((number(&payload), payload.len() as u64));
                }
            }
            for (number, length) in outcomes {
                prop_assert!(number > last);
                last = number;
                sent += length;
            }
            prop_assert!(sent <= allowed, "{} of {}", sent, allowed);
            prop_assert!(waiting >= 0);
        }
        // Every held packet gets its verdict.
        fixture.inserter.handle_timeout(now + Duration::from_secs(2));
        while fixture.inserter.poll_released().is_some() {
            waiting -= 1;
        }
        prop_assert_eq!(waiting, 0);
    }

    #[test]
    fn no_octets_make_the_inserter_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), built in any_packet()) {
        let config = InserterConfig { ask: vec![AskRule::default()], mark: Some(MARK), ..InserterConfig::default() };
        let mut fixture = Fixture::with(config);
        let _ = fixture.process(1, &bytes);
        prop_assert_eq!(fixture.process(2, &built.bytes), Got::Held);
    }
}
