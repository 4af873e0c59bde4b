//! By what sets of the packet filter tell packets apart: whose bucket is it, which flow.

use super::expression::Expression;
use super::plan::{Family, Interface};

/// What a set keeps one element for each of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// An interface of this node.
    Interface(Interface),
    /// A TCP connection of this node, seen on one interface.
    Connection(Interface),
    /// Where a packet comes from, an IPv4 address or an IPv6 /64, on one interface.
    Source(Interface),
    /// The network that a packet comes from, an IPv4 /24 or an IPv6 /48, on one interface.
    SourceNetwork(Interface),
    /// The very address that a packet comes from, by whatever interface.
    SourceAddress,
    /// The very address that a packet goes to, by whatever interface.
    DestinationAddress,
    /// The very address of the other end on one interface: the source of what arrives, the destination of what leaves.
    Peer(Interface),
    /// Where a packet goes, an IPv4 address or an IPv6 /64, on one interface.
    Destination(Interface),
    /// The network that a packet goes to, an IPv4 /24 or an IPv6 /48, on one interface.
    DestinationNetwork(Interface),
    /// A user of this node, by the socket that a packet comes from.
    Owner,
    /// Addresses, protocol and ports of a packet that leaves: a flow.
    Flow,
    /// Addresses and SPI of a packet with AH, or of its first fragment.
    Association,
    /// The same of the packet that an ICMP error quotes, if AH stands there just behind the IP header.
    QuotedAssociation,
    /// Destination and SPI of a packet with AH, by which workers share them ([`crate::spread`]).
    Recipient,
    /// The same of the packet that an ICMP error quotes, if AH stands there just behind the IP header.
    QuotedRecipient,
    /// Addresses and identification of a datagram in fragments.
    Datagram,
    /// Nothing: one bucket for whatever comes, in several rules.
    Everything,
}

impl Key {
    /// How many elements at most.
    pub(super) const fn capacity(self) -> u32 {
        match self {
            // The node's own interface indices: packets cannot fill it.
            Self::Interface(_) => 1024,
            // Only what belongs to connections comes so far, on each interface on which somebody guesses one.
            Self::Connection(_) | Self::Source(Interface::Arriving) | Self::SourceNetwork(_) => 16_384,
            // Addresses that this node knows, of which another set holds so many.
            Self::Peer(_) => 65_536,
            // An element that has ended may stand beside the next for a while.
            Self::Owner | Self::Everything => 1024,
            // What goes out was let in before, within a bucket.
            Self::Destination(_) | Self::DestinationNetwork(_) => 16_384,
            Self::Flow
            | Self::Association
            | Self::QuotedAssociation
            | Self::Recipient
            | Self::QuotedRecipient
            | Self::Datagram
            | Self::SourceAddress
            | Self::DestinationAddress
            | Self::Source(Interface::Leaving) => 65_536,
        }
    }

    /// Octets of one key. Each part begins at a multiple of 4.
    pub(super) fn octets(self, family: Family) -> u32 {
        self.parts(family).iter().map(|part| part.octets.next_multiple_of(4)).sum()
    }

    /// How other programs show the key: six bits for each part.
    pub(super) fn kind(self, family: Family) -> u32 {
        self.parts(family).iter().fold(0, |kind, part| kind << 6 | part.kind)
    }

    /// Loads the key of a packet whose transport header is in its place.
    pub(super) fn load(self, family: Family) -> Vec<Expression> {
        one_behind_the_other(self.parts(family))
    }

