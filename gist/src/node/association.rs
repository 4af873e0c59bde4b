//! Messaging associations: the table, and the machine of RFC 5971 §6.4 on each.

use core::net::{IpAddr, SocketAddr};
use core::ops::Bound;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::allowance::Allowance;
use super::authorised_peers::is_authorised;
use super::authority::share;
use super::doubt::Doubt;
use super::machines::association::{Event, Guards, Outcome, State, step};
use super::receive::Received;
use super::routing_state::{Hop, Peer, RoutingKey, SharedHops, User};
use super::sorted::SortedSet;
use super::task::Task;
use super::{AssociationEvent, Caps, Node, Output, PeerCredentials};
use crate::api::{AssociationId, PathId};
use crate::time::Instant;
use crate::wire::Hello;

/// One messaging association (RFC 5971 §4.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Association {
    pub(super) state: State,
    pub(super) opened_here: bool,
    pub(super) remote: SocketAddr,
    /// The way out that all its segments leave by; only what is on this way may use it.
    pub(super) path: PathId,
    /// Where it is opened from; `None` leaves it to the kernel.
    pub(super) source: Option<IpAddr>,
    /// The NLI it is known by, from the first handshake on it (RFC 5971 §4.4.3).
    pub(super) peer: Option<Peer>,
    /// The address that this node has named in that handshake, by which the peer knows it; `None` if that cannot be told.
    pub(super) own: Option<IpAddr>,
    pub(super) credentials: Option<PeerCredentials>,
    /// Over TLS, or to be; else over TCP alone.
    pub(super) protected: bool,
    /// MA-Hold-Time the peer announced; ours until it has.
    pub(super) peer_hold_time: Duration,
    /// When the first Confirm went or came over it.
    pub(super) confirmed: Option<Instant>,
    /// Routing states that use it, which this node has asked for.
    pub(super) querying: SortedSet<RoutingKey>,
    /// The same, which the peer has asked for.
    pub(super) responding: SortedSet<RoutingKey>,
    /// What its states share.
    pub(super) hops: SharedHops,
    pub(super) last_heard: Instant,
    /// Whether its peer may be gone.
    pub(super) doubt: Doubt,
    /// The Hello-ID of a request not yet answered.
    pub(super) hello: Option<u32>,
    /// Hello-IDs whose answer shows that the Confirm sent before them was taken, and whose Confirm that was.
    pub(super) proofs: BTreeMap<u32, RoutingKey>,
    /// When the peer's certificate runs out, if that is known.
    pub(super) certified_until: Option<Instant>,
    /// Bytes of messages handed out that the shell has not yet written.
    pub(super) unwritten: usize,
    /// States whose messages wait until the peer takes more.
    turns: BTreeSet<User>,
    /// Whose turn it was last.
    last_turn: Option<User>,
    /// Bounds Responses to Queries that name its peer.
    pub(super) allowance: Allowance,
    /// Bounds Errors about what it says.
    pub(super) errors: Allowance,
    /// How much of what only its peer can be blamed for was not answered, and since when that is counted.
    pub(super) unanswered: Option<(Instant, u32)>,
}

impl Association {
    pub(super) fn new(opened_here: bool, remote: SocketAddr, hold_time: Duration, now: Instant) -> Self {
        Self {
            state: State::Birth,
            opened_here,
            remote,
            path: PathId::ROUTED,
            source: None,
            peer: None,
            own: None,
            credentials: None,
            protected: true,
            peer_hold_time: hold_time,
            confirmed: None,
            querying: SortedSet::default(),
            responding: SortedSet::default(),
            hops: SharedHops::default(),
            last_heard: now,
            doubt: Doubt::default(),
            hello: None,
            proofs: BTreeMap::new(),
            certified_until: None,
            unwritten: 0,
            turns: BTreeSet::new(),
            last_turn: None,
            allowance: Allowance::default(),
            errors: Allowance::default(),
            unanswered: None,
        }
    }

    /// The same by a way out, from an address.
    pub(super) fn by(self, path: PathId, source: Option<IpAddr>) -> Self {
        Self { path, source, ..self }
    }

    /// The same for a handshake in which this node has named this address.
    pub(super) fn named(self, own: Option<IpAddr>) -> Self {
        Self { own, ..self }
    }

    /// The same over TLS or not.
    pub(super) fn over_tls(self, protected: bool) -> Self {
        Self { protected, ..self }
    }

