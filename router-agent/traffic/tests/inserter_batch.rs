//! What wants out in many packets at once has the verdicts, the octets and the numbers that it has one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, InsertError, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::{Checks, Strict};
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::inserter::{AskRule, HeldLimits, IdentificationKey, Inserter, InserterConfig};
use traffic::packet::IpPacket;
use traffic::processor::{Arrival, PacketId, PacketProcessor, UserId};
use traffic::reason::DropReason;
use traffic::update::{Grant, Update};

const NOW: Instant = Instant::from_micros_const(10_000_000);
/// Flows with a permission, of every algorithm and both IP versions; the last one's is over soon.
const PERMITTED: usize = 8;
/// Beyond these: one that asks, and one that does not.
const FLOWS: usize = PERMITTED + 2;

/// A packet of a mix.
#[derive(Debug, Clone)]
struct Piece {
    flow: usize,
    len: usize,
    user: u32,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Whole,
    /// May be fragmented, so that its identification is made here.
    MayBeFragmented,
    /// IPv4 options of so many words, or none.
    Options(usize),
    Fragment,
    WithAh,
    Noise(Vec<u8>),
    /// What comes from outside.
    Arrived(Vec<u8>),
}

fn any_piece() -> impl Strategy<Value = Piece> {
    let noise = || proptest::collection::vec(any::<u8>(), 0..90);
    let form = prop_oneof![
        10 => Just(Form::Whole),
        2 => Just(Form::MayBeFragmented),
        1 => (1usize..10).prop_map(Form::Options),
        1 => Just(Form::Fragment),
        1 => Just(Form::WithAh),
        1 => noise().prop_map(Form::Noise),
        1 => noise().prop_map(Form::Arrived),
    ];
    let len = prop_oneof![20 => 0usize..1400, 1 => 60_000usize..65_400];
    (0..FLOWS, len, 0u32..3, form).prop_map(|(flow, len, user, form)| Piece { flow, len, user, form })
}

fn is_ipv6(at: usize) -> bool {
    at % 8 >= 4
}

fn flow(at: usize) -> Flow {
    let port = if at == FLOWS - 1 { 7 } else { 9000 };
    let of = if is_ipv6(at) { flow_v6() } else { flow_v4() };
    Flow { source_port: 4000 + at as u16, destination_port: port, ..of }
}

fn packet(piece: &Piece) -> Vec<u8> {
    let Flow { source_port, destination_port, .. } = flow(piece.flow);
    let data = udp(source_port, destination_port, piece.len);
    if is_ipv6(piece.flow) {
        return match &piece.form {
            Form::Fragment => ipv6(44, &[&[17, 0, 0, 1, 0, 0, 0, 9][..], &data].concat()),
            Form::Noise(octets) | Form::Arrived(octets) => octets.clone(),
            _ => ipv6(17, &data),
        };
    }
    let mut packet = match &piece.form {
        Form::Options(words) => ipv4(&vec![1; 4 * words], 17, &data),
        Form::WithAh => ipv4(&[], 51, &[&[17, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], &[0; 12], &data].concat()),
        Form::Noise(octets) | Form::Arrived(octets) => return octets.clone(),
        _ => ipv4(&[], 17, &data),
    };
    match piece.form {
        Form::MayBeFragmented => packet[6] = 0,
        Form::Fragment => packet[6] = 0x20,
        _ => {}
    }
    fix_checksum(&mut packet);
    packet
}

fn key(flow: usize) -> IcvKey {
    support::key(MacAlgorithm::ALL[flow % MacAlgorithm::ALL.len()], flow as u8)
}

fn inserter(checks: Arc<dyn Checks>, allowed: u64) -> (Inserter, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let held = HeldLimits { places: 20, packets_per_flow: 6, ..HeldLimits::default() };
    let identifications = Some(IdentificationKey::new(&[5; 32]).unwrap());
    let ask = vec![AskRule { destination_ports: Some(9000..=9000), ..AskRule::default() }];
    let config = InserterConfig { ask, mark: Some(80), held, identifications, ..InserterConfig::default() };
    let mut inserter = Inserter::new(config, checks, Arc::clone(&counters));
    for at in 0..PERMITTED {
        let expires_at = if at == PERMITTED - 1 { NOW + Duration::from_millis(5) } else { Instant::from_secs(1000) };
        // The second one is about to run out of numbers.
        let highest = if at == 1 { u32::MAX - 3 } else { 0 };
        let grant = Grant { flow: flow(at), spi: 4096 + at as u32, key: key(at), allowed, counted: 0, highest, expires_at };
        inserter.apply(Update::Install { token: 1, grant }, NOW).unwrap();
    }
    (inserter, counters)
}

