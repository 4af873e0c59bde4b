//! Many packets at once: their ICVs are computed side by side before the first of them is judged.
//!
//! Whether an ICV is right depends on the packet and the key alone, not on what was counted or seen before. So only this is done ahead,
//! for packets that would come so far as things stand; then each is judged in its turn as it would be by itself, against a table that
//! those before it have changed: two packets of one number, or two that go past what is left of the volume together, have the verdicts
//! that they have one after the other. At worst a MAC was computed that nobody asks for.

use std::array::from_fn;
use std::sync::Arc;

use smoltcp::time::Instant;

use super::{Verifier, check_reach, may_claim};
use crate::ah::{BATCH, InsertError, Number, Question};
use crate::algorithm::IcvKey;
use crate::checks::Checks;
use crate::flow::Flow;
use crate::packet::IpPacket;
use crate::processor::{Arrival, PacketProcessor, Verdict};
use crate::reason::DropReason;
use crate::replay::{Numbering, Replay, Window};

/// With fewer packets there is nothing to be gained.
const WORTHWHILE: usize = 4;

/// A packet, or why it is none; `None` behind the last.
type Parsed<'a> = Option<Result<IpPacket<'a>, DropReason>>;

impl Verifier {
    /// Judges at most [`BATCH`] packets.
    pub(super) fn decide_batch(&mut self, packets: &[Arrival<'_>], now: Instant, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        if packets.len() < WORTHWHILE {
            for (at, arrival) in packets.iter().enumerate() {
                give(at, self.process(arrival.id, arrival.bytes, now));
            }
            return;
        }
        let mut parsed: [Parsed<'_>; BATCH] = [const { None }; BATCH];
        for (place, arrival) in parsed.iter_mut().zip(packets) {
            *place = Some(IpPacket::parse(arrival.bytes).map_err(DropReason::from));
        }
        let mut answers = [None; BATCH];
        self.foresee(&parsed, now, &mut answers);
        let checks = Arc::clone(&self.checks.0);
        for (at, ((packet, arrival), answer)) in parsed.into_iter().flatten().zip(packets).zip(answers).enumerate() {
            let foreseen = Foreseen { checks: &*checks, answer };
            give(at, self.decide(arrival.bytes, packet, &foreseen, now));
        }
    }

    /// Answers what can be answered ahead.
    fn foresee(&self, packets: &[Parsed<'_>; BATCH], now: Instant, answers: &mut [Option<bool>; BATCH]) {
        let questions: [Option<Question<'_>>; BATCH] = from_fn(|at| match packets.get(at) {
            Some(Some(Ok(packet))) => self.question(packet, now),
            _ => None,
        });
        self.checks.icvs_match(&questions, answers);
    }

    /// Whether the packet's MAC would be looked at if its turn were now.
    fn question<'a>(&'a self, packet: &'a IpPacket<'_>, now: Instant) -> Option<Question<'a>> {
        let (flow, ah) = (packet.flow()?, packet.ah()?);
        let entry = self.table.get((flow.destination, ah.spi()))?;
        let (association, checks) = (&entry.association, &*self.checks.0);
        // Signatures have a budget, which is spent in turn.
        let is_mac = matches!(association.key(), IcvKey::Mac(_)) && association.window().numbering() == Numbering::Short;
        if !is_mac || may_claim(entry, &flow, checks, now).is_err() {
            return None;
        }
        let number = association.precheck(packet, checks).ok()?;
        check_reach(entry, packet, number, checks).ok()?;
        Some(Question { packet, key: association.key(), high: None })
    }
}

/// The checks for one packet, of which the answer to one is known.
#[derive(Debug)]
struct Foreseen<'c> {
    checks: &'c dyn Checks,
    answer: Option<bool>,
}

impl Checks for Foreseen<'_> {
    fn is_of_flow(&self, granted: &Flow, flow: &Flow) -> bool {
        self.checks.is_of_flow(granted, flow)
    }

    fn icv_matches(&self, packet: &IpPacket<'_>, key: &IcvKey, high: Option<u32>) -> bool {
        // Only short numbers were asked for.
        let foreseen = if high.is_none() { self.answer } else { None };
        foreseen.unwrap_or_else(|| self.checks.icv_matches(packet, key, high))
    }

    fn seal(&self, packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey, out: &mut Vec<u8>) -> Result<(), InsertError> {
        self.checks.seal(packet, spi, number, key, out)
    }

    fn window_allows(&self, window: &Window, number: u64) -> Result<(), Replay> {
        self.checks.window_allows(window, number)
    }

    fn is_within_reach(&self, window: &Window, number: u64, left: u64, shortest: u64) -> bool {
        self.checks.is_within_reach(window, number, left, shortest)
    }

    fn within_budget(&self, counted: u64, length: u64, allowed: u64) -> bool {
        self.checks.within_budget(counted, length, allowed)
    }

    fn is_live(&self, expires_at: Instant, now: Instant) -> bool {
        self.checks.is_live(expires_at, now)
    }
}
