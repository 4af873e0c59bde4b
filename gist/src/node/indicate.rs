//! What the application is told, and what a person may see.

use super::association::Association;
use super::machines::{querying, responding};
use super::receive_data::Delivery;
use super::routing_state::{Peer, Route, RoutingKey};
use super::timers::TimerKey;
use super::{AssociationEntry, Node, Output, RoutingEntry, Side};
use crate::api::{Indication, NetworkEvent, Principal, ReceivedMessage, SendError, SendMessage};
use crate::wire::{Mri, PeerIdentity};

impl Node {
    /// Gives a message to the application.
    pub(super) fn deliver(&mut self, key: &RoutingKey, peer: &PeerIdentity, ip_distance: Option<u8>, delivery: Delivery) {
        self.counters.messages_delivered += 1;
        let association = delivery.origin.association();
        let credentials = association.and_then(|id| self.associations.get(id)).and_then(|association| association.credentials.as_ref());
        let principal = credentials.map_or_else(|| self.unauthenticated(peer), |credentials| Principal(credentials.key_hash));
        self.outputs.push_back(Output::Indicate(Indication::Received(ReceivedMessage {
            nslp_id: key.nslp_id,
            session: key.session,
            mri: delivery.mri,
            payload: delivery.payload,
            association,
            peer: peer.clone(),
            principal,
            // An association is open only if its peer is authenticated and authorised.
            authenticated: association.is_some(),
            hop_count: delivery.hop_count,
            ip_distance,
        })));
    }

    /// Whom messages of a peer that has proved nothing count against: no better than its word.
    fn unauthenticated(&self, peer: &PeerIdentity) -> Principal {
        Principal(self.backend.0.mac(UNAUTHENTICATED, peer.as_bytes()))
    }

    pub(super) fn report_status(&mut self, message: SendMessage, error: SendError) {
        tracing::debug!(session = %message.session, %error, "message not sent");
        let SendMessage { handle, nslp_id, session, mri, .. } = message;
        self.outputs.push_back(Output::Indicate(Indication::MessageStatus { handle, nslp_id, session, mri, error }));
    }

    /// `mri` has the direction of messages towards the peer concerned.
    pub(super) fn notify(&mut self, key: &RoutingKey, mri: &Mri, event: NetworkEvent) {
        tracing::debug!(session = %key.session, %event, "network notification");
        let (nslp_id, session, mri) = (key.nslp_id, key.session, mri.clone());
        self.outputs.push_back(Output::Indicate(Indication::NetworkNotification { nslp_id, session, mri, event }));
    }

    /// The routing state table.
    #[must_use]
    pub fn routing_table(&self) -> Vec<RoutingEntry> {
        let querying = self.querying.iter().map(|(key, machine)| {
            let timers = [querying::Timer::NoResponse, querying::Timer::InactiveQNode];
            let process_end = timers.into_iter().find_map(|t| self.timers.expiry(&TimerKey::Querying(key.clone(), t)));
            RoutingEntry {
                side: Side::Querying,
                mri: key.mri.clone(),
                state: machine.state.to_string(),
                valid_until: machine.valid_until.or(process_end),
                queued: machine.stored.len(),
                ..entry(key, machine.peer.as_ref(), machine.route, machine.ip_distance)
            }
        });
        let responding = self.responding.iter().map(|(key, machine)| RoutingEntry {
            side: Side::Responding,
            mri: key.mri.inverted(),
            state: machine.state.to_string(),
            valid_until: self.timers.expiry(&TimerKey::Responding(key.clone(), responding::Timer::ExpireRNode)),
            ..entry(key, Some(&machine.peer), Some(machine.route), machine.ip_distance)
        });
        querying.chain(responding).collect()
    }

    /// The messaging associations.
    #[must_use]
    pub fn associations(&self) -> Vec<AssociationEntry> {
        self.associations
            .iter()
            .map(|(association, Association { opened_here, remote, state, peer, credentials, users, last_heard, .. })| AssociationEntry {
                association,
                opened_here: *opened_here,
                state: state.to_string(),
                remote: *remote,
                peer: peer.as_ref().map(|peer| peer.identity.clone()),
                subject: credentials.as_ref().map(|credentials| credentials.subject.clone()).unwrap_or_default(),
                users: users.len(),
                last_heard: *last_heard,
            })
            .collect()
    }
}

fn entry(key: &RoutingKey, peer: Option<&Peer>, route: Option<Route>, ip_distance: Option<u8>) -> RoutingEntry {
    RoutingEntry {
        side: Side::Querying,
        nslp_id: key.nslp_id,
        session: key.session,
        mri: key.mri.clone(),
        state: String::new(),
        peer: peer.map(|peer| peer.identity.clone()),
        peer_address: peer.map(|peer| peer.address),
        association: route.and_then(|route| route.association()),
        datagram_port: if let Some(Route::Datagram(address)) = route { Some(address.port()) } else { None },
        ip_distance,
        valid_until: None,
        queued: 0,
    }
}

/// Keeps the names made of unauthenticated identities apart from hashes of keys.
const UNAUTHENTICATED: &[u8; 32] = b"gist: principal, unauthenticated";
