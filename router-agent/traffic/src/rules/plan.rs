//! A table as a value: what `batch` sends to the kernel.

use std::fmt;

use super::expression::Expression;

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

/// A token bucket: packets a second on average, and how many at once.
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
}

/// What passes a host without permission, in each direction within its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemptions {
    /// GIST datagrams to and from the node itself.
    pub signalling: Bucket,
    /// TCP segments of messaging associations to and from the node itself.
    pub associations: Bucket,
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
            associations: Bucket::new(2000, 1000),
            icmp_errors: Bucket::new(100, 50),
            dhcp: Bucket::new(10, 20),
            neighbour_discovery: Bucket::new(100, 100),
        }
    }
}

/// The part of a table that lies in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) chains: Vec<Chain>,
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
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
    Forward,
    Output,
}

impl Hook {
    /// The kernel's number (`NF_INET_*`).
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
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
    pub(super) name: &'static str,
    pub(super) expressions: Vec<Expression>,
}

impl Rule {
    pub(super) fn new<const N: usize>(name: &'static str, parts: [Vec<Expression>; N]) -> Self {
        Self { name, expressions: parts.into_iter().flatten().collect() }
    }
}

/// A chain that lets packets through within `bucket`: `then` for those, drop for the others. Both are counted.
pub(super) fn bucket_chain(name: &'static str, bucket: Bucket, then: Expression) -> Chain {
    let within = Rule::new("within the bucket", [vec![Expression::Limit(bucket), Expression::Counter, then]]);
    let above = Rule::new("above the bucket", [vec![Expression::Counter, Expression::Drop]]);
    Chain { name, base: None, rules: vec![within, above] }
}
