//! The expressions of nf_tables that the rules are made of, and their attributes (`linux/netfilter/nf_tables.h`).
//!
//! Values are compared in the order in which they stand in the packet; what the kernel computes itself (mark, address
//! type) is in host order.

use crate::netlink::Writer;

use super::plan::{Bucket, Family};

/// One expression of a rule. Tests work on the kernel's register 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads the protocol behind IP and its IPv6 extension headers (AH counts as such a protocol).
    LoadProtocol,
    /// Loads the packet's mark.
    LoadMark,
    /// Loads the name of the arriving interface.
    LoadInputName,
    /// Loads the name of the leaving interface.
    LoadOutputName,
    /// Loads what kind of address the destination is to this node.
    LoadDestinationType,
    /// Loads `len` octets at `offset` of the IP header.
    LoadNetwork { offset: u32, len: u32 },
    /// Loads `len` octets at `offset` of the transport header. The rule ends here for a later fragment.
    LoadTransport { offset: u32, len: u32 },
    /// Loads 1 if the packet has the IPv6 extension header, else 0.
    LoadHasExtension(u8),
    /// Ands the register with a mask of its length.
    Mask(Vec<u8>),
    /// The rule goes on if the register equals the value.
    Equal(Vec<u8>),
    /// The rule goes on if the register differs from the value.
    Unequal(Vec<u8>),
    /// The rule goes on if the register is in the range, both ends included.
    Between(Vec<u8>, Vec<u8>),
    /// The rule goes on as long as the bucket has tokens.
    Limit(Bucket),
    /// Counts packets and bytes.
    Counter,
    /// Lets the packet pass this table.
    Accept,
    /// Drops the packet.
    Drop,
    /// Goes on in another chain and comes back from its end.
    Jump(&'static str),
    /// Hands the packet to a queue; dropped if nobody listens.
    Queue(u16),
    /// Never matches a packet, but its presence switches reassembly on.
    Reassembly,
}

const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
/// Each kernel name takes a whole interface name, NULs included (`IFNAMSIZ`).
const INTERFACE_NAME_LEN: usize = 16;

// Keys of `meta`.
const META_MARK: u32 = 3;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const META_PROTOCOL: u32 = 16;

/// Kinds of addresses as the routing table knows them (`RTN_UNICAST`, `RTN_LOCAL`).
pub(super) const ADDRESS_UNICAST: u32 = 1;
/// See [`ADDRESS_UNICAST`].
pub(super) const ADDRESS_LOCAL: u32 = 2;

impl Expression {
    /// Writes the expression as one element of a rule's list.
    pub(super) fn write(&self, list: &mut Writer) {
        const ELEMENT: u16 = 1;
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        list.nest(ELEMENT, |element| {
            element.put_text(NAME, self.name());
            element.nest(DATA, |data| self.write_data(data));
        });
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::LoadProtocol | Self::LoadMark | Self::LoadInputName | Self::LoadOutputName => "meta",
            Self::LoadDestinationType => "fib",
            Self::LoadNetwork { .. } | Self::LoadTransport { .. } => "payload",
            Self::LoadHasExtension(_) => "exthdr",
            Self::Mask(_) => "bitwise",
            Self::Equal(_) | Self::Unequal(_) => "cmp",
            Self::Between(..) => "range",
            Self::Limit(_) => "limit",
            Self::Counter => "counter",
            Self::Accept | Self::Drop | Self::Jump(_) => "immediate",
            // This kernel has no `queue` expression: the older filter's target does it.
            Self::Queue(_) => "target",
            Self::Reassembly => "match",
        }
    }

    fn write_data(&self, data: &mut Writer) {
        match self {
            Self::LoadProtocol => meta(data, META_PROTOCOL),
            Self::LoadMark => meta(data, META_MARK),
            Self::LoadInputName => meta(data, META_INPUT_NAME),
            Self::LoadOutputName => meta(data, META_OUTPUT_NAME),
            Self::LoadDestinationType => {
                const RESULT_ADDRESS_TYPE: u32 = 3;
                const OF_DESTINATION: u32 = 2;
                data.put_be32(1, REGISTER);
                data.put_be32(2, RESULT_ADDRESS_TYPE);
                data.put_be32(3, OF_DESTINATION);
            }
            Self::LoadNetwork { offset, len } => payload(data, 1, *offset, *len),
            Self::LoadTransport { offset, len } => payload(data, 2, *offset, *len),
            Self::LoadHasExtension(kind) => {
                const PRESENT: u32 = 1;
                data.put_be32(1, REGISTER);
                data.put_u8(2, *kind);
                data.put_be32(3, 0);
                data.put_be32(4, 1);
                data.put_be32(5, PRESENT);
            }
            Self::Mask(mask) => {
                data.put_be32(1, REGISTER);
                data.put_be32(2, REGISTER);
                data.put_be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                value(data, 4, mask);
                value(data, 5, &vec![0; mask.len()]);
            }
            Self::Equal(wanted) => compare(data, 0, wanted),
            Self::Unequal(unwanted) => compare(data, 1, unwanted),
            Self::Between(from, to) => {
                data.put_be32(1, REGISTER);
                data.put_be32(2, 0);
                value(data, 3, from);
                value(data, 4, to);
            }
            Self::Limit(bucket) => {
                data.put_be64(1, u64::from(bucket.rate));
                data.put_be64(2, 1); // a second
                data.put_be32(3, bucket.burst);
                data.put_be32(4, 0); // packets, not bytes
                data.put_be32(5, 0); // up to the rate, not above it
            }
            Self::Counter => {}
            Self::Accept => verdict(data, 1, None),
            Self::Drop => verdict(data, 0, None),
            Self::Jump(chain) => verdict(data, (-3i32).cast_unsigned(), Some(chain)),
            Self::Queue(number) => {
                // Revision 3: number and how many queues, flags (1 would let packets pass without a listener), padding.
                let [high, low] = number.to_ne_bytes();
                let [one_high, one_low] = 1u16.to_ne_bytes();
                compat(data, "NFQUEUE", 3, &[high, low, one_high, one_low, 0, 0, 0, 0]);
            }
            Self::Reassembly => compat(data, "socket", 3, &[0; 8]),
        }
    }
}

