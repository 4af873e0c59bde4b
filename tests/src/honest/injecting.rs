//! The counter-example: the same sessions, and once in each of them somebody with the flow's shared key adds packets of his own.

use std::io;
use std::time::Duration;

use serde::Serialize;
use traffic::ah::{self, Number};
use traffic::algorithm::IcvKey;
use traffic::packet::IpPacket;

use super::people::{DESTINATION, SOURCE};
use crate::attack::packet;
use crate::dice::Dice;

/// The octets that each of his payloads begins with.
pub(super) const MARK: &[u8; 8] = b"injected";
/// Payload octets of each of his packets.
const PAYLOAD: usize = 1208;
/// How much further his numbers are where they are ahead: more than the program sends in a refresh period.
const AHEAD: u32 = 4000;

/// Which numbers he takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Numbers {
    /// The next ones, so that the sender comes to them: his bytes are too many unless as many of the sender's are lost (E1).
    Next,
    /// Such as the sender does not come to before it asks again (E2).
    Ahead,
}

/// What he does in a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Injection {
    /// When.
    pub(super) after: Duration,
    /// The node that his packets come to.
    pub(super) place: usize,
    pub(super) numbers: Numbers,
    packets: u32,
}

impl Injection {
    /// Decided by chance of its own, so that everything else in the session is as without it until then.
    pub(super) fn decide(seed: u64, refresh: Duration) -> Self {
        let mut dice = Dice::new(seed ^ 0x696e_6a65_6374_6564);
        Self {
            after: refresh + dice.up_to(refresh * 2),
            place: 1 + usize::try_from(dice.below(3)).unwrap_or(0),
            numbers: if dice.below(2) == 0 { Numbers::Next } else { Numbers::Ahead },
            packets: 40 + dice.below(60) as u32,
        }
    }

    /// His packets, rightly authenticated, when the flow's newest has the number `highest`.
    pub(super) fn packets(self, (spi, key): &(u32, IcvKey), highest: u32, ports: (u16, u16)) -> io::Result<Vec<Vec<u8>>> {
        let mut payload = vec![0x66; PAYLOAD];
        payload.iter_mut().zip(MARK).for_each(|(place, byte)| *place = *byte);
        let inner = packet::udp((SOURCE, ports.0), (DESTINATION, ports.1), &payload)?;
        let inner = IpPacket::parse(&inner).map_err(io::Error::other)?;
        let first = highest.saturating_add(1).saturating_add(if self.numbers == Numbers::Ahead { AHEAD } else { 0 });
        let make = |index| {
            let mut packet = Vec::new();
            ah::insert(&inner, *spi, Number { low: first + index, high: None }, key, &mut packet).map_err(io::Error::other)?;
            Ok(packet)
        };
        (0..self.packets).map(make).collect()
    }
}
