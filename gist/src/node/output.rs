//! What a node wants done.

use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::api::{AssociationId, Indication, PathId};

/// One thing the shell must do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a datagram.
    Transmit(Transmit),
    /// Open TLS over TCP and report [`super::AssociationEvent::Connected`], or without a name for the certificate TCP alone and report
    /// [`super::AssociationEvent::ConnectedUnprotected`]; or [`super::AssociationEvent::Failed`].
    Connect {
        /// The new association's name.
        association: AssociationId,
        /// Where to connect to.
        remote: SocketAddr,
        /// The address the peer goes by in its NLI, for the check of its certificate; `None` for TCP alone, where nobody has one.
        peer_address_for_certificate: Option<IpAddr>,
        /// The way out; all its segments leave by it.
        path: PathId,
        /// The address to connect from; `None` leaves it to the kernel.
        source: Option<IpAddr>,
    },
    /// Write one whole GIST message to the association.
    SendOnAssociation {
        /// Which.
        association: AssociationId,
        /// The message, without magic number.
        message: Bytes,
    },
    /// Close the association after what was written before; nothing more is said about it in either direction.
    CloseAssociation {
        /// Which.
        association: AssociationId,
    },
    /// Tell the application.
    Indicate(Indication),
}

/// A datagram to send; `payload` starts with the magic number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transmit {
    /// To a known peer (RFC 5971 §5.3.1), from UDP port 270.
    Normal {
        /// The peer.
        destination: SocketAddr,
        /// The address to send from; `None` leaves it to the kernel.
        source: Option<IpAddr>,
        /// The UDP payload.
        payload: Bytes,
    },
    /// To be intercepted on the way to the flow's destination (RFC 5971 §5.3.2), to UDP port 270, do not fragment.
    QueryMode {
        /// The flow's source or the node's own address, as the message's S-flag says.
        source: IpAddr,
        /// The flow's destination.
        destination: IpAddr,
        /// UDP source port.
        source_port: u16,
        /// IP TTL or hop limit.
        ip_ttl: u8,
        /// The byte of the IP header that holds the flow's Diffserv field (G-252), its two low bits clear.
        ds_field: u8,
        /// IPv6 flow label of the flow (G-252); 0 if it has none.
        flow_label: u32,
        /// Router alert value, if the option is to be there.
        router_alert: Option<u16>,
        /// The way out.
        path: PathId,
        /// The UDP payload.
        payload: Bytes,
    },
}
