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

use heapless::Vec;
use smoltcp::time::Instant;

use super::{Known, Verifier, check_reach, may_claim};
use crate::ah::{BATCH, Question};
use crate::algorithm::IcvKey;
use crate::packet::{IpPacket, Malformed};
use crate::processor::{Arrival, PacketProcessor, Verdict};
use crate::replay::Numbering;
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
        // Filled where they lie: what `collect` gives is moved, and of these that is fourteen kilobytes.
        let (mut parsed, mut keys) = (Vec::<Parsed<'_>, BATCH>::new(), Vec::<Option<Key>, BATCH>::new());
        parsed.extend(packets.iter().take(BATCH).map(|arrival| IpPacket::parse(arrival.bytes)));
        keys.extend(parsed.iter().map(|packet| packet.as_ref().ok().and_then(claimed)));
        let (mut places, mut answers) = ([None; BATCH], [None; BATCH]);
        self.table.locate(&keys, &mut places);
        self.table.fetch(&places);
        self.foresee(&parsed, &places, now, &mut answers);
        let checks = Arc::clone(&self.checks.0);
        for (at, ((packet, arrival), (answer, place))) in parsed.iter().zip(packets).zip(answers.into_iter().zip(places)).enumerate() {
            let packet = packet.as_ref().map_err(|malformed| (*malformed).into());
            give(at, self.decide(arrival.bytes, packet, Known { place, answer }, &*checks, now));
        }
    }

    /// Answers what can be answered ahead.
    fn foresee(&self, packets: &[Parsed<'_>], places: &[Option<Place>; BATCH], now: Instant, answers: &mut [Option<bool>; BATCH]) {
        let packets = packets.iter().zip(places);
        let mut questions = Vec::<Option<Question<'_>>, BATCH>::new();
        questions.extend(packets.map(|(packet, place)| packet.as_ref().ok().and_then(|packet| self.question(packet, *place, now))));
        self.checks.icvs_match(&questions, answers);
    }

    /// Whether the packet's MAC would be looked at if its turn were now.
    fn question<'a>(&'a self, packet: &'a IpPacket<'_>, place: Option<Place>, now: Instant) -> Option<Question<'a>> {
        let (flow, ah) = (packet.of_flow()?, packet.ah()?);
        let entry = self.table.get_at(place, (flow.destination, ah.spi()))?;
        let (association, checks) = (&entry.association, &*self.checks.0);
        // Signatures have a budget, which is spent in turn.
        let is_mac = matches!(association.key(), IcvKey::Mac(_)) && association.window().numbering() == Numbering::Short;
        if !is_mac || may_claim(entry, flow, checks, now).is_err() {
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
