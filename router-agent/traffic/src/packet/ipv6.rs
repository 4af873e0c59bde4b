//! IPv6 (RFC 8200): header and extension header chain.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::Ipv6Packet;

use super::upper::Upper;
use super::{Fragment, IpHeader, IpPacket, Link, Malformed, PROTOCOL_AH};
use crate::ah::AhView;

/// Length of the header without extension headers.
const BASE: usize = 40;
/// Where the Next Header field stands.
const NEXT_HEADER: usize = 6;
/// Extension headers read before AH or transport. RFC 8504 §5.3 lets a node set such a limit; the chain that
/// RFC 8200 §4.1 recommends has five.
const MAX_EXTENSIONS: usize = 12;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
/// Length of a Fragment header.
const FRAGMENT_LEN: usize = 8;
const DESTINATION_OPTIONS: u8 = 60;

const CUT_SHORT: &str = "extension header is cut short";

/// An IPv6 header with the extension headers that precede AH, or precede the place where it would stand.
#[derive(Debug, Clone)]
pub(crate) struct Ipv6Header<'a> {
    /// The header without extension headers.
    pub(crate) base: &'a [u8; BASE],
    /// Destination address as it is now.
    pub(crate) destination: Ipv6Addr,
    /// The extension headers, read again whenever somebody asks: kept as they were read they would make every packet, of IPv4 too, five
    /// times as large to carry about.
    chain: Chain<'a>,
    /// Where the packet will be when its routing headers are used up.
    pub(crate) final_destination: Ipv6Addr,
}

impl<'a> Ipv6Header<'a> {
    /// The extension headers in order; together they are exactly the octets between base header and AH.
    pub(crate) const fn extensions(&self) -> Chain<'a> {
        self.chain
    }
}

/// Extension headers one behind the other, up to something that is none or ends too early.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain<'a> {
    /// What the first is, by the header before it.
    next: u8,
    octets: &'a [u8],
}

impl<'a> Iterator for Chain<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        // `parse` has walked the same octets to the end, so that no error is left to be found here.
        let (extension, len) = Extension::read(self.next, self.octets).ok()??;
        (self.next, self.octets) = (extension.next(), self.octets.get(len..)?);
        Some(extension)
    }
}

/// One extension header before AH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension<'a> {
    /// Hop-by-Hop or Destination Options: Next Header, length, and options that can be walked to their end.
    Options {
        /// Next Header.
        next: u8,
        /// Hdr Ext Len.
        len: u8,
        /// The options.
        options: &'a [u8],
    },
    /// Routing header.
    Routing(Routing<'a>),
    /// Fragment header of an atomic fragment.
    AtomicFragment {
        /// Next Header.
        next: u8,
    },
}

