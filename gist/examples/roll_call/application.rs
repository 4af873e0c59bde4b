//! The application: *who is on the path of this flow?*
//!
//! A **call** travels along the path of a flow. Each node that has this application adds its name and passes the call on; the last one
//! sends the list back as an **answer**, which goes the same way in the other direction. An application like this is all that has to be
//! written: it says [`Request`]s and hears [`Indication`]s (RFC 5971 Appendix B), and knows neither sockets nor clocks, so that the same
//! code runs in memory and over sockets.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | 1 call 2 ans. |     names     |               0               |   whole words (G-370)
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! //     names, 8 octets each, filled up with zeros              //
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use gist::api::{
    Carriage, Indication, MessageHandle, NetworkEvent, PathId, ReceivedMessage, Request, Routing, RoutingStatus, SendMessage,
    TransferAttributes,
};
use gist::wire::{Direction, Mri, NslpId, PathCoupled, SessionId};

/// From the range for private and experimental use (RFC 5971 §9).
pub(crate) const ROLL_CALL: NslpId = NslpId(32720);
/// The router alert value of its Queries: routers look only at packets whose value they know.
pub(crate) const ROUTER_ALERT: u16 = 65503;

const CALL: u8 = 1;
const ANSWER: u8 = 2;
const NAME_LENGTH: usize = 8;
/// A list from elsewhere that is longer is not believed.
const MOST_NAMES: usize = 32;
/// Calls passed on of which it is not known yet whether anybody takes them. The oldest is forgotten first.
const MOST_PASSED_ON: usize = 64;
/// How long GIST may look for the next node.
const PATIENCE: Duration = Duration::from_secs(5);

/// The application on one node.
#[derive(Debug)]
pub(crate) struct RollCall {
    name: String,
    own_addresses: Vec<IpAddr>,
    /// Calls passed on, by handle: if nobody takes one, this node was the last.
    passed_on: BTreeMap<u64, (ReceivedMessage, Vec<String>)>,
    next_handle: u64,
    /// Answers to this node's own calls.
    pub(crate) answers: Vec<Vec<String>>,
    /// What GIST has said besides messages, in words.
    pub(crate) news: Vec<String>,
}

impl RollCall {
    /// On a node with this name and these addresses.
    pub(crate) fn new(name: &str, own_addresses: Vec<IpAddr>) -> Self {
        let name = name.to_owned();
        Self { name, own_addresses, passed_on: BTreeMap::new(), next_handle: 1, answers: Vec::new(), news: Vec::new() }
    }

    /// Calls the roll of a flow (SendMessage, B.1).
    pub(crate) fn call(&mut self, session: SessionId, flow: &Mri) -> Request {
        let handle = self.new_handle();
        send(session, flow, &roll(CALL, std::slice::from_ref(&self.name)), handle)
    }

    /// Whether this node takes part in calls to come: the answer to the peering question (RecvMessage, B.2). While it does not, calls
    /// go past it.
    pub(crate) fn take_part(willing: bool) -> Request {
        Request::SetPeering { nslp_id: ROLL_CALL, willing }
    }

    /// How long GIST shall remember the next node without a call (SetStateLifetime, B.5); zero: it may forget it now.
    pub(crate) fn remember(session: SessionId, flow: &Mri, lifetime: Duration) -> Request {
        Request::SetStateLifetime { nslp_id: ROLL_CALL, session, mri: flow.clone(), lifetime }
    }

    /// The next node may be another one now: GIST shall ask at once (InvalidateRoutingState, B.6).
    pub(crate) fn doubt(session: SessionId, flow: &Mri) -> Request {
        let (status, urgent) = (RoutingStatus::Tentative, true);
        Request::InvalidateRoutingState { nslp_id: ROLL_CALL, session, mri: flow.clone(), status, urgent }
    }

    /// What to ask of GIST after what it has said.
    pub(crate) fn hear(&mut self, indication: Indication) -> Vec<Request> {
        match indication {
            Indication::Received(message) => adopt(&message).into_iter().chain(self.received(message)).collect(),
            // B.3: nobody took a message.
            Indication::MessageStatus { handle, error, .. } => {
                self.news.push(format!("message {} was not sent: {error}", handle.0));
                let last = self.passed_on.remove(&handle.0);
                last.map(|(call, names)| self.answer(&call, &names)).into_iter().collect()
            }
            // For who wants to decide what carries its messages.
            Indication::MessageProposed { .. } => Vec::new(),
            // B.4: something happened to the way.
            Indication::NetworkNotification { session, mri, event, .. } => {
                self.news.push(event.to_string());
                let is_caller = mri.direction() == Direction::Downstream && self.own_addresses.contains(&mri.source());
                (event == NetworkEvent::PeerChanged && is_caller).then(|| self.call(session, &mri)).into_iter().collect()
            }
        }
    }

