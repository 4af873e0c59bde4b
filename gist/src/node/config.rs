//! What a node is told when it is made. Nothing here changes the meaning of a message.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;
use core::time::Duration;

use crate::wire::{MAX_VALUE_LENGTH, MaProtocol, NslpId, PeerIdentity, Profile};

/// Everything a [`super::Node`] needs to know about itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeConfig {
    /// The interface-independent name in every NLI; should outlive no restart and be unique (G-101, G-102).
    pub identity: PeerIdentity,
    /// Whether the node forwards packets of others.
    pub role: Role,
    /// The applications served.
    pub registrations: Vec<Registration>,
    /// Where messaging associations are accepted; announced in every Response.
    pub association_port: u16,
    /// Where messaging associations over TCP alone are accepted, if an application offers that; announced in Responses for it. It protects
    /// nothing: whoever is there is not known, and what travels can be read and changed.
    pub plain_association_port: u16,
    /// RS-validity-time proposed and required, 30 s by default (G-108); not 0.
    pub validity: Duration,
    /// MA-Hold-Time announced, 30 s by default (G-118); not 0.
    pub hold_time: Duration,
    /// T1: the wait before the first retransmission of a Query, 500 ms by default (G-191); not 0.
    pub query_timer: Duration,
    /// How long routing state lasts without messages of the application if it does not say (G-280), 5 min by default.
    pub inactivity: Duration,
    /// How long opening an association may take, the handshakes of TCP and TLS included, 10 s by default.
    pub connect_timeout: Duration,
    /// How long an MA-Hello with a request may stay unanswered, 10 s by default (G-296). A peer that is gone without a word is
    /// noticed after `hold_time` and this, whatever is sent to it.
    pub hello_timeout: Duration,
    /// How long an association that a peer opened may confirm nothing, 10 s by default: until then it costs a place that
    /// others need.
    pub unconfirmed_timeout: Duration,
    /// How long one secret makes Responder-Cookies, 30 s by default; they are accepted for once to twice as long.
    pub cookie_lifetime: Duration,
    /// Whether a bad cookie is answered with an Error; only for debugging, it makes the node reflect (G-337).
    pub answer_bad_cookies: bool,
    /// Bounds of every table and queue. Of associations, with and without a Confirm, and of routing states it answers for,
    /// one peer, by the key of its certificate, gets an eighth at most, but at least 4; of the latter a router gets three
    /// quarters.
    pub caps: Caps,
    /// The authorised peer database: the first entry that matches decides, no match means no (G-093).
    pub authorised_peers: Vec<ApdEntry>,
    /// The node's own addresses, to know itself as a destination.
    pub local_addresses: Vec<IpAddr>,
    /// Where IPv4 Queries go without router alert, since something on the way drops packets with options; nowhere by default (G-174).
    pub without_router_alert: Vec<AddressPrefix>,
    /// Bytes of the longest IP packet that every link of this node takes, 1500 by default: a message in a datagram is never made longer than
    /// this, what [`Backend::link_mtu`](super::Backend::link_mtu) says of its link, and 576 bytes allow where the path is not known (G-055).
    pub first_hop_mtu: u16,
    /// Whether messages that a GIST-aware NAT has changed are taken (§7.2.2), by default not: then a Query with a NAT-Traversal object is
    /// answered by Object Type Error 4. Taken, it makes this node repeat what anybody put in it.
    pub behind_nats: bool,
    /// The bound on all D-mode messages made here (G-202).
    pub datagram_rate: DatagramRate,
}

impl NodeConfig {
    /// A node with RFC 5971's default times, no registration, no authorised peer and no address.
    #[must_use]
    pub fn new(identity: PeerIdentity, role: Role) -> Self {
        Self {
            identity,
            role,
            registrations: Vec::new(),
            association_port: 0,
            plain_association_port: 0,
            validity: Duration::from_secs(30),
            hold_time: Duration::from_secs(30),
            query_timer: Duration::from_millis(500),
            inactivity: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(10),
            unconfirmed_timeout: Duration::from_secs(10),
            cookie_lifetime: Duration::from_secs(30),
            answer_bad_cookies: false,
            caps: Caps::default(),
            authorised_peers: Vec::new(),
            local_addresses: Vec::new(),
            without_router_alert: Vec::new(),
            first_hop_mtu: 1500,
            behind_nats: false,
            datagram_rate: DatagramRate::default(),
        }
    }
}

/// What kind of node this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Only its own flows matter.
    Host,
    /// Packets of others pass through.
    Router,
}

