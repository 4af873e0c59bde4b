//! What a signalling application (NSLP) and GIST say to each other (RFC 5971 §4.1, Appendix B).
//!
//! [`Request`] goes down, [`Indication`] comes up. Neither names a socket, a message format or a messaging association's
//! state: whether associations are open is invisible here (RFC 5971 §4.4.5).

use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::wire::{ErrorCause, Mri, NslpId, PeerIdentity, SessionId};

/// The application's own name for a message, given back in [`Indication::MessageStatus`] (RFC 5971 B.1).
///
/// GIST compares handles with nothing: several messages may carry the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageHandle(pub u64);

/// Names one messaging association for its life; never given to another one within a node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssociationId(pub u64);

impl fmt::Display for AssociationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whom a message counts against: a peer that cannot choose another name for itself as it likes.
///
/// Of an authenticated peer the SHA-256 of its certificate's SubjectPublicKeyInfo, as TLS proved it; an NLI's peer
/// identity, by contrast, is whatever the peer says. Of an unauthenticated one a value computed from that identity in a
/// domain of its own, so that it never equals an authenticated peer's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(pub [u8; 32]);

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({self})")
    }
}

/// Names a peer wherever GIST speaks of one: RFC 5971's SII-Handle (§7.1.4, B.2, B.4).
///
/// Two handles are equal if and only if they stand for the same peer: the same key where there is a certificate, and the
/// same Network-Layer-Information. So one handle stands for a peer in all its sessions (G-313) and over all its
/// associations, for the node's life. It says nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerHandle(pub [u8; 16]);

impl fmt::Display for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerHandle({self})")
    }
}

/// One of this node's ways out, for explicit routing: what an SII-Handle of [`SendMessage`] is for (RFC 5971 §7.1.4, B.1).
///
/// What a number stands for is agreed between whoever runs the application and the shell (`gist::io::Bind::path_mark`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PathId(pub u8);

impl PathId {
    /// Wherever routing leads.
    pub const ROUTED: Self = Self(0);

    /// The greatest: there are seven beside [`Self::ROUTED`].
    pub const GREATEST: Self = Self(7);
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the application believes of the next peer (RFC 5971 §7.1.3, B.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoutingStatus {
    /// It may be another one now: messages still go to it until the answer is known.
    Tentative,
    /// It is not on the path, or does not answer: nothing more goes to it (G-311). Messages wait for the new one.
    Bad,
}

/// What the application asks of the way a message is carried (RFC 5971 §4.1.2).
///
/// GIST may give more than asked for, never less (G-016, G-019, G-051).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TransferAttributes {
    /// Delivered once and in order within the session, or reported as possibly lost.
    pub reliable: bool,
    /// Only between mutually authenticated and authorised peers, confidential and with integrity.
    pub secure: bool,
}

impl TransferAttributes {
    /// Reliable and secure, as X-76 demands for every PBS message.
    pub const RELIABLE_AND_SECURE: Self = Self { reliable: true, secure: true };
}

/// How the next peer of a message is found (RFC 5971 §4.1.2, §4.3.3, §7.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Routing {
    /// By routing state, which is made first if there is none.
    #[default]
    State,
    /// By no routing state, and none is made (G-018): one datagram in Q-mode to whoever on the path takes it, unprotected, which may
    /// get lost without a word. Only for an application that sends unprotected messages.
    Stateless,
    /// To this peer, [`ReceivedMessage::peer_handle`] of a message that came from it, whatever routing state says (G-314). Its application
    /// gets the message only if it takes [`Reception::unvalidated`] ones, and judges it itself.
    Peer(PeerHandle),
}

/// What the application says of what carries a message, beyond its attributes (RFC 5971 B.3, G-389).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Carriage {
    /// Whatever the attributes allow.
    #[default]
    Any,
    /// The application decides when it is known: it gets [`Indication::MessageProposed`] instead of the message going, and hands that in again
    /// or not. Nothing waits for it meanwhile: who sends more before may be overtaken by itself.
    Ask,
    /// The application has decided for this. If it is something else by now it is asked again.
    Only(Transport),
}

