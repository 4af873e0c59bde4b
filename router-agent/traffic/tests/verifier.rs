//! What a router or receiver does with data packets: rows FN-40…43 and FR-20…27 of the packet machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::{Checks, Strict};
use traffic::counters::{Count, Counters};
use traffic::event::Event;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::replay::{Replay, Window};
use traffic::update::{Applied, Grant, Refusal, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const SPI: u32 = 0xabcd;
const NOW: Instant = Instant::from_micros_const(1_000_000);
const END: Instant = Instant::from_micros_const(100_000_000);

fn secret() -> IcvKey {
    key(MacAlgorithm::HmacSha256_128, 7)
}

fn grant(flow: Flow, spi: u32, allowed: u64) -> Grant {
    Grant { flow, spi, key: secret(), allowed, counted: 0, highest: 0, expires_at: END }
}

struct Fixture {
    verifier: Verifier,
    counters: Arc<Counters>,
}

impl Fixture {
    fn new(role: Role) -> Self {
        Self::with_checks(role, Arc::new(Strict))
    }

    fn with_checks(role: Role, checks: Arc<dyn Checks>) -> Self {
        let counters = Arc::new(Counters::default());
        let verifier = Verifier::new(VerifierConfig::new(role), checks, Arc::clone(&counters)).unwrap();
        Self { verifier, counters }
    }

    /// With a permission of `allowed` bytes for the IPv4 flow.
    fn permitted(role: Role, allowed: u64) -> Self {
        let mut fixture = Self::new(role);
        fixture.install(grant(flow_v4(), SPI, allowed)).unwrap();
        fixture
    }

    fn install(&mut self, grant: Grant) -> Result<Applied, Refusal> {
        self.apply(Update::Install { token: 1, grant })
    }

    fn apply(&mut self, update: Update) -> Result<Applied, Refusal> {
        self.verifier.apply(update, NOW).map_err(|refused| refused.why)
    }

    fn counted(&mut self) -> (u64, u32) {
        let applied = self.apply(Update::Snapshot { token: 1, flow: flow_v4(), spi: SPI }).unwrap();
        (applied.counted, applied.highest)
    }

    /// `Ok` with what goes on, or the reason of the drop.
    fn process_at(&mut self, bytes: &[u8], now: Instant) -> Result<Vec<u8>, DropReason> {
        match self.verifier.process(PacketId(1), bytes, now) {
            Verdict::Accept => Ok(bytes.to_vec()),
            Verdict::Replace { payload, mark: None } => Ok(payload.to_vec()),
            Verdict::Drop(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn process(&mut self, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
        self.process_at(bytes, NOW)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.verifier.poll_event()).collect()
    }
}

fn sealed_with(bytes: &[u8], spi: u32, number: u32, key: &IcvKey) -> Vec<u8> {
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(bytes).unwrap(), spi, Number { low: number, high: None }, key, &mut out).unwrap();
    out
}

fn sealed(bytes: &[u8], number: u32) -> Vec<u8> {
    sealed_with(bytes, SPI, number, &secret())
}

#[test]
fn a_verified_packet_within_the_volume_goes_on_unchanged_at_a_router_fn_41_fn_42() {
    // P-059, P-141, P-148, P-150; FN-41, FN-42.
    let mut fixture = Fixture::permitted(Role::Router, 10_000);
    let packet = sealed(&udp_v4(100), 1);
    assert_eq!(fixture.process(&packet), Ok(packet.clone()));
    // The whole IP packet, AH included.
    assert_eq!(fixture.counted(), (20 + 28 + 8 + 100, 1));
    assert_eq!(fixture.counters.accepted(), Count { packets: 1, bytes: 156 });
}

#[test]
fn a_receiver_hands_on_what_the_application_sent_fr_22_fr_23() {
    // P-128; FR-22, FR-23.
    let mut fixture = Fixture::permitted(Role::Receiver, 10_000);
    fixture.install(grant(flow_v6(), SPI, 10_000)).unwrap();
    for original in [udp_v4(100), udp_v6(100)] {
        assert_eq!(fixture.process(&sealed(&original, 1)), Ok(original));
    }
    assert_eq!(fixture.counted(), (156, 1));
}

#[test]
fn what_is_not_covered_is_dropped_for_its_own_reason_and_neither_counted_nor_noted_fn_40_fr_20() {
    // FN-04, FN-10, FR-04: without a permission.
    // P-127, P-140, P-147, P-153, P-154, P-186; FN-40, FR-20, INV-16.
    for role in [Role::Router, Role::Receiver] {
        let mut fixture = Fixture::permitted(role, 10_000);
        let good = udp_v4(100);
        let mut fragment = sealed(&good, 1);
        fragment[6] = 0x20;
        let routed = ipv4(&[131, 7, 4, 192, 168, 21, 4, 1], 17, &udp(4000, 9000, 1));
        let cases: [(&str, Vec<u8>, DropReason); 12] = [
            ("no packet", vec![1, 2, 3], DropReason::Malformed),
            ("another flow without AH", ipv4(&[], 17, &udp(1, 2, 3)), DropReason::NoPermission),
            ("the flow without AH", good.clone(), DropReason::MissingAh),
            ("made-up SPI", sealed_with(&good, 0x7777, 1, &secret()), DropReason::UnknownSpi),
            ("other ports", sealed(&ipv4(&[], 17, &udp(4000, 9001, 3)), 1), DropReason::FlowMismatch),
            ("other protocol", sealed(&ipv4(&[], 6, &udp(4000, 9000, 30)), 1), DropReason::FlowMismatch),
            ("other key", sealed_with(&good, SPI, 1, &key(MacAlgorithm::HmacSha256_128, 8)), DropReason::BadIcv),
            ("shorter ICV", sealed_with(&good, SPI, 1, &key(MacAlgorithm::HmacSha1_96, 7)), DropReason::Malformed),
            ("number zero", sealed(&good, 0), DropReason::Replayed),
            ("fragment", fragment, DropReason::FragmentNotReassembled),
            ("source route", sealed(&routed, 1), DropReason::SourceRoute),
            ("ports cut off", sealed(&ipv4(&[], 17, &[15, 160]), 1), DropReason::Malformed),
        ];
        for (name, bytes, reason) in cases {
            assert_eq!(fixture.process(&bytes), Err(reason), "{name}");
            assert_eq!(fixture.counted(), (0, 0), "{name}");
        }
        assert_eq!(fixture.counters.accepted().packets, 0);
        assert_eq!(fixture.counters.all_dropped().map(|(_, count)| count.packets).sum::<u64>(), 12);
        assert_eq!(fixture.events(), []);
        assert!(fixture.process(&sealed(&good, 1)).is_ok());
    }
}

#[test]
fn a_packet_seen_before_is_dropped_and_not_counted_again() {
    // P-157, P-186.
    let mut fixture = Fixture::permitted(Role::Router, 10_000);
    let packet = sealed(&udp_v4(100), 9);
    assert!(fixture.process(&packet).is_ok());
    assert_eq!(fixture.process(&packet), Err(DropReason::Replayed));
    assert_eq!(fixture.counted(), (156, 9));
    assert!(fixture.process(&sealed(&udp_v4(100), 3)).is_ok(), "late but new");
    assert_eq!(fixture.counted(), (312, 9));
}

#[test]
fn a_forged_number_far_ahead_does_not_move_the_window() {
    // P-158.
    let mut fixture = Fixture::permitted(Role::Router, 10_000);
    let forged = |number| sealed_with(&udp_v4(1), SPI, number, &key(MacAlgorithm::HmacSha256_128, 8));
    assert_eq!(fixture.process(&forged(u32::MAX)), Err(DropReason::TooFarAhead));
    assert_eq!(fixture.process(&forged(1200)), Err(DropReason::BadIcv));
    assert!(fixture.process(&sealed(&udp_v4(100), 1)).is_ok());
}

#[test]
fn counted_plus_length_may_reach_the_allowed_volume_and_no_more_fn_43() {
    // P-141, P-161, P-192; X-37, INV-02.
    let mut fixture = Fixture::permitted(Role::Router, 2 * 156);
    assert!(fixture.process(&sealed(&udp_v4(100), 1)).is_ok());
    assert_eq!(fixture.process(&sealed(&udp_v4(101), 2)), Err(DropReason::OverBudget));
    assert_eq!(fixture.counted(), (156, 1), "neither counted nor noted");
    assert!(fixture.process(&sealed(&udp_v4(100), 3)).is_ok());
    assert_eq!(fixture.process(&sealed(&udp_v4(0), 4)), Err(DropReason::OverBudget));
    assert_eq!(fixture.events(), [Event::OverBudget { flow: flow_v4(), spi: SPI }], "one report in a second");
    assert_eq!(fixture.process_at(&sealed(&udp_v4(0), 4), NOW + Duration::from_secs(1)), Err(DropReason::OverBudget));
    assert_eq!(fixture.events().len(), 1);
    // Raised: the packet that was dropped may come again.
    fixture.apply(Update::Update { token: 2, flow: flow_v4(), spi: SPI, allowed: 1000, expires_at: END }).unwrap();
    assert!(fixture.process(&sealed(&udp_v4(0), 4)).is_ok());
}

#[test]
fn nobody_without_the_key_can_make_a_flow_seem_over_its_volume() {
    let mut fixture = Fixture::permitted(Role::Receiver, 100);
    let forged = sealed_with(&udp_v4(500), SPI, 1, &key(MacAlgorithm::HmacSha256_128, 8));
    assert_eq!(fixture.process(&forged), Err(DropReason::BadIcv));
    assert_eq!(fixture.events(), []);
}

#[test]
fn a_receiver_reports_excess_unless_it_lowered_the_volume_itself_or_the_epoch_is_old_fr_24_fr_26_fr_27() {
    let excess = sealed(&udp_v4(500), 1);
    let update = |allowed| Update::Update { token: 2, flow: flow_v4(), spi: SPI, allowed, expires_at: END };
    let mut fixture = Fixture::permitted(Role::Receiver, 100);
    assert_eq!(fixture.process(&excess), Err(DropReason::OverBudget));
    assert_eq!(fixture.events().len(), 1, "FR-24");

    let mut fixture = Fixture::permitted(Role::Receiver, 1000);
    fixture.apply(update(100)).unwrap();
    fixture.apply(update(100)).unwrap();
    assert_eq!(fixture.process(&excess), Err(DropReason::OverBudget));
    assert_eq!(fixture.events().len(), 0, "FR-27");
    fixture.apply(update(200)).unwrap();
    assert_eq!(fixture.process(&excess), Err(DropReason::OverBudget));
    assert_eq!(fixture.events().len(), 0, "FR-27: it may have been sent while 1000 were allowed");
    fixture.apply(update(1000)).unwrap();
    assert_eq!(fixture.process(&sealed(&udp_v4(1200), 1)), Err(DropReason::OverBudget));
    assert_eq!(fixture.events().len(), 1, "FR-24 again");

    let mut fixture = Fixture::permitted(Role::Receiver, 100);
    fixture.apply(Update::Drain { token: 2, flow: flow_v4(), spi: SPI, until: END }).unwrap();
    assert_eq!(fixture.process(&excess), Err(DropReason::OverBudget));
    assert_eq!(fixture.events().len(), 0, "FR-26");
}

#[test]
fn a_second_key_holder_is_dropped_at_a_receiver_though_detection_comes_later_fr_21() {
    let mut fixture = Fixture::permitted(Role::Receiver, 10_000);
    assert!(fixture.process(&sealed(&udp_v4(100), 1)).is_ok());
    assert_eq!(fixture.process(&sealed(&udp_v4(101), 1)), Err(DropReason::Replayed));
    assert_eq!(fixture.counted(), (156, 1));
}

#[test]
fn a_permission_holds_until_its_end_and_not_at_it() {
    let mut fixture = Fixture::permitted(Role::Router, 10_000);
    assert!(fixture.process_at(&sealed(&udp_v4(1), 1), END - Duration::from_micros(1)).is_ok());
    assert_eq!(fixture.process_at(&sealed(&udp_v4(1), 2), END), Err(DropReason::Expired));
    // It lingers so that late packets are told from unknown ones, and is deleted without anybody's help.
    let gone = fixture.verifier.poll_timeout().unwrap();
    assert!(gone > END);
    fixture.verifier.handle_timeout(gone);
    assert!(fixture.verifier.table().is_empty());
    assert_eq!(fixture.verifier.poll_timeout(), None);
    assert_eq!(fixture.process_at(&sealed(&udp_v4(1), 3), gone), Err(DropReason::UnknownSpi));
}

#[test]
fn a_permission_may_end_at_the_end_of_time() {
    let mut fixture = Fixture::new(Role::Router);
    let never = Instant::from_micros_const(i64::MAX);
    fixture.install(Grant { expires_at: never, ..grant(flow_v4(), SPI, 10_000) }).unwrap();
    assert!(fixture.process(&sealed(&udp_v4(1), 1)).is_ok());
    assert_eq!(fixture.verifier.poll_timeout(), Some(never));
}

#[test]
fn updates_are_idempotent_and_tell_counter_and_highest_number() {
    let mut fixture = Fixture::permitted(Role::Router, 10_000);
    fixture.process(&sealed(&udp_v4(100), 5)).unwrap();
    let again = fixture.install(Grant { counted: 7777, ..grant(flow_v4(), SPI, 20_000) }).unwrap();
    assert_eq!(again, Applied::new(1, 156, 5), "counter and window stay");
    let remove = Update::Remove { token: 3, flow: flow_v4(), spi: SPI };
    assert_eq!(fixture.apply(remove.clone()), Ok(Applied::new(3, 156, 5)));
    assert_eq!(fixture.apply(remove), Ok(Applied::new(3, 0, 0)));
    assert_eq!(fixture.process(&sealed(&udp_v4(1), 6)), Err(DropReason::UnknownSpi));
    assert_eq!(fixture.process(&udp_v4(1)), Err(DropReason::NoPermission));
}

#[test]
fn a_router_that_joins_in_mid_flow_counts_from_the_senders_figure_x_44() {
    let mut fixture = Fixture::new(Role::Router);
    fixture.install(Grant { counted: 900, ..grant(flow_v4(), SPI, 1000) }).unwrap();
    assert!(fixture.process(&sealed(&udp_v4(0), 16)).is_ok());
    assert_eq!(fixture.counted(), (956, 16));
    assert_eq!(fixture.process(&sealed(&udp_v4(0), 17)), Err(DropReason::OverBudget));
}

#[test]
fn a_refused_install_says_why_and_changes_nothing() {
    let mut fixture = Fixture::permitted(Role::Router, 10_000);
    let other_flow = Flow { source_port: 1, ..flow_v4() };
    assert_eq!(fixture.install(grant(other_flow, SPI, 1)), Err(Refusal::SpiTaken), "FN-06");
    let other_key = Grant { key: key(MacAlgorithm::HmacSha256_128, 8), ..grant(flow_v4(), SPI, 1) };
    assert_eq!(fixture.install(other_key), Err(Refusal::KeyChanged), "X-117");
    assert_eq!(fixture.install(grant(flow_v4(), 255, 1)), Err(Refusal::ReservedSpi));
    let unknown = Update::Update { token: 1, flow: other_flow, spi: SPI, allowed: 1, expires_at: END };
    assert_eq!(fixture.apply(unknown), Err(Refusal::UnknownPermission));
    assert!(fixture.process(&sealed(&udp_v4(100), 1)).is_ok());
}

#[test]
fn a_full_table_refuses_and_nobody_makes_room_inv_12() {
    let counters = Arc::new(Counters::default());
    let config = VerifierConfig { capacity: 1, ..VerifierConfig::new(Role::Router) };
    let verifier = Verifier::new(config, Arc::new(Strict), Arc::clone(&counters)).unwrap();
    let mut fixture = Fixture { verifier, counters };
    fixture.install(grant(flow_v4(), SPI, 10_000)).unwrap();
    assert_eq!(fixture.install(grant(flow_v6(), SPI, 1)), Err(Refusal::TableFull));
    fixture.install(grant(flow_v4(), SPI, 20_000)).unwrap();
    assert!(fixture.process(&sealed(&udp_v4(100), 1)).is_ok());
}

#[test]
fn old_and_new_epoch_overlap_with_counters_of_their_own_x_75_inv_14() {
    let mut fixture = Fixture::permitted(Role::Router, 200);
    fixture.install(grant(flow_v4(), SPI + 1, 10_000)).unwrap();
    let until = NOW + Duration::from_secs(2);
    fixture.apply(Update::Drain { token: 1, flow: flow_v4(), spi: SPI, until }).unwrap();
    assert!(fixture.process(&sealed(&udp_v4(100), 1)).is_ok());
    assert!(fixture.process(&sealed_with(&udp_v4(100), SPI + 1, 1, &secret())).is_ok());
    assert_eq!(fixture.process(&sealed(&udp_v4(100), 2)), Err(DropReason::OverBudget), "the old volume still binds");
    assert_eq!(fixture.process_at(&sealed(&udp_v4(0), 3), until), Err(DropReason::Expired));
    assert!(fixture.process_at(&sealed_with(&udp_v4(100), SPI + 1, 2, &secret()), until).is_ok());
    // A third epoch ends the draining one; a fourth finds none to end.
    fixture.install(grant(flow_v4(), SPI + 2, 10_000)).unwrap();
    assert_eq!(fixture.process(&sealed(&udp_v4(0), 4)), Err(DropReason::UnknownSpi));
    assert_eq!(fixture.install(grant(flow_v4(), SPI + 3, 10_000)), Err(Refusal::TableFull), "INV-09");
}

#[test]
fn each_check_can_be_taken_out_alone_and_only_in_a_test() {
    #[derive(Debug)]
    struct Without(&'static str);
    impl Checks for Without {
        fn icv_matches(&self, packet: &IpPacket<'_>, key: &IcvKey, high: Option<u32>) -> bool {
            self.0 == "icv" || ah::icv_matches(packet, key, high)
        }
        fn window_allows(&self, window: &Window, number: u64) -> Result<(), Replay> {
            if self.0 == "window" { Ok(()) } else { window.check(number) }
        }
        fn within_budget(&self, counted: u64, length: u64, allowed: u64) -> bool {
            self.0 == "budget" || counted + length <= allowed
        }
        fn is_live(&self, expires_at: Instant, now: Instant) -> bool {
            self.0 == "expiry" || now < expires_at
        }
    }
    for taken_out in ["icv", "window", "budget", "expiry", "none"] {
        let mut fixture = Fixture::with_checks(Role::Router, Arc::new(Without(taken_out)));
        fixture.install(grant(flow_v4(), SPI, 10_000)).unwrap();
        let first = sealed(&udp_v4(100), 1);
        assert!(fixture.process(&first).is_ok());
        let forged = sealed_with(&udp_v4(1), SPI, 2, &key(MacAlgorithm::HmacSha256_128, 8));
        assert_eq!(fixture.process(&forged).is_ok(), taken_out == "icv", "{taken_out}");
        assert_eq!(fixture.process(&first).is_ok(), taken_out == "window", "{taken_out}");
        assert_eq!(fixture.process(&sealed(&udp_v4(20_000), 3)).is_ok(), taken_out == "budget", "{taken_out}");
        assert_eq!(fixture.process_at(&sealed(&udp_v4(1), 4), END).is_ok(), taken_out == "expiry", "{taken_out}");
    }
}

#[test]
fn a_window_size_that_cannot_be_is_refused_at_the_start() {
    let config = VerifierConfig { window: 16, ..VerifierConfig::new(Role::Router) };
    assert!(Verifier::new(config, Arc::new(Strict), Arc::default()).is_err());
}
