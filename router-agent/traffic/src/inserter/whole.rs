//! TCP super-packets, and packets whose checksum the kernel has left open ([`crate::segments`]).

use smoltcp::time::Instant;

use super::holders::Owner;
use super::identification::{self, IdentificationKey};
use super::{Attempt, Inserter, MAX_PACKET, admit};
use crate::ah::{self, InsertError, Next, Number, Sealing, Series};
use crate::algorithm::IcvKey;
use crate::checks::Checks;
use crate::event::{Event, push_bounded};
use crate::machine::{self, Action, Guards, Outcome, State};
use crate::packet::IpPacket;
use crate::processor::{PacketId, Segments};
use crate::reason::DropReason;
use crate::segments::{self, Whole};

/// Segments of a super-packet at most that are cut here: 64 KiB of common segments are 46, and other flows wait meanwhile.
const MOST: usize = 128;

impl Inserter {
    /// Judges a packet by the form that it leaves in: with its checksum.
    pub(super) fn judge_finished(&mut self, id: PacketId, owner: Owner, bytes: &[u8], now: Instant) -> Attempt {
        let mut finished = std::mem::take(&mut self.finished.0);
        let written = IpPacket::parse(bytes).map(|packet| segments::finished(&packet, &mut finished));
        let attempt = match written {
            Ok(Some(())) => self.judge(id, owner, &finished, now),
            Ok(None) | Err(_) => Attempt::Drop(DropReason::Malformed),
        };
        self.finished.0 = finished;
        attempt
    }

    /// Has all segments of a super-packet go out, if they do; otherwise changes nothing.
    ///
    /// Whether they do is judged once for all of them: by what one after the other would come to, since volume and numbers only become
    /// less and nothing comes in between.
    pub(super) fn decide_whole(&mut self, bytes: &[u8], largest: usize, now: Instant) -> Option<Segments<'_>> {
        let (packet, flow) = admit(bytes).ok()?;
        let whole = Whole::read(&packet, largest).filter(|whole| whole.count() <= MOST)?;
        if self.held.has(&flow) || self.diverted.get(&flow).is_some_and(|diverted| diverted.waits) {
            return None;
        }
        let mark = self.mark_of(&flow);
        let checks = self.checks.0.clone();
        let entry = self.table.get_mut(&flow).filter(|entry| checks.is_live(entry.expires_at, now))?;
        let overhead = ah::overhead(entry.key.algorithm(), flow.source.is_ipv6());
        let longest = whole.longest() + overhead;
        let octets = (whole.total() + whole.count() * overhead) as u64;
        let count = u32::try_from(whole.count()).ok()?;
        let guards = Guards {
            fits: checks.within_budget(entry.counted, octets, entry.allowed),
            numbers_left: entry.highest.checked_add(count).is_some(),
            renewal_refused: entry.renewal_refused,
            ..Guards::default()
        };
        let Outcome::Take(transition) = machine::step(State::Compare, machine::Event::TgPacket, guards) else { return None };
        if longest > MAX_PACKET || !transition.actions.contains(&Action::Pass) {
            return None;
        }
        tracing::trace!(rule = transition.rule, %flow, count, "super-packet");
        let first = entry.highest;
        entry.counted = entry.counted.saturating_add(octets);
        let (is_nearly_used_up, is_half_numbered) = (entry.take_warning(), entry.take_numbers(count));
        for _ in 0..usize::from(is_nearly_used_up) + usize::from(is_half_numbered) {
            push_bounded(&mut self.events, Event::NearlyUsedUp { flow, spi: entry.spi });
        }
        let what = Numbered { spi: entry.spi, key: &entry.key, before: first };
        let sealing = &mut self.sealing.0;
        sealing.clear();
        let room = Room { segment: &mut self.finished.0, changed: &mut self.changed.0, sealing: &mut *sealing };
        let counters = &*self.counters.0;
        what.write(&*checks, self.config.identifications.as_ref(), &whole, room, |len, error| {
            counters.count_dropped(error.into(), len);
        });
        if !sealing.is_empty() {
            entry.longest = entry.longest.max(u32::try_from(longest).unwrap_or(u32::MAX));
        }
        sealing.seal();
        let lengths = (0..sealing.len()).map(|at| sealing.get(at).map_or(0, <[u8]>::len));
        counters.count_many_accepted(sealing.len(), lengths.sum());
        Some(Segments { source: packet.source(), destination: packet.destination(), packets: &self.sealing.0, mark })
    }
}

/// What the segments go out under.
struct Numbered<'a> {
    spi: u32,
    key: &'a IcvKey,
    /// The number before the first.
    before: u32,
}

/// Where segments are written.
struct Room<'a> {
    segment: &'a mut Vec<u8>,
    changed: &'a mut Vec<u8>,
    sealing: &'a mut Sealing,
}

impl Numbered<'_> {
    /// Writes all segments; tells of each that cannot be sealed how long it is, and why.
    fn write(
        &self,
        checks: &dyn Checks,
        identifications: Option<&IdentificationKey>,
        whole: &Whole<'_>,
        room: Room<'_>,
        mut failed: impl FnMut(usize, InsertError),
    ) {
        let Room { segment, changed, sealing } = room;
        let mut series: Option<Series> = None;
        for (at, number) in (0..whole.count()).zip(self.before.saturating_add(1)..=u32::MAX) {
            if let Some(series) = &series
                && let Some(data) = whole.data(at)
            {
                let own = identifications.filter(|_| whole.may_be_fragmented()).map(|key| key.of(self.spi, number));
                let next = Next { number, identification: own.unwrap_or(whole.identification(at)), data };
                if sealing.add_next(series, &next, |packet, tcp| whole.finish(at, packet, tcp)) {
                    continue;
                }
            }
            let number = Number { low: number, high: None };
            let written = whole.write(at, segment).then(|| IpPacket::parse(segment).ok()).flatten();
            let sealed = written.ok_or(InsertError::Unpredictable).and_then(|packet| {
                identification::seal(checks, identifications, &packet, (self.spi, number), self.key, (&mut *changed, &mut *sealing))
            });
            match sealed {
                Ok(()) => series = series.or_else(|| sealing.series(whole.header())),
                Err(error) => failed(segment.len(), error),
            }
        }
    }
}