impl<'a> Extension<'a> {
    /// Reads a header of this protocol at the beginning of `octets`, and gives its length; `None` for what is no extension header.
    fn read(protocol: u8, octets: &'a [u8]) -> Result<Option<(Self, usize)>, &'static str> {
        match protocol {
            HOP_BY_HOP | DESTINATION_OPTIONS => Self::options(octets).map(Some),
            ROUTING => Self::routing(octets).map(Some),
            FRAGMENT => {
                let [next, ..] = *octets.first_chunk::<FRAGMENT_LEN>().ok_or("Fragment header is cut short")?;
                Ok(Some((Extension::AtomicFragment { next }, FRAGMENT_LEN)))
            }
            _ => Ok(None),
        }
    }

    fn options(octets: &'a [u8]) -> Result<(Self, usize), &'static str> {
        let (head, _, len) = sized(octets)?;
        let options = octets.get(2..len).ok_or(CUT_SHORT)?;
        for option in Ipv6Options::of(options) {
            option?;
        }
        let [next, units, ..] = *head;
        Ok((Extension::Options { next, len: units, options }, len))
    }

    fn routing(octets: &'a [u8]) -> Result<(Self, usize), &'static str> {
        let (head, tail, len) = sized(octets)?;
        let rest = octets.get(4..len).ok_or(CUT_SHORT)?;
        let [next, units, kind, segments_left, ..] = *head;
        let addresses: &[[u8; 16]] = match (kind, tail.as_chunks::<16>()) {
            (0, (addresses, [])) => addresses,
            (2, (addresses @ [_], [])) => addresses,
            (0 | 2, _) => return Err("length of a routing header"),
            _ => &[],
        };
        if matches!(kind, 0 | 2) && usize::from(segments_left) > addresses.len() {
            return Err("more segments left than addresses");
        }
        let routing = Routing { next, len_and_type: [units, kind], segments_left, rest, addresses };
        Ok((Extension::Routing(routing), len))
    }

    /// Next Header.
    pub(crate) const fn next(&self) -> u8 {
        match self {
            Extension::Options { next, .. } | Extension::AtomicFragment { next } => *next,
            Extension::Routing(routing) => routing.next,
        }
    }
}

/// The first 8 octets of a header whose second octet is its length in units of 8 octets without the first 8, the rest of it, and its
/// length.
fn sized(octets: &[u8]) -> Result<(&[u8; 8], &[u8], usize), &'static str> {
    let len = 8 * (usize::from(*octets.get(1).ok_or(CUT_SHORT)?) + 1);
    let (header, _) = octets.split_at_checked(len).ok_or(CUT_SHORT)?;
    let (head, tail) = header.split_first_chunk::<8>().ok_or(CUT_SHORT)?;
    Ok((head, tail, len))
}

/// A routing header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routing<'a> {
    /// Next Header.
    pub(crate) next: u8,
    /// Hdr Ext Len and Routing Type.
    pub(crate) len_and_type: [u8; 2],
    /// Segments Left.
    pub(crate) segments_left: u8,
    /// Everything behind Segments Left.
    pub(crate) rest: &'a [u8],
    /// The addresses still to be visited are the last `segments_left` of these. Known for types 0 (RFC 2460) and 2
    /// (RFC 6275), which swap addresses on the way; the final form of any other cannot be told while a segment is left.
    pub(crate) addresses: &'a [[u8; 16]],
}

/// One option of an options header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv6Option<'a> {
    /// Pad1: a single octet.
    Pad1,
    /// Any other option.
    Other {
        /// Option Type and Opt Data Len.
        head: [u8; 2],
        /// Option Data.
        data: &'a [u8],
    },
}

/// The options of an options header; after an error it is over.
pub(crate) struct Ipv6Options<'a> {
    rest: &'a [u8],
}

impl<'a> Ipv6Options<'a> {
    pub(crate) const fn of(options: &'a [u8]) -> Self {
        Self { rest: options }
    }
}

impl<'a> Iterator for Ipv6Options<'a> {
    type Item = Result<Ipv6Option<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let (option, rest) = match self.rest {
            [] => return None,
            [0, rest @ ..] => (Some(Ipv6Option::Pad1), rest),
            [kind, len, rest @ ..] => match rest.split_at_checked(usize::from(*len)) {
                Some((data, rest)) => (Some(Ipv6Option::Other { head: [*kind, *len], data }), rest),
                None => (None, [].as_slice()),
            },
            [_] => (None, [].as_slice()),
        };
        self.rest = rest;
        Some(option.ok_or("IPv6 option length"))
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<IpPacket<'_>, Malformed> {
    let short = Malformed { what: "IPv6 header is cut short", at: 0 };
    let base = bytes.first_chunk::<BASE>().ok_or(short)?;
    // A jumbogram (RFC 2675) has Payload Length 0 and ends here too: the packet queue cannot carry one.
    if usize::from(u16::from_be_bytes([base[4], base[5]])) != bytes.len() - BASE {
        return Err(Malformed { what: "IPv6 Payload Length is not the packet's length", at: 4 });
    }
    let view = Ipv6Packet::new_checked(bytes).map_err(|_| short)?;
    let destination = view.dst_addr();
    let mut walk = Walk {
        bytes,
        at: BASE,
        link: Link { at: NEXT_HEADER, protocol: u8::from(view.next_header()) },
        count: 0,
        place: Place { end: BASE, link: Link { at: NEXT_HEADER, protocol: u8::from(view.next_header()) } },
        final_destination: destination,
        source_routed: false,
        fragment: None,
    };
    walk.run()?;
    let ends_at_ah = walk.fragment.is_none() && walk.link.protocol == PROTOCOL_AH;
    let upper = match walk.fragment {
        Some(_) => Upper::unreadable(walk.link.protocol),
        None => Upper::read(walk.link.protocol, walk.rest()),
    };
    // With AH, everything walked stands before it. Without, AH would go behind the last header that routers look at.
    let place = if ends_at_ah { Place { end: walk.at, link: walk.link } } else { walk.place };
    let (before, rest) = bytes.split_at_checked(place.end).ok_or(short)?;
    let chain = Chain { next: u8::from(view.next_header()), octets: before.get(BASE..).ok_or(short)? };
    let (ah, after, upper) = if ends_at_ah {
        let (ah, after) = AhView::split(rest, place.end)?;
        (Some(ah), after, behind_ah(ah.next_header(), after))
    } else {
        (None, rest, upper)
    };
    Ok(IpPacket {
        bytes,
        header: IpHeader::V6(Ipv6Header { base, destination, chain, final_destination: walk.final_destination }),
        flow: upper.flow(IpAddr::V6(view.src_addr()), IpAddr::V6(walk.final_destination)),
        destination: IpAddr::V6(destination),
        source_routed: walk.source_routed,
        fragment: walk.fragment,
        before,
        link: place.link,
        ah,
        after,
        upper,
    })
}

