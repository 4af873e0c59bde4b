//! The GIST node: RFC 5971 §4 and §6 without sockets, clock, tasks or randomness.
//!
//! A message's way: [`Node::handle_datagram`] or [`Node::handle_association`] → `receive` (hop count, encapsulation,
//! addresses) → the handler of its type → one of the machines of `fsm-specs/tables/gist`, whose actions are performed in
//! `querying_actions`, `responding_actions`, `association_actions`. Machines do not call each other: what one wants of
//! another is a task, done when the first has finished.

mod allowance;
mod association;
mod association_actions;
mod authorised_peers;
mod authority;
mod bucket;
mod bypass;
mod candidates;
mod config;
mod cookie;
mod doubt;
mod error_reply;
mod indicate;
mod input;
mod installation;
mod machines;
mod neighbours;
mod node_machine;
mod output;
mod packed_mri;
mod protection;
mod querying;
mod querying_actions;
mod querying_state;
mod random;
mod rate;
mod receive;
mod receive_confirm;
mod receive_data;
mod receive_error;
mod receive_query;
mod receive_response;
mod refused;
mod reply;
mod request;
mod responding;
mod responding_actions;
mod room;
mod routing_state;
mod sorted;
mod stack;
mod task;
#[cfg(test)]
mod test_backend;
mod timers;
mod translation;
mod transmit;
mod view;
mod waiting;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::api::{AssociationId, Principal, Request, RoutingStatus};
use crate::time::Instant;
use crate::wire::{Direction, NslpId};

pub use config::{
    AddressPrefix, ApdEntry, Caps, DatagramRate, IdentityPattern, Installation, NodeConfig, NotAPrefix, PeerRole, Registration, Role,
};
pub use input::{AssociationEvent, Backend, Datagram, PeerCredentials};
pub use output::{Output, Transmit};
pub use refused::Refused;
pub use transmit::SMALLEST_PATH_MTU;
pub use view::{AssociationEntry, Counters, RoutingEntry, Side};

use association::Associations;
use cookie::ResponderCookies;
use input::SharedBackend;
use installation::Early;
use querying::QueryingInput;
use querying_state::Querying;
use random::{Random, Secret};
use rate::RateLimiter;
use responding::Responding;
use routing_state::{RoutingKey, SharedAddresses, SharedHops};
use sorted::SortedMap;
use task::Task;
use timers::Timers;
use translation::Translations;