    fn parts(self, family: Family) -> Vec<Part> {
        let interface = |interface| match interface {
            Interface::Arriving => Part::new(INTERFACE_INDEX, 4, Expression::LoadInputIndex),
            Interface::Leaving => Part::new(INTERFACE_INDEX, 4, Expression::LoadOutputIndex),
        };
        match self {
            Self::Interface(of) => vec![interface(of)],
            Self::Connection(of) => {
                let [source, destination] = addresses(family);
                let remote = if of == Interface::Arriving { source } else { destination };
                let [source_port, destination_port] = ports(0);
                vec![interface(of), remote, source_port, destination_port]
            }
            Self::Source(of) => {
                let source = match family {
                    Family::Ipv4 => Part::new(IPV4_ADDRESS, 4, Expression::LoadNetwork { offset: 12, len: 4 }),
                    Family::Ipv6 => Part::new(INTEGER, 8, Expression::LoadNetwork { offset: 8, len: 8 }),
                };
                vec![interface(of), source]
            }
            Self::SourceNetwork(of) => {
                let network = match family {
                    Family::Ipv4 => Part::new(INTEGER, 3, Expression::LoadNetwork { offset: 12, len: 3 }),
                    Family::Ipv6 => Part::new(INTEGER, 6, Expression::LoadNetwork { offset: 8, len: 6 }),
                };
                vec![interface(of), network]
            }
            Self::SourceAddress => {
                let [source, _] = addresses(family);
                vec![source]
            }
            Self::DestinationAddress => {
                let [_, destination] = addresses(family);
                vec![destination]
            }
            Self::Peer(of) => {
                let [source, destination] = addresses(family);
                vec![interface(of), if of == Interface::Arriving { source } else { destination }]
            }
            Self::Destination(of) => {
                let destination = match family {
                    Family::Ipv4 => Part::new(IPV4_ADDRESS, 4, Expression::LoadNetwork { offset: 16, len: 4 }),
                    Family::Ipv6 => Part::new(INTEGER, 8, Expression::LoadNetwork { offset: 24, len: 8 }),
                };
                vec![interface(of), destination]
            }
            Self::DestinationNetwork(of) => {
                let network = match family {
                    Family::Ipv4 => Part::new(INTEGER, 3, Expression::LoadNetwork { offset: 16, len: 3 }),
                    Family::Ipv6 => Part::new(INTEGER, 6, Expression::LoadNetwork { offset: 24, len: 6 }),
                };
                vec![interface(of), network]
            }
            Self::Owner => vec![Part::new(USER, 4, Expression::LoadOwner)],
            Self::Association => {
                let [source, destination] = addresses(family);
                vec![source, destination, Part::new(INTEGER, 4, LOAD_SPI)]
            }
            Self::QuotedAssociation => quoted(family).into(),
            Self::Recipient => {
                let [_, destination] = addresses(family);
                vec![destination, Part::new(INTEGER, 4, LOAD_SPI)]
            }
            Self::QuotedRecipient => {
                let [_, destination, spi] = quoted(family);
                vec![destination, spi]
            }
            Self::Datagram => {
                let [source, destination] = addresses(family);
                // RFC 791 §3.1, RFC 8200 §4.5.
                let identification = match family {
                    Family::Ipv4 => Part::new(INTEGER, 2, Expression::LoadNetwork { offset: 4, len: 2 }),
                    Family::Ipv6 => Part::new(INTEGER, 4, Expression::LoadExtension { kind: FRAGMENT_HEADER, offset: 4, len: 4 }),
                };
                vec![source, destination, identification]
            }
            Self::Everything => vec![Part::new(INTEGER, 4, Expression::Load(vec![0; 4]))],
            Self::Flow => flow(family, Part::new(PROTOCOL, 1, Expression::LoadProtocol), Some(0)),
        }
    }
}

/// Loads [`Key::Flow`] of a packet in which `octets` of AH stand before the transport header.
pub(super) fn flow_behind_ah(family: Family, octets: u32) -> Vec<Expression> {
    one_behind_the_other(flow(family, Part::new(PROTOCOL, 1, NEXT_HEADER_OF_AH), Some(octets)))
}

/// Loads the [`Key::Flow`] that stands for all packets of a protocol between two addresses whatever their ports; under AH or not.
pub(super) fn flow_without_ports(family: Family, under_ah: bool) -> Vec<Expression> {
    let protocol = if under_ah { NEXT_HEADER_OF_AH } else { Expression::LoadProtocol };
    one_behind_the_other(flow(family, Part::new(PROTOCOL, 1, protocol), None))
}

/// The protocol that stands for every kind of tunnel, where a set knows that a source has one.
pub(super) const ANY_TUNNEL: u8 = crate::tunnel::IPV4_INSIDE;

