//! A table as a value: what `batch` sends to the kernel.

use std::borrow::Cow;
use std::fmt;

use super::expression::{Expression, Unit};
use super::key::Key;

/// A protocol family of the packet filter.
///
/// There is a table in each: reassembly can be switched on only family by family, not in `inet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The kernel's number (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        })
    }
}

/// A token bucket: packets a second on average, and how many at once. Unless it says otherwise each interface has one of its own
///
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Packets a second, at least 1.
    pub rate: u32,
    /// Packets beyond the rate that may come at once, at least 1.
    pub burst: u32,
}

impl Bucket {
    /// A bucket; 0 is taken as 1, since the kernel refuses an empty rate and reads an empty burst as its own default.
    pub const fn new(rate: u32, burst: u32) -> Self {
        Self { rate: if rate == 0 { 1 } else { rate }, burst: if burst == 0 { 1 } else { burst } }
    }

    /// Packets that pass within so many seconds at most.
    pub const fn at_most(self, seconds: u32) -> u64 {
        (self.burst as u64).saturating_add((self.rate as u64).saturating_mul(seconds as u64))
    }
}

/// What passes a node without permission, in each direction and on each interface within its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemptions {
    /// GIST datagrams to and from the node itself.
    pub signalling: Bucket,
    /// GIST datagrams of one address from which an authenticated association has spoken lately, and to it. What is above that goes by the
    /// bucket of all.
    pub signalling_of_a_peer: Bucket,
    /// Those of all such addresses together, besides the bucket of all.
    pub signalling_of_peers: Bucket,
    /// TCP segments of one authenticated messaging association on one interface: whoever knows the ports of an association and
    /// poses as its peer takes from that association alone.
    pub association: Bucket,
    /// TCP segments that open connections to the port of associations: those of strangers, and as many once more of addresses to which
    /// this node has just sent a GIST datagram. Those of addresses from which an authenticated association has spoken lately have none
    /// but [their own](Self::openings_of_one).
    pub openings: Bucket,
    /// Of these, what comes from one source on one interface, an IPv4 address, and what leaves as an answer to it: anybody can open in
    /// anybody's name, and the answer is sent several times. An IPv6 address if the node knows it as above.
    pub openings_of_one: Bucket,
    /// The same for the IPv6 /64 of a stranger, which may be one host or many.
    pub openings_of_one_ipv6: Bucket,
    /// Of the openings, what comes from one network, an IPv4 /24 or an IPv6 /48, and what leaves as an answer to it: at once as many as an
    /// IPv4 /24 has hosts, which may all open when a router is back. Less than all openings, so that no network takes them all.
    pub openings_of_a_network: Bucket,
    /// Further TCP segments of connections whose peer has not been authenticated yet, and of closed ones: what comes in of one
    /// connection on one interface, what goes out of all on one interface.
    pub handshakes: Bucket,
    /// TCP segments of no connection that come to the listener of associations, of one source on one interface, and as many once
    /// more for all sources that found no bucket: an honest one sends them only to finish an opening by SYN cookie.
    pub listener: Bucket,
    /// TCP resets from the port of associations that belong to no authenticated one. Anybody can draw them upon anybody.
    pub resets: Bucket,
    /// ICMP errors: unreachable, too big, time exceeded, parameter problem.
    pub icmp_errors: Bucket,
    /// DHCP between client and server.
    pub dhcp: Bucket,
    /// IPv6 neighbour discovery and multicast listener discovery, without which no link works.
    pub neighbour_discovery: Bucket,
}

impl Default for Exemptions {
    fn default() -> Self {
        Self {
            signalling: Bucket::new(500, 200),
            signalling_of_a_peer: Bucket::new(100, 100),
            signalling_of_peers: Bucket::new(2000, 500),
            association: Bucket::new(2000, 1000),
            openings: Bucket::new(500, 500),
            openings_of_one: Bucket::new(5, 10),
            openings_of_one_ipv6: Bucket::new(50, 300),
            openings_of_a_network: Bucket::new(100, 300),
            handshakes: Bucket::new(1000, 500),
            listener: Bucket::new(5, 10),
            resets: Bucket::new(5, 5),
            icmp_errors: Bucket::new(100, 50),
            dhcp: Bucket::new(10, 20),
            neighbour_discovery: Bucket::new(100, 100),
        }
    }
}

impl Exemptions {
    /// What suits a router, which has as many neighbours as it forwards flows for.
    pub const fn of_a_router() -> Self {
        Self {
            signalling: Bucket::new(2000, 500),
            signalling_of_a_peer: Bucket::new(200, 200),
            signalling_of_peers: Bucket::new(4000, 1000),
            association: Bucket::new(20_000, 10_000),
            openings: Bucket::new(1000, 500),
            openings_of_one: Bucket::new(5, 10),
            openings_of_one_ipv6: Bucket::new(50, 300),
            openings_of_a_network: Bucket::new(100, 300),
            handshakes: Bucket::new(1000, 500),
            listener: Bucket::new(5, 10),
            resets: Bucket::new(5, 5),
            icmp_errors: Bucket::new(100, 50),
            dhcp: Bucket::new(10, 20),
            neighbour_discovery: Bucket::new(500, 500),
        }
    }
}

impl Exemptions {
    /// What one source may open, as it is told from others in a family.
    pub(super) const fn of_one(&self, family: Family) -> Bucket {
        match family {
            Family::Ipv4 => self.openings_of_one,
            Family::Ipv6 => self.openings_of_one_ipv6,
        }
    }
}

/// The part of a table that lies in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) sets: Vec<Set>,
    pub(super) chains: Vec<Chain>,
}