/// A GIST node.
///
/// After every `handle_*`, drain [`Node::poll_output`] to `None`; then sleep until [`Node::poll_timeout`].
///
/// Two nodes are equal if they would go on alike; the backend does not count, the counters do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    config: NodeConfig,
    backend: SharedBackend,
    random: Random,
    cookies: ResponderCookies,
    limiter: RateLimiter,
    timers: Timers,
    querying: SortedMap<RoutingKey, Box<Querying>>,
    responding: SortedMap<RoutingKey, Box<Responding>>,
    /// Of the responding states those that came with a Query.
    early: Early,
    translations: Translations,
    /// How many querying states each principal's messages have led to.
    causes: BTreeMap<Arc<Principal>, usize>,
    /// Those of the ways to peers reached by datagrams that states have in common.
    hops: SharedHops,
    /// Those of its own addresses that states have in common.
    addresses: SharedAddresses,
    associations: Associations,
    /// The last messages sent without routing state, for Errors about them: flow and length, [`MOST_STATELESS`] at most, oldest first.
    stateless: VecDeque<(RoutingKey, u16)>,
    /// Applications that do not want to become a peer at present.
    declining: BTreeSet<NslpId>,
    /// Since when the shell reads associations; `None` while it does not, when that nothing is heard says nothing about their peers.
    reading_since: Option<Instant>,
    /// Bytes of the application's messages that wait, in all routing states together.
    queued_bytes: usize,
    /// Empty between two inputs.
    tasks: VecDeque<Task>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Node {
    /// Makes a node. Cookies, secrets and random instants all come from `seed`, which must be secret and new per start.
    #[must_use]
    pub fn new(config: NodeConfig, backend: Arc<dyn Backend>, seed: [u8; 32]) -> Self {
        let seed = Secret::new(seed);
        let secret = Random::new(&seed.derive(&*backend, b"GIST rate limit", 0), &*backend).u64(&*backend);
        Self {
            random: Random::new(&seed, &*backend),
            cookies: ResponderCookies::new(&seed, &*backend, config.cookie_lifetime),
            limiter: RateLimiter::new(config.datagram_rate, config.caps.queued_datagrams, secret),
            timers: Timers::default(),
            querying: SortedMap::default(),
            responding: SortedMap::default(),
            early: Early::default(),
            translations: Translations::default(),
            causes: BTreeMap::new(),
            hops: SharedHops::default(),
            addresses: SharedAddresses::default(),
            associations: Associations::default(),
            stateless: VecDeque::new(),
            declining: BTreeSet::new(),
            reading_since: Some(Instant::ZERO),
            queued_bytes: 0,
            tasks: VecDeque::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            config,
            backend: SharedBackend(backend),
        }
    }

    /// Takes a datagram.
    pub fn handle_datagram(&mut self, datagram: Datagram, now: Instant) {
        self.receive_datagram(datagram, now);
        self.settle(now);
    }

    /// Takes news of a messaging association. News of one that is closed are ignored.
    pub fn handle_association(&mut self, association: AssociationId, event: AssociationEvent, now: Instant) {
        self.association_news(association, event, now);
        self.settle(now);
    }

    /// Takes a request of the application.
    pub fn handle_request(&mut self, request: Request, now: Instant) {
        self.request(request, now);
        self.settle(now);
    }

    /// Hears that packets to these destinations leave this node by another next hop than before: whose flows go there, the peer
    /// may be another one, so that it is asked for at once (RFC 5971 §7.1.2 local trigger, G-305). Messages go on to the old peer
    /// until another answers; then the application hears of it.
    pub fn handle_route_change(&mut self, destinations: &BTreeSet<IpAddr>, now: Instant) {
        let concerned =
            |key: &&RoutingKey| key.mri().direction() == Direction::Downstream && destinations.contains(&key.mri().destination());
        let keys: Vec<RoutingKey> = self.querying.keys().filter(concerned).cloned().collect();
        for key in keys {
            let input = QueryingInput::Invalidate { status: RoutingStatus::Tentative, urgent: true };
            self.querying_event(&key, machines::querying::Event::TgInvalidate, input, now);
            self.settle(now);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.timers.pop_due(now) {
            self.expired(due, now);
            self.settle(now);
        }
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Node::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// A name for an association that a peer opens, for [`AssociationEvent::Accepted`].
    pub fn accept_id(&mut self) -> AssociationId {
        self.associations.next_id()
    }

    /// Replaces the authorised peer database and judges every association anew (G-097). Drain as after a `handle_*`.
    pub fn set_authorised_peers(&mut self, entries: Vec<ApdEntry>, now: Instant) {
        self.config.authorised_peers = entries;
        self.judge_associations();
        self.settle(now);
    }

    /// Replaces the node's own addresses.
    pub fn set_local_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.config.local_addresses = addresses;
    }

    /// Says whether the application is willing to become the peer of whoever asks from now on; at first it is.
    ///
    /// While it is not, Queries pass on towards their destination (G-038, X-112). A flow's destination peers in any case
    /// (G-035), and existing state is refreshed.
    pub fn set_peering(&mut self, nslp_id: NslpId, willing: bool) {
        if willing {
            self.declining.remove(&nslp_id);
        } else {
            self.declining.insert(nslp_id);
        }
    }

    /// Says whether associations are read from now on; at first they are. While they are not, since the application is slow (G-011), the
    /// peers' silence is held against none of them.
    pub fn set_reading(&mut self, reads: bool, now: Instant) {
        self.reading_since = reads.then(|| self.reading_since.unwrap_or(now));
    }

    /// What happened how often.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn registration(&self, nslp_id: NslpId) -> Option<&Registration> {
        self.config.registrations.iter().find(|registration| registration.nslp_id == nslp_id)
    }

    /// Whether what goes to this address goes no further.
    fn ends_here(&self, destination: IpAddr) -> bool {
        self.config.role == Role::Host || self.is_local(destination)
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.config.local_addresses.contains(&address)
    }

    /// RS-validity-time this node asks for: raised where refreshing everything in time would need more datagrams than the
    /// rate limit allows (G-110).
    fn validity(&self) -> Duration {
        // Over an association only the Query is a datagram.
        let confirmed = self.responding.len().saturating_sub(self.early.unconfirmed());
        let answered = if self.config.registrations.iter().all(Registration::is_secure) { 0 } else { confirmed };
        let states = u32::try_from(self.querying.len() + answered).unwrap_or(u32::MAX);
        let bearable = Duration::from_secs(2).saturating_mul(states) / self.limiter.most_of_its_own();
        self.config.validity.max(bearable).clamp(Duration::from_millis(1), MAX_VALIDITY)
    }

    /// The validity both ends use: what the querying node proposes, but no shorter than ours, and no longer than twice ours
    /// or [`MOST_UNPROVED_VALIDITY`].
    fn agreed_validity(&self, proposed: Duration) -> Duration {
        let own = self.validity();
        proposed.clamp(own, own.saturating_mul(VALIDITY_FACTOR).max(MOST_UNPROVED_VALIDITY).min(MAX_VALIDITY))
    }
}

/// A peer that proposes a longer validity gets at most so many times ours: state of one handshake should not outlive
/// what made it.
const VALIDITY_FACTOR: u32 = 2;

/// What a querying node believes of a validity that came in a datagram, and what every responding node grants who asks for it:
/// twice RFC 5971's default. Were the first longer than the second, whoever can change a Response on its way could make the
/// responding node forget long before the querying node refreshes.
const MOST_UNPROVED_VALIDITY: Duration = Duration::from_secs(60);

/// Messages without routing state that an Error can still be about; the oldest is forgotten first.
const MOST_STATELESS: usize = 64;

/// What the NLI's field can say.
const MAX_VALIDITY: Duration = Duration::from_millis(u32::MAX as u64);
