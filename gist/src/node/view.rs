//! What a node shows of itself.

use core::net::{IpAddr, SocketAddr};

use super::Refused;
use crate::api::{AssociationId, Transport};
use crate::time::Instant;
use crate::wire::{Mri, NslpId, PeerIdentity, SessionId};

/// Which end of the handshake this node was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// It sent the Query.
    Querying,
    /// It answered the Query.
    Responding,
}

/// One line of the routing state table (RFC 5971 §4.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutingEntry {
    /// Which end this node is.
    pub side: Side,
    /// The application.
    pub nslp_id: NslpId,
    /// The session.
    pub session: SessionId,
    /// The flow, with the direction of messages towards the peer.
    pub mri: Mri,
    /// The state's name as RFC 5971 prints it.
    pub state: String,
    /// The peer, once known.
    pub peer: Option<PeerIdentity>,
    /// The peer's address, once known.
    pub peer_address: Option<IpAddr>,
    /// The association to the peer; `None` before it is chosen, or with datagrams.
    pub association: Option<AssociationId>,
    /// The peer's UDP port if messages go as datagrams (G-022).
    pub datagram_port: Option<u16>,
    /// IP hops to the peer beyond the first link, if known.
    pub ip_distance: Option<u8>,
    /// When the state ends unless refreshed, or for a Query the process; `None` if no timer runs.
    pub valid_until: Option<Instant>,
    /// Messages waiting.
    pub queued: usize,
    /// Who claims to be the peer too and is not adopted (a responding state only).
    pub second_peer: Option<PeerIdentity>,
}

/// One messaging association (RFC 5971 §4.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssociationEntry {
    /// Its name.
    pub association: AssociationId,
    /// Whether this node opened it.
    pub opened_here: bool,
    /// The state's name as RFC 5971 prints it.
    pub state: String,
    /// The transport address of the peer.
    pub remote: SocketAddr,
    /// TCP alone, or TLS over it.
    pub transport: Transport,
    /// The peer by its NLI, once told.
    pub peer: Option<PeerIdentity>,
    /// The peer by its certificate.
    pub subject: String,
    /// Routing states that use it.
    pub users: usize,
    /// When the peer was last heard on it.
    pub last_heard: Instant,
}

/// How often what happened, since the node was made. Nothing ever counts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "ipc", derive(serde::Serialize))]
pub struct Counters {
    /// Datagrams handed in.
    pub datagrams_received: u64,
    /// Datagrams handed out.
    pub datagrams_sent: u64,
    /// Messages received on associations.
    pub association_messages_received: u64,
    /// Messages handed to associations.
    pub association_messages_sent: u64,
    /// Queries made, retransmissions included; the rate limiter may hold some.
    pub queries_sent: u64,
    /// Responses made; the rate limiter may have dropped some.
    pub responses_sent: u64,
    /// Errors made; the rate limiter may have dropped some.
    pub errors_sent: u64,
    /// Errors received.
    pub errors_received: u64,
    /// Messages of peers given to the application.
    pub messages_delivered: u64,
    /// Datagrams without the magic number (G-168).
    pub no_magic: u64,
    /// Messages that do not decode.
    pub malformed: u64,
    /// These and all others that the error catalogue has an entry for, by that entry.
    pub refused: Refused,
    /// Messages with hop count 0 (G-032).
    pub hop_count_zero: u64,
    /// Messages in an encapsulation their type, or what they lack for it, does not allow (G-210).
    pub wrong_encapsulation: u64,
    /// Messages for an application that is not here.
    pub unknown_nslp_id: u64,
    /// Q-mode messages of applications that are not here, on their way to somebody else, passed on (G-066).
    pub passed_by: u64,
    /// The same, not passed on, and why said (G-068, G-070, G-072).
    pub not_passed_by: u64,
    /// Responses and Errors that match nothing (G-127).
    pub stray: u64,
    /// Datagrams that named an address no answer may go to: this node's own, or not one of a single other node (G-156).
    pub unanswerable: u64,
    /// Queries whose cookie is longer than any cookie need be, so that its echo would be a message to somebody else.
    pub long_query_cookies: u64,
    /// Responses whose Query-Cookie is not one of this handshake's.
    pub bad_query_cookies: u64,
    /// Responder-Cookies refused by their generation, without any computation (G-334).
    pub stale_responder_cookies: u64,
    /// Responder-Cookies of a live generation that are not ours.
    pub bad_responder_cookies: u64,
    /// Confirms whose echoed Stack-Proposal is not ours.
    pub altered_proposals: u64,
    /// Messages whose IP source is not their signalling address although they say so (G-171).
    pub address_mismatch: u64,
    /// Payloads outside an authenticated association for an application that demands one.
    pub unprotected: u64,
    /// Messages on an association that does not carry their session (G-045).
    pub wrong_association: u64,
    /// Data and Confirms without routing state (G-130).
    pub no_routing_state: u64,
    /// Associations closed because of the authorised peer database (G-095).
    pub not_authorised: u64,
    /// Confirms and Responses of authenticated peers that may not serve the flow, or not under that name.
    pub flows_refused: u64,
    /// Confirms that would have displaced another peer whose association is open (G-128).
    pub takeovers_refused: u64,
    /// Upstream Queries for an application that does not take them (G-256).
    pub upstream_queries_refused: u64,
    /// Endpoint Found about a Query of ours: a hint that nobody has to be right about.
    pub endpoints_found: u64,
    /// Associations ended because the peer that had opened them confirmed nothing over them in time.
    pub unconfirmed_ended: u64,
    /// Associations ended because their peer went on saying what cannot be read, or what is refused before it had confirmed anything, or
    /// had a Confirm refused while it took nothing of what was said to it.
    pub misused_ended: u64,
    /// What a full table or queue refused.
    pub refused_when_full: u64,
    /// Associations that no flow used, ended to make room in a full table.
    pub idle_displaced: u64,
    /// Routing states that no Confirm had come for, ended since their place was needed ([`super::Installation`]).
    pub unconfirmed_displaced: u64,
    /// Responses for which no connection was opened: too many for one handshake, or in the name of an address at which no
    /// neighbour can be.
    pub opens_refused: u64,
    /// Responses that offer no stack this node takes (G-343).
    pub stacks_refused: u64,
    /// Responses that were waited past (G-343), for these reasons or for want of room.
    pub responses_refused: u64,
    /// Responses by datagram in the name of a peer to which the state has an association that is open: it would have answered there.
    pub answered_elsewhere: u64,
    /// Responses and Errors not sent, and Responses not heard, because the association's peer does not take what it is sent.
    pub withheld: u64,
    /// Datagrams that waited for the rate limiter.
    pub rate_delayed: u64,
    /// Datagrams the rate limiter dropped, and Responses and Errors that an association's peer drew too many of.
    pub rate_dropped: u64,
    /// Events a machine's table has no row for (G-282).
    pub events_ignored: u64,
    /// Events in the table but not acted upon.
    pub events_refused: u64,
    /// MACs computed for Responder-Cookies that came in.
    pub cookie_macs: u64,
}
