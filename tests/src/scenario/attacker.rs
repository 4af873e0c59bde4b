//! Somebody in the middle who has the flow's shared key.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};
use traffic::ah::{self, Number};
use traffic::packet::IpPacket;

use super::site::{PORT, Site, is_of_flow, of_flow};
use crate::attack::packet;
use crate::demo::trial::source_port;
use crate::dice::Dice;
use crate::leaking::{self, Leaked};
use crate::network::relay::{Fate, Way, packet as packet_of, with_packet};
use crate::network::topology::Family;

/// How the attacker came by the key, for the outcome.
pub(super) const WITH_KEY: &str = "on the link, with the flow's shared key, which a dishonest router gave away: every router on the path \
                                   learns it, and the laboratory's leaking router writes it into a file";

/// The octets that each of the attacker's payloads begins with. As the position in a file they are far beyond its end.
pub(super) const MARK: &[u8; 8] = b"injected";

const UDP: u8 = 17;
const SIGNATURE: usize = 64;

/// Octets of the integrity check value of a signed packet, with padding (RFC 4302 §3.3.3.2.1: to 8 octets in IPv6).
pub(super) fn signature_octets(family: Family) -> usize {
    if family == Family::Ipv4 { SIGNATURE } else { SIGNATURE + 4 }
}

/// Who makes packets under the flow's key.
pub(super) struct Attacker {
    pub(super) leaked: Leaked,
    header: [u8; 14],
    family: Family,
}

impl Attacker {
    /// Takes the newest key that `router` gave away.
    pub(super) fn with_key_of(site: &Site, router: &str) -> io::Result<Self> {
        Ok(Self { leaked: leaking::newest(&site.config(router), PORT)?, header: site.frame_header()?, family: site.family })
    }

    /// A packet of the flow with `payload` octets, rightly authenticated under `number`.
    pub(super) fn forge(&self, number: u32, payload: usize) -> io::Result<Vec<u8>> {
        let inner = inner(self.family, payload)?;
        let parsed = IpPacket::parse(&inner).map_err(io::Error::other)?;
        let mut packet = Vec::new();
        ah::insert(&parsed, self.leaked.spi, Number { low: number, high: None }, &self.leaked.key, &mut packet)
            .map_err(io::Error::other)?;
        Ok(packet)
    }

    /// Replaces each packet of the flow under the stolen key by a forged one of the same number and length, which goes first; the
    /// true one follows.
    pub(super) fn substitute(self, site: &Site) -> Arc<AtomicU64> {
        let replaced = Arc::new(AtomicU64::new(0));
        let count = replaced.clone();
        site.relay.set(move |way, frame| {
            let seen = packet_of(frame).and_then(is_of_flow).filter(|_| way == Way::There);
            let Some((number, length)) = seen.and_then(|seen| {
                let ah = seen.authentication.filter(|ah| ah.spi == self.leaked.spi)?;
                Some((ah.sequence, seen.payload.len()))
            }) else {
                return Fate::Pass;
            };
            let Ok(forged) = self.forge(number, length) else { return Fate::Pass };
            count.fetch_add(1, Ordering::Relaxed);
            Fate::Instead(vec![with_packet(&self.header, &forged), frame.to_vec()])
        });
        replaced
    }

    /// Puts packets on the link towards the receiver, one each `pause`. Returns how many octets they have in all.
    pub(super) fn inject(&self, site: &Site, packets: impl IntoIterator<Item = io::Result<Vec<u8>>>, pause: Duration) -> io::Result<Sent> {
        let (begun, mut sent) = (Instant::now(), Sent::default());
        for packet in packets {
            let packet = packet?;
            site.relay.inject(Way::There, &with_packet(&self.header, &packet))?;
            sent.packets += 1;
            sent.octets += packet.len() as u64;
            // Against the clock, so that the rate is right whatever a sleep takes.
            let due = begun + Duration::from_secs_f64(pause.as_secs_f64() * sent.packets as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(sent)
    }
}

/// A packet of the flow with a made-up signature of 64 octets.
pub(super) fn pretend(site: &Site, spi: u32, number: u32, payload: usize) -> io::Result<Vec<u8>> {
    let mut packet = inner(site.family, payload)?;
    let octets = signature_octets(site.family);
    let mut signature = Dice::new(site.plan.payload ^ u64::from(number)).octets(SIGNATURE);
    signature.resize(octets, 0);
    let header = [&[UDP, ((12 + octets) / 4 - 2) as u8, 0, 0][..], &spi.to_be_bytes(), &number.to_be_bytes(), &signature].concat();
    let behind = if site.family == Family::Ipv4 { 20 } else { 40 };
    packet.splice(behind..behind, header);
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    match site.family {
        Family::Ipv4 => {
            let mut ip = Ipv4Packet::new_unchecked(&mut packet);
            ip.set_total_len(length);
            ip.set_next_header(IpProtocol::IpSecAh);
            ip.fill_checksum();
        }
        Family::Ipv6 => {
            let mut ip = Ipv6Packet::new_unchecked(&mut packet);
            ip.set_payload_len(length.saturating_sub(40));
            ip.set_next_header(IpProtocol::IpSecAh);
        }
    }
    Ok(packet)
}

/// Packets sent, or seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) octets: u64,
}

/// The attacker's datagram as a program of the sender would have sent it.
pub(super) fn inner(family: Family, payload: usize) -> io::Result<Vec<u8>> {
    let mut octets = vec![0x66; payload];
    for (place, byte) in octets.iter_mut().zip(MARK) {
        *place = *byte;
    }
    packet::udp((family.sender(), source_port(PORT)), (family.receiver(), PORT), &octets)
}

/// The highest number of the flow's packets under `spi` that passed the middle so far.
pub(super) fn highest_number(site: &Site, spi: u32) -> u32 {
    let [_, right] = &site.middle;
    right.look(|frames| {
        let numbers = frames.iter().filter_map(of_flow).filter_map(|seen| seen.authentication).filter(|ah| ah.spi == spi);
        numbers.map(|ah| ah.sequence).max().unwrap_or(0)
    })
}

/// The attacker's packets behind the second router, since `from`.
pub(super) fn got_through(site: &Site, from: Duration) -> Sent {
    site.last.look(|frames| {
        let injected = frames.iter().filter(|frame| frame.at >= from).filter_map(of_flow).filter(|seen| seen.payload.starts_with(MARK));
        injected.fold(Sent::default(), |sum, seen| Sent { packets: sum.packets + 1, octets: sum.octets + seen.length as u64 })
    })
}
