//! What querying and responding machines have in common (RFC 5971 §4.2.1).

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, SocketAddr};
use core::ops::Deref;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::machines::{querying, responding};
use super::packed_mri::PackedMri;
use super::querying::QueryingInput;
use super::responding::RespondingInput;
use super::sorted::Key;
use super::task::Task;
use crate::api::{AssociationId, PeerHandle};
use crate::time::Instant;
use crate::wire::{Mri, Nli, NslpId, PeerIdentity, SessionId};

/// Names a routing state (G-002). A table, its timers and its association share one copy of the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RoutingKey(Arc<RoutingName>);

/// Application, session, and flow in the direction of the Query.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RoutingName {
    pub(super) nslp_id: NslpId,
    pub(super) session: SessionId,
    mri: PackedMri,
}

impl RoutingName {
    /// In the direction the Query goes; messages of the querying node have the same, those of the responding node the other.
    pub(super) fn mri(&self) -> Mri {
        self.mri.unpacked()
    }
}

impl fmt::Debug for RoutingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nslp_id, session, mri } = self;
        f.debug_struct("RoutingName").field("nslp_id", nslp_id).field("session", session).field("mri", &mri.unpacked()).finish()
    }
}

impl RoutingKey {
    /// The key of the state whose Query goes the way of `mri`.
    pub(super) fn along(nslp_id: NslpId, session: SessionId, mri: &Mri) -> Self {
        Self::new(nslp_id, session, PackedMri::of(mri, mri.direction()))
    }

    /// The key of the state whose Query goes against `mri`.
    pub(super) fn against(nslp_id: NslpId, session: SessionId, mri: &Mri) -> Self {
        Self::new(nslp_id, session, PackedMri::of(mri, mri.direction().inverted()))
    }

    fn new(nslp_id: NslpId, session: SessionId, mri: PackedMri) -> Self {
        Self(Arc::new(RoutingName { nslp_id, session, mri }))
    }
}

impl Deref for RoutingKey {
    type Target = RoutingName;

    fn deref(&self) -> &RoutingName {
        &self.0
    }
}

impl PartialOrd for RoutingKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The first octets of the name.
impl Key for RoutingKey {
    fn rank(&self) -> u64 {
        let [a, b] = self.nslp_id.0.to_be_bytes();
        let SessionId([c, d, e, f, g, h, ..]) = self.session;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// In a table of timers.
impl Key for (Instant, RoutingKey) {
    fn rank(&self) -> u64 {
        self.0.micros()
    }
}

/// By the name; what is shared need not be compared.
impl Ord for RoutingKey {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

/// A peer by its Network-Layer-Information (RFC 5971 §4.4.3): what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) identity: PeerIdentity,
    pub(super) address: IpAddr,
}

impl From<&Nli> for Peer {
    fn from(nli: &Nli) -> Self {
        Self { identity: nli.peer.clone(), address: nli.address }
    }
}

/// A peer and the way to it. All states of an association share one copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Hop(Arc<HopName>);

/// What a routing state knows of where its messages go, and come from.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HopName {
    pub(super) peer: Peer,
    /// The peer's name for the application.
    pub(super) handle: PeerHandle,
    way: Way,
    /// The interface the peer's Query came in by; 0 if unknown, and of a peer downstream.
    pub(super) interface: u32,
}

/// A [`Route`] beside the peer that it leads to, in half the memory.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Way {
    Association(AssociationId),
    /// In datagrams to this port at the peer's own address.
    Port(u16),
    /// In datagrams to another address than the peer's own.
    Elsewhere(Box<SocketAddr>),
}

impl Hop {
    pub(super) fn new(peer: Peer, handle: PeerHandle, route: Route, interface: u32) -> Self {
        let way = match route {
            Route::Association(id) => Way::Association(id),
            Route::Datagram(to) if to == SocketAddr::new(peer.address, to.port()) => Way::Port(to.port()),
            Route::Datagram(to) => Way::Elsewhere(Box::new(to)),
        };
        Self(Arc::new(HopName { peer, handle, way, interface }))
    }
}

impl HopName {
    /// How messages reach the peer.
    pub(super) fn route(&self) -> Route {
        match &self.way {
            Way::Association(id) => Route::Association(*id),
            Way::Port(port) => Route::Datagram(SocketAddr::new(self.peer.address, *port)),
            Way::Elsewhere(to) => Route::Datagram(**to),
        }
    }
}

impl Deref for Hop {
    type Target = HopName;

    fn deref(&self) -> &HopName {
        &self.0
    }
}

/// Hops that states have had last, [`MOST_HOPS`] at most: those of one open association, or of all that are reached by datagrams. Who finds
/// none there makes one of its own, so that this says nothing of what a node does: all are equal.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedHops(VecDeque<Hop>);

/// An association has one peer, whose Queries come in by few interfaces; and a node has few neighbours.
const MOST_HOPS: usize = 8;

impl SharedHops {
    /// The hop that is already known.
    pub(super) fn find(&self, peer: &Peer, route: Route, interface: u32) -> Option<&Hop> {
        self.0.iter().find(|hop| hop.interface == interface && hop.peer == *peer && hop.route() == route)
    }

    /// Takes the hop in, in place of the oldest one.
    pub(super) fn add(&mut self, hop: &Hop) {
        if self.0.len() >= MOST_HOPS {
            self.0.pop_front();
        }
        self.0.push_back(hop.clone());
    }
}

