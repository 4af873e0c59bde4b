//! Many packets at once: their ICVs are computed side by side before the first of them is judged.
//!
//! Whether an ICV is right depends on the packet and the key alone, not on what was counted or seen before. So only this is done ahead,
//! for packets that would come so far as things stand; then each is judged in its turn as it would be by itself, against a table that
//! those before it have changed: two packets of one number, or two that go past what is left of the volume together, have the verdicts
//! that they have one after the other. At worst a MAC was computed that nobody asks for.
//!
//! Their permissions are looked up ahead, too, and all fetched from memory at the same time. That is a hint and no more: whoever uses it looks
//! whether what lies there is the permission that the packet names.

use std::sync::Arc;

use smoltcp::time::Instant;

use super::{Verifier, check_reach, may_claim};
use crate::ah::{BATCH, InsertError, Number, Question};
use crate::algorithm::IcvKey;
use crate::checks::Checks;
use crate::flow::Flow;
use crate::packet::{IpPacket, Malformed};
use crate::processor::{Arrival, PacketProcessor, Verdict};
use crate::replay::{Numbering, Replay, Window};
use crate::table::inbound::{Key, Place};

/// With fewer packets there is nothing to be gained.
const WORTHWHILE: usize = 4;

/// A packet, or why it is none.
type Parsed<'a> = Result<IpPacket<'a>, Malformed>;

impl Verifier {
    /// Judges at most [`BATCH`] packets.
    pub(super) fn decide_batch(&mut self, packets: &[Arrival<'_>], now: Instant, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        if packets.len() < WORTHWHILE {
            for (at, arrival) in packets.iter().enumerate() {
                give(at, self.process(arrival.id, arrival.bytes, now));
            }
            return;
        }
        let parsed: heapless::Vec<Parsed<'_>, BATCH> = packets.iter().take(BATCH).map(|arrival| IpPacket::parse(arrival.bytes)).collect();
        let (mut places, mut answers) = ([None; BATCH], [None; BATCH]);
        let keys: heapless::Vec<Option<Key>, BATCH> = parsed.iter().map(|packet| packet.as_ref().ok().and_then(claimed)).collect();
        self.table.locate(&keys, &mut places);
        self.table.fetch(&places);
        self.foresee(&parsed, &places, now, &mut answers);
        let checks = Arc::clone(&self.checks.0);
        for (at, ((packet, arrival), (answer, place))) in parsed.iter().zip(packets).zip(answers.into_iter().zip(places)).enumerate() {
            let foreseen = Foreseen { checks: &*checks, answer };
            give(at, self.decide(arrival.bytes, packet.as_ref().map_err(|malformed| (*malformed).into()), place, &foreseen, now));
        }
    }

    /// Answers what can be answered ahead.
    fn foresee(&self, packets: &[Parsed<'_>], places: &[Option<Place>; BATCH], now: Instant, answers: &mut [Option<bool>; BATCH]) {
        let packets = packets.iter().zip(places);
        let questions: heapless::Vec<Option<Question<'_>>, BATCH> =
            packets.map(|(packet, place)| packet.as_ref().ok().and_then(|packet| self.question(packet, *place, now))).collect();
        self.checks.icvs_match(&questions, answers);
    }

    /// Whether the packet's MAC would be looked at if its turn were now.
    fn question<'a>(&'a self, packet: &'a IpPacket<'_>, place: Option<Place>, now: Instant) -> Option<Question<'a>> {
        let (flow, ah) = (packet.flow()?, packet.ah()?);
        let entry = self.table.get_at(place, (flow.destination, ah.spi()))?;
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

/// Destination and SPI of a packet with AH.
fn claimed(packet: &IpPacket<'_>) -> Option<Key> {
    Some((packet.final_destination(), packet.ah()?.spi()))
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
