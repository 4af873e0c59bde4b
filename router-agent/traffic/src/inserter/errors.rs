//! ICMP "too big" about packets with AH that this host has sent.

use smoltcp::time::Instant;

use super::Inserter;
use crate::ah;
use crate::event::{Event, push_bounded};
use crate::icmp::{self, Kind, QuotingError, Unusable};
use crate::packet::IpPacket;
use crate::reason::DropReason;

impl Inserter {
    /// Puts the error that this host's own stack is to see into `out`.
    ///
    /// # Errors
    ///
    /// Why it is to see none.
    pub(super) fn judge_error(&mut self, bytes: &[u8], now: Instant) -> Result<(), DropReason> {
        let packet = IpPacket::parse(bytes)?;
        let error = QuotingError::read(&packet).map_err(|unusable| match unusable {
            Unusable::NotAboutAh => DropReason::NoPermission,
            Unusable::Malformed => DropReason::Malformed,
        })?;
        // Any other error is no reason to do anything but what is done without it.
        let Kind::TooBig(mtu) = error.kind else { return Err(DropReason::NoPermission) };
        let flow = error.quote.flow().ok_or(DropReason::Malformed)?;
        let entry = self.table.get_mut(&flow).filter(|entry| entry.spi == error.quote.spi).ok_or(DropReason::UnknownSpi)?;
        if !self.checks.is_live(entry.expires_at, now) {
            return Err(DropReason::Expired);
        }
        icmp::believe(&error, &flow, entry.highest, entry.longest)?;
        let is_ipv6 = flow.source.is_ipv6();
        let present = u32::try_from(ah::overhead(entry.key.algorithm(), is_ipv6)).unwrap_or(u32::MAX);
        let lowered = icmp::path_mtu(mtu, error.quote.total_len, present, self.config.room, is_ipv6).ok_or(DropReason::ImplausibleError)?;
        if !entry.errors.take(error.kind, now) {
            return Err(DropReason::ErrorRate);
        }
        let way = self.diverted.get(&flow).map_or(0, |diverted| diverted.way);
        icmp::translate(&error, lowered, &mut self.out.0).map_err(|_| DropReason::Malformed)?;
        tracing::debug!(%flow, mtu, lowered, reporter = %packet.source(), "the path is narrower than its first link");
        push_bounded(&mut self.events, Event::PathMtu { destination: flow.destination, mtu, way });
        Ok(())
    }
}