/// One application served by the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Registration {
    /// The application.
    pub nslp_id: NslpId,
    /// The router alert value of its Queries (G-347); `None` sends them without the option in IPv4, and in IPv6, which cannot
    /// do without (G-177), with 65503.
    pub rao: Option<u16>,
    /// The stack proposal, best first, exactly as it is announced. Empty: messages go as datagrams, unprotected.
    pub offer: Vec<Profile>,
    /// Whether Queries that go upstream are answered (G-256) although the offer has TLS. They say who is the next node downstream without
    /// having followed the flow, so a node of the sender's link could place itself there. Without TLS in the offer they are answered.
    pub upstream_queries: bool,
    /// Whether this node itself asks upstream for flows whose source does not signal (G-255), where a message upstream finds no routing
    /// state. Only the next node on the link can answer.
    pub asks_upstream: bool,
    /// Whether the application takes messages that no routing state covers ([`crate::api::Reception::unvalidated`]): explicitly routed, and
    /// where it does not demand protection also in Q-mode. If not, they are refused like any other without state.
    pub unvalidated_data: bool,
    /// When a routing state comes into being at the node that is asked. Counts for an application without an offer only: where associations
    /// are offered, it is the Confirm that brings one, and the peer with it.
    pub installation: Installation,
    /// The longest of its payloads that is sent or, on an association, received: bytes, 16,380 at most (G-370).
    pub longest_payload: usize,
}

impl Registration {
    /// Whether messages may go over TCP alone: between peers that nobody has authenticated.
    #[must_use]
    pub fn offers_plain_tcp(&self) -> bool {
        self.offer.contains(&Profile::tcp())
    }

    /// Whether messages may go over TLS.
    #[must_use]
    pub fn offers_tls(&self) -> bool {
        self.offer.iter().any(|profile| profile.contains(MaProtocol::Tls))
    }

    /// An application whose messages travel over TLS over TCP and in no other way.
    #[must_use]
    pub fn secure(nslp_id: NslpId, rao: Option<u16>) -> Self {
        Self {
            nslp_id,
            rao,
            offer: vec![Profile(vec![MaProtocol::Tls, MaProtocol::ForwardsTcp])],
            upstream_queries: false,
            asks_upstream: false,
            unvalidated_data: false,
            installation: Installation::OnConfirm,
            longest_payload: MAX_VALUE_LENGTH,
        }
    }
}

/// When the node that is asked installs routing state (RFC 5971 §4.4.1, §6.3).
///
/// Before a Confirm nobody has shown to be where a Query says, and anybody can write one. So of the table a quarter at most is for states
/// without one, which give way when the rest needs it; past that Queries are answered as with [`Installation::OnConfirm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Installation {
    /// With the Confirm, and nothing is kept before (case 3). Costs nobody anything, so it is what to take.
    #[default]
    OnConfirm,
    /// With the Query (case 2). The Response is repeated twice, as a Query is, if the Confirm does not come, which is awaited for T2, so that
    /// a lost one costs no message of the peer's; whoever writes Queries in others' names has up to three Responses sent to them for each.
    OnQuery,
    /// With the Query, and no Confirm is asked for (case 1): one message less, and nobody shows where he is. Who asks much without having
    /// shown it, and another node that asks about a state that there is, has to confirm all the same.
    WithoutConfirm,
}

/// Bounds of every table and queue. A full one refuses what is new and never evicts what a flow uses.
///
/// Of `routing_states`, `associations` and `unconfirmed_associations` peers over TCP alone get a quarter, all together, where an application
/// offers TLS; of the last one, apart from what the others get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caps {
    /// Querying and responding routing states together. Full: a message that needs a new one gets
    /// [`crate::api::SendError::QueueFull`], a Confirm is dropped. Over associations a responding one takes about 195 bytes, its timers
    /// and its place among the association's users included, a querying one 250, and the two of a session that passes through 330. One that
    /// is installed with the Query takes about 600 more while its Confirm is awaited.
    pub routing_states: usize,
    /// Messaging associations, opened and accepted together. Full: one that no flow uses gives way, of the peer that holds most
    /// and only to one that holds less; else an accepted one is closed, an opening one refused.
    pub associations: usize,
    /// The part of `associations` that peers may hold without having confirmed anything. Full: the next is closed.
    pub unconfirmed_associations: usize,
    /// Messages of the application waiting in one routing state, for a peer or until the peer takes more. Full:
    /// [`crate::api::SendError::QueueFull`].
    pub queued_messages_per_state: usize,
    /// Their payloads in all routing states together, in bytes. Full: [`crate::api::SendError::QueueFull`].
    pub queued_bytes: usize,
    /// Bytes handed to one association and not yet written. Full: the application's messages wait in their routing states, and
    /// Responses and Errors are not sent. What else GIST itself has to say may take up to four times as much.
    pub unwritten_bytes: usize,
    /// Refreshes waiting for the rate limiter, and as many other datagrams. Full: dropped, a retransmission repairs it.
    pub queued_datagrams: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            routing_states: 131_072,
            associations: 4096,
            unconfirmed_associations: 1024,
            queued_messages_per_state: 16,
            queued_bytes: 64 << 20,
            unwritten_bytes: 256 << 10,
            queued_datagrams: 4096,
        }
    }
}

