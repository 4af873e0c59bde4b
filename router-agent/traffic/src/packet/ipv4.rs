//! IPv4 (RFC 791): header, options, source route.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::Ipv4Packet;

use super::upper::Upper;
use super::{Fragment, IpHeader, IpPacket, Link, Malformed, PROTOCOL_AH};
use crate::ah::AhView;

/// Where the Protocol field stands.
const PROTOCOL: usize = 9;
/// Length of the header without options.
const BASE: usize = 20;

/// An IPv4 header with options that can be walked to their end.
#[derive(Debug, Clone)]
pub(crate) struct Ipv4Header<'a> {
    /// The header without options.
    pub(crate) base: &'a [u8; BASE],
    options: &'a [u8],
    /// Where the packet will be when its source route is used up.
    pub(crate) final_destination: Ipv4Addr,
}

/// One option, or what follows the end of the option list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ipv4Option<'a> {
    /// Type octet with copied flag and class.
    pub(crate) kind: u8,
    /// The whole option, type and length included.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Ipv4Header<'a> {
    /// The options in order; together they are exactly the octets between base header and payload.
    pub(crate) fn options(&self) -> impl Iterator<Item = Ipv4Option<'a>> + use<'a> {
        // `parse` has walked the same octets to the end, so that no error is left to be found here.
        Options { rest: self.options }.flatten()
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<IpPacket<'_>, Malformed> {
    let short = Malformed { what: "IPv4 header length", at: 0 };
    let base = bytes.first_chunk::<BASE>().ok_or(short)?;
    if usize::from(u16::from_be_bytes([base[2], base[3]])) != bytes.len() {
        return Err(Malformed { what: "IPv4 Total Length is not the packet's length", at: 2 });
    }
    let view = Ipv4Packet::new_checked(bytes).map_err(|_| short)?;
    let (before, rest) = bytes.split_at_checked(usize::from(view.header_len())).ok_or(short)?;
    let options = before.get(BASE..).ok_or(short)?;
    let route = source_route(options)?;
    let (destination, final_destination) = (view.dst_addr(), route.flatten().unwrap_or(view.dst_addr()));
    let protocol = u8::from(view.next_header());
    let fragment =
        (view.more_frags() || view.frag_offset() != 0).then(|| Fragment { offset: u32::from(view.frag_offset()), more: view.more_frags() });
    let (ah, after, upper) = match (fragment, protocol) {
        (Some(_), _) => (None, rest, Upper::unreadable(protocol)),
        (None, PROTOCOL_AH) => {
            let (ah, after) = AhView::split(rest, before.len())?;
            (Some(ah), after, Upper::read(ah.next_header(), after))
        }
        (None, _) => (None, rest, Upper::read(protocol, rest)),
    };
    Ok(IpPacket {
        bytes,
        header: IpHeader::V4(Ipv4Header { base, options, final_destination }),
        flow: upper.flow(IpAddr::V4(view.src_addr()), IpAddr::V4(final_destination)),
        destination: IpAddr::V4(destination),
        source_routed: route.is_some(),
        fragment,
        before,
        link: Link { at: PROTOCOL, protocol },
        ah,
        after,
        upper,
    })
}

/// Walks the options. Answers whether there is a source route, and if hops are left in it, its last address.
fn source_route(options: &[u8]) -> Result<Option<Option<Ipv4Addr>>, Malformed> {
    let mut found = None;
    let mut at = BASE;
    for option in (Options { rest: options }) {
        let option = option.map_err(|what| Malformed { what, at })?;
        if matches!(option.kind, kind::LOOSE_SOURCE_ROUTE | kind::STRICT_SOURCE_ROUTE) {
            if found.is_some() {
                return Err(Malformed { what: "second IPv4 source route", at });
            }
            found = Some(last_hop(option.bytes).ok_or(Malformed { what: "IPv4 source route", at })?);
        }
        at += option.bytes.len();
    }
    Ok(found)
}

/// The last address of a source route with hops left, `Some(None)` if it is used up, `None` if it is no source route
/// (RFC 791 §3.1: pointer from 4 in steps of 4, greater than the length when used up).
fn last_hop(option: &[u8]) -> Option<Option<Ipv4Addr>> {
    let [_, _, pointer, route @ ..] = option else {
        return None;
    };
    let (hops, odd) = route.as_chunks::<4>();
    if !odd.is_empty() || *pointer < 4 || pointer % 4 != 0 {
        return None;
    }
    if usize::from(*pointer) > option.len() {
        return Some(None);
    }
    hops.last().map(|octets| Some(Ipv4Addr::from(*octets)))
}

/// Option types, with copied flag and class (RFC 4302 appendix A1).
pub(crate) mod kind {
    /// End of Options List.
    pub(crate) const END: u8 = 0;
    /// No Operation.
    pub(crate) const NO_OPERATION: u8 = 1;
    /// Security (RFC 1108).
    pub(crate) const SECURITY: u8 = 130;
    /// Loose Source Route.
    pub(crate) const LOOSE_SOURCE_ROUTE: u8 = 131;
    /// Extended Security (RFC 1108).
    pub(crate) const EXTENDED_SECURITY: u8 = 133;
    /// Commercial Security.
    pub(crate) const COMMERCIAL_SECURITY: u8 = 134;
    /// Strict Source Route.
    pub(crate) const STRICT_SOURCE_ROUTE: u8 = 137;
    /// Router Alert (RFC 2113).
    pub(crate) const ROUTER_ALERT: u8 = 148;
    /// Sender Directed Multi-Destination Delivery (RFC 1770).
    pub(crate) const SENDER_DIRECTED: u8 = 149;
}

impl Ipv4Option<'_> {
    /// Whether it goes into the ICV as it is (RFC 4302 appendix A1). Everything else, known or not, is zeroed whole.
    pub(crate) const fn is_immutable(&self) -> bool {
        matches!(
            self.kind,
            kind::END
                | kind::NO_OPERATION
                | kind::SECURITY
                | kind::EXTENDED_SECURITY
                | kind::COMMERCIAL_SECURITY
                | kind::ROUTER_ALERT
                | kind::SENDER_DIRECTED
        )
    }
}

/// Walks an option area; after an error it is over.
struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Ipv4Option<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.rest.first()?;
        let len = match (kind, self.rest.get(1)) {
            // What follows the end is unspecified, but it is there: it belongs to the end option.
            (kind::END, _) => self.rest.len(),
            (kind::NO_OPERATION, _) => 1,
            (_, Some(len)) if *len >= 2 => usize::from(*len),
            _ => 0,
        };
        match self.rest.split_at_checked(len) {
            Some((bytes, rest)) if len > 0 => {
                self.rest = rest;
                Some(Ok(Ipv4Option { kind, bytes }))
            }
            _ => {
                self.rest = &[];
                Some(Err("IPv4 option length"))
            }
        }
    }
}
