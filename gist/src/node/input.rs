//! What the shell tells a node, and what it must be able to compute for it.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;

use super::AddressPrefix;

/// A UDP datagram to GIST's port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// Where it says it comes from.
    pub source: SocketAddr,
    /// Its IP destination: the flow's for an intercepted Query, else one of this node's addresses.
    pub destination: IpAddr,
    /// The IP TTL or hop limit it arrived with, if known.
    pub ip_ttl: Option<u8>,
    /// The interface it arrived on, by the operating system's index; 0 if unknown.
    pub interface: u32,
    /// Whether it was taken off its way (intercepted), or is addressed to a flow's destination.
    pub query_mode: bool,
    /// The value of its router alert option, if it has one and that is known. It decides nothing (G-030); a packet passed on keeps it.
    pub router_alert: Option<u16>,
    /// The UDP payload, magic number included.
    pub payload: Bytes,
}

/// What happens to a messaging association in the shell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AssociationEvent {
    /// A peer opened it and authenticated itself; the id comes from [`super::Node::accept_id`].
    Accepted {
        /// The transport address it comes from.
        peer_address: SocketAddr,
        /// What its certificate says.
        credentials: PeerCredentials,
    },
    /// What [`super::Output::Connect`] asked for is open and the peer authenticated itself.
    Connected {
        /// What its certificate says.
        credentials: PeerCredentials,
    },
    /// A peer opened one over TCP alone; nobody knows who it is.
    AcceptedUnprotected {
        /// The transport address it comes from.
        peer_address: SocketAddr,
    },
    /// What [`super::Output::Connect`] asked for, unprotected, is open.
    ConnectedUnprotected,
    /// One whole GIST message, without magic number.
    Received(Bytes),
    /// So many bytes of the messages of [`super::Output::SendOnAssociation`] have been handed to the operating system. What has
    /// not been counts against [`super::Caps::unwritten_bytes`], so a shell that never says this blocks the association.
    Written {
        /// Bytes of whole messages, since this was said last.
        bytes: usize,
    },
    /// It could not be opened, or broke; the text names the cause.
    Failed(String),
    /// The peer closed it in good order.
    Closed,
}

/// What an authenticated peer's certificate says about it. The shell has validated it; the node judges who it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PeerCredentials {
    /// Every dNSName; only if there is none, the most specific Common Name (G-242).
    pub dns_names: Vec<String>,
    /// Every iPAddress.
    pub addresses: Vec<IpAddr>,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo in DER: the one name a peer cannot choose.
    pub key_hash: [u8; 32],
    /// How long the certificate, and those it depends on, are valid from the moment this is handed in; `None` if no end is
    /// known. The association ends with it (G-245).
    pub valid_for: Option<Duration>,
    /// The subject, for people.
    pub subject: String,
}

/// What the core cannot compute by itself.
pub trait Backend: Send + Sync + fmt::Debug {
    /// HMAC-SHA-256 (RFC 2104). All cookies, identifiers and random instants of the node come from it.
    fn mac(&self, key: &[u8; 32], message: &[u8]) -> [u8; 32];

    /// The node's own address that a packet to `destination` would leave with; `None` if there is no route.
    fn egress_address(&self, destination: IpAddr) -> Option<IpAddr>;

    /// The MTU of the path to `destination`, in bytes of a whole IP packet; `None` if it is not known, or nobody is believed about it.
    fn path_mtu(&self, destination: IpAddr) -> Option<u16> {
        let _ = destination;
        None
    }

    /// The MTU of the link by which a packet to `destination` would leave; `None` if it is not known.
    fn link_mtu(&self, destination: IpAddr) -> Option<u16> {
        let _ = destination;
        None
    }

    /// Whether packets from these sources may come in by this interface (G-254); yes where that cannot be told, as with asymmetric routes.
    fn may_come_from(&self, sources: AddressPrefix, interface: u32) -> bool {
        let _ = (sources, interface);
        true
    }
}

/// A backend that does not take part in comparing nodes: two nodes in the same state are the same whatever computes for them.
#[derive(Debug, Clone)]
pub(super) struct SharedBackend(pub(super) Arc<dyn Backend>);

impl PartialEq for SharedBackend {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SharedBackend {}

impl core::hash::Hash for SharedBackend {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}
