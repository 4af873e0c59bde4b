//! What the application is told, and what a person may see.

use core::net::IpAddr;

use super::association::Association;
use super::machines::{querying, responding};
use super::receive_data::Delivery;
use super::routing_state::{Clocks, Hop, Origin, Peer, Route, RoutingKey};
use super::{AssociationEntry, Node, Output, RoutingEntry, Side};
use crate::api::{
    AssociationId, Indication, NetworkEvent, PeerHandle, Principal, ReceivedMessage, Reception, SendError, SendMessage, Transport,
};
use crate::wire::Mri;

impl Node {
    /// Gives a message to the application.
    pub(super) fn deliver(&mut self, key: &RoutingKey, sender: &Sender<'_>, delivery: Delivery) {
        self.counters.messages_delivered += 1;
        let association = delivery.origin.association();
        let &Sender { peer, ip_distance, tentative, unvalidated } = sender;
        let datagram = if let Origin::Datagram(origin) = delivery.origin { Some(origin) } else { None };
        self.outputs.push_back(Output::Indicate(Indication::Received(ReceivedMessage {
            nslp_id: key.nslp_id,
            session: key.session,
            mri: delivery.mri,
            payload: delivery.payload,
            association,
            peer: peer.identity.clone(),
            peer_handle: self.peer_handle(peer, association),
            principal: self.principal_of(peer, association),
            tentative,
            // An association over TLS is open only if its peer is authenticated and authorised.
            authenticated: association.is_some_and(|id| self.is_protected(id)),
            hop_count: delivery.hop_count,
            ip_distance,
            reception: Reception {
                transport: self.transport(association),
                unvalidated,
                explicit: delivery.explicit,
                ip_ttl: datagram.and_then(|origin| origin.ip_ttl),
                interface: datagram.map(|origin| origin.interface).filter(|interface| *interface != 0),
            },
        })));
    }

    /// Whom a peer's messages count against; those of one that has proved nothing, no better than its word.
    fn principal_of(&self, peer: &Peer, association: Option<AssociationId>) -> Principal {
        let proved = association.and_then(|id| self.associations.get(id)).and_then(Association::key_hash);
        Principal(proved.copied().unwrap_or_else(|| self.backend.0.mac(UNAUTHENTICATED, peer.identity.as_bytes())))
    }

    /// The way to a peer for a routing state: one that other states have as well, else one of its own.
    pub(super) fn hop_to(&mut self, peer: Peer, route: Route, interface: u32) -> Hop {
        let association = route.association();
        let shared = association.map_or(Some(&self.hops), |id| self.associations.get(id).map(|it| &it.hops));
        if let Some(known) = shared.and_then(|hops| hops.find(&peer, route, interface)) {
            return known.clone();
        }
        let handle = self.peer_handle(&peer, association);
        let hop = Hop::new(peer, handle, route, interface);
        match association {
            Some(id) => self.associations.share_hop(id, &hop),
            None => self.hops.add(&hop),
        }
        hop
    }

    /// The peer's name for the application; `association` is one of those it is reached by, if there is any.
    pub(super) fn peer_handle(&self, peer: &Peer, association: Option<AssociationId>) -> PeerHandle {
        let Principal(principal) = self.principal_of(peer, association);
        let address = match peer.address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        // All parts but the last have one length.
        let text = [&principal[..], &address.octets(), peer.identity.as_bytes()].concat();
        let mut handle = [0; 16];
        handle.iter_mut().zip(self.backend.0.mac(HANDLE, &text)).for_each(|(to, from)| *to = from);
        PeerHandle(handle)
    }

    pub(super) fn report_status(&mut self, message: SendMessage, error: SendError) {
        tracing::debug!(session = %message.session, %error, "message not sent");
        let SendMessage { handle, nslp_id, session, mri, .. } = message;
        self.outputs.push_back(Output::Indicate(Indication::MessageStatus { handle, nslp_id, session, mri, error }));
    }

    /// The message does not go: the application decides whether this may carry it.
    pub(super) fn propose(&mut self, message: SendMessage, transport: Transport) {
        self.outputs.push_back(Output::Indicate(Indication::MessageProposed { message, transport }));
    }

    /// `mri` has the direction of messages towards the peer concerned; the peer from now on has its route.
    pub(super) fn notify(
        &mut self,
        key: &RoutingKey,
        mri: &Mri,
        event: NetworkEvent,
        former: Option<PeerHandle>,
        peer: Option<(PeerHandle, Option<Route>)>,
    ) {
        tracing::debug!(session = %key.session, %event, "network notification");
        let (nslp_id, session, mri) = (key.nslp_id, key.session, mri.clone());
        let (peer, route) = peer.unzip();
        let authenticated = route.flatten().and_then(|route| route.association()).is_some_and(|id| self.is_protected(id));
        let notification = Indication::NetworkNotification { nslp_id, session, mri, event, former, peer, authenticated };
        self.outputs.push_back(Output::Indicate(notification));
    }