/// Loads the [`Key::Flow`] that stands for all tunnels of the node to which a packet goes.
pub(super) fn tunnels_towards(family: Family) -> Vec<Expression> {
    let [source, destination] = addresses(family);
    let here = Part { load: destination.load.clone(), ..source };
    let nowhere = match family {
        Family::Ipv4 => vec![0; 4],
        Family::Ipv6 => vec![0; 16],
    };
    let nowhere = Part { load: Expression::Load(nowhere), ..destination };
    let protocol = Part::new(PROTOCOL, 1, Expression::Load(vec![ANY_TUNNEL, 0, 0, 0]));
    let [source_port, destination_port] = no_ports();
    one_behind_the_other(vec![here, nowhere, protocol, source_port, destination_port])
}

/// Loads the [`Key::Flow`] that stands for the SPI of a packet with AH, if it is a tunnel's: the two halves of the SPI are where ports would
/// be. So it is known as a tunnel's also where options stand between AH and what is inside.
pub(super) fn tunnel(family: Family) -> Vec<Expression> {
    tunnel_of(addresses(family), SPI)
}

/// The same of the packet that an ICMP error quotes, if AH stands there just behind the IP header.
pub(super) fn quoted_tunnel(family: Family) -> Vec<Expression> {
    let [source, destination, _] = quoted(family);
    tunnel_of([source, destination], QUOTE + header(family) + SPI)
}

/// The SPI begins so many octets behind the beginning of the transport header.
fn tunnel_of([source, destination]: [Part; 2], spi: u32) -> Vec<Expression> {
    let protocol = Part::new(PROTOCOL, 1, Expression::Load(vec![ANY_TUNNEL, 0, 0, 0]));
    let [high, low] = ports(spi);
    one_behind_the_other(vec![source, destination, protocol, high, low])
}

/// The IPv6 Fragment header (RFC 8200 §4.5).
pub(super) const FRAGMENT_HEADER: u8 = 44;
/// Where an ICMP error quotes what it is about (RFC 792, RFC 4443 §2.1).
pub(super) const QUOTE: u32 = 8;
/// Where the SPI stands in AH (RFC 4302 §2.4).
const SPI: u32 = 4;
/// The SPI of a packet with AH.
pub(super) const LOAD_SPI: Expression = Expression::LoadTransport { offset: SPI, len: 4 };

/// RFC 4302 §2.1.
pub(super) const NEXT_HEADER_OF_AH: Expression = Expression::LoadTransport { offset: 0, len: 1 };

/// Ports stand so many octets behind the beginning of the transport header, or are not told apart.
fn flow(family: Family, protocol: Part, ports_behind: Option<u32>) -> Vec<Part> {
    let [source, destination] = addresses(family);
    let [source_port, destination_port] = ports_behind.map_or_else(no_ports, ports);
    vec![source, destination, protocol, source_port, destination_port]
}

/// One part of a key.
struct Part {
    /// Its kind, as nft numbers them.
    kind: u32,
    octets: u32,
    load: Expression,
}

// Kinds of parts.
const INTEGER: u32 = 4;
const IPV4_ADDRESS: u32 = 7;
const IPV6_ADDRESS: u32 = 8;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const INTERFACE_INDEX: u32 = 20;
const USER: u32 = 24;

impl Part {
    const fn new(kind: u32, octets: u32, load: Expression) -> Self {
        Self { kind, octets, load }
    }
}

/// Source, destination and SPI of a packet with AH that an ICMP error quotes.
fn quoted(family: Family) -> [Part; 3] {
    let [source, destination] = addresses(family);
    let part = |part: Part, offset| Part { load: Expression::LoadTransport { offset: QUOTE + offset, len: part.octets }, ..part };
    let (source_at, destination_at) = match family {
        Family::Ipv4 => (12, 16),
        Family::Ipv6 => (8, 24),
    };
    let spi = Part::new(INTEGER, 4, LOAD_SPI);
    [part(source, source_at), part(destination, destination_at), part(spi, header(family) + SPI)]
}

/// Octets of an IP header without options.
const fn header(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 20,
        Family::Ipv6 => 40,
    }
}

/// Source and destination.
fn addresses(family: Family) -> [Part; 2] {
    let (kind, len, offsets) = match family {
        Family::Ipv4 => (IPV4_ADDRESS, 4, [12, 16]),
        Family::Ipv6 => (IPV6_ADDRESS, 16, [8, 24]),
    };
    offsets.map(|offset| Part::new(kind, len, Expression::LoadNetwork { offset, len }))
}