impl Carriage {
    /// Whether the application is to be asked before the message goes by `transport`.
    pub(crate) fn asks_about(self, transport: Transport) -> bool {
        match self {
            Self::Any => false,
            Self::Ask => true,
            Self::Only(wanted) => wanted != transport,
        }
    }
}

/// From the application to GIST.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// Sends one message to the next peer of the flow (RFC 5971 B.1).
    Send(SendMessage),
    /// Says how long routing state is wanted without traffic (RFC 5971 B.5).
    ///
    /// The MRI's direction is the direction of the messages concerned. Prolonging works where this node is the querying
    /// one; a lifetime of 0 means "no interest any more" and removes the state on either side at once, without an
    /// indication.
    SetStateLifetime {
        /// The application.
        nslp_id: NslpId,
        /// The session.
        session: SessionId,
        /// The flow and the direction of messages.
        mri: Mri,
        /// The period without traffic after which the state goes; 0 = now.
        lifetime: Duration,
    },
    /// Says that the next peer may be another one now (RFC 5971 B.6).
    InvalidateRoutingState {
        /// The application.
        nslp_id: NslpId,
        /// The session.
        session: SessionId,
        /// The flow and the direction of messages.
        mri: Mri,
        /// What the peer is to be taken for from now on.
        status: RoutingStatus,
        /// Whether to ask the network at once, not only with the next message (G-312). Without it, a peer that is
        /// [`RoutingStatus::Bad`] costs the state, a lifetime asked for included: the next message starts anew.
        urgent: bool,
    },
    /// Answers the peering question of Queries to come (RFC 5971 §4.3.2): whether this node becomes the peer of whoever asks for an
    /// application. While it does not, they pass on towards their destination (G-038); that itself peers in any case (G-035), and
    /// existing state is refreshed.
    SetPeering {
        /// The application.
        nslp_id: NslpId,
        /// The answer.
        willing: bool,
    },
    /// Says that the peer of a [`ReceivedMessage::tentative`] message is the one upstream now.
    ///
    /// Only the application can know: it has verified what the flow's source has signed, and that it is newer than what it
    /// had. Messages towards the source go to this peer from then on. Without an indication, since the application causes it
    /// (G-309). No effect if the state has no such second peer, so that saying it again does no harm.
    AdoptPeer {
        /// The application.
        nslp_id: NslpId,
        /// The session.
        session: SessionId,
        /// The flow, with the direction of messages towards the peer: the one of the message received, inverted.
        mri: Mri,
        /// [`ReceivedMessage::peer_handle`].
        peer: PeerHandle,
    },
}

/// One message of the application (RFC 5971 B.1).
///
/// Its `Debug` shows the payload's length only: the payload may hold keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SendMessage {
    /// The application.
    pub nslp_id: NslpId,
    /// The session.
    pub session: SessionId,
    /// The flow, with the direction this message goes.
    pub mri: Mri,
    /// The application's message: whole 32-bit words, at most 16,380 bytes (G-370, X-23).
    pub payload: Bytes,
    /// How it must be carried.
    pub attributes: TransferAttributes,
    /// Comes back in [`Indication::MessageStatus`].
    pub handle: MessageHandle,
    /// How long GIST may try, from now; `None` leaves it to GIST's own bound T2 (G-192, G-193).
    pub timeout: Option<Duration>,
    /// GIST hop count to send with; `None` lets GIST choose, 0 is refused (G-049, G-050).
    ///
    /// An application that forwards a message passes on the count it received.
    pub hop_count: Option<u8>,
    /// Whose message led to this one, [`ReceivedMessage::principal`]; `None` for one of the application's own.
    ///
    /// The routing state that the message may need counts against it: one cause gets the same share of the table as for
    /// states it asks for itself ([`SendError::QueueFull`] past it).
    pub on_behalf_of: Option<Principal>,
    /// By which way out the peer is to be found.
    ///
    /// Another one than that of the message before leads to another peer: the peer known so far gets nothing more, and the
    /// message waits for whoever answers a Query on the new way. Nothing is said to the old peer, whose state runs out.
    pub path: PathId,
    /// How the next peer is found.
    pub routing: Routing,
    /// Whether the application decides once it is known what carries the message.
    pub carriage: Carriage,
}

