//! A super-packet that the host cuts itself leaves as its segments would one after the other, and is noted, numbered and counted so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use smoltcp::time::Instant;
use support::*;
use traffic::ah::{InsertError, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::{Checks, Strict};
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::inserter::{IdentificationKey, Inserter, InserterConfig};
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::segments::Whole;
use traffic::update::{Grant, Update};

const NOW: Instant = Instant::from_micros_const(10_000_000);
const SPI: u32 = 4096;
/// Half of all numbers: who comes to this one tells of it.
const HALF: u32 = 1 << 31;

/// A super-packet, and the permission that it meets.
#[derive(Debug, Clone)]
struct Case {
    is_ipv6: bool,
    /// IPv4 options in words.
    options: usize,
    may_be_fragmented: bool,
    identification: u16,
    timestamps: bool,
    /// Flags of TCP besides ACK.
    flags: u8,
    sequence: u32,
    data: usize,
    largest: usize,
    algorithm: MacAlgorithm,
    identifications: bool,
    highest: u32,
    /// Octets that are left, as a share of what the segments come to.
    left: f64,
    /// What has been counted, as a share of what is allowed.
    counted: f64,
    diverted: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let numbers = prop_oneof![4 => 0u32..1000, 3 => HALF - 20..HALF + 5, 2 => u32::MAX - 20..=u32::MAX];
    let flags = prop_oneof![5 => Just(0u8), 3 => Just(0x08), 1 => Just(0x89), 1 => Just(0xc8), 1 => Just(0x04)];
    let packet = (any::<bool>(), 0usize..4, any::<bool>(), any::<u16>(), any::<bool>(), flags, any::<u32>());
    let sizes = (prop_oneof![6 => 1usize..20_000, 1 => 40_000usize..60_000], prop_oneof![8 => 400usize..1460, 1 => 1usize..400]);
    let terms =
        (proptest::sample::select(MacAlgorithm::ALL), any::<bool>(), numbers, 0.5..3.0, prop_oneof![Just(0.0), 0.5..0.9], any::<bool>());
    (packet, sizes, terms).prop_map(|(packet, (data, largest), terms)| {
        let (is_ipv6, options, may_be_fragmented, identification, timestamps, flags, sequence) = packet;
        let (algorithm, identifications, highest, left, counted, diverted) = terms;
        let (is_ipv6, options) = (is_ipv6, if is_ipv6 { 0 } else { options });
        #[rustfmt::skip]
        let case = Case {
            is_ipv6, options, may_be_fragmented, identification, timestamps, flags, sequence, data, largest, algorithm, identifications,
            highest, left, counted, diverted,
        };
        case
    })
}

impl Case {
    fn flow(&self) -> Flow {
        let of = if self.is_ipv6 { flow_v6() } else { flow_v4() };
        Flow { protocol: 6, source_port: 4000, destination_port: 9000, ..of }
    }

    fn packet(&self) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp[..4].copy_from_slice(&[0x0f, 0xa0, 0x23, 0x28]);
        tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        tcp[13] = 0x10 | self.flags;
        tcp[16..18].copy_from_slice(&[0xab, 0xcd]);
        if self.timestamps {
            tcp.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
        tcp[12] = u8::try_from(tcp.len() / 4).unwrap() << 4;
        tcp.extend((0..self.data).map(|at| (at * 7 % 251) as u8));
        if self.is_ipv6 {
            return ipv6(6, &tcp);
        }
        let mut packet = ipv4(&vec![1; 4 * self.options], 6, &tcp);
        packet[4..6].copy_from_slice(&self.identification.to_be_bytes());
        packet[6] = if self.may_be_fragmented { 0 } else { 0x40 };
        fix_checksum(&mut packet);
        packet
    }

    /// Octets of all segments with AH, if they can be cut.
    fn total(&self, packet: &[u8]) -> Option<u64> {
        let whole = Whole::read(&IpPacket::parse(packet).unwrap(), self.largest)?;
        let ah = (12 + self.algorithm.icv_len()).next_multiple_of(if self.is_ipv6 { 8 } else { 4 });
        Some((whole.total() + whole.count() * ah) as u64)
    }

    fn inserter(&self, checks: Arc<dyn Checks>, total: u64) -> (Inserter, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let identifications = self.identifications.then(|| IdentificationKey::new(&[5; 32]).unwrap());
        let config = InserterConfig { mark: Some(0x80), path_marks: [0x100; 7], identifications, ..InserterConfig::default() };
        let mut inserter = Inserter::new(config, checks, Arc::clone(&counters));
        let left = (total as f64 * self.left) as u64;
        let allowed = (left as f64 / (1.0 - self.counted)) as u64;
        let key = support::key(self.algorithm, 9);
        let (flow, expires_at) = (self.flow(), Instant::from_secs(1000));
        let grant = Grant { flow, spi: SPI, key, allowed, counted: allowed.saturating_sub(left), highest: self.highest, expires_at };
        inserter.apply(Update::Install { token: 1, grant }, NOW).unwrap();
        if self.diverted {
            inserter.apply(Update::Route { token: 2, flow, path: 1, waits: false }, NOW).unwrap();
        }
        (inserter, counters)
    }
}

/// What is told of each packet that leaves or not, and of the events in the end.
fn events(inserter: &mut Inserter) -> Vec<String> {
    std::iter::from_fn(|| inserter.poll_event()).map(|event| format!("{event:?}")).collect()
}

fn counted(counters: &Counters) -> Vec<String> {
    [format!("{:?}", counters.accepted())].into_iter().chain(counters.all_dropped().map(|dropped| format!("{dropped:?}"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_super_packet_is_worth_what_its_segments_are_one_by_one_and_goes_out_if_all_of_them_do(case in any_case()) {
        let packet = case.packet();
        let total = case.total(&packet);
        let (mut at_once, of_whole) = case.inserter(Arc::new(Strict), total.unwrap_or(100_000));
        let (mut one_by_one, of_each) = case.inserter(Arc::new(Strict), total.unwrap_or(100_000));
        let untouched = at_once.clone();
        let mut whole_mark = None;
        let sent: Option<Vec<Vec<u8>>> = at_once.process_whole(&packet, case.largest, NOW).map(|segments| {
            whole_mark = segments.mark;
            (0..segments.packets.len()).map(|at| segments.packets.get(at).unwrap().to_vec()).collect()
        });
        let Some(whole) = Whole::read(&IpPacket::parse(&packet).unwrap(), case.largest) else {
            prop_assert!(sent.is_none());
            prop_assert_eq!(at_once, untouched);
            return Ok(());
        };
        let (mut segment, mut expected, mut marks) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..whole.count() {
            prop_assert!(whole.write(at, &mut segment));
            if let Verdict::Replace { payload, mark } = one_by_one.process_sent(PacketId(at as u64), None, &segment, NOW) {
                expected.push(payload.to_vec());
                marks.push(mark);
            }
        }
        let all_go_out = expected.len() == whole.count() && whole.count() <= 128;
        prop_assert_eq!(sent.is_some(), all_go_out, "{} segments", whole.count());
        let Some(sent) = sent else {
            prop_assert_eq!(at_once, untouched, "nothing has changed");
            prop_assert_eq!(of_whole.accepted().packets, 0);
            return Ok(());
        };
        prop_assert_eq!(sent, expected);
        let mark = Some(if case.diverted { 0x180 } else { 0x80 });
        prop_assert_eq!(marks, vec![mark; whole.count()]);
        prop_assert_eq!(whole_mark, mark);
        prop_assert_eq!(&at_once, &one_by_one, "what is noted, numbered and counted, and the events");
        prop_assert_eq!(events(&mut at_once), events(&mut one_by_one));
        prop_assert_eq!(counted(&of_whole), counted(&of_each));
    }
}

/// A stack's usual super-packet.
fn usual(is_ipv6: bool) -> Case {
    Case {
        is_ipv6,
        options: 0,
        may_be_fragmented: false,
        identification: 0xfff0,
        timestamps: true,
        flags: 0x08,
        sequence: 0xffff_fff0,
        data: 60_000,
        largest: 1400,
        algorithm: MacAlgorithm::HmacSha256_128,
        identifications: true,
        highest: 0,
        left: 2.0,
        counted: 0.0,
        diverted: false,
    }
}

#[test]
fn who_comes_near_the_end_of_volume_and_numbers_at_once_is_told_of_both() {
    for is_ipv6 in [false, true] {
        let case = Case { highest: HALF - 10, left: 1.1, ..usual(is_ipv6) };
        let packet = case.packet();
        let (mut inserter, counters) = case.inserter(Arc::new(Strict), case.total(&packet).unwrap());
        assert_eq!(inserter.process_whole(&packet, case.largest, NOW).unwrap().packets.len(), 43);
        assert_eq!(events(&mut inserter).len(), 2);
        assert_eq!(counters.accepted().packets, 43);
    }
}

#[test]
fn who_replaces_the_seal_replaces_it_in_super_packets_too() {
    #[derive(Debug)]
    struct Refusing;
    impl Checks for Refusing {
        fn seal(&self, _: &IpPacket<'_>, _: u32, _: Number, _: &IcvKey, _: &mut Vec<u8>) -> Result<(), InsertError> {
            Err(InsertError::NotSigned)
        }
    }
    let case = usual(false);
    let packet = case.packet();
    let (mut inserter, counters) = case.inserter(Arc::new(Refusing), case.total(&packet).unwrap());
    assert!(inserter.process_whole(&packet, case.largest, NOW).unwrap().packets.is_empty());
    assert_eq!((counters.dropped(DropReason::NotSigned).packets, counters.accepted().packets), (43, 0));
}
