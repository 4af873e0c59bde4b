//! The expressions of nf_tables that the rules are made of, and their attributes (`linux/netfilter/nf_tables.h`).
//!
//! Values are compared in the order in which they stand in the packet; what the kernel computes itself (mark, type) is in host order.

use std::borrow::Cow;

use ipnet::IpNet;

use crate::netlink::Writer;

use super::key::FRAGMENT_HEADER;
use super::plan::{Bucket, Family, Interface};

/// One expression of a rule. Tests work on the kernel's register 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads the protocol behind IP and its IPv6 extension headers (AH counts as such a protocol).
    LoadProtocol,
    /// Loads the packet's mark.
    LoadMark,
    /// Loads the packet's class for the queues of links.
    LoadPriority,
    /// Loads the index of the arriving interface.
    LoadInputIndex,
    /// Loads the index of the leaving interface.
    LoadOutputIndex,
    /// Loads the mark of the socket that the packet is for. The rule ends here if there is none, and for a connection that
    /// is only being opened or waits in TIME-WAIT.
    LoadSocketMark,
    /// Loads 1 if the socket that the packet is for has `IP_TRANSPARENT`, else 0. The rule ends here if there is none.
    LoadSocketTransparent,
    /// Loads 1 if the socket that the packet is for has no local address of its own, as a listener on all addresses, else 0. The
    /// rule ends here as with [`Self::LoadSocketMark`].
    LoadSocketWildcard,
    /// Loads the name of the arriving interface.
    LoadInputName,
    /// Loads the name of the leaving interface.
    LoadOutputName,
    /// Loads what kind of address the destination is to this node.
    LoadDestinationType,
    /// Loads the user who owns the socket that the packet comes from. The rule ends here if nobody does, as with what the kernel
    /// sends itself, and what it still sends for a socket that was closed.
    LoadOwner,
    /// Loads a value.
    Load(Vec<u8>),
    /// Loads what `load` does, but that many octets, a multiple of 4, behind the register's beginning: one part of a [`Key`].
    ///
    /// [`Key`]: super::key::Key
    Behind { octets: u32, load: Box<Expression> },
    /// Loads `len` octets at `offset` of the IP header.
    LoadNetwork { offset: u32, len: u32 },
    /// Loads `len` octets at `offset` of the transport header. The rule ends here for a later fragment.
    LoadTransport { offset: u32, len: u32 },
    /// Loads 1 if the packet has the IPv6 extension header, else 0.
    LoadHasExtension(u8),
    /// Loads `len` octets at `offset` of the first IPv6 extension header of its kind. The rule ends here if there is none.
    LoadExtension { kind: u8, offset: u32, len: u32 },
    /// Ands the register with a mask of its length.
    Mask(Vec<u8>),
    /// The same, and then turns over the bits of `flip`.
    Change { mask: Vec<u8>, flip: Vec<u8> },
    /// Puts the number of the loaded key's bucket in its place, of so many that `jhash` with this seed tells apart.
    Hash { len: u32, buckets: u32, seed: u32 },
    /// Makes the register the packet's mark.
    SetMark,
    /// Makes the register the packet's class for the queues of links.
    SetPriority,
    /// The rule goes on if the register equals the value.
    Equal(Vec<u8>),
    /// The rule goes on if the register differs from the value.
    Unequal(Vec<u8>),
    /// The rule goes on if the register is in the range, both ends included.
    Between(Vec<u8>, Vec<u8>),
    /// The rule goes on as long as the bucket has tokens that `set` keeps for the loaded key. If the set is full and has none
    /// for it, the rule ends here.
    Limit { set: Cow<'static, str>, timeout: u64, bucket: Bucket, unit: Unit },
    /// The rule goes on as long as its own bucket, the only one, has packets left.
    Rate(Bucket),
    /// Keeps the loaded key in `set` for that many milliseconds from now. If the set is full, the rule ends here.
    Remember { set: Cow<'static, str>, timeout: u64 },
    /// The rule goes on if `set` has the loaded key.
    Known(Cow<'static, str>),
    /// Keeps the loaded key in `map` for that many milliseconds from now, and with it, unless it is there already, the 4 octets that were
    /// loaded `at` so many octets behind the register's beginning. If the map is full, the rule ends here.
    RememberWith { map: Cow<'static, str>, timeout: u64, at: u32 },
    /// Loads the 4 octets that `map` has with the loaded key, `at` so many octets behind the register's beginning. The rule ends here if it
    /// has none.
    Recall { map: Cow<'static, str>, at: u32 },
    /// Counts packets and bytes.
    Counter,
    /// Keeps reassembly and connection tracking away from the packet.
    LeaveAsItIs,
    /// Lets the packet pass this table.
    Accept,
    /// Drops the packet.
    Drop,
    /// Goes on in another chain and comes back from its end.
    Jump(Cow<'static, str>),
    /// Goes back to the chain that jumped here.
    Return,
    /// Hands the packet to a queue; dropped if nobody listens.
    Queue(u16),
    /// The same, but the packet passes if nobody listens.
    QueueOrPass(u16),
    /// Never matches a packet, but its presence switches reassembly on.
    Reassembly,
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Packets,
    /// Octets from the IP header on.
    Octets,
}

const REGISTER: u32 = 1;
/// The same register as the first of those of 4 octets each, which go on behind it (`NFT_REG32_00`).
const FIRST_SHORT_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
/// Each kernel name takes a whole interface name, NULs included (`IFNAMSIZ`).
const INTERFACE_NAME_LEN: usize = 16;

// Keys of `meta`.
const META_PRIORITY: u32 = 2;
const META_MARK: u32 = 3;
const META_INPUT_INDEX: u32 = 4;
const META_OUTPUT_INDEX: u32 = 5;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const META_OWNER: u32 = 10;
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
            element.nest(DATA, |data| self.write_data(data, REGISTER));
        });
    }

    /// What a kernel must have been built with that may be missing, for the error that names the rule.
    pub(super) const fn needs(&self) -> Option<&'static str> {
        match self {
            Self::LoadSocketMark | Self::LoadSocketTransparent => Some("the kernel's CONFIG_NFT_SOCKET"),
            Self::LoadSocketWildcard => Some("the kernel's CONFIG_NFT_SOCKET, of Linux 5.10 or later"),
            Self::LeaveAsItIs => Some("the kernel's CONFIG_NFT_CT"),
            Self::Hash { .. } => Some("the kernel's CONFIG_NFT_HASH"),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::LoadProtocol
            | Self::LoadMark
            | Self::LoadPriority
            | Self::LoadInputIndex
            | Self::LoadOutputIndex
            | Self::LoadInputName
            | Self::LoadOutputName
            | Self::LoadOwner
            | Self::SetMark
            | Self::SetPriority => "meta",
            Self::Behind { load, .. } => load.name(),
            Self::LoadSocketMark | Self::LoadSocketTransparent | Self::LoadSocketWildcard => "socket",
            Self::LoadDestinationType => "fib",
            Self::LoadNetwork { .. } | Self::LoadTransport { .. } => "payload",
            Self::LoadHasExtension(_) | Self::LoadExtension { .. } => "exthdr",
            Self::Mask(_) | Self::Change { .. } => "bitwise",
            Self::Hash { .. } => "hash",
            Self::Equal(_) | Self::Unequal(_) => "cmp",
            Self::Between(..) => "range",
            Self::Limit { .. } | Self::Remember { .. } | Self::RememberWith { .. } => "dynset",
            Self::Rate(_) => "limit",
            Self::LeaveAsItIs => "notrack",
            Self::Known(_) | Self::Recall { .. } => "lookup",
            Self::Counter => "counter",
            Self::Load(_) | Self::Accept | Self::Drop | Self::Jump(_) | Self::Return => "immediate",
            // This kernel has no `queue` expression: the older filter's target does it.
            Self::Queue(_) | Self::QueueOrPass(_) => "target",
            Self::Reassembly => "match",
        }
    }

    fn write_data(&self, data: &mut Writer, register: u32) {
        match self {
            Self::LoadProtocol => meta(data, register, META_PROTOCOL),
            Self::LoadMark => meta(data, register, META_MARK),
            Self::LoadPriority => meta(data, register, META_PRIORITY),
            Self::LoadInputIndex => meta(data, register, META_INPUT_INDEX),
            Self::LoadOutputIndex => meta(data, register, META_OUTPUT_INDEX),
            Self::LoadSocketMark => socket(data, register, SOCKET_MARK),
            Self::LoadSocketTransparent => socket(data, register, SOCKET_TRANSPARENT),
            Self::LoadSocketWildcard => socket(data, register, SOCKET_WILDCARD),
            Self::LoadOwner => meta(data, register, META_OWNER),
            Self::Load(octets) => {
                data.put_be32(1, register);
                value(data, 2, octets);
            }
            Self::Behind { octets, load } => load.write_data(data, short_register(*octets)),
            Self::LoadInputName => meta(data, register, META_INPUT_NAME),
            Self::LoadOutputName => meta(data, register, META_OUTPUT_NAME),
            Self::LoadDestinationType => {
                const RESULT_ADDRESS_TYPE: u32 = 3;
                const OF_DESTINATION: u32 = 2;
                data.put_be32(1, register);
                data.put_be32(2, RESULT_ADDRESS_TYPE);
                data.put_be32(3, OF_DESTINATION);
            }
            Self::LoadNetwork { offset, len } => payload(data, register, 1, *offset, *len),
            Self::LoadTransport { offset, len } => payload(data, register, 2, *offset, *len),
            Self::LoadHasExtension(kind) => {
                const PRESENT: u32 = 1;
                data.put_be32(1, register);
                data.put_u8(2, *kind);
                data.put_be32(3, 0);
                data.put_be32(4, 1);
                data.put_be32(5, PRESENT);
            }
            Self::LoadExtension { kind, offset, len } => {
                data.put_be32(1, register);
                data.put_u8(2, *kind);
                data.put_be32(3, *offset);
                data.put_be32(4, *len);
            }
            Self::Mask(mask) => bitwise(data, mask, &vec![0; mask.len()]),
            Self::Change { mask, flip } => bitwise(data, mask, flip),
            Self::Hash { len, buckets, seed } => {
                (1..).zip([REGISTER, REGISTER, *len, *buckets, *seed]).for_each(|(kind, value)| data.put_be32(kind, value));
            }
            Self::SetMark => set_meta(data, META_MARK),
            Self::SetPriority => set_meta(data, META_PRIORITY),
            Self::Equal(wanted) => compare(data, 0, wanted),
            Self::Unequal(unwanted) => compare(data, 1, unwanted),
            Self::Between(from, to) => {
                data.put_be32(1, REGISTER);
                data.put_be32(2, 0);
                value(data, 3, from);
                value(data, 4, to);
            }
            Self::Limit { set, timeout, bucket, unit } => {
                add_or_refresh(data, set, *timeout);
                data.nest(7, |limit| {
                    limit.put_text(1, "limit");
                    limit.nest(2, |data| tokens(data, *bucket, *unit));
                });
            }
            Self::Rate(bucket) => tokens(data, *bucket, Unit::Packets),
            Self::Remember { set, timeout } => add_or_refresh(data, set, *timeout),
            Self::Known(set) => {
                data.put_text(1, set);
                data.put_be32(2, REGISTER);
            }
            Self::RememberWith { map, timeout, at } => {
                add_or_refresh(data, map, *timeout);
                data.put_be32(5, short_register(*at));
            }
            Self::Recall { map, at } => {
                data.put_text(1, map);
                data.put_be32(2, REGISTER);
                data.put_be32(3, short_register(*at));
            }
            Self::Counter | Self::LeaveAsItIs => {}
            Self::Accept => verdict(data, 1, None),
            Self::Drop => verdict(data, 0, None),
            Self::Jump(chain) => verdict(data, (-3i32).cast_unsigned(), Some(chain)),
            Self::Return => verdict(data, (-5i32).cast_unsigned(), None),
            Self::Queue(number) => queue(data, *number, 0),
            Self::QueueOrPass(number) => queue(data, *number, 1),
            Self::Reassembly => compat(data, "socket", 3, &[0; 8]),
        }
    }
}