/// From GIST to the application.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Indication {
    /// A peer's message for the application (RFC 5971 B.2).
    Received(ReceivedMessage),
    /// A message handed to [`Request::Send`] was not sent (RFC 5971 B.3). Said once per message, or never.
    MessageStatus {
        /// As given with the message.
        handle: MessageHandle,
        /// The application.
        nslp_id: NslpId,
        /// The session.
        session: SessionId,
        /// The flow, with the message's direction.
        mri: Mri,
        /// Why.
        error: SendError,
    },
    /// What would carry a message that the application wants to decide about ([`Carriage`]; RFC 5971 B.3). It has not been sent, and nothing
    /// is kept of it: handed in again with [`Carriage::Only`] it goes, else it does not.
    MessageProposed {
        /// The message.
        message: SendMessage,
        /// What would carry it.
        transport: Transport,
    },
    /// Something happened to the way of a session's messages (RFC 5971 B.4).
    NetworkNotification {
        /// The application.
        nslp_id: NslpId,
        /// The session.
        session: SessionId,
        /// The flow, with the direction of messages towards the peer concerned.
        mri: Mri,
        /// What.
        event: NetworkEvent,
        /// Who the messages went to, or came from, before; `None` if there was nobody.
        former: Option<PeerHandle>,
        /// Who it is from now on; `None` while there is nobody.
        peer: Option<PeerHandle>,
        /// Whether that peer is authenticated, and allowed by the authorised peer database; not if there is nobody.
        authenticated: bool,
    },
}

/// A message as the application gets it (RFC 5971 B.2).
///
/// Its `Debug` shows the payload's length only: the payload may hold keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReceivedMessage {
    /// The application.
    pub nslp_id: NslpId,
    /// The session.
    pub session: SessionId,
    /// The flow, with the direction the message travels.
    pub mri: Mri,
    /// The peer application's message; may be empty.
    pub payload: Bytes,
    /// The messaging association it came over; `None` for a datagram.
    pub association: Option<AssociationId>,
    /// Who sent it, by the Network-Layer-Information the routing state was made with.
    pub peer: PeerIdentity,
    /// The same peer for [`Request::AdoptPeer`], and to compare with notifications.
    pub peer_handle: PeerHandle,
    /// Whom every limit per peer counts it against.
    pub principal: Principal,
    /// Whether the peer is not the session's, but one that claims to be: authorised, and not adopted
    /// ([`Request::AdoptPeer`]). What it says proves no more than its signatures do, and answers go to the session's peer.
    pub tentative: bool,
    /// Whether it came over a mutually authenticated association whose peer the authorised peer database allows.
    pub authenticated: bool,
    /// GIST hop count, already reduced by this node (G-033).
    pub hop_count: u8,
    /// IP hops to the peer beyond the first link, if known (G-161, G-163).
    pub ip_distance: Option<u8>,
    /// How it came.
    pub reception: Reception,
}

/// What carries a message between two nodes (RFC 5971 §5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// UDP: D-mode.
    #[default]
    Datagram,
    /// TCP alone (Forwards-TCP): reliable, unprotected.
    Tcp,
    /// TLS over TCP, both ends authenticated.
    Tls,
}

