//! The packet filter rules that bring every packet before this project's queues.
//!
//! An own nf_tables table named [`TABLE`], in the families ip and ip6, set through netlink in one atomic batch: either all
//! of it stands, or what stood before. Nothing outside the table is touched. The rules fail closed: no owner flag (the table
//! outlives the process), no bypass (a queue without listener drops), and where a chain decides about data, its policy is
//! to drop. Only [`remove`] opens.
//!
//! What is exempted from the queues is the list of X-58, each entry behind a token bucket of its own; a counter stands on
//! either side of each bucket.

mod batch;
mod dump;
mod expression;
mod host;
mod plan;
mod router;

use crate::netlink::{NetlinkError, Protocol, Socket};

pub use dump::RuleCounter;
pub use plan::{Bucket, Exemptions, Family};

/// Name of the table, in both families.
pub const TABLE: &str = "pbs";

/// Packet mark by which the signalling queue's verdict lets a foreign Q-mode packet pass the router.
///
/// The mark counts only together with UDP destination port 270, and only inside the router that set it.
pub const SIGNALLING_PASSED: u32 = 0x5042_0001;

/// UDP port of GIST (RFC 5971 §9).
const GIST_PORT: u16 = 270;

/// What a router filters: every forwarded packet, and signalling on its way through. Its own traffic is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterRules {
    /// Queue for unfragmented UDP to port 270 whose destination is not this router.
    pub signalling_queue: u16,
    /// Queue for every other forwarded packet, whole datagrams only.
    pub data_queue: u16,
    /// Packets a second that may ask for the signalling queue; the excess is dropped.
    pub signalling: Bucket,
    /// Packets a second that the signalling queue may pass on.
    pub passed_signalling: Bucket,
}

/// What a host filters: everything that it sends and receives over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRules {
    /// Queue for what the host sends, before fragmentation.
    pub outbound_queue: u16,
    /// Queue for what is for this host, whole datagrams only.
    pub inbound_queue: u16,
    /// TCP port of messaging associations, the same on every node.
    pub association_port: u16,
    /// What does not go through the queues.
    pub exemptions: Exemptions,
}

impl RouterRules {
    /// Rules for these queues, with the default buckets.
    pub const fn new(signalling_queue: u16, data_queue: u16) -> Self {
        Self { signalling_queue, data_queue, signalling: Bucket::new(2000, 500), passed_signalling: Bucket::new(200, 100) }
    }

    /// Puts the rules in place of whatever the table held before, at once or not at all.
    pub fn install(&self) -> Result<(), NetlinkError> {
        install(&[router::plan(self, Family::Ipv4), router::plan(self, Family::Ipv6)])
    }
}

impl HostRules {
    /// Puts the rules in place of whatever the table held before, at once or not at all.
    pub fn install(&self) -> Result<(), NetlinkError> {
        install(&[host::plan(self, Family::Ipv4), host::plan(self, Family::Ipv6)])
    }
}

/// In which families the table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// The IPv4 half.
    pub ipv4: bool,
    /// The IPv6 half.
    pub ipv6: bool,
}

/// Whether the table stands.
pub fn installed() -> Result<Installed, NetlinkError> {
    let socket = Socket::open(Protocol::Netfilter)?;
    Ok(Installed { ipv4: dump::exists(&socket, Family::Ipv4)?, ipv6: dump::exists(&socket, Family::Ipv6)? })
}

/// Removes the table with all its rules: from here on traffic passes unverified. Removing what is not there succeeds.
pub fn remove() -> Result<(), NetlinkError> {
    Socket::open(Protocol::Netfilter)?.transact(batch::remove(&[Family::Ipv4, Family::Ipv6]))
}

/// The counter of every rule that has one, in the order of the rules.
pub fn counters() -> Result<Vec<RuleCounter>, NetlinkError> {
    let socket = Socket::open(Protocol::Netfilter)?;
    let mut counters = dump::counters(&socket, Family::Ipv4)?;
    counters.extend(dump::counters(&socket, Family::Ipv6)?);
    Ok(counters)
}

fn install(tables: &[plan::Table]) -> Result<(), NetlinkError> {
    Socket::open(Protocol::Netfilter)?.transact(batch::replace(tables))
}
