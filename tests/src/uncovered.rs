//! An ICV that leaves out the payload. It must be made so as well as checked so: every node of the laboratory agrees on it, and all
//! genuine traffic passes as before.

use std::sync::Arc;

use smoltcp::time::Instant;
use traffic::ah::{self, InsertError, Number};
use traffic::algorithm::IcvKey;
use traffic::checks::Checks;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::replay::{Replay, Window};

use crate::network::frame;

/// The other checks are somebody else's.
#[derive(Debug)]
pub(crate) struct Uncovered(pub(crate) Arc<dyn Checks>);

impl Checks for Uncovered {
    fn is_of_flow(&self, granted: &Flow, flow: &Flow) -> bool {
        self.0.is_of_flow(granted, flow)
    }

    fn icv_matches(&self, packet: &IpPacket<'_>, key: &IcvKey, high: Option<u32>) -> bool {
        let (blank, _) = without_payload(packet.bytes());
        IpPacket::parse(&blank).is_ok_and(|blank| ah::icv_matches(&blank, key, high))
    }

    fn seal(&self, packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey, out: &mut Vec<u8>) -> Result<(), InsertError> {
        let (blank, payload) = without_payload(packet.bytes());
        let blank = IpPacket::parse(&blank).map_err(|_| InsertError::Unpredictable)?;
        ah::insert(&blank, spi, number, key, out)?;
        let begin = out.len().saturating_sub(payload.len());
        out.splice(begin.., payload.iter().copied());
        Ok(())
    }

    fn window_allows(&self, window: &Window, number: u64) -> Result<(), Replay> {
        self.0.window_allows(window, number)
    }

    fn within_budget(&self, counted: u64, length: u64, allowed: u64) -> bool {
        self.0.within_budget(counted, length, allowed)
    }

    fn is_live(&self, expires_at: Instant, now: Instant) -> bool {
        self.0.is_live(expires_at, now)
    }
}

/// The packet with zeros for what stands behind its ports, and what stood there.
fn without_payload(packet: &[u8]) -> (Vec<u8>, &[u8]) {
    let payload = frame::read(packet).map_or(&[][..], |seen| seen.payload);
    let headers = packet.len().saturating_sub(payload.len());
    let mut blank = packet.to_vec();
    blank.iter_mut().skip(headers).for_each(|octet| *octet = 0);
    (blank, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::packet;
    use crate::network::topology::Family::{Ipv4, Ipv6};
    use traffic::algorithm::MacAlgorithm;
    use traffic::checks::Strict;

    #[test]
    fn the_payload_may_change_and_nothing_else() {
        let (uncovered, key) = (Uncovered(Arc::new(Strict)), IcvKey::new(MacAlgorithm::HmacSha256_128, &[1; 32]).unwrap());
        for family in [Ipv4, Ipv6] {
            let clear = packet::udp((family.sender(), 1), (family.receiver(), 2), b"payload").unwrap();
            let mut sealed = Vec::new();
            uncovered.seal(&IpPacket::parse(&clear).unwrap(), 300, Number { low: 1, high: None }, &key, &mut sealed).unwrap();
            assert!(sealed.ends_with(b"payload"));
            let matches = |sealed: &[u8]| uncovered.icv_matches(&IpPacket::parse(sealed).unwrap(), &key, None);
            assert!(matches(&sealed));
            assert!(!Strict.icv_matches(&IpPacket::parse(&sealed).unwrap(), &key, None), "no other node takes it");
            let last = sealed.len() - 1;
            for (changed, taken) in [(last, true), (last - 15 + 3, false), (last - 16 - 15, false)] {
                let mut other = sealed.clone();
                other[changed] ^= 1;
                assert_eq!(matches(&other), taken, "octet {changed}");
            }
        }
    }
}