    /// Each state in its turn, in a circle.
    fn take_turn(&mut self) -> Option<User> {
        let next = |last: &User| self.turns.range((Bound::Excluded(last), Bound::Unbounded)).next();
        let user = self.last_turn.as_ref().and_then(next).or_else(|| self.turns.first())?.clone();
        self.turns.remove(&user);
        self.last_turn = Some(user.clone());
        Some(user)
    }

    /// Routing states that use it.
    pub(super) fn users(&self) -> impl Iterator<Item = User> {
        let querying = self.querying.iter().cloned().map(User::Querying);
        querying.chain(self.responding.iter().cloned().map(User::Responding))
    }

    fn is_used(&self) -> bool {
        !self.querying.is_empty() || !self.responding.is_empty()
    }

    /// Whether a peer that hears this address of this node finds the association: it has to match what it was made with (§4.4.3).
    pub(super) fn is_known_by(&self, own: Option<IpAddr>) -> bool {
        self.own.is_none() || own.is_none() || self.own == own
    }

    /// Open, and the peer authenticated and authorised.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Connected | State::Idle)
    }

    /// Whether the peer may go by this NLI: one identity for the association's life, and an address that is in its
    /// certificate. A certificate that names no address at all speaks for the transport address. Otherwise one peer could
    /// draw what is meant for another.
    pub(super) fn may_claim(&self, peer: &Peer) -> bool {
        self.peer.as_ref().is_none_or(|known| known.identity == peer.identity) && self.is_reached_at(peer.address)
    }

    fn is_reached_at(&self, address: IpAddr) -> bool {
        // While this node is still connecting, the address it connects to is all there is to go by.
        let certified = self.credentials.as_ref().map_or(&[][..], |credentials| &credentials.addresses);
        certified.contains(&address) || certified.is_empty() && self.remote.ip() == address
    }

    /// The peer's credentials, and until when they count.
    fn certify(&mut self, credentials: PeerCredentials, now: Instant) {
        self.certified_until = credentials.valid_for.map(|span| now + span);
        self.credentials = Some(credentials);
    }

    /// The peer's name for limits: the hash of its key.
    pub(super) fn key_hash(&self) -> Option<&[u8; 32]> {
        self.credentials.as_ref().map(|credentials| &credentials.key_hash)
    }
}

/// All associations of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Associations {
    table: BTreeMap<AssociationId, Association>,
    /// By the NLI they are known by; only those that may claim it.
    by_peer: BTreeMap<Peer, BTreeSet<AssociationId>>,
    /// To be looked at when the tasks are done.
    touched: BTreeSet<AssociationId>,
    /// Those that may be able to take messages that wait.
    resumable: BTreeSet<AssociationId>,
    last_id: u64,
}