/// How a message came, beyond what it says itself (RFC 5971 B.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reception {
    /// What carried it.
    pub transport: Transport,
    /// No routing state vouches for it (G-044): it came in Q-mode without any, or explicitly routed. Nobody has compared its sender,
    /// flow and session with anything; in a datagram, its sender need not even be where it says.
    pub unvalidated: bool,
    /// The sender chose this node whatever its routing state says (E=1, G-315).
    pub explicit: bool,
    /// The IP TTL or hop limit it arrived with; `None` over an association.
    pub ip_ttl: Option<u8>,
    /// The interface it arrived by, by the operating system's index; `None` over an association, or if unknown.
    pub interface: Option<u32>,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SendError {
    /// Nobody on the path answered the Queries.
    NoResponse,
    /// The messaging association could not be made, or failed; the text names the cause.
    AssociationFailed(String),
    /// The message routing method has no way to find a peer in this direction, or none is registered.
    NoEncapsulation,
    /// This node is itself where the message would go (G-024, G-048).
    SelfDestination,
    /// The message does not fit into what may carry it, or is no whole number of 32-bit words.
    TooLarge,
    /// The message's own timeout ended first.
    TimedOut,
    /// The application gave a hop count of 0 (G-049).
    HopCountZero,
    /// A queue or table that the message needs is full.
    QueueFull,
    /// The peer on the path is not in the authorised peer database.
    NotAuthorised,
    /// Nobody took the Queries, and somebody on the path has said why: an Error about one of them, which anybody who has seen it can
    /// write.
    Refused(ErrorCause),
    /// No peer is known by the handle of [`Routing::Peer`], or it cannot be reached any more.
    UnknownPeer,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoResponse => f.write_str("no GIST node on the path answered"),
            Self::AssociationFailed(reason) => write!(f, "messaging association failed: {reason}"),
            Self::NoEncapsulation => f.write_str("no way to find a peer in this direction"),
            Self::SelfDestination => f.write_str("this node is the destination"),
            Self::TooLarge => f.write_str("message too large"),
            Self::TimedOut => f.write_str("timed out"),
            Self::HopCountZero => f.write_str("hop count 0"),
            Self::QueueFull => f.write_str("queue full"),
            Self::NotAuthorised => f.write_str("peer not authorised"),
            Self::Refused(cause) => write!(f, "refused on the path: {cause}"),
            Self::UnknownPeer => f.write_str("no such peer"),
        }
    }
}

/// What happened to the way of a session's messages (RFC 5971 B.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkEvent {
    /// No application of this kind lies further along the path.
    LastNode,
    /// Another peer answers, or asks, for this flow than before; or, with `former` and `peer` the same, the same one asks
    /// over another interface or association.
    PeerChanged,
    /// The routing state ended: nobody refreshed it, or nobody answered.
    RouteDeleted,
    /// Communication with the peer failed; messages may have been lost (G-014). A peer that is gone without a word is
    /// noticed after the hold time and the time for a reply at most (40 s by default, G-292…G-296).
    AssociationLost,
    /// The peer is not, or no longer, in the authorised peer database, or its certificate has run out.
    NotAuthorised,
}

impl fmt::Display for NetworkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LastNode => "last node",
            Self::PeerChanged => "peer changed",
            Self::RouteDeleted => "route deleted",
            Self::AssociationLost => "association lost",
            Self::NotAuthorised => "not authorised",
        })
    }
}

impl fmt::Debug for SendMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendMessage")
            .field("nslp_id", &self.nslp_id)
            .field("session", &self.session)
            .field("mri", &self.mri)
            .field("payload_length", &self.payload.len())
            .field("attributes", &self.attributes)
            .field("handle", &self.handle)
            .field("timeout", &self.timeout)
            .field("hop_count", &self.hop_count)
            .field("on_behalf_of", &self.on_behalf_of)
            .field("path", &self.path)
            .field("routing", &self.routing)
            .field("carriage", &self.carriage)
            .finish()
    }
}

impl fmt::Debug for ReceivedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMessage")
            .field("nslp_id", &self.nslp_id)
            .field("session", &self.session)
            .field("mri", &self.mri)
            .field("payload_length", &self.payload.len())
            .field("association", &self.association)
            .field("peer", &self.peer)
            .field("peer_handle", &self.peer_handle)
            .field("principal", &self.principal)
            .field("tentative", &self.tentative)
            .field("authenticated", &self.authenticated)
            .field("hop_count", &self.hop_count)
            .field("ip_distance", &self.ip_distance)
            .field("reception", &self.reception)
            .finish()
    }
}
