//! The detection algorithm: was more counted than sent, or less (draft-04 §8, requirements appendix E)?
//!
//! It holds what a sender's signed Query says against what the receiver counted when the Query came. The tests E1 to E4 follow
//! from causality alone and never accuse an honest sender on an honest path; T1 to T4 have tolerances. Nothing here knows a
//! clock, a session or a packet.

use core::fmt;
use core::time::Duration;

use crate::wire::Volume;

/// When a difference counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thresholds {
    /// T1: what may have arrived beyond the Query's number.
    pub in_flight: Tolerance,
    /// T2 and T3: what may be missing, or come too late.
    pub missing: Tolerance,
    /// How much longer than data a Query may travel. What came within that time before it may have been sent after it, and is no
    /// evidence: X-40 knows a volume only, and would suspect whoever sends a burst while a Query is under way.
    pub delay: Duration,
    /// T4: how many packets may be missing, however few bytes they are, where nothing has arrived for two periods. At a loss of a fifth
    /// one run in two millions is longer than 8.
    pub in_a_row: u32,
    /// How long missing packets may still arrive before they count as missing, at least.
    pub grace: Duration,
}

impl Default for Thresholds {
    /// T1 max(256 KiB, 25 %), half a second; T2 max(64 KiB, 5 %); T4 8 packets; grace 1 s.
    fn default() -> Self {
        Self {
            in_flight: Tolerance { floor: Volume(256 * 1024), percent: 25 },
            missing: Tolerance { floor: Volume(64 * 1024), percent: 5 },
            delay: Duration::from_millis(500),
            in_a_row: 8,
            grace: Duration::from_secs(1),
        }
    }
}

/// A share of what was sent since the last comparison, and at least a fixed volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tolerance {
    /// The fixed volume.
    pub floor: Volume,
    /// The share, in percent.
    pub percent: u8,
}

impl Tolerance {
    /// The volume tolerated when `increment` has been sent.
    pub fn of(self, increment: u64) -> u64 {
        // In 128 bits, since neither factor is ours.
        let share = u128::from(increment) * u128::from(self.percent) / 100;
        self.floor.0.max(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// What a Query says about an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// SV: bytes sent in this epoch.
    pub sent: Volume,
    /// What the former comparison in this epoch found; zero before the first.
    pub before: Before,
    /// Time since the former comparison, or since the epoch began.
    pub elapsed: Duration,
    /// N, the last number in SV; `None` if the sender knows no Vol-Context.
    pub highest: Option<u32>,
    /// What had been counted when the Permission left that the sender names; `None` if it is not known, or of another epoch.
    pub acknowledged: Option<Acknowledged>,
    /// Whether nothing has arrived for two periods (T4).
    pub unheard: bool,
    /// The last number that went by another path than the present one, of whose packets it says nothing; 0 if none did.
    pub path_from: u32,
}

/// What is carried from one comparison to the next. Volumes are totals of the epoch, but what is tolerated is a share of one
/// period: only what has come to be missing since then counts, or any steady loss would in the end pass every threshold (TMP-08).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Before {
    /// SV.
    pub sent: Volume,
    /// Bytes missing in all.
    pub deficit: u64,
    /// Bytes that came too late, in all.
    pub late: u64,
}

/// The counter when a Permission was handed to GIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Acknowledged {
    /// CV.
    pub counted: Volume,
    /// H.
    pub highest: u32,
}

/// What the packet side counted, read when the Query had been verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Count {
    /// CV, in bytes.
    pub counted: u64,
    /// H, the highest number verified.
    pub highest: u32,
    /// How much of CV lies up to N; `None` if the packet side no longer knows.
    pub covered: Option<Covered>,
    /// Bytes under numbers beyond N that had come longer before the Query than it may have travelled (T1).
    pub ahead: u64,
    /// Whether two right ICVs were seen under one number (E4).
    pub second_holder: bool,
    /// Bytes of packets that came too late for the window, authenticated and no copies, estimated from a sample (T3).
    pub late: u64,
}

/// Bytes counted up to a number, between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Covered {
    /// Certainly up to the number.
    pub at_least: u64,
    /// Perhaps.
    pub at_most: u64,
}