impl Associations {
    pub(super) fn next_id(&mut self) -> AssociationId {
        self.last_id += 1;
        AssociationId(self.last_id)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the peer may open one more: by its share of the table, by the part of it for those that have confirmed
    /// nothing, and by the peer's share of that. `most_unconfirmed` is that part, which peers over TCP alone have apart from the others,
    /// so that neither takes it from the other.
    fn allow_one_more(&self, key_hash: &[u8; 32], protected: bool, most_unconfirmed: usize, caps: &Caps) -> bool {
        let is_waiting = |association: &&Association| !association.opened_here && association.confirmed.is_none();
        let of_peer = || self.table.values().filter(|association| association.key_hash() == Some(key_hash));
        let of_kind = || self.table.values().filter(|association| association.protected == protected);
        of_peer().count() < share(caps.associations)
            && of_kind().filter(is_waiting).count() < most_unconfirmed
            && of_peer().filter(is_waiting).count() < share(most_unconfirmed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (AssociationId, &Association)> {
        self.table.iter().map(|(id, association)| (*id, association))
    }

    pub(super) fn get(&self, id: AssociationId) -> Option<&Association> {
        self.table.get(&id)
    }

    /// Whoever changes an association may have left it without use.
    pub(super) fn get_mut(&mut self, id: AssociationId) -> Option<&mut Association> {
        self.touched.insert(id);
        self.table.get_mut(&id)
    }

    /// Takes an association in; `false` if there is one of that name already.
    pub(super) fn insert(&mut self, id: AssociationId, association: Association) -> bool {
        if self.table.contains_key(&id) {
            return false;
        }
        self.last_id = self.last_id.max(id.0);
        self.table.insert(id, association);
        true
    }

    /// The association becomes known by this NLI, unless it already is known by one.
    pub(super) fn name(&mut self, id: AssociationId, peer: &Peer) {
        let Some(association) = self.table.get_mut(&id).filter(|association| association.peer.is_none()) else { return };
        association.peer = Some(peer.clone());
        if association.may_claim(peer) {
            self.by_peer.entry(peer.clone()).or_default().insert(id);
        }
    }

    /// Those known by exactly this NLI (G-103), newest first.
    pub(super) fn of_peer(&self, peer: &Peer) -> impl Iterator<Item = (AssociationId, &Association)> {
        let ids = self.by_peer.get(peer).into_iter().flatten().rev();
        ids.filter_map(|id| self.table.get(id).map(|association| (*id, association)))
    }

    pub(super) fn add_user(&mut self, id: AssociationId, user: User) {
        if let Some(association) = self.get_mut(id) {
            match user {
                User::Querying(key) => association.querying.insert(key),
                User::Responding(key) => association.responding.insert(key),
            };
        }
    }

    pub(super) fn remove_user(&mut self, id: AssociationId, user: &User) {
        let Some(association) = self.get_mut(id) else { return };
        let was_one = match user {
            User::Querying(key) => association.querying.remove(key),
            User::Responding(key) => association.responding.remove(key),
        };
        if was_one {
            association.turns.remove(user);
        }
    }

    /// Further states of the association share this hop.
    pub(super) fn share_hop(&mut self, id: AssociationId, hop: &Hop) {
        if let Some(association) = self.table.get_mut(&id) {
            association.hops.add(hop);
        }
    }

    /// A state has messages for this association.
    pub(super) fn await_turn(&mut self, id: AssociationId, user: User) {
        if let Some(association) = self.table.get_mut(&id) {
            association.turns.insert(user);
            self.resumable.insert(id);
        }
    }

    /// The next state that may send a message over its association, none of which may have more than `most` bytes unwritten.
    pub(super) fn next_turn(&mut self, most: usize) -> Option<(AssociationId, User)> {
        while let Some(id) = self.resumable.first().copied() {
            let ready = self.table.get_mut(&id).filter(|association| association.is_open() && association.unwritten < most);
            if let Some(user) = ready.and_then(Association::take_turn) {
                return Some((id, user));
            }
            self.resumable.remove(&id);
        }
        None
    }

    /// The shell has written so many bytes.
    fn written(&mut self, id: AssociationId, bytes: usize) {
        if let Some(association) = self.table.get_mut(&id) {
            association.unwritten = association.unwritten.saturating_sub(bytes);
            self.resumable.insert(id);
        }
    }

    pub(super) fn remove(&mut self, id: AssociationId) {
        let Some(association) = self.table.remove(&id) else { return };
        let Some(peer) = association.peer else { return };
        if let Some(ids) = self.by_peer.get_mut(&peer) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }

    /// One that this node keeps open although no routing state of its own uses it.
    pub(super) fn pop_unused(&mut self) -> Option<AssociationId> {
        while let Some(id) = self.touched.pop_first() {
            let kept = |association: &Association| matches!(association.state, State::Connected | State::AwaitingConnection);
            if self.table.get(&id).is_some_and(|association| kept(association) && !association.is_used()) {
                return Some(id);
            }
        }
        None
    }
}

/// What comes with an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum AssociationInput {
    None,
    /// A message to send.
    Raw(Bytes),
    /// Why it failed.
    Reason(String),
    /// A message received.
    Message(Box<Received>),
    /// An MA-Hello received.
    Hello(Hello),
    /// An MA-Hello to send, with this ID, that asks whether what the routing state sent before has arrived.
    Proof(u32, Box<RoutingKey>),
}

impl Node {
    /// Gives an event to the association's machine.
    pub(super) fn association_event(&mut self, id: AssociationId, event: Event, input: AssociationInput, now: Instant) {
        let takes_unprotected = self.takes_any_unprotected();
        let Some(association) = self.associations.get_mut(id) else { return };
        let hello = if let AssociationInput::Hello(hello) = &input { Some(hello) } else { None };
        let authorised = |credentials| is_authorised(&self.config.authorised_peers, credentials, association.remote.ip());
        let guards = Guards {
            authorised: if association.protected { association.credentials.as_ref().is_some_and(authorised) } else { takes_unprotected },
            reply_requested: hello.is_some_and(|hello| hello.request),
            answers: hello.is_some_and(|hello| !hello.request && association.hello == Some(hello.id)),
        };
        let state = association.state;
        match step(state, event, guards) {
            Outcome::Take(transition) => {
                association.state = transition.next;
                let ends = matches!(event, Event::ErNotAuthorised | Event::ToCertificateEnd);
                if ends || event == Event::TgConnected && !guards.authorised {
                    let subject = association.credentials.as_ref().map(|credentials| credentials.subject.as_str());
                    tracing::warn!(%id, subject, remote = %association.remote, "peer is not authorised");
                    self.counters.not_authorised += 1;
                }
                self.counters.unconfirmed_ended += u64::from(event == Event::ToUnconfirmed && transition.next == State::Dead);
                Self::taken("gist-association", state, event, transition.rule, transition.next);
                for action in transition.actions {
                    self.association_action(id, *action, &input, now);
                }
            }
            Outcome::Refuse(rule) => self.refused("gist-association", state, event, rule),
            Outcome::Ignore => self.ignored("gist-association", state, event),
        }
    }

    /// Turns the shell's news into events.
    pub(super) fn association_news(&mut self, id: AssociationId, news: AssociationEvent, now: Instant) {
        match news {
            AssociationEvent::Accepted { peer_address, credentials } => self.accepted(id, peer_address, credentials, true, now),
            AssociationEvent::AcceptedUnprotected { peer_address } => {
                self.accepted(id, peer_address, self.unproved(peer_address.ip()), false, now);
            }
            AssociationEvent::Connected { credentials } => self.connected(id, credentials, true, now),
            AssociationEvent::ConnectedUnprotected => {
                let Some(address) = self.associations.get(id).map(|association| association.remote.ip()) else { return };
                self.connected(id, self.unproved(address), false, now);
            }
            AssociationEvent::Received(message) => self.receive_on_association(id, message, now),
            AssociationEvent::Written { bytes } => self.associations.written(id, bytes),
            AssociationEvent::Failed(reason) => self.association_ended(id, reason, now),
            AssociationEvent::Closed => self.association_ended(id, "closed by the peer".to_owned(), now),
        }
    }

    /// `protected` as it was asked for, or nothing comes of it.
    fn connected(&mut self, id: AssociationId, credentials: PeerCredentials, protected: bool, now: Instant) {
        let opening = |association: &&mut Association| association.state == State::AwaitingConnection && association.protected == protected;
        let Some(association) = self.associations.get_mut(id).filter(opening) else { return };
        association.certify(credentials, now);
        association.last_heard = now;
        self.association_event(id, Event::TgConnected, AssociationInput::None, now);
    }

    fn accepted(&mut self, id: AssociationId, remote: SocketAddr, credentials: PeerCredentials, protected: bool, now: Instant) {
        let key_hash = credentials.key_hash;
        let unconfirmed = self.config.caps.unconfirmed_associations;
        let most_unconfirmed = if protected { unconfirmed } else { self.part(unconfirmed) };
        let full = !self.associations.allow_one_more(&key_hash, protected, most_unconfirmed, &self.config.caps)
            || !self.has_part_of_associations(protected)
            || !self.make_room(Some(&key_hash), protected, now);
        let mut association = Association::new(false, remote, self.config.hold_time, now).over_tls(protected);
        association.certify(credentials, now);
        if full {
            tracing::warn!(%id, %remote, "association refused, the table or this peer's share of it is full");
            self.counters.refused_when_full += 1;
            self.outputs.push_back(Output::CloseAssociation { association: id });
        } else if self.associations.insert(id, association) {
            self.association_event(id, Event::TgConnected, AssociationInput::None, now);
        } else {
            tracing::error!(%id, "accepted twice");
        }
    }

    fn association_ended(&mut self, id: AssociationId, reason: String, now: Instant) {
        let Some(association) = self.associations.get(id) else { return };
        let event = if association.is_open() { Event::ErMAFailure } else { Event::ErMAConnect };
        self.association_event(id, event, AssociationInput::Reason(reason), now);
    }

    /// After a change of the authorised peer database.
    pub(super) fn judge_associations(&mut self) {
        for (id, association) in self.associations.iter() {
            let Some(credentials) = association.credentials.as_ref().filter(|_| association.protected) else { continue };
            if !is_authorised(&self.config.authorised_peers, credentials, association.remote.ip()) {
                self.tasks.push_back(Task::Association(id, Event::ErNotAuthorised, AssociationInput::None));
                continue;
            }
            for user in association.users() {
                if !self.may_serve(id, &user.towards()) {
                    self.tasks.push_back(user.not_authorised(id));
                }
            }
        }
    }
}