impl PartialEq for SharedHops {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SharedHops {}

impl Hash for SharedHops {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Addresses of this node that its states have used last, [`MOST_ADDRESSES`] at most. As with [`SharedHops`] all are equal.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedAddresses(VecDeque<Arc<IpAddr>>);

/// A node has few addresses of its own.
const MOST_ADDRESSES: usize = 16;

impl SharedAddresses {
    /// The copy of an address that all states share.
    pub(super) fn share(&mut self, address: IpAddr) -> Arc<IpAddr> {
        if let Some(known) = self.0.iter().find(|known| ***known == address) {
            return known.clone();
        }
        if self.0.len() >= MOST_ADDRESSES {
            self.0.pop_front();
        }
        let shared = Arc::new(address);
        self.0.push_back(shared.clone());
        shared
    }
}

impl PartialEq for SharedAddresses {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SharedAddresses {}

impl Hash for SharedAddresses {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A validity time as an NLI says it: whole milliseconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Validity(u32);

impl From<Duration> for Validity {
    fn from(span: Duration) -> Self {
        Self(u32::try_from(span.as_millis()).unwrap_or(u32::MAX).max(1))
    }
}

impl Validity {
    pub(super) fn span(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

/// Which of a routing state's timers has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired<Timer> {
    /// One of its machine's.
    Timer(Timer),
    /// That of a message that waits until the peer takes more.
    Waits,
}

/// The moments that a routing state keeps itself: of its machine's timers, and of the message that waits longest.
pub(super) trait Clocks {
    /// The machine's timers.
    type Timer: Copy + 'static;
    /// All of them.
    const TIMERS: &'static [Self::Timer];

    /// When a timer expires; `None` if it does not run.
    fn expiry(&self, timer: Self::Timer) -> Option<Instant>;

    /// Starts a timer, afresh if it runs, or stops it.
    fn set_timer(&mut self, timer: Self::Timer, at: Option<Instant>);

    /// When the first message has waited too long for the peer to take more.
    fn waits(&self) -> Option<Instant>;

    /// Says that it is then, or that none waits.
    fn set_waits(&mut self, at: Option<Instant>);

    /// What expires first, and when.
    fn first_timer(&self) -> Option<(Instant, Expired<Self::Timer>)> {
        let of_machine = Self::TIMERS.iter().filter_map(|timer| Some((self.expiry(*timer)?, Expired::Timer(*timer))));
        let of_message = self.waits().map(|at| (at, Expired::Waits));
        of_machine.chain(of_message).min_by_key(|(at, _)| *at)
    }

    /// When the first timer expires.
    fn due(&self) -> Option<Instant> {
        self.first_timer().map(|(at, _)| at)
    }

    /// Stops the timer that expires first.
    fn take_due(&mut self) -> Option<Expired<Self::Timer>> {
        let (_, expired) = self.first_timer()?;
        match expired {
            Expired::Timer(timer) => self.set_timer(timer, None),
            Expired::Waits => self.set_waits(None),
        }
        Some(expired)
    }
}

/// The earlier of two moments.
pub(super) fn first(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// How messages reach the peer (G-022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Route {
    /// Over this association.
    Association(AssociationId),
    /// In datagrams to this address and port.
    Datagram(SocketAddr),
}

impl Route {
    pub(super) fn association(&self) -> Option<AssociationId> {
        match self {
            Self::Association(id) => Some(*id),
            Self::Datagram(_) => None,
        }
    }
}

/// Who keeps an association.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum User {
    Querying(RoutingKey),
    Responding(RoutingKey),
}

impl User {
    /// The flow with the direction of messages towards the association's peer.
    pub(super) fn towards(&self) -> Mri {
        match self {
            Self::Querying(key) => key.mri(),
            Self::Responding(key) => key.mri().inverted(),
        }
    }

    /// What the user is told when the peer may not, or not any more, serve its flow.
    pub(super) fn not_authorised(&self, association: AssociationId) -> Task {
        match self {
            Self::Querying(key) => {
                let input = QueryingInput::Ended { association, reason: String::new() };
                Task::Querying(key.clone(), querying::Event::ErNotAuthorised, input)
            }
            Self::Responding(key) => Task::Responding(key.clone(), responding::Event::ErNotAuthorised, RespondingInput::Ended(association)),
        }
    }
}

/// Whether this can be the address of one single node that is not on one certain link only, so that a message may be sent there
/// only because some message named it (G-156, G-330). Which link a link-local one is of, no message says.
pub(super) fn is_unicast(address: IpAddr) -> bool {
    match address {
        // "This network" (RFC 791), multicast, and what has no use, broadcast included.
        IpAddr::V4(address) => !matches!(address.octets(), [0 | 224.., ..]) && !address.is_link_local(),
        IpAddr::V6(v6) => {
            let is_v4 = address.to_canonical() != address;
            !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local() && !is_v4
        }
    }
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// An association.
    Association(AssociationId),
    /// A datagram.
    Datagram(DatagramOrigin),
}

/// What a datagram's envelope shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DatagramOrigin {
    pub(super) source: SocketAddr,
    pub(super) destination: IpAddr,
    pub(super) ip_ttl: Option<u8>,
    pub(super) interface: u32,
    /// Taken off its way to somebody else.
    pub(super) intercepted: bool,
    pub(super) query_mode: bool,
    pub(super) router_alert: Option<u16>,
}

impl Origin {
    pub(super) fn association(&self) -> Option<AssociationId> {
        match self {
            Self::Association(id) => Some(*id),
            Self::Datagram(_) => None,
        }
    }
}