/// A value of 32 bits that the kernel computes itself, as it is compared.
pub(super) fn host(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// An interface name as it is compared.
pub(super) fn interface_name(name: &str) -> Vec<u8> {
    let mut octets = name.as_bytes().to_vec();
    octets.resize(INTERFACE_NAME_LEN, 0);
    octets
}

/// Tests for a protocol behind IP.
pub(super) fn protocol(number: u8) -> Vec<Expression> {
    vec![Expression::LoadProtocol, Expression::Equal(vec![number])]
}

/// Tests for a source port.
pub(super) fn source_port(port: u16) -> Vec<Expression> {
    vec![Expression::LoadTransport { offset: 0, len: 2 }, Expression::Equal(port.to_be_bytes().to_vec())]
}

/// Tests for a destination port.
pub(super) fn destination_port(port: u16) -> Vec<Expression> {
    vec![Expression::LoadTransport { offset: 2, len: 2 }, Expression::Equal(port.to_be_bytes().to_vec())]
}

/// Tests for a packet that is no fragment of any kind.
pub(super) fn unfragmented(family: Family) -> Vec<Expression> {
    const FRAGMENT_HEADER: u8 = 44;
    match family {
        // More fragments, or an offset.
        Family::Ipv4 => {
            vec![Expression::LoadNetwork { offset: 6, len: 2 }, Expression::Mask(vec![0x3f, 0xff]), Expression::Equal(vec![0, 0])]
        }
        Family::Ipv6 => vec![Expression::LoadHasExtension(FRAGMENT_HEADER), Expression::Equal(vec![0])],
    }
}

/// Switches reassembly on for the family, behind a test that no packet passes: there is no protocol 255.
pub(super) fn reassembly() -> Vec<Expression> {
    vec![Expression::LoadProtocol, Expression::Equal(vec![255]), Expression::Reassembly]
}

fn meta(data: &mut Writer, key: u32) {
    data.put_be32(1, REGISTER);
    data.put_be32(2, key);
}

fn payload(data: &mut Writer, base: u32, offset: u32, len: u32) {
    data.put_be32(1, REGISTER);
    data.put_be32(2, base);
    data.put_be32(3, offset);
    data.put_be32(4, len);
}

fn compare(data: &mut Writer, operator: u32, with: &[u8]) {
    data.put_be32(1, REGISTER);
    data.put_be32(2, operator);
    value(data, 3, with);
}

fn value(data: &mut Writer, kind: u16, octets: &[u8]) {
    const VALUE: u16 = 1;
    data.nest(kind, |nested| nested.put(VALUE, octets));
}

fn verdict(data: &mut Writer, code: u32, chain: Option<&str>) {
    const VERDICT: u16 = 2;
    data.put_be32(1, VERDICT_REGISTER);
    data.nest(2, |nested| {
        nested.nest(VERDICT, |verdict| {
            verdict.put_be32(1, code);
            if let Some(chain) = chain {
                verdict.put_text(2, chain);
            }
        });
    });
}

/// An extension of the older packet filter: name, revision, and its own structure in host order.
fn compat(data: &mut Writer, name: &str, revision: u32, info: &[u8]) {
    data.put_text(1, name);
    data.put_be32(2, revision);
    data.put(3, info);
}