/// The limit on D-mode messages made by this node (G-202…G-206).
///
/// Half of it is for what the node begins itself (Queries, refreshes first), seven sixteenths for Responses to strangers,
/// divided by interface and source, and one for Errors; no part takes from another. Of either, one destination gets 16 in 4 s,
/// counted apart for each interface that it is named on, and apart what comes from its own address. A Response to the refresh of a flow that
/// exists travels over the association, once for each T1, and needs no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramRate {
    /// Tokens a second, one datagram each.
    pub per_second: u32,
    /// Most tokens saved up.
    pub burst: u32,
    /// Tokens a second at most, once the flows that this node refreshes need more: two Queries for each in the time that
    /// they are valid. Only authenticated peers and the node's own application make flows, so strangers cannot raise it.
    /// Where even this is not enough, validity times rise (G-110).
    pub most_per_second: u32,
}

/// 2000 datagrams a second, 512 bytes at most: 5 % of a 160 Mbit/s interface (G-206), and 1000 new flows a second. With 36,000
/// flows of 30 s 4400; 6000 at most, 5 % of 490 Mbit/s. To be lowered on slower links.
impl Default for DatagramRate {
    fn default() -> Self {
        Self { per_second: 2000, burst: 512, most_per_second: 6000 }
    }
}

/// One line of the authorised peer database (RFC 5971 §4.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApdEntry {
    /// Whom the line is about; the name space is the pattern's kind.
    pub pattern: IdentityPattern,
    /// For which flows such a peer may be the next one.
    pub role: PeerRole,
    /// Whether such a peer may hold an association with this node.
    pub allow: bool,
}

/// For which flows a peer may be the next one of the path (the scope of RFC 5971 §4.4.2, G-092).
///
/// Whoever becomes the peer of a flow is sent what the application says about it, keys included, so a certificate of the
/// domain alone must not be enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum PeerRole {
    /// Its own flows: the next peer upstream where the flow's source is an address of its certificate, the next peer
    /// downstream where the destination is.
    #[default]
    Host,
    /// Any flow.
    Router,
}

/// An identity, or several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdentityPattern {
    /// A DNS name; a leading `*.` stands for one more label (RFC 5971 §5.7.3.1).
    DnsName(String),
    /// A peer whose certificate names the very address it is reached at, within this prefix.
    Address(AddressPrefix),
    /// Every authenticated peer.
    Any,
}

/// An address prefix such as `192.168.20.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressPrefix {
    address: IpAddr,
    length: u8,
}

impl AddressPrefix {
    /// The prefix of `length` bits that `address` lies in; `None` if the address has fewer bits.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some(Self { address, length })
    }

    /// Whether `address` lies in the prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let length = u32::from(self.length);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros() >= length,
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros() >= length,
            _ => false,
        }
    }
}

impl fmt::Display for AddressPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// What is wrong with the text of an [`AddressPrefix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address prefix such as 192.168.20.0/24")]
pub struct NotAPrefix;

impl FromStr for AddressPrefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| NotAPrefix)?;
        let length = match length {
            Some(length) => length.parse().map_err(|_| NotAPrefix)?,
            None if address.is_ipv4() => 32,
            None => 128,
        };
        Self::new(address, length).ok_or(NotAPrefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_what_shares_its_bits() {
        let prefix: AddressPrefix = "192.168.20.0/24".parse().unwrap();
        assert!(prefix.contains("192.168.20.7".parse().unwrap()));
        assert!(!prefix.contains("192.168.21.7".parse().unwrap()));
        assert!(!prefix.contains("::ffff:192.168.20.7".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<AddressPrefix>().unwrap().contains("9.9.9.9".parse().unwrap()));
        assert_eq!("fd00::1".parse::<AddressPrefix>().unwrap().to_string(), "fd00::1/128");
        assert_eq!("10.0.0.0/33".parse::<AddressPrefix>(), Err(NotAPrefix));
    }
}
