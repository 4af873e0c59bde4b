//! One line in each direction, as values.

mod hexadecimal;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mri::Method;
use super::strict::Fields;
use crate::api::{
    Carriage, Indication, MessageHandle, NetworkEvent, PathId, PeerHandle, ReceivedMessage, Routing, RoutingStatus, SendError, SendMessage,
    TransferAttributes,
};
use crate::wire::{NslpId, SessionId};

/// What a program asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Names the application that the program is.
    Register {
        /// Its NSLPID.
        nslp_id: u16,
    },
    /// B.1.
    Send {
        /// Session identifier, 16 octets.
        #[serde(with = "hexadecimal")]
        session: [u8; 16],
        /// The flow and the direction of the message.
        mri: Method,
        /// The application's message.
        #[serde(with = "hexadecimal")]
        payload: Vec<u8>,
        /// Comes back in `message_status`.
        #[serde(default)]
        handle: u64,
        /// In order and once.
        #[serde(default)]
        reliable: bool,
        /// Only between authenticated peers.
        #[serde(default)]
        secure: bool,
        /// How long GIST may try, in milliseconds.
        #[serde(default)]
        timeout: Option<u64>,
        /// GIST hop count.
        #[serde(default)]
        hop_count: Option<u8>,
        /// By no routing state, and none is made.
        #[serde(default)]
        stateless: bool,
        /// To this peer, whatever routing state says.
        #[serde(default, with = "optional_hexadecimal")]
        to_peer: Option<[u8; 16]>,
        /// What may carry it.
        #[serde(default)]
        over: Option<Over>,
    },
    /// B.5.
    SetStateLifetime {
        /// Session identifier.
        #[serde(with = "hexadecimal")]
        session: [u8; 16],
        /// The flow and the direction of the messages.
        mri: Method,
        /// Milliseconds.
        lifetime: u64,
    },
    /// B.6.
    InvalidateRoutingState {
        /// Session identifier.
        #[serde(with = "hexadecimal")]
        session: [u8; 16],
        /// The flow and the direction of the messages.
        mri: Method,
        /// What the peer is taken for.
        status: Status,
        /// Whether to ask the network at once.
        #[serde(default)]
        urgent: bool,
    },
    /// The peer of a `tentative` message is the right one.
    AdoptPeer {
        /// Session identifier.
        #[serde(with = "hexadecimal")]
        session: [u8; 16],
        /// The flow, with the direction towards the peer.
        mri: Method,
        /// `peer_handle` of the message.
        #[serde(with = "hexadecimal")]
        peer: [u8; 16],
    },
    /// What the node knows.
    Show {
        /// Which of it.
        what: What,
        /// How many entries to leave out.
        #[serde(default)]
        from: usize,
    },
}

/// A line of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What the program calls it.
    pub id: Option<u64>,
    /// What it asks.
    pub request: Request,
}

/// What may carry a message (B.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// The program decides when it is known.
    Ask,
    /// Datagrams alone.
    Udp,
    /// TCP alone.
    Tcp,
    /// TLS alone.
    Tls,
}

/// What the application believes of a peer (B.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may be another one.
    Tentative,
    /// It is not on the path.
    Bad,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The routing state table.
    Routing,
    /// The messaging associations.
    Associations,
    /// The counters of the node and its shell.
    Counters,
}