    /// How many routing states and associations there are.
    #[must_use]
    pub fn table_lengths(&self) -> (usize, usize) {
        (self.querying.len() + self.responding.len(), self.associations.len())
    }

    /// How many routing states there are, of both sides together.
    #[must_use]
    pub fn routing_states(&self) -> usize {
        self.querying.len() + self.responding.len()
    }

    /// The routing state table.
    #[must_use]
    pub fn routing_table(&self) -> Vec<RoutingEntry> {
        self.routing_entries(0, usize::MAX)
    }

    /// So many of its entries, without the first `from`.
    #[must_use]
    pub fn routing_entries(&self, from: usize, most: usize) -> Vec<RoutingEntry> {
        let querying = self.querying.iter().skip(from).map(|(key, machine)| {
            let timers = [querying::Timer::NoResponse, querying::Timer::InactiveQNode];
            let process_end = timers.into_iter().find_map(|timer| machine.expiry(timer));
            RoutingEntry {
                side: Side::Querying,
                mri: key.mri(),
                state: machine.state.to_string(),
                valid_until: machine.valid_until.or(process_end),
                queued: machine.passing().stored.len(),
                ..entry(key, machine.peer(), machine.route(), machine.ip_distance)
            }
        });
        let responding = self.responding.iter().skip(from.saturating_sub(self.querying.len())).map(|(key, machine)| RoutingEntry {
            side: Side::Responding,
            mri: key.mri().inverted(),
            state: machine.state.to_string(),
            valid_until: machine.expiry(responding::Timer::ExpireRNode),
            second_peer: machine.second().map(|second| second.hop.peer.identity.clone()),
            queued: machine.passing().stored.len(),
            ..entry(key, Some(&machine.hop.peer), Some(machine.hop.route()), machine.ip_distance)
        });
        querying.chain(responding).take(most).collect()
    }

    /// The messaging associations.
    #[must_use]
    pub fn associations(&self) -> Vec<AssociationEntry> {
        self.association_entries(0, usize::MAX)
    }

    /// So many of them, without the first `from`.
    #[must_use]
    pub fn association_entries(&self, from: usize, most: usize) -> Vec<AssociationEntry> {
        self.associations
            .iter()
            .skip(from)
            .take(most)
            .map(
                |(
                    association,
                    Association { opened_here, remote, state, peer, credentials, protected, last_heard, querying, responding, .. },
                )| {
                    AssociationEntry {
                        association,
                        opened_here: *opened_here,
                        state: state.to_string(),
                        remote: *remote,
                        transport: if *protected { Transport::Tls } else { Transport::Tcp },
                        peer: peer.as_ref().map(|peer| peer.identity.clone()),
                        subject: credentials.as_ref().map(|credentials| credentials.subject.clone()).unwrap_or_default(),
                        users: querying.len() + responding.len(),
                        last_heard: *last_heard,
                    }
                },
            )
            .collect()
    }
}

fn entry(key: &RoutingKey, peer: Option<&Peer>, route: Option<Route>, ip_distance: Option<u8>) -> RoutingEntry {
    RoutingEntry {
        side: Side::Querying,
        nslp_id: key.nslp_id,
        session: key.session,
        mri: key.mri(),
        state: String::new(),
        peer: peer.map(|peer| peer.identity.clone()),
        peer_address: peer.map(|peer| peer.address),
        association: route.and_then(|route| route.association()),
        datagram_port: if let Some(Route::Datagram(address)) = route { Some(address.port()) } else { None },
        ip_distance,
        valid_until: None,
        queued: 0,
        second_peer: None,
    }
}

/// Whose message it is that is given to the application.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'a> {
    peer: &'a Peer,
    ip_distance: Option<u8>,
    tentative: bool,
    unvalidated: bool,
}

impl<'a> Sender<'a> {
    /// The state's own peer.
    pub(super) fn of(peer: &'a Peer, ip_distance: Option<u8>) -> Self {
        Self { peer, ip_distance, tentative: false, unvalidated: false }
    }

    /// The second peer of the state.
    pub(super) fn tentative(peer: &'a Peer, ip_distance: Option<u8>) -> Self {
        Self { peer, ip_distance, tentative: true, unvalidated: false }
    }

    /// Whoever it is: no routing state knows it.
    pub(super) fn unvalidated(peer: &'a Peer) -> Self {
        Self { peer, ip_distance: None, tentative: false, unvalidated: true }
    }
}

/// Keeps handles apart from all else that is computed.
const HANDLE: &[u8; 32] = b"gist: what a handle is made from";

/// Keeps the names made of unauthenticated identities apart from hashes of keys.
const UNAUTHENTICATED: &[u8; 32] = b"gist: principal, unauthenticated";
