//! Message-Routing-Information in as little memory as names of a million routing states allow.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{Direction, LooseEnd, Mri, PathCoupled};

/// An [`Mri`]: equal if and only if that is, in an order of its own.
///
/// In octets, so that it needs no alignment, which would cost a word. What is absent is zero, and its flag is clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PackedMri([u8; LENGTH]);

/// Source and destination, of which an IPv4 address has the first four octets; source port, destination port, SPI, flow label, flags,
/// protocol, Diffserv field; the two prefix lengths.
const LENGTH: usize = 16 + 16 + 16 + 2;

const UPSTREAM: u16 = 1;
const LOOSE_END: u16 = 1 << 1;
const SOURCE_V6: u16 = 1 << 2;
const DESTINATION_V6: u16 = 1 << 3;
const PROTOCOL: u16 = 1 << 4;
const DS_FIELD: u16 = 1 << 5;
const FLOW_LABEL: u16 = 1 << 6;
const SPI: u16 = 1 << 7;
const SOURCE_PORT: u16 = 1 << 8;
const DESTINATION_PORT: u16 = 1 << 9;

impl PackedMri {
    /// The same routing information in the given direction.
    pub(super) fn of(mri: &Mri, direction: Direction) -> Self {
        let upstream = flag(direction == Direction::Upstream, UPSTREAM);
        match mri {
            Mri::LooseEnd(LooseEnd { source, destination, .. }) => Self::packed(*source, *destination, upstream | LOOSE_END, 0, [0; 2]),
            Mri::PathCoupled(mri) => {
                let flags = upstream
                    | flag(mri.protocol.is_some(), PROTOCOL)
                    | flag(mri.ds_field.is_some(), DS_FIELD)
                    | flag(mri.flow_label.is_some(), FLOW_LABEL)
                    | flag(mri.spi.is_some(), SPI)
                    | flag(mri.source_port.is_some(), SOURCE_PORT)
                    | flag(mri.destination_port.is_some(), DESTINATION_PORT);
                let fields = u128::from(mri.ds_field.unwrap_or(0))
                    | u128::from(mri.protocol.unwrap_or(0)) << 8
                    | u128::from(mri.flow_label.unwrap_or(0)) << 32
                    | u128::from(mri.spi.unwrap_or(0)) << 64
                    | u128::from(mri.destination_port.unwrap_or(0)) << 96
                    | u128::from(mri.source_port.unwrap_or(0)) << 112;
                Self::packed(mri.source, mri.destination, flags, fields, [mri.source_prefix, mri.destination_prefix])
            }
        }
    }

    fn packed(source: IpAddr, destination: IpAddr, flags: u16, fields: u128, prefixes: [u8; 2]) -> Self {
        let flags = flags | flag(source.is_ipv6(), SOURCE_V6) | flag(destination.is_ipv6(), DESTINATION_V6);
        let fields = (fields | u128::from(flags) << 16).to_be_bytes();
        let mut packed = [0; LENGTH];
        let (ends, rest) = packed.split_at_mut(32);
        let (first, second) = ends.split_at_mut(16);
        let (middle, last) = rest.split_at_mut(16);
        first.copy_from_slice(&octets(source));
        second.copy_from_slice(&octets(destination));
        middle.copy_from_slice(&fields);
        last.copy_from_slice(&prefixes);
        Self(packed)
    }

    /// As it was.
    pub(super) fn unpacked(&self) -> Mri {
        let part = |from: usize| self.0.get(from..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        let (source, destination, fields) = (part(0), part(16), u128::from_be_bytes(part(32)));
        let [.., source_prefix, destination_prefix] = self.0;
        // Each cut to its own bits.
        let octet = |place: u32| (fields >> place & 0xff) as u8;
        let port = |place: u32| (fields >> place & 0xffff) as u16;
        let number = |place: u32| (fields >> place & 0xffff_ffff) as u32;
        let flags = port(16);
        let has = |flag: u16| flags & flag != 0;
        let direction = if has(UPSTREAM) { Direction::Upstream } else { Direction::Downstream };
        let (source, destination) = (address(source, has(SOURCE_V6)), address(destination, has(DESTINATION_V6)));
        if has(LOOSE_END) {
            return Mri::LooseEnd(LooseEnd { direction, source, destination });
        }
        Mri::PathCoupled(PathCoupled {
            direction,
            source,
            destination,
            source_prefix,
            destination_prefix,
            protocol: has(PROTOCOL).then(|| octet(8)),
            ds_field: has(DS_FIELD).then(|| octet(0)),
            flow_label: has(FLOW_LABEL).then(|| number(32)),
            spi: has(SPI).then(|| number(64)),
            source_port: has(SOURCE_PORT).then(|| port(112)),
            destination_port: has(DESTINATION_PORT).then(|| port(96)),
        })
    }
}

fn flag(set: bool, flag: u16) -> u16 {
    if set { flag } else { 0 }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn address(octets: [u8; 16], is_v6: bool) -> IpAddr {
    let [a, b, c, d, ..] = octets;
    if is_v6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn packed_routing_information_takes_little_more_than_what_it_says() {
        assert_eq!(size_of::<PackedMri>(), 50);
    }

    /// Everything that the types can say, the nonsense included that an application may ask for: each field absent, zero, and the greatest.
    #[test]
    fn packed_routing_information_is_that_which_was_packed() {
        let addresses: [IpAddr; 5] = [
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into(),
            Ipv6Addr::new(0xc000, 0x201, 0, 0, 0, 0, 0, 0).into(),
        ];
        let mut packed = BTreeSet::new();
        let mut add = |mri: Mri| {
            let one = PackedMri::of(&mri, mri.direction());
            assert_eq!(one.unpacked(), mri);
            assert_eq!(PackedMri::of(&mri, mri.direction().inverted()).unpacked(), mri.inverted());
            assert!(packed.insert(one), "{mri:?} packed is something else packed");
        };
        for (source, destination) in addresses.into_iter().flat_map(|source| addresses.map(|destination| (source, destination))) {
            for direction in [Direction::Downstream, Direction::Upstream] {
                add(Mri::LooseEnd(LooseEnd { direction, source, destination }));
                for number in 0..3_u32.pow(6) {
                    let of = |place: u32, most: u32| [None, Some(0), Some(most)][(number / 3_u32.pow(place) % 3) as usize];
                    add(Mri::PathCoupled(PathCoupled {
                        direction,
                        source,
                        destination,
                        source_prefix: (number % 130) as u8,
                        destination_prefix: (number % 131) as u8,
                        protocol: of(0, 0xff).map(|value| value as u8),
                        ds_field: of(1, 0xff).map(|value| value as u8),
                        flow_label: of(2, u32::MAX),
                        spi: of(3, 0x1234_5678),
                        source_port: of(4, 0xffff).map(|value| value as u16),
                        destination_port: of(5, 0xffff).map(|value| value as u16),
                    }));
                }
            }
        }
    }
}