/// Behind AH only destination options are skipped. RFC 8200 §4.1 puts nothing else there before the transport, and
/// what is not skipped counts as a protocol of its own, which no permission for a transport covers.
pub(crate) fn behind_ah(protocol: u8, rest: &[u8]) -> Upper {
    match behind_options(protocol, rest) {
        (DESTINATION_OPTIONS, _) => Upper::unreadable(DESTINATION_OPTIONS),
        (protocol, rest) => Upper::read(protocol, rest),
    }
}

/// What stands behind destination options, and its protocol; that of options if they are cut short.
pub(super) fn behind_options(mut protocol: u8, mut rest: &[u8]) -> (u8, &[u8]) {
    while protocol == DESTINATION_OPTIONS {
        let behind = rest.get(1).and_then(|len| rest.split_at_checked(8 * (usize::from(*len) + 1)));
        let (Some(next), Some((_, behind))) = (rest.first(), behind) else { break };
        (protocol, rest) = (*next, behind);
    }
    (protocol, rest)
}

/// Where AH would stand.
#[derive(Clone, Copy)]
struct Place {
    /// Where the extension headers end that precede it.
    end: usize,
    link: Link,
}

/// A walk along the extension headers.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What names the header at `at`.
    link: Link,
    /// Extension headers up to now.
    count: usize,
    place: Place,
    final_destination: Ipv6Addr,
    source_routed: bool,
    fragment: Option<Fragment>,
}

impl<'a> Walk<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    /// Stops in front of AH, of anything that is no extension header, and behind the header of a true fragment.
    fn run(&mut self) -> Result<(), Malformed> {
        loop {
            let protocol = self.link.protocol;
            if protocol == HOP_BY_HOP && self.count > 0 {
                return Err(self.malformed("Hop-by-Hop Options header is not the first"));
            }
            let Some((extension, len)) = Extension::read(protocol, self.rest()).map_err(|what| self.malformed(what))? else {
                return Ok(());
            };
            match extension {
                Extension::Routing(routing) => self.note_route(&routing),
                Extension::AtomicFragment { .. } => self.note_fragment(),
                Extension::Options { .. } => {}
            }
            if self.count >= MAX_EXTENSIONS {
                return Err(self.malformed("too many extension headers"));
            }
            self.link = Link { at: self.at, protocol: extension.next() };
            self.at += len;
            self.count += 1;
            if protocol != DESTINATION_OPTIONS {
                self.place = Place { end: self.at, link: self.link };
            }
            if self.fragment.is_some() {
                return Ok(());
            }
        }
    }

    fn note_route(&mut self, routing: &Routing<'_>) {
        if routing.segments_left > 0 {
            self.source_routed = true;
            if let Some(last) = routing.addresses.last() {
                self.final_destination = Ipv6Addr::from(*last);
            }
        }
    }

    fn note_fragment(&mut self) {
        let Some([_, _, high, low, ..]) = self.rest().first_chunk::<FRAGMENT_LEN>() else { return };
        let field = u16::from_be_bytes([*high, *low]);
        let (offset, more) = (u32::from(field & 0xfff8), field & 1 == 1);
        if offset != 0 || more {
            self.fragment = Some(Fragment { offset, more });
        }
    }
}
