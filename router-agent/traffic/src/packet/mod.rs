//! A whole IP packet, parsed once into something that cannot be invalid afterwards.
//!
//! ```text
//! |<------------------ before ------------------>|<-- ah -->|<------------- after ------------->|
//! | IP header | IPv4 options, or IPv6 extension  |    AH    | destination options | TCP, UDP …  |
//! |           | headers that precede AH          | (if any) | (IPv6, if any)      |             |
//! ```
//!
//! Without AH, `before` ends where AH would have to stand (RFC 4302 §3.1.1).

mod ipv4;
mod ipv6;
mod upper;

use std::net::IpAddr;

use crate::ah::AhView;
use crate::flow::Flow;

pub(crate) use ipv4::Ipv4Header;
pub(crate) use ipv6::{Extension, Ipv6Header, Ipv6Option, Ipv6Options, Routing, behind_ah};
pub use upper::Ports;
pub(crate) use upper::Upper;

/// IP protocol number of AH.
pub(crate) const PROTOCOL_AH: u8 = 51;

/// Why bytes are not an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet: {what} at octet {at}")]
pub struct Malformed {
    /// What is wrong.
    pub what: &'static str,
    /// Where, in octets from the start of the packet.
    pub at: usize,
}

/// What an IP fragment says about itself. An IPv6 atomic fragment (all of it in one packet) is not one (X-87).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where its data belongs in the datagram, in octets.
    pub offset: u32,
    /// Whether more fragments follow.
    pub more: bool,
}

/// A view of one whole IPv4 or IPv6 packet.
#[derive(Debug, Clone)]
pub struct IpPacket<'a> {
    bytes: &'a [u8],
    header: IpHeader<'a>,
    /// Put together once: it is looked at several times. Ports that there are none of, or that cannot be read, are 0.
    flow: Flow,
    destination: IpAddr,
    source_routed: bool,
    fragment: Option<Fragment>,
    before: &'a [u8],
    link: Link,
    ah: Option<AhView<'a>>,
    after: &'a [u8],
    upper: Upper,
}

/// The part of a packet that the two IP versions do differently.
#[derive(Debug, Clone)]
pub(crate) enum IpHeader<'a> {
    /// IPv4.
    V4(Ipv4Header<'a>),
    /// IPv6.
    V6(Ipv6Header<'a>),
}

/// The octet that names what follows `before`: IPv4 Protocol or the last Next Header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where it stands in the packet.
    pub(crate) at: usize,
    /// Its value.
    pub(crate) protocol: u8,
}

impl<'a> IpPacket<'a> {
    /// Parses exactly one packet.
    ///
    /// # Errors
    ///
    /// Whatever is not well-formed up to and including AH, and a length field that differs from `bytes`' length:
    /// what the queue delivers is the datagram and nothing else. Behind AH, or behind the place where it would stand,
    /// nothing is an error: what cannot be read there only leaves [`IpPacket::flow`] without an answer.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.first().map(|octet| octet >> 4) {
            Some(4) => ipv4::parse(bytes),
            Some(6) => ipv6::parse(bytes),
            Some(_) => Err(Malformed { what: "IP version is neither 4 nor 6", at: 0 }),
            None => Err(Malformed { what: "empty", at: 0 }),
        }
    }

    /// The whole packet.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Length on the wire, in octets: IPv4 Total Length, or 40 plus IPv6 Payload Length (X-34).
    pub const fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// Source address.
    pub const fn source(&self) -> IpAddr {
        self.flow.source
    }

    /// Destination address as the IP header has it now.
    pub const fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Destination address after the last hop of a source route or routing header; without one, the destination.
    pub const fn final_destination(&self) -> IpAddr {
        self.flow.destination
    }

    /// Whether it carries an IPv4 source route or an IPv6 routing header with segments left (X-88).
    pub const fn is_source_routed(&self) -> bool {
        self.source_routed
    }

    /// Set if this is a part of a datagram only.
    pub const fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// Whether a Fragment header stands in it, be it of a true fragment or of an IPv6 atomic fragment (RFC 6946).
    pub fn has_fragment_header(&self) -> bool {
        let is_one = |extension: Extension<'_>| matches!(extension, Extension::AtomicFragment { .. });
        self.fragment.is_some() || matches!(&self.header, IpHeader::V6(header) if header.extensions().any(is_one))
    }

    /// The authentication header; never set for a fragment, which RFC 4302 §3.4.1 does not let AH see.
    pub const fn ah(&self) -> Option<&AhView<'a>> {
        self.ah.as_ref()
    }

    /// The flow it belongs to: final addresses, and what stands behind AH and extension headers.
    ///
    /// `None` for a fragment and for a transport header too short to hold its ports.
    pub fn flow(&self) -> Option<Flow> {
        self.of_flow().copied()
    }

    /// The same where it lies.
    pub(crate) const fn of_flow(&self) -> Option<&Flow> {
        match self.upper.ports {
            Ports::Known { .. } | Ports::None => Some(&self.flow),
            Ports::Unreadable => None,
        }
    }

    /// Protocol behind AH and extension headers; for a fragment, what its header names.
    pub const fn protocol(&self) -> u8 {
        self.upper.protocol
    }

    /// Ports of that protocol.
    pub const fn ports(&self) -> Ports {
        self.upper.ports
    }

    /// The version's own part.
    pub(crate) const fn header(&self) -> &IpHeader<'a> {
        &self.header
    }

    /// The octets before AH, or before the place where it would stand.
    pub(crate) const fn before(&self) -> &'a [u8] {
        self.before
    }

    /// What names the protocol that follows [`IpPacket::before`].
    pub(crate) const fn link(&self) -> Link {
        self.link
    }

    /// The octets behind AH, or behind the place where it would stand.
    pub(crate) const fn after(&self) -> &'a [u8] {
        self.after
    }

    /// Of these the ones behind destination options, too, if AH is followed by any.
    pub(crate) fn inside(&self) -> &'a [u8] {
        match &self.ah {
            Some(ah) if self.flow.source.is_ipv6() => ipv6::behind_options(ah.next_header(), self.after).1,
            _ => self.after,
        }
    }
}