/// A set that rules fill from packets, or a daemon from what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) name: Cow<'static, str>,
    pub(super) key: Key,
    /// Whether 4 octets stand with each element.
    pub(super) is_map: bool,
    /// How long an element is kept after it was used last, in milliseconds.
    pub(super) timeout: u64,
    /// Elements at the most.
    pub(super) capacity: u32,
}

impl Set {
    const LEAST_TIMEOUT: u64 = 60_000;
    /// Anybody can make sources and ports up: their places are to be free soon.
    const LEAST_TIMEOUT_OF_A_SOURCE: u64 = 3000;

    /// A set of keys alone.
    pub(super) const fn new(name: Cow<'static, str>, key: Key, timeout: u64) -> Self {
        Self { name, key, is_map: false, timeout, capacity: key.capacity() }
    }

    /// A set that keeps buckets, each until it would be full again, so that forgetting it grants nothing.
    pub(super) fn of_buckets(name: Cow<'static, str>, key: Key, bucket: Bucket) -> Self {
        let full_again = u64::from(bucket.burst).saturating_mul(1000).div_ceil(u64::from(bucket.rate.max(1)));
        let made_up = matches!(key, Key::Source(_) | Key::SourceNetwork(_) | Key::Destination(_) | Key::Connection(_) | Key::Peer(_));
        let least = if made_up { Self::LEAST_TIMEOUT_OF_A_SOURCE } else { Self::LEAST_TIMEOUT };
        Self::new(name, key, full_again.saturating_add(1000).max(least))
    }
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: Cow<'static, str>,
    /// Where packets enter; `None` for a chain that rules jump to.
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

/// Where a chain meets the packets' way through the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) hook: Hook,
    /// Smaller comes first; reassembly is at −400, connection tracking at −200.
    pub(super) priority: i32,
    /// `route` makes the kernel look up the route again when a verdict has changed the mark.
    pub(super) kind: &'static str,
    pub(super) policy: Policy,
}

/// A hook of the kernel's packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
}

impl Hook {
    /// The kernel's number (`NF_INET_*`).
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
        }
    }
}

/// What becomes of a packet that no rule of a base chain decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Drop,
    Accept,
}

impl Policy {
    /// The kernel's number (`NF_DROP`, `NF_ACCEPT`).
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
        }
    }
}

/// A rule: tests and actions, carried out in order until one does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Shown with the rule's counter, and as its comment by other programs.
    pub(super) name: Cow<'static, str>,
    pub(super) expressions: Vec<Expression>,
}

impl Rule {
    pub(super) fn new<const N: usize>(name: impl Into<Cow<'static, str>>, parts: [Vec<Expression>; N]) -> Self {
        Self { name: name.into(), expressions: parts.into_iter().flatten().collect() }
    }
}

/// Which of a packet's interfaces has the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    /// The one it came in by.
    Arriving,
    /// The one it goes out by.
    Leaving,
}

impl Table {
    /// An empty table.
    pub(super) const fn new(family: Family) -> Self {
        Self { family, sets: Vec::new(), chains: Vec::new() }
    }

    /// Adds a chain that lets packets through within the bucket of their interface: `then` for those, drop for the others.
    /// Both are counted.
    pub(super) fn add_bucket(&mut self, name: impl Into<Cow<'static, str>>, bucket: Bucket, interface: Interface, then: Expression) {
        self.add_buckets(name, bucket, Key::Interface(interface), then, None);
    }

    /// The same with a bucket for each of what `key` tells apart. Packets that have no such key, or for whose bucket there is no
    /// room any more, go on in the chain `others`.
    pub(super) fn add_buckets(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        bucket: Bucket,
        key: Key,
        then: Expression,
        others: Option<&'static str>,
    ) {
        let name = name.into();
        let set = Set::of_buckets(name.clone(), key, bucket);
        let load = || key.load(self.family);
        let mut rules = Vec::new();
        let mut above = Vec::new();
        if others.is_some() {
            // A look-up in the set of buckets itself would take a token.
            let seen = Set { name: format!("{name}-seen").into(), ..set.clone() };
            rules.push(Rule::new("seen", [load(), vec![Expression::Remember { set: seen.name.clone(), timeout: seen.timeout }]]));
            above = [load(), vec![Expression::Known(seen.name.clone())]].concat();
            self.sets.push(seen);
        }
        let limit = Expression::Limit { set: name.clone(), timeout: set.timeout, bucket, unit: Unit::Packets };
        rules.push(Rule::new("within the bucket", [load(), vec![limit, Expression::Counter, then]]));
        rules.push(Rule::new("above the bucket", [above, vec![Expression::Counter, Expression::Drop]]));
        rules.extend(others.map(|chain| Rule::new("without a bucket", [vec![Expression::Jump(chain.into())]])));
        self.sets.push(set);
        self.chains.push(Chain { name, base: None, rules });
    }

    /// Puts rules before those that the chain has so far.
    pub(super) fn put_first<const N: usize>(&mut self, chain: &str, rules: [Rule; N]) {
        if let Some(chain) = self.chains.iter_mut().find(|known| known.name == chain) {
            chain.rules.splice(..0, rules);
        }
    }

    /// A bucket that holds octets of IP packets instead of packets, for each of what `key` tells apart. The kernel lets as many pass
    /// at once as the bucket's rate and its burst together.
    pub(super) fn add_octets(&mut self, name: String, bucket: Bucket, key: Key, then: Expression) {
        self.add_buckets(name.clone(), bucket, key, then, None);
        let rules = self.chains.last_mut().map(|chain| &mut chain.rules);
        for expression in rules.into_iter().flatten().flat_map(|rule| &mut rule.expressions) {
            if let Expression::Limit { unit, .. } = expression {
                *unit = Unit::Octets;
            }
        }
    }
}
