//! What a router in front of a relay has seen of the flows inside a tunnel.
//!
//! What a node behind the relay says about the size of such a packet goes to the packet's sender by its own route, past routers that
//! know the tunnel and not the flow. They have verified the packets around those flows' packets, so that nobody but the sender can have
//! put there what is remembered here: addresses, SPI and number of the packets inside. By these an error is judged as if the flow were
//! known.

use std::net::IpAddr;

use crate::packet::{IpPacket, PROTOCOL_AH};
use crate::tunnel::{IPV4_INSIDE, IPV6_INSIDE};

/// Flows remembered of one tunnel: those that sent last.
const MOST: usize = 16;

/// Flows inside one tunnel, the one that sent last in front. Nothing of any other permission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Carried(Vec<Inside>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Inside {
    source: IpAddr,
    destination: IpAddr,
    spi: u32,
    /// Its highest number so far.
    pub(crate) highest: u32,
    /// Octets of its longest packet.
    pub(crate) longest: u32,
}

/// Whether packets of this protocol hold packets.
pub(crate) const fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, IPV4_INSIDE | IPV6_INSIDE)
}

impl Carried {
    /// Takes note of what a verified packet of `sender` holds.
    pub(crate) fn note(&mut self, sender: IpAddr, inner: &[u8]) {
        let Some(seen) = read(inner).filter(|seen| seen.source == sender) else { return };
        let place = self.0.iter().position(|known| known.is(seen.source, seen.destination, seen.spi));
        match place {
            Some(place) => {
                if let Some(known) = self.0.get_mut(place) {
                    known.highest = known.highest.max(seen.highest);
                    known.longest = known.longest.max(seen.longest);
                }
                self.0.get_mut(..=place).unwrap_or_default().rotate_right(1);
            }
            None => {
                self.0.truncate(MOST.saturating_sub(1));
                self.0.insert(0, seen);
            }
        }
    }

    /// What is known of the flow that a packet claims to be of.
    pub(crate) fn find(&self, source: IpAddr, destination: IpAddr, spi: u32) -> Option<Inside> {
        self.0.iter().find(|known| known.is(source, destination, spi)).copied()
    }
}

impl Inside {
    fn is(&self, source: IpAddr, destination: IpAddr, spi: u32) -> bool {
        (self.source, self.destination, self.spi) == (source, destination, spi)
    }
}

/// The ends and the AH of a packet or of a datagram's first part.
fn read(inner: &[u8]) -> Option<Inside> {
    let packet = IpPacket::parse(inner).ok()?;
    let (spi, highest) = match packet.fragment() {
        None => packet.ah().map(|ah| (ah.spi(), ah.sequence()))?,
        Some(part) if part.offset == 0 && packet.protocol() == PROTOCOL_AH => {
            let [_, _, _, _, s0, s1, s2, s3, n0, n1, n2, n3] = *packet.after().first_chunk::<12>()?;
            (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([n0, n1, n2, n3]))
        }
        Some(_) => return None,
    };
    let longest = u32::try_from(packet.total_len()).unwrap_or(u32::MAX);
    Some(Inside { source: packet.source(), destination: packet.destination(), spi, highest, longest })
}