    fn received(&mut self, message: ReceivedMessage) -> Option<Request> {
        // Never believe what came: everything that is not just so is dropped.
        let (kind, mut names) = read(&message.payload)?;
        match (kind, message.mri.direction()) {
            (CALL, Direction::Downstream) => {
                names.push(self.name.clone());
                if self.own_addresses.contains(&message.mri.destination()) {
                    return Some(self.answer(&message, &names));
                }
                let handle = self.new_handle();
                let request = pass_on(&message, &roll(CALL, &names), handle);
                self.passed_on.insert(handle, (message, names));
                if self.passed_on.len() > MOST_PASSED_ON {
                    self.passed_on.pop_first();
                }
                Some(request)
            }
            (ANSWER, Direction::Upstream) if self.own_addresses.contains(&message.mri.source()) => {
                self.answers.push(names);
                None
            }
            (ANSWER, Direction::Upstream) => Some(pass_on(&message, &message.payload, self.new_handle())),
            _ => None,
        }
    }

    /// Back to whoever the call came from, which GIST knows.
    fn answer(&mut self, call: &ReceivedMessage, names: &[String]) -> Request {
        let handle = self.new_handle();
        send(call.session, &call.mri.inverted(), &roll(ANSWER, names), handle)
    }

    fn new_handle(&mut self) -> u64 {
        self.next_handle += 1;
        self.next_handle - 1
    }
}

/// The flow of all UDP packets between two hosts, and the direction of messages along it.
pub(crate) fn flow(source: IpAddr, destination: IpAddr) -> Mri {
    let whole = if source.is_ipv4() { 32 } else { 128 };
    Mri::PathCoupled(PathCoupled {
        direction: Direction::Downstream,
        source,
        destination,
        source_prefix: whole,
        destination_prefix: whole,
        protocol: Some(17),
        ds_field: None,
        flow_label: None,
        spi: None,
        source_port: None,
        destination_port: None,
    })
}

fn send(session: SessionId, flow: &Mri, payload: &Bytes, handle: u64) -> Request {
    Request::Send(SendMessage {
        nslp_id: ROLL_CALL,
        session,
        mri: flow.clone(),
        payload: payload.clone(),
        attributes: TransferAttributes::RELIABLE_AND_SECURE,
        handle: MessageHandle(handle),
        timeout: Some(PATIENCE),
        hop_count: None,
        on_behalf_of: None,
        path: PathId::ROUTED,
        routing: Routing::State,
        carriage: Carriage::Any,
    })
}

/// The path upstream may have changed: answers go to the peer that this call has come from. An application for which anything depends on
/// that looks first whether the flow's source has signed the call; this one believes it.
fn adopt(message: &ReceivedMessage) -> Option<Request> {
    let (mri, peer) = (message.mri.inverted(), message.peer_handle);
    message.tentative.then_some(Request::AdoptPeer { nslp_id: ROLL_CALL, session: message.session, mri, peer })
}

/// A message that another one leads to: it has one hop less to go, and counts against whoever sent that one.
fn pass_on(message: &ReceivedMessage, payload: &Bytes, handle: u64) -> Request {
    match send(message.session, &message.mri, payload, handle) {
        Request::Send(own) => {
            Request::Send(SendMessage { hop_count: Some(message.hop_count), on_behalf_of: Some(message.principal), ..own })
        }
        other => other,
    }
}

fn roll(kind: u8, names: &[String]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[kind, u8::try_from(names.len()).unwrap_or(u8::MAX), 0, 0]);
    for name in names {
        let octets = name.bytes().chain(std::iter::repeat(0)).take(NAME_LENGTH);
        out.extend(octets);
    }
    out.freeze()
}

/// `None` if it is no roll.
fn read(payload: &Bytes) -> Option<(u8, Vec<String>)> {
    let (head, names) = payload.split_first_chunk::<4>()?;
    let [kind, count, 0, 0] = *head else { return None };
    if usize::from(count) > MOST_NAMES || names.len() != usize::from(count) * NAME_LENGTH {
        return None;
    }
    let name = |octets: &[u8]| std::str::from_utf8(octets).map(|name| name.trim_end_matches('\0').to_owned());
    Some((kind, names.chunks(NAME_LENGTH).map(name).collect::<Result<_, _>>().ok()?))
}