/// What the node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The program has the application now.
    Registered {
        /// Its NSLPID.
        nslp_id: u16,
    },
    /// B.2.
    Received {
        /// Session identifier.
        #[serde(with = "hexadecimal")]
        session: [u8; 16],
        /// The flow, with the direction the message travels.
        mri: Method,
        /// The message.
        #[serde(with = "hexadecimal")]
        payload: Vec<u8>,
        /// How it was carried.
        transport: Transport,
        /// The association it came over.
        association: Option<u64>,
        /// Whether its peer is authenticated and authorised.
        authenticated: bool,
        /// The peer's identity by its Network-Layer-Information.
        peer: String,
        /// The same peer, to compare and to adopt.
        #[serde(with = "hexadecimal")]
        peer_handle: [u8; 16],
        /// Whether the peer is not the session's.
        tentative: bool,
        /// GIST hop count.
        hop_count: u8,
        /// IP hops to the peer beyond the first link.
        ip_distance: Option<u8>,
        /// Whether no routing state vouches for it.
        unvalidated: bool,
        /// Whether the sender chose this node whatever its routing state says.
        explicit: bool,
        /// The IP TTL or hop limit it arrived with.
        ip_ttl: Option<u8>,
        /// The interface it arrived by, by its index.
        interface: Option<u32>,
    },
    /// B.3: a message was not sent.
    MessageStatus {
        /// As given with the message.
        handle: u64,
        /// Session identifier.
        #[serde(with = "hexadecimal")]
        session: [u8; 16],
        /// The flow, with the message's direction.
        mri: Method,
        /// Which error.
        error: Failure,
        /// The same in words.
        why: String,
    },
    /// B.3: what would carry a message that the program wants to decide about. It has not been sent.
    MessageProposed {
        /// As given with the message.
        handle: u64,
        /// Session identifier.
        #[serde(with = "hexadecimal")]
        session: [u8; 16],
        /// The flow, with the message's direction.
        mri: Method,
        /// What would carry it.
        transport: Transport,
    },
    /// B.4.
    NetworkNotification {
        /// Session identifier.
        #[serde(with = "hexadecimal")]
        session: [u8; 16],
        /// The flow, with the direction towards the peer.
        mri: Method,
        /// What happened.
        change: Change,
        /// Who the peer was.
        former: Option<String>,
        /// Who it is.
        peer: Option<String>,
        /// Whether that is an authenticated peer.
        authenticated: bool,
    },
    /// What was asked for.
    Shown {
        /// The request's.
        id: Option<u64>,
        /// What it is.
        what: What,
        /// And its content, [`PAGE`](super::PAGE) entries at most.
        content: Value,
        /// How many entries there are.
        total: usize,
        /// `from` of the request for the entries behind these.
        next: Option<usize>,
    },
    /// A line that is no request, or a request that cannot be taken.
    Refused {
        /// The request's.
        id: Option<u64>,
        /// Which line of the program, from 1.
        line: u64,
        /// Why.
        why: String,
    },
}

/// How a message was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// D-mode: a datagram.
    Udp,
    /// C-mode: TCP alone.
    Tcp,
    /// C-mode: TLS over TCP.
    Tls,
}

/// [`SendError`] in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is explained at SendError")]
pub enum Failure {
    NoResponse,
    AssociationFailed,
    NoEncapsulation,
    SelfDestination,
    TooLarge,
    TimedOut,
    HopCountZero,
    QueueFull,
    NotAuthorised,
    Refused,
    UnknownPeer,
}

/// [`NetworkEvent`] in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is explained at NetworkEvent")]
pub enum Change {
    LastNode,
    PeerChanged,
    RouteDeleted,
    AssociationLost,
    NotAuthorised,
}

/// Why a line is no request.
#[derive(Debug, thiserror::Error)]
#[error("not a request: {why}")]
pub struct NotALine {
    /// What the program calls it, if that can be read.
    pub id: Option<u64>,
    /// What is wrong with it.
    why: String,
}

impl Asked {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// It is no JSON object, or none of the requests, or has a key that the request does not have.
    pub fn read(line: &[u8]) -> Result<Self, NotALine> {
        let not = |id, why: serde_json::Error| NotALine { id, why: why.to_string() };
        let Fields(mut fields) = serde_json::from_slice(line).map_err(|why| not(None, why))?;
        let id: Option<u64> = fields.remove("id").map(serde_json::from_value).transpose().map_err(|why| not(None, why))?;
        let request = serde_json::from_value(Value::Object(fields)).map_err(|why| not(id, why))?;
        Ok(Self { id, request })
    }
}

impl Request {
    /// What the node is asked on behalf of the application; `None` for what is not the node's business.
    pub fn of_application(self, nslp_id: NslpId) -> Option<crate::api::Request> {
        use crate::api::Request as Asked;

        Some(match self {
            Self::Register { .. } | Self::Show { .. } => return None,
            Self::Send { session, mri, payload, handle, reliable, secure, timeout, hop_count, stateless, to_peer, over } => {
                Asked::Send(SendMessage {
                    nslp_id,
                    session: SessionId(session),
                    mri: mri.into(),
                    payload: Bytes::from(payload),
                    attributes: TransferAttributes { reliable, secure },
                    handle: MessageHandle(handle),
                    timeout: timeout.map(Duration::from_millis),
                    hop_count,
                    on_behalf_of: None,
                    path: PathId::ROUTED,
                    routing: match to_peer {
                        Some(peer) => Routing::Peer(PeerHandle(peer)),
                        None if stateless => Routing::Stateless,
                        None => Routing::State,
                    },
                    carriage: over.map_or(Carriage::Any, Carriage::from),
                })
            }
            Self::SetStateLifetime { session, mri, lifetime } => {
                Asked::SetStateLifetime { nslp_id, session: SessionId(session), mri: mri.into(), lifetime: Duration::from_millis(lifetime) }
            }
            Self::InvalidateRoutingState { session, mri, status, urgent } => {
                let status = match status {
                    Status::Tentative => RoutingStatus::Tentative,
                    Status::Bad => RoutingStatus::Bad,
                };
                Asked::InvalidateRoutingState { nslp_id, session: SessionId(session), mri: mri.into(), status, urgent }
            }
            Self::AdoptPeer { session, mri, peer } => {
                Asked::AdoptPeer { nslp_id, session: SessionId(session), mri: mri.into(), peer: PeerHandle(peer) }
            }
        })
    }
}