/// Source and destination, so many octets behind the beginning of the transport header.
fn ports(behind: u32) -> [Part; 2] {
    [0, 2].map(|offset| Part::new(PORT, 2, Expression::LoadTransport { offset: behind.saturating_add(offset), len: 2 }))
}

/// In the place of ports that are not told apart.
fn no_ports() -> [Part; 2] {
    [(); 2].map(|()| Part::new(PORT, 2, Expression::Load(vec![0; 4])))
}

fn one_behind_the_other(parts: Vec<Part>) -> Vec<Expression> {
    let mut at = 0;
    let place = |part: Part| {
        let octets = at;
        at += part.octets.next_multiple_of(4);
        if octets == 0 { part.load } else { Expression::Behind { octets, load: Box::new(part.load) } }
    };
    parts.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel takes at most 64 octets, and cuts short what does not begin where the last part ends.
    #[test]
    fn parts_of_a_key_stand_one_behind_the_other() {
        for (key, family, octets) in [
            (Key::Interface(Interface::Arriving), Family::Ipv4, 4),
            (Key::Connection(Interface::Arriving), Family::Ipv4, 16),
            (Key::Connection(Interface::Leaving), Family::Ipv6, 28),
            (Key::Owner, Family::Ipv4, 4),
            (Key::Source(Interface::Leaving), Family::Ipv4, 8),
            (Key::Source(Interface::Arriving), Family::Ipv6, 12),
            (Key::Flow, Family::Ipv4, 20),
            (Key::Flow, Family::Ipv6, 44),
            (Key::Association, Family::Ipv4, 12),
            (Key::Association, Family::Ipv6, 36),
            (Key::QuotedAssociation, Family::Ipv4, 12),
            (Key::QuotedAssociation, Family::Ipv6, 36),
            (Key::SourceAddress, Family::Ipv4, 4),
            (Key::SourceAddress, Family::Ipv6, 16),
            (Key::DestinationAddress, Family::Ipv6, 16),
            (Key::Peer(Interface::Arriving), Family::Ipv4, 8),
            (Key::Peer(Interface::Leaving), Family::Ipv6, 20),
            (Key::SourceNetwork(Interface::Arriving), Family::Ipv4, 8),
            (Key::SourceNetwork(Interface::Arriving), Family::Ipv6, 12),
            (Key::Destination(Interface::Leaving), Family::Ipv6, 12),
            (Key::DestinationNetwork(Interface::Leaving), Family::Ipv4, 8),
            (Key::DestinationNetwork(Interface::Leaving), Family::Ipv6, 12),
            (Key::Datagram, Family::Ipv4, 12),
            (Key::Datagram, Family::Ipv6, 36),
            (Key::Everything, Family::Ipv6, 4),
        ] {
            assert_eq!(key.octets(family), octets, "{key:?} {family}");
            assert!(key.kind(family) < 1 << 30, "{key:?} {family}");
        }
        let places = |load: Vec<Expression>| {
            let place = |expression: &Expression| if let Expression::Behind { octets, .. } = expression { *octets } else { 0 };
            load.iter().map(place).collect::<Vec<_>>()
        };
        assert_eq!(places(Key::Flow.load(Family::Ipv4)), [0, 4, 8, 12, 16]);
        // What stands with a datagram takes the place of its identification, and makes it an association.
        let place_of_the_spi = 4 * u32::try_from(places(Key::Association.load(Family::Ipv4)).len() - 1).unwrap();
        assert_eq!(places(Key::Datagram.load(Family::Ipv4)).last(), Some(&place_of_the_spi));
        assert_eq!(places(Key::Datagram.load(Family::Ipv6)).last(), places(Key::Association.load(Family::Ipv6)).last());
        assert_eq!(places(flow_behind_ah(Family::Ipv6, 32)), [0, 16, 32, 36, 40]);
        assert_eq!(places(flow_without_ports(Family::Ipv6, false)), [0, 16, 32, 36, 40]);
        assert_eq!(places(tunnels_towards(Family::Ipv6)), [0, 16, 32, 36, 40]);
        assert_eq!((places(tunnel(Family::Ipv4)), places(quoted_tunnel(Family::Ipv6))), (vec![0, 4, 8, 12, 16], vec![0, 16, 32, 36, 40]));
    }
}
