//! TCP super-packets, and packets whose checksum the kernel has left open ([`crate::segments`]).

use smoltcp::time::Instant;

use super::holders::Owner;
use super::{Attempt, Inserter, admit};
use crate::ah;
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
    pub(super) fn decide_whole(&mut self, bytes: &[u8], largest: usize, now: Instant) -> Option<Segments<'_>> {
        let (packet, flow) = admit(bytes).ok()?;
        let whole = Whole::read(&packet, largest).filter(|whole| whole.count() <= MOST)?;
        if self.held.has(&flow) || self.diverted.get(&flow).is_some_and(|diverted| diverted.waits) {
            return None;
        }
        let checks = self.checks.0.clone();
        let entry = self.table.get_mut(&flow).filter(|entry| checks.is_live(entry.expires_at, now))?;
        let overhead = whole.count() * ah::overhead(entry.key.algorithm(), flow.source.is_ipv6());
        let numbers = u32::try_from(whole.count()).ok().and_then(|count| entry.highest.checked_add(count));
        if numbers.is_none() || !checks.within_budget(entry.counted, (whole.total() + overhead) as u64, entry.allowed) {
            return None;
        }
        self.sealing.0.clear();
        let (mut segment, mut mark) = (std::mem::take(&mut self.finished.0), None);
        for at in 0..whole.count() {
            let attempt = match whole.write(at, &mut segment).then(|| IpPacket::parse(&segment)) {
                Some(Ok(packet)) => self.attempt(&packet, flow, now),
                Some(Err(_)) | None => Attempt::Drop(DropReason::Malformed),
            };
            match attempt {
                Attempt::Send(bits) => mark = bits,
                Attempt::Drop(reason) => self.counters.count_dropped(reason, segment.len()),
                // There is volume and there are numbers for all of them: TCP sends it again if ever there are not.
                Attempt::Hold | Attempt::Ask => self.counters.count_dropped(DropReason::OverBudget, segment.len()),
            }
        }
        self.finished.0 = segment;
        let sealing = &mut self.sealing.0;
        sealing.seal();
        (0..sealing.len()).for_each(|at| self.counters.count_accepted(sealing.get(at).unwrap_or_default().len()));
        Some(Segments { source: packet.source(), destination: packet.destination(), packets: &self.sealing.0, mark })
    }
}