/// Judges all packets, at once or one after the other; what is told of each, and of those that were held, and of the events in the end.
fn drive(inserter: &mut Inserter, packets: &[(Vec<u8>, u32, bool)], at_once: bool, now: Instant) -> Vec<String> {
    let mut story = Vec::new();
    if at_once {
        let arrivals: Vec<_> = packets
            .iter()
            .zip(1..)
            .map(|((bytes, user, has_arrived), id)| Arrival {
                id: PacketId(id),
                user: Some(UserId(*user)),
                has_arrived: *has_arrived,
                is_unfinished: false,
                bytes,
            })
            .collect();
        inserter.process_batch(&arrivals, now, &mut |at, verdict| {
            assert_eq!(at, story.len(), "in order");
            story.push(format!("{verdict:?}"));
        });
    } else {
        for ((bytes, user, has_arrived), id) in packets.iter().zip(1..) {
            story.push(match has_arrived {
                true => format!("{:?}", inserter.process_arrived(PacketId(id), bytes, now)),
                false => format!("{:?}", inserter.process_sent(PacketId(id), Some(UserId(*user)), bytes, now)),
            });
        }
    }
    while let Some(released) = inserter.poll_released() {
        story.push(format!("{released:?}"));
    }
    while let Some(event) = inserter.poll_event() {
        story.push(format!("{event:?}"));
    }
    story
}

fn counted(counters: &Counters) -> Vec<String> {
    [format!("{:?}", counters.accepted())].into_iter().chain(counters.all_dropped().map(|dropped| format!("{dropped:?}"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_becomes_of_a_batch_is_what_becomes_of_its_packets_one_by_one_whatever_it_holds(
        pieces in proptest::collection::vec(any_piece(), 0..150),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        allowed in 2_000u64..60_000,
    ) {
        let packets: Vec<_> =
            pieces.iter().map(|piece| (packet(piece), piece.user, matches!(piece.form, Form::Arrived(_)))).collect();
        let ((mut one, one_counted), (mut other, other_counted)) = (inserter(Arc::new(Strict), allowed), inserter(Arc::new(Strict), allowed));
        for (since, packets) in rounds(&packets, &cuts) {
            let told = drive(&mut one, packets, false, NOW + since);
            prop_assert_eq!(told, drive(&mut other, packets, true, NOW + since));
            prop_assert_eq!(&one, &other, "what is noted, numbered, counted and held");
            prop_assert_eq!(counted(&one_counted), counted(&other_counted));
        }
        // What waits goes out alike.
        for at in 0..PERMITTED {
            let more = Update::Update { token: 2, flow: flow(at), spi: 4096 + at as u32, allowed: 1 << 30, expires_at: Instant::from_secs(1000) };
            prop_assert_eq!(one.apply(more.clone(), NOW), other.apply(more, NOW));
            prop_assert_eq!(drive(&mut one, &[], false, NOW), drive(&mut other, &[], true, NOW));
        }
    }
}

#[test]
fn the_packets_of_a_batch_leave_as_the_one_implementation_of_ah_writes_them() {
    // P-124, P-149.
    let (mut inserter, counters) = inserter(Arc::new(Strict), 1 << 40);
    let pieces: Vec<_> = (0..200).map(|at| Piece { flow: at % (PERMITTED - 1), len: at * 7, user: 0, form: Form::Whole }).collect();
    let packets: Vec<_> = pieces.iter().map(packet).filter(|packet| !packet.is_empty()).collect();
    let arrivals: Vec<_> = packets
        .iter()
        .zip(1..)
        .map(|(bytes, id)| Arrival { id: PacketId(id), user: None, has_arrived: false, is_unfinished: false, bytes })
        .collect();
    let mut numbers = [0; PERMITTED];
    numbers[1] = u32::MAX - 3;
    let mut out = 0;
    inserter.process_batch(&arrivals, NOW, &mut |at, verdict| {
        let flow = pieces[at].flow;
        let traffic::processor::Verdict::Replace { payload, .. } = verdict else {
            return assert_eq!((flow, numbers[flow]), (1, u32::MAX), "no numbers left");
        };
        numbers[flow] += 1;
        let mut expected = Vec::new();
        let number = Number { low: numbers[flow], high: None };
        ah::insert(&IpPacket::parse(&packets[at]).unwrap(), 4096 + flow as u32, number, &key(flow), &mut expected).unwrap();
        assert_eq!(payload, expected, "packet {at}");
        out += 1;
    });
    assert_eq!(counters.accepted().packets, out);
    assert!(out > 150, "{out}");
}

#[test]
fn who_replaces_the_seal_replaces_it_in_batches_too() {
    #[derive(Debug)]
    struct Refusing;
    impl Checks for Refusing {
        fn seal(&self, _: &IpPacket<'_>, _: u32, _: Number, _: &IcvKey, _: &mut Vec<u8>) -> Result<(), InsertError> {
            Err(InsertError::NotSigned)
        }
    }
    let (mut inserter, counters) = inserter(Arc::new(Refusing), 1 << 30);
    let packets: Vec<_> = (0..40).map(|len| (packet(&Piece { flow: 0, len, user: 0, form: Form::Whole }), 0, false)).collect();
    assert!(drive(&mut inserter, &packets, true, NOW).iter().all(|told| told == "Drop(NotSigned)"));
    assert_eq!(counters.dropped(DropReason::NotSigned).packets, 40);
}
