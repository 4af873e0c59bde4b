//! Message-Routing-Information in as little memory as names of a million routing states allow.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{Direction, LooseEnd, Mri, PathCoupled};

/// An [`Mri`]: equal if and only if that is, in an order of its own.
///
/// What is absent is zero, and its bit in the flags is too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PackedMri {
    /// An IPv4 address has the first four octets.
    source: [u8; 16],
    destination: [u8; 16],
    ports: [u16; 2],
    /// The upper and the lower half of each.
    spi: [u16; 2],
    flow_label: [u16; 2],
    flags: u16,
    prefixes: [u8; 2],
    protocol: u8,
    ds_field: u8,
}

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
        let (source, source_v6) = packed(mri.source());
        let (destination, destination_v6) = packed(mri.destination());
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        let ends = flag(source_v6, SOURCE_V6) | flag(destination_v6, DESTINATION_V6) | flag(direction == Direction::Upstream, UPSTREAM);
        let bare = Self {
            source,
            destination,
            ports: [0; 2],
            spi: [0; 2],
            flow_label: [0; 2],
            flags: ends | LOOSE_END,
            prefixes: [0; 2],
            protocol: 0,
            ds_field: 0,
        };
        let Mri::PathCoupled(mri) = mri else { return bare };
        Self {
            ports: [mri.source_port.unwrap_or(0), mri.destination_port.unwrap_or(0)],
            spi: halves(mri.spi.unwrap_or(0)),
            flow_label: halves(mri.flow_label.unwrap_or(0)),
            flags: ends
                | flag(mri.protocol.is_some(), PROTOCOL)
                | flag(mri.ds_field.is_some(), DS_FIELD)
                | flag(mri.flow_label.is_some(), FLOW_LABEL)
                | flag(mri.spi.is_some(), SPI)
                | flag(mri.source_port.is_some(), SOURCE_PORT)
                | flag(mri.destination_port.is_some(), DESTINATION_PORT),
            prefixes: [mri.source_prefix, mri.destination_prefix],
            protocol: mri.protocol.unwrap_or(0),
            ds_field: mri.ds_field.unwrap_or(0),
            ..bare
        }
    }

    /// As it was.
    pub(super) fn unpacked(&self) -> Mri {
        let has = |flag: u16| self.flags & flag != 0;
        let direction = if has(UPSTREAM) { Direction::Upstream } else { Direction::Downstream };
        let (source, destination) = (unpacked(self.source, has(SOURCE_V6)), unpacked(self.destination, has(DESTINATION_V6)));
        if has(LOOSE_END) {
            return Mri::LooseEnd(LooseEnd { direction, source, destination });
        }
        let ([source_prefix, destination_prefix], [source_port, destination_port]) = (self.prefixes, self.ports);
        Mri::PathCoupled(PathCoupled {
            direction,
            source,
            destination,
            source_prefix,
            destination_prefix,
            protocol: has(PROTOCOL).then_some(self.protocol),
            ds_field: has(DS_FIELD).then_some(self.ds_field),
            flow_label: has(FLOW_LABEL).then_some(whole(self.flow_label)),
            spi: has(SPI).then_some(whole(self.spi)),
            source_port: has(SOURCE_PORT).then_some(source_port),
            destination_port: has(DESTINATION_PORT).then_some(destination_port),
        })
    }
}

/// And whether it is of IPv6.
fn packed(address: IpAddr) -> ([u8; 16], bool) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false)
        }
        IpAddr::V6(address) => (address.octets(), true),
    }
}

fn unpacked(octets: [u8; 16], is_v6: bool) -> IpAddr {
    let [a, b, c, d, ..] = octets;
    if is_v6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() }
}

/// In halves it needs no alignment of its own, which would cost a word.
fn halves(number: u32) -> [u16; 2] {
    let [a, b, c, d] = number.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

fn whole([upper, lower]: [u16; 2]) -> u32 {
    u32::from(upper) << 16 | u32::from(lower)
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