/// The register of 4 octets that begins so many behind the beginning of register 1.
const fn short_register(octets: u32) -> u32 {
    FIRST_SHORT_REGISTER.saturating_add(octets / 4)
}

/// A value of 32 bits that the kernel computes itself, as it is compared.
pub(super) fn host(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// An interface name as it is compared.
fn interface_name(name: &str) -> Vec<u8> {
    let mut octets = name.as_bytes().to_vec();
    octets.resize(INTERFACE_NAME_LEN, 0);
    octets
}

/// Tests for the name of the arriving or leaving interface.
pub(super) fn interface(which: Interface, name: &str) -> Vec<Expression> {
    let load = match which {
        Interface::Arriving => Expression::LoadInputName,
        Interface::Leaving => Expression::LoadOutputName,
    };
    vec![load, Expression::Equal(interface_name(name))]
}

/// Tests for an address of the IP header: the source of what arrives, the destination of what leaves. `None` if the prefix is
/// of the other family.
pub(super) fn remote(family: Family, which: Interface, prefix: IpNet) -> Option<Vec<Expression>> {
    let (offset, address, mask) = match (family, which, prefix) {
        (Family::Ipv4, Interface::Arriving, IpNet::V4(net)) => (12, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        (Family::Ipv4, Interface::Leaving, IpNet::V4(net)) => (16, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        (Family::Ipv6, Interface::Arriving, IpNet::V6(net)) => (8, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        (Family::Ipv6, Interface::Leaving, IpNet::V6(net)) => (24, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        _ => return None,
    };
    let len = if family == Family::Ipv4 { 4 } else { 16 };
    Some(vec![Expression::LoadNetwork { offset, len }, Expression::Mask(mask), Expression::Equal(address)])
}

/// Tests for a TCP segment that opens no connection.
pub(super) fn opens_nothing() -> Vec<Expression> {
    flags(SYN | ACK, Expression::Unequal(vec![SYN]))
}

/// Tests for a TCP segment that opens a connection.
pub(super) fn opens() -> Vec<Expression> {
    flags(SYN | ACK, Expression::Equal(vec![SYN]))
}

/// Tests for a TCP segment that answers one that opens a connection.
pub(super) fn answers_opening() -> Vec<Expression> {
    flags(SYN | ACK, Expression::Equal(vec![SYN | ACK]))
}

/// Tests for a TCP segment that resets a connection.
pub(super) fn resets() -> Vec<Expression> {
    const RST: u8 = 0x04;
    flags(RST, Expression::Equal(vec![RST]))
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn flags(mask: u8, test: Expression) -> Vec<Expression> {
    const FLAGS: u32 = 13;
    vec![Expression::LoadTransport { offset: FLAGS, len: 1 }, Expression::Mask(vec![mask]), test]
}

/// Tests for one of the types of ICMP from `from` to `to`.
pub(super) fn icmp_types(from: u8, to: u8) -> Vec<Expression> {
    let test = if from == to { Expression::Equal(vec![from]) } else { Expression::Between(vec![from], vec![to]) };
    vec![Expression::LoadTransport { offset: 0, len: 1 }, test]
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
    match family {
        // More fragments, or an offset.
        Family::Ipv4 => {
            vec![Expression::LoadNetwork { offset: 6, len: 2 }, Expression::Mask(vec![0x3f, 0xff]), Expression::Equal(vec![0, 0])]
        }
        Family::Ipv6 => vec![Expression::LoadHasExtension(FRAGMENT_HEADER), Expression::Equal(vec![0])],
    }
}

/// Tests for a fragment of any kind.
pub(super) fn fragmented(family: Family) -> Vec<Expression> {
    let mut test = unfragmented(family);
    match test.pop() {
        Some(Expression::Equal(value)) => test.push(Expression::Unequal(value)),
        other => test.extend(other),
    }
    test
}

/// Switches reassembly on for the family, behind a test that no packet passes: there is no protocol 255.
pub(super) fn reassembly() -> Vec<Expression> {
    vec![Expression::LoadProtocol, Expression::Equal(vec![255]), Expression::Reassembly]
}

fn meta(data: &mut Writer, register: u32, key: u32) {
    data.put_be32(1, register);
    data.put_be32(2, key);
}

fn set_meta(data: &mut Writer, key: u32) {
    data.put_be32(2, key);
    data.put_be32(3, REGISTER);
}

fn bitwise(data: &mut Writer, mask: &[u8], flip: &[u8]) {
    data.put_be32(1, REGISTER);
    data.put_be32(2, REGISTER);
    data.put_be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
    value(data, 4, mask);
    value(data, 5, flip);
}

/// Revision 3 of the target: number and how many queues, flags (1 lets packets pass without a listener), padding.
fn queue(data: &mut Writer, number: u16, flags: u16) {
    let octets = [number, 1, flags, 0].map(u16::to_ne_bytes);
    compat(data, "NFQUEUE", 3, octets.as_flattened());
}

// Keys of `socket`.
const SOCKET_TRANSPARENT: u32 = 0;
const SOCKET_MARK: u32 = 1;
const SOCKET_WILDCARD: u32 = 2;

fn socket(data: &mut Writer, register: u32, key: u32) {
    data.put_be32(1, key);
    data.put_be32(2, register);
}

/// The loaded key in a set, from now on.
fn add_or_refresh(data: &mut Writer, set: &str, timeout: u64) {
    const ADD_OR_REFRESH: u32 = 1;
    data.put_text(1, set);
    data.put_be32(3, ADD_OR_REFRESH);
    data.put_be32(4, REGISTER);
    data.put_be64(6, timeout);
}

fn tokens(data: &mut Writer, bucket: Bucket, unit: Unit) {
    data.put_be64(1, u64::from(bucket.rate));
    data.put_be64(2, 1); // a second
    data.put_be32(3, bucket.burst);
    data.put_be32(4, if unit == Unit::Packets { 0 } else { 1 });
    data.put_be32(5, 0); // up to the rate, not above it
}

fn payload(data: &mut Writer, register: u32, base: u32, offset: u32, len: u32) {
    data.put_be32(1, register);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_may_lack_is_named() {
        assert_eq!(Expression::LoadSocketMark.needs(), Some("the kernel's CONFIG_NFT_SOCKET"));
        assert_eq!(Expression::LoadSocketTransparent.needs(), Some("the kernel's CONFIG_NFT_SOCKET"));
        assert_eq!(Expression::LoadMark.needs(), None);
    }
}
