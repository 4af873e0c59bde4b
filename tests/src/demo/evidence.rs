//! What captures show about one line of the table: the same figures for the run itself and for a later audit.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::network::capture::Frame;
use crate::network::frame::{self, Authentication, Seen};
use crate::network::topology::Family;

/// Which packets a line is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// IP version.
    pub family: Family,
    /// Who sends, where that is not the sender.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<IpAddr>,
    /// The receiver's port.
    pub port: u16,
    /// Octets that the payload holds (hex), where the port alone does not tell the packets from signalling.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payload: Option<String>,
    /// From when, in microseconds since the start of the captures.
    pub from_us: u64,
    /// Until when.
    pub to_us: u64,
}

/// Which way packets went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the sender to the receiver.
    There,
    /// From the receiver to the sender.
    Back,
}

impl Watch {
    /// The packet in `frame` and the way it went, if the line is about it.
    pub fn sees<'a>(&self, frame: &'a Frame) -> Option<(Way, Seen<'a>)> {
        let at = u64::try_from(frame.at.as_micros()).unwrap_or(u64::MAX);
        if !(self.from_us..=self.to_us).contains(&at) {
            return None;
        }
        let seen = frame::read(frame.ip()?)?;
        let (sender, receiver) = (self.source.unwrap_or(self.family.sender()), self.family.receiver());
        let way = if (seen.source, seen.destination, seen.ports.1) == (sender, receiver, self.port) {
            Way::There
        } else if (seen.source, seen.destination, seen.ports.0) == (receiver, sender, self.port) {
            Way::Back
        } else {
            return None;
        };
        let wanted = self.payload.as_deref().and_then(|payload| hex::decode(payload).ok()).unwrap_or_default();
        let holds = wanted.is_empty() || seen.payload.windows(wanted.len()).any(|octets| octets == wanted);
        holds.then_some((way, seen))
    }
}

/// The packets under one SPI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spi {
    /// How many.
    pub packets: u64,
    /// Sequence number of the first.
    pub first: u32,
    /// Sequence number of the last.
    pub last: u32,
    /// Whether each number was higher than the one before.
    pub growing: bool,
}

/// What one capture shows of a line's packets that went one way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Packets; of a fragmented datagram the first fragment.
    pub packets: u64,
    /// Octets of those IP packets.
    pub octets: u64,
    /// Length of the longest in octets.
    pub longest: u64,
    /// How many were as long as the longest.
    pub full_size: u64,
    /// Packets without Authentication Header.
    pub clear: u64,
    /// Packets under an Authentication Header, by SPI as `0x` and eight digits.
    pub spis: BTreeMap<String, Spi>,
}

impl Spi {
    /// Counts one more packet under its SPI.
    pub fn count(spis: &mut BTreeMap<String, Self>, authentication: &Authentication<'_>) {
        let number = authentication.sequence;
        let fresh = Self { packets: 0, first: number, last: 0, growing: true };
        let spi = spis.entry(format!("{:#010x}", authentication.spi)).or_insert(fresh);
        spi.growing &= number > spi.last;
        spi.last = number;
        spi.packets += 1;
    }
}

impl Figures {
    /// Packets under an Authentication Header.
    pub fn under_ah(&self) -> u64 {
        self.spis.values().map(|spi| spi.packets).sum()
    }

    fn add(&mut self, seen: &Seen<'_>) {
        let length = seen.length as u64;
        self.packets += 1;
        self.octets += length;
        self.full_size = match length.cmp(&self.longest) {
            std::cmp::Ordering::Greater => 1,
            std::cmp::Ordering::Equal => self.full_size + 1,
            std::cmp::Ordering::Less => self.full_size,
        };
        self.longest = self.longest.max(length);
        match &seen.authentication {
            Some(authentication) => Spi::count(&mut self.spis, authentication),
            None => self.clear += 1,
        }
    }
}

/// What one link's capture shows of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Sender to receiver.
    pub there: Figures,
    /// Receiver to sender.
    pub back: Figures,
}

impl Evidence {
    /// Gathers what `frames` show of the packets that `watch` is about.
    pub fn gather<'a>(watch: &Watch, frames: impl IntoIterator<Item = &'a Frame>) -> Self {
        let mut evidence = Self::default();
        for (way, seen) in frames.into_iter().filter_map(|frame| watch.sees(frame)) {
            match way {
                Way::There => evidence.there.add(&seen),
                Way::Back => evidence.back.add(&seen),
            }
        }
        evidence
    }

    /// Packets without Authentication Header, either way.
    pub fn clear(&self) -> u64 {
        self.there.clear + self.back.clear
    }
}