/// One of the tests of appendix E.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// More was counted up to N than was sent.
    E1,
    /// A number was counted that had not been used when the sender learned of the Permission.
    E2,
    /// More had been counted when the Permission left than was sent by when the sender had it.
    E3,
    /// Two packets under one number, both authenticated.
    E4,
    /// More arrived beyond N than can be in flight.
    T1,
    /// Less was counted up to N than was sent.
    T2,
    /// Too much came too late for the window.
    T3,
    /// Nothing has arrived for two periods, and packets were sent.
    T4,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finding {
    /// Nothing beyond the tolerances.
    Agreement,
    /// Packets arrived that the sender did not send.
    Injection {
        /// Which test says so; the first in the order of [`Test`].
        test: Test,
        /// How much is too much: bytes, for E2 numbers, for E4 0.
        excess: u64,
        /// What is tolerated; 0 for E-tests.
        tolerated: u64,
    },
    /// More arrived than can be in flight (T1). A Query that was held back on its way looks the same, so that nothing follows by
    /// itself: the next Query, which names a later Permission, tells by E1 to E3.
    Suspicion {
        /// How many bytes.
        excess: u64,
        /// What is tolerated.
        tolerated: u64,
    },
    /// Packets have not arrived (T2), up to now.
    Missing {
        /// How many bytes more than at the former comparison.
        deficit: u64,
        /// What is tolerated.
        tolerated: u64,
    },
    /// Nothing has arrived for two periods, and each packet that was sent meanwhile is missing (T4), up to now. A connection whose
    /// packets are dropped sends less and less, never so much in a period that T2 would tell.
    Silence {
        /// How many packets.
        packets: u32,
        /// How many are tolerated.
        tolerated: u32,
    },
}

impl Finding {
    /// Whether packets are missing.
    pub const fn is_deficit(self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Silence { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agreement => f.write_str("agree"),
            Self::Injection { test: Test::E4, .. } => f.write_str("E4: two holders of the key"),
            Self::Injection { test, excess, tolerated: 0 } => write!(f, "{test}: {excess} too many"),
            Self::Injection { test, excess, tolerated } => write!(f, "{test}: {excess} bytes, {tolerated} are tolerated"),
            Self::Suspicion { excess, tolerated } => {
                write!(f, "T1: {excess} bytes ahead, {tolerated} are tolerated; the next Query will tell")
            }
            Self::Missing { deficit, tolerated } => write!(f, "T2: {deficit} bytes missing, {tolerated} are tolerated"),
            Self::Silence { packets, tolerated } => {
                write!(f, "T4: nothing has arrived for two periods, the last {packets} packets are missing, {tolerated} are tolerated")
            }
        }
    }
}

impl Thresholds {
    /// Compares. Injection goes before suspicion, and that before missing packets.
    pub fn compare(&self, claim: &Claim, count: &Count) -> Finding {
        self.injection(claim, count)
            .or_else(|| self.suspicion(claim, count))
            .or_else(|| self.missing(claim, count))
            .or_else(|| self.silence(claim, count))
            .unwrap_or(Finding::Agreement)
    }

    fn injection(&self, claim: &Claim, count: &Count) -> Option<Finding> {
        let sent = claim.sent.0;
        let proof = |test, excess: u64| (excess > 0).then_some(Finding::Injection { test, excess, tolerated: 0 });
        let suspicion = |test, excess: u64, tolerated| (excess > tolerated).then_some(Finding::Injection { test, excess, tolerated });
        let covered = covered(claim, count);
        let e1 = || proof(Test::E1, claim.highest.and(covered)?.at_least.saturating_sub(sent));
        let e2 = || proof(Test::E2, claim.acknowledged?.highest.saturating_sub(claim.highest?).into());
        let e3 = || proof(Test::E3, claim.acknowledged?.counted.0.saturating_sub(sent));
        let e4 = || count.second_holder.then_some(Finding::Injection { test: Test::E4, excess: 0, tolerated: 0 });
        let t3 = || suspicion(Test::T3, count.late.saturating_sub(claim.before.late), self.missing.of(increment(claim)));
        e1().or_else(e2).or_else(e3).or_else(e4).or_else(t3)
    }