impl Event {
    /// The line, with its end.
    pub fn write(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// The application that an indication is for, and what its program is told.
    pub fn of(indication: &Indication) -> (NslpId, Self) {
        match indication {
            Indication::Received(message) => (message.nslp_id, received(message)),
            Indication::MessageStatus { handle, nslp_id, session, mri, error } => {
                let (error, why) = (error.into(), error.to_string());
                (*nslp_id, Self::MessageStatus { handle: handle.0, session: session.0, mri: mri.into(), error, why })
            }
            Indication::MessageProposed { message, transport } => {
                let SendMessage { handle, nslp_id, session, mri, .. } = message;
                let (mri, transport) = (mri.into(), (*transport).into());
                (*nslp_id, Self::MessageProposed { handle: handle.0, session: session.0, mri, transport })
            }
            Indication::NetworkNotification { nslp_id, session, mri, event, former, peer, authenticated } => {
                let name = |peer: &Option<PeerHandle>| peer.map(|peer| peer.to_string());
                let (former, peer) = (name(former), name(peer));
                let (change, authenticated) = ((*event).into(), *authenticated);
                (*nslp_id, Self::NetworkNotification { session: session.0, mri: mri.into(), change, former, peer, authenticated })
            }
        }
    }
}

fn received(message: &ReceivedMessage) -> Event {
    Event::Received {
        session: message.session.0,
        mri: (&message.mri).into(),
        payload: message.payload.to_vec(),
        transport: message.reception.transport.into(),
        association: message.association.map(|association| association.0),
        authenticated: message.authenticated,
        peer: message.peer.to_string(),
        peer_handle: message.peer_handle.0,
        tentative: message.tentative,
        hop_count: message.hop_count,
        ip_distance: message.ip_distance,
        unvalidated: message.reception.unvalidated,
        explicit: message.reception.explicit,
        ip_ttl: message.reception.ip_ttl,
        interface: message.reception.interface,
    }
}

impl From<Over> for Carriage {
    fn from(over: Over) -> Self {
        match over {
            Over::Ask => Self::Ask,
            Over::Udp => Self::Only(crate::api::Transport::Datagram),
            Over::Tcp => Self::Only(crate::api::Transport::Tcp),
            Over::Tls => Self::Only(crate::api::Transport::Tls),
        }
    }
}

impl From<crate::api::Transport> for Transport {
    fn from(transport: crate::api::Transport) -> Self {
        match transport {
            crate::api::Transport::Datagram => Self::Udp,
            crate::api::Transport::Tcp => Self::Tcp,
            crate::api::Transport::Tls => Self::Tls,
        }
    }
}

impl From<&SendError> for Failure {
    fn from(error: &SendError) -> Self {
        match error {
            SendError::NoResponse => Self::NoResponse,
            SendError::AssociationFailed(_) => Self::AssociationFailed,
            SendError::NoEncapsulation => Self::NoEncapsulation,
            SendError::SelfDestination => Self::SelfDestination,
            SendError::TooLarge => Self::TooLarge,
            SendError::TimedOut => Self::TimedOut,
            SendError::HopCountZero => Self::HopCountZero,
            SendError::QueueFull => Self::QueueFull,
            SendError::NotAuthorised => Self::NotAuthorised,
            SendError::Refused(_) => Self::Refused,
            SendError::UnknownPeer => Self::UnknownPeer,
        }
    }
}

impl From<NetworkEvent> for Change {
    fn from(event: NetworkEvent) -> Self {
        match event {
            NetworkEvent::LastNode => Self::LastNode,
            NetworkEvent::PeerChanged => Self::PeerChanged,
            NetworkEvent::RouteDeleted => Self::RouteDeleted,
            NetworkEvent::AssociationLost => Self::AssociationLost,
            NetworkEvent::NotAuthorised => Self::NotAuthorised,
        }
    }
}

/// Octets as hexadecimal digits, where there may be none.
mod optional_hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Octets(#[serde(with = "super::hexadecimal")] [u8; 16]);

    pub(super) fn serialize<S: Serializer>(octets: &Option<[u8; 16]>, serializer: S) -> Result<S::Ok, S::Error> {
        match octets {
            Some(octets) => super::hexadecimal::serialize(octets, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 16]>, D::Error> {
        Ok(Option::<Octets>::deserialize(deserializer)?.map(|Octets(octets)| octets))
    }
}

#[cfg(test)]
mod tests;