    /// T1.
    fn suspicion(&self, claim: &Claim, count: &Count) -> Option<Finding> {
        let tolerated = self.in_flight.of(increment(claim));
        let (excess, tolerated) = match claim.highest {
            Some(_) => (count.ahead, tolerated),
            None => (count.counted.saturating_sub(claim.sent.0), tolerated.max(self.delayed(claim))),
        };
        (excess > tolerated).then_some(Finding::Suspicion { excess, tolerated })
    }

    /// What the flow sends while its Query is late, at the rate of the last period: all that can be told without numbers.
    fn delayed(&self, claim: &Claim) -> u64 {
        let elapsed = claim.elapsed.as_micros().max(1);
        let bytes = u128::from(increment(claim)).saturating_mul(self.delay.as_micros()) / elapsed;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn missing(&self, claim: &Claim, count: &Count) -> Option<Finding> {
        let deficit = deficit(claim, count)?.saturating_sub(claim.before.deficit);
        let tolerated = self.missing.of(increment(claim));
        (deficit > tolerated).then_some(Finding::Missing { deficit, tolerated })
    }

    /// T4. A flow that has sent nothing since the last time only rests.
    fn silence(&self, claim: &Claim, count: &Count) -> Option<Finding> {
        let packets = claim.highest?.saturating_sub(count.highest.max(claim.path_from));
        let found = claim.unheard && increment(claim) > 0 && packets > self.in_a_row;
        found.then_some(Finding::Silence { packets, tolerated: self.in_a_row })
    }
}

/// How much of what was counted the claim speaks of. Without Vol-Context it is taken to speak of all.
fn covered(claim: &Claim, count: &Count) -> Option<Covered> {
    match claim.highest {
        Some(_) => count.covered,
        None => Some(Covered { at_least: count.counted, at_most: count.counted }),
    }
}

fn increment(claim: &Claim) -> u64 {
    claim.sent.0.saturating_sub(claim.before.sent.0)
}

fn deficit(claim: &Claim, count: &Count) -> Option<u64> {
    Some(claim.sent.0.saturating_sub(covered(claim, count)?.at_most))
}

impl Before {
    /// What the comparison after this one starts from. A deficit that cannot be told stays as it was.
    pub fn next(claim: &Claim, count: &Count) -> Self {
        Self { sent: claim.sent, deficit: deficit(claim, count).unwrap_or(claim.before.deficit), late: count.late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const PERIOD: Duration = Duration::from_secs(60);

    fn claim(sent: u64, highest: Option<u32>) -> Claim {
        Claim { sent: Volume(sent), before: Before::default(), elapsed: PERIOD, highest, acknowledged: None, unheard: false, path_from: 0 }
    }

    fn count(counted: u64, at_least: u64, at_most: u64) -> Count {
        Count { counted, highest: 1000, covered: Some(Covered { at_least, at_most }), ..Count::default() }
    }

    fn test_of(finding: Finding) -> Option<Test> {
        match finding {
            Finding::Injection { test, .. } => Some(test),
            _ => None,
        }
    }

    #[test]
    fn equal_volumes_agree_and_the_bucket_of_the_last_number_is_read_in_the_senders_favour() {
        let thresholds = Thresholds::default();
        assert_eq!(thresholds.compare(&claim(MIB, Some(1000)), &count(MIB, MIB, MIB)), Finding::Agreement);
        // Up to N there are 1 MiB - 300,000 to 1 MiB + 300,000 bytes: neither too many nor too few.
        assert_eq!(thresholds.compare(&claim(MIB, Some(900)), &count(MIB + 300_000, MIB - 300_000, MIB + 300_000)), Finding::Agreement);
    }

    #[test]
    fn e1_one_byte_more_up_to_the_last_number_than_was_sent_is_injection() {
        // P-179.
        let finding = Thresholds::default().compare(&claim(MIB, Some(1000)), &count(MIB + 1, MIB + 1, MIB + 1));
        assert_eq!(finding, Finding::Injection { test: Test::E1, excess: 1, tolerated: 0 });
    }

    #[test]
    fn e2_a_number_counted_before_the_sender_had_used_it_is_injection() {
        // P-180.
        let acknowledged = Some(Acknowledged { counted: Volume(10), highest: 1001 });
        let claim = Claim { acknowledged, ..claim(MIB, Some(1000)) };
        assert_eq!(test_of(Thresholds::default().compare(&claim, &count(MIB, MIB, MIB))), Some(Test::E2));
    }

    #[test]
    fn e3_more_counted_before_the_permission_left_than_was_sent_after_it_came_is_injection() {
        // P-181.
        let acknowledged = Some(Acknowledged { counted: Volume(MIB + 1), highest: 7 });
        let claim = Claim { acknowledged, ..claim(MIB, None) };
        assert_eq!(test_of(Thresholds::default().compare(&claim, &count(MIB, 0, 0))), Some(Test::E3));
    }

    #[test]
    fn e4_two_holders_of_the_key_are_injection_though_the_volumes_agree() {
        // P-182.
        let count = Count { second_holder: true, ..count(MIB, MIB, MIB) };
        assert_eq!(test_of(Thresholds::default().compare(&claim(MIB, Some(1000)), &count)), Some(Test::E4));
    }

    #[test]
    fn t1_more_than_can_be_in_flight_that_came_long_before_the_query_is_suspected() {
        // P-184.
        let thresholds = Thresholds::default();
        let ahead = |sent: u64, ahead: u64| Count { ahead, ..count(sent + ahead, sent, sent) };
        let allowed = 256 * 1024;
        assert_eq!(thresholds.compare(&claim(MIB, Some(500)), &ahead(MIB, allowed)), Finding::Agreement);
        let finding = thresholds.compare(&claim(MIB, Some(500)), &ahead(MIB, allowed + 1));
        assert_eq!(finding, Finding::Suspicion { excess: allowed + 1, tolerated: allowed });
        // A quarter of what was sent since the last time, if that is more.
        assert_eq!(thresholds.compare(&claim(4 * MIB, Some(500)), &ahead(4 * MIB, MIB)), Finding::Agreement);
    }

    #[test]
    fn t1_a_burst_that_overtakes_a_query_is_no_injection() {
        // 25 MB came after the Query had left and before it arrived.
        assert_eq!(Thresholds::default().compare(&claim(MIB, Some(500)), &count(25 * MIB, MIB, MIB)), Finding::Agreement);
    }

    #[test]
    fn t2_missing_bytes_count_beyond_a_twentieth_of_what_was_sent_since_the_last_time() {
        // P-172, P-173, P-174.
        let thresholds = Thresholds::default();
        let sent = 20 * MIB;
        assert_eq!(thresholds.compare(&claim(sent, Some(1000)), &count(19 * MIB, 19 * MIB, 19 * MIB)), Finding::Agreement);
        let finding = thresholds.compare(&claim(sent, Some(1000)), &count(19 * MIB - 1, 19 * MIB - 1, 19 * MIB - 1));
        assert_eq!(finding, Finding::Missing { deficit: MIB + 1, tolerated: MIB });
        let later = Claim { before: Before { sent: Volume(19 * MIB), ..Before::default() }, ..claim(sent, Some(1000)) };
        assert_eq!(thresholds.compare(&later, &count(sent - 60_000, sent - 60_000, sent - 60_000)), Finding::Agreement);
        assert!(matches!(
            thresholds.compare(&later, &count(sent - 70_000, sent - 70_000, sent - 70_000)),
            Finding::Missing { deficit: 70_000, tolerated: 65_536 }
        ));
    }

    #[test]
    fn steady_loss_below_the_threshold_never_counts_however_long_it_lasts() {
        // TMP-08: one packet in a hundred is lost, for a thousand periods.
        let thresholds = Thresholds::default();
        let mut before = Before::default();
        for period in 1..=1000 {
            let (sent, counted) = (period * 10 * MIB, period * 99 * MIB / 10);
            let claim = Claim { before, ..claim(sent, Some(1000)) };
            let count = count(counted, counted, counted);
            assert_eq!(thresholds.compare(&claim, &count), Finding::Agreement, "period {period}");
            before = Before::next(&claim, &count);
        }
        // And above it counts in each period.
        for period in 1001..=1003 {
            let (sent, counted) = (period * 10 * MIB, 9900 * MIB + (period - 1000) * 9 * MIB);
            let claim = Claim { before, ..claim(sent, Some(1000)) };
            let count = count(counted, counted, counted);
            assert!(matches!(thresholds.compare(&claim, &count), Finding::Missing { .. }), "period {period}");
            before = Before::next(&claim, &count);
        }
    }

    #[test]
    fn t3_late_packets_beyond_the_threshold_are_suspected() {
        let late = |late| Count { late, ..count(MIB, MIB, MIB) };
        assert_eq!(Thresholds::default().compare(&claim(MIB, Some(1000)), &late(65_536)), Finding::Agreement);
        assert_eq!(test_of(Thresholds::default().compare(&claim(MIB, Some(1000)), &late(65_537))), Some(Test::T3));
    }

    #[test]
    fn t4_a_flow_of_which_nothing_arrives_for_two_periods_is_missing_however_little_it_sends() {
        // a stalled connection, 20 small packets in all.
        let thresholds = Thresholds::default();
        let unheard = |highest, sent| Claim { unheard: true, ..claim(sent, Some(highest)) };
        let count = count(MIB, MIB, MIB);
        let finding = thresholds.compare(&unheard(1020, MIB + 20_000), &count);
        assert_eq!(finding, Finding::Silence { packets: 20, tolerated: 8 });
        assert_eq!(thresholds.compare(&unheard(1008, MIB + 8000), &count), Finding::Agreement, "loss alone does that");
        assert_eq!(thresholds.compare(&claim(MIB + 20_000, Some(1020)), &count), Finding::Agreement, "some arrived a period ago");
        let moved = Claim { path_from: 1015, ..unheard(1020, MIB + 20_000) };
        assert_eq!(thresholds.compare(&moved, &count), Finding::Agreement, "most were lost on the path of before");
        let before = Before { sent: Volume(MIB + 20_000), deficit: 20_000, late: 0 };
        let resting = Claim { before, ..unheard(1020, MIB + 20_000) };
        assert_eq!(thresholds.compare(&resting, &count), Finding::Agreement, "it sends nothing any more");
    }

    #[test]
    fn a_number_that_is_no_longer_known_gives_no_verdict_on_volumes() {
        let count = Count { counted: 50 * MIB, highest: 1000, ..Count::default() };
        assert_eq!(Thresholds::default().compare(&claim(MIB, Some(1)), &count), Finding::Agreement);
    }

    #[test]
    fn a_sender_without_vol_context_is_held_against_the_totals_with_tolerance() {
        let thresholds = Thresholds::default();
        let totals = |counted| Count { counted, ..Count::default() };
        assert_eq!(thresholds.compare(&claim(MIB, None), &totals(MIB + 256 * 1024)), Finding::Agreement);
        assert!(matches!(thresholds.compare(&claim(MIB, None), &totals(MIB + 256 * 1024 + 1)), Finding::Suspicion { .. }));
        assert_eq!(thresholds.compare(&claim(MIB, None), &totals(MIB - 65_536)), Finding::Agreement);
        assert!(matches!(thresholds.compare(&claim(MIB, None), &totals(MIB - 65_537)), Finding::Missing { .. }));
    }

    #[test]
    fn no_volumes_overflow() {
        let claim = Claim {
            sent: Volume(u64::MAX),
            before: Before::default(),
            elapsed: Duration::ZERO,
            highest: Some(u32::MAX),
            acknowledged: None,
            unheard: true,
            path_from: 0,
        };
        let count = Count { counted: u64::MAX, late: u64::MAX, ..Count::default() };
        let _ = Thresholds::default().compare(&claim, &count);
        assert_eq!(Tolerance { floor: Volume(1), percent: 255 }.of(u64::MAX), u64::MAX);
    }
}
